"""How the demo shows what it does: lines with the time, progress while it waits, programs run to their end.

Knows nothing of what is shown. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable

from . import tools
from .process import Process

RUN = tools.LOCAL / "run" / "demo"
TTY = sys.stdout.isatty()
STARTED = time.monotonic()


class Failed(Exception):
    """The demo cannot go on; the message says why and what to do."""


def color(code: int, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if TTY else text


def say(text: str = "") -> None:
    """A line with the time since the start."""
    print(f"{color(2, f'{time.monotonic() - STARTED:6.1f}s')}  {text}" if text else "", flush=True)


def head(text: str) -> None:
    say()
    say(color(1, text))


def wait(what: str, process: Process, condition: Callable[[], object], deadline: float = 120.0) -> None:
    """Wait for a condition while showing that we do; give up at once when the process ends."""
    begun = time.monotonic()
    shown = 0.0
    while True:
        try:
            if condition():
                break
        except (OSError, ValueError):
            pass
        waited = time.monotonic() - begun
        if not process.running():
            raise Failed(f"{what}: it ended. Its last words ({process.log}):\n{process.tail(15)}")
        if waited > deadline:
            raise Failed(f"{what}: not ready after {deadline:.0f} s. Its last words ({process.log}):\n{process.tail(15)}")
        if waited - shown >= (0.2 if TTY else 5.0):
            shown = waited
            progress(f"{what} … {waited:.0f} s  {last_line(process)}")
        time.sleep(0.02)
    progress_done()
    say(f"{color(32, '✓')} {what} ({time.monotonic() - begun:.1f} s)")


def last_line(process: Process) -> str:
    lines = [line.strip() for line in process.tail(3).splitlines() if line.strip()]
    return re.sub(r"\x1b\[[0-9;]*m", "", lines[-1])[:60] if lines else ""


def progress(text: str) -> None:
    if TTY:
        print(f"\r\x1b[K         {color(2, text[:shutil.get_terminal_size().columns - 12])}", end="", flush=True)
    else:
        say(text)


def progress_done() -> None:
    if TTY:
        print("\r\x1b[K", end="", flush=True)


def run(what: str, argv: list[str], log: str) -> Process:
    """Run a program to its end, with the last line it wrote as progress; it and its children end with us."""
    process = Process(argv, log=fresh(log), name=argv[0], cwd=tools.ROOT)
    begun = time.monotonic()
    shown = 0.0
    try:
        while process.running():
            waited = time.monotonic() - begun
            if waited - shown >= (0.2 if TTY else 5.0):
                shown = waited
                progress(f"{what} … {waited:.0f} s  {last_line(process)}")
            time.sleep(0.02)
    finally:
        progress_done()
        if process.running():
            os.killpg(process.pid, signal.SIGTERM)
    if process.stop() != 0:
        raise Failed(f"{what}: failed ({process.log}):\n{process.tail(30)}")
    say(f"{color(32, '✓')} {what} ({time.monotonic() - begun:.1f} s)")
    return process


def fresh(name: str) -> Path:
    """A file of this run, empty."""
    RUN.mkdir(parents=True, exist_ok=True)
    path = RUN / name
    path.unlink(missing_ok=True)
    return path


def fetch(url: str, data: str | None = None, *headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, whatever the status."""
    named = dict(header.split(": ", 1) for header in ("content-type: application/json", *headers))
    request = urllib.request.Request(url, data=data.encode() if data else None, headers=named)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, dict(answer.headers), answer.read()


def commands(*listed: tuple[str, str]) -> None:
    """What to try in another terminal."""
    head("It is all yours until Ctrl-C. In another terminal:")
    for what, command in listed:
        print(f"\n  {color(2, what)}\n  {command}")
    print(flush=True)


def wait_for_end(processes: list[Process]) -> None:
    """Until Ctrl-C; one that ends before is a failure."""
    while all(process.running() for process in processes):
        time.sleep(0.2)
    ended = next(process for process in processes if not process.running())
    raise Failed(f"{ended.name} ended. Its last words ({ended.log}):\n{ended.tail(15)}")
