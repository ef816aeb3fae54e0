"""Settlements that fail on chain, between a real Envoy and the official facilitators: nobody pays twice, nobody is served for nothing.

A relay between facilitator and chain, and the chain's own mining, decide when what happens: nothing here depends on the speed of a machine.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from stack.envoy import Envoy, gateway as envoy_config
from stack.process import free_port, wait_until

from . import world
from .checks import decoded, moves, offered
from .payer import BURNS, Payer
from .relay import Relay
from .world import BASE_SEPOLIA, PRICE, PRICE_ATOMIC, Chain, Service

from e2e.client import Response, call  # noqa: E402  (payer.py has put it on the path)
from e2e.payments import Payment, pay  # noqa: E402

# More than `settlement.accept_used_nonce_up_to`, which is $1.
DEAR, DEAR_ATOMIC = "$2", 2_000_000
# Seconds that the facilitators wait for a transaction that is not mined.
RECEIPT_TIMEOUT = 1


class Backend:
    """Answers everything; `then` is done before the next answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.then: Callable[[], object] | None = None
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                backend.asked += 1
                then, backend.then = backend.then, None
                if then is not None:
                    then()
                self.send_response(200)
                self.send_header("content-length", "9")
                self.end_headers()
                self.wfile.write(b"delivered")

            def log_message(self, *_: object) -> None:
                pass

        self.port = free_port()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Shop:
    """A facilitator behind a relay, a backend, and the gateway that uses both."""

    def __init__(self, kind: str, directory: Path, chain: Chain, instances: int = 1) -> None:
        self.kind, self.chain = kind, chain
        self.relay, self.backend = Relay(chain.rpc_url), Backend()
        start, program = (world.node, "facilitator.mjs") if kind == "typescript" else (world.python, "facilitator.py")
        option = f"{chain.facts['chainId']}={self.relay.url}"
        self.facilitators: list[Service] = [
            start(program, directory, "--chain", option, "--receipt-timeout", str(RECEIPT_TIMEOUT)) for _ in range(instances)
        ]
        ways = {"eip3009": {"scheme": "exact", "transfer": "eip3009"}, "permit2": {"scheme": "exact", "transfer": "permit2"},
                "upto": {"scheme": "upto"}}
        self.envoy = Envoy(envoy_config(self.backend.port, {"facilitator": [one.port for one in self.facilitators]}), {
            "pay_to": {"eip155": chain.address("payTo")},
            "facilitators": [{"cluster": "facilitator", "url": "http://facilitator.test", "networks": [BASE_SEPOLIA],
                              "verify_timeout": "60s", "settle_timeout": "60s"}],
            "settlement": {"retries": 1, "retry_budget": "60s"},
            "unmatched": "deny",
            "routes": [
                {"name": f"{name}-{way}", "match": {"path": f"/{name}/{way}"}, "price": {"per_request": price},
                 "accept": [{"network": BASE_SEPOLIA, "asset": "USDC", **terms}]}
                for name, price in (("cheap", PRICE), ("dear", DEAR)) for way, terms in ways.items()
            ],
            # One worker: then the instances of the facilitator are asked in turn.
        }, workers=1)
        for way in ways:
            offered(self.envoy.url(f"/cheap/{way}"))

    def stop(self) -> None:
        self.envoy.stop()
        for facilitator in self.facilitators:
            facilitator.process.stop()
        self.relay.stop()
        self.backend.stop()

    def signed(self, payer: Payer, path: str) -> Payment:
        """A good payment for what is asked there."""
        challenge = call(self.envoy.port, "GET", path)
        (wanted,) = json.loads(base64.b64decode(challenge.header("payment-required")))["accepts"]
        return pay(wanted, payer.account)

    def send(self, path: str, payment: Payment) -> Response:
        """A request with a payment."""
        return call(self.envoy.port, "GET", path, payment.headers())

    def sending(self, path: str, payment: Payment) -> Callable[[], Response]:
        """A request with a payment, on its way; the answer is waited for when it is asked for."""
        answers: list[Response] = []
        thread = threading.Thread(target=lambda: answers.append(self.send(path, payment)), daemon=True)
        thread.start()

        def answer() -> Response:
            thread.join()
            return answers[0]
        return answer

    def count(self, said: str) -> int:
        """How often the facilitator has written this."""
        return sum(one.process.output().count(said) for one in self.facilitators)


@pytest.fixture(scope="module", params=["typescript", "python"])
def shop(request: pytest.FixtureRequest, directory: Path, sepolia: Chain) -> Iterator[Shop]:
    """One for each of the official facilitators."""
    shop = Shop(request.param, directory, sepolia)
    yield shop
    shop.stop()


@pytest.fixture
def payer(sepolia: Chain) -> Iterator[Payer]:
    """Somebody new. Blocks are mined again afterwards, whatever has happened."""
    yield Payer(sepolia, tokens=10 * DEAR_ATOMIC)
    sepolia.hold_blocks(False)


@contextlib.contextmanager
def earns(chain: Chain, amount: int) -> Iterator[None]:
    """Exactly this goes to the seller meanwhile, whatever the payer does with its own money."""
    before = chain.balance(chain.address("payTo"))
    yield
    assert chain.balance(chain.address("payTo")) == before + amount


def refused(answer: Response) -> None:
    """402 with a fresh challenge and a receipt that says that nothing was paid; none of the backend's answer."""
    assert answer.status == 402 and answer.all("payment-required"), answer
    assert b"delivered" not in answer.body
    assert decoded(answer.header("payment-response"))["success"] is False


def pending(answer: Response) -> None:
    """Send the same payment again: no challenge, none of the backend's answer."""
    assert answer.status == 503 and answer.all("retry-after"), answer
    assert json.loads(answer.body)["error"] == "settlement_pending"
    assert b"delivered" not in answer.body and not answer.all("payment-required")


def served(answer: Response) -> dict[str, Any]:
    """The backend's answer, and the receipt for it."""
    assert (answer.status, answer.body) == (200, b"delivered"), answer
    return decoded(answer.header("payment-response"))


WAYS = ["eip3009", "permit2", "upto"]
BURNT = [pytest.param(way, how, id=f"{way}-{how.replace(' ', '-')}")
         for way in WAYS for how in BURNS["eip3009" if way == "eip3009" else "permit2"]]


@pytest.mark.parametrize("way", ["eip3009", "permit2"])
def test_not_mined_in_time(shop: Shop, sepolia: Chain, payer: Payer, way: str) -> None:
    """Broadcast, and mined after everybody has given up: the same payment is then good for the answer, and was paid once."""
    path = f"/cheap/{way}"
    payment = shop.signed(payer, path)
    before = len(shop.relay.sent)
    with moves(sepolia, 0, payer.address):
        sepolia.hold_blocks(True)
        pending(shop.send(path, payment))
        pending(shop.send(path, payment))
        (transaction,) = shop.relay.sent[before:]
        assert sepolia.fate(transaction) == "pending"
    with moves(sepolia, PRICE_ATOMIC, payer.address):
        sepolia.hold_blocks(False)
        receipt = served(shop.send(path, payment))
    assert receipt["transaction"] == transaction
    assert sepolia.transfers(transaction) == [(payer.address.lower(), sepolia.address("payTo").lower(), PRICE_ATOMIC)]
    with moves(sepolia, 0, payer.address):
        assert shop.send(path, payment).status == 402
    assert len(shop.relay.sent) == before + 1


@pytest.mark.parametrize("way", WAYS)
def test_reverted_for_want_of_money(shop: Shop, sepolia: Chain, payer: Payer, way: str) -> None:
    """Verified, checked once more for the settlement, and then the wallet is emptied before the transaction comes: it reverts."""
    path = f"/cheap/{way}"
    payment = shop.signed(payer, path)
    before = len(shop.relay.sent)
    shop.relay.before_broadcast = lambda: sepolia.mined(payer.empty())
    with earns(sepolia, 0):
        refused(shop.send(path, payment))
    (transaction,) = shop.relay.sent[before:]
    assert sepolia.fate(transaction) == "reverted"


@pytest.mark.parametrize("way", WAYS)
def test_emptied_while_the_backend_worked(shop: Shop, sepolia: Chain, payer: Payer, way: str) -> None:
    """The wallet is emptied between /verify and /settle."""
    path = f"/cheap/{way}"
    payment = shop.signed(payer, path)
    asked = shop.backend.asked
    shop.backend.then = lambda: sepolia.mined(payer.empty())
    with earns(sepolia, 0):
        refused(shop.send(path, payment))
    assert shop.backend.asked == asked + 1


@pytest.mark.parametrize(("way", "how"), BURNT)
def test_burnt_while_the_backend_worked(shop: Shop, sepolia: Chain, payer: Payer, way: str, how: str) -> None:
    """The nonce is burnt between /verify and /settle: nothing of ours was sent before, so that it was not us who used it."""
    path = f"/cheap/{way}"
    payment = shop.signed(payer, path)
    shop.backend.then = lambda: sepolia.mined(payer.burn(payment, how))
    with earns(sepolia, 0):
        answer = shop.send(path, payment)
        if (shop.kind, way) == ("typescript", "upto"):
            # It says no more than that a simulation failed, which it does as well when it has settled the payment before.
            pending(answer)
            pending(shop.send(path, payment))
        else:
            refused(answer)
            assert shop.send(path, payment).status == 402
    assert payer.has_used(payment)


@pytest.mark.parametrize(("way", "how"), BURNT)
def test_burnt_while_the_settlement_hangs(shop: Shop, sepolia: Chain, payer: Payer, way: str, how: str) -> None:
    """A facilitator that does not know what became of its transaction, and a payer who has seen to it that nothing did.

    Taking "the nonce is used" for our own doing is bounded: once per payer and hour, and not above `settlement.accept_used_nonce_up_to`.
    """
    def tried(path: str) -> Response:
        payment = shop.signed(payer, path)
        # The payer's transaction is mined first, ours reverts, and the connection to the node breaks before it says so.
        shop.relay.before_broadcast = lambda: sepolia.mined(payer.burn(payment, how))
        shop.relay.lose_answer = True
        answer = shop.send(path, payment)
        assert payer.has_used(payment)
        return answer

    with earns(sepolia, 0):
        pending(tried(f"/dear/{way}"))
        inferred = shop.envoy.metric("x402_settlements_outcome_inferred")
        first = tried(f"/cheap/{way}")
        if (shop.kind, way) == ("typescript", "upto"):
            # It says no more than that a simulation failed.
            pending(first)
        else:
            # It says that the nonce is used, or sends another transaction, which reverts.
            served(first)
            assert shop.envoy.metric("x402_settlements_outcome_inferred") == inferred + 1
        pending(tried(f"/cheap/{way}"))


@pytest.mark.parametrize("way", ["eip3009", "permit2"])
def test_an_honest_payer_whose_settlement_nobody_heard_of(shop: Shop, sepolia: Chain, payer: Payer, way: str) -> None:
    """The money has moved, and the connection to the node breaks before it says so: the payer has its answer, and has paid once."""
    path = f"/cheap/{way}"
    payment = shop.signed(payer, path)
    shop.relay.lose_answer = True
    with moves(sepolia, PRICE_ATOMIC, payer.address):
        served(shop.send(path, payment))


@pytest.mark.parametrize("way", ["eip3009", "permit2"])
def test_overtaken(shop: Shop, sepolia: Chain, payer: Payer, way: str) -> None:
    """A transaction that was named as pending, then overtaken by the payer's own, which burns the nonce: it is no proof of a payment."""
    path = f"/dear/{way}"
    payment = shop.signed(payer, path)
    before, said = len(shop.relay.sent), shop.count("settlement_pending")
    with earns(sepolia, 0):
        sepolia.hold_blocks(True)
        answer = shop.sending(path, payment)
        wait_until(lambda: shop.count("settlement_pending") > said, "the facilitator gives up")
        payer.burn(payment, BURNS[way][0])
        sepolia.hold_blocks(False)
        pending(answer())
        assert sepolia.fate(shop.relay.sent[before]) == "reverted"
        pending(shop.send(path, payment))


@pytest.mark.parametrize("way", ["eip3009", "permit2"])
def test_overtaken_and_asked_elsewhere(directory: Path, sepolia: Chain, payer: Payer, way: str) -> None:
    """As above, but the facilitator has two instances that share no notes: nobody says of the named transaction that it reverted."""
    shop = Shop("typescript", directory, sepolia, instances=2)
    try:
        path = f"/dear/{way}"
        payment = shop.signed(payer, path)
        with earns(sepolia, 0):
            sepolia.hold_blocks(True)
            answer = shop.sending(path, payment)
            wait_until(lambda: shop.count("settlement_pending"), "the facilitator gives up")
            payer.burn(payment, BURNS[way][0])
            sepolia.hold_blocks(False)
            pending(answer())
        assert [sepolia.fate(transaction) for transaction in shop.relay.sent] == ["reverted"]
    finally:
        shop.stop()
