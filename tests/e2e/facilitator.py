"""A facilitator that does as it is told, and keeps every call.

What a payment meets is scripted by what the payment spends (its nonce, or its Solana transaction), so that tests cannot
disturb each other. Unscripted payments are verified and settled.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable

from stack.process import wait_until

from .wire import Answer, Gate, Gates, Journal, Loop, Request, Server

Json = dict[str, Any]
Behaviour = Callable[["Facilitator", "Call", Answer], Awaitable[None]]

FACILITATOR_ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
FEE_PAYER = "EwWqGE4ZFKLofuestmU4LDdK7XM1N4ALgdZccwYugwGd"
SOLANA = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

SUPPORTED: Json = {
    "kinds": [
        *({"x402Version": 2, "scheme": "exact", "network": network} for network in ("eip155:8453", "eip155:84532")),
        *({"x402Version": 2, "scheme": "upto", "network": network, "extra": {"facilitatorAddress": FACILITATOR_ADDRESS}}
          for network in ("eip155:8453", "eip155:84532")),
        *({"x402Version": 1, "scheme": "exact", "network": network} for network in ("base", "base-sepolia", "solana")),
        *({"x402Version": 1, "scheme": "upto", "network": network} for network in ("base", "base-sepolia")),
        {"x402Version": 2, "scheme": "exact", "network": SOLANA, "extra": {"feePayer": FEE_PAYER}},
    ],
    "extensions": [],
    "signers": {"eip155:*": [FACILITATOR_ADDRESS], "solana:*": [FEE_PAYER]},
}


@dataclass
class Call:
    """One /verify or /settle."""

    what: str
    request: Request
    json: Json
    spends: str
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def payload(self) -> Json:
        """The paymentPayload."""
        return self.json["paymentPayload"]

    @property
    def requirements(self) -> Json:
        """The paymentRequirements."""
        return self.json["paymentRequirements"]


def spends(payload: Json) -> str:
    """What a payment spends, as one string: the key of scripts and journals. Takes a paymentPayload or its `payload`."""
    inner = payload.get("payload", payload)
    if "authorization" in inner:
        return f'{inner["authorization"]["from"]}:{inner["authorization"]["nonce"]}'.lower()
    if "permit2Authorization" in inner:
        found = inner["permit2Authorization"]
        return f'{found["from"]}:{found["nonce"]}'.lower()
    return str(inner.get("transaction"))


# Behaviours

def reply(status: int, body: Any, headers: list[tuple[str, str]] = ()) -> Behaviour:
    """Any answer; `body` is JSON unless it is bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def act(_: Facilitator, __: Call, answer: Answer) -> None:
        fields = [(name.encode(), value.encode()) for name, value in headers]
        await answer.whole(status, [(b"content-type", b"application/json"), *fields], raw)
    return act


def ok() -> Behaviour:
    """Valid, or settled."""
    async def act(facilitator: Facilitator, call: Call, answer: Answer) -> None:
        body = {"isValid": True, "payer": payer_of(call)} if call.what == "verify" else facilitator.settled(call)
        await reply(200, body)(facilitator, call, answer)
    return act


def refuse(reason: str, message: str | None = None, status: int = 200, **more: Any) -> Behaviour:
    """Not valid, or not settled: for a reason."""
    async def act(facilitator: Facilitator, call: Call, answer: Answer) -> None:
        if call.what == "verify":
            body: Json = {"isValid": False, "invalidReason": reason, "payer": payer_of(call)}
            if message is not None:
                body["invalidMessage"] = message
        else:
            body = {"success": False, "errorReason": reason, "transaction": "", "payer": payer_of(call),
                    "network": call.requirements["network"]}
            if message is not None:
                body["errorMessage"] = message
        await reply(status, {**body, **more})(facilitator, call, answer)
    return act


def reset() -> Behaviour:
    """The connection is reset before the answer; with /settle nobody knows what happened."""
    async def act(_: Facilitator, __: Call, answer: Answer) -> None:
        await answer.reset()
    return act


def reset_in_body() -> Behaviour:
    """Headers and half a body, then a reset."""
    async def act(_: Facilitator, __: Call, answer: Answer) -> None:
        await answer.head(200, [(b"content-type", b"application/json"), (b"content-length", b"100")])
        await answer.data(b'{"isValid":')
        await answer.reset()
    return act


def hang(then: Behaviour | None = None) -> Behaviour:
    """Wait at the facilitator's gate for this payment, then go on."""
    async def act(facilitator: Facilitator, call: Call, answer: Answer) -> None:
        await facilitator.gate(call.spends).wait()
        await (then or ok())(facilitator, call, answer)
    return act


def garbage() -> Behaviour:
    """200, and not JSON."""
    return reply(200, b"<html>\x00\xff not json")


def oversize(size: int = 3 << 20) -> Behaviour:
    """A valid answer with megabytes of padding."""
    async def act(facilitator: Facilitator, call: Call, answer: Answer) -> None:
        body = {"isValid": True, "payer": payer_of(call)} if call.what == "verify" else facilitator.settled(call)
        await reply(200, {**body, "padding": "x" * size})(facilitator, call, answer)
    return act


def payer_of(call: Call) -> str:
    """Who pays, as the facilitator would report it."""
    inner = call.payload["payload"]
    signed = inner.get("authorization") or inner.get("permit2Authorization")
    return signed["from"] if signed else FEE_PAYER


class Facilitator(Server):
    """See the module."""

    def __init__(self, loop: Loop, journal: Journal, supported: Json | None = None) -> None:
        self.supported = supported or SUPPORTED
        self.supported_behaviour: Behaviour | None = None
        self.calls_seen: list[Call] = []
        self._scripts: dict[tuple[str, str], list[Behaviour]] = {}
        self._gates = Gates(loop)
        self.default: dict[str, Behaviour] = {"verify": ok(), "settle": ok()}
        super().__init__(loop, journal)

    def script(self, payload: Json, verify: Behaviour | list[Behaviour] | None = None,
               settle: Behaviour | list[Behaviour] | None = None) -> None:
        """What this payment meets; of a list each call takes one, and the last stays."""
        for what, behaviour in (("verify", verify), ("settle", settle)):
            if behaviour is not None:
                listed = behaviour if isinstance(behaviour, list) else [behaviour]
                self._scripts[spends(payload), what] = list(listed)

    def gate(self, payload: Json | str) -> Gate:
        """Where `hang` keeps the calls for this payment."""
        return self._gates[payload if isinstance(payload, str) else spends(payload)]

    def calls(self, payload: Json, what: str | None = None) -> list[Call]:
        """The calls made for this payment."""
        key = spends(payload)
        return [call for call in list(self.calls_seen) if call.spends == key and what in (None, call.what)]

    def await_call(self, payload: Json, what: str, count: int = 1) -> Call:
        """The `count`-th call of this kind for this payment."""
        wait_until(lambda: len(self.calls(payload, what)) >= count, f"/{what} number {count}")
        return self.calls(payload, what)[count - 1]

    def settled(self, call: Call) -> Json:
        """The answer of a successful settlement."""
        body = {"success": True, "transaction": transaction_of(call.spends), "payer": payer_of(call),
                "network": call.requirements["network"]}
        if call.requirements.get("scheme") == "upto":
            body["amount"] = call.requirements.get("amount") or call.requirements.get("maxAmountRequired")
        return body

    async def answer(self, request: Request, answer: Answer) -> None:
        await self.read(request)
        path = re.sub(rb"\?.*", b"", request.path)
        if path.endswith(b"/supported"):
            self.journal.note("supported", "supported")
            if self.supported_behaviour is not None:
                await self.supported_behaviour(self, None, answer)  # type: ignore[arg-type]
            else:
                await reply(200, self.supported)(self, None, answer)  # type: ignore[arg-type]
            return
        what = path.rsplit(b"/", 1)[-1].decode()
        if what not in ("verify", "settle"):
            await answer.whole(404, [], b"{}")
            return
        try:
            body = json.loads(request.body)
            key = spends(body["paymentPayload"])
        except (ValueError, KeyError, TypeError):
            self.calls_seen.append(Call(what, request, {}, "unreadable"))
            await answer.whole(400, [], b'{"error":"unreadable"}')
            return
        call = Call(what, request, body, key)
        self.calls_seen.append(call)
        self.journal.note(key, what)
        try:
            script = self._scripts.get((key, what))
            behaviour = self.default[what] if not script else script.pop(0) if len(script) > 1 else script[0]
            await behaviour(self, call, answer)
        finally:
            call.ended.set()


def transaction_of(key: str) -> str:
    """The transaction hash that `ok` reports for what is spent."""
    return "0x" + hashlib.sha256(key.encode()).hexdigest()
