"""What metering adds to a stream: time to its first chunk, and the gaps between chunks, beside the backend alone.

    make bench-streaming            or: .local/venv/bin/python -m bench.streaming [--rounds 200] [--chunks 50] [--verify-ms 20] [--first-ms 50]

In one run, interleaved: the backend asked directly, through Envoy without a price, and metered through the filter. The backend thinks for a
while, then sends a chunk every few milliseconds and says in each when it was written; the facilitator answers /verify after a set time. All clocks are one
machine's. Prints medians and spreads in milliseconds, and what is left of the difference once the /verify call is taken away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from e2e import client  # noqa: E402
from e2e.facilitator import ok  # noqa: E402
from e2e.payments import Payment  # noqa: E402
from e2e.world import UPTO, World, Worlds, changed  # noqa: E402

BODY = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 500, "stream": true}'
JSON = [("content-type", "application/json")]


class Paced:
    """A backend on a port of its own: after `first` seconds `chunks` events, one every `every` seconds, with the times of writing."""

    def __init__(self, loop: Any, first: float, chunks: int, every: float) -> None:
        self._first, self._chunks, self._every = first, chunks, every
        self.port: int = loop.run(self._listen())

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                               if line.startswith(b"content-length")), 0)
                # What the filter has rewritten comes in chunks.
                if b"transfer-encoding" in head.lower():
                    await reader.readuntil(b"0\r\n\r\n")
                elif length:
                    await reader.readexactly(length)
                await asyncio.sleep(self._first)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                for number in range(self._chunks):
                    event = {"choices": [{"index": 0, "delta": {"content": "word "}}], "at": time.perf_counter()}
                    self._write(writer, event)
                    await writer.drain()
                    if number + 1 < self._chunks:
                        await asyncio.sleep(self._every)
                self._write(writer, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": self._chunks}})
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @staticmethod
    def _write(writer: asyncio.StreamWriter, event: Any) -> None:
        data = b"data: " + json.dumps(event).encode() + b"\n\n"
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


class Series:
    """What one way to the backend took, in milliseconds."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.lag: list[float] = []

    def ask(self, port: int, path: str, headers: list[tuple[str, str]]) -> None:
        """One request: from its first byte to the answer's first chunk, and how long each chunk was under way."""
        exchange = client.Http1(port)
        began = time.perf_counter()
        exchange.start("POST", path, [*JSON, *headers], end=False, length=len(BODY))
        exchange.send(BODY)
        exchange.finish()
        assert exchange.head()[0] == 200
        seen, rest = 0, b""
        while part := exchange.read():
            now = time.perf_counter()
            *events, rest = (rest + part).split(b"\n\n")
            for event in events:
                if b'"at"' not in event:
                    continue
                if seen == 0:
                    self.first.append((now - began) * 1000)
                self.lag.append((now - json.loads(event.removeprefix(b"data: "))["at"]) * 1000)
                seen += 1
        exchange.close()
        assert seen > 1


def spread(values: list[float]) -> str:
    """Median, and the middle nine tenths."""
    cuts = statistics.quantiles(values, n=20)
    return f"{statistics.median(values):8.2f}  ({cuts[0]:.2f} to {cuts[-1]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--every-ms", type=float, default=2)
    parser.add_argument("--verify-ms", type=float, default=20)
    parser.add_argument("--first-ms", type=float, default=50)
    options = parser.parse_args()
    worlds = Worlds()
    try:
        run(worlds, options)
    finally:
        worlds.close()


def run(worlds: Worlds, options: argparse.Namespace) -> None:
    """Measures, and prints."""
    backend = Paced(worlds.loop, options.first_ms / 1000, options.chunks, options.every_ms / 1000)
    price = {"per_token": {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}}
    ways = {"metered": {}, "overlap": {"verify": "overlap"}}
    config = changed(routes=[{"name": name, "match": {"path": f"/{name}"}, "price": price, "accept": [UPTO], "flow": "metered", **more}
                             for name, more in ways.items()])

    def to_paced(envoy: dict) -> None:
        for cluster in envoy["static_resources"]["clusters"]:
            if cluster["name"] == "backend":
                endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
                endpoint["address"]["socket_address"]["port_value"] = backend.port

    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call("/metered", "POST", headers=JSON, body=BODY).status == 402)

    world = worlds.world("bench-streaming", config, ready=ready, workers=1, edit=to_paced)
    later = options.verify_ms / 1000
    asked: list[float] = []

    def payment(path: str) -> list[tuple[str, str]]:
        found: Payment = world.payment(path, method="POST", headers=JSON, body=BODY)
        world.facilitator.script(found.payload, verify=slow(later, asked))
        return found.headers()

    series: dict[str, Series] = {name: Series() for name in ("backend alone", "Envoy, no price", *ways)}
    calls: dict[str, Callable[[], None]] = {
        "backend alone": lambda: series["backend alone"].ask(backend.port, "/", []),
        "Envoy, no price": lambda: series["Envoy, no price"].ask(world.port, "/unpriced", []),
        **{name: (lambda name=name: series[name].ask(world.port, f"/{name}", payment(f"/{name}"))) for name in ways},
    }
    for number in range(options.rounds + 10):
        if number == 10:
            # Connections are up and the code is compiled.
            for one in series.values():
                one.first.clear(), one.lag.clear()
            asked.clear()
        for call in calls.values():
            call()
    alone = statistics.median(series["backend alone"].first)
    verify = statistics.median(asked)
    print(f"\n{options.rounds} streams each, {options.chunks} chunks, one every {options.every_ms:g} ms; "
          f"/verify takes {verify:.2f} ms at the facilitator\n")
    print(f"{'milliseconds, median (5 % to 95 %)':<36}{'to the first chunk':<34}a chunk under way")
    for name, one in series.items():
        print(f"{name:<36}{spread(one.first):<34}{spread(one.lag)}")
    metered, overlap = (statistics.median(series[name].first) for name in ways)
    print(f"\nto the first chunk, metered: the backend alone, and {metered - alone:.2f} ms; "
          f"without the /verify call {metered - alone - verify:.2f} ms")
    print(f"with verify: overlap: the backend alone, and {overlap - alone:.2f} ms")


def slow(seconds: float, asked: list[float]) -> Any:
    """Answers after a while, and notes how long that was."""
    async def act(facilitator: Any, call: Any, answer: Any) -> None:
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        await ok()(facilitator, call, answer)
        asked.append((time.perf_counter() - began) * 1000)
    return act


if __name__ == "__main__":
    main()
