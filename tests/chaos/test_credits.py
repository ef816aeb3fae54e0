"""The ledger and Envoy are killed at random points under load: nothing that was paid is lost, and nothing is charged or credited twice."""

from __future__ import annotations

import os
import random
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import pytest

from . import draw, moments
from .credit_sums import check
from .credits import MOMENTS, House

# Of each database.
ROUNDS = int(os.environ.get("X402_ROUNDS") or 25)
# So many rounds, and then a look at all the books.
TOGETHER = 5


def _run(name: str, directory: Path) -> tuple[str, Counter[str]]:
    """All rounds on one database: what was done, and what was seen."""
    luck, done = random.Random(f"{draw.SEED} {name}"), ""
    # An Envoy takes longer to start.
    killed, seen = moments.drawn(luck, ["ledger", "ledger", "envoy"], MOMENTS), Counter()
    house = House(name, directory)
    try:
        for number in range(1, ROUNDS + 1):
            plan = house.plan(luck, *next(killed))
            done += f"{number}: {plan}\n"
            planned = house.play(plan)
            if number % TOGETHER == 0 or number == ROUNDS:
                house.settle()
                seen.update(check(house) - seen)
            seen["killed at their moments"] += planned
    except BaseException as problem:
        problem.add_note(f"X402_SEED={draw.SEED} {name}, in {directory}:\n{done}")
        raise
    finally:
        house.stop()
    return done, seen


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future]]:
    """Of each database that is asked for, at the same time: they are made of waiting."""
    chosen = [item.callspec.params["database"] for item in request.session.items if item.originalname == "test_killed_under_load"]
    with ThreadPoolExecutor(len(chosen)) as pool:
        yield {name: pool.submit(_run, name, tmp_path_factory.mktemp(name)) for name in chosen}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_killed_under_load(runs: dict[str, Future], database: str) -> None:
    """X402_SEED draws the same again, though not in the same moments; X402_ROUNDS more of it."""
    done, seen = runs[database].result()
    print(f"X402_SEED={draw.SEED} {database}:\n{done}{dict(seen)}")
    # It was about something.
    assert seen["killed at their moments"] and seen["topped_up"] and seen["charged"]
