"""What is bought of a fleet, and what its clients see of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from e2e import metered
from e2e.client import Response
from e2e.facilitator import spends
from e2e.payments import Payment
from e2e.world import BASE, UPTO, price

if TYPE_CHECKING:
    from .fleet import Gate

Json = dict[str, Any]


@dataclass(frozen=True)
class Good:
    """What is for sale: its route, how it is asked for, and what the answer is made of."""

    path: str
    route: Json
    amount: int
    parts: list[str]
    headers: list[tuple[str, str]]
    asks: Json = field(default_factory=dict)
    is_metered: bool = False

    @property
    def whole(self) -> bytes:
        """All of the answer."""
        return "".join(self.parts).encode()


PARTS = ["the first part of what was paid for, ", "the second, ", "and the third"]
TEXT = [("content-type", "text/plain")]
GOODS = {
    # The backend, then /settle, then the answer.
    "after": Good("/after", {"name": "after", "match": {"path": "/after"}, "price": price("0.01"), "accept": [BASE]}, 10_000, PARTS, TEXT),
    "upfront": Good("/upfront", {"name": "upfront", "match": {"path": "/upfront"}, "price": price("0.02"), "accept": [BASE], "flow": "upfront"},
                    20_000, PARTS, TEXT),
    "metered": Good("/metered", {**metered.terms("/metered"), "accept": [UPTO]}, metered.USED, metered.WHOLE, metered.EVENTS,
                    metered.ASKS, is_metered=True),
}
# What goes wrong with the first request that gets to the backend: nothing; the client leaves when it has the first part, or before
# there is an answer; the backend says that it cannot, resets before its answer, or in it.
TROUBLES = ["", "", "", "leaves", "leaves early", "fails", "resets", "breaks"]



@dataclass
class Attempt:
    """One request, and what its client saw. `trouble`: what went wrong with it."""

    test_id: str
    gate: Gate
    trouble: str = ""
    # `None`: nothing came of it.
    answer: Response | None = None

    @property
    def began(self) -> bool:
        """Whether something of what was bought has come."""
        return self.answer is not None and self.answer.status == 200

    def whole(self, good: Good) -> bool:
        """Whether all of it has, and the client knows it."""
        if not self.began or not self.answer.clean:
            return False
        assert has(self.answer) == good.whole, self
        return True

    @property
    def error(self) -> str:
        """Why it was refused."""
        answer = self.answer
        return answer.json()["error"] if answer is not None and answer.clean and answer.status in (402, 409, 503) and answer.body[:1] == b"{" else ""


def has(answer: Response) -> bytes:
    """What is the backend's of an answer: not the receipt at the end of a stream."""
    head, mark, _ = answer.body.rpartition(b": payment-response ")
    return head if mark else answer.body


@dataclass
class Purchase:
    """One payment, and all that was done with it. `gives_up`: a refusal is the end of it."""

    good: Good
    payment: Payment
    manner: str
    trouble: str
    streams: bool
    gives_up: bool
    # Who was killed meanwhile.
    victim: str
    copies: list[Copy] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def spends(self) -> str:
        """What can be spent once."""
        return spends(self.payment.payload)

    def wholes(self) -> list[Attempt]:
        """The requests that got all of an answer."""
        return [attempt for attempt in self.attempts if attempt.whole(self.good)]

    def __str__(self) -> str:
        tries = [f"{attempt.test_id}@{attempt.gate}{' ' + attempt.trouble if attempt.trouble else ''}: "
                 f"{attempt.answer and (attempt.answer.status, attempt.answer.clean, attempt.error, len(attempt.answer.body))}"
                 for attempt in self.attempts]
        return f"{self.good.path} {self.manner!r} {self.trouble!r} {self.spends}: {tries} {[copy.word for copy in self.copies]}"


@dataclass
class Copy:
    """One of those who have the payment, and come with it again until there is a final word: served, refused, or spent."""

    purchase: Purchase
    protocol: str
    # Which Envoy comes next.
    turn: int
    # What goes wrong with it, once.
    trouble: str = ""
    word: str = ""
    # Nothing is to be had for it until time has passed.
    parked: bool = False
    # Who said last, one after the other, that it is spent.
    spent_at: list[Gate] = field(default_factory=list)
