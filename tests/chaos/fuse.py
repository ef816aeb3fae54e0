"""Kills a process in the middle of something, wherever the machine is slow or fast."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

from e2e.wire import Loop


@dataclass
class Death:
    """Who is killed as the n-th event of a kind happens, or so many turns of the servers' loop later."""

    victim: str
    where: str
    nth: int
    turns: int

    def __str__(self) -> str:
        return f"{self.victim} at {self.where} {self.nth} + {self.turns}"


class Fuse:
    """Kills a process as the n-th event of a kind happens, or so many turns of the servers' loop later."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop.loop
        self._lock = threading.Lock()
        self._armed: tuple[str, int, int, int] | None = None
        self.blown = threading.Event()

    def arm(self, where: str, nth: int, turns: int, pid: int) -> None:
        """From now on."""
        with self._lock:
            self.blown.clear()
            self._armed = (where, nth, turns, pid)

    def note(self, what: str) -> None:
        """It happens."""
        with self._lock:
            if self._armed is None or self._armed[0] != what:
                return
            where, nth, turns, pid = self._armed
            self._armed = (where, nth - 1, turns, pid) if nth > 1 else None
            if nth > 1:
                return
            if turns == 0:
                self._kill(pid)
        if turns > 0:
            self._loop.call_soon_threadsafe(self._later, turns, pid)

    def _later(self, turns: int, pid: int) -> None:
        if turns > 0:
            self._loop.call_soon(self._later, turns - 1, pid)
        else:
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.blown.set()

    def blow(self) -> bool:
        """Whether it had to be done by hand: there were fewer events."""
        with self._lock:
            armed, self._armed = self._armed, None
            if armed is not None:
                self._kill(armed[3])
        assert self.blown.wait(60)
        return armed is not None
