// The openai SDK, paying.
import OpenAI from "openai";
import { url } from "./request.mjs";
import { options, report, request, stream } from "./sdk.mjs";

const client = new OpenAI({ ...options, baseURL: url.replace("/chat/completions", ""), apiKey: "x402" });
await report(await client.chat.completions.create(request),
  answer => (stream ? answer.choices[0]?.delta.content : answer.choices[0].message.content) ?? "");
