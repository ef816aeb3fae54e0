"""Memory: at rest beside a filter that does nothing, and after very many requests."""

from __future__ import annotations

from collections.abc import Callable

from stack.envoy import Envoy
from stack.process import wait_until

from .. import machine
from ..gateways import FILTER, Site, noop
from ..measure import Figure, load
from ..requests import challenge, file, get, payments
from ..rows import Json, Options, Row

MIB = 1 << 20
PATH = "/v1/report"


def run(options: Options) -> tuple[list[Row], Json]:
    """Proportional set sizes, with 1 and 4 workers, of fresh processes in turns."""
    sizes: dict[str, list[float]] = {}
    with Site() as site:
        makes: dict[str, Callable[[int], Envoy]] = {
            "filter": lambda workers: site.envoy("filter", filter_config=FILTER, workers=workers, cores=set(machine.CORES)),
            "no-op": lambda workers: site.envoy("noop", filters=[noop()], workers=workers, cores=set(machine.CORES)),
        }
        for _ in range(5 if options.full else 3):
            for workers in (1, 4):
                for name, make in makes.items():
                    envoy = make(workers)
                    if name == "filter":
                        wait_until(lambda: challenge(envoy.port, PATH), "a challenge")
                    # Each worker has served something, and rests.
                    load(envoy.port, file(get(PATH)), 0, requests=400, connections=64)
                    sizes.setdefault(f"{name}, {workers}", []).append(machine.memory(envoy.process.pid)["pss"] / MIB)
                    envoy.stop()
        flat, raw = _flat(site, options)
    def sets() -> zip[tuple[float, ...]]:
        return zip(*(sizes[key] for key in ("filter, 1", "filter, 4", "no-op, 1", "no-op, 4")), strict=True)

    each = [((f4 - f1) - (n4 - n1)) / 3 for f1, f4, n1, n4 in sets()]
    once = [(f1 - n1) - more for (f1, _, n1, _), more in zip(sets(), each, strict=True)]
    return [
        Row("memory", "memory at rest of each worker, by 1 and 4 workers", "Envoy with a filter that does nothing", Figure.of(each), "MiB more", 3,
            at_most=True),
        Row("memory-once", "memory at rest that does not depend on workers", "the same", Figure.of(once), "MiB more", at_most=True),
        flat,
    ], {"pss_mib": {name: Figure.of(values).json() for name, values in sizes.items()}, "flat": raw}


def _flat(site: Site, options: Options) -> tuple[Row, Json]:
    """A mix of free, unpaid and forged requests; what the process has grown by between a tenth of them and all."""
    total = 1_000_000 if options.full else 100_000
    envoy = site.envoy("flat", filter_config=FILTER)
    asked = wait_until(lambda: challenge(envoy.port, PATH), "a challenge")
    forged = payments(asked, get(PATH, ("payment-signature", "{payment}")), 1, forged=True).read_bytes()[4:]
    mix = file(*[get(PATH), get("/v1/models")] * 9, get(PATH), forged)
    seen = []
    for _ in range(10):
        said = load(envoy.port, mix, 0, requests=total // 10)
        assert not said["wrong"], said
        seen.append(machine.memory(envoy.process.pid)["rss"] / MIB)
    return Row("memory-flat", f"growth over {total:,} requests (free, unpaid, forged)", "a tenth of them", Figure.of([seen[-1] - seen[0]]), "MiB",
               at_most=True, note="" if options.full else "a million in full mode"), {"rss_mib": seen}
