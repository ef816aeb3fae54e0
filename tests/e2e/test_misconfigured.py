"""The gate with `allow_on_headers_stop_iteration`, which is for the reader alone: wrong, and nothing leaks all the same.

With that flag Envoy stops at the request's and the answer's headers only, and goes on with bodies and trailers.
"""

import pytest

from stack.envoy import wasm_plugins

from .backend import pattern
from .checks import alive, paid, unpaid
from .facilitator import hang, refuse
from .world import MAIN, World


def flag(config):
    """Set it on the gate."""
    for plugin in wasm_plugins(config):
        if plugin["root_id"] == "x402":
            plugin["allow_on_headers_stop_iteration"] = True


@pytest.fixture(scope="module")
def flagged(worlds) -> World:
    """One worker, so that a request answered later tells that what came before has been dealt with."""
    return worlds.world("flagged", MAIN, workers=1, edit=flag)


BODIES = {
    "none": {},
    "a body": {"body": b"x" * 100_000},
    "an empty body": {"body": b""},
    "chunks": {"chunks": [b"one", b"two" * 50_000]},
    "trailers": {"chunks": [b"one", b"two"], "trailers": [("x-sum", "2")]},
    "trailers alone": {"chunks": [], "trailers": [("x-sum", "2")]},
}


def overtake(world):
    """The worker has dealt with everything that it was sent before."""
    for _ in range(3):
        assert world.call("/free", "POST", body=b"x").status == 200


@pytest.mark.parametrize("headers", [[], [("payment-signature", "!")]], ids=["unpaid", "malformed"])
@pytest.mark.parametrize("name", BODIES)
def test_refused_request_never_reaches_the_backend(flagged, protocol, name, headers):
    answer = flagged.call("/paid", "POST", headers, protocol=protocol, **BODIES[name])
    unpaid(flagged, answer, 400 if headers else 402)
    flagged.envoy.access_log(test_id=answer.test_id)
    overtake(flagged)
    assert flagged.reached(answer) == 0


def send(exchange, chunks=(), trailers=(), body=None):
    """What is left of a request."""
    for chunk in chunks or ([body] if body else []):
        exchange.send(chunk)
    exchange.finish(trailers)


@pytest.mark.parametrize("name", BODIES)
def test_backend_sees_nothing_before_the_verdict(flagged, protocol, name):
    sent = BODIES[name]
    payment = flagged.payment("/paid")
    flagged.facilitator.script(payment.payload, verify=hang(refuse("insufficient_funds")))
    length = len(sent["body"]) if "body" in sent else None
    exchange, test_id = flagged.open("/paid", "POST", payment=payment, protocol=protocol, end=not sent, length=length)
    flagged.facilitator.gate(payment.payload).await_reached()
    if sent:
        send(exchange, **sent)
    overtake(flagged)
    assert flagged.backend.requests(test_id) == []
    assert exchange.quiet(), "an answer before the verdict"
    flagged.facilitator.gate(payment.payload).release()
    answer = exchange.response()
    answer.test_id = test_id
    unpaid(flagged, answer, 402, "insufficient_funds")
    overtake(flagged)
    assert flagged.reached(answer) == 0
    assert flagged.count(payment, "settle") == 0


@pytest.mark.parametrize("does", [
    {"kind": "bytes", "size": 300_000}, {"kind": "bytes", "size": 3 << 20}, {"kind": "trailers"}, {"kind": "empty"},
    {"kind": "sse", "chunks": 50, "free": True},
], ids=lambda does: f'{does["kind"]}-{does.get("size", 0)}')
def test_no_byte_before_the_settlement(flagged, protocol, does):
    payment = flagged.payment("/paid")
    flagged.facilitator.script(payment.payload, settle=hang(refuse("insufficient_funds")))
    exchange, test_id = flagged.open("/paid", payment=payment, protocol=protocol, does=does)
    flagged.facilitator.gate(payment.payload).await_reached()
    overtake(flagged)
    assert exchange.quiet(), "something was sent before the settlement"
    flagged.facilitator.gate(payment.payload).release()
    answer = exchange.response()
    assert answer.status == 402 and answer.receipt["success"] is False, answer
    assert pattern(16) not in answer.body and b"data:" not in answer.body and not answer.trailers
    assert len(flagged.backend.requests(test_id)) == 1


@pytest.mark.parametrize("name", BODIES)
def test_what_is_paid_for_arrives_whole(flagged, protocol, name):
    """It still sells; and if it cannot, it says so and takes no money."""
    sent = BODIES[name]
    payment = flagged.payment("/paid")
    answer = flagged.call("/paid", "POST", payment=payment, protocol=protocol, does={"kind": "mirror"}, **sent)
    if answer.status == 200:
        paid(flagged, answer, payment)
        assert answer.body == b"".join(sent.get("chunks", [])) + sent.get("body", b"")
    else:
        assert answer.status >= 500 and not answer.has_receipt, answer
        assert flagged.count(payment, "settle") == 0


def test_workers_survived_all_this(flagged):
    """Last in its file."""
    alive(flagged)
