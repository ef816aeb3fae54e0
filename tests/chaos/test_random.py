"""The chaos itself: many clients at once, whatever can fail fails at random, and in the end the sums agree for each payment."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from e2e.client import PROTOCOLS, Closed, Response
from e2e.wire import eventually, fresh_id

from . import draw
from .books import Attempt, Purchase, Unserved, balance
from .draw import Plan, Try
from .faults import forward
from .stage import Stage

TOGETHER = 16
# How often a client is told to come again, at most, once all is well.
PATIENCE = 20
# `redeliver.times`.
TIMES = 1


class Client:
    """A client with one payment."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.stage, self.plan = stage, plan
        self.purchase = Purchase(plan.flow, stage.payment_for(plan.flow, stage.bank.payer()))
        self.payload = self.purchase.payment.payload
        stage.faulty.script(self.payload, verify=[make() for make in [*plan.verify, forward]],
                            settle=[make() for make in [*plan.settle, forward]])

    def storm(self) -> None:
        """Its tries, until one of them has brought it the answer."""
        for number, plan in enumerate(self.plan.tries):
            twins = 2 if self.plan.twin and number == 0 else 1
            with ThreadPoolExecutor(twins) as pool:
                self.purchase.attempts += pool.map(self._try, [plan] * twins)
            if self.purchase.wholes():
                return

    def _try(self, plan: Try) -> Attempt:
        attempt = Attempt(fresh_id(), left=plan.leaves is not None)
        flow = self.plan.flow
        fields = self.stage.fields(attempt.test_id, [*flow.headers, *plan.headers], self.purchase.payment,
                                   does=flow.answers(**plan.does))
        exchange = PROTOCOLS[plan.protocol](self.stage.port)
        if "body" in flow.asks:
            exchange.start("POST", flow.path, fields, end=False, length=len(flow.asks["body"]))
            exchange.send(flow.asks["body"])
            exchange.finish()
        else:
            exchange.start("GET", flow.path, fields)
        try:
            if plan.leaves in ("verify", "backend", "settle"):
                eventually(lambda: self._has_come_to(plan.leaves, attempt) or not exchange.quiet(), "something happens")
            if plan.leaves in ("head", "part"):
                status, headers = exchange.head()
                attempt.answer = Response(status, headers, clean=False)
            if plan.leaves == "part":
                attempt.answer.body = exchange.read()
            if plan.leaves is None:
                attempt.answer = exchange.response()
        except Closed:
            pass
        exchange.leave()
        return attempt

    def _has_come_to(self, where: str | None, attempt: Attempt) -> bool:
        if where == "backend":
            return bool(self.stage.backend.requests(attempt.test_id))
        return bool(self.stage.faulty.calls(self.payload, where))

    def calm(self) -> None:
        """All is well again: the payment is sent until there is an end."""
        answers = []
        if self.purchase.wholes():
            return
        for _ in range(PATIENCE):
            answers.append(eventually(self._again, "the payment is not in use any more"))
            if self.ended():
                return
            if self.end() == "settlement_pending" and not self.is_taken_up():
                return
        raise AssertionError(f"no end: {answers}")

    def _again(self) -> Response | None:
        flow = self.plan.flow
        answer = self.stage.call(flow.path, headers=flow.headers, payment=self.purchase.payment, does=flow.answers(), **flow.asks)
        if answer.status == 409:
            return None
        self.purchase.attempts.append(Attempt(answer.test_id, answer))
        return answer

    def end(self) -> str:
        """What the last request ended with."""
        last = self.purchase.attempts[-1].answer
        if self.purchase.wholes():
            return "served"
        return "" if last is None or last.status < 400 or not last.clean else last.json()["error"]

    def ended(self) -> bool:
        """Whether there is nothing to come any more."""
        return self.end() in ("served", "nonce_already_used")

    def is_taken_up(self) -> bool:
        """Whether a payment whose settlement is pending is asked about when it is sent again."""
        return not self.plan.flow.is_metered and self.purchase.payment.offer["scheme"] == "exact"

    def is_known(self) -> bool:
        """Whether the gateway has said to it that the payment is settled, or spent."""
        receipts = [found for attempt in self.purchase.attempts for found in attempt.receipts() if found["success"]]
        return bool(receipts) or self.end() == "nonce_already_used"

    def check(self) -> None:
        """Its sums."""
        purchase = self.purchase
        transfers = purchase.transfers(self.stage.bank)
        left = [attempt for attempt in purchase.attempts if attempt.left]
        failed = [attempt for attempt in purchase.attempts if not attempt.left and _failed(attempt)]
        if self.plan.flow.is_metered:
            # It has its answer before it pays: what cannot be settled is owed, what broke off is paid in part.
            purchase.owed = not transfers
            purchase.unserved = Unserved.IN_PART if left or failed else None
        elif left or len(failed) > TIMES:
            purchase.unserved = Unserved.AS_OFTEN_AS_IT_GOES
        elif self.end() == "settlement_pending" and not self.is_taken_up():
            purchase.unserved = Unserved.HELD
        balance(self.stage, purchase)


def _failed(attempt: Attempt) -> bool:
    """It may have been paid, and was not delivered: the backend gave it something else than an answer, or Envoy in its place."""
    answer = attempt.answer
    return answer is None or not answer.clean or answer.status == 502 or answer.has_receipt and answer.status >= 400


def _run(stage: Stage, clients: list[Client], outages: dict[int, tuple[str, bool]]) -> None:
    servers = {"facilitator": stage.faulty, "backend": stage.backend}
    turn, lock = iter(range(len(clients))), threading.Lock()

    def one(client: Client) -> None:
        with lock:
            who, goes = outages.get(next(turn), (None, False))
            if who is not None:
                (servers[who].down if goes else servers[who].up)()
        client.storm()

    try:
        with ThreadPoolExecutor(TOGETHER) as pool:
            list(pool.map(one, clients))
    finally:
        for server in servers.values():
            server.up()


def test_random(patient: Stage) -> None:
    """X402_SEED draws the same again; X402_REQUESTS more of it."""
    stage, luck = patient, random.Random(draw.SEED)
    drawn = draw.plans(luck, draw.REQUESTS)
    stage.bank.provide(len(drawn))
    income, claims, earned = stage.bank.income(), stage.claims(), _earned(stage)
    clients = [Client(stage, plan) for plan in drawn]
    _run(stage, clients, draw.outages(luck, len(clients)))
    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(Client.calm, clients))

    ends = Counter(client.end() for client in clients)
    moved = {id(client): client.purchase.moved(stage.bank) for client in clients}
    print(f"X402_SEED={draw.SEED}", dict(ends), sum(map(bool, moved.values())), "settled")
    for client in clients:
        client.check()
    # All together: what the payers have lost is what the seller has got, and what the gateway says that it has earned,
    # but for what it says it does not know.
    assert stage.bank.income() - income == sum(moved.values())
    known = sum(moved[id(client)] for client in clients if client.is_known())
    eventually(lambda: _earned(stage) - earned == known, f"the gateway's own sum is {known}")
    eventually(lambda: stage.claims() - claims == len(clients), "each payment is remembered")
    workers = stage.envoy.stats(rf"^listener\.127\.0\.0\.1_{stage.port}\.worker_\d+\.downstream_cx_total$")
    assert len(workers) == stage.envoy.workers and all(workers.values()), workers
    stage.is_well()


def _earned(stage: Stage) -> int:
    found = stage.envoy.stats(r"x402_earned")
    return int(sum(found.values()))
