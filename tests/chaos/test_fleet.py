"""The ledger and two Envoys that share it are killed at random points under load: each payment moves once, and buys one answer."""

from __future__ import annotations

import os
import random
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import pytest

from . import draw, moments
from .claim_sums import check
from .fleet import MOMENTS, VICTIMS, Fleet

# Of each database.
ROUNDS = {"sqlite": int(os.environ.get("X402_ROUNDS") or 12), "postgres": int(os.environ.get("X402_ROUNDS") or 7)}
# So many rounds, and then a look at all the sums.
TOGETHER = 5


def _run(name: str, directory: Path) -> tuple[str, Counter[str]]:
    """All rounds on one database: what was done, and what was seen."""
    luck, done = random.Random(f"{draw.SEED} fleet {name}"), ""
    # An Envoy takes longer to start.
    drawn = moments.drawn(luck, ["ledger", "ledger", "ledger", "ledger", *VICTIMS], MOMENTS)
    killed, seen = [next(drawn) for _ in range(ROUNDS[name])], Counter[str]()
    fleet = Fleet(name, directory, sum(victim in VICTIMS for victim, _ in killed))
    try:
        for number, (victim, where) in enumerate(killed, start=1):
            plan = fleet.plan(luck, victim, where)
            done += f"{number}: {plan}\n"
            planned = fleet.play(plan)
            seen["killed at their moments"] += planned
            if number % TOGETHER == 0 or number == ROUNDS[name]:
                fleet.settle()
                fleet.ask_again()
                fleet.settle()
                seen.update(check(fleet))
        fleet.is_well()
    except BaseException as problem:
        problem.add_note(f"X402_SEED={draw.SEED} {name}, in {directory}:\n{done}")
        raise
    finally:
        fleet.stop()
    return done, seen


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future]]:
    """Of each database that is asked for, at the same time: they are made of waiting."""
    chosen = [item.callspec.params["database"] for item in request.session.items if item.originalname == "test_a_fleet_killed_under_load"]
    with ThreadPoolExecutor(len(chosen)) as pool:
        yield {name: pool.submit(_run, name, tmp_path_factory.mktemp(name)) for name in chosen}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_fleet_killed_under_load(runs: dict[str, Future], database: str) -> None:
    """X402_SEED draws the same again, though not in the same moments; X402_ROUNDS more of it."""
    done, seen = runs[database].result()
    print(f"X402_SEED={draw.SEED} {database}:\n{done}{dict(seen)}")
    # It was about something.
    assert seen["killed at their moments"] and seen["moved"] and seen["served"]
