// @x402/fetch, with the schemes `exact` and `upto`.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { init, key, reportResponse, url } from "./request.mjs";

const account = privateKeyToAccount(key);
const client = new x402Client()
  .register("eip155:*", new ExactEvmScheme(account))
  .register("eip155:*", new UptoEvmScheme(account));
await reportResponse(await wrapFetchWithPayment(fetch, client)(url, init));
