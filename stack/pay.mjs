// Pays for a request with the official client, @x402/fetch, and shows what goes over the wire:
//
//   node stack/pay.mjs http://127.0.0.1:10000/v1/chat/completions                     POST, a short prompt
//   node stack/pay.mjs -d '{"model": "demo", "stream": true, "messages": []}' URL     with a body of your own
//   node stack/pay.mjs -X GET URL
//
// --key is the payer's; the default is a well-known key of local chains. Ends with 0 if the request was paid for.

import { parseArgs } from "node:util";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { roles } from "./accounts.mjs";

const PROMPT = { model: "demo", messages: [{ role: "user", content: "Say something worth paying for." }] };

const { values: options, positionals: [url] } = parseArgs({
  allowPositionals: true,
  options: {
    request: { type: "string", short: "X" },
    data: { type: "string", short: "d" },
    key: { type: "string", default: process.env.PAYER_KEY ?? roles.client.key },
  },
});
const method = options.request ?? "POST";
const body = method === "GET" ? undefined : options.data ?? JSON.stringify(PROMPT);

const color = (code, text) => (process.stdout.isTTY ? `\x1b[${code}m${text}\x1b[0m` : text);
const started = performance.now();
const say = text => console.log(`${color(2, `${((performance.now() - started) / 1000).toFixed(2).padStart(6)}s`)}  ${text}`);
const show = value => console.log(JSON.stringify(value, null, 2).replace(/^/gm, "         "));
const decode = header => JSON.parse(Buffer.from(header, "base64").toString());

/** fetch, with what passes said aloud. */
async function narrated(input, init) {
  const request = new Request(input, init);
  const payment = request.headers.get("payment-signature");
  if (payment !== null) {
    say(color(36, "signed the payment; sending it as PAYMENT-SIGNATURE:"));
    const { x402Version, accepted: { scheme, network, amount }, payload } = decode(payment);
    show({ x402Version, accepted: { scheme, network, amount, "…": "…" }, payload });
  }
  const at = performance.now();
  say(`→ ${request.method} ${request.url}${payment === null ? "" : color(36, "  with payment")}`);
  const response = await fetch(request);
  say(`← ${color(response.ok ? 32 : 33, `${response.status} ${response.statusText}`)} after ${(performance.now() - at).toFixed(0)} ms`);
  const required = response.headers.get("payment-required");
  if (required !== null) {
    say(color(33, "PAYMENT-REQUIRED says:"));
    show(decode(required));
  }
  return response;
}

const account = privateKeyToAccount(options.key);
const client = new x402Client()
  .register("eip155:*", new ExactEvmScheme(account))
  .register("eip155:*", new UptoEvmScheme(account));
const response = await wrapFetchWithPayment(narrated, client)(url, {
  method, body, headers: body === undefined ? {} : { "content-type": "application/json" },
});

if (response.headers.get("content-type")?.startsWith("text/event-stream")) {
  say("the answer, as it streams:");
  for await (const chunk of response.body) process.stdout.write(chunk);
} else {
  const text = await response.text();
  const content = safely(() => JSON.parse(text).choices[0].message.content);
  say(content === undefined ? "the answer:" : `the answer: ${color(1, content)}`);
  if (content === undefined) console.log(text);
}
const receipt = response.headers.get("payment-response");
if (receipt !== null) {
  say(color(32, "PAYMENT-RESPONSE, the receipt:"));
  show(decode(receipt));
}
process.exitCode = response.ok && receipt !== null && decode(receipt).success ? 0 : 1;

function safely(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}
