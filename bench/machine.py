"""The machine: which core runs what, and what a process has used of it. Linux only: reads /proc."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Iterator

from stack import tools

# What is measured has the first core to itself, what drives it the last: neither takes time from the other.
CORES = sorted(os.sched_getaffinity(0))
SERVER = {CORES[0]}
DRIVER = {CORES[-1]}
TICK = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """What is started within this runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far, all threads: to the nanosecond where the kernel keeps that, else to 10 ms."""
    try:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9
    except (FileNotFoundError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> dict[str, int]:
    """Resident and proportional set size, in bytes."""
    found = re.findall(r"^(Rss|Pss|Private_Dirty):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return {name.lower(): int(kib) * 1024 for name, kib in found}


def description() -> dict[str, str]:
    """CPU model, cores, kernel."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": str(len(CORES)),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
    }


def busy() -> float:
    """How many cores others keep busy now: the load average of the last minute."""
    return os.getloadavg()[0]


def output(argv: list[str]) -> str:
    """What a program prints, or "unknown"."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions(module: Path) -> dict[str, str]:
    """What was measured, and with what: commit, compiler, Envoy, peers."""
    lock = json.loads((tools.ROOT / "bench/peers/express/package-lock.json").read_text())["packages"]
    axum = re.search(r'name = "x402-axum"\nversion = "([^"]+)"', (tools.ROOT / "bench/peers/axum/Cargo.lock").read_text())
    changed = bool(output(["git", "-C", str(tools.ROOT), "status", "--porcelain", "--", "src", "secp256k1", "Cargo.toml", "Cargo.lock", ".cargo"]))
    return {
        "commit": output(["git", "-C", str(tools.ROOT), "rev-parse", "--short=12", "HEAD"]) + (", with changes to the filter" if changed else ""),
        "module": hashlib.sha256(module.read_bytes()).hexdigest()[:12],
        "envoy": tools.ENVOY_VERSION,
        "rustc": output(["rustc", "--version"]),
        "node": output(["node", "--version"]),
        "x402-axum": axum.group(1) if axum else "unknown",
        "@x402/express": lock["node_modules/@x402/express"]["version"],
    }
