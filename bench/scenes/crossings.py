"""What crosses the border between Envoy and the module for one paid request, and what a crossing costs."""

from __future__ import annotations

import collections
import re

from stack.envoy import STRING, wasm_filter
from stack.process import wait_until

from .. import build
from ..gateways import FILTER, Site
from ..measure import Figure, load
from ..requests import challenge, get, payments
from ..rows import Json, Options, Row
from .parts import PATH, ask, given, slope

# Those whose cost can be had in a loop; how often in one callback.
COSTED = {"proxy_get_current_time_nanoseconds": 4000, "proxy_get_header_map_pairs": 1000, "proxy_get_header_map_value": 2000,
          "proxy_replace_header_map_value": 100, "proxy_set_property": 1000, "proxy_get_property": 2000, "proxy_get_shared_data": 2000,
          "proxy_set_shared_data": 2000, "proxy_increment_metric": 4000}


def run(options: Options) -> tuple[list[Row], Json]:
    """Counted by Envoy's own trace of one request, and timed in a loop inside a stream."""
    counts, entries = _counted()
    costs = _costs(options)
    known = sum(counts[name] * costs[name].median for name in counts if name in costs)
    asked = sum(counts.values())
    return [
        Row("crossings", "calls of Envoy that a paid request makes, and its own callbacks", "", Figure.of([asked]), "calls", at_most=True,
            note=f"and {sum(entries.values())} of Envoy's into the module"),
        Row("crossings-cost", f"the {sum(counts[name] for name in counts if name in costs)} of them whose cost is known", "",
            Figure.of([known]), "µs together, in a loop", at_most=True),
    ], {"crossings": {name: {"times": times, "us": costs[name].json() if name in costs else None} for name, times in counts.most_common()},
        "entries": dict(entries.most_common())}


def _counted() -> tuple[collections.Counter[str], collections.Counter[str]]:
    """How often each of the host's functions is called for one paid request, and each of the module's."""
    with Site() as site:
        envoy = site.envoy("filter", filter_config=FILTER)
        asked = wait_until(lambda: challenge(envoy.port, PATH), "a challenge")
        request = get(PATH, ("payment-signature", "{payment}"))
        # Metrics are defined when they are first counted.
        load(envoy.port, payments(asked, request, 50), 200, needs="payment-response")
        one = payments(asked, request, 1)
        envoy.admin("/logging?wasm=trace", "POST")
        before = len(envoy.log())
        load(envoy.port, one, 200, needs="payment-response")
        wait_until(lambda: "proxy_on_delete" in envoy.log()[before:], "the end of the request")
        said = envoy.log()[before:]
        envoy.admin("/logging?wasm=info", "POST")
    # The tick has chores of its own, which have nothing to do with the request.
    said = re.sub(r"proxy_on_tick\(.*?proxy_on_tick return", "", said, flags=re.S)
    calls = collections.Counter(re.findall(r"vm->host\] env\.(proxy_\w+)\(", said))
    entries = collections.Counter(re.findall(r"host->vm\] (proxy_\w+)\(", said))
    return calls, entries


def _costs(options: Options) -> dict[str, Figure]:
    with Site() as site:
        text = given(site)
        filter_ = wasm_filter("parts", build.HOME / "x402_bench_parts.wasm", vm_id="parts")
        filter_["typed_config"]["config"]["configuration"] = {"@type": STRING, "value": text}
        envoy = site.envoy("crossings", filters=[filter_])
        for name, times in COSTED.items():
            wait_until(lambda name=name, times=times: ask(envoy.port, name, times) > 0, f"{name} runs in V8")
        return {name: Figure.of([slope(lambda part, number: ask(envoy.port, part, number), name, times) for _ in range(options.rounds)])
                for name, times in COSTED.items()}
