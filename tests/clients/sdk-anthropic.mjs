// Anthropic's SDK, paying.
import Anthropic from "@anthropic-ai/sdk";
import { url } from "./request.mjs";
import { options, report, request, stream } from "./sdk.mjs";

const client = new Anthropic({ ...options, baseURL: url.replace("/v1/messages", ""), apiKey: "x402" });
await report(await client.messages.create(request),
  answer => (stream ? answer.delta?.text : answer.content[0].text) ?? "");
