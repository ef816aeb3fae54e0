"""A new configuration while money moves: what was begun under the old one is ended, and then the old one goes."""

import copy

import pytest

from stack import tools
from stack.envoy import wasm_plugins, with_filter_config

from .checks import alive, paid, unpaid
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
    for plugin in wasm_plugins(config):
        plugin["vm_config"]["environment_variables"] = {"key_values": {"generation": f"{number:.0f}"}}
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


def module(world, wasm):
    """The same configuration with another module: another VM under the same vm_id."""
    config = copy.deepcopy(world.envoy.config)
    for plugin in wasm_plugins(config):
        plugin["vm_config"]["code"]["local"]["filename"] = str(wasm)
    return config


def test_claims_survive_the_module(worlds):
    """Each kind of claim, over the end of a VM, another module and another configuration, on every worker."""
    world = worlds.world("replaced", MAIN, workers=3, wasm=tools.ensure_panic_wasm())
    spent, pending, held = (world.payment("/paid") for _ in range(3))
    paid(world, world.call("/paid", payment=spent), spent)
    world.facilitator.script(pending.payload, settle=garbage())
    unpaid_but_asked(world, pending)
    # Its VM ends while the facilitator is asked about it, so that nobody is left to give it back.
    lost, _ = world.open("/paid", payment=held, headers=[("x-x402-panic", "verify")])
    eventually(lambda: "x-x402-panic: verify" in world.envoy.log(), "its VM has ended")
    claims = world.metric("x402_claims")
    assert claims == 3

    def remembered():
        """A worker without a VM answers 503 with nothing in it."""
        answers = [(world.call("/paid", payment=payment), error) for payment, error in (
            (spent, "nonce_already_used"), (pending, "settlement_pending"), (held, "payment_in_use"))]
        if any(answer.status == 503 and not answer.body for answer, _ in answers):
            return False
        assert [answer.json()["error"] for answer, _ in answers] == [error for _, error in answers]
        assert not any(world.reached(answer) for answer, _ in answers)
        return True

    eventually(lambda: world.everywhere(remembered), "every worker has a VM")
    assert world.envoy.update(config=module(world, tools.ensure_wasm())) is None
    gone(world)
    assert world.everywhere(remembered)
    # It is the other module: this one has no such switch.
    fresh = world.payment("/paid")
    paid(world, world.call("/paid", payment=fresh, headers=[("x-x402-panic", "request")]), fresh)
    assert world.envoy.update(config=another(world, "filter")) is None
    gone(world)
    assert world.everywhere(remembered)
    assert world.metric("x402_claims") == claims + 1
    assert (world.count(spent, "settle"), world.count(held, "settle")) == (1, 0)
    lost.close()


def unpaid_but_asked(world, payment):
    """Nobody knows what became of it."""
    answer = world.call("/paid", payment=payment)
    assert (answer.status, answer.json()["error"]) == (503, "settlement_pending"), answer


def test_a_restart_forgets_the_claims(worlds):
    """Then the facilitator, and behind it the chain, is the last guard: it refuses the second use, and no answer leaves."""
    before = worlds.world("restarted", MAIN)
    payments = {step: before.payment("/paid") for step in ("verify", "settle")}
    for payment in payments.values():
        paid(before, before.call("/paid", payment=payment), payment)
    before.envoy.stop()
    after = worlds.world("restarted-again", MAIN)
    assert after.metric("x402_claims") == 0
    # A facilitator that looks at the chain when it verifies, and one that looks when it settles.
    for step, worked in (("verify", 0), ("settle", 1)):
        payment = payments[step]
        after.facilitator.script(payment.payload, **{step: refuse("invalid_exact_evm_nonce_already_used")})
        answer = after.call("/paid", payment=payment)
        assert (answer.status, answer.json()["error"]) == (402, "invalid_exact_evm_nonce_already_used"), answer
        assert b'"path"' not in answer.body and after.reached(answer) == worked, answer
    assert after.metric("x402_settlements.outcome.settled") == 0
