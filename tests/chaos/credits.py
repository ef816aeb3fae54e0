"""A gateway and a ledger that can be killed at the n-th event of a kind, and the books of what their clients saw."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from e2e.backend import Backend, sse_event
from e2e.client import PROTOCOLS, Closed, Response
from e2e.facilitator import Call, Facilitator, refuse, reply, spends, transaction_of
from e2e.ledger import Ledger
from e2e.metered import PRICE
from e2e.metering import asks, chat, count, delta, stream, whole
from e2e.payments import Payment, pay
from e2e.wire import Answer, Journal, Loop, Request, eventually, fresh_id
from e2e.world import BASE, BUFFER, MAIN, World, changed, price, wasm

from stack.envoy import Envoy, cluster, gateway, route
from stack.ledger import Account, Ledger as Service, micros
from stack.postgres import Postgres
from stack.process import NotReady, wait_until

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
# What the facilitator does when it is asked to settle for the first time. Afterwards it does its work.
MANNERS = ["well", "well", "well", "moves, no answer", "no answer", "refuses", "refuses to verify"]
# At what somebody is killed, and how many of these there are in a round, about.
MOMENTS = {"reserve asked": 12, "reserve answered": 12, "capture asked": 10, "capture answered": 10, "verify asked": 3, "settle asked": 3,
           "settle moved": 3, "backend asked": 10, "backend answered": 8, "event read": 6}


class Fuse:
    """Kills a process as the n-th event of a kind happens, or so many turns of the servers' loop later."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop.loop
        self._lock = threading.Lock()
        self._armed: tuple[str, int, int, int] | None = None
        self.blown = threading.Event()

    def arm(self, where: str, nth: int, turns: int, pid: int) -> None:
        """From now on."""
        with self._lock:
            self.blown.clear()
            self._armed = (where, nth, turns, pid)

    def note(self, what: str) -> None:
        """It happens."""
        with self._lock:
            if self._armed is None or self._armed[0] != what:
                return
            where, nth, turns, pid = self._armed
            self._armed = (where, nth - 1, turns, pid) if nth > 1 else None
            if nth > 1:
                return
            if turns == 0:
                self._kill(pid)
        if turns > 0:
            self._loop.call_soon_threadsafe(self._later, turns, pid)

    def _later(self, turns: int, pid: int) -> None:
        if turns > 0:
            self._loop.call_soon(self._later, turns - 1, pid)
        else:
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.blown.set()

    def blow(self) -> bool:
        """Whether it had to be done by hand: there were fewer events."""
        with self._lock:
            armed, self._armed = self._armed, None
            if armed is not None:
                self._kill(armed[3])
        assert self.blown.wait(60)
        return armed is not None


class Books(Ledger):
    """The relay before the ledger. `resets`: what becomes of a call that the ledger does not answer; else it is a 503."""

    resets = False

    def __init__(self, loop: Loop, journal: Journal, service: Service, fuse: Fuse) -> None:
        self.fuse = fuse
        super().__init__(loop, journal, service)

    async def answer(self, request: Request, answer: Answer) -> None:
        await self.read(request)
        self.fuse.note(f"{_last(request)} asked")
        try:
            await super().answer(request, answer)
        except ConnectionAbortedError:
            await answer.reset()

    async def ask(self, request: Request, path: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        found = await super().ask(request, path)
        if found[0] == 503 and self.resets:
            raise ConnectionAbortedError
        self.fuse.note(f"{_last(request)} answered")
        return found

    def reservations(self) -> dict[str, list[Json]]:
        """What was asked to be reserved, by the test id that ends the path."""
        found: dict[str, list[Json]] = {}
        for body in self.heard("reserve"):
            found.setdefault(body["resource"].rsplit("/", 1)[-1], []).append(body)
        return found


def _last(request: Request) -> str:
    return request.path.rsplit(b"/", 1)[-1].decode()


class Till(Facilitator):
    """A facilitator with a chain of its own: each nonce moves money once, and is used up then."""

    def __init__(self, loop: Loop, journal: Journal, fuse: Fuse) -> None:
        self.fuse = fuse
        # How often the money of a payment has moved.
        self.moved: Counter[str] = Counter()
        # What a payment meets, and whether its nonce is said to be used when it is settled again.
        self.manners: dict[str, tuple[str, bool]] = {}
        self._asked: Counter[str] = Counter()
        super().__init__(loop, journal)
        self.default = {"verify": self._verify, "settle": self._settle}

    async def _verify(self, _: Facilitator, call: Call, answer: Answer) -> None:
        self.fuse.note("verify asked")
        manner, _ = self.manners[call.spends]
        if manner == "refuses to verify":
            return await refuse("insufficient_funds")(self, call, answer)
        if call.spends in self.moved:
            return await refuse("invalid_exact_evm_nonce_already_used")(self, call, answer)
        await reply(200, {"isValid": True, "payer": call.payload["payload"]["authorization"]["from"]})(self, call, answer)

    async def _settle(self, _: Facilitator, call: Call, answer: Answer) -> None:
        self.fuse.note("settle asked")
        manner, used = self.manners[call.spends]
        self._asked[call.spends] += 1
        first = self._asked[call.spends] == 1
        if first and manner == "refuses":
            return await refuse("insufficient_funds")(self, call, answer)
        if first and manner == "no answer":
            await answer.reset()
        if call.spends in self.moved and used:
            return await refuse("invalid_exact_evm_nonce_already_used")(self, call, answer)
        if call.spends not in self.moved:
            self.moved[call.spends] += 1
            self.fuse.note("settle moved")
        if first and manner == "moves, no answer":
            await answer.reset()
        await reply(200, self.settled(call))(self, call, answer)


class Kitchen(Backend):
    """A backend that counts who came."""

    def __init__(self, loop: Loop, journal: Journal, fuse: Fuse) -> None:
        self.fuse = fuse
        self.reached: Counter[str] = Counter()
        super().__init__(loop, journal)

    def arrived(self, request: Request) -> None:
        super().arrived(request)
        self.reached.update(request.all("x-test-id"))
        self.fuse.note("backend asked")

    async def answer(self, request: Request, answer: Answer) -> None:
        await super().answer(request, answer)
        self.fuse.note("backend answered")


# So much that what was under way is over: leases of settlements last half a minute, reservations half an hour.
TIME_PASSES = ("UPDATE topups SET lease_until = 1 WHERE state = 'processing'; UPDATE topups SET next_attempt_at = 1 WHERE state = 'unknown';"
               "UPDATE reservations SET expires_at = 1 WHERE state = 'open';")


class Database:
    """What is below a ledger."""

    def __init__(self, directory: Path, name: str) -> None:
        self.file = directory / "ledger.db"
        self.server = Postgres() if name == "postgres" else None
        self.url = self.server.database() if self.server else f"sqlite:{self.file}"

    def stop(self) -> None:
        """It is not needed any more."""
        if self.server:
            self.server.stop()


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
class Plan:
    """A round: who is killed at what, and what is asked meanwhile. `long`: the ledger is away for longer than a lease."""

    victim: str
    where: str
    nth: int
    turns: int
    long: bool
    resets: bool
    orders: list[list[Order]]

    def __str__(self) -> str:
        return f"{self.victim} at {self.where} {self.nth} + {self.turns}"


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
        self.books = Books(loop, journal, self.service, self.fuse)
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
        turns = luck.choice([0, 0, luck.randrange(1, 40), luck.randrange(40, 400)])
        orders = [[self._order(luck) for _ in range(ORDERS)] for _ in range(CLIENTS)]
        return Plan(victim, where, luck.randrange(MOMENTS[where]) + 1, turns, luck.random() < 0.8, luck.random() < 0.5, orders)

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
        with ThreadPool(plan.orders, self._client) as pool:
            wait_until(lambda: self.fuse.blown.is_set() or pool.done(), "the kill")
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
        asked, charged = self.books.reservations(), {row["reference"] for row in self.rows(f"&kind=usage&since={since}")}
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

    # What has to be true

    def rows(self, query: str = "") -> list[Json]:
        """The journal, the latest first."""
        found, before = [], ""
        while True:
            page = self.service.admin("GET", f"/transactions?limit=1000{query}{before}")
            found += page["data"]
            if not page["has_more"]:
                return found
            before = f"&before={page['next']}"

    def settle(self) -> None:
        """All comes to its end: payments have their verdicts, and nothing is held."""
        self.service.sql(TIME_PASSES)
        waiting, self.waiting = self.waiting, []
        for order in waiting:
            self._until(order, lambda: self._verdict(order) and not order.busy)
        topped_up = sum(self.till.moved.values())
        eventually(lambda: len(self.rows("&kind=x402_topup")) >= topped_up, f"{topped_up} top-ups are credited")
        eventually(lambda: not any(account.held for account in self.accounts), "nothing is held")

    def check(self) -> Counter[str]:
        """At rest: each sum, and each request. What was seen, counted."""
        assert "every balance is the sum" in self.service.command("check")
        # A connection that is left in a transaction keeps its locks, and loses what is written on it next.
        for sign in ("already a transaction in progress", "non-zero transaction depth"):
            assert sign not in self.service.logs(), sign
        rows = self.rows()
        references = Counter((row["kind"], row["reference"]) for row in rows)
        assert not [found for found, times in references.items() if times > 1]
        for account in self.accounts:
            self._check_account(account, [row for row in rows if row["tenant"] == account.tenant])
        seen = self._check_attempts(rows)
        seen.update(payments=len(self.till.manners), topped_up=len(self.till.moved),
                    inferred=sum(row["payment"].endswith("/") for row in rows if row["kind"] == "x402_topup"))
        return seen

    def _check_account(self, account: Account, rows: list[Json]) -> None:
        def total(kind: str) -> int:
            return sum(micros(row["amount"]) for row in rows if row["kind"] == kind)

        assert (account.balance, account.held) == (total("adjustment") + total("x402_topup") - total("usage"), 0)
        assert total("adjustment") == GIVEN and total("reservation") == total("usage") + total("refund") - self._late(rows)
        # Each nonce that was settled is credited once, to whom it was sent for, and no other.
        paid = {spends(order.payment.payload): int(order.payment.offer["amount"])
                for order in self.orders if order.payment and order.account is account}
        moved = {nonce: amount for nonce, amount in paid.items() if nonce in self.till.moved}
        credited = [row for row in rows if row["kind"] == "x402_topup"]
        assert sorted(micros(row["amount"]) for row in credited) == sorted(moved.values())
        assert set(self.till.moved.values()) <= {1}
        named = Counter(row["payment"] for row in credited if not row["payment"].endswith("/"))
        assert set(named) <= {f"{BASE['network']}/{transaction_of(nonce)}" for nonce in moved} and set(named.values()) <= {1}

    @staticmethod
    def _late(rows: list[Json]) -> int:
        """What was charged after it had been given back."""
        return sum(micros(row["amount"]) for row in rows if row["kind"] == "usage" and row["debit"] == "available")

    def _check_attempts(self, rows: list[Json]) -> Counter[str]:
        held = {row["reference"]: row for row in rows if row["kind"] == "reservation"}
        usage = {row["reference"]: row for row in rows if row["kind"] == "usage"}
        asked, known, seen = self.books.reservations(), set(), Counter[str]()
        for order in self.orders:
            for attempt in order.attempts:
                ids = {body["id"] for body in asked.get(attempt.test_id, [])}
                reached = self.kitchen.reached[attempt.test_id]
                charged = [micros(usage[found]["amount"]) for found in ids if found in usage]
                said = (attempt, order.kind, ids, reached, charged)
                known |= ids
                assert len(ids) <= 1 and reached <= 1, said
                # None is served without money that is held for it, and none pays for what it was not served.
                assert reached <= len(ids & set(held)) and len(charged) <= reached, said
                assert all(held[found]["tenant"] == order.account.tenant for found in ids & set(held)), said
                exact = [order.kind.due] if order.kind.due else []
                if attempt.due is not None and attempt.envoy == self.envoys:
                    assert charged == ([attempt.due] if attempt.due else []), said
                else:
                    assert charged in ([], exact), said
                seen.update(attempts=1, reached=reached, charged=len(charged), verdicts=attempt.due is not None,
                            uncharged=bool(attempt.due) and not charged)
        # Nothing was charged, or held, that was not asked for.
        assert set(usage) <= known and set(held) <= known
        late = sum(row["debit"] == "available" for row in usage.values())
        seen.update(late=late)
        return seen


class ThreadPool:
    """Each client in a thread; the first failure of one is raised at the end."""

    def __init__(self, orders: list[list[Order]], client: Any) -> None:
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(client, found)) for found in orders]

    def _run(self, client: Any, orders: list[Order]) -> None:
        try:
            client(orders)
        except BaseException as error:
            self._failed.append(error)

    def done(self) -> bool:
        """Whether all have ended."""
        return not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> ThreadPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, _: object, problem: BaseException | None, __: object) -> None:
        for thread in self._threads:
            thread.join()
        for error in self._failed if problem is None else []:
            raise error


def _bearer(account: Account) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {account.key}")]
