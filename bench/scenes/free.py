"""What the filter costs a request that it lets through for nothing."""

from __future__ import annotations

from stack.process import wait_until

from ..gateways import FILTER, Site, looking, noop
from ..measure import Subject, interleaved, load, ratio, summary
from ..requests import challenge, file, get
from ..rows import Json, Options, Row
from .challenge import BOTH

PATH = "/v1/models"
LOOKING = "no-op filter that fetches the headers"


def run(options: Options) -> tuple[list[Row], Json]:
    """Through the filter, through filters that do nothing, and through Envoy alone."""
    with Site() as site:
        ours = site.envoy("filter", filter_config=FILTER)
        both = site.envoy("both", filter_config=FILTER, read_get=True)
        for envoy in (ours, both):
            wait_until(lambda: challenge(envoy.port, "/v1/report"), "a challenge")
        others = {"filter": ours, BOTH: both, "no-op filter": site.envoy("noop", filters=[noop()]),
                  LOOKING: site.envoy("looking", filters=[looking()]),
                  "two no-op filters": site.envoy("noops", filters=[noop("one"), noop("two")]), "Envoy alone": site.envoy("plain")}
        request = file(get(PATH))
        readings = interleaved([Subject(name, envoy.process.pid, lambda envoy=envoy: load(envoy.port, request, seconds=options.seconds))
                                for name, envoy in others.items()], options.rounds)

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
