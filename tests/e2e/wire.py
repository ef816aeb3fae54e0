"""A small HTTP server that hides nothing: every byte of a request is kept, every byte of an answer is chosen.

Speaks HTTP/1.1 and, after its preface, HTTP/2, on one port. Runs on one background event loop, so that tests are plain
synchronous code. Knows nothing of x402; `backend.py` and `facilitator.py` say what is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from stack.process import DEADLINE, wait_until

Headers = list[tuple[bytes, bytes]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 1 << 24


class Loop:
    """The event loop all servers of a test run live on, in its own thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="servers", daemon=True).start()

    def run(self, work: Awaitable[Any]) -> Any:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)


class Journal:
    """What happened, in the order it happened, across backend, facilitator and client."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def note(self, key: str, what: str) -> None:
        """`key` tells whose it is (a test id or what a payment spends), `what` is one of few words."""
        with self._lock:
            self._entries.append((key, what))

    def of(self, *keys: str) -> list[str]:
        """What happened to any of these keys."""
        with self._lock:
            return [what for key, what in self._entries if key in keys]


@dataclass
class Request:
    """A request as it came: recorded when its head is there, completed when its body is."""

    protocol: str
    method: str
    path: bytes
    headers: Headers
    body: bytes = b""
    trailers: Headers = field(default_factory=list)
    complete: threading.Event = field(default_factory=threading.Event)
    # The other side closed or reset before the answer was over.
    aborted: threading.Event = field(default_factory=threading.Event)
    # The answer was handed over completely.
    answered: threading.Event = field(default_factory=threading.Event)

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == name.lower().encode()]

    def header(self, name: str) -> str | None:
        """The only value of a header; None when it is absent."""
        values = self.all(name)
        assert len(values) < 2, f"{name} was sent {len(values)} times: {values}"
        return values[0] if values else None

    def names(self) -> set[str]:
        """The names of all headers, without case."""
        return {key.decode("latin-1").lower() for key, _ in self.headers}


class Gate:
    """A place where an answer waits until the test lets it on. Nothing here depends on time."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._permits = asyncio.Semaphore(0)
        self.reached = threading.Semaphore(0)

    async def wait(self) -> None:
        """The server's side: announce, then wait for a permit."""
        self.reached.release()
        await self._permits.acquire()

    def await_reached(self) -> None:
        """The test's side: the answer is at the gate (once per permit)."""
        assert self.reached.acquire(timeout=DEADLINE), "nobody came to the gate"

    def release(self, times: int = 1) -> None:
        """Let it on."""
        for _ in range(times):
            self._loop.loop.call_soon_threadsafe(self._permits.release)

    def race(self, act: Callable[[], None], first: bool) -> None:
        """Let one answer on, and do something right before it (`first`) or right behind it: as close as two events get.

        Both happen on the servers' thread, so the machine's speed does not come between them; `act` must not block.
        """
        def both() -> None:
            if first:
                act()
            self._permits.release()
            if not first:
                # What the permit has woken runs before this.
                self._loop.loop.call_soon(act)

        self._loop.loop.call_soon_threadsafe(both)


class Gates:
    """A gate for each name, made when somebody first asks for it: the test, or the server on its own thread.

    Both may ask first at the same moment, and must be given the same one: else one waits where the other never comes.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Gate:
        with self._lock:
            if name not in self._gates:
                self._gates[name] = Gate(self._loop)
            return self._gates[name]


class Answer:
    """How a request is answered; one class per protocol."""

    request: Request

    async def head(self, status: int, headers: Headers, end: bool = False) -> None:
        """The status line and headers."""
        raise NotImplementedError

    async def data(self, data: bytes) -> None:
        """Body bytes."""
        raise NotImplementedError

    async def end(self, trailers: Headers = ()) -> None:
        """The end, with trailers if there are any."""
        raise NotImplementedError

    async def reset(self) -> None:
        """Cut it off: RST on HTTP/1.1, RST_STREAM on HTTP/2."""
        raise NotImplementedError

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete answer."""
        await self.head(status, [*headers, (b"content-length", str(len(body)).encode())])
        if body and self.request.method != "HEAD":
            await self.data(body)
        await self.end()


class Cut(Exception):
    """The answer was reset on purpose."""


class Http1Answer(Answer):
    """An answer on HTTP/1.1; chunked unless it has a length or cannot have a body."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._writer = writer
        self._chunked = False
        self._ended = False

    async def head(self, status: int, headers: Headers, end: bool = False) -> None:
        bodiless = self.request.method == "HEAD" or status in (204, 304) or 100 <= status < 200
        lengthy = any(name.lower() == b"content-length" for name, _ in headers)
        if bodiless and status == 204:
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        lines = [f"HTTP/1.1 {status} Status".encode()]
        lines += [name + b": " + value for name, value in headers]
        if not lengthy and not bodiless:
            self._chunked = not end
            lines.append(b"content-length: 0" if end else b"transfer-encoding: chunked")
        self._writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        self._ended = end or bodiless
        await self._writer.drain()

    async def data(self, data: bytes) -> None:
        if self._ended or not data:
            return
        self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n" if self._chunked else data)
        await self._writer.drain()

    async def end(self, trailers: Headers = ()) -> None:
        if self._chunked and not self._ended:
            tail = b"".join(name + b": " + value + b"\r\n" for name, value in trailers)
            self._writer.write(b"0\r\n" + tail + b"\r\n")
            await self._writer.drain()
        self._ended = True
        self.request.answered.set()

    async def reset(self) -> None:
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        raise Cut


class Http2Answer(Answer):
    """An answer on one HTTP/2 stream."""

    def __init__(self, request: Request, connection: Http2Connection, stream: int) -> None:
        self.request = request
        self._connection = connection
        self._stream = stream
        self._ended = False

    async def head(self, status: int, headers: Headers, end: bool = False) -> None:
        bodiless = self.request.method == "HEAD" or status in (204, 304)
        self._ended = end or bodiless
        if status == 204:
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        fields = [(b":status", str(status).encode()), *((name.lower(), value) for name, value in headers)]
        self._connection.h2.send_headers(self._stream, fields, end_stream=self._ended)
        await self._connection.flush()

    async def data(self, data: bytes) -> None:
        if not self._ended:
            await self._connection.send(self._stream, data)

    async def end(self, trailers: Headers = ()) -> None:
        if not self._ended:
            if trailers:
                self._connection.h2.send_headers(self._stream, list(trailers), end_stream=True)
            else:
                self._connection.h2.end_stream(self._stream)
            await self._connection.flush()
        self._ended = True
        self.request.answered.set()

    async def reset(self) -> None:
        self._connection.h2.reset_stream(self._stream, error_code=2)
        await self._connection.flush()
        raise Cut


class Http2Connection:
    """The server's side of one HTTP/2 connection."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._open = asyncio.Condition()
        self._requests: dict[int, Request] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        config = h2.config.H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False,
                                           validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1000,
            h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        })

    async def flush(self) -> None:
        """Hand what the protocol wants to say to the socket."""
        self._writer.write(self.h2.data_to_send())
        await self._writer.drain()

    async def send(self, stream: int, data: bytes) -> None:
        """Send within the flow-control window, waiting for it where it is closed."""
        while data:
            async with self._open:
                while (room := min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)) <= 0:
                    await self._open.wait()
                self.h2.send_data(stream, data[:room])
                data = data[room:]
            await self.flush()

    async def serve(self, first: bytes) -> None:
        """Read events until the connection ends."""
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(WINDOW)
        await self.flush()
        data = first
        try:
            while data:
                for event in self.h2.receive_data(data):
                    await self._on(event)
                await self.flush()
                data = await self._reader.read(65536)
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            for stream, task in self._tasks.items():
                if not task.done():
                    self._requests[stream].aborted.set()
                    task.cancel()

    async def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                fields = dict(event.headers)
                request = Request("h2", fields.get(b":method", b"").decode(), fields.get(b":path", b""),
                                  [(bytes(name), bytes(value)) for name, value in event.headers])
                self._requests[event.stream_id] = request
                self._server.arrived(request)
                answer = Http2Answer(request, self, event.stream_id)
                self._tasks[event.stream_id] = asyncio.create_task(self._server.run(request, answer))
            case h2.events.DataReceived():
                self._requests[event.stream_id].body += event.data
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self._requests[event.stream_id].trailers = [(bytes(n), bytes(v)) for n, v in event.headers]
            case h2.events.StreamEnded():
                self._requests[event.stream_id].complete.set()
            case h2.events.StreamReset():
                request = self._requests[event.stream_id]
                if not request.answered.is_set():
                    request.aborted.set()
                    self._tasks[event.stream_id].cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                async with self._open:
                    self._open.notify_all()


class Server:
    """Listens on a port of its own; subclasses say in `answer` what is answered."""

    def __init__(self, loop: Loop, journal: Journal) -> None:
        self.loop = loop
        self.journal = journal
        self.everything: list[Request] = []
        self._server: asyncio.Server = loop.run(self._listen(0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _listen(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", port, limit=1 << 20, backlog=512)

    async def answer(self, request: Request, answer: Answer) -> None:
        """What is answered; the body may still be on its way (`read`)."""
        raise NotImplementedError

    def arrived(self, request: Request) -> None:
        """A head is there."""
        self.everything.append(request)

    async def read(self, request: Request) -> None:
        """Wait until the request's body is there."""
        while not request.complete.is_set():
            await asyncio.sleep(0.001)

    async def run(self, request: Request, answer: Answer) -> None:
        """Answer one request; a reset and a vanished peer are no errors."""
        with contextlib.suppress(Cut, ConnectionError, h2.exceptions.ProtocolError):
            await self.answer(request, answer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(3)
            if first == PREFACE[:3]:
                await Http2Connection(self, reader, writer).serve(first)
            else:
                await self._http1(first, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _http1(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = first + await reader.readuntil(b"\r\n\r\n")
            lines = head[:-4].split(b"\r\n")
            method, path, _ = lines[0].split(b" ", 2)
            request = Request("h1", method.decode(), path, [_field(line) for line in lines[1:]])
            self.arrived(request)
            answer = Http1Answer(request, writer)
            task = asyncio.create_task(self.run(request, answer))
            try:
                await _http1_body(request, reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                request.aborted.set()
                task.cancel()
                raise
            request.complete.set()
            gone = asyncio.create_task(reader.readexactly(3))
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and gone.exception() is not None:
                if not request.answered.is_set():
                    request.aborted.set()
                task.cancel()
                return
            await task
            if writer.is_closing():
                gone.cancel()
                return
            first = await gone


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


async def _http1_body(request: Request, reader: asyncio.StreamReader) -> None:
    if "chunked" in (request.header("transfer-encoding") or "").lower():
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            request.trailers.append(_field(line[:-2]))
        request.body = b"".join(parts)
    elif length := request.header("content-length"):
        request.body = await reader.readexactly(int(length))


_numbers = itertools.count(1)


def fresh_id() -> str:
    """A name that no other request of this run has."""
    return f"t{next(_numbers)}"


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition that an event already on its way will make true."""
    return wait_until(condition, what)
