"""Whether each payment that a fleet was sent has moved its money once at most, and bought one answer."""

from __future__ import annotations

from collections import Counter

from .fleet import Fleet
from .purchases import Attempt, Purchase


def check(fleet: Fleet) -> Counter[str]:
    """At rest: each payment since the last time. What was seen, counted."""
    purchases, fleet.purchases = fleet.purchases, []
    seen = Counter[str]()
    for purchase in purchases:
        try:
            seen.update(Sums(fleet, purchase).check())
        except AssertionError as problem:
            problem.add_note(str(purchase))
            raise
    _check_intents(fleet, purchases)
    _check_logs(fleet, purchases)
    return seen


class Sums:
    """Of one payment."""

    def __init__(self, fleet: Fleet, purchase: Purchase) -> None:
        self.fleet, self.purchase = fleet, purchase
        self.moved = fleet.till.moved[purchase.spends]
        self.wholes = purchase.wholes()
        self.trouble = [attempt for attempt in purchase.attempts if attempt.trouble and fleet.kitchen.reached[attempt.test_id]]

    def check(self) -> Counter[str]:
        """What was seen, counted."""
        self._moves_once()
        self._buys_one_answer()
        self._is_not_lost()
        self._is_not_for_nothing()
        self._refusals_are_true()
        return Counter(moved=self.moved, served=bool(self.wholes), served_twice=len(self.wholes) > 1, payments=1,
                       attempts=len(self.purchase.attempts), troubles=len(self.trouble))

    def _moves_once(self) -> None:
        purchase = self.purchase
        calls = self.fleet.till.calls(purchase.payment.payload, "settle")
        amounts = {call.requirements["amount"] for call in calls}
        assert self.moved <= 1 and len(amounts) <= 1, amounts
        if amounts and not (purchase.good.is_metered and self.trouble):
            assert amounts == {str(purchase.good.amount)}, amounts
        # It is sent again where there was no outcome, and never where there was one.
        unknown = (purchase.manner in ("moves, no answer", "no answer", "refuses")) + (purchase.victim == "ledger")
        assert len(calls) <= 1 + unknown, len(calls)

    def _buys_one_answer(self) -> None:
        before = self.wholes[:-1]
        assert all(self._is_unknown(attempt) for attempt in before) and len(before) <= 1, before
        # Nor parts of another one, but for what went wrong or went down with its Envoy; and that is served once more, and no more.
        began = [attempt for attempt in self.purchase.attempts if attempt.began]
        cut = [attempt for attempt in began if attempt not in self.wholes]
        for attempt in cut:
            assert attempt in self.trouble or attempt.gate.killed or self._is_owed(), attempt
        assert len(began) <= 1 + bool(self.trouble) + any(attempt.gate.killed or self._is_unknown(attempt) for attempt in began), began

    def _is_unknown(self, attempt: Attempt) -> bool:
        """Whether its Envoy was killed before the ledger knew that it was delivered."""
        gate = attempt.gate
        told = {name for what, name in gate.relay.heard_of if what in ("delivered", "due")}
        return gate.killed and not told & gate.holders(self.purchase.spends)

    def _is_owed(self) -> bool:
        """Whether it was delivered, and its settlement refused then: that ends the answer with a cut."""
        return self.purchase.good.is_metered and self.purchase.manner == "refuses" and not self.moved

    def _is_not_lost(self) -> None:
        if not self.moved or self.wholes:
            return
        if not self.purchase.good.is_metered:
            # What is left of a payment after trouble is to be had where it came, and went with that Envoy.
            assert any(attempt.gate.killed for attempt in self.trouble), "it was paid for, and not served"
            return
        cut = [attempt for attempt in self.purchase.attempts if attempt.began and attempt.gate.killed]
        assert self.trouble or cut, "it was paid for, and not served"

    def _is_not_for_nothing(self) -> None:
        # A settlement that the ledger had to send is refused too late to end the answer with a cut.
        assert self.moved or not self.wholes or self._is_owed(), "it was served, and not paid for"

    def _refusals_are_true(self) -> None:
        for attempt in self.purchase.attempts:
            if attempt.error in ("payment_in_use", "nonce_already_used"):
                assert not self.fleet.kitchen.reached[attempt.test_id], attempt
        words = {copy.word for copy in self.purchase.copies}
        if words == {"refused"}:
            assert not self.moved and not self.wholes
        if words == {"spent"}:
            assert self.moved or self._is_owed()


def _check_intents(fleet: Fleet, purchases: list[Purchase]) -> None:
    claims = {claim: found for gate in fleet.everyone for found, _, claim in gate.intents()}
    rows = {claims[claim]: rest for claim, *rest in fleet.database.rows("SELECT claim, state, amount, payload FROM intents")}
    for purchase in purchases:
        moved = fleet.till.moved[purchase.spends]
        state, amount, payload = rows.get(purchase.spends, ("", "", ""))
        assert not payload, (state, str(purchase))
        assert (state == "settled") == bool(moved), (state, str(purchase))
        assert state in ("settled", "released", "") or state == "failed" and purchase.good.is_metered and purchase.manner == "refuses", state
        if moved:
            [sent] = {call.requirements["amount"] for call in fleet.till.calls(purchase.payment.payload, "settle")}
            assert amount == sent, (amount, sent)


def _check_logs(fleet: Fleet, purchases: list[Purchase]) -> None:
    logs = fleet.service.logs() + "".join(gate.envoy.log() for gate in fleet.everyone)
    assert fleet.service.token not in logs
    for purchase in purchases:
        assert purchase.payment.payload["signature"][2:] not in logs
