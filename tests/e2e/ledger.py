"""The real ledger behind a relay, which keeps what the filter asks and fails where it is told to."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from stack.ledger import Account, Ledger as Service, is_described

from .wire import Answer, Journal, Loop, Request, Server

Json = dict[str, Any]
PREFIX = b"/books"
HOP_BY_HOP = {b"connection", b"host", b"content-length", b"transfer-encoding", b"keep-alive"}


class Ledger(Server):
    """See the module."""

    def __init__(self, loop: Loop, journal: Journal, service: Service) -> None:
        self.service = service
        self.calls: list[tuple[str, Json, Request]] = []
        self.fails: dict[str, int] = {}
        # Of so many that ask for a lease the ledger hears, and its answer is lost.
        self.loses_leases = 0
        self.status = 500
        super().__init__(loop, journal)

    def account(self, micros: int = 0) -> Account:
        """A new tenant with so much."""
        return self.service.account(micros)

    def heard(self, what: str) -> list[Json]:
        """The bodies of the calls of a kind."""
        return [body for kind, body, _ in list(self.calls) if kind == what]

    async def answer(self, request: Request, answer: Answer) -> None:
        await self.read(request)
        assert request.path.startswith(PREFIX), request.path
        path = request.path.removeprefix(PREFIX)
        what = path.rsplit(b"/", 1)[-1].decode()
        if path.startswith(b"/internal/"):
            self.calls.append((what, json.loads(request.body), request))
        if self.fails.get(what, 0) > 0:
            self.fails[what] -= 1
            await answer.whole(self.status, [], b'{"error":"disk full"}')
            return
        said = await self.ask(request, path)
        assert is_described(request.method, path.decode(), said[0]), (path, said)
        if self.loses_leases > 0 and what == "reserve" and "lease" in json.loads(request.body):
            self.loses_leases -= 1
            said = (self.status, [], b'{"error":"disk full"}')
        await answer.whole(*said)

    async def ask(self, request: Request, path: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """What the service says; 503 while it is not there."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.service.port)
        except OSError:
            return 503, [], b"{}"
        fields = [(name, value) for name, value in request.headers if not name.startswith(b":") and name.lower() not in HOP_BY_HOP]
        fields += [(b"host", b"ledger.test"), (b"connection", b"close"), (b"content-length", str(len(request.body)).encode())]
        writer.write(request.method.encode() + b" " + path + b" HTTP/1.1\r\n")
        writer.write(b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n" + request.body)
        try:
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        except OSError:
            return 503, [], b"{}"
        finally:
            writer.close()
        if not head:
            return 503, [], b"{}"
        status, *lines = head.split(b"\r\n")
        pairs = [line.partition(b": ") for line in lines]
        return int(status.split()[1]), [(name, value) for name, _, value in pairs if name.lower() not in HOP_BY_HOP], body
