"""Where the time of a request goes: the kernel, Envoy, the module's own code. Sampled by `perf`; without it there is nothing to say."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from stack.process import wait_until

from .. import build, machine
from ..gateways import FILTER, Site, calls, constant, direct, ext_authz, noop
from ..measure import load
from ..requests import challenge, file, get, payments
from ..rows import Json, Options, Row

PATH, FREE = "/v1/report", "/v1/models"
# Of what `perf` calls a part of the process, by how its name begins.
PLACES = {"[kernel": "kernel", "[guest": "kernel", "[JIT]": "module", "envoy": "envoy"}
HERTZ = 4999


def run(options: Options) -> tuple[list[Row], Json]:
    """No rows: a table of its own, in microseconds of CPU time a request."""
    if shutil.which("perf") is None:
        return [], {"note": "perf is not installed"}
    found: dict[str, Json] = {}
    with Site() as site:
        ours = site.envoy("filter", filter_config=FILTER)
        asked = wait_until(lambda: challenge(ours.port, PATH), "a challenge")
        sent = get(PATH, ("payment-signature", "{payment}"))
        plain, unpriced = file(get(PATH)), file(get(FREE))
        seconds, paid = 2 * options.seconds, 2 * options.payments

        def asking(requests: Any, status: int) -> Callable[[int], Json]:
            return lambda port: load(port, requests, status, seconds=seconds)

        refused, served = asking(plain, 402), asking(unpriced, 200)
        subjects = {
            "a challenge, by Envoy's `direct_response`": (site.envoy("direct", routes=direct(asked.headers, asked.body)), refused),
            "a challenge, by a filter that sends constant bytes": (site.envoy("constant", filters=[constant(asked.headers, asked.body)]), refused),
            "a challenge": (ours, refused),
            "no price, through a filter that does nothing": (site.envoy("noop", filters=[noop()]), served),
            "no price": (ours, served),
            "a forged payment": (ours, asking(payments(asked, sent, 5000, forged=True), 402)),
            "Envoy's `ext_authz`, one question": (site.envoy("authz", filters=[ext_authz()]), lambda port: load(port, plain, requests=2 * paid)),
            "two calls and no more": (site.envoy("two", filters=[calls("/verify", "/settle")]),
                                      lambda port: load(port, plain, requests=2 * paid)),
            "two calls, and all others": (site.envoy("same", filters=[calls("/verify", "/settle", others=True)]),
                                          lambda port: load(port, payments(asked, sent, paid), 200)),
            "a paid request": (ours, lambda port: load(port, payments(asked, sent, paid), 200, needs="payment-response")),
        }
        for what, (envoy, once) in subjects.items():
            found[what] = _sampled(envoy.process.pid, lambda: once(envoy.port))
    return [], {"profile": found}


def _sampled(pid: int, once: Callable[[], Json]) -> Json:
    """One run under `perf`: by place, and all of it."""
    kept = build.HOME / "perf.data"
    once()
    # Its own clock, where a virtual machine has no counters.
    perf = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-o", str(kept), "-p", str(pid)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(kept.exists, "perf samples")
        before = machine.cpu_seconds(pid)
        said = once()
        used = (machine.cpu_seconds(pid) - before) / said["requests"] * 1e6
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait(timeout=30)
    report = machine.output(["perf", "report", "-i", str(kept), "--sort", "dso", "--stdio"])
    kept.unlink()
    shares: dict[str, float] = dict.fromkeys(("kernel", "envoy", "module", "libraries"), 0.0)
    for share, name in re.findall(r"^\s*([\d.]+)%\s+(\S.*?)\s*$", report, re.MULTILINE):
        place = next((place for begins, place in PLACES.items() if name.startswith(begins)), "libraries")
        shares[place] += float(share) / 100
    return {"all": used, **{place: share * used for place, share in shares.items()}}
