"""How rows become tests, and the faults that many of them share."""

from __future__ import annotations

import pytest
from e2e.facilitator import garbage, reply, reset, reset_in_body

from .awaited import AWAITED
from .play import Row
from .stage import FLOWS

VERIFIED = ("before", "overlap", "permit2", "metered", "metered-overlap")
# Those whose answer waits for the settlement.
SETTLED = ("before", "overlap", "local", "permit2", "upfront")
# Those of them whose backend goes first.
AFTER_BACKEND = ("before", "overlap", "local", "permit2")
METERED = ("metered", "metered-overlap")
EVERY = tuple(FLOWS)

# Ways not to answer. `busy` has JSON, and says nothing.
FAULTS = {
    "resets": reset, "cuts its answer": reset_in_body, "answers garbage": garbage, "answers 500": lambda: reply(500, b"oops"),
    "is busy": lambda: reply(503, {"error": "busy"}),
}


def cases(rows: list[Row]) -> list:
    """Each row in each of its flows."""
    return [pytest.param(row, FLOWS[flow], id=f"{row.name}-{flow}", marks=_marks(row)) for row in rows for flow in row.flows]


def _marks(row: Row) -> list:
    return [pytest.mark.xfail(reason=AWAITED[row.name], strict=True)] if row.name in AWAITED else []
