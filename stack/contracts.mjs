// Compiles the contracts of a local chain and keeps the result in .local/, under a hash of all that went in.
// Nothing is deployed here: chain.mjs puts the runtime code at the addresses that clients know.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const modules = path.join(here, "node_modules");
const permit2 = path.join(modules, "@uniswap/v4-periphery/lib/permit2");
const require = createRequire(import.meta.url);

// Permit2 insists on the compiler it was published with.
const UNITS = [
  {
    solc: "solc",
    evmVersion: "cancun",
    files: ["Usdc.sol", "Permit2Proxies.sol", "Wallets.sol"].map(name => [name, path.join(here, "contracts", name)]),
    want: {
      Usdc: "Usdc.sol",
      ExactPermit2Proxy: "Permit2Proxies.sol",
      UptoPermit2Proxy: "Permit2Proxies.sol",
      Wallet1271: "Wallets.sol",
      SignatureValidator: "Wallets.sol",
    },
    resolve: name => path.join(modules, name),
  },
  {
    solc: "solc-0.8.17",
    evmVersion: "london",
    viaIR: true, // it does not compile without
    files: [["src/Permit2.sol", path.join(permit2, "src/Permit2.sol")]],
    want: { Permit2: "src/Permit2.sol" },
    resolve: name => path.join(permit2, name.startsWith("solmate/") ? "lib" : "", name),
  },
];

/** Runtime bytecode by contract name, all immutables zero. */
export function compiled(say = () => {}) {
  const hash = createHash("sha256").update(readFileSync(fileURLToPath(import.meta.url)));
  for (const unit of UNITS) {
    hash.update(require(`${unit.solc}/package.json`).version);
    for (const [, file] of unit.files) hash.update(readFileSync(file));
  }
  const cache = path.join(here, "../.local", `contracts-${hash.digest("hex").slice(0, 16)}.json`);
  if (existsSync(cache)) return JSON.parse(readFileSync(cache, "utf8"));

  const code = {};
  for (const unit of UNITS) {
    say(`compiling ${Object.keys(unit.want).join(", ")}`);
    Object.assign(code, compile(unit));
  }
  mkdirSync(path.dirname(cache), { recursive: true });
  const partial = `${cache}.${process.pid}`;
  writeFileSync(partial, JSON.stringify(code));
  renameSync(partial, cache);
  return code;
}

function compile({ solc, evmVersion, viaIR = false, files, want, resolve }) {
  const input = {
    language: "Solidity",
    sources: Object.fromEntries(files.map(([name, file]) => [name, { content: readFileSync(file, "utf8") }])),
    settings: {
      evmVersion,
      viaIR,
      optimizer: { enabled: true, runs: 200 },
      metadata: { bytecodeHash: "none" },
      outputSelection: { "*": { "*": ["evm.deployedBytecode.object"] } },
    },
  };
  const imports = name => {
    const file = resolve(name);
    return existsSync(file) ? { contents: readFileSync(file, "utf8") } : { error: `${file} is not there` };
  };
  const output = JSON.parse(require(solc).compile(JSON.stringify(input), { import: imports }));
  const errors = (output.errors ?? []).filter(entry => entry.severity === "error");
  if (errors.length > 0) throw new Error(errors.map(entry => entry.formattedMessage).join("\n"));
  return Object.fromEntries(
    Object.entries(want).map(([name, file]) => [name, `0x${output.contracts[file][name].evm.deployedBytecode.object}`]),
  );
}
