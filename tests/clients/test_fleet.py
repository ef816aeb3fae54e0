"""Claims that two Envoys share, with real payments: official clients pay at either, and the chain agrees with the ledger."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Iterator

import pytest
from eth_account import Account

from stack import tools
from stack.envoy import Envoy, cluster, gateway as envoy_config
from stack.ledger import Ledger
from stack.process import wait_until

from .credits import CHAT, COMPLETIONS, OFFER
from .payer import Payer, call
from .world import BASE_SEPOLIA, PRICE, PRICE_ATOMIC, Chain, Service, node, pay

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.client import Response, call as ask  # noqa: E402
from e2e.payments import Payment, pay as sign  # noqa: E402


class Fleet:
    """Two Envoys, whose facilitator is the ledger; sold for an account that nobody else is paid at."""

    def __init__(self, directory: Path, backend: Service, facilitator: Service, chain: Chain) -> None:
        self.chain = chain
        self.facilitator = facilitator
        self.seller = Account.create().address
        self.ledger = Ledger(directory, {
            "pay_to": {"eip155": self.seller}, "accept": [OFFER],
            "facilitators": [{"url": facilitator.facts["url"], "verify_timeout": "10s", "settle_timeout": "30s"}],
        })
        config = {
            "pay_to": {"eip155": self.seller}, "accept": [OFFER], "unmatched": "deny", "replay": {"claims": "shared"},
            "facilitators": [{"cluster": "ledger", "url": "http://ledger.test/internal/v1/facilitators/0", "networks": [BASE_SEPOLIA],
                              "verify_timeout": "20s", "settle_timeout": "60s", "headers": {"authorization": f"Bearer {self.ledger.token}"}}],
            "routes": [{"name": "chat", "match": {"path": COMPLETIONS}, "price": {"per_request": PRICE}}],
        }
        self.envoys = [Envoy(envoy_config(backend.port, {}, clusters=[cluster("ledger", self.ledger.port)]), config, directory=directory / name)
                       for name in ("one", "two")]
        for envoy in self.envoys:
            wait_until(lambda: self.send(envoy).status == 402, "it makes its offer")

    def send(self, envoy: Envoy, payment: Payment | None = None) -> Response:
        """A chat completion."""
        return ask(envoy.port, "POST", COMPLETIONS, [("content-type", "application/json"), *(payment.headers() if payment else [])], CHAT.encode())

    def payment(self, payer: Payer) -> Payment:
        """Signed, and not sent."""
        asked = self.send(self.envoys[0]).challenge
        return sign(asked["accepts"][0], payer.account, asked["resource"])

    def settle(self, body: dict) -> str:
        """Past the ledger; the transaction."""
        request = urllib.request.Request(f"{self.facilitator.facts['url']}/settle", method="POST", data=json.dumps(body).encode(),
                                         headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)
        assert said["success"] is True, said
        return said["transaction"]

    def reconcile(self, key: bool = True) -> list[str]:
        """What differs, as the command says."""
        env = {"PATH": "/usr/bin:/bin", **self.ledger.env, **({} if key else {"X402_LEDGER_KEY": ""})}
        done = subprocess.run([tools.ensure_ledger(), "reconcile", "--rpc", f"{BASE_SEPOLIA}={self.chain.rpc_url}"], env=env, capture_output=True,
                              text=True)
        said = [line for line in done.stderr.splitlines() if line.startswith("x402-ledger: ")]
        assert done.returncode == (1 if said else 0), (done.stdout, said)
        assert f", {len(said)} differences" in done.stdout
        return said

    def stop(self) -> None:
        for envoy in self.envoys:
            envoy.stop()
        self.ledger.stop()


@pytest.fixture(scope="module")
def fleet(directory: Path, backend: Service, sepolia: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    facilitator = node("facilitator.mjs", directory, "--chain", sepolia.option)
    found = Fleet(tmp_path_factory.mktemp("fleet"), backend, facilitator, sepolia)
    yield found
    found.stop()
    facilitator.process.stop()


@pytest.fixture(scope="module")
def payer(sepolia: Chain) -> Payer:
    return Payer(sepolia)


def served_once(fleet: Fleet, payment: Payment) -> None:
    """Whoever comes with it now is told that it is spent."""
    for envoy in fleet.envoys:
        answer = wait_until(lambda: (found := fleet.send(envoy, payment)).status != 409 and found, "it is delivered")
        assert answer.status == 402 and answer.json()["error"] == "nonce_already_used", answer


def test_official_clients_pay_at_either(fleet: Fleet, sepolia: Chain) -> None:
    for index, (envoy, script) in enumerate(zip(fleet.envoys, ("fetch.mjs", "pay_httpx.py"))):
        result = pay(script, envoy.url(COMPLETIONS), sepolia.key("client"), BODY=CHAT)
        assert result.status == 200 and result.receipt["success"] is True
        assert sepolia.fate(result.receipt["transaction"]) == "mined"
        assert sepolia.balance(fleet.seller) == (index + 1) * PRICE_ATOMIC
    assert fleet.reconcile() == []


def test_one_payment_pays_once_at_both(fleet: Fleet, sepolia: Chain, payer: Payer) -> None:
    before, payment = sepolia.balance(fleet.seller), fleet.payment(payer)
    answer = fleet.send(fleet.envoys[0], payment)
    assert answer.status == 200 and answer.receipt["success"] is True
    served_once(fleet, payment)
    assert sepolia.balance(fleet.seller) == before + PRICE_ATOMIC


def test_what_differs_from_the_chain_is_told(fleet: Fleet, sepolia: Chain, payer: Payer) -> None:
    assert fleet.reconcile() == []
    payment = fleet.payment(payer)
    assert fleet.send(fleet.envoys[1], payment).status == 200
    served_once(fleet, payment)
    made_up = "0x" + "ab" * 32
    row = next(line for line in fleet.ledger.command("intents").splitlines() if payment.payer.address.lower() in line.lower() and ",settled," in line)
    claim, moved = row.split(",")[0], row.split(",")[7]
    fleet.ledger.sql(f"UPDATE intents SET transaction_id = '{made_up}' WHERE claim = '{claim}'")
    assert sorted(fleet.reconcile()) == [
        f"x402-ledger: intent {claim}: the chain has no transaction {made_up}",
        f"x402-ledger: transaction {moved}: {PRICE_ATOMIC} came in, and the ledger knows nothing of it",
    ]
    fleet.ledger.sql(f"UPDATE intents SET transaction_id = '{moved}', amount = '7' WHERE claim = '{claim}'")
    assert fleet.reconcile() == [f"x402-ledger: intent {claim}: settled for 7, and transaction {moved} moved {PRICE_ATOMIC}"]
    fleet.ledger.sql(f"UPDATE intents SET amount = '{PRICE_ATOMIC}' WHERE claim = '{claim}'")
    assert fleet.reconcile() == []


def test_what_the_chain_says_of_open_settlements(fleet: Fleet, sepolia: Chain, payer: Payer) -> None:
    payments = {"11": fleet.payment(payer), "22": fleet.payment(payer), "33": fleet.payment(payer)}
    bodies = {byte: {"x402Version": 2, "paymentPayload": payment.v2, "paymentRequirements": payment.offer} for byte, payment in payments.items()}
    for byte, body in bodies.items():
        headers = {"authorization": f"Bearer {fleet.ledger.token}", "x-x402-intent": f"{byte * 16};claim={byte * 16};until=1900000000"}
        status, _, said = fleet.ledger.call("POST", "/internal/v1/facilitators/0/verify", body, headers)
        assert status == 200 and said["isValid"] is True, said
    fleet.ledger.sql("UPDATE intents SET state = 'unknown', next_attempt_at = 9000000000000, attempts = 1 WHERE claim IN "
                     f"('{'11' * 16}', '{'22' * 16}', '{'33' * 16}')")
    payer.burn(payments["22"], "cancelAuthorization")
    paid = fleet.settle(bodies["33"])
    said = fleet.reconcile()
    assert said[0] == f"x402-ledger: intent {'11' * 16}: its settlement is open, and its nonce is not used"
    assert said[1].startswith(f"x402-ledger: intent {'22' * 16}: its settlement is open, and ") and "its nonce" in said[1] and "not used" not in said[1]
    assert said[2] == f"x402-ledger: intent {'33' * 16}: its settlement is open, and transaction {paid} has paid it"
    assert len(said) == 3
    assert "X402_LEDGER_KEY opens the payload" in fleet.reconcile(key=False)[0]
    # As it is when nobody looks: sent again, each comes to its end.
    fleet.ledger.sql("UPDATE intents SET next_attempt_at = 0 WHERE state = 'unknown'")
    wait_until(lambda: any(line.startswith("11" * 16 + ",settled,") for line in fleet.ledger.command("intents").splitlines()), "it is settled")
    assert sepolia.transfers(paid)[0][2] == PRICE_ATOMIC and payer.has_used(payments["11"])


def test_money_that_came_in_otherwise(fleet: Fleet, payer: Payer) -> None:
    open_before = fleet.reconcile()
    transaction = payer.send(payer.token, call("transfer(address,uint256)", fleet.seller, 5))
    found = [line for line in fleet.reconcile() if line not in open_before]
    assert found == [f"x402-ledger: transaction {transaction}: 5 came in, and the ledger knows nothing of it"]
