"""Calls that are held back: the next facilitator is asked, or the client answered at once; and each call is counted until it has ended."""

import copy

import pytest

from stack.envoy import with_filter_config
from stack.tools import ENVOY_VERSIONS

from .breaking import (  # noqa: F401
    asked, config, fail, hanging, hanging_or_held, held_back, opened, reached, served, start, two, unavailable)
from .checks import alive, paid
from .facilitator import hang, reset
from .wire import eventually

# Several facilitators

def test_each_facilitator_has_its_own(two):
    """What the first one is spared the second one serves."""
    world, second = two()
    world.facilitator.default["verify"] = reset()
    for number in range(12):
        payment = world.payment("/paid")
        answer = world.call("/paid", payment=payment)
        assert answer.status == 200 and answer.receipt["success"], answer
        assert [call.what for call in second.calls(payment.payload)] == ["verify", "settle"]
        assert world.count(payment, "verify") == (1 if number < 5 else 0)
    assert asked(world.facilitator) == 5
    assert (opened(world), held_back(world, "breaker")) == (1, 7)
    assert (opened(world, "second-one"), held_back(world, "breaker", "second-one")) == (0, 0)


def test_when_both_are_open(two):
    world, second = two()
    world.facilitator.default["verify"] = second.default["verify"] = reset()
    payment = world.payment("/paid")
    for _ in range(5):
        unavailable(world, payment)
    for _ in range(5):
        assert int(unavailable(world, payment).header("retry-after")) > 5
    assert (asked(world.facilitator), asked(second)) == (5, 5)


def test_a_payment_bound_to_one_goes_to_no_other(two):
    world, second = two()
    fail(world, path="/bound")
    unavailable(world, path="/bound")
    assert asked(second) == 0
    payment = world.payment("/paid")
    assert world.call("/paid", payment=payment).status == 200
    assert len(second.calls(payment.payload)) == 2


def test_a_settlement_held_back_goes_to_the_next(two):
    """It certainly was not sent."""
    world, second = two()
    payment = world.payment("/paid")
    exchange, test_id = world.open("/paid", payment=payment, does={"hold": True})
    world.backend.gate(test_id).await_reached()
    world.facilitator.default["verify"] = reset()
    for _ in range(5):
        other = world.payment("/paid")
        assert world.call("/paid", payment=other).status == 200
    assert opened(world) == 1
    world.backend.gate(test_id).release()
    answer = exchange.response()
    assert answer.status == 200 and answer.receipt["success"], answer
    exchange.close()
    assert [call.what for call in world.facilitator.calls(payment.payload)] == ["verify"]
    assert [call.what for call in second.calls(payment.payload)] == ["settle"]


def test_over_the_bound_the_next_one_is_asked(two):
    world, second = two(in_flight=2)
    hung = hanging(world)
    payment = world.payment("/paid")
    assert world.call("/paid", payment=payment).status == 200
    assert [call.what for call in second.calls(payment.payload)] == ["verify", "settle"]
    assert held_back(world, "in_flight") == 1
    world.facilitator.gate(hung[0].payload).release()
    assert hung[1].response().status == 200
    hung[1].close()


# The bound

def test_calls_in_flight_are_bounded(start, protocol):
    """Of four calls three may be verifications: who comes next is answered at once, and served when there is room again."""
    world = start(in_flight=4)
    working = world.payment("/paid")
    working_exchange, working_id = world.open("/paid", payment=working, does={"hold": True}, protocol=protocol)
    world.backend.gate(working_id).await_reached()
    hung = [hanging(world, protocol=protocol) for _ in range(3)]
    payment = world.payment("/paid")
    for number in range(4):
        assert unavailable(world, payment, protocol=protocol).header("retry-after") == "5"
        assert held_back(world, "in_flight") == number + 1
    world.no_calls(payment)
    # The fourth call is kept for what a backend has worked for.
    world.backend.gate(working_id).release()
    served(world, working_exchange, working, working_id)
    unavailable(world, payment, protocol=protocol)
    world.no_calls(payment)
    for other, exchange, test_id in hung:
        world.facilitator.gate(other.payload).release()
        served(world, exchange, other, test_id)
    paid(world, world.call("/paid", payment=payment, protocol=protocol), payment)


def test_settlements_are_bounded(start):
    """Over the bound nothing is sent: 503, and the payment is given back."""
    world = start(in_flight=4)
    payments = [world.payment("/upfront") for _ in range(5)]
    opened_ones = []
    for payment in payments[:4]:
        world.facilitator.script(payment.payload, settle=hang())
        exchange, test_id = world.open("/upfront", payment=payment)
        reached(world, payment, "settle")
        opened_ones.append((payment, exchange, test_id))
    unavailable(world, payments[4], "/upfront")
    unavailable(world)
    world.no_calls(payments[4])
    assert held_back(world, "in_flight") == 2
    for payment, exchange, test_id in opened_ones:
        world.facilitator.gate(payment.payload).release()
        served(world, exchange, payment, test_id)
    paid(world, world.call("/upfront", payment=payments[4]), payments[4])


def test_clients_that_leave_leak_nothing(start, protocol):
    """Their calls count until they have ended, and no longer. With a leak the fourth could not be sent."""
    world = start(in_flight=4)
    for _ in range(50):
        payment, exchange, test_id = eventually(lambda: hanging_or_held(world, protocol=protocol), "it is asked")
        exchange.leave()
        world.envoy.access_log(test_id=test_id)
        world.facilitator.gate(payment.payload).release()
    left = []
    for _ in range(3):
        payment, exchange, test_id = eventually(lambda: hanging_or_held(world, protocol=protocol), "it is asked")
        exchange.leave()
        world.envoy.access_log(test_id=test_id)
        left.append(payment)
    payment = world.payment("/paid")
    unavailable(world, payment, protocol=protocol)
    world.no_calls(payment)
    for other in left:
        world.facilitator.gate(other.payload).release()
    eventually(lambda: world.call("/paid", payment=payment, protocol=protocol).status == 200, "there is room")
    hung = [eventually(lambda: hanging_or_held(world, protocol=protocol), "it is asked") for _ in range(3)]
    unavailable(world, protocol=protocol)
    for other, exchange, test_id in hung:
        world.facilitator.gate(other.payload).release()
        served(world, exchange, other, test_id)


@pytest.mark.parametrize("version", ENVOY_VERSIONS)
def test_clients_that_leave_hide_no_timeout(start, protocol, version):
    """A facilitator hangs for longer than its clients wait: it is found out all the same."""
    world = start(verify_timeout="1s", version=version)
    for _ in range(5):
        _, exchange, test_id = hanging(world, protocol=protocol)
        exchange.leave()
        world.envoy.access_log(test_id=test_id)
    eventually(lambda: opened(world) == 1, "it opens")
    unavailable(world, protocol=protocol)


@pytest.mark.parametrize("path", ["/paid", "/overlap"])
def test_clients_that_leave_while_the_answer_comes(start, protocol, path):
    """The verdict and the reset reach the worker together, in either order."""
    world = start(in_flight=24)
    for _ in range(3):
        challenge = [world.payment(path) for _ in range(20)]
        exchanges = []
        for payment in challenge:
            world.facilitator.script(payment.payload, verify=hang())
            exchanges.append(world.open(path, payment=payment, protocol=protocol, does={"hold": True})[0])
        for payment in challenge:
            reached(world, payment)
        for number, (payment, exchange) in enumerate(zip(challenge, exchanges)):
            world.facilitator.gate(payment.payload).race(exchange.leave, first=number % 2 == 0)
        for payment in challenge:
            eventually(world.facilitator.await_call(payment.payload, "verify").ended.is_set, "/verify is answered")
        alive(world)
    payment = world.payment("/paid")
    eventually(lambda: world.call("/paid", payment=payment, protocol=protocol).status == 200, "there is room")


def test_a_reload_while_verifications_hang(start, protocol):
    """They end as they would have, under the configuration that they began with; the new one counts anew."""
    world = start(in_flight=4)
    hung = [hanging(world, protocol=protocol) for _ in range(3)]
    hung[0][1].leave()
    other = with_filter_config(copy.deepcopy(world.envoy.config), {**config(in_flight=3), "quote_grace": "61s"})
    assert world.envoy.update(config=other) is None
    eventually(lambda: hanging_or_held(world, protocol=protocol), "the new configuration asks")
    for payment, exchange, test_id in hung[1:]:
        world.facilitator.gate(payment.payload).release()
        served(world, exchange, payment, test_id)
    world.facilitator.gate(hung[0][0].payload).release()
    draining = r"^listener_manager\.total_(filter_chains|listeners)_draining$"
    eventually(lambda: sum(world.envoy.stats(draining).values()) == 0, "the old listener is gone")
    payment = world.payment("/paid")
    paid(world, world.call("/paid", payment=payment, protocol=protocol), payment)
