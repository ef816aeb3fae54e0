// @libertai/x402 with the openai SDK. STREAM=1 streams. The package asks a public host of Base for a permit's nonce:
// RPC_URL is asked instead, by wrapping the global fetch; the package itself is as published.
import { wrapFetchWithPayment } from "@libertai/x402";
import OpenAI from "openai";
import { base } from "viem/chains";
import { body, key, url } from "./request.mjs";

const published = new URL(base.rpcUrls.default.http[0]).host;
const direct = globalThis.fetch;
let rpcCalls = 0;
globalThis.fetch = (input, init) => {
  const target = new URL(input instanceof Request ? input.url : input);
  if (target.host !== published) return direct(input, init);
  rpcCalls += 1;
  return direct(input instanceof Request ? new Request(process.env.RPC_URL, input) : process.env.RPC_URL, init);
};

let answered; // the last response the SDK was given
const paying = wrapFetchWithPayment(key);
const client = new OpenAI({
  baseURL: url.replace("/chat/completions", ""),
  apiKey: "x402",
  maxRetries: 0,
  fetch: async (...request) => (answered = await paying(...request)),
});
const result = { usage: null, chunks: 0, text: "" };
const { messages, model } = JSON.parse(body);
try {
  if (process.env.STREAM === "1") {
    const stream = await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      result.chunks += 1;
      result.text += chunk.choices[0]?.delta?.content ?? "";
      result.usage = chunk.usage ?? result.usage;
    }
  } else {
    const completion = await client.chat.completions.create({ model, messages });
    result.text = completion.choices[0].message.content;
    result.usage = completion.usage;
  }
} catch (error) {
  result.error = String(error.error ? JSON.stringify(error.error) : error);
}
const receipt = answered.headers.get("x-payment-response") ?? answered.headers.get("payment-response");
console.log(JSON.stringify({
  status: answered.status, headers: Object.fromEntries(answered.headers), body: result.text, ...result, rpcCalls,
  receipt: receipt && JSON.parse(Buffer.from(receipt, "base64").toString()),
}));
