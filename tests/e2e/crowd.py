"""Many requests over a few connections that stay open: HTTP/1.1 and HTTP/2 at once, on every worker of an Envoy.

`client.py` sees every byte of one exchange; this one is for thousands of them. Answers are read whole, or the test ends: a
connection that closes without having said so is a failure here.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import itertools
import json
import time
from dataclasses import dataclass
from typing import Any, Iterable

import h2.config
import h2.connection
import h2.events
import h2.settings

from stack.process import DEADLINE

from .world import World

Fields = list[tuple[str, str]]
# On each worker, and streams at once on each that speaks HTTP/2.
LINES = 2
STREAMS = 8
HOST = "api.test"


@dataclass
class Ask:
    """A GET, and whatever the test wants to know it by."""

    path: str
    headers: Fields
    tag: Any = None


@dataclass
class Told:
    """What came of it, and when it was sent."""

    ask: Ask
    status: int
    headers: dict[str, str]
    body: bytes
    sent_at: float

    @property
    def error(self) -> str:
        """The reason of a refusal."""
        return json.loads(self.body)["error"]

    @property
    def receipt(self) -> Any:
        """The receipt, or None."""
        value = self.headers.get("payment-response") or self.headers.get("x-payment-response")
        return value and json.loads(base64.b64decode(value))


class Http1Line:
    """One request after another."""

    at_once = 1

    async def open(self, port: int) -> Http1Line:
        self._port = port
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        return self

    async def ask(self, ask: Ask) -> tuple[int, dict[str, str], bytes]:
        lines = [f"GET {ask.path} HTTP/1.1", f"host: {HOST}", *(f"{name}: {value}" for name, value in ask.headers), "", ""]
        self._writer.write("\r\n".join(lines).encode("latin-1"))
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        body = await self._reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            # As Envoy does after each 400.
            self._writer.close()
            await self.open(self._port)
        return int(head[0].split(" ")[1]), headers, body

    async def close(self) -> None:
        self._writer.close()


class Http2Line:
    """Some requests at once."""

    at_once = STREAMS

    async def open(self, port: int) -> Http2Line:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="latin-1"))
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values={
            h2.settings.SettingCodes.ENABLE_PUSH: 0, h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(1 << 30)
        self._heads: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = collections.defaultdict(bytes)
        self._ends: dict[int, asyncio.Future[None]] = {}
        self.flush()
        self._reading = asyncio.create_task(self._read())
        return self

    def flush(self) -> None:
        """Hand what was begun to the socket, at once."""
        self._writer.write(self._h2.data_to_send())

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(65536):
                for event in self._h2.receive_data(data):
                    match event:
                        case h2.events.ResponseReceived():
                            self._heads[event.stream_id] = dict(event.headers)
                        case h2.events.DataReceived():
                            self._bodies[event.stream_id] += event.data
                        case h2.events.StreamEnded():
                            self._end(event.stream_id, None)
                        case h2.events.StreamReset():
                            self._end(event.stream_id, f"stream reset: {event.error_code}")
                self.flush()
        finally:
            for stream in self._ends:
                self._end(stream, "the connection was closed")

    def _end(self, stream: int, why: str | None) -> None:
        end = self._ends.get(stream)
        # Envoy resets the request's half after an early answer.
        if end is None or end.done():
            return
        if why is None:
            end.set_result(None)
        else:
            end.set_exception(ConnectionResetError(why))
            end.exception()  # nobody may be waiting

    def begin(self, ask: Ask) -> int:
        """A stream whose request leaves with the next `flush`."""
        assert not self._reading.done(), "the connection was closed"
        stream = self._h2.get_next_available_stream_id()
        self._ends[stream] = asyncio.get_running_loop().create_future()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", ask.path)]
        self._h2.send_headers(stream, fields + [(name.lower(), value) for name, value in ask.headers], end_stream=True)
        return stream

    def answered(self, stream: int) -> bool:
        """Whether its answer is there."""
        return self._ends[stream].done()

    async def take(self, stream: int) -> tuple[int, dict[str, str], bytes]:
        """Its answer, awaited."""
        await self._ends[stream]
        del self._ends[stream]
        head = self._heads.pop(stream)
        return int(head[":status"]), head, self._bodies.pop(stream, b"")

    async def ask(self, ask: Ask) -> tuple[int, dict[str, str], bytes]:
        stream = self.begin(ask)
        self.flush()
        return await self.take(stream)

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()


async def one_each(world: World) -> list[Http2Line]:
    """A connection to each worker."""
    lines: dict[str, Http2Line] = {}
    for _ in range(200):
        before = await connections(world, "total")
        line = await Http2Line().open(world.port)
        after = await connections(world, "total", sum(before.values()) + 1)
        worker = next(name for name in after if after[name] > before[name])
        if worker in lines:
            await line.close()
        lines.setdefault(worker, line)
        if len(lines) == world.envoy.workers:
            return list(lines.values())
    raise AssertionError("a worker never got a connection")


async def connections(world: World, what: str, at_least: float = 0) -> dict[str, float]:
    """How many each worker has ("active") or has had ("total"), once there are so many in all."""
    pattern = rf"^listener\.127\.0\.0\.1_{world.port}\.worker_\d+\.downstream_cx_{what}$"
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await asyncio.to_thread(world.envoy.stats, pattern)
            assert len(found) == world.envoy.workers, found
            if sum(found.values()) >= at_least:
                return found
            await asyncio.sleep(0.01)


class Crowd:
    """Some connections to each worker. An asynchronous context manager."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lines: list[Http1Line | Http2Line] = []

    async def __aenter__(self) -> Crowd:
        kinds = itertools.cycle([Http1Line, Http2Line])
        # Envoy's workers share the port, and the kernel deals connections out as it likes.
        for _ in range(50):
            self._lines += [await next(kinds)().open(self._world.port) for _ in range(self._world.envoy.workers * LINES)]
            if min((await connections(self._world, "active", len(self._lines))).values()) >= LINES:
                return self
        raise AssertionError("a worker never got its connections")

    async def __aexit__(self, *_: object) -> None:
        for line in self._lines:
            await line.close()

    async def throw(self, asks: Iterable[Ask]) -> list[Told]:
        """Each request at the next connection that has nothing to do, and all the answers."""
        waiting = collections.deque(asks)
        told: list[Told] = []

        async def keep_asking(line: Http1Line | Http2Line) -> None:
            while waiting:
                ask, sent_at = waiting.popleft(), time.time()
                try:
                    told.append(Told(ask, *await line.ask(ask), sent_at))
                except (OSError, EOFError) as error:
                    raise AssertionError(f"no answer to {ask} on {line}: {error!r}") from error

        async with asyncio.timeout(10 * DEADLINE), asyncio.TaskGroup() as group:
            for line in self._lines:
                for _ in range(line.at_once):
                    group.create_task(keep_asking(line))
        return told
