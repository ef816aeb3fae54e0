// A local chain that x402 clients and facilitators take for Base: anvil with USDC, Permit2, Multicall3 and the two
// x402 Permit2 proxies at the addresses they know, and accounts with tokens.
//
//   node stack/chain.mjs [--port 8545] [--chain-id 84532]
//
// Prints one line of JSON when it is ready, and runs until SIGTERM or SIGINT.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { createTestClient, encodeFunctionData, http, maxUint256, pad, parseAbi, publicActions, walletActions } from "viem";
import { ACCOUNTS, chains, clients, contracts, roles } from "./accounts.mjs";
import { anvilBinary } from "./anvil.mjs";
import { compiled } from "./contracts.mjs";
import { log, until } from "./service.mjs";

// viem carries Multicall3's code but does not export it.
const { multicall3Bytecode } = await import(new URL("node_modules/viem/_esm/constants/contracts.js", import.meta.url));
const { values: options } = parseArgs({
  options: { port: { type: "string", default: "8545" }, "chain-id": { type: "string", default: "84532" } },
});
const chainId = Number(options["chain-id"]);
const chain = chains[chainId] ?? fail(`chain id ${options["chain-id"]}: only ${Object.keys(chains).join(" and ")} are known`);
const rpc = `http://127.0.0.1:${options.port}`;
const tokens = parseAbi([
  "function mint(address to, uint256 value) returns (bool)",
  "function approve(address spender, uint256 value) returns (bool)",
]);

if (!existsSync(anvilBinary())) fail("anvil is not installed: run `node stack/install.mjs`");
const code = compiled(log);
const anvil = spawn(anvilBinary(), [
  "--quiet", "--host", "127.0.0.1", "--port", options.port, "--chain-id", String(chainId), "--accounts", String(ACCOUNTS),
], { stdio: ["ignore", "inherit", "inherit"] });
process.on("exit", () => anvil.kill("SIGKILL"));
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => process.exit(0));
anvil.on("error", error => fail(`anvil did not start: ${error.message}`));
anvil.on("exit", status => fail(`anvil ended with ${status}`));

const node = createTestClient({ mode: "anvil", transport: http(rpc), cacheTime: 0 }).extend(publicActions).extend(walletActions);
const id = await until("anvil answers", () => node.getChainId());
if (id !== chainId) fail(`port ${options.port} belongs to a chain with id ${id}`);

for (const [address, bytecode] of [
  [chain.usdc, code.Usdc],
  [contracts.permit2, code.Permit2],
  [contracts.exactProxy, code.ExactPermit2Proxy],
  [contracts.uptoProxy, code.UptoPermit2Proxy],
  [contracts.wallet1271, code.Wallet1271],
  [contracts.signatureValidator, code.SignatureValidator],
]) await node.setCode({ address, bytecode });
await node.setStorageAt({ address: contracts.wallet1271, index: 0, value: pad(roles.walletOwner.address) });

const payers = [roles.client, roles.withoutPermit2, ...clients].map(account => account.address);
const approvers = [roles.client, ...clients].map(account => account.address);
// One after the other: anvil gives two transactions of one account that meet the same nonce.
const send = async (from, functionName, args) => {
  const data = encodeFunctionData({ abi: tokens, functionName, args });
  const hash = await node.sendUnsignedTransaction({ from, to: chain.usdc, data });
  const receipt = await node.waitForTransactionReceipt({ hash, pollingInterval: 10 });
  if (receipt.status !== "success") fail(`${functionName} reverted`);
};
for (const address of [...payers, contracts.wallet1271]) await send(roles.deployer.address, "mint", [address, 1_000_000_000n]);
for (const address of approvers) await send(address, "approve", [contracts.permit2, maxUint256]);
// Last of all: whoever sees code at this address knows that the rest is there too.
await node.setCode({ address: contracts.multicall3, bytecode: runtimeOf(multicall3Bytecode) });

console.log(JSON.stringify({
  ready: true, rpc, chainId, network: chain.network, v1Network: chain.v1,
  token: { address: chain.usdc, name: chain.name, version: "2", decimals: 6 },
  contracts, roles, clients, pid: process.pid, anvilPid: anvil.pid,
}));

/** Multicall3 has no constructor arguments: what is returned at deployment follows the deploying code as it is. */
function runtimeOf(creation) {
  return `0x${creation.slice(creation.indexOf("f3fe") + 4)}`;
}

function fail(message) {
  log(message);
  process.exit(1);
}
