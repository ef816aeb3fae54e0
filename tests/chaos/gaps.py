"""What is not as it should be yet, and is let pass: each of these is to be deleted with what it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .purchases import Purchase

if TYPE_CHECKING:
    from .fleet import Gate

# An Envoy that knows of an attempt without an outcome takes "used", which the ledger says of what was had elsewhere, for its own success:
# the default would have payments buy two answers.
SETTLEMENT = {"accept_used_nonce_up_to": "0"}


def may_be_untold(purchase: Purchase) -> bool:
    """What is due of a metered answer is told to the ledger once, at its end: while that is away it is lost, and the payment is free again."""
    return purchase.good.is_metered and purchase.victim == "ledger" and any(attempt.began for attempt in purchase.attempts)


def is_kept(gate: Gate, holder: str) -> bool:
    """A payment that was taken over, paid, and could not be served is not given back before its lease ends: the ledger has no use for that."""
    return ("released", holder) in gate.relay.turned_away
