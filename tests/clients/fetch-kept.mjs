// @x402/fetch, whose payment is kept, as `payment`, to be sent again. LEAVE_AFTER=10 closes the connection after so many events with
// text; PAYMENT_ID calls the payment so, by the official payment-identifier extension.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { appendPaymentIdentifierToExtensions } from "@x402/extensions/payment-identifier";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { init, key, report, url } from "./request.mjs";

const leaveAfter = Number(process.env.LEAVE_AFTER ?? Infinity);
const client = new x402Client().register("eip155:*", new ExactEvmScheme(privateKeyToAccount(key)));
if (process.env.PAYMENT_ID) {
  client.onBeforePaymentCreation(async ({ paymentRequired }) => {
    appendPaymentIdentifierToExtensions(paymentRequired.extensions, process.env.PAYMENT_ID);
  });
}
let payment;
const keeping = request => {
  payment = request.headers.get("payment-signature") ?? payment;
  return fetch(request);
};

const response = await wrapFetchWithPayment(keeping, client)(url, init);
let text = "";
for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
  text += part;
  // Leaving the loop cancels the body, which closes the connection.
  if ((text.match(/"content":"[^"]/g) ?? []).length >= leaveAfter) break;
}
report({ status: response.status, headers: Object.fromEntries(response.headers), text, payment });
