// Signs a payment for a priced URL and prints it as plain headers, one a line, for curl:
//
//   URL=http://127.0.0.1:10000/v1/chat/completions
//   node stack/sign-plain.mjs -X POST $URL | curl -H @- -H 'content-type: application/json' -d '{"messages":[]}' $URL
//
// It asks the URL for its price (X-Payment-Amount, -Asset, -Network, -Recipient of the 402) and signs an EIP-3009
// TransferWithAuthorization for it. --key is the payer's; the default is a well-known key of local chains. A server
// that prices by the body wants it with --data.

import { parseArgs } from "node:util";
import { parseUnits, toHex } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { chains, roles } from "./accounts.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    request: { type: "string", short: "X", default: "GET" },
    data: { type: "string", short: "d" },
    key: { type: "string", default: process.env.PAYER_KEY ?? roles.client.key },
  },
});
const challenge = await fetch(positionals[0], {
  method: options.request, body: options.data, headers: options.data ? { "content-type": "application/json" } : {},
});
const [amount, asset, network, to] = ["amount", "asset", "network", "recipient"].map(name => challenge.headers.get(`x-payment-${name}`));
if (challenge.status !== 402 || to === null) {
  console.error(`${positionals[0]} answered ${challenge.status}, without the plain headers of a price`);
  process.exit(1);
}
const found = Object.entries(chains).find(([, chain]) => chain.v1 === network);
if (found === undefined || asset !== "USDC") {
  console.error(`cannot sign for ${asset} on ${network}`);
  process.exit(1);
}
const [chainId, { usdc, name }] = found;
const account = privateKeyToAccount(options.key);
const authorization = {
  from: account.address,
  to,
  value: parseUnits(amount, 6),
  validAfter: 0n,
  validBefore: BigInt(Math.floor(Date.now() / 1000) + 300),
  nonce: toHex(crypto.getRandomValues(new Uint8Array(32))),
};
const signature = await account.signTypedData({
  domain: { name, version: "2", chainId: Number(chainId), verifyingContract: usdc },
  types: {
    TransferWithAuthorization: [
      { name: "from", type: "address" },
      { name: "to", type: "address" },
      { name: "value", type: "uint256" },
      { name: "validAfter", type: "uint256" },
      { name: "validBefore", type: "uint256" },
      { name: "nonce", type: "bytes32" },
    ],
  },
  primaryType: "TransferWithAuthorization",
  message: authorization,
});
console.log([
  `X-Payment-Signature: ${signature}`,
  `X-Payment-Payer: ${authorization.from}`,
  `X-Payment-Amount: ${amount}`,
  `X-Payment-Asset: ${asset}`,
  `X-Payment-Network: ${network}`,
  `X-Payment-Nonce: ${authorization.nonce}`,
  `X-Payment-Valid-After: ${authorization.validAfter}`,
  `X-Payment-Valid-Before: ${authorization.validBefore}`,
].join("\n"));
