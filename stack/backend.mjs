// A backend that speaks OpenAI's API and always gives the same answers. No dependencies.
//
//   node stack/backend.mjs [--port 8081] [--delay-ms 0]
//
// POST /v1/chat/completions, /v1/completions, /v1/responses (each with "stream": true too), /v1/embeddings;
// GET /v1/models, /healthz; any other path answers with what it was asked. `x-answer-status: 500` on a request makes it
// fail with that status. An answer lists the x402 headers that the gateway added, under `x402`.

import http from "node:http";
import { parseArgs } from "node:util";
import { serve } from "./service.mjs";

const { values: options } = parseArgs({
  options: { port: { type: "string", default: "8081" }, "delay-ms": { type: "string", default: "0" } },
});
const WORDS = ["Paid", " and", " delivered", ":", " this", " answer", " came", " through", " Envoy", "."];
const TEXT = WORDS.join("");
const CREATED = 1700000000;
const delay = Number(options["delay-ms"]);

/** Four characters are a token here, as a rule of thumb says. */
const tokens = value => Math.ceil((typeof value === "string" ? value : JSON.stringify(value ?? "")).length / 4);
const usage = input => ({ prompt_tokens: tokens(input), completion_tokens: WORDS.length, total_tokens: tokens(input) + WORDS.length });
const responsesUsage = input => ({ input_tokens: tokens(input), output_tokens: WORDS.length, total_tokens: tokens(input) + WORDS.length });

const chat = body => {
  const about = { id: "chatcmpl-0", created: CREATED, model: body.model ?? "fake-1" };
  const chunk = (delta, finish_reason = null) => ({ ...about, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason }] });
  return {
    whole: {
      ...about, object: "chat.completion", usage: usage(body.messages),
      choices: [{ index: 0, message: { role: "assistant", content: TEXT }, finish_reason: "stop" }],
    },
    events: [
      chunk({ role: "assistant", content: "" }), ...WORDS.map(content => chunk({ content })), chunk({}, "stop"),
      ...(body.stream_options?.include_usage ? [{ ...about, object: "chat.completion.chunk", choices: [], usage: usage(body.messages) }] : []),
      "[DONE]",
    ],
  };
};

const completion = body => {
  const about = { id: "cmpl-0", object: "text_completion", created: CREATED, model: body.model ?? "fake-1" };
  const choice = (text, finish_reason) => ({ index: 0, text, finish_reason, logprobs: null });
  return {
    whole: { ...about, choices: [choice(TEXT, "stop")], usage: usage(body.prompt) },
    events: [
      ...WORDS.map(word => ({ ...about, choices: [choice(word, null)] })),
      { ...about, choices: [choice("", "stop")], ...(body.stream_options?.include_usage ? { usage: usage(body.prompt) } : {}) },
      "[DONE]",
    ],
  };
};

const responses = body => {
  const item = { id: "msg_0", type: "message", role: "assistant", status: "completed", content: [{ type: "output_text", text: TEXT, annotations: [] }] };
  const whole = {
    id: "resp_0", object: "response", created_at: CREATED, status: "completed", model: body.model ?? "fake-1",
    output: [item], usage: responsesUsage(body.input),
  };
  const events = [
    { type: "response.created", response: { ...whole, status: "in_progress", output: [], usage: null } },
    ...WORDS.map(delta => ({ type: "response.output_text.delta", item_id: "msg_0", output_index: 0, content_index: 0, delta })),
    { type: "response.output_text.done", item_id: "msg_0", output_index: 0, content_index: 0, text: TEXT },
    { type: "response.completed", response: whole },
  ];
  return { whole, events, named: true };
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
    response.end(request.method === "HEAD" ? undefined : JSON.stringify(body));
  };
  const path = request.url.split("?")[0];
  const x402 = Object.fromEntries(Object.entries(request.headers).filter(([name]) => name.startsWith("x-x402-")));
  const status = Number(request.headers["x-answer-status"] ?? 200);
  if (status !== 200) return json(status, { error: { message: `asked to answer ${status}`, type: "server_error" } });
  // Any prefix before /v1 is fine, so that one backend can stand behind several prices.
  const route = ROUTES[`${request.method} ${path.replace(/^\/[^/]+(?=\/v1\/)/, "")}`] ?? (() => ({ whole: { method: request.method, path: request.url, body: text } }));
  let body = {};
  try {
    if (text !== "" && path.includes("/v1/")) body = JSON.parse(text);
  } catch {
    return json(400, { error: { message: "the body is not JSON", type: "invalid_request_error" } });
  }
  const { whole, events, named } = route(body);
  if (!body.stream || !events) return json(200, { ...whole, x402 });

  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  for (const event of events) {
    const data = typeof event === "string" ? event : JSON.stringify(event);
    response.write(`${named ? `event: ${event.type}\n` : ""}data: ${data}\n\n`);
    if (delay > 0) await new Promise(resolve => setTimeout(resolve, delay));
  }
  response.end();
});
await serve(server, options.port);
console.log(JSON.stringify({ ready: true, url: `http://127.0.0.1:${options.port}`, pid: process.pid }));
