// The official TypeScript facilitator (@x402/core, @x402/evm) as an HTTP server: /verify, /settle, /supported;
// `exact` with EIP-3009 and Permit2, `upto`, and x402 version 1.
//
//   node stack/facilitator.mjs [--port 4022] [--chain 84532=http://127.0.0.1:8545]... [--key 0x…]
//                              [--receipt-timeout 180] [--pending-store memory|broken]
//
// `--receipt-timeout`: how many seconds it waits for a transaction to be mined (the default is the package's own). `--pending-store broken`:
// where it notes the transactions that it waited for in vain cannot be written to, as happens to a store that several facilitators share.
//
// Prints one line of JSON when it is ready, and runs until SIGTERM or SIGINT.

import { parseArgs } from "node:util";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/facilitator";
import { UptoEvmScheme } from "@x402/evm/upto/facilitator";
import { createWalletClient, defineChain, http, publicActions } from "viem";
import { nonceManager, privateKeyToAccount } from "viem/accounts";
import { chains, roles } from "./accounts.mjs";
import { listen, log } from "./service.mjs";

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "4022" },
    chain: { type: "string", multiple: true, default: ["84532=http://127.0.0.1:8545"] },
    key: { type: "string", default: roles.facilitator.key },
    "receipt-timeout": { type: "string", default: "180" },
    "pending-store": { type: "string", default: "memory" },
  },
});
const confirmationTimeoutMs = Number(options["receipt-timeout"]) * 1000;
const broken = { get: async () => undefined, set: async () => { throw new Error("the store is read-only"); }, delete: async () => {} };
const scheme = options["pending-store"] === "broken" ? { pendingSettlementStore: broken } : undefined;

const facilitator = new x402Facilitator();
for (const [id, rpc] of options.chain.map(text => text.split(/=(.*)/s))) {
  const { network, v1 } = chains[id];
  // Without the nonce manager concurrent settlements take the same nonce, and all but one are lost.
  const account = privateKeyToAccount(options.key, { nonceManager });
  const chain = defineChain({
    id: Number(id), name: v1, nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [rpc] } },
  });
  const client = createWalletClient({ account, chain, transport: http(rpc), pollingInterval: 50, cacheTime: 0 }).extend(publicActions);
  const signer = toFacilitatorEvmSigner({ ...client, address: account.address }, { confirmationTimeoutMs });
  facilitator.register(network, new ExactEvmScheme(signer, scheme));
  facilitator.register(network, new UptoEvmScheme(signer, scheme));
  facilitator.registerV1(v1, new ExactEvmSchemeV1(signer));
}

const act = name => async body => {
  const result = await facilitator[name](body.paymentPayload, body.paymentRequirements);
  const reason = result.invalidReason ?? result.errorReason;
  const { scheme, network } = body.paymentRequirements;
  log(`${name} v${body.paymentPayload.x402Version} ${scheme} ${network}: ${reason ?? "ok"} ${result.transaction ?? ""}`);
  return [200, result];
};
await listen(options.port, {
  "GET /supported": async () => [200, facilitator.getSupported()],
  "POST /verify": act("verify"),
  "POST /settle": act("settle"),
});
console.log(JSON.stringify({ ready: true, url: `http://127.0.0.1:${options.port}`, address: privateKeyToAccount(options.key).address, pid: process.pid }));
