"""A gateway whose facilitators fail, hang and come back, and what is asked of it. One worker each, whose breakers they are.

Breakers that are to stay open do so for ten minutes; what closes them is said in each test.
"""

import itertools

import pytest

from stack.envoy import cluster
from stack.process import wait_until
from stack.tools import ENVOY_VERSION

from .checks import alive, paid, unpaid
from .facilitator import Facilitator, hang, reset
from .world import BASE, UPTO, World, changed, facilitator_entry, price

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


@pytest.fixture
def two(worlds, start):
    """Two of them serve the same network; the first is `facilitator` to the world."""
    def make(**entry):
        second = Facilitator(worlds.loop, worlds.journal)
        entries = facilitator_entry(breaker=OPEN, **entry) + facilitator_entry(cluster="second-one", url="http://second.test", breaker=OPEN)
        return start(entries=entries, clusters=[cluster("second-one", second.port)]), second
    return make
