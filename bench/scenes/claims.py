"""Claims: what they cost when a million are alive.

The million are put into Envoy's shared data by the filter's own code (bench/parts), under the filter's vm_id, so that its claims meet them.
"""

from __future__ import annotations

import copy
from typing import Any

from stack.envoy import STRING, VM_ID, Envoy, managers, wasm_filter
from stack.process import free_port, wait_until

from .. import build, machine
from ..gateways import Site, changed
from ..measure import Figure, Subject, interleaved, load, ratio, summary
from ..requests import challenge, get, payments
from ..rows import Json, Options, Row
from .parts import ask, given, slope

PATH = "/v1/report"
ALIVE, STEP = 1_000_000, 20_000
# Room for all of them: buckets fill unevenly.
CONFIG = changed(replay={"max_claims": 1_500_000})


def run(options: Options) -> tuple[list[Row], Json]:
    """Paid requests and single claims, with few claims alive and with a million; and what one takes of memory."""
    with Site() as site:
        input_text = given(site, CONFIG)
        few, many = (_envoy(site, name, input_text) for name in ("few", "many"))
        before = machine.memory(many.process.pid)["rss"]
        for _ in range(ALIVE // STEP):
            ask(many.ports["parts"], "claim", STEP)
        size = (machine.memory(many.process.pid)["rss"] - before) / ALIVE

        def paying(name: str, envoy: Envoy) -> Subject:
            asked = wait_until(lambda: challenge(envoy.port, PATH), "a challenge")

            def once() -> Any:
                prepared = payments(asked, get(PATH, ("payment-signature", "{payment}")), options.payments)
                try:
                    return load(envoy.port, prepared, needs="payment-response")
                finally:
                    prepared.unlink()
            return Subject(name, envoy.process.pid, once)

        readings = interleaved([paying("few claims", few), paying("a million claims", many)], options.rounds)
        single: dict[str, list[float]] = {"few claims": [], "a million claims": []}
        for _ in range(options.rounds):
            for name, envoy in (("few claims", few), ("a million claims", many)):
                single[name].append(slope(lambda part, times, port=envoy.ports["parts"]: ask(port, part, times), "claim", 1000))
    cost = Figure.of([more / less for more, less in zip(single["a million claims"], single["few claims"], strict=True)])
    return [
        Row("claims-cost", "a paid request with 1,000,000 claims alive", "the same with none but its own", ratio(readings["a million claims"],
            readings["few claims"], "cpu_us"), "× its CPU time", 1.3, at_most=True),
        Row("claims-single", "one claim among 1,000,000, in V8", "one of a few", cost, "× its time", at_most=True),
        Row("claims-bytes", "memory of a claim, by the process's resident size", "", Figure.of([size]), "bytes", 100, at_most=True),
    ], {"readings": summary(readings), "claim_us": {name: Figure.of(values).json() for name, values in single.items()}}


def _envoy(site: Site, name: str, input_text: str) -> Envoy:
    """An Envoy with the filter, and the parts on another listener."""
    def with_parts(config: Json) -> None:
        listener = copy.deepcopy(config["static_resources"]["listeners"][0])
        listener["name"] = "parts"
        listener["address"]["socket_address"]["port_value"] = free_port()
        parts = wasm_filter("parts", build.HOME / "x402_bench_parts.wasm", vm_id=VM_ID)
        parts["typed_config"]["config"]["configuration"] = {"@type": STRING, "value": input_text}
        for manager in managers({"static_resources": {"listeners": [listener]}}):
            manager["http_filters"] = [parts, manager["http_filters"][-1]]
        config["static_resources"]["listeners"].append(listener)

    envoy = site.envoy(name, filter_config=CONFIG, edit=with_parts)
    return envoy
