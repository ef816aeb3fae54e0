// @x402/axios. PACKAGES=clients-axios
import { wrapAxiosWithPayment } from "@x402/axios";
import { x402Client } from "@x402/core/client";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import axios from "axios";
import { privateKeyToAccount } from "viem/accounts";
import { init, key, report, url } from "./request.mjs";

const account = privateKeyToAccount(key);
const client = new x402Client()
  .register("eip155:*", new ExactEvmScheme(account))
  .register("eip155:*", new UptoEvmScheme(account));
const paying = wrapAxiosWithPayment(axios.create({ transformResponse: text => text }), client);
const { method = "GET", headers, body: data } = init;
const answer = await paying.request({ url, method, headers, data }).catch(error => error.response ?? Promise.reject(error));
report({ status: answer.status, headers: { ...answer.headers }, text: answer.data });
