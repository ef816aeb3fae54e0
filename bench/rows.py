"""A row of the table: what was compared, what is required, what was reached. Plain data that goes to a file and comes back from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .measure import Figure

Json = dict[str, Any]

# The parts of the bench, in the order of the report; each is a module of bench/scenes.
SCENES = ("challenge", "free", "forged", "paid", "stream", "parts", "crossings", "profile", "claims", "routes", "memory", "start")


@dataclass
class Row:
    """One comparison. `goal` and `stretch` are bounds for `reached`, from below unless `at_most`; None where a figure is only shown."""

    id: str
    what: str
    against: str
    reached: Figure
    unit: str = ""
    goal: float | None = None
    stretch: float | None = None
    at_most: bool = False
    # The same comparison in CPU time of the server per request (theirs to ours, so that more is better).
    cpu: Figure | None = None
    note: str = ""
    more: Json = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the required figure was reached."""
        return None if self.goal is None else self._within(self.goal)

    @property
    def stretched(self) -> bool | None:
        """Whether the stretch figure was."""
        return None if self.stretch is None else self._within(self.stretch)

    def _within(self, bound: float) -> bool:
        return self.reached.median <= bound if self.at_most else self.reached.median >= bound

    def json(self) -> Json:
        """As plain data."""
        return asdict(self)

    @staticmethod
    def of(data: Json) -> Row:
        """From plain data."""
        figures = {key: Figure(**data[key]) for key in ("reached", "cpu") if data.get(key)}
        return Row(**{**data, **figures})


@dataclass
class Options:
    """How much of a bench is run: rounds of each subject, seconds of each run, payments of each paid run."""

    full: bool = False
    peers: bool = True

    @property
    def rounds(self) -> int:
        """Runs of each subject."""
        return 15 if self.full else 7

    @property
    def starts(self) -> int:
        """How many processes of a subject take turns."""
        return 3 if self.full else 2

    @property
    def seconds(self) -> float:
        """Of one run."""
        return 2.0 if self.full else 0.7

    @property
    def payments(self) -> int:
        """Of one run."""
        return 4000 if self.full else 1200
