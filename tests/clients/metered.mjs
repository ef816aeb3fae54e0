// @x402/fetch over node:http, which has what fetch hides: the trailers. SCHEMES is what the client can pay (of `exact`
// and `upto`, both by default); LEAVE_AFTER=10 closes the connection after so many events with text.
import http from "node:http";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { init, key, url } from "./request.mjs";

const leaveAfter = Number(process.env.LEAVE_AFTER ?? Infinity);
const TEXT = /"(content|text)":"[^"]/g;

/** The answer as a Response, complete, with what came after its end as `trailers`. */
function overHttp(input) {
  return new Promise(async (resolve, reject) => {
    const data = Buffer.from(await input.arrayBuffer());
    const request = http.request(input.url, { method: input.method, headers: Object.fromEntries(input.headers), agent: false });
    request.on("error", reject);
    request.on("response", message => {
      let text = "";
      const done = cut => {
        const response = new Response(text, { status: message.statusCode, headers: message.headers });
        resolve(Object.assign(response, { cut, trailers: message.trailers }));
      };
      message.setEncoding("utf8");
      message.on("data", part => {
        text += part;
        if ((text.match(TEXT) ?? []).length >= leaveAfter) message.destroy();
      });
      // Without its end the answer is what came of it.
      message.on("error", () => {});
      message.on("close", () => done(!message.complete));
    });
    request.end(data);
  });
}

const account = privateKeyToAccount(key);
const schemes = { exact: new ExactEvmScheme(account), upto: new UptoEvmScheme(account) };
const client = new x402Client();
for (const name of (process.env.SCHEMES ?? "exact upto").split(" ")) client.register("eip155:*", schemes[name]);

const response = await wrapFetchWithPayment(overHttp, client)(url, init);
const said = response.headers.get("payment-response") ?? response.trailers["payment-response"];
console.log(JSON.stringify({
  status: response.status, headers: Object.fromEntries(response.headers), body: await response.text(),
  trailers: response.trailers, cut: response.cut, receipt: said && JSON.parse(Buffer.from(said, "base64").toString()),
}));
