"""Anthropic's SDK, paying."""

import asyncio
from typing import Any

from anthropic import AsyncAnthropic

from common import URL
from sdk_common import OPTIONS, REQUEST, STREAM, report


def text(answer: Any) -> str | None:
    return getattr(getattr(answer, "delta", None), "text", None) if STREAM else answer.content[0].text


async def main() -> None:
    client = AsyncAnthropic(base_url=URL.removesuffix("/v1/messages"), **OPTIONS)
    await report(await client.messages.create(**REQUEST), text)


asyncio.run(main())
