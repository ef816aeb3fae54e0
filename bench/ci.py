"""The cheap subset, for CI's log: CPU time of Envoy for a request, with and without the filter. A report, never a gate.

    python3 -m bench.ci          half a minute; needs Envoy, the module and Python, builds nothing

A slow client is good enough where CPU time is read. Figures of a busy machine are noise, and even then comparable with each other: runs take
turns.
"""

from __future__ import annotations

import http.server
import socket
import statistics
import sys
import threading
import time
from contextlib import ExitStack

from stack import tools
from stack.envoy import Envoy, gateway
from stack.process import free_port, wait_until

from . import machine
from .gateways import FILTER, MANAGER, direct
from .requests import Challenge, challenge, get

sys.path.insert(0, str(tools.ROOT / "tests"))

from e2e.payments import OTHER, pay  # noqa: E402

CONNECTIONS, TURNS, ROUNDS = 32, 40, 7
BUDGET = 20.0
PRICED, FREE = "/v1/report", "/v1/models"


def ask(port: int, request: bytes, status: bytes) -> None:
    """A request over each of some connections, and so on when all are answered."""
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(CONNECTIONS)]
        for _ in range(TURNS):
            for connection in connections:
                connection.sendall(request)
            for connection in connections:
                answer = b""
                while not complete(answer):
                    part = connection.recv(1 << 16)
                    if not part:
                        raise ConnectionError(f"the connection was closed after {answer!r}")
                    answer += part
                if not answer.startswith(b"HTTP/1.1 " + status):
                    raise ValueError(f"{status.decode()} was expected: {answer!r}")


def complete(answer: bytes) -> bool:
    """Whether all of an answer of known length is there."""
    head, found, body = answer.partition(b"\r\n\r\n")
    return bool(found) and len(body) >= int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def cost(envoy: Envoy, request: bytes, status: bytes) -> float:
    """CPU time of one request, in microseconds."""
    before = machine.cpu_seconds(envoy.process.pid)
    ask(envoy.port, request, status)
    return (machine.cpu_seconds(envoy.process.pid) - before) / (CONNECTIONS * TURNS) * 1e6


def forge(asked: Challenge) -> list[tuple[str, str]]:
    """The header of a payment that is good but for its signature, which is somebody else's."""
    payment = pay(asked.required["accepts"][0], resource=asked.required["resource"])
    return payment.but(lambda other: other.payload["authorization"].update({"from": OTHER})).headers()


class Facilitator(http.server.BaseHTTPRequestHandler):
    """Says that it supports what it is asked about."""

    def do_GET(self) -> None:
        """GET /supported."""
        text = b'{"kinds":[],"extensions":[],"signers":{}}'
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def measure() -> dict[str, list[float]]:
    """Readings by what was asked of whom."""
    with ExitStack() as stack:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Facilitator)
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        facilitator, nobody = server.server_address[1], free_port()

        def envoy(filter_config: dict | None, routes: list | None = None) -> Envoy:
            config = gateway(nobody, {"facilitator": facilitator}, filters=filter_config is not None, routes=routes, path_normalisation=MANAGER)
            return stack.enter_context(Envoy(config, filter_config, workers=1, name="bench-ci", access_log=False))

        ours = envoy(FILTER)
        asked = wait_until(lambda: challenge(ours.port, PRICED), "a challenge")
        forged = get(PRICED, *forge(asked))
        static = envoy(None, direct(asked.headers, asked.body))
        subjects = {
            "402 by Envoy's direct_response": lambda: cost(static, get(PRICED), b"402"),
            "402 by the filter": lambda: cost(ours, get(PRICED), b"402"),
            "403 by the filter (no route)": lambda: cost(ours, get("/nowhere"), b"403"),
            "402 to a forged payment": lambda: cost(ours, forged, b"402"),
        }
        found: dict[str, list[float]] = {name: [] for name in subjects}
        until = time.monotonic() + BUDGET
        for number in range(ROUNDS + 1):
            for name, once in subjects.items():
                reading = once()
                if number:
                    found[name].append(reading)
            if number and time.monotonic() > until:
                break
        return found


def main() -> int:
    """Prints the table; whatever goes wrong is printed too, and fails nothing."""
    try:
        found = measure()
    except Exception as problem:  # a report must not fail a build
        print(f"no figures: {problem}")
        return 0
    base = statistics.median(next(iter(found.values())))
    print(f"CPU time of Envoy {tools.ENVOY_VERSION} for a request, one worker, {machine.description()['cpu']}, load average {machine.busy():.1f}\n")
    for name, readings in found.items():
        middle = statistics.median(readings)
        print(f"{name:<36}{middle:7.1f} µs  ({min(readings):.1f} to {max(readings):.1f})  {middle / base:5.2f} ×")
    print(f"{'the module':<36}{tools.ensure_wasm().stat().st_size / 1024:7.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
