"""One scenario: a row says what goes wrong and what must come of it, a scene has it happen, and the sums are checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

from e2e.client import Closed, Exchange, Response
from e2e.facilitator import Behaviour, ok
from e2e.wire import eventually, fresh_id

from .books import Attempt, Purchase, Unserved, balance
from .faults import forward
from .stage import Flow, Stage

Json = dict[str, Any]
Script = list[Callable[[], Behaviour]]

# More than ever wait at a gate.
ALL = 10


@dataclass(frozen=True)
class Sees:
    """What a client sees of an answer."""

    status: int | None
    reason: str | None = None
    # All of the answer came.
    whole: bool = False
    # There is a receipt for it, of a success.
    receipt: bool = False


SERVED = Sees(200, whole=True, receipt=True)
LEFT = Sees(None)
PENDING = Sees(503, "settlement_pending")
UNAVAILABLE = Sees(503, "facilitator_unavailable")
SPENT = Sees(402, "nonce_already_used")


@dataclass(frozen=True)
class Row:
    """A scenario."""

    name: str
    flows: tuple[str, ...]
    # What the client sees, how much has moved to the seller then ("price": all of it), how many claims are left.
    sees: Sees
    moved: int | str = 0
    claims: int = 0
    # What it sees when it sends the same payment again, and what has moved in all.
    again: Sees = SERVED
    total: int | str = "price"
    # What /verify and /settle answer, one after the other; then what the official facilitator does.
    verify: Script = field(default_factory=list)
    settle: Script = field(default_factory=list)
    # What the backend does otherwise than well.
    does: Json = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    # Where the scene stops: "verify" or "settle" (a call hangs), "backend" (no headers yet), "stream" (half of the answer has come).
    at: str | None = None
    # What happens there: the client leaves; the backend goes on, while the settlement is under way; or the money, the facilitator
    # or the backend is gone. With nowhere to stop, they are gone from the beginning.
    leaves: bool = False
    overtakes: bool = False
    poor: bool = False
    down: str | None = None
    # The payer has what was signed for, and no more.
    just_enough: bool = False
    # What hangs is let go not at once, but when the client has its "answer", or has sent the payment again ("resend").
    until: str | None = None
    # Why the payment may be paid for and buy no whole answer; and whether it buys one unpaid.
    unserved: Unserved | None = None
    owed: bool = False
    # The gateway is one that does not wait for long.
    hasty: bool = False
    # One of many like it: each flow is played on one protocol.
    alike: bool = False


class Scene:
    """A row that is played: in one flow, on one protocol."""

    def __init__(self, stage: Stage, row: Row, flow: Flow, protocol: str) -> None:
        self.stage, self.row, self.flow, self.protocol = stage, row, flow, protocol
        payer = stage.bank.payer()
        if row.just_enough or row.poor and row.at is None:
            stage.bank.spend_elsewhere(payer, flow.signed if row.just_enough else 0)
        self.purchase = Purchase(flow, stage.payment_for(flow, payer), unserved=row.unserved, owed=row.owed)
        self.payload = self.purchase.payment.payload
        # Where a row says nothing of it, the payment is vouched for without the official facilitator's word: that takes long.
        stage.faulty.script(self.payload, verify=[make() for make in [*row.verify, forward if row.verify else ok]],
                            settle=[make() for make in [*row.settle, forward]])
        self._outage = {"facilitator": stage.faulty, "backend": stage.backend}.get(row.down or "")

    def first(self) -> None:
        """What the row tells, until its client has seen what it sees."""
        if self._outage is not None and self.row.at is None:
            self._outage.down()
        try:
            attempt = self._buy()
        finally:
            if self._outage is not None:
                self._outage.up()
        self._saw(self.row.sees, attempt)
        if self.row.until == "answer":
            self.let_go()
        self._moves(self.amount(self.row.moved))
        balance(self.stage, self.purchase, settled=False)

    def resend(self) -> None:
        """The same payment for the same request again, once no other request uses it, by a client that stays."""
        flow = self.flow

        def send() -> Attempt | None:
            answer = self.stage.call(flow.path, headers=flow.headers, payment=self.purchase.payment, does=flow.answers(),
                                     protocol=self.protocol, **flow.asks)
            return None if answer.status == 409 else Attempt(answer.test_id, answer)

        again = eventually(send, "the payment is not in use any more")
        self.purchase.attempts.append(again)
        self.let_go()
        self._saw(self.row.again, again)
        self._moves(self.amount(self.row.total))
        self.check()

    def check(self) -> None:
        """Nothing more has happened, and the sums agree."""
        assert self.purchase.moved(self.stage.bank) == self.amount(self.row.total)
        balance(self.stage, self.purchase)

    @property
    def claims(self) -> tuple[int, int]:
        """How many are left, before and after the payment is sent again."""
        return self.row.claims, 1 if self.amount(self.row.total) else self.row.claims

    def amount(self, what: int | str) -> int:
        """In the smallest unit."""
        return self.flow.amount if what == "price" else int(what)

    def let_go(self) -> None:
        """Nothing of this scene waits at a gate any more."""
        self.stage.faulty.gate(self.payload).release(ALL)
        for attempt in self.purchase.attempts:
            self.stage.backend.gate(attempt.test_id).release(ALL)

    def _buy(self) -> Attempt:
        row, flow, stage = self.row, self.flow, self.stage
        does = {**row.does, **self._waits()}
        attempt = Attempt(fresh_id(), left=row.leaves)
        # The gates are there before anybody comes to them.
        gate = stage.faulty.gate(self.payload), stage.backend.gate(attempt.test_id)
        exchange, _ = stage.open(flow.path, headers=[*flow.headers, *row.headers], payment=self.purchase.payment,
                                 does=flow.answers(**does), protocol=self.protocol, test_id=attempt.test_id, **flow.asks)
        self.purchase.attempts.append(attempt)
        if row.at is not None:
            self._arrive(attempt, exchange, *gate)
            if row.poor:
                stage.bank.spend_elsewhere(self.purchase.payment.payer)
            if self._outage is not None:
                self._outage.down()
        if row.overtakes:
            gate[1].release(ALL)
            attempt.answer = _rest(exchange, attempt.answer)
        if row.leaves:
            exchange.leave()
        if row.leaves or row.overtakes:
            stage.envoy.access_log(test_id=attempt.test_id)
        if row.at is not None and row.until is None:
            self.let_go()
        if not row.leaves and not row.overtakes:
            attempt.answer = _rest(exchange, attempt.answer)
        exchange.close()
        return attempt

    def _waits(self) -> Json:
        """Where the backend does, so that the scene can stop."""
        match self.row.at:
            case "backend":
                return {"hold": True}
            case "stream":
                return {"free": False}
            case "settle" if self.flow.is_metered:
                # All parts have left before the end comes: else they could be held back with it.
                return {"free": False, "waits": True}
        return {}

    def _arrive(self, attempt: Attempt, exchange: Exchange, facilitator: Any, backend: Any) -> None:
        at, flow = self.row.at, self.flow
        if at == "stream" or (at == "settle" and flow.is_metered):
            status, headers = exchange.head()
            attempt.answer = Response(status, headers, clean=False)
        if at == "backend":
            backend.await_reached()
        elif at == "stream":
            attempt.answer.body = self._part(exchange, backend, flow.parts[0])
        else:
            if attempt.answer is not None:
                for part in flow.parts:
                    attempt.answer.body += self._part(exchange, backend, part)
                backend.release()
            facilitator.await_reached()
        assert attempt.answer is not None or exchange.quiet(), "an answer came too early"

    @staticmethod
    def _part(exchange: Exchange, backend: Any, part: str) -> bytes:
        backend.release()
        return exchange.read_until(len(part))

    def _saw(self, sees: Sees, attempt: Attempt) -> None:
        answer = attempt.answer
        if sees == LEFT:
            assert attempt.left
            return
        assert answer is not None and answer.status == sees.status, answer
        assert attempt.whole(self.flow) == sees.whole, answer
        if sees.reason is not None:
            assert answer.clean and answer.json()["error"] == sees.reason, answer
            assert (answer.status == 402) == bool(answer.all("payment-required")), answer
        assert len([found for found in attempt.receipts() if found["success"]]) == sees.receipt, answer

    def _moves(self, amount: int) -> None:
        """What is on its way arrives."""
        eventually(lambda: self.stage.faulty.is_idle(self.payload) and self.purchase.moved(self.stage.bank) == amount,
                   f"{amount} moves")


def _rest(exchange: Exchange, half: Response | None) -> Response | None:
    """What is still to come of an answer; `None`: nothing ever came."""
    try:
        if half is None:
            return exchange.response()
    except Closed:
        return None
    half.clean = True
    try:
        while part := exchange.read():
            half.body += part
        half.trailers = exchange.trailers()
    except Closed:
        half.clean = False
    return half
