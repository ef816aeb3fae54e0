"""A little of everything on each Envoy that is supported."""

import json

import pytest

from stack.tools import ENVOY_VERSIONS

from .backend import pattern, sse_event
from .checks import paid, unpaid
from .facilitator import reset
from .world import MAIN, World

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "messages": []}).encode()


@pytest.fixture(scope="module", params=ENVOY_VERSIONS)
def envoy(request, worlds, main) -> World:
    """A world per version."""
    if request.param == main.envoy.version:
        return main
    return worlds.world(f"envoy-{request.param}", MAIN, version=request.param)


def test_challenge_and_payment(envoy, protocol):
    unpaid(envoy, envoy.call("/paid", protocol=protocol), 402)
    for dialect in ("v2", "v1", "libertai", "plain"):
        payment = envoy.payment("/paid")
        paid(envoy, envoy.call("/paid", payment=payment, dialect=dialect, protocol=protocol), payment, None)
        unpaid(envoy, envoy.call("/paid", payment=payment, dialect=dialect, protocol=protocol), 402,
               "nonce_already_used")


def test_body_with_trailers(envoy, protocol):
    sent = {"chunks": [BODY[:5], BODY[5:]], "trailers": [("x-sum", "1")], "protocol": protocol}
    unpaid(envoy, envoy.call(CHAT, "POST", **sent), 402)
    payment = envoy.payment(CHAT, method="POST", body=BODY)
    answer = paid(envoy, envoy.call(CHAT, "POST", payment=payment, **sent), payment)
    assert envoy.backend.one(answer.test_id).body == BODY


def test_stream(envoy, protocol):
    payment = envoy.payment("/paid")
    exchange, test_id = envoy.open("/paid", payment=payment, protocol=protocol, does={"kind": "sse", "chunks": 3})
    assert exchange.head()[0] == 200
    for number in range(3):
        envoy.backend.gate(test_id).release()
        assert exchange.read_until(len(sse_event(number))) == sse_event(number)
    assert exchange.read() == b""
    exchange.close()


def test_big_answer(envoy, protocol):
    payment = envoy.payment("/paid")
    answer = envoy.call("/paid", payment=payment, protocol=protocol, does={"kind": "bytes", "size": 3 << 20})
    assert paid(envoy, answer, payment).body == pattern(3 << 20)


def test_backend_fails(envoy):
    payment = envoy.payment("/paid")
    assert envoy.call("/paid", payment=payment, does={"status": 500}).status == 500
    paid(envoy, envoy.call("/paid", payment=payment), payment)


def test_facilitator_fails(envoy):
    payment = envoy.payment("/paid")
    envoy.facilitator.script(payment.payload, verify=reset())
    unpaid(envoy, envoy.call("/paid", payment=payment), 503, "facilitator_unavailable")
    payment = envoy.payment("/paid")
    envoy.facilitator.script(payment.payload, settle=reset())
    answer = envoy.call("/paid", payment=payment)
    assert (answer.status, answer.json()["error"]) == (503, "settlement_pending")


def test_wrong_configuration(envoy):
    why = envoy.envoy.update({**MAIN, "colour": "blue"})
    assert why is not None and "colour" in why
    assert envoy.call("/paid").status == 402
