"""A gateway and a ledger that can be killed while clients spend credits and top them up."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from e2e.backend import sse_event
from e2e.client import PROTOCOLS, Closed, Response
from e2e.facilitator import spends
from e2e.metered import PRICE
from e2e.metering import asks, chat, count, delta, stream, whole
from e2e.payments import Payment, pay
from e2e.wire import Journal, Loop, eventually, fresh_id
from e2e.world import BASE, BUFFER, MAIN, World, changed, price, wasm

from stack.envoy import Envoy, cluster, gateway, route
from stack.ledger import Account, Ledger as Service
from stack.process import NotReady, wait_until

from . import moments
from .crew import Crew
from .database import Database
from .fuse import Death, Fuse
from .kitchen import Kitchen
from .relay import Relay
from .till import MANNERS, Till

Json = dict[str, Any]
CLIENTS = 8
ORDERS = 3
TENANTS = 4
# Enough for all: a capture that comes after its reservation has lapsed charges what is still there.
GIVEN = 50_000_000


@dataclass(frozen=True)
class Kind:
    """A way to ask: what it costs if it is answered, and what the backend does. `leaves`: the client goes when it has the first event."""

    path: str
    due: int
    does: Json
    asks: Json = field(default_factory=dict)
    status: int = 200
    leaves: bool = False


EVENTS = 3
KINDS = {
    "answer": Kind("/paid", 10_000, {"kind": "json"}),
    "stream": Kind("/paid", 10_000, {"kind": "sse", "chunks": EVENTS}),
    "leaves": Kind("/paid", 10_000, {"kind": "sse", "chunks": EVENTS}, leaves=True),
    "fails": Kind("/paid", 0, {"status": 500}, status=500),
    # By the token, see e2e/test_credits.py.
    "tokens": Kind("/chat", 1098, stream(delta("Hello"), count(211, 57), "[DONE]", free=True), asks(chat())),
    "counted": Kind("/chat", 728, whole({"usage": {"prompt_tokens": 211, "completion_tokens": 20}}), asks({"max_tokens": 100, "messages": []})),
}
ROUTES = [
    {"name": "paid", "match": {"path": "/paid/*"}, "price": price("0.01"), "accept": [BASE]},
    {"name": "chat", "match": {"path": "/chat/*"}, "price": PRICE, "accept": [BASE]},
]
# At what somebody is killed, and how many of these there are in a round, about.
MOMENTS = {"reserve asked": 12, "reserve answered": 12, "capture asked": 10, "capture answered": 10, "verify asked": 3, "settle asked": 3,
           "settle moved": 3, "backend asked": 10, "backend answered": 8, "event read": 6}


# So much that what was under way is over: leases of settlements last half a minute, reservations half an hour.
TIME_PASSES = ("UPDATE topups SET lease_until = 1 WHERE state = 'processing'; UPDATE topups SET next_attempt_at = 1 WHERE state = 'unknown';"
               "UPDATE reservations SET expires_at = 1 WHERE state = 'open';")


@dataclass
class Attempt:
    """One request, and what its client saw. `due`: what has to be charged, or `None` where it may have been charged, or not."""

    test_id: str
    envoy: int
    answer: Response | None = None
    due: int | None = None


@dataclass
class Order:
    """What a client wants, maybe with a payment that goes with each try."""

    account: Account
    kind: Kind
    protocol: str
    payment: Payment | None = None
    dialect: str = "v2"
    attempts: list[Attempt] = field(default_factory=list)
    # Its last answer: somebody else is settling the payment.
    busy: bool = False


@dataclass
class Plan(Death):
    """A round: who is killed at what, and what is asked meanwhile. `long`: the ledger is away for longer than a lease."""

    long: bool
    resets: bool
    orders: list[list[Order]]


class House(World):
    """A gateway, a ledger, and what is around them."""

    def __init__(self, name: str, directory: Path) -> None:
        loop, journal = Loop(), Journal()
        self.fuse = Fuse(loop)
        self.till = Till(loop, journal, self.fuse)
        self.kitchen = Kitchen(loop, journal, self.fuse)
        self.database = Database(directory, name)
        self.service = Service(directory, {
            "pay_to": MAIN["pay_to"], "accept": [BASE], "pre_check": MAIN["pre_check"], "public_url": "https://api.example.com",
            "facilitators": [{"url": f"http://127.0.0.1:{self.till.port}/api"}],
            "settlement": {"accept_used_nonce_up_to": {"usd": "20"}},
        }, self.database.url)
        self.books = Relay(loop, journal, self.service, self.fuse)
        self._config = gateway(self.kitchen.port, {"facilitator": self.till.port}, wasm=wasm(), buffer_limit=BUFFER, routes=[route()],
                               clusters=[cluster("ledger", self.books.port)])
        self._filter = changed(routes=ROUTES, access={"credits": {"enabled": True}}, ledger={
            "cluster": "ledger", "url": "http://ledger.test/books", "timeout": "60s", "topup_timeout": "60s", "breaker": {"failures": 0},
            "headers": {"authorization": f"Bearer {self.service.token}"}})
        self._name = f"killed-{name}"
        super().__init__(self._envoy(), self.kitchen, self.till, journal)
        # Which Envoy it is: those before are dead.
        self.envoys = 0
        self.orders: list[Order] = []
        # Their payments have no verdict yet.
        self.waiting: list[Order] = []
        self.accounts = [self.service.account(GIVEN, f"tenant {number}") for number in range(TENANTS)]
        empty = self.service.account()
        answer = wait_until(lambda: (found := self._ask(empty)).status == 402 and found, "top-ups are offered")
        self.offers = answer.challenge["accepts"]

    def _envoy(self) -> Envoy:
        return Envoy(self._config, self._filter, name=self._name)

    def _ask(self, account: Account) -> Response:
        return self.call("/paid/first", headers=_bearer(account))

    def stop(self) -> None:
        """All of it."""
        self.envoy.stop()
        self.service.process.stop()
        self.database.stop()

    # What happens

    def plan(self, luck: random.Random, victim: str, where: str) -> Plan:
        """What is drawn of a round."""
        orders = [[self._order(luck) for _ in range(ORDERS)] for _ in range(CLIENTS)]
        return Plan(victim, where, luck.randrange(MOMENTS[where]) + 1, moments.turns(luck), luck.random() < 0.8, luck.random() < 0.5, orders)

    def _order(self, luck: random.Random) -> Order:
        order = Order(luck.choice(self.accounts), KINDS[luck.choice(list(KINDS))], luck.choice(list(PROTOCOLS)))
        if luck.random() < 0.2:
            order.payment, order.dialect = pay(luck.choice(self.offers)), luck.choice(["v1", "v2"])
            self.till.manners[spends(order.payment.payload)] = (luck.choice(MANNERS), luck.random() < 0.5)
        return order

    def play(self, plan: Plan) -> bool:
        """A round, until all that is known to be due is charged. Whether it was killed as planned, and not when all was over."""
        since, self.books.resets = int(time.time() * 1000), plan.resets
        pid = (self.service if plan.victim == "ledger" else self.envoy).process.pid
        self.fuse.arm(plan.where, plan.nth, plan.turns, pid)
        with Crew(plan.orders, self._client) as clients:
            wait_until(lambda: self.fuse.blown.is_set() or clients.done(), "the kill")
            by_hand = self.fuse.blow()
            self._start_again(plan)
        self.orders += [order for orders in plan.orders for order in orders]
        due = [(attempt.test_id, attempt.due) for orders in plan.orders for order in orders for attempt in order.attempts
               if attempt.due and attempt.envoy == self.envoys]
        eventually(lambda: not self._owed(due, since), f"what is due is charged: {plan}")
        return not by_hand

    def _start_again(self, plan: Plan) -> None:
        if plan.victim == "envoy":
            self.envoy.stop()
            self.envoys += 1
            self.envoy = self._envoy()
            return
        self.service.process.stop()
        if plan.long:
            self.service.sql(TIME_PASSES)
        self.service.start()

    def _owed(self, due: list[tuple[str, int]], since: int) -> list[tuple[str, int]]:
        asked, charged = self.reservations(), {row["reference"] for row in self.rows(f"&kind=usage&since={since}")}
        return [found for found in due if not any(body["id"] in charged for body in asked.get(found[0], []))]

    def _client(self, orders: list[Order]) -> None:
        for order in orders:
            self._until(order, lambda: self._verdict(order))
            if order.busy:
                self.waiting.append(order)

    def _until(self, order: Order, condition: Callable[[], bool]) -> None:
        try:
            eventually(condition, "a verdict")
        except NotReady as problem:
            raise AssertionError(f"{problem}: {order.attempts[-1:]}\n{self.service.process.tail(3)}") from None

    def _verdict(self, order: Order) -> bool:
        """Asks once. Whether that was the end of it: without a verdict the same is asked again."""
        attempt = Attempt(fresh_id(), self.envoys)
        self._try(order, attempt)
        answer, order.busy = attempt.answer, False
        if answer is None or not answer.clean:
            return False
        if answer.status == order.kind.status:
            attempt.due = order.kind.due
            assert order.payment is None or answer.receipt["success"], answer
            return True
        attempt.due = 0
        error = answer.json()["error"]
        # The ledger's own words, or the filter's.
        error = error if isinstance(error, str) else error["code"]
        if answer.status == 402:
            assert order.payment is not None, answer
            return True
        # By a ledger that was killed, maybe: its lease is waited for later.
        order.busy = error == "payment_in_use"
        assert (answer.status, error) in [(503, "ledger_unavailable"), (503, "settlement_pending"), (409, "payment_in_use")], answer
        return order.busy

    def _try(self, order: Order, attempt: Attempt) -> None:
        kind = order.kind
        asked = {"method": "GET", **kind.asks}
        headers = [*asked.pop("headers", []), *_bearer(order.account)]
        # Without its resource, a payment may be sent along with any request.
        exchange, _ = self.open(f"{kind.path}/{attempt.test_id}", headers=headers, payment=order.payment, dialect=order.dialect,
                                test_id=attempt.test_id, does=kind.does, protocol=order.protocol, **asked)
        order.attempts.append(attempt)
        gate = self.backend.gate(attempt.test_id)
        try:
            status, headers = exchange.head()
            answer = Response(status, headers, clean=False)
            if status == 200 and "chunks" in kind.does:
                for number in range(1 if kind.leaves else EVENTS):
                    gate.release()
                    exchange.read_until(len(sse_event(number)))
                    self.fuse.note("event read")
                if kind.leaves:
                    exchange.leave()
                    answer.clean, attempt.answer = True, answer
                    return
            while part := exchange.read():
                answer.body += part
            answer.clean, attempt.answer = True, answer
        except Closed:
            pass
        finally:
            exchange.close()
            gate.release(EVENTS)

    # At rest

    def rows(self, query: str = "") -> list[Json]:
        """The journal, the latest first."""
        found, before = [], ""
        while True:
            page = self.service.admin("GET", f"/transactions?limit=1000{query}{before}")
            found += page["data"]
            if not page["has_more"]:
                return found
            before = f"&before={page['next']}"

    def reservations(self) -> dict[str, list[Json]]:
        """What was asked to be reserved, by the test id that ends the path."""
        found: dict[str, list[Json]] = {}
        for body in self.books.heard("reserve"):
            found.setdefault(body["resource"].rsplit("/", 1)[-1], []).append(body)
        return found

    def settle(self) -> None:
        """All comes to its end: payments have their verdicts, and nothing is held."""
        self.service.sql(TIME_PASSES)
        waiting, self.waiting = self.waiting, []
        for order in waiting:
            self._until(order, lambda: self._verdict(order) and not order.busy)
        topped_up = sum(self.till.moved.values())
        eventually(lambda: len(self.rows("&kind=x402_topup")) >= topped_up, f"{topped_up} top-ups are credited")
        eventually(lambda: not any(account.held for account in self.accounts), "nothing is held")


def _bearer(account: Account) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {account.key}")]
