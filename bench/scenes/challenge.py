"""What it costs to ask for money: a request without a payment, answered 402."""

from __future__ import annotations

from stack.envoy import Envoy
from stack.process import wait_until

from .. import peers
from ..gateways import FILTER, Site, constant, direct, lua
from ..measure import Several, Subject, interleaved, load, ratio, summary
from ..requests import challenge, file, get
from ..rows import Json, Options, Row

PATH = "/v1/report"
OBSERVING = "constant filter, same calls"
BOTH = "reader and gate"


def run(options: Options) -> tuple[list[Row], Json]:
    """The filter against Envoy's own static answer, and against a filter that answers with constant bytes."""
    with Site() as site:
        ours = site.envoys("filter", options.starts, filter_config=FILTER)
        both = site.envoys("both", options.starts, filter_config=FILTER, read_get=True)
        asked = wait_until(lambda: challenge(ours[0].port, PATH), "a challenge")
        static = site.envoys("direct", options.starts, routes=direct(asked.headers, asked.body))
        bytes_only = site.envoys("constant", options.starts, filters=[constant(asked.headers, asked.body)])
        observer = site.envoys("observing", options.starts, filters=[constant(asked.headers, asked.body, observing=True)])
        script = site.envoys("lua", options.starts, filters=[lua(asked.headers, asked.body)])
        for other in (*static, *bytes_only, *observer, *script):
            found = challenge(other.port, PATH)
            assert found is not None and found.body == asked.body and set(found.headers) == set(asked.headers), (found, asked)
        request = file(get(PATH))

        def asking(name: str, pid: int, port: int) -> Subject:
            wait_until(lambda: challenge(port, PATH), f"a challenge of {name}")
            return Subject(name, pid, lambda: load(port, request, 402, needs="payment-required", seconds=options.seconds))

        def subject(name: str, envoys: list[Envoy]) -> Several:
            return Several(name, [asking(name, envoy.process.pid, envoy.port) for envoy in envoys])

        theirs = [asking(peer.name, peer.pid, peer.port) for peer in peers.start(site, options)]

        readings = interleaved([subject("filter", ours), subject(BOTH, both), subject("direct_response", static),
                                subject("constant filter", bytes_only), subject(OBSERVING, observer),
                                 subject("Lua filter", script), *theirs], options.rounds)

    def row(name: str, ours: str, to: str, against: str, goal: float | None, stretch: float | None) -> Row:
        return Row(name, "challenge: an unpaid request, 402 with header and body", against, ratio(readings[ours], readings[to]), "×",
                   goal, stretch, cpu=ratio(readings[to], readings[ours], "cpu_us"))

    size = sum(len(name) + len(value) + 4 for name, value in asked.headers) + len(asked.body)
    rows = [
        row("challenge-direct", "filter", "direct_response", "Envoy's `direct_response` with the same bytes", 0.72, 0.80),
        row("challenge-constant", "filter", "constant filter", "a filter that sends constant bytes", 0.93, 0.97),
        row("challenge-observing", "filter", OBSERVING, "a filter that sends constant bytes after the same calls of Envoy", None, None),
        Row("observing-direct", "that filter itself",
            "Envoy's `direct_response` with the same bytes", ratio(readings[OBSERVING], readings["direct_response"]), "×",
            cpu=ratio(readings["direct_response"], readings[OBSERVING], "cpu_us")),
        Row("observing-constant", "the same", "a filter that sends constant bytes", ratio(readings[OBSERVING], readings["constant filter"]), "×",
            cpu=ratio(readings["constant filter"], readings[OBSERVING], "cpu_us")),
        row("challenge-both-direct", BOTH, "direct_response", "the same, the reader asked as well", None, None),
        row("challenge-lua", "filter", "Lua filter", "Envoy's Lua filter that sends constant bytes", None, None),
    ]
    if peers.EXPRESS in readings:
        rows.append(row("challenge-express", "filter", peers.EXPRESS, "`@x402/express`, one process", 10, None))
    if peers.AXUM in readings:
        rows.append(row("challenge-axum", "filter", peers.AXUM, "x402-axum on one thread", 1, None))
        rows.append(Row("direct-axum", "Envoy's `direct_response` itself: no filter can be faster", "x402-axum on one thread",
                        ratio(readings["direct_response"], readings[peers.AXUM]), "×"))
    return rows, {"readings": summary(readings), "challenge_bytes": size}
