"""PyPI x402 with httpx, whose payment is kept, as `payment`, to be sent again.

LEAVE_AFTER=10 closes the connection after so many events with text; PAYMENT_ID calls the payment so, by the official
payment-identifier extension.
"""

import asyncio
import os
import re

import httpx
from x402 import x402Client
from x402.extensions.payment_identifier import append_payment_identifier_to_extensions
from x402.http.clients.httpx import x402_httpx_transport

from common import BODY, HEADERS, METHOD, URL, registered, report

LEAVE_AFTER = float(os.environ.get("LEAVE_AFTER", "inf"))


class Keeping(httpx.AsyncHTTPTransport):
    """Sends requests on their way, and keeps the payment that one of them had."""

    payment: str | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.payment = request.headers.get("payment-signature", self.payment)
        return await super().handle_async_request(request)


async def main() -> None:
    client, keeping, text = registered(x402Client()), Keeping(), ""
    if name := os.environ.get("PAYMENT_ID"):
        client.on_before_payment_creation(lambda context: append_payment_identifier_to_extensions(
            context.payment_required.extensions, name) and None)
    async with httpx.AsyncClient(transport=x402_httpx_transport(client, keeping), timeout=60) as http:
        async with http.stream(METHOD, URL, headers=HEADERS, content=BODY) as answer:
            async for part in answer.aiter_text():
                text += part
                if len(re.findall(r'"content": ?"[^"]', text)) >= LEAVE_AFTER:
                    break
    report(answer.status_code, answer.headers, text, payment=keeping.payment)


asyncio.run(main())
