"""Chaos: whatever fails around a gateway of four workers, the chain and the client's record agree."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clients import world  # noqa: E402

from . import draw  # noqa: E402
from .bank import Bank  # noqa: E402
from .stage import Stage, surroundings  # noqa: E402


def pytest_report_header() -> str:
    """The seed of the randomised run: the same one draws the same faults, though not in the same moments."""
    return f"chaos: X402_SEED={draw.SEED}"


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """The chain."""
    world.ensure_node()
    found = Bank(tmp_path_factory.mktemp("chain"), 84532)
    yield found
    found.service.process.stop()


@pytest.fixture(scope="session")
def around(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple]:
    """The backend, and the faulty facilitator before the official one."""
    official = world.node("facilitator.mjs", tmp_path_factory.mktemp("facilitator"), "--chain", bank.option)
    yield surroundings(official)
    official.process.stop()


@pytest.fixture(scope="session")
def patient(bank: Bank, around: tuple) -> Iterator[Stage]:
    """A gateway that waits for as long as anything takes."""
    _, journal, backend, faulty = around
    stage = Stage("patient", bank, backend, faulty, journal)
    yield stage
    stage.envoy.stop()


@pytest.fixture(scope="session")
def hasty(bank: Bank, around: tuple) -> Iterator[Stage]:
    """A gateway whose calls to the facilitator time out soon."""
    _, journal, backend, faulty = around
    stage = Stage("hasty", bank, backend, faulty, journal, verify_timeout="3s", settle_timeout="5s")
    yield stage
    stage.envoy.stop()
