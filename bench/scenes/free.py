"""What the filter costs a request that it lets through for nothing."""

from __future__ import annotations

from stack.envoy import Envoy
from stack.process import wait_until

from ..gateways import FILTER, Site, looking, noop
from ..measure import Several, Subject, interleaved, load, ratio, summary
from ..requests import challenge, file, get
from ..rows import Json, Options, Row
from .challenge import BOTH

PATH = "/v1/models"
LOOKING = "no-op filter that fetches the headers"


def run(options: Options) -> tuple[list[Row], Json]:
    """Through the filter, through filters that do nothing, and through Envoy alone."""
    with Site() as site:
        starts = options.starts
        ours = site.envoys("filter", starts, filter_config=FILTER)
        both = site.envoys("both", starts, filter_config=FILTER, read_get=True)
        for envoy in (*ours, *both):
            wait_until(lambda: challenge(envoy.port, "/v1/report"), "a challenge")
        others = {"filter": ours, BOTH: both, "no-op filter": site.envoys("noop", starts, filters=[noop()]),
                  LOOKING: site.envoys("looking", starts, filters=[looking()]),
                  "two no-op filters": site.envoys("noops", starts, filters=[noop("one"), noop("two")]),
                  "Envoy alone": site.envoys("plain", starts)}
        request = file(get(PATH))
        def subject(envoy: Envoy) -> Subject:
            return Subject("", envoy.process.pid, lambda: load(envoy.port, request, seconds=options.seconds))

        readings = interleaved([Several(name, [subject(envoy) for envoy in envoys]) for name, envoys in others.items()], options.rounds)

    def row(name: str, ours: str, to: str, against: str, goal: float | None = None, note: str = "") -> Row:
        return Row(name, "a request without a price", against, ratio(readings[ours], readings[to]), "×", goal,
                   cpu=ratio(readings[to], readings[ours], "cpu_us"), note=note)

    return [
        row("free-noop", "filter", "no-op filter", "a filter that does nothing", 0.97),
        row("free-looking", "filter", LOOKING, "one that fetches the headers, looks at the clock and does nothing"),
        Row("looking-noop", "that filter itself", "a filter that does nothing",
            ratio(readings[LOOKING], readings["no-op filter"]), "×", cpu=ratio(readings["no-op filter"], readings[LOOKING], "cpu_us")),
        row("free-two-noops", BOTH, "two no-op filters", "two of them, the reader asked as well"),
        row("free-plain", "filter", "Envoy alone", "Envoy without a filter"),
    ], {"readings": summary(readings)}
