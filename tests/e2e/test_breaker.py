"""A facilitator that is dead or slow: its circuit breaker, and the bound on the calls in flight. Calls are counted, not timed.

One worker each, whose breaker it is. Breakers that are to stay open do so for ten minutes; what closes them is said in each test.
"""

import copy
import itertools

import pytest

from stack.envoy import cluster, with_filter_config
from stack.process import wait_until
from stack.tools import ENVOY_VERSION, ENVOY_VERSIONS

from .checks import alive, paid, refused, unpaid
from .facilitator import Facilitator, garbage, hang, ok, refuse, reply, reset
from .wire import eventually
from .world import BASE, UPTO, World, changed, dead_port, facilitator_entry, price

OPEN = {"failures": 5, "open": "10m"}
ROUTES = [
    {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]},
    {"name": "overlap", "match": {"path": "/overlap"}, "price": price("0.01"), "accept": [BASE], "verify": "overlap"},
    {"name": "upfront", "match": {"path": "/upfront"}, "price": price("0.01"), "accept": [BASE], "flow": "upfront"},
    {"name": "bound", "match": {"path": "/bound"}, "price": price("0.01"), "accept": [UPTO]},
    {"name": "metered", "match": {"path": "/metered"}, "price": price("0.01"), "accept": [UPTO], "flow": "metered"},
]
numbers = itertools.count(1)


def config(entries=None, **entry):
    """Routes of each kind, and facilitators whose breakers open."""
    return changed(facilitators=entries or facilitator_entry(**{"breaker": OPEN, **entry}), routes=ROUTES,
                   settlement={"retries": 1, "accept_used_nonce_up_to": "0"})


@pytest.fixture
def start(worlds):
    """Starts an Envoy with a facilitator of its own; it ends with the test."""
    started = []

    def make(facilitator=None, entries=None, ready=None, clusters=(), version=ENVOY_VERSION, **entry) -> World:
        name = f"breaker-{next(numbers)}"
        world = worlds.world(name, config(entries, **entry), workers=1, version=version, clusters=[cluster("nowhere", []), *clusters],
                             facilitator=facilitator or Facilitator(worlds.loop, worlds.journal),
                             ready=ready or (lambda world: world.call("/bound").status == 402))
        started.append(world)
        return world

    yield make
    for world in started:
        alive(world)
        world.envoy.stop()


def asked(facilitator) -> int:
    """How often /verify or /settle was called."""
    return len(facilitator.calls_seen)


def opened(world, name="facilitator") -> float:
    """How often its breaker opened."""
    return world.metric(f"x402_breaker_changes.facilitator.{name}.state.open")


def closed(world, name="facilitator") -> float:
    """How often its breaker closed."""
    return world.metric(f"x402_breaker_changes.facilitator.{name}.state.closed")


def held_back(world, reason, name="facilitator") -> float:
    """How many calls were held back."""
    return world.metric(f"x402_calls_held_back.facilitator.{name}.reason.{reason}")


def unavailable(world, payment=None, path="/paid", **more):
    """Answered without the backend: 503, and no new challenge."""
    payment = payment or world.payment(path)
    return unpaid(world, world.call(path, payment=payment, **more), 503, "facilitator_unavailable")


def fail(world, times=5, how=reset, path="/paid"):
    """So many verifications come to nothing, each of them asked for."""
    for _ in range(times):
        payment = world.payment(path)
        world.facilitator.script(payment.payload, verify=how())
        unavailable(world, payment, path)
        assert world.count(payment, "verify") == 1


def reached(world, payment, what="verify"):
    """The call hangs at the facilitator."""
    world.facilitator.await_call(payment.payload, what)
    world.facilitator.gate(payment.payload).await_reached()


def hanging(world, **more):
    """A verification that hangs."""
    payment = world.payment("/paid")
    world.facilitator.script(payment.payload, verify=hang())
    exchange, test_id = world.open("/paid", payment=payment, **more)
    reached(world, payment)
    return payment, exchange, test_id


def hanging_or_held(world, then=None, **more):
    """A verification that hangs, and then goes on; None if it was held back, which is answered at once."""
    payment = world.payment("/paid")
    world.facilitator.script(payment.payload, verify=hang(then))
    exchange, test_id = world.open("/paid", payment=payment, **more)
    wait_until(lambda: world.count(payment, "verify") or not exchange.quiet(), "it is asked or answered")
    if world.count(payment, "verify"):
        reached(world, payment)
        return payment, exchange, test_id
    assert exchange.response().status == 503
    exchange.close()
    return None


def served(world, exchange, payment, test_id):
    """It was paid for, after all."""
    answer = exchange.response()
    answer.test_id = test_id
    exchange.close()
    paid(world, answer, payment)


# The breaker

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


# Several facilitators

@pytest.fixture
def two(worlds, start):
    """Two of them serve the same network; the first is `facilitator` to the world."""
    def make(**entry):
        second = Facilitator(worlds.loop, worlds.journal)
        entries = facilitator_entry(breaker=OPEN, **entry) + facilitator_entry(cluster="second-one", url="http://second.test", breaker=OPEN)
        return start(entries=entries, clusters=[cluster("second-one", second.port)]), second
    return make


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
