"""One failing payment: the facilitator is asked, and beside its answer is written what the chain says of the truth.

Knows nothing of what the answers mean. What varies from run to run (hashes, times, ports, gas) is replaced by what does not.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_utils import keccak

from stack.process import wait_until
from tests.clients.payer import Payer
from tests.clients.relay import Relay
from tests.clients.world import Chain, Service
from tests.e2e.payments import Payment, offer, pay

from .facilitators import Kind

AMOUNT = 1000
SCHEMES = {"eip3009": "exact", "permit2": "exact", "upto": "upto"}


class Case:
    """A payer, a seller and a facilitator of their own on a chain that all share. `transfer` is eip3009, permit2 or upto."""

    def __init__(self, kind: Kind, chain: Chain, directory: Path, transfer: str, name: str, *options: str) -> None:
        self.kind, self.chain, self.transfer, self.name = kind, chain, transfer, name
        self.directory, self.options = directory, options
        seed = f"x402-envoy {kind.name} {transfer} {name}"
        self.payer = Payer(chain, "0x" + keccak(text=f"{seed} payer").hex())
        self.seller: str = Account.from_key(keccak(text=f"{seed} seller")).address
        self.nonce = keccak(text=f"{seed} nonce")
        chain.rpc("anvil_setBalance", chain.address(kind.role), hex(10**20))
        self.relays: list[Relay] = []
        self.services: list[Service] = []
        self.answers: list[dict[str, Any]] = []
        self.held = False
        self.url = ""
        self.another()

    @property
    def relay(self) -> Relay:
        """The way of the facilitator that is asked to the chain."""
        return self.relays[-1]

    def another(self) -> None:
        """From now on another instance of the facilitator is asked: same account, nothing remembered."""
        self.relays.append(Relay(self.chain.rpc_url))
        chain = f"{self.chain.facts['chainId']}={self.relay.url}"
        self.services.append(self.kind.start(self.directory, chain, *self.options))
        self.url = self.services[-1].facts["url"]

    def end(self) -> list[dict[str, Any]]:
        """Stops everything; what was recorded."""
        self.hold_blocks(False)
        for service in self.services:
            service.process.stop()
        for relay in self.relays:
            relay.stop()
        return self.answers

    def payment(self, valid_for: int = 300) -> Payment:
        """A good payment."""
        extra = {"facilitatorAddress": self.chain.address(self.kind.role)} if self.transfer == "upto" else {}
        transfer = "eip3009" if self.transfer == "eip3009" else "permit2"
        wanted = offer(AMOUNT, "eip155:84532", SCHEMES[self.transfer], transfer, self.seller, **extra)
        nonce = "0x" + self.nonce.hex() if transfer == "eip3009" else str(int.from_bytes(self.nonce) >> 1)
        return pay(wanted, self.payer.account, valid_for=valid_for, nonce=nonce)

    def hold_blocks(self, hold: bool) -> None:
        """Nothing is mined meanwhile."""
        self.held = hold
        self.chain.hold_blocks(hold)

    def burn(self, payment: Payment, how: str) -> None:
        """The payer makes the nonce useless, in a block of its own."""
        self.chain.mined(self.payer.burn(payment, how))

    def empty(self) -> None:
        """The payer spends all it has, in a block of its own."""
        self.chain.mined(self.payer.empty())

    def verify(self, payment: Payment, at_fault: str, but: str = "") -> dict[str, Any]:
        """Ask /verify."""
        return self._ask("verify", payment, at_fault, but)

    def settle(self, payment: Payment, at_fault: str, but: str = "") -> dict[str, Any]:
        """Ask /settle. `at_fault`: whose doing it is if this fails, `payer`, `facilitator` or `nobody`; `but`: what has happened before."""
        return self._ask("settle", payment, at_fault, but)

    def settling(self, payment: Payment, at_fault: str, but: str = "") -> threading.Thread:
        """Ask /settle, and go on once the transaction has reached the chain."""
        asking = threading.Thread(target=self._ask, args=("settle", payment, at_fault, but), daemon=True)
        self.relay.broadcast.clear()
        asking.start()
        wait_until(lambda: self.relay.broadcast.is_set() or not asking.is_alive(), f"{self.name}: the broadcast")
        return asking

    def dust_settles(self) -> None:
        """What was broadcast is mined, and the answers so far are told of it."""
        self.hold_blocks(False)
        self._mined()
        for answer in self.answers:
            if answer["call"] == "settle":
                answer["truth"].setdefault("moved_later", self._moved())

    def _mined(self) -> None:
        wait_until(lambda: all(self.chain.fate(sent) != "pending" for sent in self._sent()), f"{self.name}: the transactions")

    def _sent(self) -> list[str]:
        return list(dict.fromkeys(sent for relay in self.relays for sent in relay.sent))

    def _moved(self) -> bool:
        balance = self.chain.balance(self.seller)
        assert balance in (0, AMOUNT), balance
        return balance == AMOUNT

    def _ask(self, call: str, payment: Payment, at_fault: str, but: str) -> dict[str, Any]:
        wanted = payment.offer
        before = self._moved()
        request = {"x402Version": 2, "paymentPayload": payment.v2, "paymentRequirements": wanted}
        status, text = post(f"{self.url}/{call}", request)
        # Where blocks are not held, a transaction is mined at once, and that is the truth even if somebody has not seen it yet.
        if not self.held:
            self._mined()
        try:
            body = json.loads(text)
        except ValueError:
            body = text
        answer = {
            "case": self.name, "transfer": self.transfer, "call": call, **({"but": but} if but else {}), "at_fault": at_fault,
            "status": status, "body": body,
            "truth": {
                "moved_before": before, "moved": self._moved(), "nonce_used": self.payer.has_used(payment),
                "transactions": [{"hash": sent, "fate": self.chain.fate(sent)} for sent in self._sent()],
            },
        }
        self.answers.append(answer)
        return answer


def post(url: str, body: Any) -> tuple[int, str]:
    """Status and body of the answer, whatever they are."""
    request = urllib.request.Request(url, method="POST", data=json.dumps(body).encode(), headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()


class Constant:
    """Replaces what varies from run to run, the same by the same."""

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """One string."""
        text = re.sub(r"0x[0-9a-fA-F]{130,}", lambda found: f"0x({len(found[0]) // 2 - 1} bytes)", text)
        text = re.sub(r"0x[0-9a-fA-F]{64}\b", lambda found: self._hash(found[0]), text)
        text = re.sub(r"(127\.0\.0\.1|localhost):\d+", r"\1:8545", text)
        text = re.sub(r"port=\d+", "port=8545", text)
        text = re.sub(r"0x[0-9a-f]{10,12}\b(?=>)", "0x7f0000000000", text)
        text = re.sub(r"\b1[6-9]\d{8}\b", "1700000000", text)
        return re.sub(r", 2[78], (?=0x)", ", 27, ", text)

    def _hash(self, found: str) -> str:
        return self.hashes.setdefault(found.lower(), f"0x{len(self.hashes) + 1:064x}")
