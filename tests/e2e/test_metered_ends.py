"""How metered answers end: who breaks one off, what it costs then, and what becomes of its payment."""

import time

import pytest

from .checks import alive, unpaid
from .metered import (
    ASKS, BODY, DELIVERED, ESTIMATE, INPUT, JSON, NO_USAGE, QUOTE, TOGETHER, USED, WHOLE, Open, answers, at_last,
    event, receipts, settled, streams, unsettled)
from .payments import Payment

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
    call.outcome("backend_failed")
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
        call.outcome("interrupted")
    for call in calls:
        if call.body:
            settled(metered, call.path, call.payment, ESTIMATE)
        else:
            unsettled(metered, call.path, call.payment)
    alive(metered)


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
