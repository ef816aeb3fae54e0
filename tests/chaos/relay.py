"""The relay before a ledger: what Envoy asks and what it hears are events at which somebody may be killed."""

from __future__ import annotations

import json

from e2e.ledger import PREFIX, Ledger
from e2e.wire import Answer, Journal, Loop, Request

from stack.ledger import Ledger as Service

from .fuse import Fuse

# What a call is called, unless by its path: the facilitator is asked to verify and to settle as well.
NAMES = {"verify": "claim", "settle": "payment"}


class Relay(Ledger):
    """See the module. `resets`: what becomes of a call that the ledger does not answer; else it is a 503."""

    resets = False

    def __init__(self, loop: Loop, journal: Journal, service: Service, fuse: Fuse) -> None:
        self.fuse = fuse
        # How requests have ended, and which: what the ledger has heard for certain.
        self.heard_of: set[tuple[str, str]] = set()
        # What it had no use for, so that it is not told again.
        self.turned_away: set[tuple[str, str]] = set()
        super().__init__(loop, journal, service)

    async def answer(self, request: Request, answer: Answer) -> None:
        await self.read(request)
        self.fuse.note(f"{_event(request)} asked")
        try:
            if request.body:
                await super().answer(request, answer)
            else:
                await answer.whole(*await self.ask(request, request.path.removeprefix(PREFIX)))
        except ConnectionAbortedError:
            await answer.reset()

    async def ask(self, request: Request, path: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        found = await super().ask(request, path)
        if found[0] == 503 and self.resets:
            raise ConnectionAbortedError
        if path.endswith(b"/report"):
            said = json.loads(request.body)
            if found[0] == 200:
                self.heard_of.add((said["outcome"], said["intent"]))
            elif found[0] == 404:
                self.turned_away.add((said["outcome"], said["intent"]))
        self.fuse.note(f"{_event(request)} answered")
        return found


def _event(request: Request) -> str:
    what = request.path.rsplit(b"/", 1)[-1].decode()
    return NAMES.get(what, what)
