"""Child processes: started with a log file, awaited by a condition, stopped by pid, never left behind.

Knows nothing of what the processes are. Standard library only.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Mapping, Sequence, TypeVar

T = TypeVar("T")

# Generous on purpose: a deadline is there to end a hopeless wait, not to measure a machine.
# X402_DEADLINE shortens it where many waits are expected to be hopeless, as while the filter is being written.
DEADLINE = float(os.environ.get("X402_DEADLINE", "60"))


class NotReady(Exception):
    """A condition did not come true before its deadline, or the process it was about ended first."""


def wait_until(condition: Callable[[], T], what: str, deadline: float = DEADLINE,
               alive: Callable[[], str | None] = lambda: None) -> T:
    """Poll `condition` until it returns something true, and return that.

    An OSError or a ValueError (half-written JSON) counts as "not yet". `alive` returns a text when waiting is pointless.
    """
    end = time.monotonic() + deadline
    pause = 0.005
    last: BaseException | None = None
    while True:
        try:
            value = condition()
            if value:
                return value
        except (OSError, ValueError) as error:
            last = error
        reason = alive()
        if reason is not None:
            raise NotReady(f"{what}: {reason}")
        if time.monotonic() >= end:
            raise NotReady(f"{what}: not within {deadline:.0f} s" + (f" (last: {last!r})" if last else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


class Process:
    """One child. It gets its own process group, so that Ctrl-C reaches it through `stop` alone."""

    def __init__(self, argv: Sequence[str | Path], log: Path, name: str | None = None,
                 env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.argv = [str(word) for word in argv]
        self.name = name or Path(self.argv[0]).name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = open(log, "ab")
        self._child = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, cwd=cwd,
            env=None if env is None else {**os.environ, **env}, start_new_session=True,
        )
        _running[self._child.pid] = self

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def running(self) -> bool:
        """Whether the child is still there."""
        return self._child.poll() is None

    def output(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 25) -> str:
        """The last lines it wrote, for a message."""
        return "\n".join(self.output().splitlines()[-lines:])

    def wait_ready(self, condition: Callable[[], object], deadline: float = DEADLINE) -> None:
        """Wait for the condition; give up at once if the child ends. On failure the child is stopped."""
        def ended() -> str | None:
            code = self._child.poll()
            return None if code is None else f"ended with {code}\n{self.tail()}"

        try:
            wait_until(condition, f"{self.name} (pid {self.pid})", deadline, ended)
        except NotReady as problem:
            tail = self.tail()
            self.stop()
            raise NotReady(str(problem) if tail in str(problem) else f"{problem}\n{tail}") from None

    def stop(self, grace: float = 5.0) -> int:
        """SIGTERM, and SIGKILL when it is still there after `grace` seconds. Returns the exit code."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(grace)
            except subprocess.TimeoutExpired:
                self._child.kill()
        code = self._child.wait()
        _running.pop(self.pid, None)
        self._log.close()
        return code

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


_running: dict[int, Process] = {}


@atexit.register
def stop_all() -> None:
    """Stop every child, last started first."""
    for process in list(_running.values())[::-1]:
        process.stop(grace=2.0)


def stop_on_sigterm() -> None:
    """Let SIGTERM stop the children before it ends this program, whatever the program is in. Main thread only."""
    def stop(number: int, _: object) -> None:
        stop_all()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)


stop_on_sigterm()

_ports: dict[int, object] = {}


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that no other caller of this function is given.

    Below the ephemeral range, so that no outgoing connection takes it meanwhile; a locked file says whose it is.
    """
    home = Path(tempfile.gettempdir()) / "x402-ports"
    home.mkdir(exist_ok=True)
    for _ in range(1000):
        port = random.randrange(20_000, 32_000)
        if port in _ports:
            continue
        claim = open(home / str(port), "w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _ports[port] = claim
        return port
    raise NotReady("no free port on 127.0.0.1 between 20000 and 32000")


def listening(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex((host, port)) == 0
