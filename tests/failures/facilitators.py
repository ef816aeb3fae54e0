"""The three published facilitators: how they are started, and how long they are told to wait for a transaction."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Callable

from stack import tools
from stack.process import free_port
from tests.clients.world import STACK, VENV_PYTHON, Service

X402_RS = STACK / "x402-rs"
# Seconds. Their own default is 180 (TypeScript), 120 (Python) and 30 (x402-rs).
RECEIPT_TIMEOUT = 2


def _locked(name: str) -> str:
    """The version of a crate that the lock file of `stack/x402-rs` names."""
    found = re.search(rf'name = "{name}"\nversion = "([^"]+)"', (X402_RS / "Cargo.lock").read_text())
    assert found is not None, name
    return found[1]


def _packaged(name: str) -> str:
    return json.loads((STACK / "node_modules" / name / "package.json").read_text())["version"]


def _built() -> Path:
    """x402-rs's, built at the first use: that takes minutes."""
    cargo = tools.need("cargo", "Install Rust with rustup: see rustup.rs")
    subprocess.run([cargo, "build", "--quiet", "--locked", "-j1"], cwd=X402_RS, check=True, preexec_fn=lambda: os.nice(10))
    return X402_RS / "target" / "debug" / "x402-rs-facilitator"


@dataclass(frozen=True)
class Kind:
    """One of the three."""

    name: str
    # Whose account it sends transactions from.
    role: str
    program: Callable[[], list[str | Path]]
    versions: Callable[[], dict[str, str]]
    # Whether it notes transactions that it waited for in vain, in a store that can be replaced.
    has_store: bool

    def start(self, directory: Path, chain: str, *options: str) -> Service:
        """Serves one chain, given as `id=url`."""
        port = free_port()
        argv = [*self.program(), "--port", str(port), "--chain", chain, "--receipt-timeout", str(RECEIPT_TIMEOUT), *options]
        return Service(argv, directory, f"{self.name}-{port}")


KINDS = {kind.name: kind for kind in (
    # Where its node is out of reach, a check that nobody waits for fails, and by Node's default that ends the whole process in mid-answer: a
    # connection that breaks, which tells nothing and which the gate takes for just that. What it would have answered is recorded here.
    Kind("typescript", "facilitator", lambda: ["node", "--unhandled-rejections=warn", STACK / "facilitator.mjs"],
         lambda: {name: _packaged(name) for name in ("@x402/core", "@x402/evm", "viem")}, has_store=True),
    Kind("python", "facilitatorPy", lambda: [VENV_PYTHON, STACK / "facilitator.py"],
         lambda: {name: version(name) for name in ("x402", "web3")}, has_store=True),
    Kind("x402-rs", "facilitatorRs", lambda: [_built()],
         lambda: {name: _locked(name) for name in ("x402-types", "x402-facilitator-local", "x402-chain-eip155")}, has_store=False),
)}
