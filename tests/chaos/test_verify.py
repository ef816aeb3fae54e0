"""A facilitator that fails at /verify: nothing is paid, and the payment is as good as new."""

import pytest
from e2e.facilitator import hang, refuse

from .faults import forward, lost
from .play import LEFT, SERVED, SPENT, UNAVAILABLE, Row, Sees, play
from .rows import EVERY, FAULTS, VERIFIED, cases

NO_MONEY = Sees(402, "insufficient_funds")
PAID = {"moved": "price", "claims": 1, "again": SPENT}

ROWS = [
    Row("all is well", EVERY, SERVED, **PAID),
    Row("refuses", VERIFIED, NO_MONEY, verify=[lambda: refuse("insufficient_funds")]),
    *(Row(f"{name} before", VERIFIED, UNAVAILABLE, verify=[make]) for name, make in FAULTS.items()),
    *(Row(f"{name} after", VERIFIED, UNAVAILABLE, verify=[lambda make=make: lost(make())]) for name, make in FAULTS.items()),
    Row("is late", VERIFIED, SERVED, verify=[lambda: hang(forward())], at="verify", **PAID),
    Row("refuses late", VERIFIED, NO_MONEY, verify=[lambda: hang(refuse("insufficient_funds"))], at="verify"),
    Row("is down", EVERY, UNAVAILABLE, down="facilitator"),
    Row("goes down", VERIFIED, UNAVAILABLE, verify=[lambda: hang(forward())], at="verify", down="facilitator"),
    Row("the client leaves", VERIFIED, LEFT, verify=[lambda: hang(forward())], at="verify", leaves=True),
    Row("the client leaves a refusal", VERIFIED, LEFT, verify=[lambda: hang(refuse("insufficient_funds"))], at="verify", leaves=True),
]
TIMEOUTS = [
    Row("times out", ("before", "overlap", "metered"), UNAVAILABLE, verify=[lambda: hang(forward())], until="answer"),
]


@pytest.mark.parametrize(("row", "flow"), cases(ROWS))
def test_verify(patient, row, flow, protocol):
    play(patient, row, flow, protocol)


@pytest.mark.parametrize(("row", "flow"), cases(TIMEOUTS))
def test_timeouts(hasty, row, flow, protocol):
    play(hasty, row, flow, protocol)
