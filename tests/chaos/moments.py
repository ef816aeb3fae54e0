"""Whom to kill, and at what."""

from __future__ import annotations

import random
from typing import Collection, Iterator


def drawn(luck: random.Random, victims: list[str], moments: Collection[str]) -> Iterator[tuple[str, str]]:
    """For ever: of each victim no moment comes again before all have; who is named twice is killed twice as often."""
    left: dict[str, list[str]] = {}
    while True:
        for victim in luck.sample(victims, len(victims)):
            left[victim] = left.get(victim) or luck.sample(list(moments), len(moments))
            yield victim, left[victim].pop()


def turns(luck: random.Random) -> int:
    """How much later than that, in turns of the servers' loop."""
    return luck.choice([0, 0, luck.randrange(1, 40), luck.randrange(40, 400)])
