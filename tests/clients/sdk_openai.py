"""The openai SDK, paying."""

import asyncio
from typing import Any

from openai import AsyncOpenAI

from common import URL
from sdk_common import OPTIONS, REQUEST, STREAM, report


def text(answer: Any) -> str | None:
    if not STREAM:
        return answer.choices[0].message.content
    return answer.choices[0].delta.content if answer.choices else None


async def main() -> None:
    client = AsyncOpenAI(base_url=URL.removesuffix("/chat/completions"), **OPTIONS)
    await report(await client.chat.completions.create(**REQUEST), text)


asyncio.run(main())
