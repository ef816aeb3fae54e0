"""How many routes there are must not matter: 1 against 10,000, by the cost of a challenge."""

from __future__ import annotations

from stack.envoy import Envoy
from stack.process import wait_until

from ..gateways import Site, changed
from ..measure import Subject, interleaved, load, ratio, summary
from ..requests import challenge, file, get
from ..rows import Json, Options, Row

PATH = "/v1/report"
COUNT = 10_000


def _routes(count: int, pattern: str) -> list[Json]:
    """`count` routes, the one that is asked for last of all."""
    priced = {"per_request": "$0.01"}
    return [*({"name": f"r{number}", "match": {"path": pattern.format(number)}, "price": priced} for number in range(count - 1)),
            {"name": "report", "match": {"path": PATH}, "price": priced, "description": "A report", "mime_type": "application/json"}]


def run(options: Options) -> tuple[list[Row], Json]:
    """Exact paths, subtrees and patterns."""
    with Site() as site:
        kinds = {"1 route": (1, ""), "10,000 paths": (COUNT, "/v1/item-{}"), "10,000 subtrees": (COUNT, "/v1/item-{}/*")}
        envoys = {name: site.envoy(f"routes-{index}", filter_config=changed(routes=_routes(*kind)))
                  for index, (name, kind) in enumerate(kinds.items())}
        request = file(get(PATH))

        def asking(name: str, envoy: Envoy) -> Subject:
            wait_until(lambda: challenge(envoy.port, PATH), f"a challenge with {name}")
            return Subject(name, envoy.process.pid, lambda: load(envoy.port, request, 402, seconds=options.seconds))

        readings = interleaved([asking(name, envoy) for name, envoy in envoys.items()], options.rounds)
    return [
        Row("routes", "a challenge with 10,000 routes", "the same with 1", ratio(readings["10,000 paths"], readings["1 route"], "cpu_us"),
            "× its CPU time", 1.2, at_most=True),
        Row("routes-subtrees", "the same, each route a subtree", "the same", ratio(readings["10,000 subtrees"], readings["1 route"], "cpu_us"),
            "× its CPU time", at_most=True),
    ], {"readings": summary(readings)}
