"""A metered gateway whose answers can be ended in any way, and what they must come to.

Every amount is computed by hand from the tables in docs/PRICING.md: 1000 bytes with max_tokens 100 are quoted 3750.
"""

import base64
import json

import pytest

from stack.envoy import route

from .checks import unpaid
from .client import Closed
from .payments import Payment
from .wire import eventually
from .world import BASE, UPTO, World, changed

PRICE = {"per_token": {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}}
# Long enough for a verification and some text on any machine.
LIMIT = "5s"
# How many races at once: one is lost rarely.
TOGETHER = 20
JSON = [("content-type", "application/json")]
EVENTS = [("content-type", "text/event-stream")]


def chat(size: int) -> bytes:
    """A chat completion of so many bytes, for at most 100 tokens, with the count asked for."""
    asked = {"model": "gpt-4o", "max_tokens": 100, "stream": True, "stream_options": {"include_usage": True},
             "messages": [{"role": "user", "content": ""}]}
    asked["messages"][0]["content"] = "x" * (size - len(json.dumps(asked)))
    return json.dumps(asked).encode()


BODY = chat(1000)
assert len(BODY) == 1000
ASKS = {"method": "POST", "headers": JSON, "body": BODY}
# (1000 + 100) × 2.5 + 100 × 10
QUOTE = 3750
# (1000 ÷ 4 + 100) × 2.5: the input of an answer that told nothing.
INPUT = 875
# 41 bytes of text are 11 begun tokens.
TEXT = ["Forty-one bytes of text, ", "in two deltas :)"]
ESTIMATE = INPUT + 110
# 211 × 2.5 + 57 × 10 = 1097.5
USAGE = {"prompt_tokens": 211, "completion_tokens": 57, "total_tokens": 268}
USED = 1098


def terms(path: str, price: dict = PRICE, **metered: str) -> dict:
    """A metered route. What its payers owe is not held against them: other tests do that."""
    found = {"name": path.strip("/"), "match": {"path": path}, "price": price, "accept": [UPTO], "flow": "metered"}
    return {**found, "metered": {"ban": "0s", **metered}}


UNBLAMED = {"on_client_abort": "maximum", "on_backend_failure": "free"}
CONFIG = changed(routes=[
    terms("/default"),
    terms("/maximum", missing_usage="maximum", on_client_abort="maximum"),
    terms("/lenient", missing_usage="free", on_backend_failure="free"),
    terms("/idle", **UNBLAMED),
    terms("/duration", **UNBLAMED),
    terms("/hasty", receipt_wait="500ms"),
    {**terms("/minute", {"per_minute": {"amount": "$0.10", "minimum": 1, "maximum": 1}}), "accept": [UPTO, BASE]},
])
LIMITED = [
    route("/idle", name="idle", action={"idle_timeout": LIMIT}),
    route("/duration", name="duration", action={"max_stream_duration": {"max_stream_duration": LIMIT}}),
]


def asks_for_money(world: World) -> bool:
    """Every worker knows what `upto` needs."""
    return world.everywhere(lambda: world.call("/default", **ASKS).status == 402)


def event(content: str | None = None, usage: dict | None = None) -> str:
    """A chunk of a chat completion."""
    chunk: dict = {"id": "c", "object": "chat.completion.chunk", "choices": []}
    if content is not None:
        chunk["choices"] = [{"index": 0, "delta": {"content": content}, "finish_reason": None}]
    if usage is not None:
        chunk["usage"] = usage
    return f"data: {json.dumps(chunk)}\n\n"


DELIVERED = [event(part) for part in TEXT]
DONE = "data: [DONE]\n\n"
WHOLE = [*DELIVERED, event(usage=USAGE), DONE]
# A whole answer that is no stream: 41 bytes.
NO_USAGE = '{"object":"chat.completion","choices":[]}'
assert sum(map(len, TEXT)) == len(NO_USAGE) == 41


def streams(*parts: str, **more) -> dict:
    """What the backend does: these parts as they are, and then it waits at the gate (`free`: no waiting)."""
    return {"kind": "cut", "parts": parts, "headers": EVENTS, **more}


def answers(usage: dict | None = USAGE, **more) -> dict:
    """What the backend does: a whole completion."""
    text = NO_USAGE if usage is None else json.dumps({"object": "chat.completion", "choices": [], "usage": usage})
    return {"kind": "body", "text": text, "headers": JSON, **more}


class Open:
    """A paid request whose backend has sent its parts and waits at the gate."""

    def __init__(self, world: World, path: str, protocol: str, does: dict, payment: Payment | None = None) -> None:
        self.world = world
        self.path = path
        self.payment = payment or world.payment(path, **ASKS)
        headers = ASKS["headers"]
        self.exchange, self.test_id = world.open(path, "POST", headers, self.payment, does=does, protocol=protocol,
                                                 end=False, length=len(BODY))
        self.exchange.send(BODY)
        self.exchange.finish()
        self.status, self.headers = self.exchange.head()
        assert self.status == 200, self.headers
        sent = "".join(does["parts"]).encode("latin-1")
        self.body = self.exchange.read_until(len(sent)) if sent else b""
        assert self.body == sent

    @property
    def gate(self):
        """Where the backend waits."""
        return self.world.backend.gate(self.test_id)

    def is_cut(self) -> None:
        """Nothing more comes, and no end either."""
        with pytest.raises(Closed):
            while part := self.exchange.read():
                self.body += part
        self.exchange.close()

    def outcome(self, wanted: str) -> None:
        assert self.world.envoy.access_log(test_id=self.test_id)["x402_outcome"] == wanted


def receipts(answer) -> list[dict]:
    """Those of the trailers."""
    return [json.loads(base64.b64decode(value, validate=True)) for name, value in answer.trailers
            if name.lower() == "payment-response"]


def receipt(answer) -> dict:
    """The only one, after the answer."""
    assert answer.clean, answer
    assert not answer.has_receipt, answer
    [found] = receipts(answer)
    assert found["success"] is True, found
    return found


def at_last(world: World, path: str, payment: Payment, does: dict | None = None):
    """The answer to the payment sent again, once the claim is out of use."""
    return eventually(lambda: (found := world.call(path, payment=payment, does=does or answers(), **ASKS)).status != 409
                      and found, "the payment is not in use any more")


def settled(world: World, path: str, payment: Payment, amount: int) -> None:
    """For this amount, once, and the payment buys nothing more."""
    call = world.facilitator.await_call(payment.payload, "settle")
    assert call.json["paymentRequirements"]["amount"] == str(amount)
    unpaid(world, at_last(world, path, payment), 402, "nonce_already_used")
    assert world.count(payment, "settle") == 1


def unsettled(world: World, path: str, payment: Payment) -> None:
    """Nothing was paid, so that the payment buys an answer now."""
    answer = at_last(world, path, payment)
    assert answer.status == 200, answer
    assert receipt(answer)["amount"] == str(USED)
    settled(world, path, payment, USED)


def pending(world: World, path: str, payment: Payment, settles: int = 1) -> None:
    """Nobody knows: it is not settled again, and buys nothing."""
    unpaid(world, at_last(world, path, payment), 503, "settlement_pending")
    assert world.count(payment, "settle") == settles


def rises(world: World, metric: str, before: float) -> None:
    eventually(lambda: world.metric(metric) > before, f"{metric} is counted")
    assert world.metric(metric) == before + 1
