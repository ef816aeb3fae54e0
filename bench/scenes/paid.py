"""A paid request: verify, backend, settle, with a facilitator that answers at once."""

from __future__ import annotations

from typing import Any

from stack.envoy import Envoy
from stack.process import wait_until

from .. import machine, peers
from ..gateways import FILTER, Site, calls, ext_authz
from ..measure import Several, Subject, Wrong, interleaved, load, ratio, summary
from ..requests import challenge, facilitator_calls, file, get, payments
from ..rows import Json, Options, Row

PATH, UPFRONT = "/v1/report", "/v1/upfront"
AUTHZ = "ext_authz, one question"
TWO, ONE = "two calls and no more", "one call and no more"
SAME = "two calls, and all others"


def run(options: Options) -> tuple[list[Row], Json]:
    """Against Envoy's ext_authz that asks the same facilitator once, and against the peers with the same backend and facilitator."""
    with Site() as site:
        starts = options.starts
        ours = site.envoys("filter", starts, filter_config=FILTER)
        asking = site.envoys("authz", starts, filters=[ext_authz()])
        # A gate that does no more than what is inevitable. The reader is not asked about what has no body.
        two = site.envoys("two", starts, filters=[calls("/verify", "/settle")])
        same = site.envoys("same", starts, filters=[calls("/verify", "/settle", others=True)])
        one = site.envoys("one", starts, filters=[calls("/settle")])
        plain = file(get(PATH))

        def paying(name: str, pid: int, port: int, path: str, needs: str | None, count: int, header: str = "payment-signature") -> Subject:
            asked = wait_until(lambda: challenge(port, path), f"a challenge of {name}")

            def once() -> Any:
                # Signed before the clock starts, each good for one request.
                prepared = payments(asked, get(path, (header, "{payment}")), count)
                before = facilitator_calls(site.facilitator)
                try:
                    said = load(port, prepared, 200, needs=needs)
                finally:
                    prepared.unlink()
                after = facilitator_calls(site.facilitator)
                calls = tuple(after[what] - before[what] for what in ("verify", "settle"))
                # With `upfront` the settlement verifies.
                if calls != ((0 if path == UPFRONT else count), count):
                    raise Wrong(f"{name}: for {count} payments the facilitator was asked to verify and to settle {calls} times")
                return said
            return Subject(name, pid, once)

        count = options.payments

        def filtering(name: str, path: str) -> Several:
            return Several(name, [paying(name, envoy.process.pid, envoy.port, path, "payment-response", count) for envoy in ours])

        def carrying(envoy: Envoy) -> Subject:
            """The same payments, to a filter that has no use for them."""
            def once() -> Any:
                prepared = payments(offered, get(PATH, ("payment-signature", "{payment}")), count)
                try:
                    return load(envoy.port, prepared, 200)
                finally:
                    prepared.unlink()
            return Subject("", envoy.process.pid, once)

        def unpaid(envoy: Envoy) -> Subject:
            return Subject("", envoy.process.pid, lambda: load(envoy.port, plain, requests=2 * count))

        subjects: list[Subject | Several] = [
            filtering("filter", PATH), filtering("filter, upfront", UPFRONT),
            *(Several(name, [unpaid(envoy) for envoy in envoys]) for name, envoys in ((AUTHZ, asking), (TWO, two), (ONE, one))),
        ]
        offered = wait_until(lambda: challenge(ours[0].port, PATH), "a challenge of the filter")
        subjects.append(Several(SAME, [carrying(envoy) for envoy in same]))
        for peer in peers.start(site, options):
            subjects.append(paying(peer.name, peer.pid, peer.port, PATH, "payment-response", max(200, count // peer.slower)))
        readings = interleaved(subjects, options.rounds)

    def row(name: str, ours: str, to: str, what: str, against: str, goal: float, stretch: float | None = None) -> Row:
        return Row(name, what, against, ratio(readings[ours], readings[to]), "×", goal, stretch,
                   cpu=ratio(readings[to], readings[ours], "cpu_us"))

    rows = [row("paid-authz", "filter", AUTHZ, "a paid request, verify and settle", "Envoy's `ext_authz` asking that facilitator once", 0.40, 0.55),
            row("paid-upfront-authz", "filter, upfront", AUTHZ, "the same with `flow: upfront`: settled before the backend is asked, and not verified apart", "the same", 0.55)]
    least = "a WebAssembly filter that makes the same calls and does nothing else"
    rows += [Row("paid-least", "a paid request, verify and settle", least, ratio(readings["filter"], readings[TWO]), "×",
                 cpu=ratio(readings[TWO], readings["filter"], "cpu_us")),
             Row("least-authz", "that filter itself", "Envoy's `ext_authz` asking that facilitator once",
                 ratio(readings[TWO], readings[AUTHZ]), "×", cpu=ratio(readings[AUTHZ], readings[TWO], "cpu_us")),
             Row("paid-same", "a paid request, verify and settle", "one that makes all the calls of Envoy that it makes, and decides nothing",
                 ratio(readings["filter"], readings[SAME]), "×", cpu=ratio(readings[SAME], readings["filter"], "cpu_us")),
             Row("same-authz", "that filter itself", "Envoy's `ext_authz` asking that facilitator once",
                 ratio(readings[SAME], readings[AUTHZ]), "×", cpu=ratio(readings[AUTHZ], readings[SAME], "cpu_us")),
             Row("upfront-least", "a paid request with `flow: upfront`", "the same with one call",
                 ratio(readings["filter, upfront"], readings[ONE]), "×", cpu=ratio(readings[ONE], readings["filter, upfront"], "cpu_us")),
             Row("least-upfront-authz", "that filter itself", "Envoy's `ext_authz` asking that facilitator once",
                 ratio(readings[ONE], readings[AUTHZ]), "×", cpu=ratio(readings[AUTHZ], readings[ONE], "cpu_us"))]
    whole = "a paid request, end to end, same backend and facilitator"
    if peers.AXUM in readings:
        rows.append(row("paid-axum", "filter", peers.AXUM, whole, "x402-axum on one thread, which leaves the signature to the facilitator", 1.2, 1.5))
        rows.append(Row("authz-axum", "Envoy's `ext_authz` itself, with its one question", "the same", ratio(readings[AUTHZ], readings[peers.AXUM]), "×"))
    if peers.EXPRESS in readings:
        rows.append(row("paid-express", "filter", peers.EXPRESS, whole, "`@x402/express`, one process", 5, 10))
    return rows, {"readings": summary(readings), "core": sorted(machine.SERVER)}
