"""Runs of a load, interleaved, and what is made of them: medians, spreads, ratios.

A subject is what answers requests: a process and a way to load it once. Subjects that are compared run in turns, A B A B …, so that
whatever else the machine does meets all of them. A ratio is taken within each round; the figure is the median of those.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

from . import machine
from .build import tool

Json = dict[str, Any]


class Wrong(Exception):
    """A subject answered something else than it should: its figures would be worth nothing."""


@dataclass(frozen=True)
class Reading:
    """One run. Times in microseconds; `cpu_us` is CPU time of the subject's process per request."""

    requests: int
    seconds: float
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    first_p50_us: float


@dataclass(frozen=True)
class Subject:
    """What is measured: its process, and how it is loaded once (returns what `load` printed)."""

    name: str
    pid: int
    load: Callable[[], Json]

    def read(self, number: int = 0) -> Reading:
        """One run. There is one process, whichever run it is."""
        before = machine.cpu_seconds(self.pid)
        said = self.load()
        used = machine.cpu_seconds(self.pid) - before
        requests = said["requests"]
        if said["wrong"] or not requests:
            raise Wrong(f"{self.name}: {said['wrong']} of {requests} answers were not as expected: {said['statuses']}\n{said.get('example', '')}")
        return Reading(requests, said["seconds"], requests / said["seconds"], used / requests * 1e6,
                       said["whole_us"]["p50"], said["whole_us"]["p99"], said["first_us"]["p50"])


@dataclass(frozen=True)
class Several:
    """The same thing, started more than once: the starts take turns. Where the code of a process comes to lie makes some 7 % of its speed."""

    name: str
    each: Sequence[Subject]

    def read(self, number: int = 0) -> Reading:
        """One run."""
        return self.each[number % len(self.each)].read()


def load(port: int, file: Path, status: int = 200, *, needs: str | None = None, connections: int = 32,
         requests: int | None = None, seconds: float | None = None) -> Json:
    """One run of the load generator, on the driver's core. `requests` more than the file holds go round."""
    argv = [str(tool("load")), "--port", str(port), "--file", str(file), "--status", str(status), "--connections", str(connections)]
    if seconds is not None:
        argv += ["--seconds", str(seconds), "--requests", str(requests or 100_000_000)]
    elif requests is not None:
        argv += ["--requests", str(requests)]
    if needs is not None:
        argv += ["--needs", needs]
    with machine.on(machine.DRIVER):
        done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise Wrong(f"load: {done.stderr.strip()}")
    return {**json.loads(done.stdout), "example": done.stderr}


def interleaved(subjects: Sequence[Subject | Several], rounds: int, warm: int = 1) -> dict[str, list[Reading]]:
    """`rounds` runs of each subject, in turns that begin with another one each time; `warm` rounds before are not counted."""
    readings: dict[str, list[Reading]] = {subject.name: [] for subject in subjects}
    for number in range(warm + rounds):
        start = number % len(subjects)
        for subject in [*subjects[start:], *subjects[:start]]:
            reading = subject.read(number)
            if number >= warm:
                readings[subject.name].append(reading)
    return readings


@dataclass(frozen=True)
class Figure:
    """A value with its spread: the middle half, and the extremes."""

    median: float
    low: float
    high: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Figure:
        """Of at least one value."""
        low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
        return Figure(statistics.median(values), low, high, min(values), max(values))

    def json(self) -> Json:
        """As plain data."""
        return asdict(self)


def ratio(of: Sequence[Reading], to: Sequence[Reading], what: str = "rate") -> Figure:
    """How two subjects compare, round by round."""
    return Figure.of([getattr(one, what) / getattr(other, what) for one, other in zip(of, to, strict=True)])


def summary(readings: dict[str, list[Reading]]) -> Json:
    """The raw medians and spreads of each subject, for the report."""
    return {name: {"runs": len(runs), "requests": sum(run.requests for run in runs),
                   **{what: Figure.of([getattr(run, what) for run in runs]).json()
                      for what in ("rate", "cpu_us", "p50_us", "p99_us", "first_p50_us")}}
            for name, runs in readings.items()}
