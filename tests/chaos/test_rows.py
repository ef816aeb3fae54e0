"""Every row, in each of its flows, on HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import pytest

from . import at_backend, at_settle, at_verify, metered_rows
from .cast import Cast
from .play import Row
from .stage import FLOWS

ROWS = [*at_verify.ROWS, *at_settle.ROWS, *at_backend.ROWS, *metered_rows.ROWS]
# At once.
TOGETHER = 32
PROTOCOLS = ["h1", "h2"]


def cases(rows: list[Row]) -> pytest.MarkDecorator:
    """Each row in each of its flows, on each protocol; of those that are alike, each flow on one of them in turn."""
    found = []
    for place, row in enumerate(rows):
        for turn, flow in enumerate(row.flows, start=place):
            for protocol in PROTOCOLS[turn % 2:][:1] if row.alike else PROTOCOLS:
                found.append(pytest.param(row, FLOWS[flow], protocol, id=f"{row.name}-{flow}-{protocol}"))
    return pytest.mark.parametrize(("row", "flow", "protocol"), found)


def chosen(request: pytest.FixtureRequest, test: str) -> list:
    """The cases of a test that are to be run."""
    items = [item for item in request.session.items if item.originalname == test]
    return [tuple(item.callspec.params[name] for name in ("row", "flow", "protocol")) for item in items]


@pytest.fixture(scope="module")
def crowd(request, patient) -> Cast:
    """All scenes that disturb no others."""
    return Cast(patient, chosen(request, "test_together"), TOGETHER)


@pytest.fixture(scope="module")
def hurry(request, hasty) -> Cast:
    """All scenes whose calls time out."""
    return Cast(hasty, chosen(request, "test_timeouts"), TOGETHER)


@cases([row for row in ROWS if not row.hasty and row.down is None])
def test_together(crowd, row, flow, protocol):
    crowd.ended_well(row, flow, protocol)


def test_claims_together(crowd, patient):
    """They are counted once for all of them."""
    crowd.counted()
    patient.is_well()


@cases([row for row in ROWS if row.hasty])
def test_timeouts(hurry, row, flow, protocol):
    hurry.ended_well(row, flow, protocol)


def test_claims_with_timeouts(hurry, hasty):
    hurry.counted()
    hasty.is_well()


@cases([row for row in ROWS if row.down is not None])
def test_outages(patient, row, flow, protocol):
    """One after the other: what is down is down for all."""
    cast = Cast(patient, [(row, flow, protocol)], 1)
    cast.ended_well(row, flow, protocol)
    cast.counted()
    patient.is_well()
