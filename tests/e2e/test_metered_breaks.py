"""Metered answers that break off, whatever they are priced and paid by; and settlements whose outcome comes late or is odd."""

import copy
import gzip

import pytest

from stack.envoy import route, with_filter_config

from .checks import alive, unpaid
from .facilitator import garbage, hang, ok, refuse, reply
from .metered import EVENTS, INPUT, JSON, LIMIT, QUOTE, rises
from .metering import (
    CHAT, Live, again, asks, chat, choose, comments, count, delta, given_back, late, permit, settled, spent, stream, terms,
    whole)
from .wire import eventually
from .world import BASE, PERMIT, ROUTES, UPTO, World, changed

MINUTES = {"per_minute": {"amount": "$0.10", "minimum": 2, "maximum": 4}}
FIXED = {"per_request": "$0.01"}
MAXIMUM = {"on_client_abort": "maximum", "missing_usage": "maximum"}
FREE = {"on_backend_failure": "free", "missing_usage": "free"}
CONFIG = changed(routes=[
    terms("/permit", accept=[PERMIT], ban="0s"),
    terms("/minutes", MINUTES), terms("/minutes-maximum", MINUTES, **MAXIMUM), terms("/minutes-free", MINUTES, **FREE),
    terms("/fixed", FIXED), terms("/fixed-free", FIXED, **FREE),
    terms("/maximum", **MAXIMUM), terms("/free", **FREE), terms("/timeout", **FREE),
    terms("/at-once", receipt_wait="0ms", ban="0s"), terms("/hasty", receipt_wait="50ms", ban="0s"),
    terms("/v1/*", accept=[UPTO, BASE], ban="0s"),
])
TIMEOUT = [route("/timeout", name="timeout", action={"timeout": LIMIT})]
# Its client does not ask for the count, so that the count is withheld from it.
BODY = chat(1000)
WITH_USAGE = chat(1000, stream_options={"include_usage": True})
# 20 and 21 bytes of text are 41: 11 begun tokens.
TEXT = ["Twenty bytes of text", "and twenty-one of it."]
ESTIMATE = INPUT + 110
USAGE = {"prompt_tokens": 4, "completion_tokens": 1}
# 4 × 2.5 + 1 × 10
USED = 20


def ready(world: World) -> bool:
    return world.everywhere(lambda: world.call("/fixed").status == 402)


@pytest.fixture(scope="module")
def breaks(worlds) -> World:
    return worlds.world("metered-breaks", CONFIG, ready=ready, routes=[*TIMEOUT, *ROUTES])


@pytest.fixture(scope="module")
def over_h2(worlds) -> World:
    """The backend is spoken to over HTTP/2."""
    return worlds.world("metered-breaks-h2", CONFIG, ready=ready, backend_http2=True)


def streams(*parts, **more) -> dict:
    """Events that come one by one, and no end before the test wants one."""
    return stream(*parts, waits=True, **more)


# name: (what the backend does, how it is charged if its client leaves, and if the backend breaks it off)
CUTS = {
    "text": (streams(*map(delta, TEXT)), ESTIMATE, ESTIMATE),
    # 40 × 2.5 + (3 + 6) × 10
    "a count and text": (streams({**delta("counted"), "usage": {"prompt_tokens": 40, "completion_tokens": 3}},
                                 delta(TEXT[1])), 190, 190),
    "a count of all": (streams(delta("Hello"), count(4, 1)), USED, USED),
    "the last event": (streams(delta("Hello"), count(4, 1), "[DONE]"), USED, USED),
    # The text is in no event that has ended.
    "half an event": ({"kind": "parts", "headers": EVENTS, "waits": True,
                       "parts": ['data: {"choices": [{"delta": {"content": "no e']}, INPUT, INPUT),
    # 41 bytes
    "half a document": ({"kind": "parts", "headers": JSON, "waits": True,
                         "parts": ['{"choices": [{"message": {"content": "no e']}, ESTIMATE, ESTIMATE),
    "a whole document": ({"kind": "parts", "headers": JSON, "waits": True,
                          "parts": ['{"usage": {"prompt_tokens": 4, "completion_tokens": 1}}']}, USED, USED),
    "bytes": ({"kind": "parts", "headers": [["content-type", "audio/mpeg"]], "waits": True, "parts": ["x" * 41]},
              ESTIMATE, ESTIMATE),
    "packed": ({"kind": "parts", "headers": [*JSON, ["content-encoding", "gzip"]], "waits": True, "parts": ["x" * 41]},
               QUOTE, QUOTE),
    # Anthropic counts the input first: 9 × 2.5 + (1 + 2) × 10 = 52.5
    "a message": (streams({"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
                          {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}}), 53, 53),
}


def left(world: World, path: str, body: dict, does: dict, protocol: str, **more) -> Live:
    """The client has had all parts, and leaves."""
    live = Live(world, path, body, does, protocol, delivers=len(does["parts"]), **more)
    assert world.count(live.payment, "settle") == 0
    live.exchange.leave()
    return live


def broken(world: World, path: str, body: dict, does: dict, protocol: str, **more) -> Live:
    """The client has had all parts, and the backend resets what follows."""
    live = Live(world, path, body, {**does, "breaks": True}, protocol, delivers=len(does["parts"]), **more)
    live.gate.release()
    assert not live.end().clean
    return live


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("backend", ["h1", "h2"])
def test_the_client_leaves(breaks, over_h2, protocol, backend, name):
    """What it had is settled, once; the backend is told."""
    world = breaks if backend == "h1" else over_h2
    does, expected, _ = CUTS[name]
    live = left(world, CHAT, WITH_USAGE, does, protocol)
    assert settled(world, live.payment) == expected
    assert live.outcome() == "client_gone"
    eventually(world.backend.one(live.test_id).aborted.is_set, "the backend hears of it")
    spent(world, CHAT, live.payment, WITH_USAGE)
    alive(world)


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("backend", ["h1", "h2"])
def test_the_backend_breaks_off(breaks, over_h2, protocol, backend, name):
    """What was delivered is settled, once; the client sees the cut."""
    world = breaks if backend == "h1" else over_h2
    does, _, expected = CUTS[name]
    live = broken(world, CHAT, WITH_USAGE, does, protocol)
    assert settled(world, live.payment) == expected
    assert live.outcome() == "backend_failed"
    spent(world, CHAT, live.payment, WITH_USAGE)
    alive(world)


@pytest.mark.parametrize("name", [name for name in CUTS if name not in ("the last event", "a whole document")])
def test_policies_for_what_has_no_end(breaks, name):
    """The quote of whoever leaves, and nothing for what the backend breaks off."""
    does = CUTS[name][0]
    live = left(breaks, "/maximum", WITH_USAGE, does, "h1")
    assert settled(breaks, live.payment) == QUOTE
    live = broken(breaks, "/free", WITH_USAGE, does, "h2")
    given_back(breaks, "/free", live.payment, WITH_USAGE)


@pytest.mark.parametrize("name", ["the last event", "a whole document"])
def test_policies_for_what_had_come_to_its_end(breaks, name):
    """Whoever leaves then has left nothing out, and who breaks off then has broken nothing off."""
    does = CUTS[name][0]
    assert settled(breaks, left(breaks, "/maximum", WITH_USAGE, does, "h2").payment) == USED
    assert settled(breaks, broken(breaks, "/free", WITH_USAGE, does, "h1").payment) == USED


@pytest.mark.parametrize("breaks_off", [False, True], ids=["client", "backend"])
def test_a_count_that_is_withheld_counts(breaks, protocol, breaks_off):
    """The client never saw it, since it had not asked. One more byte came after it: 4 × 2.5 + (1 + 1) × 10."""
    live = Live(breaks, CHAT, BODY, streams(delta("Hello"), count(4, 1), delta("!"), breaks=breaks_off), protocol)
    first, _, last = live.parts
    live.gate.release(3)
    assert live.exchange.read_until(len(first + last)) == first + last
    if breaks_off:
        live.gate.release()
        assert not live.end().clean
    else:
        live.exchange.leave()
    assert settled(breaks, live.payment) == 30
    spent(breaks, CHAT, live.payment, BODY)


@pytest.mark.parametrize("leaves", [left, broken])
@pytest.mark.parametrize("path,expected", [
    ("/minutes", 200_000), ("/fixed", 10_000), ("/minutes-maximum", 400_000), ("/minutes-free", 200_000)])
def test_prices_without_tokens(breaks, protocol, leaves, path, expected):
    """The minutes that it took, at least their minimum; a fixed price; and what the policies say."""
    live = leaves(breaks, path, None, streams(delta("Hello")), protocol)
    if leaves is broken and path == "/minutes-free":
        assert breaks.count(live.payment, "settle") == 0
    else:
        expected = 200_000 if leaves is broken and path == "/minutes-maximum" else expected
        assert settled(breaks, live.payment) == expected


def test_a_fixed_price_for_nothing(breaks, protocol):
    live = broken(breaks, "/fixed-free", None, streams(delta("Hello")), protocol)
    assert live.outcome() == "backend_failed"
    assert breaks.count(live.payment, "settle") == 0
    answer = again(breaks, "/fixed-free", live.payment, None)
    assert answer.status == 200 and settled_later(breaks, live.payment) == 10_000


def settled_later(world: World, payment) -> int:
    """What the second request with a payment settled: the first did not."""
    [settle] = world.facilitator.calls(payment.payload, "settle")
    return int(settle.requirements["amount"])


@pytest.mark.parametrize("leaves", [left, broken])
def test_libertais_permit(breaks, protocol, leaves):
    payment = permit(breaks, "/permit", WITH_USAGE)
    live = leaves(breaks, "/permit", WITH_USAGE, CUTS["text"][0], protocol, payment=payment, dialect="libertai")
    assert settled(breaks, live.payment) == ESTIMATE
    alive(breaks)


def test_libertais_permit_is_refused_after_delivery(breaks, protocol):
    payment = permit(breaks, "/permit", WITH_USAGE)
    breaks.facilitator.script(payment.payload, settle=refuse("insufficient_funds"))
    live = Live(breaks, "/permit", WITH_USAGE, stream(delta("Hello")), protocol, payment=payment, dialect="libertai")
    live.deliver()
    assert not live.end().clean and comments(live.answer.body) == [] and live.answer.trailers == []


def test_the_routes_timeout_is_the_backends_failure(breaks, protocol):
    """As `on_backend_failure` has it, which is nothing here."""
    live = Live(breaks, "/timeout", WITH_USAGE, streams(*map(delta, TEXT)), protocol, delivers=2)
    assert not live.end().clean
    assert live.outcome() == "backend_failed"
    given_back(breaks, "/timeout", live.payment, WITH_USAGE)


def test_less_than_was_announced(breaks, over_h2, protocol):
    """41 bytes of 100, whose length was taken off for the client: it sees the cut all the same."""
    for world in (breaks, over_h2):
        does = {"kind": "parts", "parts": ["x" * 41], "headers": [*JSON, ["content-length", "100"]], "waits": True}
        live = broken(world, CHAT, WITH_USAGE, does, protocol)
        assert settled(world, live.payment) == ESTIMATE


# Counts that cannot be true

@pytest.mark.parametrize("usage", [
    {"prompt_tokens": 9000, "completion_tokens": 0}, {"prompt_tokens": 0, "completion_tokens": 376},
    {"prompt_tokens": 2**63, "completion_tokens": 2**63}, {"prompt_tokens": 0, "total_tokens": 10**15}])
def test_more_than_was_quoted(breaks, protocol, usage):
    """Never more than was signed for, and counted."""
    before = breaks.metric("x402_usage_above_quote")
    payment = breaks.payment(CHAT, choose("upto"), **asks(WITH_USAGE))
    does = stream(delta("Hello"), {"choices": [], "usage": usage}, "[DONE]", free=True)
    answer = breaks.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(WITH_USAGE))
    assert answer.clean and settled(breaks, payment) == QUOTE == int(late(answer)["amount"])
    rises(breaks, "x402_usage_above_quote", before)


def test_exactly_what_was_quoted(breaks):
    """1500 × 2.5 is no more than that, and not counted."""
    before = breaks.metric("x402_usage_above_quote")
    payment = breaks.payment(CHAT, choose("upto"), **asks(WITH_USAGE))
    answer = breaks.call(CHAT, payment=payment, does=whole({"usage": {"prompt_tokens": 1500, "completion_tokens": 0}}),
                         **asks(WITH_USAGE))
    assert answer.clean and settled(breaks, payment) == QUOTE
    assert breaks.metric("x402_usage_above_quote") == before


@pytest.mark.parametrize("usage", [
    {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": "4", "completion_tokens": 1},
    {"prompt_tokens": 1.5, "completion_tokens": 1}, {}, [], None, 7])
@pytest.mark.parametrize("path,expected", [(CHAT, INPUT + 20), ("/maximum", QUOTE), ("/free", 0)])
def test_what_is_no_count(breaks, usage, path, expected):
    """It is as if there were none. 5 bytes of text are 2 begun tokens."""
    payment = breaks.payment(path, choose("upto"), **asks(WITH_USAGE))
    does = stream(delta("Hello"), {"choices": [], "usage": usage}, "[DONE]", free=True)
    answer = breaks.call(path, payment=payment, does=does, **asks(WITH_USAGE))
    assert answer.clean and late(answer)["amount"] == str(expected)
    assert breaks.count(payment, "settle") == (1 if expected else 0)


def test_a_packed_stream(breaks, protocol):
    """Passed on as it is, without a comment that would spoil it; the receipt is in the trailer."""
    packed = gzip.compress(b"data: [DONE]\n\n", mtime=0).hex()
    payment = breaks.payment(CHAT, choose("upto"), **asks(WITH_USAGE))
    does = {"kind": "parts", "parts": [packed], "headers": [*EVENTS, ["content-encoding", "gzip"]], "free": True}
    answer = breaks.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(WITH_USAGE))
    assert answer.clean and answer.body.decode() == packed
    assert settled(breaks, payment) == QUOTE == int(late(answer)["amount"])


# Outcomes that come late, or are odd

LATE = {
    # name: (how /settle is answered, metric, what the payment is worth afterwards)
    "settled": (ok, "x402_settlements.outcome.settled", (402, "nonce_already_used")),
    "refused": (lambda: refuse("insufficient_funds"), "x402_served_unsettled", (402, "nonce_already_used")),
    "unknown": (garbage, "x402_settlements.outcome.unknown", (503, "settlement_pending")),
}


@pytest.mark.parametrize("path", ["/at-once", "/hasty"])
@pytest.mark.parametrize("name", LATE)
def test_an_outcome_that_nobody_waits_for(breaks, protocol, name, path):
    """The answer has had its end, whatever comes after it; the outcome counts."""
    then, metric, worth = LATE[name]
    before = breaks.metric(metric)
    payment = breaks.payment(path, **asks(WITH_USAGE))
    breaks.facilitator.script(payment.payload, settle=hang(then()))
    does = stream(delta("Hello"), count(4, 1), "[DONE]", free=True)
    answer = breaks.call(path, payment=payment, does=does, protocol=protocol, **asks(WITH_USAGE))
    assert answer.clean and late(answer) is None and answer.body.decode() == "".join(does["parts"])
    breaks.facilitator.gate(payment.payload).await_reached()
    breaks.facilitator.gate(payment.payload).release()
    rises(breaks, metric, before)
    unpaid(breaks, again(breaks, path, payment, WITH_USAGE), *worth)
    assert settled(breaks, payment) == USED
    alive(breaks)


@pytest.mark.parametrize("name", ["refused", "used"])
def test_a_refusal_with_a_status_of_its_own(breaks, protocol, name):
    """Also if the facilitator says that the payment was spent before: no end, and nothing more to buy."""
    before = breaks.metric("x402_served_unsettled")
    says = {"refused": refuse("insufficient_funds", status=402), "used": refuse("nonce_already_used")}[name]
    payment = breaks.payment(CHAT, choose("upto"), **asks(WITH_USAGE))
    breaks.facilitator.script(payment.payload, settle=says)
    live = Live(breaks, CHAT, WITH_USAGE, stream(delta("Hello"), count(4, 1)), protocol, payment=payment)
    live.deliver()
    answer = live.end()
    assert not answer.clean and answer.trailers == [] and comments(answer.body) == []
    rises(breaks, "x402_served_unsettled", before)
    assert live.outcome() == "served_unsettled"
    spent(breaks, CHAT, payment, WITH_USAGE)


def test_a_facilitator_that_does_not_repeat_the_amount(breaks, protocol):
    """The receipt has it all the same."""
    payment = breaks.payment(CHAT, choose("upto"), **asks(WITH_USAGE))
    said = {"success": True, "transaction": "0x" + "ab" * 32, "network": "eip155:8453", "payer": payment.payer.address}
    breaks.facilitator.script(payment.payload, settle=reply(200, said))
    answer = breaks.call(CHAT, payment=payment, does=whole({"usage": USAGE}), protocol=protocol, **asks(WITH_USAGE))
    assert late(answer)["amount"] == str(USED) and late(answer)["transaction"] == said["transaction"]


def test_what_was_earned_is_counted(breaks):
    """Millionths, of what was settled and not of what was quoted."""
    name = "x402_earned.asset.USDC.network.base"
    payment = breaks.payment(CHAT, choose("upto"), **asks(WITH_USAGE))
    before = breaks.metric(name)
    breaks.call(CHAT, payment=payment, does=whole({"usage": USAGE}), **asks(WITH_USAGE))
    eventually(lambda: breaks.metric(name) == before + USED, "what was earned is counted")


# A new configuration

def reconfigured(world: World) -> None:
    """Every listener is replaced; what the filter is told differs in what makes no difference here."""
    number = world.envoy.stats(r"^listener_manager\.lds\.update_success$")["listener_manager.lds.update_success"]
    other = copy.deepcopy(CONFIG)
    other["pre_check"]["clock_skew"] = f"{10 + number:.0f}s"
    assert world.envoy.update(config=with_filter_config(world.envoy.config, other)) is None


@pytest.fixture(scope="module")
def reloading(worlds) -> World:
    """An Envoy whose configuration these tests change."""
    return worlds.world("metered-reloading", CONFIG, ready=ready)


@pytest.mark.parametrize("path", [CHAT, "/maximum", "/free"])
def test_a_stream_that_is_drained_away(reloading, protocol, path):
    """Envoy closes what is left of the old listener after its time to drain: neither side is to blame."""
    live = Live(reloading, path, WITH_USAGE, streams(*map(delta, TEXT), delta("never")), protocol, delivers=2)
    reconfigured(reloading)
    assert not live.end().clean
    assert settled(reloading, live.payment) == ESTIMATE
    assert live.outcome() == "interrupted"
    spent(reloading, path, live.payment, WITH_USAGE)
    alive(reloading)


def test_a_settlement_that_outlives_its_listener(reloading, protocol):
    """The end of the answer is cut off; its settlement is known all the same."""
    known = reloading.metric("x402_settlements.outcome.settled")
    live = Live(reloading, CHAT, WITH_USAGE, stream(delta("Hello"), count(4, 1)), protocol)
    reloading.facilitator.script(live.payment.payload, settle=hang())
    live.deliver()
    reloading.facilitator.gate(live.payment.payload).await_reached()
    reconfigured(reloading)
    assert not live.end().clean
    reloading.facilitator.gate(live.payment.payload).release()
    rises(reloading, "x402_settlements.outcome.settled", known)
    spent(reloading, CHAT, live.payment, WITH_USAGE)
    assert settled_later(reloading, live.payment) == USED
    alive(reloading)
