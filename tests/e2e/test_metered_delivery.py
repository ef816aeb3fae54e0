"""Metered answers on their way: what passes, when, and how a client learns what it paid."""

import json

import pytest

from stack.envoy import managers
from stack.process import DEADLINE

from .checks import alive, paid, refused
from .client import Http1
from .facilitator import hang, spends
from .metered import EVENTS, INPUT, JSON, QUOTE
from .metering import (
    CHAT, Live, asks, chat, choose, comments, count, delta, late, settled, spent, stream, terms, whole)
from .world import BASE, ROUTES, UPTO, World, changed

FRIEND = ("x-internal-caller", "friend-of-the-house")
CONFIG = changed(routes=[
    terms("/fixed", {"per_request": "$0.01"}),
    terms("/local", {"per_request": "$0.01"}),
    terms("/v1/*", accept=[UPTO, BASE]),
])
LOCAL = [{"name": "local", "match": {"prefix": "/local"},
          "direct_response": {"status": 200, "body": {"inline_string": "hi"}}}]
BODY = chat(1000)
WITH_USAGE = chat(1000, stream_options={"include_usage": True})
# 4 × 2.5 + 1 × 10
USED = 20


def ready(world: World) -> bool:
    return world.everywhere(lambda: world.call("/fixed").status == 402)


@pytest.fixture(scope="module")
def delivery(worlds) -> World:
    return worlds.world("metered-delivery", CONFIG, ready=ready, routes=[*LOCAL, *ROUTES])


@pytest.fixture(scope="module")
def over_h2(worlds) -> World:
    """The backend is spoken to over HTTP/2."""
    return worlds.world("metered-delivery-h2", CONFIG, ready=ready, backend_http2=True)


@pytest.fixture(scope="module")
def without_trailers(worlds) -> World:
    """Envoy as it is by default: HTTP/1.1 has no trailers."""
    def edit(config):
        for manager in managers(config):
            del manager["http_protocol_options"]

    return worlds.world("metered-no-trailers", CONFIG, ready=ready, edit=edit)


SENT = {
    "events": stream(delta("one"), delta("two"), count(4, 1), "[DONE]", waits=True),
    "json": {"kind": "parts", "headers": JSON, "waits": True,
             "parts": ['{"choices": [], ', '"usage": {"prompt_tokens"', ': 4, "completion_tokens": 1}', "}"]},
    "bytes": {"kind": "parts", "headers": [["content-type", "application/octet-stream"]], "waits": True,
              "parts": ["eight by", "tes twic"]},
}


@pytest.mark.parametrize("backend", ["h1", "h2"])
@pytest.mark.parametrize("name", SENT)
def test_order(delivery, over_h2, protocol, backend, name):
    """Verified, asked of the backend, each part at the client before the next is written, settled, ended."""
    world = delivery if backend == "h1" else over_h2
    live = Live(world, CHAT, WITH_USAGE, SENT[name], protocol)
    for part in live.parts:
        live.gate.release()
        assert live.exchange.read_until(len(part)) == part
        world.journal.note(live.test_id, "client")
    live.gate.release()
    answer = live.end()
    world.journal.note(live.test_id, "end")
    assert answer.clean, answer
    happened = world.journal.of(live.test_id, spends(live.payment.payload))
    assert happened == ["verify", "backend", *["client"] * len(live.parts), "settle", "end"]
    # 16 bytes of what is no text are estimated all the same: 4 tokens.
    expected = INPUT + 40 if name == "bytes" else USED
    assert settled(world, live.payment) == expected == int(late(answer)["amount"])


@pytest.mark.parametrize("name", SENT)
def test_only_the_end_waits_for_the_settlement(delivery, protocol, name):
    """All of the body is there while nothing is settled yet; then it ends."""
    live = Live(delivery, CHAT, WITH_USAGE, {**SENT[name], "waits": False}, protocol)
    delivery.facilitator.script(live.payment.payload, settle=hang())
    live.deliver()
    gate = delivery.facilitator.gate(live.payment.payload)
    gate.await_reached()
    refused(delivery.call(CHAT, payment=live.payment, **asks(WITH_USAGE)), 409, "payment_in_use")
    assert delivery.backend.one(live.test_id).answered.is_set()
    gate.release()
    answer = live.end()
    assert answer.clean and late(answer)["success"] is True
    assert comments(answer.body) == ([late(answer)] if name == "events" else [])
    spent(delivery, CHAT, live.payment, WITH_USAGE)


def test_a_payment_is_in_use_while_its_answer_streams(delivery, protocol):
    """Before anything was asked to be settled for it."""
    live = Live(delivery, CHAT, WITH_USAGE, SENT["events"], protocol)
    live.deliver(1)
    refused(delivery.call(CHAT, payment=live.payment, **asks(WITH_USAGE)), 409, "payment_in_use")
    assert delivery.count(live.payment, "settle") == 0 and delivery.count(live.payment, "verify") == 1
    live.gate.release(10)
    assert live.end().clean
    spent(delivery, CHAT, live.payment, WITH_USAGE)


def test_answers_at_once_are_not_mixed_up(delivery):
    """Forty of them on all workers, part by part in turn: each pays for itself."""
    lives = [Live(delivery, CHAT, WITH_USAGE, stream(delta("x"), count(4, number), "[DONE]"), ("h1", "h2")[number % 2])
             for number in range(40)]
    for _ in range(3):
        for live in lives:
            live.gate.release()
    for number, live in reversed(list(enumerate(lives))):
        answer = live.end()
        assert answer.clean and answer.body.startswith(b"".join(live.parts))
        assert settled(delivery, live.payment) == 10 + number * 10 == int(late(answer)["amount"])
    alive(delivery)


def test_a_connection_is_good_for_more(delivery):
    """The end of a metered answer is an end: the next request follows on the same connection."""
    live = Live(delivery, CHAT, WITH_USAGE, stream(delta("Hello"), count(4, 1), "[DONE]", free=True))
    assert live.exchange.read_until(1)
    while live.exchange.read():
        pass
    following = Http1.__new__(Http1)
    following.__dict__.update(live.exchange.__dict__, _over=False, _trailers=[])
    payment = delivery.payment("/fixed")
    following.start("GET", "/fixed", delivery.fields("next", payment=payment))
    answer = following.response()
    assert answer.status == 200 and answer.clean and late(answer)["amount"] == "10000"
    following.close()


def test_without_trailers(without_trailers, protocol):
    """HTTP/1.1 clients have the comment alone; JSON ends without a receipt, and is settled all the same."""
    world = without_trailers
    for does in (stream(delta("Hello"), count(4, 1), "[DONE]", free=True), SENT["json"] | {"free": True, "waits": False}):
        payment = world.payment(CHAT, choose("upto"), **asks(WITH_USAGE))
        answer = world.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(WITH_USAGE))
        assert answer.status == 200 and answer.clean, answer
        assert (late(answer) is None) == (protocol == "h1"), answer
        if does["headers"] == EVENTS:
            [told] = comments(answer.body)
            assert told["amount"] == str(USED)
        assert settled(world, payment) == USED
        spent(world, CHAT, payment, WITH_USAGE)
    alive(world)


@pytest.mark.parametrize("status", [200, 204, 304])
def test_an_answer_that_has_no_body(delivery, protocol, status):
    """Known to have none when its headers are there: they carry the receipt, and wait for it."""
    payment = delivery.payment("/fixed")
    answer = delivery.call("/fixed", payment=payment, does={"kind": "empty", "status": status}, protocol=protocol)
    paid(delivery, answer, payment, status=status)
    assert late(answer) is None and answer.header("trailer") is None
    assert answer.receipt["amount"] == "10000" and settled(delivery, payment) == 10_000


def test_head(delivery, protocol):
    payment = delivery.payment("/fixed")
    answer = delivery.call("/fixed", "HEAD", payment=payment, protocol=protocol)
    paid(delivery, answer, payment)
    assert answer.body == b"" and settled(delivery, payment) == 10_000


@pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["json", "events"])
def test_an_answer_whose_body_turns_out_empty(delivery, over_h2, protocol, headers):
    """It is an answer without a count; the receipt comes last."""
    for world in (delivery, over_h2):
        live = Live(world, CHAT, BODY, {"kind": "parts", "parts": [], "headers": headers, "waits": True}, protocol)
        live.gate.release()
        answer = live.end()
        assert answer.clean and settled(world, live.payment) == INPUT == int(late(answer)["amount"])
        assert comments(answer.body) == ([late(answer)] if headers == EVENTS else [])


def test_an_answer_that_announced_its_length(delivery, protocol):
    """The length would not fit any more."""
    parts = ['{"usage": {"prompt_tokens": 4, ', '"completion_tokens": 1}}']
    length = str(len("".join(parts)))
    payment = delivery.payment(CHAT, choose("upto"), **asks(BODY))
    does = {"kind": "parts", "parts": parts, "headers": [*JSON, ["content-length", length]], "free": True}
    answer = delivery.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(BODY))
    assert answer.clean and answer.body.decode() == "".join(parts)
    assert answer.header("content-length") is None and answer.header("trailer") == "payment-response"
    assert settled(delivery, payment) == USED


def test_the_backends_own_announcement_stays(delivery, protocol):
    payment = delivery.payment(CHAT, choose("upto"), **asks(BODY))
    does = {**SENT["json"], "free": True, "waits": False, "headers": [*JSON, ["trailer", "x-checksum"]],
            "trailers": [["x-checksum", "abc"]]}
    answer = delivery.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(BODY))
    assert answer.tokens("trailer") == {"x-checksum", "payment-response"}
    assert ("x-checksum", "abc") in answer.trailers and late(answer)["amount"] == str(USED)


def test_a_metered_answer_is_private(delivery, protocol):
    payment = delivery.payment(CHAT, choose("upto"), **asks(BODY))
    does = {**SENT["json"], "free": True, "waits": False, "headers": [*JSON, ["cache-control", "public, max-age=60"]]}
    answer = delivery.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(BODY))
    assert answer.clean and "private" in answer.tokens("cache-control") and "public" not in answer.tokens("cache-control")
    assert {"payment-signature", "x-payment"} <= answer.tokens("vary")


def test_an_answer_of_envoys_own_is_not_sold(delivery, protocol):
    """Nobody may have it for nothing, and it is not the backend's."""
    payment = delivery.payment("/local")
    answer = delivery.call("/local", payment=payment, protocol=protocol)
    assert answer.status == 502 and answer.json()["error"] == "answer_not_sold", answer
    assert delivery.count(payment, "settle") == 0 and delivery.count(payment, "verify") == 1
    again = delivery.call("/local", payment=payment)
    assert again.status == 502 and delivery.count(payment, "verify") == 2, "the claim was released"


def test_who_is_let_through_is_not_metered(delivery, protocol):
    """Neither the request nor its answer is touched."""
    body = chat(500)
    does = stream(delta("Hello"), count(4, 1), "[DONE]", free=True)
    asked = asks(body)
    answer = delivery.call(CHAT, does=does, protocol=protocol,
                          **{**asked, "headers": [*asked["headers"], ("accept-encoding", "gzip"), FRIEND]})
    assert answer.status == 200 and answer.clean, answer
    assert answer.body.decode() == "".join(does["parts"]) and answer.trailers == []
    assert answer.header("trailer") is None
    seen = delivery.backend.one(answer.test_id)
    assert seen.body == asked["body"] and seen.header("accept-encoding") == "gzip"


def test_an_exact_payment_waits_for_its_settlement(delivery, protocol):
    """The whole quote, before the first byte leaves; its request is asked for no usage, its answer may be encoded."""
    asked = asks(BODY)
    asked["headers"] = [*asked["headers"], ("accept-encoding", "gzip")]
    payment = delivery.payment(CHAT, choose("exact"), **asked)
    delivery.facilitator.script(payment.payload, settle=hang())
    does = stream(delta("Hello"), count(4, 1), "[DONE]", free=True)
    exchange, test_id = delivery.open(CHAT, payment=payment, does=does, protocol=protocol, **asked)
    delivery.facilitator.gate(payment.payload).await_reached()
    assert delivery.backend.one(test_id).answered.wait(DEADLINE)
    assert exchange.quiet()
    delivery.facilitator.gate(payment.payload).release()
    answer = exchange.response()
    exchange.close()
    assert answer.clean and answer.receipt["success"] is True and answer.body.decode() == "".join(does["parts"])
    assert late(answer) is None and answer.header("trailer") is None
    assert settled(delivery, payment) == QUOTE
    seen = delivery.backend.one(test_id)
    assert json.loads(seen.body) == BODY and seen.header("accept-encoding") == "gzip"


@pytest.mark.parametrize("body,limit", [
    ({"messages": [], "n": 2}, {"max_tokens": 4096}), ({"messages": [], "max_tokens": 9000}, {"max_tokens": 4096}),
    ({"messages": [], "max_completion_tokens": 9}, {})])
def test_the_limit_that_was_quoted_goes_to_the_backend(delivery, protocol, body, limit):
    payment = delivery.payment(CHAT, choose("upto"), **asks(body))
    does = whole({"usage": {"prompt_tokens": 4, "completion_tokens": 1}})
    answer = delivery.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(body))
    assert answer.clean and json.loads(delivery.backend.one(answer.test_id).body) == {**body, **limit}
    assert settled(delivery, payment) == USED
