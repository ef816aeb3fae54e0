"""The randomised run's luck: what each client buys, how, and what meets it, drawn from one seed."""

from __future__ import annotations

import os
import random
import secrets
from dataclasses import dataclass
from typing import Any

from .faults import named
from .play import Script
from .rows import FAULTS, after, broke
from .stage import FLOWS, IMPATIENT, Flow

Json = dict[str, Any]

SEED = int(os.environ.get("X402_SEED") or secrets.randbits(32))
REQUESTS = int(os.environ.get("X402_REQUESTS") or 150)

# At what a client goes away, if it does: as soon as it has sent its request, or at the first sign of one of these.
MOMENTS = ("sent", "verify", "backend", "settle", "head", "part")


BEFORE, AFTER = list(FAULTS.values()), [after(make) for make in FAULTS.values()]
# Each with how likely it is. A name for those after which nothing was paid, or all of it.
BACKEND: list[tuple[int, Json]] = [
    (60, {}),
    (8, {"status": 500}),
    (4, {"status": 404}),
    (8, {"reset": "before"}),
    (8, {"half": True}),
    (4, {"hold": True}),
]


@dataclass(frozen=True)
class Try:
    """One request: what the backend does with it, and when its client goes away (`None`: it stays)."""

    does: Json
    headers: list[tuple[str, str]]
    leaves: str | None
    protocol: str


@dataclass(frozen=True)
class Plan:
    """One client with its payment: what /verify and /settle answer, and its tries. `twin`: it sends the first one twice at once."""

    flow: Flow
    verify: Script
    settle: Script
    tries: list[Try]
    twin: bool


def plans(luck: random.Random, count: int) -> list[Plan]:
    """What so many clients do."""
    return [_plan(luck) for _ in range(count)]


def outages(luck: random.Random, count: int) -> dict[int, tuple[str, bool]]:
    """Before which client's turn the facilitator or the backend goes down (`True`), or comes back."""
    found = {}
    for start in range(10, count - 20, 40):
        begins = start + luck.randrange(20)
        who = luck.choice(["facilitator", "backend"])
        found[begins] = (who, True)
        found[begins + luck.randrange(2, 12)] = (who, False)
    return found


def _plan(luck: random.Random) -> Plan:
    flow = luck.choice(list(FLOWS.values()))
    verify = [luck.choice([*BEFORE, *AFTER, broke]) for _ in range(_few(luck))]
    settle = [luck.choice([*BEFORE, *AFTER, *AFTER, named, broke]) for _ in range(_few(luck))]
    return Plan(flow, verify, settle, [_try(luck, flow) for _ in range(luck.randrange(1, 4))], luck.random() < 0.15)


def _few(luck: random.Random) -> int:
    return luck.choices([0, 1, 2, 3], [50, 25, 15, 10])[0]


def _try(luck: random.Random, flow: Flow) -> Try:
    [drawn] = luck.choices([does for _, does in BACKEND], [weight for weight, _ in BACKEND])
    does = dict(drawn)
    if does.pop("half", False):
        does |= {"parts": flow.parts[:1], "breaks": True}
    headers = [IMPATIENT] if does.get("hold") else []
    leaves = luck.choice(MOMENTS) if luck.random() < 0.35 else None
    return Try(does, headers, leaves, luck.choice(["h1", "h2"]))
