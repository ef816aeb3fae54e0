"""Metered routes of any price, backends that speak any API, and what was settled; answers that are taken part by part."""

from __future__ import annotations

import base64
import json
from typing import Any, Callable

from .checks import unpaid
from .client import Closed, Response
from .metered import EVENTS, JSON, PRICE
from .payments import OTHER, SELLER, Payment, offer, pay
from .wire import eventually
from .world import UPTO, World

Json = dict[str, Any]

# Dearer where it reasons, cheaper where it had the input already.
DETAILED = {"per_token": {**PRICE["per_token"], "cached_input": "$0.00000125", "reasoning": "$0.00002"}}
LATE = ["payment-response", "x-payment-response"]
CHAT = "/v1/chat/completions"


def terms(path: str, price: Json = PRICE, accept: list[Json] | None = None, **metered: Any) -> Json:
    """A metered route; `metered` are its policies."""
    name = path.strip("/*").replace("/", "-") or "root"
    found = {"name": name, "match": {"path": path}, "price": price, "accept": accept or [UPTO], "flow": "metered"}
    return {**found, "metered": metered} if metered else found


def chat(size: int = 1000, **more: Any) -> Json:
    """A streamed chat completion of at most 100 tokens whose body has so many bytes, as `asks` sends it.

    At `PRICE` 1000 of them are quoted `QUOTE`.
    """
    body = {"max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": ""}], **more}
    body["messages"] = [{"role": "user", "content": "x" * (size - len(json.dumps(body)))}]
    assert len(json.dumps(body)) == size
    return body


def asks(body: Json | None) -> Json:
    """A request with this body."""
    if body is None:
        return {}
    return {"method": "POST", "headers": [("content-type", "application/json")], "body": json.dumps(body).encode()}


def whole(answer: Json, **more: Any) -> Json:
    """What the backend does: an answer in one piece."""
    return {"kind": "body", "headers": JSON, "text": json.dumps(answer), **more}


def stream(*events: Json | str, **more: Any) -> Json:
    """What the backend does: an answer in events, each a part of its own."""
    texts = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return {"kind": "parts", "headers": EVENTS, "parts": [f"data: {text}\n\n" for text in texts], **more}


def delta(text: str) -> Json:
    """A chunk of a chat completion."""
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}], "usage": None}


def count(prompt: int, completion: int, **more: Any) -> Json:
    """The chunk that says what an OpenAI stream used."""
    return {"id": "c", "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


def choose(scheme: str) -> Callable[[Json], bool]:
    """The offer of a scheme."""
    return lambda found: found["scheme"] == scheme


def permit(world: World, path: str, body: Json) -> Payment:
    """A payment as LibertAI makes it, for what the v1 body asks."""
    asked = world.call(path, **asks(body)).json()["accepts"][0]
    terms = offer(asked["maxAmountRequired"], scheme="upto", pay_to=OTHER, primaryType="Permit", recipientAddress=SELLER)
    return pay(terms)


def receipt(value: str) -> Json:
    """What a receipt says."""
    return json.loads(base64.b64decode(value, validate=True))


def late(answer: Response) -> Json | None:
    """The receipt in the trailers, of which there is at most one."""
    found = [value for name, value in answer.trailers if name.lower() in LATE]
    assert len(found) <= 1, answer.trailers
    return receipt(found[0]) if found else None


def comments(body: bytes) -> list[Json]:
    """The receipts in comments of an event stream, each on a line of its own."""
    lines = body.decode().split("\n")
    found = [line.split(" ") for line in lines if line.startswith(tuple(f": {name} " for name in LATE))]
    assert all(len(words) == 3 for words in found), found
    return [receipt(words[2]) for words in found]


def amount_of(call: Any) -> int:
    """What a call to the facilitator asks for, in either version of the protocol."""
    asked = call.json["paymentRequirements"]
    return int(asked.get("amount") or asked["maxAmountRequired"])


def settled(world: World, payment: Payment) -> int:
    """What was settled: once, after one verification of the whole quote."""
    world.facilitator.await_call(payment.payload, "settle")
    [verify] = world.facilitator.calls(payment.payload, "verify")
    [settle] = world.facilitator.calls(payment.payload, "settle")
    assert amount_of(verify) == int(payment.offer["amount"])
    return amount_of(settle)


def again(world: World, path: str, payment: Payment, body: Json | None, **more: Any) -> Response:
    """The answer to the payment sent again, once its first request is over."""
    return eventually(lambda: (found := world.call(path, payment=payment, **{**asks(body), **more})).status != 409 and found,
                      "the payment is not in use any more")


def spent(world: World, path: str, payment: Payment, body: Json | None) -> None:
    """It was settled, and buys nothing more: one settlement in all."""
    unpaid(world, again(world, path, payment, body), 402, "nonce_already_used")
    assert world.count(payment, "settle") == 1


def given_back(world: World, path: str, payment: Payment, body: Json | None) -> None:
    """Nothing was settled, and the payment is as good as new."""
    answer = again(world, path, payment, body, does=whole({"usage": {"prompt_tokens": 4, "completion_tokens": 1}}))
    assert answer.status == 200 and answer.clean, answer
    assert amount_of(world.facilitator.await_call(payment.payload, "settle")) == 20
    assert world.count(payment, "settle") == 1


class Live:
    """A paid request whose backend writes each part when the test says so."""

    def __init__(self, world: World, path: str, body: Json | None, does: Json, protocol: str = "h1",
                 payment: Payment | None = None, delivers: int = 0, **more: Any) -> None:
        self.world, self.path, self.asked = world, path, body
        self.payment = payment or world.payment(path, choose("upto"), **asks(body))
        self.parts = [part.encode() for part in does["parts"]]
        self.exchange, self.test_id = world.open(path, payment=self.payment, protocol=protocol, does=does, **more, **asks(body))
        status, headers = self.exchange.head()
        self.answer = Response(status, headers)
        assert status == 200, headers
        if delivers:
            self.deliver(delivers)

    @property
    def gate(self):
        """Where the backend waits."""
        return self.world.backend.gate(self.test_id)

    def deliver(self, parts: int | None = None) -> None:
        """Let the backend write the first so many parts (all), each when the one before it has come."""
        for part in self.parts[:parts]:
            self.gate.release()
            found = self.exchange.read_until(len(part))
            assert found == part
            self.answer.body += found

    def end(self) -> Response:
        """The rest of the answer, however it ends."""
        try:
            while part := self.exchange.read():
                self.answer.body += part
            self.answer.trailers = self.exchange.trailers()
        except Closed:
            self.answer.clean = False
        self.exchange.close()
        return self.answer

    def outcome(self) -> str:
        """What the access log says."""
        return self.world.envoy.access_log(test_id=self.test_id)["x402_outcome"]

