// A backend that speaks OpenAI's and Anthropic's APIs and always gives the same answers. No dependencies.
//
//   node stack/backend.mjs [--port 8081] [--delay-ms 0]
//
// POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/messages (each with "stream": true too), /v1/embeddings;
// GET /v1/models, /healthz; any other path answers with what it was asked. An answer lists the x402 headers that the
// gateway added, under `x402`. Headers of a request ask for other answers:
//
//   x-answer-status: 500        fails with that status
//   x-answer-chunks: 200        so many chunks of text, in place of ten
//   x-answer-usage: none        does not say what was used
//   x-answer-dies-after: 10     of a stream: breaks the connection off after so many chunks of text
//   x-answer-pauses-after: 10   of a stream: sends no more after so many, until the client leaves

import { once } from "node:events";
import http from "node:http";
import { parseArgs } from "node:util";
import { serve } from "./service.mjs";

const { values: options } = parseArgs({
  options: { port: { type: "string", default: "8081" }, "delay-ms": { type: "string", default: "0" } },
});
const WORDS = ["Paid", " and", " delivered", ":", " this", " answer", " came", " through", " Envoy", "."];
const CREATED = 1700000000;
const delay = Number(options["delay-ms"]);

/** Four characters are a token here, as a rule of thumb says. */
const tokens = value => Math.ceil((typeof value === "string" ? value : JSON.stringify(value ?? "")).length / 4);
const usage = (input, words) => ({ prompt_tokens: tokens(input), completion_tokens: words.length, total_tokens: tokens(input) + words.length });
const newUsage = (input, words) => ({ input_tokens: tokens(input), output_tokens: words.length });

// Each API gives, for a request's body and the chunks of its text, the whole answer and the events before, with and
// after the text.

const chat = (body, words) => {
  const about = { id: "chatcmpl-0", created: CREATED, model: body.model ?? "fake-1" };
  const chunk = (delta, finish_reason = null) => ({ ...about, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason }] });
  const used = usage(body.messages, words);
  return {
    whole: {
      ...about, object: "chat.completion", usage: used,
      choices: [{ index: 0, message: { role: "assistant", content: words.join("") }, finish_reason: "stop" }],
    },
    before: [chunk({ role: "assistant", content: "" })],
    text: words.map(content => chunk({ content })),
    after: [
      chunk({}, "stop"),
      ...(body.stream_options?.include_usage ? [{ ...about, object: "chat.completion.chunk", choices: [], usage: used }] : []),
      "[DONE]",
    ],
  };
};

const completion = (body, words) => {
  const about = { id: "cmpl-0", object: "text_completion", created: CREATED, model: body.model ?? "fake-1" };
  const choice = (text, finish_reason) => ({ index: 0, text, finish_reason, logprobs: null });
  const used = usage(body.prompt, words);
  return {
    whole: { ...about, choices: [choice(words.join(""), "stop")], usage: used },
    before: [],
    text: words.map(word => ({ ...about, choices: [choice(word, null)] })),
    after: [
      { ...about, choices: [choice("", "stop")] },
      ...(body.stream_options?.include_usage ? [{ ...about, choices: [], usage: used }] : []),
      "[DONE]",
    ],
  };
};

const responses = (body, words) => {
  const text = words.join("");
  const item = { id: "msg_0", type: "message", role: "assistant", status: "completed", content: [{ type: "output_text", text, annotations: [] }] };
  const used = newUsage(body.input, words);
  const whole = {
    id: "resp_0", object: "response", created_at: CREATED, status: "completed", model: body.model ?? "fake-1",
    output: [item], usage: { ...used, total_tokens: used.input_tokens + used.output_tokens },
  };
  return {
    whole,
    before: [{ type: "response.created", response: { ...whole, status: "in_progress", output: [], usage: null } }],
    text: words.map(delta => ({ type: "response.output_text.delta", item_id: "msg_0", output_index: 0, content_index: 0, delta })),
    after: [
      { type: "response.output_text.done", item_id: "msg_0", output_index: 0, content_index: 0, text },
      { type: "response.completed", response: whole },
    ],
    named: true,
  };
};

const messages = (body, words) => {
  const message = { id: "msg_0", type: "message", role: "assistant", model: body.model ?? "fake-1", content: [], stop_reason: null, stop_sequence: null };
  const used = newUsage(body.messages, words);
  return {
    whole: { ...message, content: [{ type: "text", text: words.join("") }], stop_reason: "end_turn", usage: used },
    // As Anthropic's do: the input is counted at once, the output as it goes.
    before: [
      { type: "message_start", message: { ...message, usage: { ...used, output_tokens: 1 } } },
      { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    ],
    text: words.map(text => ({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } })),
    after: [
      { type: "content_block_stop", index: 0 },
      { type: "message_delta", delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: words.length } },
      { type: "message_stop" },
    ],
    named: true,
  };
};

const embeddings = body => {
  const inputs = [body.input ?? ""].flat();
  const data = inputs.map((text, index) => ({ object: "embedding", index, embedding: [tokens(text) / 1024, index, 0.5] }));
  const prompt_tokens = tokens(inputs.join(""));
  return { whole: { object: "list", model: body.model ?? "fake-embed", data, usage: { prompt_tokens, total_tokens: prompt_tokens } } };
};

const models = () => ({
  whole: { object: "list", data: ["fake-1", "fake-embed"].map(id => ({ id, object: "model", created: CREATED, owned_by: "stack" })) },
});

const ROUTES = {
  "POST /v1/chat/completions": chat,
  "POST /v1/completions": completion,
  "POST /v1/responses": responses,
  "POST /v1/messages": messages,
  "POST /v1/embeddings": embeddings,
  "GET /v1/models": models,
  "GET /healthz": () => ({ whole: { status: "ok" } }),
};

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const json = (status, body) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(request.method === "HEAD" ? undefined : JSON.stringify(body, told));
  };
  const asked = name => request.headers[`x-answer-${name}`];
  const untold = asked("usage") === "none";
  const told = (key, value) => (untold && key === "usage" ? undefined : value);
  const path = request.url.split("?")[0];
  const x402 = Object.fromEntries(Object.entries(request.headers).filter(([name]) => name.startsWith("x-x402-")));
  const status = Number(asked("status") ?? 200);
  if (status !== 200) return json(status, { error: { message: `asked to answer ${status}`, type: "server_error" } });
  // Any prefix before /v1 is fine, so that one backend can stand behind several prices.
  const route = ROUTES[`${request.method} ${path.replace(/^\/[^/]+(?=\/v1\/)/, "")}`] ?? (() => ({ whole: { method: request.method, path: request.url, body: text } }));
  let body = {};
  try {
    if (text !== "" && path.includes("/v1/")) body = JSON.parse(text);
  } catch {
    return json(400, { error: { message: "the body is not JSON", type: "invalid_request_error" } });
  }
  if (untold && body.stream_options) delete body.stream_options.include_usage;
  const words = Array.from({ length: Number(asked("chunks") ?? WORDS.length) }, (_, i) => WORDS[i % WORDS.length]);
  const { whole, before, text: texts, after, named } = route(body, words);
  if (!body.stream || !texts) return json(200, { ...whole, x402 });

  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  const send = async event => {
    const data = typeof event === "string" ? event : JSON.stringify(event, told);
    // Awaited, so that what was sent before an end has left.
    await new Promise(resolve => response.write(`${named ? `event: ${event.type}\n` : ""}data: ${data}\n\n`, resolve));
    if (delay > 0) await new Promise(resolve => setTimeout(resolve, delay));
  };
  for (const event of before) await send(event);
  for (const [sent, event] of texts.entries()) {
    if (asked("dies-after") === String(sent)) return response.destroy();
    if (response.destroyed) return;
    if (asked("pauses-after") === String(sent)) return once(response, "close");
    await send(event);
  }
  for (const event of after) await send(event);
  response.end();
});
await serve(server, options.port);
console.log(JSON.stringify({ ready: true, url: `http://127.0.0.1:${options.port}`, pid: process.pid }));
