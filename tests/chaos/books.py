"""What was bought, what came of it, and whether the sums agree: by the client's record, the backend's, and the chain's."""

from __future__ import annotations

import base64
import enum
import json
from dataclasses import dataclass, field

from e2e.client import Response
from e2e.payments import Payment

from .bank import Bank, Transfer
from .stage import Flow, Stage


class Unserved(enum.Enum):
    """Why money may have moved although its client never had a whole answer, and gets none."""

    # Metered: what was delivered before the answer broke off.
    IN_PART = enum.auto()
    # It was served as often as `redeliver.times` allows, or left when all had been handed to Envoy.
    AS_OFTEN_AS_IT_GOES = enum.auto()
    # `upto`: nobody knows how much, so that a payment sent again is not taken up. Held until it expires.
    HELD = enum.auto()


@dataclass
class Attempt:
    """One request with a payment, and what its client saw."""

    test_id: str
    # What came of the answer; `None`: nothing.
    answer: Response | None = None
    # The client went away by itself.
    left: bool = False

    def whole(self, flow: Flow) -> bool:
        """Whether the client has all that it wanted to buy."""
        answer = self.answer
        if self.left or answer is None or answer.status >= 400 or not answer.clean:
            return False
        assert delivered(answer) == "".join(flow.parts).encode(), answer
        return True

    def receipts(self) -> list[dict]:
        """Those of the headers and of the trailers."""
        if self.answer is None:
            return []
        fields = [*self.answer.headers, *self.answer.trailers]
        return [json.loads(base64.b64decode(value, validate=True)) for name, value in fields if name.lower() == "payment-response"]


def delivered(answer: Response) -> bytes:
    """The backend's bytes of an answer: without the receipt at the end of a stream of events."""
    head, mark, _ = answer.body.rpartition(b": payment-response ")
    return head if mark else answer.body


@dataclass
class Purchase:
    """One payment and all requests that were made with it."""

    flow: Flow
    payment: Payment
    attempts: list[Attempt] = field(default_factory=list)
    # Why it may be paid and unserved.
    unserved: Unserved | None = None
    # Metered: the answer was delivered, and its settlement is not possible or not known.
    owed: bool = False

    def transfers(self, bank: Bank) -> list[Transfer]:
        """What has moved to the seller for it."""
        return bank.paid(self.payment.payer)

    def moved(self, bank: Bank) -> int:
        """How much that is."""
        return sum(transfer.amount for transfer in self.transfers(bank))

    def wholes(self) -> list[Attempt]:
        """The requests that got all of an answer."""
        return [attempt for attempt in self.attempts if attempt.whole(self.flow)]


def balance(stage: Stage, purchase: Purchase, settled: bool = True) -> None:
    """The sums of one purchase. `settled`: nothing more will happen to it."""
    flow, transfers, wholes = purchase.flow, purchase.transfers(stage.bank), purchase.wholes()
    paid = sum(transfer.amount for transfer in transfers)

    # Paid = settled × once, and never more than was signed.
    assert len(transfers) <= 1, f"{purchase} was settled {len(transfers)} times"
    assert paid <= flow.signed == int(purchase.payment.offer["amount"]), purchase
    assert flow.is_metered or paid in (0, flow.amount), purchase

    # Delivered ⇒ paid: a whole answer once, and not a byte of one before.
    assert len(wholes) <= 1, f"{purchase} bought {len(wholes)} answers"
    began = [attempt for attempt in purchase.attempts if attempt.answer is not None and attempt.answer.status < 400]
    if wholes or began and not flow.is_metered:
        assert transfers or purchase.owed, f"{purchase} was served and not paid for"
    for attempt in began:
        assert len(stage.backend.requests(attempt.test_id)) == 1, f"{attempt} is not the backend's"

    # Receipts name what has moved.
    for receipt in (found for attempt in purchase.attempts for found in attempt.receipts() if found["success"]):
        assert transfers, f"{purchase} has a receipt for nothing"
        assert receipt["transaction"] in ("", transfers[0].transaction), receipt

    # Paid ⇒ delivered, or it says why not.
    if transfers and not wholes and settled:
        assert purchase.unserved is not None, f"{purchase} was paid for and not served"
