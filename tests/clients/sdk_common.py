"""What the SDKs' programs have in common: an httpx client that pays, and what they print. STREAM=1 streams."""

import json
import os
from typing import Any, Callable

import httpx
from x402 import x402Client
from x402.http.clients.httpx import wrapHttpxWithPayment

from common import registered

STREAM = os.environ.get("STREAM") == "1"
REQUEST = {**json.loads(os.environ["BODY"]), "stream": STREAM}
SEEN: dict[str, Any] = {}  # of the last request and its answer


async def _asked(request: httpx.Request) -> None:
    SEEN["sent"] = request.content.decode()


async def _answered(response: httpx.Response) -> None:
    SEEN.update(status=response.status_code, headers=dict(response.headers))


OPTIONS = {
    "max_retries": 0,
    "api_key": "x402",
    "http_client": wrapHttpxWithPayment(registered(x402Client()), timeout=60,
                                        event_hooks={"request": [_asked], "response": [_answered]}),
}


async def report(answer: Any, text: Callable[[Any], str | None]) -> None:
    """Takes the SDK's answer in: whole, or event by event. `text` is that of an answer or event."""
    events = [event async for event in answer] if STREAM else [answer]
    print(json.dumps({
        **SEEN, "body": "".join(text(event) or "" for event in events),
        "events": [event.model_dump(mode="json", exclude_unset=True) for event in events],
    }))
