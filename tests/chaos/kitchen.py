"""A backend whose work is made of events at which somebody may be killed."""

from __future__ import annotations

from collections import Counter

from e2e.backend import Backend
from e2e.wire import Answer, Journal, Loop, Request

from .fuse import Fuse


class Kitchen(Backend):
    """It counts who came."""

    def __init__(self, loop: Loop, journal: Journal, fuse: Fuse) -> None:
        self.fuse = fuse
        self.reached: Counter[str] = Counter()
        super().__init__(loop, journal)

    def arrived(self, request: Request) -> None:
        super().arrived(request)
        self.reached.update(request.all("x-test-id"))
        self.fuse.note("backend asked")

    async def answer(self, request: Request, answer: Answer) -> None:
        await super().answer(request, answer)
        self.fuse.note("backend answered")
