"""What the tables of rows share: sets of flows, faults, and ends."""

from __future__ import annotations

from e2e.facilitator import garbage, hang, refuse, reply, reset, reset_in_body

from .faults import forward, lost
from .play import SPENT, Sees
from .stage import FLOWS

VERIFIED = ("before", "overlap", "permit2", "metered", "metered-overlap")
# Those whose answer waits for the settlement.
SETTLED = ("before", "overlap", "local", "permit2", "upfront")
# Those of them whose backend goes first.
AFTER_BACKEND = ("before", "overlap", "local", "permit2")
EIP3009 = ("before", "overlap", "local")
METERED = ("metered", "metered-overlap")
EVERY = tuple(FLOWS)

# Ways not to answer. `busy` has JSON, and says nothing.
FAULTS = {
    "resets": reset, "cuts its answer": reset_in_body, "answers garbage": garbage, "answers 500": lambda: reply(500, b"oops"),
    "is busy": lambda: reply(503, {"error": "busy"}),
}

NO_MONEY = Sees(402, "insufficient_funds")
# As the official facilitator says it.
NOTHING_THERE = Sees(402, "invalid_exact_evm_insufficient_balance")

PAID = {"moved": "price", "claims": 1, "again": SPENT}
# Nothing has moved, and nobody knows that.
OPEN = {"claims": 1}
# It has, and nobody knows that.
SECRET = {"moved": "price", "claims": 1}


def after(make=reset):
    """The official facilitator has done its work, and then this."""
    return lambda: lost(make())


def hangs(then=forward):
    """It waits at the payment's gate, and then this."""
    return lambda: hang(then())


def broke():
    """There is no money: a refusal, whatever is asked."""
    return refuse("insufficient_funds")
