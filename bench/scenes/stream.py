"""Streams of server-sent events, metered: 200 chunks as fast as they come, and the wait for the first one.

A stream's throughput is streams per second, payment and all. What a chunk alone costs is the difference between long and short streams.
"""

from __future__ import annotations

from typing import Any

from stack.process import wait_until

from ..gateways import NETWORK, Site, changed, noop, reading
from ..measure import Figure, Subject, interleaved, load, ratio, summary
from ..requests import challenge, file, payments, post
from ..rows import Json, Options, Row

BODY: Json = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 500, "stream": True,
              "stream_options": {"include_usage": True}}
LONG, SHORT, OVERLAP, FREE = "/sse", "/sse-short", "/sse-overlap", "/sse-free"
CHUNKS, FEW = 200, 20
PRICE: Json = {"per_token": {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}}
ACCEPT: Json = {"scheme": "upto", "network": NETWORK, "asset": "USDC", "transfer": "permit2", "max_timeout": "300s"}


def _route(path: str, **more: Any) -> Json:
    return {"name": path[1:], "match": {"methods": ["POST"], "path": path}, "price": PRICE, "accept": [ACCEPT], "flow": "metered", **more}


CONFIG = changed(routes=[_route(LONG), _route(SHORT), _route(OVERLAP, verify="overlap"),
                         {"name": "free", "match": {"path": FREE}, "price": "free"}])


def _paying(port: int, path: str, count: int, connections: int) -> Any:
    asked = wait_until(lambda: challenge(port, path, "POST", BODY), f"a challenge for {path}")
    prepared = payments(asked, post(path, BODY, ("payment-signature", "{payment}")), count, scheme="upto")
    try:
        return load(port, prepared, connections=connections)
    finally:
        prepared.unlink()


def run(options: Options) -> tuple[list[Row], Json]:
    """Throughput, then the first chunk."""
    streams = 1200 if options.full else 400
    with Site(backend=("--chunks", str(CHUNKS))) as site:
        ours, plain = site.envoy("filter", filter_config=CONFIG), site.envoy("plain")
        least = site.envoy("reading", filters=[noop(), reading()])
        wait_until(lambda: challenge(ours.port, LONG, "POST", BODY), "a challenge")
        free = {path: file(post(path, BODY)) for path in (LONG, SHORT)}
        subjects = []
        for path, name, count in ((LONG, "200 chunks", streams), (SHORT, "20 chunks", 4 * streams)):
            subjects.append(Subject(f"metered, {name}", ours.process.pid, lambda path=path, count=count: _paying(ours.port, path, count, 16)))
            for other, envoy in (("Envoy alone", plain), ("fetched and no more", least)):
                subjects.append(Subject(f"{other}, {name}", envoy.process.pid, lambda path=path, count=count, envoy=envoy: load(
                    envoy.port, free[path], requests=count, connections=16)))
        readings = interleaved(subjects, options.rounds)
    long, alone = readings["metered, 200 chunks"], readings["Envoy alone, 200 chunks"]
    per_chunk = {name: [(one.cpu_us - few.cpu_us) / (CHUNKS - FEW) for one, few in
                        zip(readings[f"{name}, 200 chunks"], readings[f"{name}, 20 chunks"], strict=True)] for name in ("metered", "Envoy alone")}
    chunk = Figure.of([theirs / ours for ours, theirs in zip(per_chunk["metered"], per_chunk["Envoy alone"], strict=True)])
    rows = [
        Row("sse", "a stream of 200 chunks, metered, payment and all", "the same stream without the filter", ratio(long, alone), "×", 0.90,
            cpu=ratio(alone, long, "cpu_us")),
        Row("sse-least", "two WebAssembly filters one of which fetches each chunk, without a payment: none that meters can be faster",
            "the same stream without a filter", ratio(readings["fetched and no more, 200 chunks"], alone), "×",
            cpu=ratio(alone, readings["fetched and no more, 200 chunks"], "cpu_us")),
        Row("sse-chunk", "one chunk of it, by CPU time", "the same", chunk, "×"),
    ]
    first, raw = _first(options)
    paced, slow = _paced(options)
    return [*rows, paced, first], {
        "readings": {**summary(readings), **slow},
        "per_chunk_us": {name: Figure.of(values).json() for name, values in per_chunk.items()},
        "first_chunk": raw,
    }


def _paced(options: Options) -> tuple[Row, Json]:
    """200 chunks, one every 2 ms: each comes alone, which costs more than a burst."""
    count = 320 if options.full else 96
    with Site(backend=("--chunks", str(CHUNKS), "--every-us", "2000")) as site:
        ours, plain = site.envoy("paced", filter_config=CONFIG), site.envoy("plain")
        wait_until(lambda: challenge(ours.port, LONG, "POST", BODY), "a challenge")
        alone = file(post(LONG, BODY))
        readings = interleaved([
            Subject("metered, paced", ours.process.pid, lambda: _paying(ours.port, LONG, count, 32)),
            Subject("Envoy alone, paced", plain.process.pid, lambda: load(plain.port, alone, requests=count, connections=32)),
        ], max(3, options.rounds // 2))
    figure = ratio(readings["Envoy alone, paced"], readings["metered, paced"], "cpu_us")
    return Row("sse-paced", "a stream of 200 chunks, one every 2 ms, by CPU time", "the same stream without the filter", figure, "×"), summary(readings)


def _first(options: Options) -> tuple[Row, Json]:
    """Time to the first chunk: facilitator at 200 ms, backend at 300 ms."""
    count = 24 if options.full else 12
    with Site(backend=("--chunks", "20", "--first-ms", "300", "--every-us", "1000"), delay_ms=200) as site:
        ours, plain = site.envoy("overlap", filter_config=CONFIG), site.envoy("plain")
        wait_until(lambda: challenge(ours.port, OVERLAP, "POST", BODY), "a challenge")
        alone = file(post(OVERLAP, BODY))
        readings = interleaved([
            Subject("metered, verify: overlap", ours.process.pid, lambda: _paying(ours.port, OVERLAP, count, 2)),
            Subject("the backend alone", plain.process.pid, lambda: load(site.backend, alone, requests=count, connections=2)),
            Subject("Envoy alone", plain.process.pid, lambda: load(plain.port, alone, requests=count, connections=2)),
        ], max(3, options.rounds // 2))
    pairs = zip(readings["metered, verify: overlap"], readings["the backend alone"], strict=True)
    later = Figure.of([(ours.first_p50_us - alone.first_p50_us) / 1000 for ours, alone in pairs])
    return Row("first-chunk", "time to the first chunk, metered with `verify: overlap`; facilitator 200 ms, backend 300 ms", "the backend alone",
               later, "ms more", 10, 3, at_most=True), summary(readings)
