"""A new configuration while money moves: what was begun under the old one is ended, and then the old one goes."""

import copy

import pytest

from stack.envoy import managers, with_filter_config

from .checks import alive, unpaid
from .client import Closed
from .facilitator import garbage, hang, ok, refuse
from .wire import eventually
from .world import MAIN, World, changed

VMS = r"^wasm\.envoy\.wasm\.runtime\.v8\.active$"
DRAINING = r"^listener_manager\.total_(filter_chains|listeners)_draining$"


@pytest.fixture(scope="module")
def reloading(worlds) -> World:
    """An Envoy whose configuration these tests change."""
    return worlds.world("reloading", MAIN)


def another(world, name):
    """A configuration that differs: the filter's own, or its VM's, which is then a new VM with the old one's claims."""
    config = copy.deepcopy(world.envoy.config)
    # Different each time; what it says makes no difference here.
    number = world.envoy.stats(r"^listener_manager\.lds\.update_success$")["listener_manager.lds.update_success"]
    if name == "filter":
        return with_filter_config(config, changed(pre_check={**MAIN["pre_check"], "clock_skew": f"{10 + number:.0f}s"}))
    for manager in managers(config):
        for http_filter in manager["http_filters"]:
            if http_filter["name"].startswith("x402"):
                http_filter["typed_config"]["config"]["vm_config"]["environment_variables"] = {
                    "key_values": {"generation": f"{number:.0f}"}}
    return config


def total(world, pattern):
    """The sum of Envoy's own stats."""
    return sum(world.envoy.stats(pattern).values())


ENDS = {
    # name: (how both settlements end, metric, what the payment is worth afterwards)
    "settled": (ok, "settled", lambda world, payment: settled(world, payment)),
    "unknown": (garbage, "unknown", lambda world, payment: unpaid(
        world, world.call("/paid", payment=payment), 503, "settlement_pending")),
    "refused": (lambda: refuse("insufficient_funds"), "refused", lambda world, payment: refused_again(world, payment)),
}


def settled(world, payment):
    """It was settled: its answer was delivered, or is had again; then it buys nothing more."""
    answer = world.call("/paid", payment=payment)
    if answer.status == 200:
        assert answer.receipt["success"] and world.count(payment, "settle") == 1
        answer = world.call("/paid", payment=payment)
    unpaid(world, answer, 402, "nonce_already_used")


def refused_again(world, payment):
    """It was refused, and is sent once more to be refused once more: the claim was given back."""
    answer = world.call("/paid", payment=payment)
    assert answer.status == 402 and answer.json()["error"] == "insufficient_funds", answer
    assert world.count(payment, "settle") == 2


def gone(world):
    """The old listener, with its connections."""
    eventually(lambda: total(world, DRAINING) == 0, "the old listener is gone")


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("what,drained", [("filter", False), ("filter", True), ("VM", False)])
def test_update_while_two_settlements_are_in_flight(reloading, what, drained, name):
    """One client stays, one has left; the outcomes come before or after the old listener has gone."""
    then, metric, outcome = ENDS[name]
    known = reloading.metric(f"x402_settlements.outcome.{metric}")
    machines = total(reloading, VMS)
    payments = [reloading.payment("/paid") for _ in range(2)]
    opened = []
    for payment, protocol in zip(payments, ("h1", "h2")):
        reloading.facilitator.script(payment.payload, settle=[hang(then()), then()])
        opened.append(reloading.open("/paid", payment=payment, protocol=protocol))
        reloading.facilitator.gate(payment.payload).await_reached()
    (stays, _), (leaves, left) = opened
    leaves.leave()
    reloading.envoy.access_log(test_id=left)
    assert reloading.envoy.update(config=another(reloading, what)) is None
    if drained:
        gone(reloading)
    for payment in payments:
        answer = reloading.call("/paid", payment=payment)
        assert answer.status in (409, 503), answer
    for payment in payments:
        reloading.facilitator.gate(payment.payload).release()
    eventually(lambda: reloading.metric(f"x402_settlements.outcome.{metric}") >= known + 2, "both outcomes are known")
    try:
        answer = stays.response()
        assert (answer.status, answer.has_receipt) == {
            "settled": (200, True), "unknown": (503, False), "refused": (402, True)}[name], answer
    except Closed:
        # The connection was drained away.
        pass
    for payment in payments:
        assert reloading.count(payment, "settle") == 1
        outcome(reloading, payment)
    gone(reloading)
    eventually(lambda: total(reloading, VMS) == machines, "the old VMs are gone")
    alive(reloading)


def test_new_vm_while_a_settlement_outlives_the_listener(reloading):
    """As when the module itself is replaced: the settlement is known, or is said to be unknown."""
    machines = total(reloading, VMS)
    payment = reloading.payment("/paid")
    reloading.facilitator.script(payment.payload, settle=hang())
    exchange, _ = reloading.open("/paid", payment=payment)
    reloading.facilitator.gate(payment.payload).await_reached()
    assert reloading.envoy.update(config=another(reloading, "VM")) is None
    gone(reloading)
    reloading.facilitator.gate(payment.payload).release()
    eventually(lambda: total(reloading, VMS) == machines, "the old VMs are gone")
    exchange.close()
    answer = reloading.call("/paid", payment=payment)
    assert (answer.status, answer.json()["error"]) in [(402, "nonce_already_used"), (503, "settlement_pending")], answer
    assert reloading.count(payment, "settle") == 1
