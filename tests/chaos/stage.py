"""Where the scenarios play: a gateway of four workers with a route for each flow, and how a request of each flow is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from e2e import metered
from e2e.backend import Backend
from e2e.checks import alive
from e2e.payments import Payment, pay
from e2e.wire import Journal, Loop
from e2e.world import BUFFER, World, price, wasm

from stack.envoy import Envoy, gateway, route
from stack.process import wait_until

from .bank import Bank
from .faults import Faulty, Outages

Json = dict[str, Any]

WORKERS = 4
SEPOLIA = "eip155:84532"
# Longer than any run: no claim expires while claims are counted.
VALID = "3000s"
EXACT = {"scheme": "exact", "network": SEPOLIA, "asset": "USDC", "transfer": "eip3009", "max_timeout": VALID}
PERMIT2 = {**EXACT, "transfer": "permit2"}
UPTO = {**PERMIT2, "scheme": "upto"}

# With this header a request is given no more than a second by Envoy's own route, once it was sent on.
IMPATIENT = ("x-impatient", "1")
PARTS = ["the first half of what was paid for, ", "and the second"]
EVENTS = metered.WHOLE


@dataclass(frozen=True)
class Flow:
    """A way to sell: its route, and what is asked of it."""

    name: str
    amount: int
    terms: Json = field(default_factory=dict)
    accept: Json = field(default_factory=lambda: EXACT)
    is_metered: bool = False

    @property
    def path(self) -> str:
        return f"/{self.name}"

    @property
    def asks(self) -> Json:
        """The request, without headers."""
        return {"method": "POST", "body": metered.BODY} if self.is_metered else {"method": "GET"}

    @property
    def headers(self) -> list[tuple[str, str]]:
        return list(metered.JSON) if self.is_metered else []

    @property
    def parts(self) -> list[str]:
        """What a good backend answers."""
        return EVENTS if self.is_metered else PARTS

    @property
    def signed(self) -> int:
        """The most that a payment for it allows."""
        return metered.QUOTE if self.is_metered else self.amount

    def answers(self, **more: Any) -> Json:
        """What a good backend does; `more` is what it does otherwise."""
        headers = metered.EVENTS if self.is_metered else [("content-type", "text/plain")]
        return {"kind": "parts", "parts": self.parts, "headers": headers, "free": True, **more}

    def route(self) -> Json:
        """Its place in the filter's configuration."""
        if self.is_metered:
            return {**metered.terms(self.path), "accept": [self.accept], **self.terms}
        cost = price(f"{self.amount / 1_000_000:.6f}")
        return {"name": self.name, "match": {"path": self.path}, "price": cost, "accept": [self.accept], **self.terms}


# Each at a price of its own: what has moved tells what was bought.
FLOWS = {flow.name: flow for flow in [
    Flow("before", 10_000),
    Flow("overlap", 11_000, {"verify": "overlap"}),
    Flow("local", 12_000, {"verify": "local"}),
    Flow("upfront", 13_000, {"flow": "upfront"}),
    Flow("permit2", 14_000, accept=PERMIT2),
    Flow("metered", metered.USED, accept=UPTO, is_metered=True),
    Flow("metered-overlap", metered.USED, {"verify": "overlap"}, accept=UPTO, is_metered=True),
]}


class StageBackend(Outages, Backend):
    """A scripted backend that can be gone for a while."""


class Stage(World):
    """The gateway, what is around it, and the chain behind it all."""

    def __init__(self, name: str, bank: Bank, backend: StageBackend, faulty: Faulty, journal: Journal,
                 verify_timeout: str = "60s", settle_timeout: str = "60s") -> None:
        impatient = route(name="impatient", match={"prefix": "/", "headers": [
            {"name": IMPATIENT[0], "string_match": {"exact": IMPATIENT[1]}}]}, action={"timeout": "1s"})
        config = gateway(backend.port, {"facilitator": faulty.port}, wasm=wasm(), buffer_limit=BUFFER,
                         routes=[impatient, route()])
        facilitator = {"cluster": "facilitator", "url": "http://facilitator.test", "networks": [SEPOLIA],
                       "verify_timeout": verify_timeout, "settle_timeout": settle_timeout,
                       # One scene's failures are not to hold back the others' calls.
                       "breaker": {"failures": 0}}
        envoy = Envoy(config, {
            "pay_to": {"eip155": bank.seller}, "facilitators": [facilitator], "unmatched": "deny",
            "settlement": {"retries": 1, "retry_budget": "60s"}, "pre_check": {"clock_skew": "30s", "max_validity": "1h"},
            "routes": [flow.route() for flow in FLOWS.values()],
        }, workers=WORKERS, name=name)
        super().__init__(envoy, backend, faulty, journal)
        self.bank = bank
        self.faulty = faulty
        self._challenges: dict[str, Json] = {}
        wait_until(lambda: self.everywhere(lambda: self._challenge(FLOWS["metered"]).status == 402), f"{name} makes its offers")

    def _challenge(self, flow: Flow) -> Any:
        return self.call(flow.path, headers=flow.headers, **flow.asks)

    def payment_for(self, flow: Flow, payer: Any) -> Payment:
        """A payment as an official client makes it, for what the gateway asks."""
        if flow.name not in self._challenges:
            self._challenges[flow.name] = self._challenge(flow).challenge
        challenge = self._challenges[flow.name]
        return pay(challenge["accepts"][0], payer, challenge["resource"])

    def claims(self) -> int:
        """How many payments are remembered."""
        return int(self.metric("x402_claims"))

    def is_well(self) -> None:
        """No worker has crashed, and nothing was logged that ought to wake somebody."""
        alive(self)
        for sign in ("[critical]", "[error]"):
            assert sign not in self.envoy.log(), self.envoy.log()[-4000:]


def surroundings(official: Any) -> tuple[Loop, Journal, StageBackend, Faulty]:
    """The servers around a gateway."""
    loop, journal = Loop(), Journal()
    return loop, journal, StageBackend(loop, journal), Faulty(loop, journal, official)
