// @x402/fetch with the official payment-identifier extension: the payment is called PAYMENT_ID.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { appendPaymentIdentifierToExtensions } from "@x402/extensions/payment-identifier";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { init, key, reportResponse, url } from "./request.mjs";

const client = new x402Client()
  .register("eip155:*", new ExactEvmScheme(privateKeyToAccount(key)))
  .onBeforePaymentCreation(async ({ paymentRequired }) => {
    appendPaymentIdentifierToExtensions(paymentRequired.extensions, process.env.PAYMENT_ID);
  });
await reportResponse(await wrapFetchWithPayment(fetch, client)(url, init));
