// Installs anvil, the npm packages of this directory, and those of the two clients that need a tree of their own:
//
//   node stack/install.mjs [anvil] [stack] [clients-axios] [clients-v1]      all of them without an argument
//
// Idempotent: what is there as its lock file says is left alone, without asking the network. Nothing but npm is needed.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { ANVIL, anvilBinary, anvilDirectory } from "./anvil.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const say = text => console.error(`[stack] ${text}`);
const fail = text => {
  say(text);
  process.exit(1);
};

if (Number(process.versions.node.split(".")[0]) < 20) fail(`Node.js 20 or newer is needed, this is ${process.versions.node}`);

const PARTS = {
  anvil: installAnvil,
  stack: () => installLocked("stack", here),
  "clients-axios": () => installLocked("clients-axios", path.join(here, "clients-axios")),
  "clients-v1": () => installLocked("clients-v1", path.join(here, "clients-v1")),
};
for (const name of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(PARTS)) {
  (PARTS[name] ?? (() => fail(`${name}: known are ${Object.keys(PARTS).join(", ")}`)))();
}

/** What the lock file of a directory lists, no more and no less. */
function installLocked(name, directory) {
  const stamp = path.join(directory, "node_modules", ".stamp");
  const hash = createHash("sha256");
  for (const file of ["package.json", "package-lock.json"]) hash.update(readFileSync(path.join(directory, file)));
  const want = hash.digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === want) return;
  const { packages } = JSON.parse(readFileSync(path.join(directory, "package-lock.json"), "utf8"));
  npm(`${name}: ${Object.keys(packages).length - 1} npm packages`, ["ci"], directory);
  writeFileSync(stamp, want);
}

/** The one package that holds anvil for this machine. A lock file would have to name those of all the others. */
function installAnvil() {
  if (existsSync(anvilBinary())) return;
  const directory = anvilDirectory();
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  npm(`${ANVIL}`, ["install", "--no-save", "--no-package-lock", "--prefix", directory, ANVIL], here);
  if (!existsSync(anvilBinary())) fail(`${ANVIL} holds no anvil`);
  chmodSync(anvilBinary(), 0o755);
}

function npm(what, command, directory) {
  const started = Date.now();
  say(`installing ${what}`);
  const done = spawnSync("npm", [...command, "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], {
    cwd: directory, stdio: ["ignore", "pipe", "pipe"], encoding: "utf8",
  });
  if (done.error) fail(`npm could not be run (${done.error.message}); it comes with Node.js`);
  if (done.status !== 0) fail(`npm ${command[0]} failed; is a package registry reachable?\n${done.stderr.split("\n").slice(0, 8).join("\n")}`);
  say(`installed after ${((Date.now() - started) / 1000).toFixed(0)} s`);
}
