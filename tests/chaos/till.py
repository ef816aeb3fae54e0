"""A facilitator with a chain of its own."""

from __future__ import annotations

from collections import Counter

from e2e.facilitator import Call, Facilitator, payer_of, refuse, reply
from e2e.wire import Answer, Journal, Loop

from .fuse import Fuse

# What it does when it is asked to settle for the first time. Afterwards it does its work.
MANNERS = ["well", "well", "well", "moves, no answer", "no answer", "refuses", "refuses to verify"]


class Till(Facilitator):
    """Each nonce moves money once, and is used up then."""

    def __init__(self, loop: Loop, journal: Journal, fuse: Fuse) -> None:
        self.fuse = fuse
        # How often the money of a payment has moved.
        self.moved: Counter[str] = Counter()
        # What a payment meets, and whether its nonce is said to be used when it is settled again.
        self.manners: dict[str, tuple[str, bool]] = {}
        self._asked: Counter[str] = Counter()
        super().__init__(loop, journal)
        self.default = {"verify": self._verify, "settle": self._settle}

    async def _verify(self, _: Facilitator, call: Call, answer: Answer) -> None:
        self.fuse.note("verify asked")
        manner, _ = self.manners[call.spends]
        if manner == "refuses to verify":
            return await refuse("insufficient_funds")(self, call, answer)
        if call.spends in self.moved:
            return await refuse("invalid_exact_evm_nonce_already_used")(self, call, answer)
        await reply(200, {"isValid": True, "payer": payer_of(call)})(self, call, answer)

    async def _settle(self, _: Facilitator, call: Call, answer: Answer) -> None:
        self.fuse.note("settle asked")
        manner, used = self.manners[call.spends]
        self._asked[call.spends] += 1
        first = self._asked[call.spends] == 1
        if first and manner == "refuses":
            return await refuse("insufficient_funds")(self, call, answer)
        if first and manner == "no answer":
            await answer.reset()
        if call.spends in self.moved and used:
            return await refuse("invalid_exact_evm_nonce_already_used")(self, call, answer)
        if call.spends not in self.moved:
            self.moved[call.spends] += 1
            self.fuse.note("settle moved")
        if first and manner == "moves, no answer":
            await answer.reset()
        await reply(200, self.settled(call))(self, call, answer)
