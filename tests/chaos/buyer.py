"""A client of a fleet, who comes with the same payment until there is a final word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2e.client import Closed, Exchange, Response
from e2e.wire import eventually, fresh_id

from .purchases import Attempt, Copy

if TYPE_CHECKING:
    from .fleet import Fleet, Gate

Json = dict[str, Any]


class Buyer:
    """One copy of a payment in the hands of a client."""

    def __init__(self, fleet: Fleet, copy: Copy) -> None:
        self.fleet, self.copy = fleet, copy
        self.purchase, self.good = copy.purchase, copy.purchase.good

    def buy(self) -> None:
        """Until there is a final word, or nothing is to be had until time has passed."""
        self.copy.parked = False
        eventually(lambda: self._try() or self.copy.parked, f"a word: {self.purchase}")

    def _try(self) -> bool:
        copy = self.copy
        gate = self.fleet.gates[copy.turn % 2]
        copy.turn += 1
        copy.word = self._word(gate, self.once(gate, copy.trouble))
        return bool(copy.word)

    def _word(self, gate: Gate, attempt: Attempt) -> str:
        copy, answer = self.copy, attempt.answer
        if attempt.trouble and self.fleet.kitchen.reached[attempt.test_id]:
            copy.trouble = ""
        # Nor is anything to be had of an Envoy that is not there.
        copy.parked = answer is None
        if answer is None or not answer.clean:
            return ""
        if answer.status == 200:
            return "served"
        if attempt.error == "nonce_already_used" or self._is_held(attempt):
            copy.spent_at = [found for found in copy.spent_at if found in self.fleet.gates] + [gate]
            # What is left of a payment may be to be had at the other one.
            return "spent" if set(copy.spent_at) >= set(self.fleet.gates) else ""
        if answer.status == 402:
            assert attempt.error == "insufficient_funds" and self.purchase.manner in ("refuses", "refuses to verify"), (self.purchase, answer)
            return "refused" if self.purchase.gives_up or self.purchase.manner == "refuses to verify" else ""
        copy.parked = attempt.error in ("payment_in_use", "settlement_pending")
        assert copy.parked or attempt.error == "facilitator_unavailable" or attempt.trouble in ("fails", "resets"), (self.purchase, answer)
        return ""

    def _is_held(self, attempt: Attempt) -> bool:
        """Whether nothing is to be had for it there until it expires: it was had there, or elsewhere, and there it had no outcome."""
        had = self.good.is_metered and any(found.began and found.gate is attempt.gate for found in self.purchase.attempts)
        return attempt.error == "settlement_pending" and (had or bool({*self.copy.spent_at} & {*self.fleet.gates} - {attempt.gate}))

    def once(self, gate: Gate, trouble: str = "") -> Attempt:
        """One request."""
        attempt = Attempt(fresh_id(), gate, trouble)
        self.purchase.attempts.append(attempt)
        asked = {"method": "GET", **self.good.asks}
        try:
            exchange, _ = gate.open(self.good.path, payment=self.purchase.payment, test_id=attempt.test_id, does=self._does(trouble),
                                    protocol=self.copy.protocol, **asked)
        except OSError:
            # It is not there.
            return attempt
        try:
            self._follow(exchange, attempt)
        except Closed:
            pass
        finally:
            exchange.close()
        return attempt

    def _does(self, trouble: str) -> Json:
        parts = self.good.parts
        well = {"kind": "parts", "parts": parts, "headers": self.good.headers, "waits": True}
        match trouble:
            case "leaves early":
                return {**well, "hold": True}
            case "fails":
                return {"status": 500}
            case "resets":
                return {"reset": "before"}
            case "breaks":
                return {**well, "parts": parts[:1], "breaks": True}
        return well if trouble == "leaves" or self.purchase.streams else {**well, "free": True, "waits": False}

    def _follow(self, exchange: Exchange, attempt: Attempt) -> None:
        gate, kitchen = self.fleet.kitchen.gate(attempt.test_id), self.fleet.kitchen
        if attempt.trouble == "leaves early":
            eventually(lambda: kitchen.reached[attempt.test_id] or not exchange.quiet(), "it gets to the backend, or is refused")
            if kitchen.reached[attempt.test_id]:
                exchange.leave()
                return
        status, headers = exchange.head()
        answer = attempt.answer = Response(status, headers, clean=False)
        if status == 200 and (self.purchase.streams or attempt.trouble in ("leaves", "breaks")):
            for part in self.good.parts[:1] if attempt.trouble else self.good.parts:
                gate.release()
                answer.body += exchange.read_until(len(part))
                self.fleet.fuse.note("part read")
            if attempt.trouble == "leaves":
                # The backend is not let on: Envoy cannot have had all of it.
                exchange.leave()
                return
            gate.release()
        while part := exchange.read():
            answer.body += part
        answer.clean = True
