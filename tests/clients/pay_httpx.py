"""PyPI x402 with httpx."""

import asyncio

from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient

from common import BODY, HEADERS, METHOD, URL, registered, report


async def main() -> None:
    async with x402HttpxClient(registered(x402Client()), timeout=60) as client:
        answer = await client.request(METHOD, URL, headers=HEADERS, content=BODY)
        report(answer.status_code, answer.headers, answer.text)


asyncio.run(main())
