"""All of the benches, or some: measures, keeps the results in `.local/bench/results.json`, and says what was found.

    python3 -m bench [--full] [--only NAME …] [--no-peers] | --report
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import shutil
import sys
import time
from collections.abc import Callable

from stack import tools

from . import build, machine, peers, report
from .rows import SCENES, Json, Options, Row

RESULTS = build.HOME / "results.json"
# Those that compare with what takes minutes to build.
WITH_PEERS = {"challenge", "paid"}


def show(row: Row) -> None:
    """One line."""
    verdict = {True: "met", False: "NOT met", None: ""}[row.met]
    stretch = "" if row.stretch is None else f", stretch {row.stretch:g}"
    bound = "" if row.goal is None else f" ({'≤' if row.at_most else '≥'} {row.goal:g}{stretch})"
    cpu = "" if row.cpu is None else f"; by CPU time {row.cpu.median:.3g}"
    figure = f"{row.reached.median:.3g} {row.unit} [{row.reached.least:.3g} .. {row.reached.most:.3g}]"
    print(f"{row.what} / {row.against}: {figure}{bound}{cpu} {verdict} {row.note}", flush=True)


def measure(name: str, run: Callable[[Options], tuple[list[Row], Json]], options: Options) -> None:
    """Runs a scene and keeps what is of use later: rows, raw readings, when, and what else the machine did."""
    tools.say(f"bench: {name}")
    began, busy = time.monotonic(), machine.busy()
    rows, raw = run(options)
    for row in rows:
        show(row)
    found = {"rows": [row.json() for row in rows], "raw": raw, "seconds": round(time.monotonic() - began), "full": options.full,
             "load_before": busy, "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "about": machine.versions(build.MODULE)}
    # What was measured before stays: rows can be measured one by one.
    kept: Json = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**kept, name: found}, indent=1))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python3 -m bench", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--full", action="store_true", help="more rounds, longer runs, a million requests for memory: under 40 minutes")
    parser.add_argument("--only", nargs="+", choices=SCENES, metavar="NAME", help=", ".join(SCENES))
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page from the results that are kept")
    parser.add_argument("--no-peers", action="store_true", help="leave x402-axum and @x402/express out")
    options = parser.parse_args()
    if options.report:
        report.write(json.loads(RESULTS.read_text()))
        return 0
    names = list(options.only or SCENES)
    # All at once: a mistake in the last must not show after half an hour.
    scenes = {name: importlib.import_module(f"bench.scenes.{name}").run for name in names}
    with_peers = not options.no_peers and bool(WITH_PEERS & set(names))
    try:
        build.module()
        tools.ensure_envoy()
        build.build_tools()
        build.filters()
        if {"parts", "claims", "crossings"} & set(names):
            build.parts()
        if with_peers:
            peers.prepare()
    except tools.Missing as problem:
        tools.say(str(problem))
        return 1
    try:
        for name, run in scenes.items():
            measure(name, run, Options(options.full, with_peers))
    except KeyboardInterrupt:
        tools.say("stopped; what was measured before is kept")
        return 130
    finally:
        shutil.rmtree(build.HOME / "requests", ignore_errors=True)
    report.write(json.loads(RESULTS.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
