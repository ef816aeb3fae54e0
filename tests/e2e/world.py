"""The gateway under test with what is around it: one backend, one facilitator, an Envoy per configuration.

Envoys are started when first asked for and shared by all tests of a run: tests keep apart by fresh nonces and test ids.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Callable

from stack import tools
from stack.envoy import Envoy, Json, gateway, route
from stack.process import free_port, wait_until

from . import client
from .backend import Backend, behave
from .client import Fields, Response
from .facilitator import SOLANA, Facilitator
from .payments import OTHER, SELLER, SOLANA_USDC, Payment, offer, pay
from .wire import Journal, Loop, fresh_id

SOLANA_SELLER = "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"
EURO_TOKEN = "0x808456652fdb597867f38412077A9182bf77359F"
FACILITATOR_URL = "http://facilitator.test/api"
FACILITATOR_HEADERS = {"x-facilitator-key": "letmein"}
BUFFER = 8 << 20

BASE = {"scheme": "exact", "network": "eip155:8453", "asset": "USDC", "transfer": "eip3009", "max_timeout": "300s"}
BASE_PERMIT2 = {**BASE, "transfer": "permit2"}
SEPOLIA = {**BASE, "network": "eip155:84532"}
UPTO = {**BASE_PERMIT2, "scheme": "upto"}
PERMIT = {**BASE, "scheme": "upto", "transfer": "permit", "spender": OTHER}
SOLANA_OFFER = {"scheme": "exact", "network": SOLANA, "asset": "USDC", "max_timeout": "300s"}
EURO = {**BASE, "network": "eip155:84532", "asset": "TEUR"}


def price(amount: str) -> Json:
    """A price per request in dollars."""
    return {"per_request": f"${amount}"}


# What most tests run against. First match wins, so free exceptions stand before what they are exceptions of.
MAIN: Json = {
    "pay_to": {"eip155": SELLER, "solana": SOLANA_SELLER},
    "accept": [BASE, BASE_PERMIT2, SEPOLIA],
    "assets": [{"symbol": "TEUR", "network": "eip155:84532", "address": EURO_TOKEN, "decimals": 6, "currency": "eur",
                "transfer": "eip3009", "eip712": {"name": "Test EUR", "version": "1"}}],
    "facilitators": [{"cluster": "facilitator", "url": FACILITATOR_URL, "networks": ["eip155:*", "solana:*"],
                      "verify_timeout": "60s", "settle_timeout": "60s", "headers": FACILITATOR_HEADERS,
                      # Tests share the facilitator: what one has it do to its payments must not open a breaker for the others.
                      "breaker": {"failures": 0}}],
    "pre_check": {"clock_skew": "30s", "max_validity": "1h"},
    "settlement": {"retries": 0, "accept_used_nonce_up_to": "0"},
    "unmatched": "pass",
    "routes": [
        {"name": "free", "match": {"path": "/free"}, "price": "free"},
        {"name": "public-report", "match": {"path": "/reports/public"}, "price": "free"},
        {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "description": "One paid thing",
         "mime_type": "application/json"},
        {"name": "reports", "match": {"path": "/reports/*"}, "price": price("0.02")},
        {"name": "base-only", "match": {"path": "/base-only"}, "price": price("0.01"), "accept": [BASE]},
        {"name": "permit2", "match": {"path": "/permit2"}, "price": price("0.01"), "accept": [BASE_PERMIT2]},
        {"name": "upto", "match": {"path": "/upto"}, "price": price("0.1"), "accept": [UPTO]},
        {"name": "permit", "match": {"path": "/permit"}, "price": price("0.1"), "accept": [PERMIT]},
        {"name": "solana", "match": {"path": "/solana"}, "price": price("0.01"), "accept": [SOLANA_OFFER]},
        {"name": "euro", "match": {"path": "/euro"}, "price": {"per_request": {"usd": "0.01", "eur": "0.009"}},
         "accept": [EURO, SEPOLIA]},
        {"name": "fraction", "match": {"path": "/fraction"}, "price": price("0.0000001"), "accept": [BASE]},
        {"name": "chat", "match": {"methods": ["POST"], "path": "/v1/chat/completions", "model": "gpt-4o*"},
         "price": price("0.05"), "accept": [BASE]},
        {"name": "chat-free", "match": {"methods": ["POST"], "path": "/v1/chat/completions", "model": "tiny"},
         "price": "free"},
        {"name": "tier", "match": {"path": "/tier", "headers": {"x-tier": "gold*"}}, "price": price("0.03"),
         "accept": [BASE]},
        {"name": "host", "match": {"host": "api.example.com", "path": "/host"}, "price": price("0.04"),
         "accept": [BASE]},
        {"name": "named", "match": {"route": "envoy-priced"}, "price": price("0.06"), "accept": [BASE]},
        {"name": "post-only", "match": {"methods": ["POST"], "path": "/post-only"}, "price": price("0.01"),
         "accept": [BASE]},
        {"name": "case", "match": {"path": "/Case", "case_sensitive": True}, "price": price("0.01"), "accept": [BASE]},
    ],
    "access": {"dummy_api_keys": ["x402"], "bypass": [{"header": "x-internal-caller", "value": "friend-of-the-house"}]},
    "replay": {"max_claims": 100000},
    "challenge": {"v1": True, "plain_headers": True, "body": "x402"},
}

ROUTES = [
    route("/named", name="envoy-priced"),
    route("/limited", name="limited", match={"prefix": "/reports/local-reply"}, action={"cluster": "nowhere"}),
    route("/", name="default"),
    route(name="connect", match={"connect_matcher": {}}),
]


def changed(**changes: Any) -> Json:
    """MAIN with other values at its first level; None removes one."""
    config = {**copy.deepcopy(MAIN), **copy.deepcopy(changes)}
    return {key: value for key, value in config.items() if value is not None}


def facilitator_entry(**changes: Any) -> list[Json]:
    """The `facilitators` of MAIN with changes."""
    return [{**MAIN["facilitators"][0], **changes}]


def default_offers(amount: int) -> list[Json]:
    """What MAIN's `accept` must become in a challenge."""
    return [offer(amount), offer(amount, transfer="permit2"), offer(amount, network="eip155:84532")]


class World:
    """One Envoy and its surroundings."""

    def __init__(self, envoy: Envoy, backend: Backend, facilitator: Facilitator, journal: Journal) -> None:
        self.envoy = envoy
        self.backend = backend
        self.facilitator = facilitator
        self.journal = journal

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.envoy.port

    def call(self, path: str | bytes = "/paid", method: str = "GET", headers: Fields = (),
             payment: Payment | None = None, dialect: str = "v2", test_id: str | None = None,
             does: Json | None = None, may_close: bool = False, **more: Any) -> Response:
        """A request with a test id, a payment if there is one, and word for the backend."""
        test_id = test_id or fresh_id()
        fields = self.fields(test_id, headers, payment, dialect, does)
        answer = (client.call_or_closed if may_close else client.call)(self.port, method, path, fields, **more)
        answer.test_id = test_id
        return answer

    def fields(self, test_id: str, headers: Fields = (), payment: Payment | None = None, dialect: str = "v2",
               does: Json | None = None) -> list[tuple[str | bytes, str | bytes]]:
        """The headers that `call` sends."""
        fields = [("x-test-id", test_id), *headers]
        if does is not None:
            fields.append(behave(**does))
        if payment is not None:
            fields += payment.headers(dialect)
        return fields

    def open(self, path: str | bytes = "/paid", method: str = "GET", headers: Fields = (),
             payment: Payment | None = None, dialect: str = "v2", test_id: str | None = None,
             does: Json | None = None, protocol: str = "h1", body: bytes | None = None,
             **more: Any) -> tuple[client.Exchange, str]:
        """A request that was sent and whose answer the test takes step by step; and its test id."""
        test_id = test_id or fresh_id()
        exchange = client.PROTOCOLS[protocol](self.port)
        fields = self.fields(test_id, headers, payment, dialect, does)
        if body is None:
            exchange.start(method, path, fields, **more)
        else:
            exchange.start(method, path, fields, end=False, length=len(body), **more)
            exchange.send(body)
            exchange.finish()
        return exchange, test_id

    def reached(self, answer: Response) -> int:
        """How often the request got to the backend."""
        return len(self.backend.requests(answer.test_id))

    def accepts(self, path: str | bytes = "/paid", **more: Any) -> list[Json]:
        """What a challenge offers for a path."""
        answer = self.call(path, **more)
        assert answer.status == 402, answer
        return answer.challenge["accepts"]

    def payment(self, path: str = "/paid", choose: Callable[[Json], bool] = lambda _: True, payer: Any = None,
                valid_after: int = 0, valid_for: int | None = None, nonce: str | None = None, **more: Any) -> Payment:
        """A good payment for a path, made from its challenge as an official client would."""
        answer = self.call(path, **more)
        assert answer.status == 402, answer
        chosen = next(found for found in answer.challenge["accepts"] if choose(found))
        return pay(chosen, payer, answer.challenge["resource"], valid_after, valid_for, nonce)

    def no_calls(self, payment: Payment) -> None:
        """Nothing was asked of the facilitator about this payment."""
        assert self.facilitator.calls(payment.payload) == []

    def everywhere(self, condition: Callable[[], bool]) -> bool:
        """Whether a condition that makes requests holds on every worker: asked until each has had a connection."""
        pattern = rf"^listener\.127\.0\.0\.1_{self.port}\.worker_\d+\.downstream_cx_total$"
        before = self.envoy.stats(pattern)
        assert len(before) == self.envoy.workers, before
        for _ in range(1000):
            if not condition():
                return False
            if all(now > before[name] for name, now in self.envoy.stats(pattern).items()):
                return bool(condition())
        raise AssertionError("a worker never got a connection")

    def metric(self, name: str) -> float:
        """A counter or gauge of the filter by its dotted name; 0 before it exists."""
        pattern = "(^|\\.)" + name.replace(".", "\\.") + "$"
        return sum(self.envoy.stats(pattern).values())

    def count(self, payment: Payment, what: str) -> int:
        """How often /verify or /settle was called for a payment."""
        return len(self.facilitator.calls(payment.payload, what))


class Worlds:
    """Every Envoy of a run."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.journal = Journal()
        self.backend = Backend(self.loop, self.journal)
        self.facilitator = Facilitator(self.loop, self.journal)
        self._open: dict[str, World] = {}
        self._envoys: list[Envoy] = []

    def world(self, name: str, filter_config: Json | None = None, *, facilitator: Facilitator | None = None,
              facilitator_port: int | list[int] | None = None, version: str = tools.ENVOY_VERSION,
              ready: Callable[[World], bool] | None = None, workers: int = 2,
              edit: Callable[[Json], None] | None = None, **options: Any) -> World:
        """The world of this name, started the first time. `options` go to `gateway`; `edit` changes what it made."""
        if name not in self._open:
            facilitator = facilitator or self.facilitator
            ports = facilitator.port if facilitator_port is None else facilitator_port
            options = {"routes": ROUTES, "buffer_limit": BUFFER, "upgrades": ["websocket", "CONNECT"],
                       "wasm": wasm(), "clusters": [_nowhere()], **options}
            config = gateway(self.backend.port, {"facilitator": ports}, **options)
            if edit is not None:
                edit(config)
            envoy = Envoy(config, filter_config, workers=workers, version=version, name=name)
            self._envoys.append(envoy)
            world = World(envoy, self.backend, facilitator, self.journal)
            if filter_config is not None:
                wait_until(lambda: (ready or _offers_everything)(world), f"{name} makes its offers",
                           alive=lambda: None if envoy.process.running() else "Envoy ended")
            self._open[name] = world
        return self._open[name]

    def close(self) -> None:
        """Stop every Envoy."""
        for envoy in self._envoys:
            envoy.stop()


def wasm() -> Path:
    """The filter under test; X402_WASM names another one."""
    given = os.environ.get("X402_WASM")
    return Path(given) if given else tools.ensure_wasm()


def _nowhere() -> Json:
    from stack.envoy import cluster
    return cluster("nowhere", [])


def _offers_everything(world: World) -> bool:
    # What the facilitator says is fetched after the start.
    return world.everywhere(lambda: world.call("/upto").status == 402 and world.call("/solana").status == 402)


def dead_port() -> int:
    """A port on which nobody listens, and nobody will."""
    return free_port()


__all__ = ["BASE", "MAIN", "SOLANA_USDC", "World", "Worlds", "changed", "default_offers", "facilitator_entry"]
