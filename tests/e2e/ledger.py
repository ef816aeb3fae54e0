"""A ledger that keeps balances in memory as docs/LEDGER.md says, and does as it is told."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .wire import Answer, Journal, Loop, Request, Server

Json = dict[str, Any]
OFFERS = {"status": 402, "headers": [["payment-required", "e30="], ["content-type", "application/json"], ["set-cookie", "a=b"]],
          "body": json.dumps({"error": {"code": "insufficient_credits"}})}


class Account:
    """One key: what it has, and what became of its reservations."""

    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.held: dict[str, int] = {}
        self.captured: dict[str, int] = {}

    @property
    def spent(self) -> int:
        """All that was captured, in millionths of a dollar."""
        return sum(self.captured.values())


class Ledger(Server):
    """See the module."""

    def __init__(self, loop: Loop, journal: Journal) -> None:
        self.accounts: dict[str, Account] = {}
        self.calls: list[tuple[str, Json, Request]] = []
        self.fails: dict[str, int] = {}
        self.status = 500
        super().__init__(loop, journal)

    def account(self, key: str, balance: int) -> Account:
        """Opens one for a key, which itself is not kept."""
        account = self.accounts[hashlib.sha256(key.encode()).hexdigest()] = Account(balance)
        return account

    def heard(self, what: str) -> list[Json]:
        """The bodies of the calls of a kind."""
        return [body for kind, body, _ in list(self.calls) if kind == what]

    async def answer(self, request: Request, answer: Answer) -> None:
        await self.read(request)
        what = request.path.rsplit(b"/", 1)[-1].decode()
        body = json.loads(request.body)
        self.calls.append((what, body, request))
        if self.fails.get(what, 0) > 0:
            self.fails[what] -= 1
            await answer.whole(self.status, [], b'{"error":"disk full"}')
            return
        said = self.reserve(body) if what == "reserve" else self.capture(body)
        await answer.whole(said.pop("code", 200), [(b"content-type", b"application/json")], json.dumps(said).encode())

    def reserve(self, asked: Json) -> Json:
        """In one step: the loop runs one of these at a time."""
        account = self.accounts.get(asked["key"])
        if account is None:
            return {"outcome": "answer", "status": 401, "headers": [["content-type", "application/json"]], "body": '{"error":{"code":"invalid_api_key"}}'}
        amount, receipt = int(asked["amount"]), None
        if asked["headers"]:
            account.balance += 1_000_000
            receipt = ["payment-response", "e30="]
        if asked["id"] in account.captured:
            return {"outcome": "answer", "status": 409, "headers": [], "body": "{}"}
        if account.balance < amount:
            return {"outcome": "answer", **OFFERS}
        account.balance -= amount
        account.held[asked["id"]] = amount
        return {"outcome": "reserved", "tenant": "ten_1", "balance": str(account.balance), "receipt": receipt}

    def capture(self, asked: Json) -> Json:
        """Once; a release of what is not there yet refuses it."""
        due = int(asked["amount"])
        for account in self.accounts.values():
            if asked["id"] in account.held:
                held = account.held.pop(asked["id"])
                assert due <= held, (due, held)
                account.balance += held - due
                account.captured[asked["id"]] = due
                return {"captured": str(due)}
        if due == 0:
            for account in self.accounts.values():
                account.captured.setdefault(asked["id"], 0)
            return {"captured": "0"}
        return {"code": 404}
