// What the SDKs' programs have in common: a fetch that pays, and what they print. STREAM=1 streams, LEAVE_AFTER=10
// leaves after so many chunks of text. A URL that needs no payment is asked as it is.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { body, key } from "./request.mjs";

const account = privateKeyToAccount(key);
const payer = new x402Client()
  .register("eip155:*", new ExactEvmScheme(account))
  .register("eip155:*", new UptoEvmScheme(account));
const paying = wrapFetchWithPayment(fetch, payer);

let answered; // the last response the SDK was given
let sent; // the last body the SDK sent
export const options = {
  maxRetries: 0,
  defaultHeaders: JSON.parse(process.env.HEADERS ?? "{}"),
  fetch: async (input, init) => {
    sent = init.body;
    return (answered = await paying(input, init));
  },
};
export const stream = process.env.STREAM === "1";
export const request = { ...JSON.parse(body), stream };

/** Takes the SDK's answer in: whole, or event by event. `text` is that of an answer or event. */
export async function report(answer, text) {
  const leaveAfter = Number(process.env.LEAVE_AFTER ?? Infinity);
  const events = [];
  let heard = 0;
  if (stream) {
    for await (const event of answer) {
      events.push(event);
      if (text(event) && ++heard >= leaveAfter) break; // the SDK then closes the connection
    }
  } else {
    events.push(answer);
  }
  console.log(JSON.stringify({
    status: answered.status, headers: Object.fromEntries(answered.headers), body: events.map(text).join(""), events, sent,
  }));
}
