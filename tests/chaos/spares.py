"""What takes long to start, and is there when it is needed."""

from __future__ import annotations

import queue
import threading
from typing import Callable, Generic, TypeVar

Spare = TypeVar("Spare")


class Spares(Generic[Spare]):
    """So many of these, made in the background, one at a time."""

    def __init__(self, make: Callable[[], Spare], count: int) -> None:
        self._made: queue.Queue[Spare | BaseException] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, args=(make, count), daemon=True)
        self._thread.start()

    def _run(self, make: Callable[[], Spare], count: int) -> None:
        for _ in range(count):
            try:
                self._made.put(make())
            except BaseException as error:
                self._made.put(error)
                return

    def take(self) -> Spare:
        """The next one."""
        found = self._made.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def left(self) -> list[Spare]:
        """Those that nobody has taken, when no more are made."""
        found = []
        while self._thread.is_alive() or not self._made.empty():
            try:
                found.append(self._made.get(timeout=1))
            except queue.Empty:
                pass
        return [spare for spare in found if not isinstance(spare, BaseException)]
