"""The parts of a payment's pre-check: in Envoy's V8, natively, and in instructions.

A part is run N and 2 N times in one callback; its cost is the slope, so that what surrounds it is left out.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stack.envoy import STRING, wasm_filter
from stack.process import wait_until

from .. import build, machine
from ..gateways import FILTER, Site
from ..measure import Figure
from ..requests import challenge, payments
from ..rows import Json, Options, Row

PATH = "/v1/report"
# How often each part is run in one callback: some ten milliseconds of it.
TIMES = {"keccak": 20_000, "decode": 2000, "domain": 2000, "digest": 4000, "recover": 50, "known": 50, "pre_check": 50, "claim": 3000}
WHAT = {"keccak": "keccak of 64 bytes", "decode": "the payment header: base64, JSON, checks", "domain": "a domain separator",
        "digest": "EIP-712, domain cached", "recover": "recover the signer", "known": "the same, of a payer seen before",
        "pre_check": "the whole pre-check, of a new payer",
        "claim": "a claim (shared data; natively a map)", "libsecp256k1": "libsecp256k1 in C: recover"}
Run = Callable[[str, int], float]


def run(options: Options) -> tuple[list[Row], Json]:
    """Each part in V8 and natively, in turns; recovery against libsecp256k1."""
    with Site() as site:
        text = given(site)
        kept = Path(tempfile.mkstemp(prefix="parts-", dir=build.HOME / "requests")[1])
        kept.write_text(text)
        filter_ = wasm_filter("parts", build.HOME / "x402_bench_parts.wasm", vm_id="parts")
        filter_["typed_config"]["config"]["configuration"] = {"@type": STRING, "value": text}
        envoy = site.envoy("parts", filters=[filter_])
        in_v8: Run = lambda part, times: ask(envoy.port, part, times)  # noqa: E731
        for part, times in TIMES.items():
            # V8 replaces its quick first code by optimised code while a module runs.
            wait_until(lambda: in_v8(part, times) > 0, f"{part} runs in V8")
            for _ in range(10):
                in_v8(part, times)
        v8: dict[str, list[float]] = {part: [] for part in TIMES}
        native: dict[str, list[float]] = {part: [] for part in [*TIMES, "libsecp256k1"]}
        for _ in range(options.rounds):
            for part, times in TIMES.items():
                v8[part].append(slope(in_v8, part, times))
                native[part].append(slope(lambda part, times: _native(kept, part, times), part, times * 2))
            native["libsecp256k1"].append(slope(lambda part, times: _native(kept, part, times), "libsecp256k1", 400))
    counts = _instructions(kept)
    table = {part: {"what": WHAT[part], "v8_us": Figure.of(v8[part]).json() if part in v8 else None,
                    "native_us": Figure.of(native[part]).json(), "instructions": counts.get(part)} for part in native}
    against, again = ([ours / theirs for ours, theirs in zip(v8[part], native["libsecp256k1"], strict=True)] for part in ("recover", "known"))
    return [
        Row("recover", "recovering a signature in V8", "libsecp256k1's recovery, natively", Figure.of(against), "× its time", 4.0, 2.5, at_most=True),
        Row("recover-seen", "the same for a payer seen before", "the same", Figure.of(again), "× its time", None, 1.7, at_most=True),
        Row("pre-check", "the whole pre-check in V8, signature included", "the same",
            Figure.of([ours / theirs for ours, theirs in zip(v8["pre_check"], native["libsecp256k1"], strict=True)]), "× its time", at_most=True),
    ], {"parts": table, "callgrind": counts.get("note", "valgrind --tool=callgrind")}


def given(site: Site, config: Json = FILTER) -> str:
    """A good payment, and what it is for."""
    envoy = site.envoy("filter", filter_config=config)
    asked = wait_until(lambda: challenge(envoy.port, PATH), "a challenge")
    made = payments(asked, b"{payment}", 1)
    return json.dumps({"config": config, "route": "report", "payment": made.read_bytes()[4:].decode(),
                                "resource": asked.required["resource"]["url"], "now": int(time.time())})


def ask(port: int, part: str, times: int) -> float:
    """Runs a part in Envoy; in microseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/", headers={"x-part": part, "x-times": str(times)})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise ValueError(f"{part}: {answer.status}")
        return int(text) / 1000
    finally:
        connection.close()


def _native(kept: Path, part: str, times: int) -> float:
    """Runs a part natively, on the core that Envoy has; in microseconds."""
    with machine.on(machine.SERVER):
        return int(machine.output([str(build.tool("native")), str(kept), part, str(times)])) / 1000


def slope(run_once: Run, part: str, times: int) -> float:
    """Of the time over the number, the best of three: what interrupts it can only add."""
    once, twice = (min(run_once(part, number) for _ in range(3)) for number in (times, 2 * times))
    return (twice - once) / times


def _instructions(kept: Path) -> Json:
    """Instructions of each part natively, counted by callgrind."""
    if shutil.which("valgrind") is None:
        return {"note": "no instruction counts: valgrind is missing (apt-get install valgrind)"}
    found: Json = {}
    for part in [*TIMES, "libsecp256k1"]:
        few, many = (_count(kept, part, number) for number in (10, 110))
        if few is None or many is None:
            return {"note": "no instruction counts: callgrind could not run the program on this processor"}
        found[part] = round(statistics.fmean([(many - few) / 100]))
    return found


def _count(kept: Path, part: str, times: int) -> int | None:
    done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", str(build.tool("native")), str(kept), part, str(times)],
                          capture_output=True, text=True)
    counted = re.search(r"Collected : (\d+)", done.stderr)
    return int(counted.group(1)) if counted and done.returncode == 0 else None
