"""A client that sends exactly what it is told, on HTTP/1.1 and HTTP/2, and sees exactly what comes back.

One exchange per connection. `call` is the short way; `Http1` and `Http2` let a test act between the steps.
"""

from __future__ import annotations

import base64
import json
import re
import select
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Iterable

import h2.config
import h2.connection
import h2.events
import h2.settings

from stack.process import DEADLINE

Fields = Iterable[tuple[str | bytes, str | bytes]]
Pairs = list[tuple[bytes, bytes]]

WINDOW = 1 << 24


class Closed(Exception):
    """The connection or stream ended before the answer did."""


@dataclass
class Response:
    """A whole answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    # Whose request this answers, when `World.call` made it.
    test_id: str = ""
    # True when it ended the way the protocol wants, not by a cut.
    clean: bool = True

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The only value of a header; None when it is absent."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def tokens(self, name: str) -> set[str]:
        """The comma-separated tokens of all values of a header, in lower case."""
        return {token.strip().lower() for value in self.all(name) for token in value.split(",") if token.strip()}

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def challenge(self) -> dict[str, Any]:
        """The v2 `PaymentRequired` of the header."""
        value = self.header("payment-required")
        assert value is not None, f"no PAYMENT-REQUIRED in {self!r}"
        return json.loads(base64.b64decode(value, validate=True))

    @property
    def receipt(self) -> dict[str, Any]:
        """The receipt, whichever header carries it; there must be one only."""
        values = self.all("payment-response") + self.all("x-payment-response")
        assert len(values) == 1, f"{len(values)} receipts in {self!r}"
        return json.loads(base64.b64decode(values[0], validate=True))

    @property
    def has_receipt(self) -> bool:
        """Whether any receipt header is there."""
        return bool(self.all("payment-response") or self.all("x-payment-response"))

    def __repr__(self) -> str:
        return f"Response({self.status}, {self.headers}, {self.body[:600]!r})"


def raw(value: str | bytes) -> bytes:
    """Bytes as they go over the wire."""
    return value if isinstance(value, bytes) else value.encode()


def _text(pairs: Pairs) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]


class Exchange:
    """One request and its answer, step by step."""

    def start(self, method: str, path: str | bytes, headers: Fields = (), host: str = "api.test",
              end: bool = True, length: int | None = None) -> None:
        """Send the head. Unless `end`, a body follows: of `length` bytes, or in chunks."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send body bytes."""
        raise NotImplementedError

    def finish(self, trailers: Fields = ()) -> None:
        """End the request."""
        raise NotImplementedError

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Status and headers of the answer (1xx skipped)."""
        raise NotImplementedError

    def read(self) -> bytes:
        """The next bytes of the body; b"" at its clean end."""
        raise NotImplementedError

    def trailers(self) -> list[tuple[str, str]]:
        """The trailers, once the body is over."""
        raise NotImplementedError

    def quiet(self) -> bool:
        """Whether nothing of an answer has come so far (no waiting)."""
        return not self._readable()

    def _readable(self) -> bool:
        # Not `select`, which knows no more than 1024 descriptors.
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        return bool(readable.poll(0))

    def leave(self) -> None:
        """Go away at once, without waiting for anything: RST, or RST_STREAM and then the connection."""
        raise NotImplementedError

    def close(self) -> None:
        """Close quietly."""
        raise NotImplementedError

    def read_until(self, total: int) -> bytes:
        """Body bytes until at least `total` have come in this call."""
        found = b""
        while len(found) < total:
            part = self.read()
            if not part:
                raise Closed(f"ended after {len(found)} of {total} bytes")
            found += part
        return found

    def response(self) -> Response:
        """All of the answer."""
        status, headers = self.head()
        answer = Response(status, headers)
        try:
            while part := self.read():
                answer.body += part
            answer.trailers = self.trailers()
        except Closed:
            answer.clean = False
        return answer


class Http1(Exchange):
    """HTTP/1.1 over a plain socket."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._buffer = b""
        self._chunked_out = False
        self._method = ""
        self._left: int | None = None
        self._chunked_in = False
        self._over = False
        self._trailers: Pairs = []

    def start(self, method, path, headers=(), host="api.test", end=True, length=None):
        self._method = method
        self._chunked_out = not end and length is None
        lines = [raw(method) + b" " + raw(path) + b" HTTP/1.1", b"host: " + raw(host)]
        lines += [raw(name) + b": " + raw(value) for name, value in headers]
        if length is not None:
            lines.append(f"content-length: {length}".encode())
        elif self._chunked_out:
            lines.append(b"transfer-encoding: chunked")
        self.raw(b"\r\n".join(lines) + b"\r\n\r\n")

    def raw(self, data: bytes) -> None:
        """Send bytes as they are. A peer that has answered and closed already is no error here: its answer is read."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send(self, data):
        if data:
            self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n" if self._chunked_out else data)

    def finish(self, trailers=()):
        if self._chunked_out:
            self.raw(b"0\r\n" + b"".join(raw(n) + b": " + raw(v) + b"\r\n" for n, v in trailers) + b"\r\n")

    def _more(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed("connection closed")
        self._buffer += data

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line

    def _fields(self) -> Pairs:
        fields = []
        while line := self._line():
            name, _, value = line.partition(b":")
            fields.append((name, value.strip()))
        return fields

    def head(self):
        while True:
            status = int(self._line().split(b" ")[1])
            fields = self._fields()
            if status >= 200 or status == 101:
                break
        known = {name.lower(): value for name, value in fields}
        bodiless = self._method == "HEAD" or status in (101, 204, 304)
        self._chunked_in = not bodiless and b"chunked" in known.get(b"transfer-encoding", b"")
        self._left = 0 if bodiless else int(known[b"content-length"]) if b"content-length" in known else None
        self.status = status
        return status, _text(fields)

    def read(self):
        if self._over:
            return b""
        if self._chunked_in:
            size = int(self._line().split(b";")[0], 16)
            if size == 0:
                self._trailers = self._fields()
                self._over = True
                return b""
            while len(self._buffer) < size + 2:
                self._more()
            data, self._buffer = self._buffer[:size], self._buffer[size + 2:]
            return data
        if self._left == 0:
            self._over = True
            return b""
        if not self._buffer:
            try:
                self._more()
            except Closed:
                if self._left is None:
                    self._over = True
                    return b""
                raise
        size = len(self._buffer) if self._left is None else min(self._left, len(self._buffer))
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        if self._left is not None:
            self._left -= size
        return data

    def trailers(self):
        return _text(self._trailers)

    def closed(self) -> bool:
        """Whether the server closes the connection after the answer (waits for it, or for a second answer)."""
        try:
            self._more()
        except Closed:
            return True
        return False

    def leave(self):
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self):
        self._socket.close()


class Http2(Exchange):
    """HTTP/2 by prior knowledge, one stream."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False,
            validate_inbound_headers=False))
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values={
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
        })
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW)
        self._stream = 1
        self._head: tuple[int, list[tuple[str, str]]] | None = None
        self._body = b""
        self._trailers: Pairs = []
        self._over = False
        self._reset: str | None = None
        self._flush()

    def _flush(self) -> None:
        try:
            self._socket.sendall(self._h2.data_to_send())
        except (BrokenPipeError, ConnectionResetError):
            pass

    def start(self, method, path, headers=(), host="api.test", end=True, length=None):
        fields = [(b":method", raw(method)), (b":scheme", b"http"), (b":authority", raw(host)), (b":path", raw(path))]
        if method == "CONNECT" and not path:
            fields = [(b":method", b"CONNECT"), (b":authority", raw(host))]
        fields += [(raw(name).lower(), raw(value)) for name, value in headers]
        if length is not None:
            fields.append((b"content-length", str(length).encode()))
        self._h2.send_headers(self._stream, fields, end_stream=end)
        self._flush()

    def send(self, data):
        while data and self._reset is None and not self._over:
            room = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                self._events()
                continue
            self._h2.send_data(self._stream, data[:room])
            data = data[room:]
            self._flush()

    def finish(self, trailers=()):
        if self._reset is not None or self._over:
            return
        pairs = [(raw(name).lower(), raw(value)) for name, value in trailers]
        if pairs:
            self._h2.send_headers(self._stream, pairs, end_stream=True)
        else:
            self._h2.end_stream(self._stream)
        self._flush()

    def _events(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._reset = "connection closed"
            return
        for event in self._h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    pairs = [(bytes(name), bytes(value)) for name, value in event.headers]
                    status = int(dict(pairs)[b":status"])
                    self._head = (status, _text([pair for pair in pairs if not pair[0].startswith(b":")]))
                case h2.events.DataReceived():
                    self._body += event.data
                    if event.flow_controlled_length:
                        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.TrailersReceived():
                    self._trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
                case h2.events.StreamEnded():
                    self._over = True
                case h2.events.StreamReset():
                    # Envoy resets the request's half with NO_ERROR after a complete early answer.
                    if not self._over:
                        self._reset = f"stream reset with {event.error_code}"
                case h2.events.ConnectionTerminated():
                    if not self._over:
                        self._reset = f"GOAWAY {event.error_code}"
        self._flush()

    def quiet(self):
        while self._readable() and self._head is None and self._reset is None:
            self._events()
        return self._head is None and self._reset is None

    def head(self):
        while self._head is None:
            if self._reset is not None:
                raise Closed(self._reset)
            self._events()
        self.status = self._head[0]
        return self._head

    def read(self):
        while not self._body:
            if self._over:
                return b""
            if self._reset is not None:
                raise Closed(self._reset)
            self._events()
        data, self._body = self._body, b""
        return data

    def trailers(self):
        return _text(self._trailers)

    def leave(self):
        if not self._over and self._reset is None:
            self._h2.reset_stream(self._stream, error_code=8)
            self._flush()
        self._socket.close()

    def close(self):
        self._socket.close()


PROTOCOLS = {"h1": Http1, "h2": Http2}


# A connection that was closed without a word: Envoy does that to HTTP/2 requests that are not well-formed.
REFUSED_BY_CLOSING = 0


def call(port: int, method: str = "GET", path: str | bytes = "/", headers: Fields = (), body: bytes | None = None,
         protocol: str = "h1", host: str = "api.test", chunks: Iterable[bytes] | None = None,
         trailers: Fields = ()) -> Response:
    """A whole exchange. `chunks` (instead of `body`) sends without a length; `trailers` follow them."""
    exchange = PROTOCOLS[protocol](port)
    try:
        return _call(exchange, method, path, headers, body, host, chunks, trailers)
    finally:
        exchange.close()


def call_or_closed(*arguments: Any, **more: Any) -> Response:
    """`call`, for what is malformed on purpose: a closed connection is an answer too."""
    try:
        return call(*arguments, **more)
    except Closed:
        return Response(REFUSED_BY_CLOSING, [])


def _call(exchange: Exchange, method: str, path: str | bytes, headers: Fields, body: bytes | None, host: str,
          chunks: Iterable[bytes] | None, trailers: Fields) -> Response:
    if chunks is not None:
        exchange.start(method, path, headers, host, end=False)
        for chunk in chunks:
            exchange.send(chunk)
        exchange.finish(trailers)
    elif body is not None:
        exchange.start(method, path, headers, host, end=False, length=len(body))
        exchange.send(body)
        exchange.finish()
    else:
        exchange.start(method, path, headers, host)
    return exchange.response()


def raw_http1(port: int, data: bytes) -> Response:
    """Bytes in, one answer out."""
    exchange = Http1(port)
    try:
        exchange._method = re.match(rb"[A-Z]*", data).group().decode()
        exchange.raw(data)
        return exchange.response()
    finally:
        exchange.close()
