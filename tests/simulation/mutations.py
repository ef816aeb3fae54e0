"""Makes each mistake of mutations.toml in a copy of the sources, and requires that the simulator fails there.

Usage: python3 tests/simulation/mutations.py [WORD ...]: only those mistakes whose `why` has all words in it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Always the same place, so that what was built for one mistake is not built again for the next.
COPY = ROOT / "target" / "mutations"
COPIED = ["Cargo.toml", "Cargo.lock", "src", "secp256k1", "tests"]
# Mistakes show in a few runs; the last ones are for those that take some luck.
RUNS = {"SEED": "1", "RUNS": "120"}
RUNS_WITHOUT = {"SEED": "1", "RUNS": "10"}


def copy() -> None:
    """Brings the copy up to date. Files that are as they should be stay as old as they are: cargo looks at that."""
    wanted = set()
    for name in COPIED:
        source = ROOT / name
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        for path in files:
            if "__pycache__" in path.parts:
                continue
            target = COPY / path.relative_to(ROOT)
            wanted.add(target)
            content = path.read_bytes()
            if path.name == "Cargo.toml":
                # The ledger is not played.
                content = content.replace(b'"ledger", ', b"")
                # Nobody loads this module: it need not be linked.
                content = content.replace(b'["cdylib", "rlib"]', b'["rlib"]')
                # Nor does anybody look at a backtrace: without what that needs it is built faster.
                content = content.replace(b"x402-envoy.opt-level = 1", b"x402-envoy.opt-level = 1\nx402-envoy.debug = false")
            if not target.exists() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    for name in COPIED:
        for path in (COPY / name).rglob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()


def simulate(runs: dict[str, str]) -> tuple[bool, str]:
    """Whether the simulator fails, or does not even compile, and what is said of that."""
    environment = os.environ | runs | {"CARGO_TARGET_DIR": str(ROOT / "target"), "RUST_BACKTRACE": "0", "STEPS": "0"}
    command = ["cargo", "test", "--quiet", "--test", "simulation", "what_must_hold"]
    ran = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True)
    return ran.returncode != 0, ran.stdout + ran.stderr


def caught(said: str) -> str:
    """What the simulator found."""
    found = re.search(r"^(.+: .+)\nPlay it again: make sim SEED=(\d+)", said, re.MULTILINE)
    if found is None:
        sys.exit(f"the simulator failed for another reason:\n{said}")
    return f"{found[1][:110]} (seed {found[2]})"


def main() -> None:
    mutations = tomllib.loads((Path(__file__).with_suffix(".toml")).read_text())["mutation"]
    words = sys.argv[1:]
    mutations = [mutation for mutation in mutations if all(word in mutation["why"] for word in words)]
    for mutation in mutations:
        count = (ROOT / mutation["file"]).read_text().count(mutation["text"])
        if count != 1:
            sys.exit(f"{mutation['file']} has the text of the mistake {count} times: {mutation['why']}\n{mutation['text']}")
    began = time.monotonic()
    copy()
    failed, said = simulate(RUNS_WITHOUT)
    if failed:
        sys.exit(f"the simulator fails without any mistake:\n{said}")
    missed = []
    for mutation in mutations:
        path = COPY / mutation["file"]
        original = path.read_text()
        path.write_text(original.replace(mutation["text"], mutation["replacement"]))
        try:
            failed, said = simulate(RUNS)
        finally:
            path.write_text(original)
        if failed:
            print(f"caught: {mutation['why']}\n        {caught(said)}", flush=True)
        else:
            print(f"MISSED: {mutation['why']}", flush=True)
            missed.append(mutation["why"])
    print(f"{len(mutations) - len(missed)} of {len(mutations)} mistakes are caught, in {time.monotonic() - began:.0f} s")
    if missed:
        sys.exit("the simulator has to see these: " + "; ".join(missed))


if __name__ == "__main__":
    main()
