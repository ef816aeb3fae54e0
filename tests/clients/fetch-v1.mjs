// x402-fetch, the published client of x402 version 1. PACKAGES=clients-v1
import { createSigner, wrapFetchWithPayment } from "x402-fetch";
import { init, key, reportResponse, url } from "./request.mjs";

const signer = await createSigner("base-sepolia", key);
await reportResponse(await wrapFetchWithPayment(fetch, signer)(url, init));
