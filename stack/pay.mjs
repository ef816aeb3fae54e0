// Pays for a request with the official client, @x402/fetch, and shows what goes over the wire:
//
//   node stack/pay.mjs http://127.0.0.1:10000/v1/chat/completions                     POST, a short prompt
//   node stack/pay.mjs -d '{"model": "demo", "stream": true, "messages": []}' URL     with a body of your own
//   node stack/pay.mjs -X GET URL
//
// --key is the payer's; the default is a well-known key of local chains. --header 'name: value' adds one, such as an API key
// whose balance is topped up. --summary FILE writes what was signed for, used and paid as JSON. Ends with 0 if the request was paid for.

import { writeFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
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
    header: { type: "string", short: "H", multiple: true, default: [] },
    summary: { type: "string" },
  },
});
const method = options.request ?? "POST";
const body = method === "GET" ? undefined : options.data ?? JSON.stringify(PROMPT);

const color = (code, text) => (process.stdout.isTTY ? `\x1b[${code}m${text}\x1b[0m` : text);
const started = performance.now();
const say = text => console.log(`${color(2, `${((performance.now() - started) / 1000).toFixed(2).padStart(6)}s`)}  ${text}`);
const show = value => console.log(JSON.stringify(value, null, 2).replace(/^/gm, "         "));
const decode = header => JSON.parse(Buffer.from(header, "base64").toString());

const summary = { quote: null, usage: null, receipt: null };
let trailers = () => ({}); // of the last answer, once its body has been read

/** As fetch, but trailers can be read: the receipt of a metered answer is one. */
async function direct(request) {
  const { request: open } = request.url.startsWith("https:") ? https : http;
  const data = Buffer.from(await request.arrayBuffer());
  return new Promise((resolve, reject) => {
    const sent = open(request.url, { method: request.method, headers: Object.fromEntries(request.headers), agent: false });
    sent.on("error", reject);
    sent.on("response", message => {
      trailers = () => message.trailers;
      const { statusCode: status, statusMessage: statusText, headers } = message;
      const body = [204, 205, 304].includes(status) ? null : Readable.toWeb(message);
      resolve(new Response(body, { status, statusText, headers: Object.entries(headers).map(([name, value]) => [name, String(value)]) }));
    });
    sent.end(data);
  });
}

/** That, with what passes said aloud. */
async function narrated(input, init) {
  const request = new Request(input, init);
  const payment = request.headers.get("payment-signature");
  if (payment !== null) {
    say(color(36, "signed the payment; sending it as PAYMENT-SIGNATURE:"));
    const { x402Version, accepted: { scheme, network, amount }, payload } = decode(payment);
    show({ x402Version, accepted: { scheme, network, amount, "…": "…" }, payload });
    summary.quote = amount;
  }
  const at = performance.now();
  say(`→ ${request.method} ${request.url}${payment === null ? "" : color(36, "  with payment")}`);
  const response = await direct(request);
  say(`← ${color(response.ok ? 32 : 33, `${response.status} ${response.statusText}`)} after ${(performance.now() - at).toFixed(0)} ms`);
  const required = response.headers.get("payment-required");
  if (required !== null) {
    say(color(33, "PAYMENT-REQUIRED says:"));
    show(decode(required));
  }
  return response;
}

const added = Object.fromEntries(options.header.map(line => line.split(/:\s*(.*)/s, 2)));
const account = privateKeyToAccount(options.key);
const client = new x402Client()
  .register("eip155:*", new ExactEvmScheme(account))
  .register("eip155:*", new UptoEvmScheme(account));
const response = await wrapFetchWithPayment(narrated, client)(url, {
  method, body, headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...added },
});

let comment = null; // the receipt in a stream of events
if (response.headers.get("content-type")?.startsWith("text/event-stream")) {
  say("the answer, as it streams:");
  for await (const line of createInterface({ input: Readable.fromWeb(response.body) })) {
    if (line === "") continue;
    const event = safely(() => JSON.parse(line.replace(/^data: /, "")));
    summary.usage = event?.usage ?? summary.usage;
    comment = line.match(/^: payment-response (\S+)$/)?.[1] ?? comment;
    const content = event?.choices?.[0]?.delta?.content;
    say(`${color(2, "│")} ${content ? color(1, JSON.stringify(content)) : line}`);
  }
} else {
  const text = await response.text();
  const content = safely(() => JSON.parse(text).choices[0].message.content);
  summary.usage = safely(() => JSON.parse(text).usage) ?? null;
  say(content === undefined ? "the answer:" : `the answer: ${color(1, content)}`);
  if (content === undefined) console.log(text);
}
const header = response.headers.get("payment-response");
const trailer = trailers()["payment-response"];
const receipt = header ?? trailer ?? comment;
if (receipt !== null) {
  const places = [trailer && "in a trailer", comment && "in the stream's last comment"].filter(Boolean).join(" and ");
  say(color(32, `PAYMENT-RESPONSE, the receipt${header === null ? `, after the answer ${places}` : ""}:`));
  summary.receipt = decode(receipt);
  show(summary.receipt);
}
if (options.summary !== undefined) writeFileSync(options.summary, JSON.stringify(summary));
process.exitCode = response.ok && summary.receipt?.success ? 0 : 1;

function safely(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}
