"""docs/PERFORMANCE.md from the results: what was compared, what is required, what was reached, and how to do it again."""

from __future__ import annotations

from stack import tools

from . import bounds, chart, machine
from .measure import Figure
from .rows import SCENES, Json, Row

DOCUMENT = tools.ROOT / "docs" / "PERFORMANCE.md"
PICTURE = tools.ROOT / "docs" / "performance.svg"

INTRODUCTION = """# Performance

What the filter costs, each figure beside something that does the same or nothing at all. Written by `make bench`; do not edit.

Everything is a ratio of runs that took turns in one go (A B A B …): one Envoy worker (`--concurrency 1`) has a core to itself, the load
generator, the backend and the facilitator share another. 32 connections ask as fast as they are answered, HTTP/1.1, no access log. The
filter is set up as in [`envoy/envoy.yaml`](../envoy/envoy.yaml), reader and gate both (the reader is not asked about a GET), unless a row
says otherwise. What the first four parts compare is started two or three times, for two starts of the same Envoy differ by some 7 %. A
figure is the median of the ratios of all rounds; in brackets are the least and the most. *By CPU time* is the same comparison by the CPU
time of the server's process for each request, which does not depend on the load generator: above 1 the filter is cheaper.
"""

REPEAT = """## How to repeat it

```sh
make bench                  # under ten minutes, builds aside; x402-axum alone takes some five to build the first time
make bench FULL=1           # more and longer runs, a million requests for memory: under forty
make bench ONLY="paid"      # one part: challenge free forged paid stream parts crossings profile claims routes memory start
make bench PEERS=no         # without x402-axum and @x402/express
make bench-report           # the cheap subset that CI shows: half a minute, nothing but Envoy and Python
```

Linux with two cores or more, and nothing else that runs. Results are kept in `.local/bench/results.json`, one part at a time, and this page
is written from all of them. Instruction counts want `valgrind`, and where the time goes `perf` (Debian: `valgrind`, `linux-perf`); without them that is left out. Envoy's own
functions have no names in the packaged build.
"""


def write(results: Json) -> None:
    """The page, and its picture."""
    results = {name: results[name] for name in SCENES if name in results}
    rows = [Row.of(row) for part in results.values() for row in part["rows"]]
    text = [INTRODUCTION, _table(rows)]
    if bars := _bars(results):
        PICTURE.write_text(chart.bars("CPU time of the server for a request, in microseconds", bars))
        text.append("![CPU time of the server for a request](performance.svg)\n")
    text += [bounds.text(results), _profile(results), _parts(results), _crossings(results), _raw(results), _about(results), REPEAT]
    DOCUMENT.write_text("\n".join(part for part in text if part))
    tools.say(f"wrote {DOCUMENT.relative_to(tools.ROOT)}")


def number(value: float) -> str:
    """Three figures that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _figure(figure: Figure, unit: str = "") -> str:
    spread = "" if figure.least == figure.most else f" ({number(figure.least)} to {number(figure.most)})"
    return f"{number(figure.median)}{' ' + unit if unit else ''}{spread}"


def _table(rows: list[Row]) -> str:
    lines = ["## The table\n", "| what | against | required | stretch | reached | by CPU time | met |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        sign = "≤" if row.at_most else "≥"
        goal, stretch = ("" if bound is None else f"{sign} {bound:g}" for bound in (row.goal, row.stretch))
        met = "" if row.met is None else "stretch" if row.stretched else "yes" if row.met else "**no**"
        cpu = "" if row.cpu is None else number(row.cpu.median)
        what = f"{row.what}; {row.note}" if row.note else row.what
        lines.append(f"| {what} | {row.against} | {goal} | {stretch} | {_figure(row.reached, row.unit)} | {cpu} | {met} |")
    return "\n".join(lines) + "\n"


def _bars(results: Json) -> list[tuple[str, float]]:
    """What a picture says better: the CPU time of a request, by server."""
    wanted = (("challenge", "challenge: "), ("free", "no price: "), ("forged", "forged: "), ("paid", "paid: "))
    return [(label + name, reading["cpu_us"]["median"]) for part, label in wanted
            for name, reading in results.get(part, {}).get("raw", {}).get("readings", {}).items()]


def _profile(results: Json) -> str:
    found = results.get("profile", {}).get("raw", {}).get("profile")
    if not found:
        return ""
    lines = ["## Where the time goes\n",
             "Microseconds of CPU time of Envoy's process for a request, sampled by `perf`. The module's own code is what V8 made of it; what it "
             "costs to enter and leave it is Envoy's.\n",
             "| a request | all | kernel | Envoy | the module's code | libraries |", "| --- | --- | --- | --- | --- | --- |"]
    for what, times in found.items():
        cells = [number(times[place]) for place in ("all", "kernel", "envoy", "module", "libraries")]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _parts(results: Json) -> str:
    if "parts" not in results:
        return ""
    raw = results["parts"]["raw"]
    lines = ["## The parts of a pre-check\n",
             "Microseconds of the filter's own code, run in a loop inside Envoy's V8 and natively; instructions are the native build's, "
             f"by {raw['callgrind']}.\n", "| part | in V8 | native | instructions |", "| --- | --- | --- | --- |"]
    for part in raw["parts"].values():
        cells = [_figure(Figure(**part[key])) if part[key] else "" for key in ("v8_us", "native_us")]
        cells.append("" if part["instructions"] is None else f"{part['instructions']:,}")
        lines.append(f"| {part['what']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _crossings(results: Json) -> str:
    if "crossings" not in results:
        return ""
    raw = results["crossings"]["raw"]
    lines = ["## What crosses the border\n",
             "Calls of Envoy that one paid request makes (a GET, verify and settle), by Envoy's trace of it, and what each costs in a "
             "loop in a stream. In a request each is dearer: other code has had the caches since.\n",
             "| call | times | µs each |", "| --- | --- | --- |"]
    for name, call in raw["crossings"].items():
        lines.append(f"| `{name}` | {call['times']} | {_figure(Figure(**call['us'])) if call['us'] else ''} |")
    entered = ", ".join(f"`{name}` {times}" for name, times in raw["entries"].items())
    return "\n".join(lines) + f"\n\nAnd of Envoy into the module: {entered}.\n"


def _raw(results: Json) -> str:
    lines = ["## The readings\n",
             "Medians of the runs, with the middle half. `p50` and `p99` are of the time from the request to the end of its answer, under full load.\n",
             "| part | server | runs | requests/s | CPU µs a request | p50 ms | p99 ms |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, part in results.items():
        for server, reading in part["raw"].get("readings", {}).items():
            cells = []
            for key, scale in (("rate", 1), ("cpu_us", 1), ("p50_us", 1000), ("p99_us", 1000)):
                figure = reading[key]
                cells.append(f"{number(figure['median'] / scale)} ({number(figure['low'] / scale)} to {number(figure['high'] / scale)})")
            lines.append(f"| {name} | {server} | {reading['runs']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _about(results: Json) -> str:
    machine_is = machine.description()
    lines = ["## Where and when\n", f"{machine_is['cpu']}, {machine_is['cores']} cores, {machine_is['memory']}, Linux {machine_is['kernel']}.\n",
             "| part | mode | when | busy before (load average) | commit | module | Envoy | rustc | peers |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, part in results.items():
        if "about" not in part:
            continue
        about = part["about"]
        theirs = f"x402-axum {about['x402-axum']}, @x402/express {about['@x402/express']} on Node {about['node']}"
        rustc = " ".join(about["rustc"].split()[1:2])
        cells = ["full" if part["full"] else "quick", part["at"], f"{part['load_before']:.2f}", about["commit"], about["module"], about["envoy"],
                 rustc, theirs if name in ("challenge", "paid") else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
