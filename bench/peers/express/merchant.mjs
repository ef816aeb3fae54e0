// `node merchant.mjs PORT BACKEND FACILITATOR`: sells GET /v1/report, which the backend on a port of this machine answers.
// One process, settles after the backend's answer, as the filter does.

import http from "node:http";
import express from "express";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";

const [port, backend, facilitator] = process.argv.slice(2);
const NETWORK = "eip155:84532";
const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: `http://127.0.0.1:${facilitator}` }))
  .register(NETWORK, new ExactEvmScheme());
const agent = new http.Agent({ keepAlive: true });

const app = express();
app.use(paymentMiddleware({
  "GET /v1/report": {
    accepts: { scheme: "exact", price: "$0.01", network: NETWORK, payTo: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C" },
    resource: "https://api.example.com/v1/report", description: "A report", mimeType: "application/json",
  },
}, server));
app.get("/v1/report", (_, response) => {
  http.get({ host: "127.0.0.1", port: backend, path: "/v1/report", agent }, answer => {
    const chunks = [];
    answer.on("data", chunk => chunks.push(chunk));
    answer.on("end", () => response.status(answer.statusCode).type("application/json").send(Buffer.concat(chunks)));
  }).on("error", () => response.sendStatus(502));
});
app.listen(Number(port), "127.0.0.1");
