"""What is not as it should be yet, and is let pass: each of these is to be deleted with what it is about."""

from __future__ import annotations

from .purchases import Purchase


def may_be_untold(purchase: Purchase) -> bool:
    """What is due of a metered answer is told to the ledger once, at its end: while that is away it is lost, and the payment is free again."""
    return purchase.good.is_metered and purchase.victim == "ledger" and any(attempt.began for attempt in purchase.attempts)
