// What cargo has built, made smaller and no slower: a seventh of the module goes.
//
//   node stack/optimise.mjs <built.wasm> <shipped.wasm>
//
// Installs Binaryen below .local/ the first time. Does nothing where the second file was made of the first already.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const VERSION = "132.0.0";
// What rustc uses for wasm32-wasip1, all of it known to the V8 of Envoy 1.36 to 1.40.
const FEATURES = ["bulk-memory", "bulk-memory-opt", "call-indirect-overlong", "multivalue", "mutable-globals",
  "nontrapping-float-to-int", "reference-types", "sign-ext"].map(name => `--enable-${name}`);
const OPTIONS = [...FEATURES, "-O3", "--merge-similar-functions", "--strip-debug", "--strip-producers"];
// What Envoy calls in an HTTP filter that makes HTTP calls. The SDK exports its callbacks for gRPC, TCP and queues too, with all that is
// behind them; Envoy leaves out what is not there.
const EXPORTS = ["memory", "_initialize", "proxy_abi_version_0_2_1", "proxy_on_configure", "proxy_on_context_create", "proxy_on_delete",
  "proxy_on_done", "proxy_on_http_call_response", "proxy_on_log", "proxy_on_memory_allocate", "proxy_on_request_body",
  "proxy_on_request_headers", "proxy_on_request_trailers", "proxy_on_response_body", "proxy_on_response_headers",
  "proxy_on_response_trailers", "proxy_on_tick", "proxy_on_vm_start"];

const [built, shipped] = process.argv.slice(2);
const fail = text => {
  console.error(`[stack] ${text}`);
  process.exit(1);
};
if (!shipped) fail("usage: node stack/optimise.mjs <built.wasm> <shipped.wasm>");

const home = path.join(path.dirname(fileURLToPath(import.meta.url)), "../.local", `binaryen-${VERSION}`);
const program = name => path.join(home, "node_modules/binaryen/bin", name);
const stamp = `${shipped}.made-of`;
const want = createHash("sha256").update(readFileSync(built)).update(JSON.stringify([VERSION, OPTIONS, EXPORTS])).digest("hex");
if (!(existsSync(shipped) && existsSync(stamp) && readFileSync(stamp, "utf8") === want)) {
  install();
  // Written beside and moved into place: whoever stops this in the middle has the module from before, or none.
  const partial = `${shipped}.partial`;
  const graph = `${shipped}.graph`;
  const exported = EXPORTS.map(name => ({ name: `export ${name}`, export: name }));
  writeFileSync(graph, JSON.stringify([{ name: "Envoy", root: true, reaches: exported.map(({ name }) => name) }, ...exported]));
  run("wasm-metadce", process.execPath, [program("wasm-metadce"), ...FEATURES, built, "--graph-file", graph, "-o", partial]);
  run("wasm-opt", process.execPath, [program("wasm-opt"), ...OPTIONS, partial, "-o", partial]);
  renameSync(partial, shipped);
  rmSync(graph);
  writeFileSync(stamp, want);
}
const kib = file => Math.floor(statSync(file).size / 1024);
console.log(`built ${shipped}, ${kib(shipped)} KiB (${kib(built)} before wasm-opt)`);

function install() {
  if (existsSync(program("wasm-opt"))) return;
  console.error(`[stack] installing Binaryen ${VERSION}`);
  rmSync(home, { recursive: true, force: true });
  mkdirSync(home, { recursive: true });
  run("npm", "npm", ["install", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline",
    "--prefix", home, `binaryen@${VERSION}`]);
}

function run(name, command, argv) {
  const done = spawnSync(command, argv, { stdio: ["ignore", "pipe", "pipe"], encoding: "utf8" });
  if (done.error) fail(`${name} could not be run: ${done.error.message}`);
  if (done.status !== 0) fail(`${name} failed:\n${done.stderr.split("\n").slice(0, 8).join("\n")}`);
}
