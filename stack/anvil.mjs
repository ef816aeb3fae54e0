// Where anvil is kept, and which package brings it. No dependencies: install.mjs runs before anything is installed.

import path from "node:path";
import { fileURLToPath } from "node:url";

const VERSION = "1.7.1";
const platform = `${process.platform}-${{ x64: "amd64" }[process.arch] ?? process.arch}`;
const name = `@foundry-rs/anvil-${platform}`;

export const ANVIL = `${name}@${VERSION}`;

export const anvilDirectory = () =>
  path.join(path.dirname(fileURLToPath(import.meta.url)), "../.local", `anvil-${VERSION}`);

export const anvilBinary = () =>
  path.join(anvilDirectory(), "node_modules", name, "bin", process.platform === "win32" ? "anvil.exe" : "anvil");
