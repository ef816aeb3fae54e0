"""Clients, each in a thread of its own."""

from __future__ import annotations

import threading
from typing import Callable, Generic, TypeVar

Work = TypeVar("Work")


class Crew(Generic[Work]):
    """Does each piece of work in a thread; the first failure of one is raised at the end."""

    def __init__(self, work: list[Work], does: Callable[[Work], object]) -> None:
        self._failed: list[BaseException] = []
        self._does = does
        self._threads = [threading.Thread(target=self._run, args=(found,)) for found in work]

    def _run(self, work: Work) -> None:
        try:
            self._does(work)
        except BaseException as error:
            self._failed.append(error)

    def done(self) -> bool:
        """Whether all have ended."""
        return not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> Crew[Work]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, _: object, problem: BaseException | None, __: object) -> None:
        for thread in self._threads:
            thread.join()
        for error in self._failed if problem is None else []:
            raise error
