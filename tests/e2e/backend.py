"""The backend behind the gateway: does what the request's `x-behave` header says, and keeps what reached it.

A test names its requests with `x-test-id`. A request without `x-behave` is answered with a little JSON.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from stack.process import DEADLINE, wait_until

from .wire import Answer, Gate, Gates, Journal, Loop, Request, Server

JSON_TYPE = (b"content-type", b"application/json")


def behave(**what: Any) -> tuple[str, str]:
    """The header that tells the backend what to do.

    status: the status (200); headers: [[name, value]]; hold: wait at the gate before the headers;
    kind: "json" (default), "echo" (digest of what came), "mirror" (the body back), "sse", "bytes", "trailers", "empty",
    "body" (`text`), "parts" (`parts`, then `trailers`: [[name, value]]), "cut" (`parts`); chunks: events of "sse", each of
    them, as each part of "parts", behind the gate unless `free`; size: of "bytes"; reset: "before" or "after" the headers.
    "parts" may have `padding`, so many spaces after the first; with `waits` it is at the gate once more before its end, and
    with `breaks` it resets then. "cut" sends the headers and `parts` (Latin-1), waits at the gate unless `free`, and then
    ends, or with `breaks` resets.
    """
    return ("x-behave", json.dumps(what, separators=(",", ":")))


def pattern(size: int) -> bytes:
    """`size` bytes in which every position matters."""
    block = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(64))
    return (block * (size // len(block) + 1))[:size]


def sse_event(number: int) -> bytes:
    """The event that `kind: sse` sends as its `number`-th."""
    return f'data: {{"n":{number}}}\n\n'.encode()


class Backend(Server):
    """See the module."""

    def __init__(self, loop: Loop, journal: Journal) -> None:
        self._gates = Gates(loop)
        super().__init__(loop, journal)

    def gate(self, test_id: str) -> Gate:
        """Where the answers to this test's requests wait, if told to."""
        return self._gates[test_id]

    def requests(self, test_id: str) -> list[Request]:
        """What reached the backend with this id, even if only its head."""
        return [request for request in list(self.everything) if test_id in request.all("x-test-id")]

    def one(self, test_id: str) -> Request:
        """The only request with this id, awaited and complete."""
        wait_until(lambda: self.requests(test_id), f"backend gets {test_id}")
        found = self.requests(test_id)
        assert len(found) == 1, f"{test_id} reached the backend {len(found)} times"
        assert found[0].complete.wait(DEADLINE), f"{test_id} never ended"
        return found[0]

    def arrived(self, request: Request) -> None:
        super().arrived(request)
        for test_id in request.all("x-test-id"):
            self.journal.note(test_id, "backend")

    async def answer(self, request: Request, answer: Answer) -> None:
        what = json.loads((request.all("x-behave") or ["{}"])[0])
        status: int = what.get("status", 200)
        kind: str = what.get("kind", "json")
        headers = [(name.encode(), value.encode()) for name, value in what.get("headers", [])]
        gate = self.gate((request.all("x-test-id") or [""])[0])
        if what.get("reset") == "before":
            await answer.reset()
        await self.read(request)
        if what.get("hold"):
            await gate.wait()
        if what.get("reset") == "after":
            await answer.head(status, [*headers, JSON_TYPE])
            await answer.data(b'{"partial":')
            await answer.reset()
        match kind:
            case "empty":
                await answer.head(status, headers, end=True)
                await answer.end()
            case "body":
                await answer.whole(status, headers, what["text"].encode())
            case "mirror":
                await answer.whole(status, headers, request.body)
            case "bytes":
                await answer.whole(status, headers, pattern(what["size"]))
            case "trailers":
                await answer.head(status, [*headers, JSON_TYPE])
                await answer.data(b'{"with":"trailers"}')
                await answer.end([(b"x-from-backend", b"trailer")])
            case "sse":
                await answer.head(status, [*headers, (b"content-type", b"text/event-stream")])
                for number in range(what["chunks"]):
                    if not what.get("free"):
                        await gate.wait()
                    await answer.data(sse_event(number))
                await answer.end()
            case "parts":
                await answer.head(status, headers)
                for number, part in enumerate(what["parts"]):
                    if not what.get("free"):
                        await gate.wait()
                    if number == 1:
                        await answer.data(b" " * what.get("padding", 0))
                    await answer.data(part.encode())
                if what.get("waits"):
                    await gate.wait()
                if what.get("breaks"):
                    await answer.reset()
                await answer.end([(name.encode(), value.encode()) for name, value in what.get("trailers", [])])
            case "cut":
                await answer.head(status, headers)
                for part in what["parts"]:
                    await answer.data(part.encode("latin-1"))
                if not what.get("free"):
                    await gate.wait()
                await (answer.reset() if what.get("breaks") else answer.end())
            case "echo":
                found = {
                    "sha256": hashlib.sha256(request.body).hexdigest(), "length": len(request.body),
                    "trailers": [[name.decode(), value.decode()] for name, value in request.trailers],
                }
                await answer.whole(status, [*headers, JSON_TYPE], json.dumps(found).encode())
            case _:
                found = {"method": request.method, "path": request.path.decode("latin-1"), "status": status}
                await answer.whole(status, [*headers, JSON_TYPE], json.dumps(found).encode())
