// @x402/fetch paying from a smart-contract wallet (ERC-1271): WALLET is its address, PAYER_KEY its owner's key. The
// signature is longer than a key's, as wallets' signatures are.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { concat } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { init, key, reportResponse, url } from "./request.mjs";

const owner = privateKeyToAccount(key);
const wallet = {
  address: process.env.WALLET,
  signTypedData: async message => concat([await owner.signTypedData(message), "0x00"]),
};
const client = new x402Client().register("eip155:*", new ExactEvmScheme(wallet));
await reportResponse(await wrapFetchWithPayment(fetch, client)(url, init));
