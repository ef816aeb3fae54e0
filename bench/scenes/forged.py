"""A flood of forged payments: well-formed, right in everything, signed by somebody else."""

from __future__ import annotations

from stack.process import wait_until

from ..gateways import FILTER, Site, direct
from ..measure import Several, Subject, Wrong, interleaved, load, ratio, summary
from ..requests import challenge, facilitator_calls, get, payments
from ..rows import Json, Options, Row

PATH = "/v1/report"


def run(options: Options) -> tuple[list[Row], Json]:
    """Against Envoy's own static answer with the bytes of a challenge, to the same requests."""
    with Site() as site:
        ours = site.envoys("filter", options.starts, filter_config=FILTER)
        for envoy in ours:
            asked = wait_until(lambda envoy=envoy: challenge(envoy.port, PATH), "a challenge")
        static = site.envoys("direct", options.starts, routes=direct(asked.headers, asked.body))
        forged = payments(asked, get(PATH, ("payment-signature", "{payment}")), 5000, forged=True)

        def subject(name: str, envoy: object) -> Subject:
            return Subject(name, envoy.process.pid, lambda: load(envoy.port, forged, 402, needs="payment-required", seconds=options.seconds))

        readings = interleaved([Several(name, [subject(name, envoy) for envoy in envoys])
                                for name, envoys in (("filter", ours), ("direct_response", static))], options.rounds)
        calls = facilitator_calls(site.facilitator)
        if calls["verify"] or calls["settle"]:
            raise Wrong(f"forged payments reached the facilitator: {calls}")
    sent = sum(reading.requests for reading in readings["filter"])
    return [Row("forged-direct", "forged payments for one path, each refused by its signature", "Envoy's `direct_response` to the same requests",
                ratio(readings["filter"], readings["direct_response"]), "×", 0.17, 0.25,
                cpu=ratio(readings["direct_response"], readings["filter"], "cpu_us"),
                note=f"not one call to the facilitator for {sent} forged payments")], {"readings": summary(readings)}
