"""A facilitator that is dead or slow: its circuit breaker. Calls are counted, not timed."""

import pytest

from .breaking import OPEN, asked, closed, fail, hanging_or_held, held_back, opened, reached, start, unavailable  # noqa: F401
from .checks import paid, refused, unpaid
from .facilitator import Facilitator, garbage, hang, ok, refuse, reply, reset
from .wire import eventually
from .world import dead_port, facilitator_entry

FAILURES = {
    "reset": reset,
    "garbage": garbage,
    "500": lambda: reply(500, {"error": "database"}),
    "502": lambda: reply(502, b"bad gateway"),
    "401": lambda: reply(401, {"error": "unauthorized"}),
    "no verdict": lambda: reply(200, {}),
}


@pytest.mark.parametrize("name", FAILURES)
def test_it_opens(start, protocol, name):
    """After five failures in a row nothing is asked any more, and everybody is answered at once."""
    world = start()
    fail(world, 5, FAILURES[name])
    assert opened(world) == 1 and held_back(world, "breaker") == 0
    payment = world.payment("/paid")
    for _ in range(20):
        answer = unavailable(world, payment, protocol=protocol)
        assert 5 < int(answer.header("retry-after")) <= 600
    assert asked(world.facilitator) == 5
    assert held_back(world, "breaker") == 20 and opened(world) == 1 and closed(world) == 0
    assert world.envoy.log().count("facilitator facilitator: 5 calls in a row without a verdict") == 1


@pytest.mark.parametrize("path", ["/paid", "/overlap", "/upfront", "/bound", "/metered"])
def test_no_flow_gets_past_it(start, path):
    """No backend works for what cannot be verified or settled."""
    world = start()
    fail(world)
    for _ in range(3):
        unavailable(world, path=path)
    assert asked(world.facilitator) == 5


def test_it_opens_for_timeouts(start):
    world = start(verify_timeout="1s")
    payments = [world.payment("/paid") for _ in range(6)]
    for payment in payments:
        world.facilitator.script(payment.payload, verify=hang())
    exchanges = [world.open("/paid", payment=payment)[0] for payment in payments[:5]]
    assert [exchange.response().status for exchange in exchanges] == [503] * 5
    unavailable(world, payments[5])
    assert world.count(payments[5], "verify") == 0 and opened(world) == 1


def test_it_opens_for_connections_that_are_refused(worlds, start):
    dead = Facilitator(worlds.loop, worlds.journal)
    dead.port = dead_port()
    world = start(dead, ready=lambda world: bool(world.accepts("/paid")))
    payment = world.payment("/paid")
    for _ in range(5):
        unavailable(world, payment)
    assert opened(world) == 1 and held_back(world, "breaker") == 0
    for _ in range(5):
        unavailable(world, payment)
    assert held_back(world, "breaker") == 5


def test_settlements_open_it_too(start):
    """A settlement is sent again as often as it is worth, whatever the breaker says."""
    world = start()
    for opens in (0, 0, 1):
        payment = world.payment("/upfront")
        world.facilitator.script(payment.payload, settle=garbage())
        unpaid(world, world.call("/upfront", payment=payment), 503, "settlement_pending")
        assert world.count(payment, "settle") == 2 and opened(world) == opens
    unavailable(world, path="/upfront")


def test_refusals_and_what_is_wrong_with_a_request_do_not_open_it(start):
    world = start()
    for how in (refuse("insufficient_funds"), refuse("insufficient_funds", status=500), refuse("unexpected_verify_error"),
                reply(400, {"error": "no such payload"}), reply(422, b"")):
        for _ in range(6):
            payment = world.payment("/paid")
            world.facilitator.script(payment.payload, verify=how)
            assert world.call("/paid", payment=payment).status in (402, 503)
            assert world.count(payment, "verify") == 1
    assert opened(world) == 0


def test_a_success_starts_the_count_again(start):
    world = start()
    for _ in range(3):
        fail(world, 4)
        payment = world.payment("/paid")
        paid(world, world.call("/paid", payment=payment), payment)
    assert opened(world) == 0


def test_what_envoy_refuses_costs_nothing_and_does_not_open_it(worlds, start):
    entries = facilitator_entry(cluster="nowhere", breaker=OPEN)
    world = start(entries=entries, ready=lambda world: bool(world.accepts("/paid")))
    payment = world.payment("/paid")
    for _ in range(12):
        assert unavailable(world, payment).header("retry-after") == "5"
    assert opened(world, "nowhere") == 0 and held_back(world, "breaker", "nowhere") == 0


def test_it_can_be_turned_off(start):
    world = start(breaker={"failures": 0})
    fail(world, 20)
    assert opened(world) == 0


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
def test_one_call_probes(start, protocol, leaves):
    """It alone, whether or not its client waits for it; if it fails the breaker stays open, if it succeeds all are served."""
    world = start(breaker={"failures": 5, "open": "1s"})
    payments = [world.payment("/paid") for _ in range(10)]
    fail(world)
    for then, changes in ((reset(), (2, 0)), (ok(), (2, 1))):
        payment, exchange, test_id = eventually(lambda: hanging_or_held(world, then, protocol=protocol), "a call probes")
        if leaves:
            exchange.leave()
            world.envoy.access_log(test_id=test_id)
        for other in payments:
            assert unavailable(world, other, protocol=protocol).header("retry-after") == "5"
            world.no_calls(other)
        world.facilitator.gate(payment.payload).release()
        eventually(lambda: (opened(world), closed(world)) == changes, "the probe decides")
        exchange.close()
    for payment in payments:
        paid(world, world.call("/paid", payment=payment, protocol=protocol), payment)
    log = world.envoy.log()
    assert log.count("its breaker is open") == log.count("facilitator facilitator: it answers again") == 1


def test_a_payment_held_back_is_as_good_as_new(start):
    world = start(breaker={"failures": 5, "open": "1s"})
    payment = world.payment("/paid")
    fail(world)
    eventually(lambda: world.call("/paid", payment=payment).status == 200, "it probes")
    assert world.count(payment, "verify") == world.count(payment, "settle") == 1


def test_supported_closes_it_and_opens_nothing(worlds, start):
    """It is asked for whatever the breaker says, here every few seconds because it does not answer, and costs nobody anything."""
    facilitator = Facilitator(worlds.loop, worlds.journal)
    facilitator.supported_behaviour = reset()
    world = start(facilitator, breaker={"failures": 1, "open": "10m"}, ready=lambda world: bool(world.accepts("/paid")))
    eventually(lambda: world.metric("x402_supported.outcome.unavailable") >= 2, "it is asked again")
    payment = world.payment("/paid")
    paid(world, world.call("/paid", payment=payment), payment)
    assert opened(world) == 0
    fail(world, 1)
    payment = world.payment("/paid")
    unavailable(world, payment)
    assert (opened(world), closed(world)) == (1, 0)
    facilitator.supported_behaviour = None
    eventually(lambda: closed(world) == 1, "what it supports is heard")
    paid(world, world.call("/paid", payment=payment), payment)
    assert opened(world) == 1


# What is owed

def opened_while(world, path, does=None, settle=None):
    """A request that was verified before the breaker opened; its backend waits at its gate."""
    payment = world.payment(path)
    if settle is not None:
        world.facilitator.script(payment.payload, settle=settle)
    exchange, test_id = world.open(path, payment=payment, does={"hold": True, **(does or {})})
    world.backend.gate(test_id).await_reached()
    fail(world)
    assert opened(world) == 1
    return payment, exchange, test_id


def test_the_first_settlement_is_held_back(start):
    """Nothing has left: 503, and the payment is given back."""
    world = start(breaker={"failures": 5, "open": "10m"})
    payment, exchange, test_id = opened_while(world, "/paid", does={"kind": "body", "text": "secret"})
    world.backend.gate(test_id).release()
    answer = exchange.response()
    refused(answer, 503, "facilitator_unavailable")
    assert b"secret" not in answer.body and not answer.has_receipt
    assert 5 < int(answer.header("retry-after")) <= 600
    assert world.count(payment, "settle") == 0
    exchange.close()
    # It is not in use, nor pending.
    unavailable(world, payment)


def test_a_settlement_in_doubt_is_sent_again_and_closes_it(start):
    world = start()
    payment = world.payment("/paid")
    world.facilitator.script(payment.payload, settle=[hang(garbage()), ok()])
    exchange, test_id = world.open("/paid", payment=payment)
    reached(world, payment, "settle")
    fail(world)
    unavailable(world)
    world.facilitator.gate(payment.payload).release()
    answer = exchange.response()
    assert answer.status == 200 and answer.receipt["success"], answer
    exchange.close()
    assert world.count(payment, "settle") == 2 and closed(world) == 1
    payment = world.payment("/paid")
    paid(world, world.call("/paid", payment=payment), payment)


def test_a_settlement_in_doubt_stays_so(start):
    """What the client takes up again is held back like anything else, and never answered with a new challenge."""
    world = start()
    payment = world.payment("/paid")
    world.facilitator.script(payment.payload, settle=[garbage(), garbage(), ok()])
    refused(world.call("/paid", payment=payment), 503, "settlement_pending")
    assert opened(world) == 0
    fail(world, 3)
    assert opened(world) == 1
    for _ in range(3):
        answer = unpaid(world, world.call("/paid", payment=payment), 503, "settlement_pending")
        assert 5 < int(answer.header("retry-after")) <= 600
    assert world.count(payment, "settle") == 2


def test_what_was_delivered_is_settled(start):
    """The client has had its answer: its settlement is not held back, and closes the breaker."""
    world = start()
    payment, exchange, test_id = opened_while(world, "/metered")
    world.backend.gate(test_id).release()
    answer = exchange.response()
    exchange.close()
    assert answer.status == 200 and [name for name, _ in answer.trailers] == ["payment-response"], answer
    assert world.count(payment, "settle") == 1 and closed(world) == 1
