// Lets the scripts here import the packages of stack/node_modules, or of the directory under stack/ that PACKAGES
// names: node --import ./tests/clients/resolve.mjs tests/clients/fetch.mjs …

import { register } from "node:module";
import { isMainThread } from "node:worker_threads";

const here = new URL(".", import.meta.url).href;
const packages = new URL(`../../stack/${process.env.PACKAGES ?? "."}/package.json`, import.meta.url).href;

if (isMainThread) register(import.meta.url);

export function resolve(specifier, context, next) {
  const ours = context.parentURL?.startsWith(here) && !/^[./]|^\w+:/.test(specifier);
  return next(specifier, ours ? { ...context, parentURL: packages } : context);
}
