"""What the benches need built: the tools that drive Envoy, the filters to compare with, the peers. Everything lands in `.local/bench`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from stack import tools

HERE = Path(__file__).resolve().parent
HOME = tools.LOCAL / "bench"
TARGET = HOME / "target"
WASM_TARGET = "wasm32-wasip1"


# The filter under test: a copy, so that a build meanwhile changes nothing.
MODULE = HOME / "x402_envoy.wasm"


def module() -> None:
    """Takes a copy of the filter as `make wasm` has built it."""
    HOME.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tools.ensure_wasm(), MODULE)


def cargo(crate: Path, *options: str) -> None:
    """A release build of a crate below bench/, quiet unless it fails."""
    cargo_program = tools.need("cargo", "Install Rust with rustup: see rustup.rs")
    argv = [cargo_program, "build", "--release", "--locked", "--target-dir", str(TARGET), *options]
    done = subprocess.run(argv, cwd=crate, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise tools.Missing(f"{crate.relative_to(tools.ROOT)} could not be built:\n" + "\n".join(done.stdout.splitlines()[-30:]))


def tool(name: str) -> Path:
    """A binary of bench/tools."""
    return TARGET / "release" / name


def build_tools() -> None:
    """`load`, `facilitator`, `backend` and `pay`."""
    tools.say("building bench/tools")
    cargo(HERE / "tools")


def wasm_module(crate: str, name: str) -> Path:
    """A crate below bench/ as a module for Envoy, made as the filter itself is: the same flags, and wasm-opt after it."""
    tools.say(f"building bench/{crate} for Envoy")
    cargo(HERE / crate, "--lib", "--target", WASM_TARGET)
    shipped = HOME / f"{name}.wasm"
    node = tools.need("node", "Install Node.js 20 or later: see nodejs.org")
    subprocess.run([node, str(tools.ROOT / "stack" / "optimise.mjs"), str(TARGET / WASM_TARGET / "release" / f"{name}.wasm"), str(shipped)],
                   check=True, stdout=subprocess.DEVNULL)
    return shipped


def filters() -> Path:
    """The no-op and constant filters."""
    return wasm_module("filters", "x402_bench_filters")


def npm(directory: Path) -> None:
    """The packages that a directory's lock file lists, unless they are there."""
    lock, stamp = directory / "package-lock.json", directory / "node_modules" / ".stamp"
    want = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == want:
        return
    program = tools.need("npm", "It comes with Node.js 20 or later")
    tools.say(f"installing the packages of {directory.relative_to(tools.ROOT)}")
    done = subprocess.run([program, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], cwd=directory,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise tools.Missing("npm ci failed; is a package registry reachable?\n" + "\n".join(done.stdout.splitlines()[:8]))
    stamp.write_text(want)


def parts() -> None:
    """The filter's parts, for Envoy and natively."""
    wasm_module("parts", "x402_bench_parts")
    cargo(HERE / "parts", "--bin", "native")
