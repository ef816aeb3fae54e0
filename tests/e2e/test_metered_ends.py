"""How metered answers end: who breaks one off, what it costs then, and what becomes of its payment.

Every amount is computed by hand from the tables in docs/PRICING.md: 1000 bytes with max_tokens 100 are quoted 3750.
"""

import base64
import gzip
import json
import time

import pytest

from stack.envoy import route

from . import facilitator as says
from .checks import alive, refused, unpaid
from .client import Closed
from .facilitator import SUPPORTED, Facilitator, hang, refuse
from .payments import Payment
from .wire import eventually
from .world import BASE, ROUTES, UPTO, World, changed

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
    """A metered route."""
    found = {"name": path.strip("/"), "match": {"path": path}, "price": price, "accept": [UPTO], "flow": "metered"}
    return {**found, "metered": metered} if metered else found


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


@pytest.fixture(scope="module")
def metered(worlds) -> World:
    return worlds.world("metered-ends", CONFIG, ready=asks_for_money, routes=[*LIMITED, *ROUTES])


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


# The client leaves

@pytest.mark.parametrize("path, amount", [("/default", ESTIMATE), ("/maximum", QUOTE), ("/lenient", ESTIMATE)])
def test_client_leaves_in_mid_stream(metered, protocol, path, amount):
    """It is charged by what it got, or the quote."""
    call = Open(metered, path, protocol, streams(*DELIVERED))
    assert metered.count(call.payment, "settle") == 0
    call.exchange.leave()
    settled(metered, path, call.payment, amount)
    assert metered.backend.one(call.test_id).aborted.is_set()
    call.outcome("client_gone")
    alive(metered)


def test_client_leaves_after_a_part_that_was_counted(metered, protocol):
    """What the backend told counts, and what it has not told is estimated: 211 × 2.5 + (5 + 11) × 10 = 687.5."""
    told = event("counted", {"prompt_tokens": 211, "completion_tokens": 5, "total_tokens": 216})
    call = Open(metered, "/default", protocol, streams(told, *DELIVERED))
    call.exchange.leave()
    settled(metered, "/default", call.payment, 688)


@pytest.mark.parametrize("path", ["/default", "/maximum"])
def test_client_leaves_after_the_last_event(metered, protocol, path):
    """Only the end of the stream was missing: it pays its usage."""
    call = Open(metered, path, protocol, streams(*WHOLE))
    call.exchange.leave()
    settled(metered, path, call.payment, USED)


def test_client_leaves_before_the_body(metered, protocol):
    """The backend has begun to work: the input is charged."""
    call = Open(metered, "/default", protocol, streams())
    call.exchange.leave()
    settled(metered, "/default", call.payment, INPUT)
    call.outcome("client_gone")


def test_client_leaves_before_the_headers(metered, protocol):
    """Nothing was delivered."""
    payment = metered.payment("/maximum", **ASKS)
    exchange, test_id = metered.open("/maximum", "POST", JSON, payment, does=answers(hold=True), protocol=protocol,
                                     end=False, length=len(BODY))
    exchange.send(BODY)
    exchange.finish()
    metered.backend.gate(test_id).await_reached()
    exchange.leave()
    assert metered.envoy.access_log(test_id=test_id)["x402_outcome"] == "gone_before_answer"
    unsettled(metered, "/maximum", payment)


# The backend breaks it off

def test_backend_breaks_off(metered, protocol):
    """What was delivered is charged, and the client sees that something is missing."""
    call = Open(metered, "/default", protocol, streams(*DELIVERED, breaks=True))
    call.gate.release()
    call.is_cut()
    settled(metered, "/default", call.payment, ESTIMATE)
    call.outcome("backend_failed")
    alive(metered)


def test_backend_breaks_off_what_is_no_stream(metered, protocol):
    """All of the body that came counts as text."""
    call = Open(metered, "/default", protocol, {**streams(NO_USAGE, breaks=True), "headers": JSON})
    call.gate.release()
    call.is_cut()
    settled(metered, "/default", call.payment, ESTIMATE)
    call.outcome("backend_failed")


@pytest.mark.parametrize("path, parts", [("/lenient", DELIVERED), ("/default", []), ("/maximum", [])])
def test_backend_breaks_off_for_nothing(metered, protocol, path, parts):
    """Where the policy says so, and where nothing was delivered."""
    call = Open(metered, path, protocol, streams(*parts, breaks=True))
    call.gate.release()
    call.is_cut()
    call.outcome("nothing_due")
    unsettled(metered, path, call.payment)


def test_backend_breaks_off_before_the_headers(metered, protocol):
    """Envoy answers in its place; nobody pays for that."""
    payment = metered.payment("/maximum", **ASKS)
    answer = metered.call("/maximum", payment=payment, does={"reset": "before"}, protocol=protocol, **ASKS)
    assert answer.status == 503 and answer.clean and not answer.has_receipt and not receipts(answer), answer
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "not_charged"
    unsettled(metered, "/maximum", payment)


@pytest.mark.parametrize("breaks", [False, True], ids=["ends", "breaks off"])
def test_client_leaves_as_the_backend_does(metered, protocol, breaks):
    """Whoever comes first: one settlement, and by these terms both cost the same."""
    calls = [Open(metered, "/default", protocol, streams(*DELIVERED, breaks=breaks)) for _ in range(TOGETHER)]
    for number, call in enumerate(calls):
        call.gate.race(call.exchange.leave, first=number % 2 == 0)
    for call in calls:
        settled(metered, "/default", call.payment, ESTIMATE)
    alive(metered)


# Envoy's own limits

def test_limits_of_envoy(metered):
    """Neither side is to blame: an estimate of what was delivered, whatever the policies say."""
    calls = [Open(metered, path, protocol, streams(*parts)) for path in ("/idle", "/duration")
             for protocol in ("h1", "h2") for parts in (DELIVERED, [])]
    for call in calls:
        call.is_cut()
        call.outcome("interrupted" if call.body else "nothing_due")
    for call in calls:
        if call.body:
            settled(metered, call.path, call.payment, ESTIMATE)
        else:
            unsettled(metered, call.path, call.payment)
    alive(metered)


# What a whole answer says

@pytest.mark.parametrize("path, amount", [("/default", ESTIMATE), ("/maximum", QUOTE)])
@pytest.mark.parametrize("does", [answers(None), streams(*DELIVERED, DONE, free=True)], ids=["json", "events"])
def test_no_usage(metered, protocol, does, path, amount):
    payment = metered.payment(path, **ASKS)
    answer = metered.call(path, payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 200 and receipt(answer)["amount"] == str(amount), answer
    settled(metered, path, payment, amount)


@pytest.mark.parametrize("does", [answers(None), streams(*DELIVERED, DONE, free=True)], ids=["json", "events"])
def test_no_usage_for_nothing(metered, protocol, does):
    payment = metered.payment("/lenient", **ASKS)
    answer = metered.call("/lenient", payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 200 and receipt(answer)["amount"] == "0", answer
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "nothing_due"
    unsettled(metered, "/lenient", payment)


def test_usage_above_the_quote(metered, protocol):
    """1000 × 2.5 + 400 × 10 = 6500, of which 3750 were signed for."""
    before = metered.metric("x402_usage_above_quote")
    payment = metered.payment("/default", **ASKS)
    assert payment.offer["amount"] == str(QUOTE)
    answer = metered.call("/default", payment=payment, protocol=protocol,
                          does=answers({"prompt_tokens": 1000, "completion_tokens": 400}), **ASKS)
    assert receipt(answer)["amount"] == str(QUOTE)
    settled(metered, "/default", payment, QUOTE)
    rises(metered, "x402_usage_above_quote", before)


@pytest.mark.parametrize("path", ["/default", "/lenient"])
def test_an_encoded_answer(metered, protocol, path):
    """Its count cannot be read, though the backend was asked for one that can: the quote, and the answer as it is."""
    packed = gzip.compress(json.dumps({"choices": [], "usage": USAGE}).encode(), mtime=0)
    payment = metered.payment(path, **ASKS)
    asks = {**ASKS, "headers": [*JSON, ("accept-encoding", "gzip")]}
    does = {**streams(packed.decode("latin-1"), free=True), "headers": [*JSON, ("content-encoding", "gzip")]}
    answer = metered.call(path, payment=payment, does=does, protocol=protocol, **asks)
    assert answer.body == packed and answer.header("content-encoding") == "gzip"
    assert receipt(answer)["amount"] == str(QUOTE)
    assert metered.backend.one(answer.test_id).header("accept-encoding") == "identity"
    settled(metered, path, payment, QUOTE)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_the_backend_answers_with_an_error(metered, protocol, status):
    """Nothing is settled, whatever it says it used."""
    payment = metered.payment("/maximum", **ASKS)
    answer = metered.call("/maximum", payment=payment, does=answers(status=status), protocol=protocol, **ASKS)
    assert answer.status == status and answer.clean and answer.json()["usage"] == USAGE, answer
    assert not answer.has_receipt and not receipts(answer), answer
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "not_charged"
    assert metered.count(payment, "settle") == 0
    unsettled(metered, "/maximum", payment)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "events"])
def test_nothing_was_used(metered, protocol, stream):
    """The end comes at once, and the receipt says so."""
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    released = metered.metric("x402_released")
    payment = metered.payment("/maximum", **ASKS)
    does = streams(event(usage=nothing), DONE, free=True) if stream else answers(nothing)
    answer = metered.call("/maximum", payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 200 and receipt(answer)["amount"] == "0", answer
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "nothing_due"
    assert metered.count(payment, "settle") == 0
    rises(metered, "x402_released", released)
    unsettled(metered, "/maximum", payment)
    alive(metered)


# How /settle ends

@pytest.mark.parametrize("does", [answers(), streams(*WHOLE, free=True)], ids=["json", "events"])
def test_refused_after_delivery(metered, protocol, does):
    """All of the answer but its end; the payment buys no other one."""
    before = metered.metric("x402_served_unsettled")
    payment = metered.payment("/default", **ASKS)
    metered.facilitator.script(payment.payload, settle=[refuse("insufficient_funds"), says.ok()])
    answer = metered.call("/default", payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 200 and not answer.clean, answer
    sent = does["text"] if "text" in does else "".join(does["parts"])
    assert answer.body == sent.encode()
    assert not answer.has_receipt and not answer.trailers, answer
    rises(metered, "x402_served_unsettled", before)
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "served_unsettled"
    settled(metered, "/default", payment, USED)
    alive(metered)


UNKNOWN = {
    "500": lambda: says.reply(500, {"error": "broken"}), "502": lambda: says.reply(502, b"<html>"),
    "garbage": says.garbage, "reset": says.reset, "reset in body": says.reset_in_body,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_after_delivery(metered, protocol, name):
    """The answer ends without a receipt; nobody knows whether money moved, so it is not moved again."""
    before = metered.metric("x402_settlements.outcome.unknown")
    payment = metered.payment("/default", **ASKS)
    metered.facilitator.script(payment.payload, settle=UNKNOWN[name]())
    answer = metered.call("/default", payment=payment, does=streams(*WHOLE, free=True), protocol=protocol, **ASKS)
    ends_without_receipt(answer)
    rises(metered, "x402_settlements.outcome.unknown", before)
    pending(metered, "/default", payment)


def ends_without_receipt(answer) -> None:
    assert answer.status == 200 and answer.clean, answer
    assert answer.body.decode() == "".join(WHOLE)
    assert not answer.has_receipt and not receipts(answer), answer


def test_a_settlement_that_takes_longer_than_the_receipt_may(metered, protocol):
    """The answer ends without it; the settlement goes on."""
    before = metered.metric("x402_settlements.outcome.settled")
    payment = metered.payment("/hasty", **ASKS)
    metered.facilitator.script(payment.payload, settle=hang())
    answer = metered.call("/hasty", payment=payment, does=streams(*WHOLE, free=True), protocol=protocol, **ASKS)
    ends_without_receipt(answer)
    refused(metered.call("/hasty", payment=payment, does=answers(), **ASKS), 409, "payment_in_use")
    metered.facilitator.gate(payment.payload).release()
    rises(metered, "x402_settlements.outcome.settled", before)
    settled(metered, "/hasty", payment, USED)


def leaves_while_settling(world: World, protocol: str, then) -> Payment:
    """The client has had all but the end, and leaves; /settle is answered after that."""
    call = Open(world, "/default", protocol, streams(*WHOLE))
    world.facilitator.script(call.payment.payload, settle=[hang(then), says.ok()])
    call.gate.release()
    world.facilitator.gate(call.payment.payload).await_reached()
    call.exchange.leave()
    call.outcome("settling")
    world.facilitator.gate(call.payment.payload).release()
    return call.payment


def test_client_leaves_while_settling(metered, protocol):
    """The settlement goes on."""
    before = metered.metric("x402_settlements.outcome.settled")
    payment = leaves_while_settling(metered, protocol, says.ok())
    rises(metered, "x402_settlements.outcome.settled", before)
    settled(metered, "/default", payment, USED)
    alive(metered)


def test_client_leaves_while_settling_and_it_fails(metered, protocol):
    """It has had its answer: the payment buys no other one."""
    before = metered.metric("x402_served_unsettled")
    payment = leaves_while_settling(metered, protocol, refuse("insufficient_funds"))
    rises(metered, "x402_served_unsettled", before)
    settled(metered, "/default", payment, USED)
    alive(metered)


def test_client_leaves_while_settling_and_nobody_knows(metered, protocol):
    payment = leaves_while_settling(metered, protocol, says.garbage())
    pending(metered, "/default", payment)
    alive(metered)


def test_nobody_is_there_to_settle(worlds, protocol):
    """It cannot have been settled, and the answer has been given: the payment buys no other one."""
    gone = Facilitator(worlds.loop, worlds.journal)
    close = [("connection", "close")]

    async def verified(facilitator, call, answer):
        body = {"isValid": True, "payer": says.payer_of(call)}
        await says.reply(200, body, close)(facilitator, call, answer)

    # No connection is kept: the next call needs a new one.
    gone.supported_behaviour = says.reply(200, SUPPORTED, close)
    gone.default["verify"] = verified
    world = worlds.world(f"metered-gone-{protocol}", CONFIG, facilitator=gone, ready=asks_for_money)
    call = Open(world, "/default", protocol, streams(*WHOLE))

    async def stop_listening():
        gone._server.close()

    worlds.loop.run(stop_listening())
    call.gate.release()
    assert call.exchange.read() == b""
    assert not call.exchange.trailers()
    rises(world, "x402_served_unsettled", 0)
    assert world.metric("x402_settlements.outcome.unavailable") == 1
    call.outcome("served_unsettled")
    pending(world, "/default", call.payment, settles=0)
    alive(world)


# The backend names the price

def overrides(value: str, **more) -> dict:
    """What the backend does: an answer with a usage, and this header."""
    return answers(**{**more, "headers": [*JSON, ("Settlement-Overrides", value)]})


def overridden(world: World, protocol: str, value: str, amount: int) -> Payment:
    """Such an answer is paid with this amount, and its header stays here."""
    payment = world.payment("/default", **ASKS)
    answer = world.call("/default", payment=payment, does=overrides(value), protocol=protocol, **ASKS)
    assert answer.status == 200 and receipt(answer)["amount"] == str(amount), answer
    assert not answer.all("settlement-overrides"), answer
    assert "settlement-overrides" not in {name.lower() for name, _ in answer.trailers}
    return payment


@pytest.mark.parametrize("says_amount, amount", [("1234", 1234), ("50%", 1875), ("$0.002", 2000), ("3750", 3750)])
def test_the_backend_names_the_price(metered, protocol, says_amount, amount):
    ignored = metered.metric("x402_overrides_ignored")
    payment = overridden(metered, protocol, json.dumps({"amount": says_amount}), amount)
    settled(metered, "/default", payment, amount)
    assert metered.metric("x402_overrides_ignored") == ignored


@pytest.mark.parametrize("says_amount", ["0", "0%", "$0"])
def test_the_backend_asks_for_nothing(metered, protocol, says_amount):
    payment = overridden(metered, protocol, json.dumps({"amount": says_amount}), 0)
    assert metered.count(payment, "settle") == 0
    unsettled(metered, "/default", payment)


@pytest.mark.parametrize("says_amount", ["3751", "101%", "$1", "9" * 30])
def test_the_backend_asks_for_more_than_was_quoted(metered, protocol, says_amount):
    before = metered.metric("x402_usage_above_quote")
    payment = overridden(metered, protocol, json.dumps({"amount": says_amount}), QUOTE)
    settled(metered, "/default", payment, QUOTE)
    rises(metered, "x402_usage_above_quote", before)


UNREADABLE = ["nonsense", "", "{}", '{"amount":}', '{"amount":"much"}', '{"amount":"-1"}', '{"amount":"12.5"}',
              '{"amount":["1"]}', json.dumps({"amount": "9" * 60})]


@pytest.mark.parametrize("value", UNREADABLE)
def test_the_backend_names_no_price_that_can_be_read(metered, protocol, value):
    """It is ignored, and the usage counts."""
    before = metered.metric("x402_overrides_ignored")
    payment = overridden(metered, protocol, value, USED)
    settled(metered, "/default", payment, USED)
    rises(metered, "x402_overrides_ignored", before)


def test_an_override_of_an_error(metered, protocol):
    """It stays here too, and nothing is settled."""
    payment = metered.payment("/default", **ASKS)
    does = overrides('{"amount":"1234"}', status=500)
    answer = metered.call("/default", payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 500 and not answer.all("settlement-overrides"), answer
    assert metered.count(payment, "settle") == 0
    unsettled(metered, "/default", payment)


# Minutes

def test_the_last_minute(metered):
    """What goes on after its maximum is broken off, whatever paid for it: metered it is charged the maximum."""
    def offered(scheme: str) -> Payment:
        return metered.payment("/minute", lambda found: found["scheme"] == scheme, **ASKS)

    began = time.monotonic()
    calls = [Open(metered, "/minute", "h1", streams(*DELIVERED), offered("upto")),
             Open(metered, "/minute", "h2", streams(*DELIVERED), offered("upto")),
             Open(metered, "/minute", "h1", streams(*DELIVERED), offered("exact"))]
    for call in calls:
        # A minute and a second at most, and a slow machine.
        call.exchange._socket.settimeout(150)
    for call in calls:
        call.is_cut()
        assert time.monotonic() - began >= 60
    for call in calls:
        settle = metered.facilitator.await_call(call.payment.payload, "settle")
        assert settle.json["paymentRequirements"]["amount"] == "100000"
        unpaid(metered, at_last(metered, "/minute", call.payment), 402, "nonce_already_used")
        assert metered.count(call.payment, "settle") == 1
    alive(metered)
