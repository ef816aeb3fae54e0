// What the JavaScript clients have in common: what they are told (by the environment) and what they print.

export const url = process.env.URL_TO_PAY;
export const key = process.env.PAYER_KEY;
// With a body the request is a POST.
export const body = process.env.BODY;
export const init = body === undefined
  ? {}
  : { method: "POST", headers: { "content-type": "application/json", ...JSON.parse(process.env.HEADERS ?? "{}") }, body };

/** The one line that a test reads. */
export function report({ status, headers, text, ...more }) {
  const receipt = headers["payment-response"] ?? headers["x-payment-response"];
  console.log(JSON.stringify({
    status, headers, body: text, receipt: receipt && JSON.parse(Buffer.from(receipt, "base64").toString()), ...more,
  }));
}

export async function reportResponse(response) {
  report({ status: response.status, headers: Object.fromEntries(response.headers), text: await response.text() });
}
