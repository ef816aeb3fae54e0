"""The faulty facilitator: it stands before the official one, and settles really, or fails as it is told, or both.

What a payment meets is scripted by what it spends, as in `e2e.facilitator`, whose behaviours (`reset`, `garbage`, `reply`,
`refuse`, `hang`) fail before the official facilitator has heard of anything; `lost` lets any of them follow upon it. The
client's side of a call may be gone meanwhile: what was sent to the official one is done all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import urllib.request
from collections import Counter
from typing import Any, Coroutine

from clients.world import Service
from e2e.facilitator import Behaviour, Call, Facilitator, reply, spends
from e2e.wire import Answer, Journal, Loop, Server

from stack.process import free_port, wait_until

JSON = [(b"content-type", b"application/json")]


class Outages(Server):
    """A server that can be gone for a while: connections end, new ones are refused, and it comes back on its port."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._writers: set[asyncio.StreamWriter] = set()
        super().__init__(*arguments, **more)

    async def _listen(self, port: int) -> asyncio.Server:
        # Not an ephemeral port: somebody else's connection could take it meanwhile.
        return await super()._listen(port or free_port())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await super()._connected(reader, writer)
        finally:
            self._writers.discard(writer)

    def down(self) -> None:
        """Nobody listens any more."""
        async def close() -> None:
            self._server.close()

        self.loop.run(close())
        # More than once: what was being accepted comes after what was there.
        wait_until(lambda: self.loop.run(self._cut()), "all connections are gone")

    def up(self) -> None:
        """As before, if it was down."""
        if not self._server.is_serving():
            self._server = self.loop.run(self._listen(self.port))

    async def _cut(self) -> bool:
        for writer in list(self._writers):
            # A reset, whatever was still to be sent; unless it is closed already.
            with contextlib.suppress(OSError):
                peer = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        # Their handlers notice.
        await asyncio.sleep(0)
        return not self._writers


class Faulty(Outages, Facilitator):
    """See the module."""

    def __init__(self, loop: Loop, journal: Journal, official: Service) -> None:
        self._official = official.port
        self._kept: set[asyncio.Task[Any]] = set()
        self._asked: Counter[str] = Counter()
        self._settling = asyncio.Lock()
        with urllib.request.urlopen(f"http://127.0.0.1:{official.port}/supported", timeout=20) as answer:
            supported = json.load(answer)
        super().__init__(loop, journal, supported)
        self.default = {"verify": forward(), "settle": forward()}

    async def keep(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Wait for this; it goes on if whoever waits is gone."""
        task = asyncio.ensure_future(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return await asyncio.shield(task)

    async def ask(self, call: Call) -> tuple[int, bytes]:
        """What the official facilitator says."""
        return await self.keep(self._ask(call))

    async def _ask(self, call: Call) -> tuple[int, bytes]:
        self._asked[call.spends] += 1
        try:
            if call.what == "verify":
                return await self._exchange(call)
            # One at a time: after one that reverts, concurrent ones would be lost to each other's transaction numbers.
            async with self._settling:
                return await self._exchange(call)
        finally:
            self._asked[call.spends] -= 1

    async def _exchange(self, call: Call) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._official)
        # HTTP/1.0: the answer ends with the connection.
        head = f"POST /{call.what} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(call.request.body)}\r\n\r\n"
        writer.write(head.encode() + call.request.body)
        try:
            whole = await reader.read()
        finally:
            writer.close()
        head, _, body = whole.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body

    def is_idle(self, payload: dict[str, Any]) -> bool:
        """Whether the official facilitator has answered all that it was asked about a payment."""
        return not self._asked[spends(payload)]


def forward() -> Behaviour:
    """What the official facilitator does and says."""
    async def act(facilitator: Faulty, call: Call, answer: Answer) -> None:
        status, body = await facilitator.ask(call)
        await answer.whole(status, JSON, body)
    return act


def lost(then: Behaviour) -> Behaviour:
    """What the official facilitator does; but not what it says: `then` comes in its place."""
    async def act(facilitator: Faulty, call: Call, answer: Answer) -> None:
        await facilitator.ask(call)
        await then(facilitator, call, answer)
    return act


def slow() -> Behaviour:
    """What the official facilitator does, and after a wait at the payment's gate what it says."""
    async def act(facilitator: Faulty, call: Call, answer: Answer) -> None:
        status, body = await facilitator.ask(call)
        await facilitator.gate(call.spends).wait()
        await answer.whole(status, JSON, body)
    return act


def named() -> Behaviour:
    """Settled, and said to be pending, with the transaction. A refusal stays one."""
    async def act(facilitator: Faulty, call: Call, answer: Answer) -> None:
        status, body = await facilitator.ask(call)
        said = json.loads(body)
        if said["success"]:
            said |= {"success": False, "errorReason": "settlement_pending"}
        await reply(status, said)(facilitator, call, answer)
    return act


def behind_its_back() -> Behaviour:
    """It hangs at the payment's gate, and goes on from there even if nobody waits for it any more."""
    async def act(facilitator: Faulty, call: Call, answer: Answer) -> None:
        async def late() -> tuple[int, bytes]:
            await facilitator.gate(call.spends).wait()
            return await facilitator.ask(call)

        status, body = await facilitator.keep(late())
        await answer.whole(status, JSON, body)
    return act
