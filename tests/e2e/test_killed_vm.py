"""A worker's VM ends under load: nobody gets an answer for nothing, nobody pays twice, and the worker serves again.

The module is `make wasm-panic`'s: a request names the moment at which its VM is to end. What is said here of those who waited is what
docs/OPERATIONS.md tells, "When a worker's VM dies".
"""

import threading

import pytest

from stack import tools
from stack.envoy import managers, wasm_plugins

from .checks import unpaid
from .client import Closed
from .facilitator import hang, ok
from .metered import ASKS, DELIVERED, PRICE, streams
from .payments import now, pay
from .wire import eventually
from .world import MAIN, UPTO, World, changed

MOMENTS = ["request", "verify", "settle", "response", "tick"]
CLIENTS = 8
# In seconds. Long enough for a request on any machine: one that takes longer is ended like one that waits in a dead VM.
IDLE = 8
VALID = 20
METERED = {"name": "metered", "match": {"path": "/metered"}, "price": PRICE, "accept": [UPTO], "flow": "metered",
           "metered": {"ban": "0s"}}
# No clock to allow for: a payment's claim ends with it.
CONFIG = changed(pre_check={**MAIN["pre_check"], "clock_skew": "0s"}, routes=[*MAIN["routes"], METERED])


def hasty(config):
    """Timeouts that a test can wait for."""
    for manager in managers(config):
        manager["stream_idle_timeout"] = f"{IDLE}s"
    for plugin in wasm_plugins(config):
        plugin["reload_config"]["backoff"]["base_interval"] = "0.1s"


def mortal(worlds, name, workers) -> World:
    """An Envoy whose VMs can be ended, and whose reader is asked about every request: it is made anew when it is next asked."""
    return worlds.world(name, CONFIG, workers=workers, wasm=tools.ensure_panic_wasm(), edit=hasty, read_get=True)


def deaths(world, moment):
    """How many VMs have ended at this moment."""
    return world.envoy.log().count(f"x-x402-panic: {moment}\n")


class Shop:
    """What a challenge of `/paid` asks for, so that payments can be made without asking for another one."""

    def __init__(self, world):
        challenge = world.call("/paid").challenge
        self.offer, self.resource = challenge["accepts"][0], challenge["resource"]

    def payment(self, **more):
        return pay(self.offer, resource=self.resource, **more)


def taken(exchange):
    """The answer, or None where the connection was closed instead."""
    try:
        return exchange.response()
    except Closed:
        return None
    finally:
        exchange.close()


def serves(world, shop):
    """A new payment buys an answer."""
    answer = world.call("/paid", payment=shop.payment())
    return answer.status == 200 and answer.receipt["success"]


class Load:
    """Clients that buy one answer after another until they are told to stop."""

    def __init__(self, world, shop):
        self.world, self.shop = world, shop
        self.sold, self.failed = [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._buy, args=(("h1", "h2")[number % 2],)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _buy(self, protocol):
        while not self._stop.is_set():
            payment = self.shop.payment()
            exchange, test_id = self.world.open("/paid", payment=payment, protocol=protocol)
            answer = taken(exchange)
            (self.sold if answer and answer.status == 200 else self.failed).append((payment, answer, test_id))

    def stop(self):
        """Those who wait in a dead VM are waited for: they are let go after a while."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Killer:
    """A paid request that ends its worker's VM."""

    def __init__(self, world, shop, moment, protocol):
        self.world, self.moment = world, moment
        self.payment = shop.payment(valid_for=VALID)
        if moment == "tick":
            # Else it is anywhere when the tick comes.
            world.facilitator.script(self.payment.payload, verify=[hang(), ok()])
        before = deaths(world, moment)
        exchange, self.test_id = world.open("/paid", payment=self.payment, protocol=protocol, headers=[("x-x402-panic", moment)])
        eventually(lambda: deaths(world, moment) == before + 1, f"a VM ends at {moment}")
        self._thread = threading.Thread(target=self._take, args=(exchange,))
        self._thread.start()
        eventually(lambda: world.everywhere(lambda: serves(world, shop)), "every worker serves again")
        # While the clients of the dead VM still wait.
        self.again = world.call("/paid", payment=self.payment)

    def _take(self, exchange):
        self.answer = taken(exchange)

    def join(self):
        self._thread.join()
        self.world.facilitator.gate(self.payment.payload).release()
        self.log = self.world.envoy.access_log(test_id=self.test_id)


class Storm:
    """Every moment, on both protocols, under one load."""

    def __init__(self, worlds):
        self.world = mortal(worlds, "killed", workers=4)
        self.shop = Shop(self.world)
        self.load = Load(self.world, self.shop)
        try:
            self.killers = [Killer(self.world, self.shop, moment, protocol) for moment in MOMENTS for protocol in ("h1", "h2")]
        finally:
            self.load.stop()
        for killer in self.killers:
            killer.join()


@pytest.fixture(scope="module")
def storm(worlds) -> Storm:
    return Storm(worlds)


def test_no_unpaid_answer(storm):
    """What was served was paid for, once; nobody else got anything of the backend's."""
    world = storm.world
    assert world.envoy.process.running()
    for payment, answer, test_id in storm.load.sold:
        assert answer.receipt["success"] is True, answer
        assert len(world.backend.requests(test_id)) == 1 and world.count(payment, "settle") == 1
    others = [*storm.load.failed, *((killer.payment, killer.answer, killer.test_id) for killer in storm.killers)]
    for _, answer, test_id in others:
        if answer is not None:
            assert answer.status in (503, 504) and not answer.has_receipt, answer
            assert b'"path"' not in answer.body, answer
        assert len(world.backend.requests(test_id)) <= 1
    assert len(storm.load.sold) > len(storm.killers), "there was a load"


def test_nothing_is_settled_twice(storm):
    """Nor when the payments are sent again, as clients do that got no answer."""
    world = storm.world
    for payment, _, _ in storm.load.failed:
        again = world.call("/paid", payment=payment)
        assert again.status in (200, 402, 409), again
        if again.status == 402:
            assert again.json()["error"] == "nonce_already_used", again
    for payment, _, _ in [*storm.load.sold, *storm.load.failed]:
        assert world.count(payment, "settle") <= 1 and world.count(payment, "verify") <= 2
    for killer in storm.killers:
        assert world.count(killer.payment, "settle") <= 1


def test_the_service_came_back(storm):
    """On each worker, after each end: `Killer` has waited for it. Envoy counts what it made anew under this name alone."""
    ends = sum(deaths(storm.world, moment) for moment in MOMENTS)
    assert ends == len(storm.killers)
    for name in ("envoy_wasm_x402_vm_reload_success", "envoy_wasm_x402_reader_vm_reload_success"):
        assert storm.world.envoy.metric(name) == ends, name


# moment: (whether it waits for the idle timeout, how often it was settled, whether the payment is held)
SEEN = {"request": (False, 1, False), "verify": (True, 0, True), "settle": (True, 1, True), "response": (False, 0, True),
        "tick": (True, 0, True)}


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_its_client_sees(storm, moment):
    """An error at once where Envoy was calling for this stream, after `stream_idle_timeout` where it waited."""
    waits, settles, held = SEEN[moment]
    for killer in storm.killers:
        if killer.moment == moment:
            assert ("SI" in killer.log["flags"]) == waits, killer.log
            assert killer.log["details"] in ("wasm_fail_stream", "stream_idle_timeout"), killer.log
            assert storm.world.count(killer.payment, "settle") == settles
            if held:
                unpaid(storm.world, killer.again, 409, "payment_in_use")
            else:
                # Nothing had been claimed.
                assert killer.again.status == 200, killer.again


def test_claims_end_by_themselves(storm):
    """With the payment: its nonce is free then, as far as the filter is concerned."""
    for killer in storm.killers:
        if killer.moment != "request":
            until = int(killer.payment.authorization["validBefore"])
            eventually(lambda: now() > until, "the payment has expired")
            payment = storm.shop.payment(payer=killer.payment.payer, nonce=killer.payment.authorization["nonce"])
            answer = storm.world.call("/paid", payment=payment)
            assert answer.status == 200, answer


@pytest.fixture(scope="module")
def alone(worlds) -> World:
    """One worker: whoever waits, waits in the VM that ends."""
    return mortal(worlds, "killed-alone", workers=1)


def test_who_waited_in_it(alone, protocol):
    """Each stage of a request, ended by the death of its VM in another one's hands."""
    shop = Shop(alone)
    opened, held = {}, []

    def opens(stage, gate, payment=None, path="/paid", **more):
        exchange, test_id = alone.open(path, payment=payment, protocol=protocol, **more)
        (gate or alone.backend.gate(test_id)).await_reached()
        opened[stage] = (exchange, test_id, payment)
        return exchange, test_id

    for stage in ("verify", "settle"):
        payment = shop.payment()
        alone.facilitator.script(payment.payload, **{stage: hang()})
        held.append(alone.facilitator.gate(payment.payload))
        opens(stage, held[-1], payment)
    _, test_id = opens("backend", None, shop.payment(), does={"hold": True})
    held.append(alone.backend.gate(test_id))
    _, test_id = opens("free", None, path="/free", does={"hold": True})
    held.append(alone.backend.gate(test_id))
    paid_for, test_id = opens("delivering", None, shop.payment(), does={"kind": "sse", "chunks": 2})
    alone.backend.gate(test_id).release()
    assert paid_for.head()[0] == 200 and paid_for.read()
    held.append(alone.backend.gate(test_id))
    metered, test_id = opens("metered", None, alone.payment("/metered", **ASKS), path="/metered", does=streams(*DELIVERED), **ASKS)
    assert metered.head()[0] == 200 and metered.read_until(sum(map(len, DELIVERED)))
    held.append(alone.backend.gate(test_id))

    Killer(alone, shop, "request", protocol).join()
    for gate in held:
        gate.release()

    def end(stage):
        exchange, test_id, _ = opened[stage]
        return taken(exchange), alone.envoy.access_log(test_id=test_id)

    # Envoy calls the filter for these, and finds no VM.
    for stage in ("backend", "free"):
        answer, log = end(stage)
        assert (answer.status, answer.body, log["details"], log["flags"]) == (503, b"", "wasm_fail_stream", "-"), (stage, log)
    for stage in ("delivering", "metered"):
        exchange, test_id, _ = opened[stage]
        with pytest.raises(Closed):
            while exchange.read():
                pass
        exchange.close()
        assert alone.envoy.access_log(test_id=test_id)["details"] == "wasm_fail_stream", stage
    # Nobody calls for these any more: the answers of the facilitator found no VM.
    for stage, status in (("verify", 503), ("settle", 504)):
        answer, log = end(stage)
        assert answer.status == status and not answer.has_receipt and log["flags"] == "SI", (stage, answer, log)

    settles = {stage: alone.count(payment, "settle") for stage, (_, _, payment) in opened.items() if payment}
    assert settles == {"verify": 0, "settle": 1, "backend": 0, "delivering": 1, "metered": 0}
    # Nobody is left to say how they ended, nor that an answer was not delivered.
    for stage in ("verify", "settle", "backend", "delivering"):
        unpaid(alone, alone.call("/paid", payment=opened[stage][2]), 409, "payment_in_use")
    unpaid(alone, alone.call("/metered", payment=opened["metered"][2], **ASKS), 409, "payment_in_use")
    assert alone.metric("x402_served_unsettled") == 0, "nobody is left to count it"
    assert alone.envoy.process.running()


def test_the_shipped_module_has_no_switch():
    switch = b"x-x402-panic"
    assert switch in tools.ensure_panic_wasm().read_bytes(), "else this would find nothing anywhere"
    assert switch not in tools.ensure_wasm().read_bytes()
