"""The other ways to sell an HTTP backend for x402: started as their own documentation says, on the core that Envoy has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stack import tools
from stack.process import free_port

from .. import build, machine

if TYPE_CHECKING:
    from ..gateways import Site
    from ..rows import Options

AXUM, EXPRESS = "x402-axum", "@x402/express"
EXPRESS_HOME = build.HERE / "peers" / "express"


@dataclass(frozen=True)
class Peer:
    """A merchant that runs. `slower` says by how much, about: its runs are shorter by that."""

    name: str
    pid: int
    port: int
    slower: int


def prepare() -> None:
    """Builds x402-axum (minutes, the first time) and installs the npm packages."""
    tools.say("building bench/peers/axum (takes minutes the first time)")
    build.cargo(build.HERE / "peers" / "axum")
    build.npm(EXPRESS_HOME)


def start(site: Site, options: Options) -> Iterator[Peer]:
    """Every peer, unless the options leave them out."""
    if not options.peers:
        return
    ends = [str(site.backend), str(site.facilitator)]
    port = free_port()
    process = site.process("axum", [build.tool("x402-bench-axum"), str(port), *ends], machine.SERVER, port)
    yield Peer(AXUM, process.pid, port, 1)
    port = free_port()
    node = tools.need("node", "Install Node.js 20 or later: see nodejs.org")
    process = site.process("express", [node, EXPRESS_HOME / "merchant.mjs", str(port), *ends], machine.SERVER, port,
                           env={"NODE_ENV": "production"})
    yield Peer(EXPRESS, process.pid, port, 4)
