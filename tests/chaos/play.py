"""One scenario: a row says what goes wrong and what must come of it, `play` has it happen, and the sums are checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

from e2e.client import Closed, Exchange, Response
from e2e.facilitator import Behaviour
from e2e.wire import eventually

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
# The connection or stream ended without a word.
NOTHING = Sees(0)
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
    # What /verify and /settle answer, one after the other; then they are as good as the official facilitator.
    verify: Script = field(default_factory=list)
    settle: Script = field(default_factory=list)
    # What the backend does otherwise than well.
    does: Json = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    # Where the test stops: "verify" or "settle" (a call hangs), "backend" (no headers yet), "stream" (half of the answer has come).
    at: str | None = None
    # What happens there: the client leaves; the backend goes on, while the settlement is under way; or the money, the facilitator
    # or the backend is gone. With nowhere to stop, they are gone from the beginning.
    leaves: bool = False
    overtakes: bool = False
    poor: bool = False
    down: str | None = None
    # What hangs is let go not at once, but when the client has its "answer", or has sent the payment again ("resend").
    until: str | None = None
    unserved: Unserved | None = None
    owed: bool = False
    # The gateway with short patience.
    hasty: bool = False

    def amount(self, flow: Flow, what: int | str) -> int:
        """In the smallest unit."""
        return flow.amount if what == "price" else int(what)


def play(stage: Stage, row: Row, flow: Flow, protocol: str) -> None:
    """See the module."""
    before = stage.claims()
    payer = stage.bank.payer()
    if row.poor and row.at is None:
        stage.bank.spend_elsewhere(payer)
    purchase = Purchase(flow, stage.payment_for(flow, payer), unserved=row.unserved, owed=row.owed)
    for what, script in (("verify", row.verify), ("settle", row.settle)):
        stage.faulty.script(purchase.payment.payload, **{what: [*(make() for make in script), forward()]})
    outage = {"facilitator": stage.faulty, "backend": stage.backend}.get(row.down or "")
    if outage is not None and row.at is None:
        outage.down()
    try:
        attempt = _first(stage, row, purchase, protocol, outage)
    finally:
        if outage is not None:
            outage.up()
    _saw(row.sees, attempt, flow)
    if row.until == "answer":
        _let_go(stage, purchase)
    _came_to(stage, purchase, row.amount(flow, row.moved), before + row.claims)
    balance(stage, purchase, settled=False)

    again = _again(stage, purchase, protocol)
    _let_go(stage, purchase)
    _saw(row.again, again, flow)
    total = row.amount(flow, row.total)
    _came_to(stage, purchase, total, before + (1 if total else row.claims))
    balance(stage, purchase)
    stage.is_well()


def _let_go(stage: Stage, purchase: Purchase) -> None:
    stage.faulty.gate(purchase.payment.payload).release(ALL)
    for attempt in purchase.attempts:
        stage.backend.gate(attempt.test_id).release(ALL)


def _first(stage: Stage, row: Row, purchase: Purchase, protocol: str, outage: Any) -> Attempt:
    """The request to which it all happens."""
    flow = purchase.flow
    does = dict(row.does)
    if row.at == "backend":
        does["hold"] = True
    if row.at == "stream":
        does["free"] = False
    exchange, test_id = stage.open(flow.path, headers=[*flow.headers, *row.headers], payment=purchase.payment,
                                   does=flow.answers(**does), protocol=protocol, **flow.asks)
    attempt = Attempt(test_id, left=row.leaves)
    purchase.attempts.append(attempt)
    _arrive(stage, row, attempt, purchase, exchange)
    if row.poor and row.at is not None:
        stage.bank.spend_elsewhere(purchase.payment.payer)
    if outage is not None and row.at is not None:
        outage.down()
    if row.overtakes:
        stage.backend.gate(test_id).release(ALL)
        attempt.answer = _rest(exchange, attempt.answer)
    if row.leaves:
        exchange.leave()
    if row.leaves or row.overtakes:
        stage.envoy.access_log(test_id=test_id)
    if row.at is not None and row.until is None:
        _let_go(stage, purchase)
    if not row.leaves and not row.overtakes:
        attempt.answer = _rest(exchange, attempt.answer)
        exchange.close()
    return attempt


def _arrive(stage: Stage, row: Row, attempt: Attempt, purchase: Purchase, exchange: Exchange) -> None:
    """Where the row stops."""
    flow = purchase.flow
    if row.at is None:
        return
    if row.at == "stream" or (row.at == "settle" and flow.is_metered):
        status, headers = exchange.head()
        attempt.answer = Response(status, headers, clean=False)
    if row.at == "stream":
        stage.backend.gate(attempt.test_id).release()
        attempt.answer.body = exchange.read_until(len(flow.parts[0]))
    elif row.at == "backend":
        stage.backend.gate(attempt.test_id).await_reached()
    else:
        stage.faulty.gate(purchase.payment.payload).await_reached()
        if attempt.answer is not None:
            attempt.answer.body = exchange.read_until(len("".join(flow.parts)))
    assert attempt.answer is not None or exchange.quiet(), "an answer came too early"


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


def _again(stage: Stage, purchase: Purchase, protocol: str) -> Attempt:
    """The same payment for the same request, once no other request uses it, from a client that stays."""
    flow = purchase.flow

    def send() -> Attempt | None:
        answer = stage.call(flow.path, headers=flow.headers, payment=purchase.payment, does=flow.answers(),
                            protocol=protocol, **flow.asks)
        return None if answer.status == 409 else Attempt(answer.test_id, answer)

    attempt = eventually(send, "the payment is not in use any more")
    purchase.attempts.append(attempt)
    return attempt


def _saw(sees: Sees, attempt: Attempt, flow: Flow) -> None:
    answer = attempt.answer
    if sees == LEFT:
        assert attempt.left
        return
    if sees == NOTHING:
        assert not attempt.left and answer is None, answer
        return
    assert answer is not None and answer.status == sees.status, answer
    assert attempt.whole(flow) == sees.whole, answer
    if sees.reason is not None:
        assert answer.clean and answer.json()["error"] == sees.reason, answer
        assert (answer.status == 402) == bool(answer.all("payment-required")), answer
    receipts = [found for found in attempt.receipts() if found["success"]]
    assert len(receipts) == sees.receipt, answer


def _came_to(stage: Stage, purchase: Purchase, moved: int, claims: int) -> None:
    """What is on its way arrives."""
    eventually(lambda: stage.faulty.is_idle() and purchase.moved(stage.bank) == moved, f"{moved} moves")
    eventually(lambda: stage.claims() == claims, f"{claims} claims")


