#!/usr/bin/env -S node --no-warnings
// Runs a program built for wasm32-wasip1 in V8: what cargo runs the tests of such a build with (.cargo/config.toml).
//
//   stack/wasi.mjs <program.wasm> [ARGUMENT ...]

import { readFile } from "node:fs/promises";
import { argv, env, exit } from "node:process";
import { WASI } from "node:wasi";

const [, , file, ...rest] = argv;
const wasi = new WASI({ version: "preview1", args: [file, ...rest], env });
const { instance } = await WebAssembly.instantiate(await readFile(file), wasi.getImportObject());
exit(wasi.start(instance));
