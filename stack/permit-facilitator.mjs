// A facilitator that settles EIP-2612 permits, as thirdweb's does for LibertAI's clients and no published one does:
// the payer permits this facilitator's address, which then moves the tokens to `extra.recipientAddress`.
// Speaks x402 version 1 with scheme `upto`. Checks everything on chain.
//
//   node stack/permit-facilitator.mjs [--port 4023] [--chain 8453=http://127.0.0.1:8546] [--key 0x…]

import { parseArgs } from "node:util";
import { createWalletClient, defineChain, getAddress, http, isAddressEqual, parseAbi, parseSignature, publicActions } from "viem";
import { nonceManager, privateKeyToAccount } from "viem/accounts";
import { chains, roles } from "./accounts.mjs";
import { listen, log } from "./service.mjs";

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "4023" },
    chain: { type: "string", default: "8453=http://127.0.0.1:8546" },
    key: { type: "string", default: roles.facilitatorPermit.key },
  },
});
const [chainId, rpc] = options.chain.split(/=(.*)/s);
const { network, v1, usdc } = chains[chainId];
const account = privateKeyToAccount(options.key, { nonceManager });
const chain = defineChain({
  id: Number(chainId), name: v1, nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [rpc] } },
});
const client = createWalletClient({ account, chain, transport: http(rpc), pollingInterval: 50, cacheTime: 0 }).extend(publicActions);
const token = {
  address: usdc,
  abi: parseAbi([
    "function balanceOf(address) view returns (uint256)",
    "function nonces(address) view returns (uint256)",
    "function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s)",
    "function transferFrom(address from, address to, uint256 value) returns (bool)",
  ]),
};
const types = {
  Permit: [
    { name: "owner", type: "address" },
    { name: "spender", type: "address" },
    { name: "value", type: "uint256" },
    { name: "nonce", type: "uint256" },
    { name: "deadline", type: "uint256" },
  ],
};

/** Why this payment is not good for `maxAmountRequired`, or undefined. */
async function refusal({ paymentPayload: paid, paymentRequirements: wanted }, { settling }) {
  const { authorization: permit, signature } = paid.payload;
  if (paid.x402Version !== 1) return "invalid_x402_version";
  if (paid.scheme !== "upto" || wanted.scheme !== "upto") return "unsupported_scheme";
  if (![network, v1].includes(paid.network) || paid.network !== wanted.network) return "invalid_network";
  if (!isAddressEqual(wanted.asset, usdc)) return "invalid_asset";
  if (wanted.extra?.primaryType !== "Permit" || !wanted.extra.recipientAddress) return "invalid_payment_requirements";
  if (!isAddressEqual(permit.to, account.address) || !isAddressEqual(wanted.payTo, account.address)) return "invalid_permit_spender_mismatch";
  const value = BigInt(permit.value);
  const amount = BigInt(wanted.maxAmountRequired);
  if (settling ? value < amount : value !== amount) return "invalid_permit_value";
  if (BigInt(permit.validBefore) < BigInt(Math.floor(Date.now() / 1000) + 6)) return "invalid_permit_deadline_expired";
  if (BigInt(permit.nonce) !== await client.readContract({ ...token, functionName: "nonces", args: [permit.from] })) {
    return "invalid_permit_nonce";
  }
  const good = await client.verifyTypedData({
    address: getAddress(permit.from),
    domain: { name: wanted.extra.name, version: wanted.extra.version, chainId: Number(chainId), verifyingContract: usdc },
    types, primaryType: "Permit", signature,
    message: { owner: permit.from, spender: permit.to, value, nonce: BigInt(permit.nonce), deadline: BigInt(permit.validBefore) },
  });
  if (!good) return "invalid_permit_signature";
  if (await client.readContract({ ...token, functionName: "balanceOf", args: [permit.from] }) < amount) return "insufficient_funds";
}

async function write(functionName, args) {
  const hash = await client.writeContract({ ...token, functionName, args });
  const { status } = await client.waitForTransactionReceipt({ hash });
  if (status !== "success") throw new Error(`${functionName} reverted in ${hash}`);
  return hash;
}

await listen(options.port, {
  "GET /supported": async () => [200, {
    kinds: [
      { x402Version: 1, scheme: "upto", network: v1, extra: { primaryType: "Permit" } },
      { x402Version: 2, scheme: "upto", network, extra: { primaryType: "Permit" } },
    ],
    extensions: [],
    signers: { "eip155:*": [account.address] },
  }],
  "POST /verify": async body => {
    const invalidReason = await refusal(body, { settling: false });
    const payer = body.paymentPayload.payload.authorization.from;
    log(`verify: ${invalidReason ?? "ok"}`);
    return [200, invalidReason ? { isValid: false, invalidReason, payer } : { isValid: true, payer }];
  },
  "POST /settle": async body => {
    const { authorization: permit, signature } = body.paymentPayload.payload;
    const about = { network: body.paymentPayload.network, payer: permit.from };
    const errorReason = await refusal(body, { settling: true });
    log(`settle: ${errorReason ?? "ok"}`);
    if (errorReason) return [200, { success: false, errorReason, transaction: "", ...about }];
    const { r, s, v, yParity } = parseSignature(signature);
    const amount = BigInt(body.paymentRequirements.maxAmountRequired);
    await write("permit", [permit.from, permit.to, BigInt(permit.value), BigInt(permit.validBefore), Number(v ?? BigInt(yParity + 27)), r, s]);
    const transaction = await write("transferFrom", [permit.from, getAddress(body.paymentRequirements.extra.recipientAddress), amount]);
    return [200, { success: true, transaction, amount: String(amount), ...about }];
  },
});
console.log(JSON.stringify({ ready: true, url: `http://127.0.0.1:${options.port}`, address: account.address, pid: process.pid }));
