"""How large the module is, and how long a fresh Envoy takes until it sells."""

from __future__ import annotations

import socket
import threading
import time

from stack.envoy import Envoy, gateway
from stack.process import NotReady

from .. import build
from ..gateways import FILTER, MANAGER, Site, noop
from ..measure import Figure
from ..requests import get
from ..rows import Json, Options, Row

KIB = 1 << 10
DEADLINE = 60.0


def run(options: Options) -> tuple[list[Row], Json]:
    """Fresh processes in turns, on all cores (V8 compiles beside), each asked until it answers."""
    took: dict[str, list[float]] = {"the filter": [], "a no-op filter": [], "no filter": []}
    with Site() as site:
        for _ in range(options.rounds):
            for name, times in took.items():
                times.append(_answers_after(site, name))
    module = build.MODULE.stat().st_size / KIB
    return [
        Row("module", "the module", "", Figure.of([module]), "KiB", 900, 500, at_most=True),
        Row("ready", "from the start of Envoy to its first 402, with 1 worker", "", Figure.of(took["the filter"]), "s", 1, 0.5, at_most=True),
        Row("ready-more", "the same", "Envoy without a filter, to its first answer",
            Figure.of([ours - theirs for ours, theirs in zip(took["the filter"], took["no filter"], strict=True)]), "s more", at_most=True),
    ], {"ready_s": {name: Figure.of(values).json() for name, values in took.items()}}


def _answers_after(site: Site, name: str) -> float:
    """Seconds from the start of the process to the first answer."""
    config = gateway(site.backend, {"facilitator": site.facilitator}, wasm=build.MODULE, filters=name == "the filter",
                     after=[noop()] if name == "a no-op filter" else [], path_normalisation=MANAGER)
    port = config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"]
    made: list[Envoy] = []
    began = time.monotonic()
    starting = threading.Thread(target=lambda: made.append(Envoy(
        config, FILTER if name == "the filter" else None, workers=1, name="bench-start", access_log=False)))
    starting.start()
    status = b"402" if name == "the filter" else b"200"
    while not _answers(port, status):
        if time.monotonic() - began > DEADLINE:
            raise NotReady(f"Envoy with {name} did not answer")
    took = time.monotonic() - began
    starting.join()
    made[0].stop()
    return took


def _answers(port: int, status: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(get("/v1/report"))
            return connection.recv(16).startswith(b"HTTP/1.1 " + status)
    except OSError:
        time.sleep(0.001)  # not to take the core from what is awaited
        return False
