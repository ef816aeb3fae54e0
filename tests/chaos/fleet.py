"""Two Envoys that share their claims by one ledger, each of which can be killed."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from e2e.checks import alive
from e2e.client import PROTOCOLS
from e2e.facilitator import spends
from e2e.payments import pay
from e2e.wire import Journal, Loop, eventually
from e2e.world import BASE, BUFFER, MAIN, World, changed, wasm
from eth_account import Account

from stack.envoy import Envoy, cluster, gateway, route
from stack.ledger import Ledger as Service
from stack.process import NotReady, wait_until

from . import moments
from .buyer import Buyer
from .crew import Crew
from .database import Database
from .fuse import Death, Fuse
from .kitchen import Kitchen
from .purchases import GOODS, TROUBLES, Copy, Purchase
from .relay import Relay
from .spares import Spares
from .till import MANNERS, Till

Json = dict[str, Any]

VICTIMS = ["one", "two"]
CLIENTS = 6
PURCHASES = 2
# Longer than any run.
VALID = "3000s"
# At what somebody is killed, and how many of these there are in a round, about.
MOMENTS = {"claim asked": 10, "claim answered": 8, "verify asked": 8, "backend asked": 10, "backend answered": 8, "payment asked": 10,
           "settle asked": 10, "settle moved": 8, "payment answered": 10, "part read": 20, "report asked": 10, "report answered": 10}
# How long a ledger has a claim that it settles: `settle_timeout`, and half a minute.
SETTLE_LEASE_MS = 90_000
# Whose claims are being dealt with.
OPEN = "state IN ('held', 'settling', 'unknown', 'settled') AND delivered = 0"


@dataclass
class Plan(Death):
    """A round: who is killed at what, and what is bought meanwhile. `resets`: how Envoys hear of a ledger that is gone."""

    resets: bool
    purchases: list[list[Purchase]]


class Gate(World):
    """One Envoy, as long as it lives, and the relay between it and the ledger, which nobody else uses."""

    def __init__(self, fleet: Fleet, name: str = "") -> None:
        self.name = name
        self.killed = False
        self.relay = Relay(fleet.loop, fleet.journal, fleet.service, fleet.fuse)
        config = gateway(fleet.kitchen.port, {}, wasm=wasm(), buffer_limit=BUFFER, routes=[route()], clusters=[cluster("ledger", self.relay.port)])
        facilitator = {"cluster": "ledger", "url": "http://ledger.test/books/internal/v1/facilitators/0", "networks": ["eip155:*"],
                       "verify_timeout": "60s", "settle_timeout": "60s", "breaker": {"failures": 0},
                       "headers": {"authorization": f"Bearer {fleet.service.token}"}}
        offers = [{**good.route, "accept": [{**offer, "max_timeout": VALID} for offer in good.route["accept"]]} for good in GOODS.values()]
        envoy = Envoy(config, changed(routes=offers, facilitators=[facilitator], replay={"claims": "shared"}, settlement={"retries": 0},
                                      redeliver={"times": 1, "window": VALID}), name="fleet")
        super().__init__(envoy, fleet.kitchen, fleet.till, fleet.journal)
        wait_until(lambda: self.everywhere(lambda: self.call("/metered", **GOODS["metered"].asks).status == 402), "it makes its offers")

    def holders(self, payment: str | None = None) -> set[str]:
        """The names under which its requests asked for payments, or for one of them."""
        return {name for found, name, _ in self.intents() if payment in (None, found)}

    def intents(self) -> list[tuple[str, str, str]]:
        """What each call about a payment spends, the name of the request, and of the claim."""
        found = []
        for what, body, request in list(self.relay.calls):
            if what in ("verify", "settle"):
                name, claim, *_ = (request.header("x-x402-intent") or "").split(";")
                found.append((spends(body["paymentPayload"]), name, claim.removeprefix("claim=")))
        return found

    def __str__(self) -> str:
        return self.name + ("†" if self.killed else "")

    __repr__ = __str__


class Fleet:
    """See the module."""

    def __init__(self, name: str, directory: Path, killed: int) -> None:
        """`killed`: how many Envoys will be."""
        self.loop, self.journal = Loop(), Journal()
        self.fuse = Fuse(self.loop)
        self.till = Till(self.loop, self.journal, self.fuse)
        self.kitchen = Kitchen(self.loop, self.journal, self.fuse)
        self.database = Database(directory, name)
        self.service = Service(directory, {
            "pay_to": MAIN["pay_to"], "accept": [BASE], "pre_check": MAIN["pre_check"],
            "facilitators": [{"url": f"http://127.0.0.1:{self.till.port}/api"}],
            "settlement": {"accept_used_nonce_up_to": {"usd": "20"}},
        }, self.database.url)
        # Those that live, and all that ever did.
        with ThreadPoolExecutor() as pool:
            self.gates = list(pool.map(lambda which: Gate(self, which), VICTIMS))
        self._spares = Spares(lambda: Gate(self), killed)
        # Since when there is the ledger that lives, in Unix milliseconds.
        self._began = 0
        self.everyone = list(self.gates)
        self.purchases: list[Purchase] = []
        self._payers = [Account.create() for _ in range(CLIENTS)]
        self._offers = {name: self._offer(name) for name in GOODS}

    def _offer(self, name: str) -> tuple[Json, Json]:
        good = GOODS[name]
        challenge = self.gates[0].call(good.path, **good.asks).challenge
        return challenge["accepts"][0], challenge["resource"]

    def stop(self) -> None:
        """All of it."""
        for gate in self.gates + self._spares.left():
            gate.envoy.stop()
        self.service.process.stop()
        self.database.stop()

    # What happens

    def plan(self, luck: random.Random, victim: str, where: str) -> Plan:
        """What is drawn of a round."""
        bought = [[self._purchase(luck, victim) for _ in range(PURCHASES)] for _ in range(CLIENTS)]
        return Plan(victim, where, luck.randrange(MOMENTS[where]) + 1, moments.turns(luck), luck.random() < 0.5, bought)

    def _purchase(self, luck: random.Random, victim: str) -> Purchase:
        name = luck.choice(list(GOODS))
        offer, resource = self._offers[name]
        used = luck.random() < 0.5
        # What is inferred of a payer is inferred once.
        payer = None if used else luck.choice(self._payers)
        purchase = Purchase(GOODS[name], pay(offer, payer, resource), luck.choice(MANNERS), luck.choice(TROUBLES), luck.random() < 0.5,
                            luck.random() < 0.5, victim)
        self.till.manners[purchase.spends] = (purchase.manner, used)
        first = luck.randrange(2)
        for number in range(luck.choice([1, 1, 2])):
            copy = Copy(purchase, luck.choice(list(PROTOCOLS)), first + number, "" if number else purchase.trouble)
            purchase.copies.append(copy)
        return purchase

    def play(self, plan: Plan) -> bool:
        """A round, until each client has its final word. Whether it was killed as planned, and not when all was over."""
        self.purchases += [purchase for bought in plan.purchases for purchase in bought]
        for gate in self.gates:
            gate.relay.resets = plan.resets
        self.fuse.arm(plan.where, plan.nth, plan.turns, self._pid(plan.victim))
        with Crew(plan.purchases, self._buy) as clients:
            wait_until(lambda: self.fuse.blown.is_set() or clients.done(), "the kill")
            by_hand = self.fuse.blow()
            self._start_again(plan.victim)
        self._until(lambda: self._ended(plan), f"all have their final words: {plan}")
        return not by_hand

    def _pid(self, victim: str) -> int:
        process = self.service.process if victim == "ledger" else self.gates[VICTIMS.index(victim)].envoy.process
        return process.pid

    def _start_again(self, victim: str) -> None:
        if victim == "ledger":
            self.service.process.stop()
            self._began = int(time.time() * 1000)
            self.service.start()
            return
        number = VICTIMS.index(victim)
        self.gates[number].killed = True
        self.gates[number].envoy.stop()
        self.gates[number] = self._spares.take()
        self.gates[number].name = victim
        self.gates[number].relay.resets = self.gates[1 - number].relay.resets
        self.everyone.append(self.gates[number])

    def _ended(self, plan: Plan) -> bool:
        waiting = [bought for bought in plan.purchases if any(not copy.word for purchase in bought for copy in purchase.copies)]
        if not waiting:
            return True
        self.time_passes()
        with Crew(waiting, self._buy):
            pass
        return False

    def _buy(self, bought: list[Purchase]) -> None:
        """A client: what it buys, one after the other; copies of a payment at once."""
        for purchase in bought:
            with Crew([copy for copy in purchase.copies if not copy.word], lambda copy: Buyer(self, copy).buy()):
                pass

    def time_passes(self) -> None:
        """So much that what was under way is over. Envoys that live have told how their requests have ended long before that."""
        self._until(lambda: not self._busy(), "all requests have told how they have ended")
        # What a living ledger settles, however slow the machine is, is not another one's to settle: no lease of one that was killed is as long.
        self.service.end_leases(self._began + SETTLE_LEASE_MS)
        self.service.sql("UPDATE intents SET next_attempt_at = 1 WHERE state = 'unknown';")

    def _busy(self) -> list[tuple[str, str]]:
        """What requests of living Envoys have a payment, and in which state it is."""
        names = {name: found for gate in self.gates for found, name, _ in gate.intents()}
        rows = self.database.rows(f"SELECT holder, state FROM intents WHERE {OPEN} AND lease_until > {int(time.time() * 1000)}")
        return [(names[holder], state) for holder, state in rows if holder in names]

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            eventually(condition, what)
        except NotReady as problem:
            busy = dict(self._busy())
            left = [f"\n{busy.get(purchase.spends, '')} {purchase}" for purchase in self.purchases
                    if purchase.spends in busy or not all(copy.word for copy in purchase.copies)]
            raise AssertionError(f"{problem}:{''.join(left)}") from None

    def settle(self) -> None:
        """All comes to its end."""
        def is_settled() -> bool:
            self.time_passes()
            return not self.database.rows("SELECT claim FROM intents WHERE state IN ('held', 'settling', 'unknown')")

        eventually(is_settled, "nothing is open in the ledger")

    def ask_again(self) -> None:
        """Whoever has had all there is tries to have more: at each Envoy."""
        served = [copy for purchase in self.purchases for copy in purchase.copies if copy.word in ("served", "spent")]

        def ask(number: int) -> None:
            for copy in served[number::CLIENTS]:
                for gate in self.gates:
                    eventually(lambda: Buyer(self, copy).once(gate).error != "payment_in_use", "it is free")

        with Crew(list(range(CLIENTS)), ask):
            pass

    def is_well(self) -> None:
        """Nobody has died who was not killed."""
        for gate in self.gates:
            alive(gate)
