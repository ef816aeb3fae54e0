"""Prepaid credits as their users have them: official clients top up through a real Envoy and the real ledger, on both of its databases.

The chain says what was paid, the ledger's journal what was credited and charged.
"""

from __future__ import annotations

import json
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, Iterator

import pytest

from stack.ledger import Account, Json
from stack.postgres import Postgres
from stack.process import wait_until

from .checks import moves
from .credits import CHAT, COMPLETIONS, FUND, SETTLE, WEBHOOK, Shop, Wire
from .payer import Payer
from .world import BASE_SEPOLIA, PRICE_ATOMIC, Chain, Service, node

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.checks import leaks  # noqa: E402
from e2e.client import Response  # noqa: E402
from e2e.payments import Payment, pay as sign  # noqa: E402

CLIENTS = [pytest.param("fetch.mjs", id="x402-fetch"), pytest.param("pay_httpx.py", id="python-httpx")]
ANSWER = "Paid and delivered: this answer came through Envoy."
DOLLAR = 1_000_000
# The default tiers, the default one first.
TIERS = ["1000000", "5000000", "10000000", "20000000"]
BALANCE, TRANSACTIONS = "/v1/billing/balance", "/v1/billing/transactions"


@pytest.fixture(scope="module")
def official(directory: Path, sepolia: Chain) -> Iterator[Service]:
    """One of the official facilitators."""
    service = node("facilitator.mjs", directory, "--chain", sepolia.option)
    yield service
    service.process.stop()


@pytest.fixture(scope="module")
def wire(official: Service) -> Iterator[Wire]:
    """The way to it."""
    found = Wire(official.facts["url"])
    yield found
    found.stop()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, backend: Service, wire: Wire, sepolia: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """With the default tiers."""
    server = Postgres() if request.param == "postgres" else None
    found = Shop(tmp_path_factory.mktemp("shop"), backend.port, wire.url, sepolia.address("payTo"), server and server.database())
    yield found
    found.stop()
    if server:
        server.stop()


@pytest.fixture(scope="module")
def dear(backend: Service, wire: Wire, sepolia: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Where the least that one can buy is more than clients pay by themselves."""
    found = Shop(tmp_path_factory.mktemp("dear"), backend.port, wire.url, sepolia.address("payTo"), tiers=["$5"], max_topup="$100")
    yield found
    found.stop()


@pytest.fixture(scope="module")
def payer(sepolia: Chain) -> Payer:
    """Somebody who shares the tokens with no other test."""
    return Payer(sepolia, tokens=1000 * DOLLAR)


def signed(payer: Payer, challenge: Json, amount: int = DOLLAR) -> Payment:
    """A payment for what was asked, or for what was not."""
    offers = {offer["amount"]: offer for offer in challenge["accepts"]}
    offer = offers.get(str(amount)) or {**challenge["accepts"][0], "amount": str(amount)}
    return sign(offer, payer.account, challenge["resource"])


def asked(shop: Shop, account: Account) -> Json:
    """What a completion costs somebody who has nothing."""
    answer = shop.ask(account, CHAT, COMPLETIONS)
    assert answer.status == 402
    return answer.challenge


def served(shop: Shop, account: Account, payment: Payment) -> Response:
    """A completion, with this payment: sent again while another request settles it, as the answer then says to."""
    def answer() -> Response | None:
        found = shop.ask(account, CHAT, COMPLETIONS, payment)
        in_use = found.status == 409 and found.json()["error"]["code"] == "payment_in_use"
        return None if in_use else found

    return wait_until(answer, "no other request settles the payment")


def charged(account: Account, requests: int) -> None:
    """So many are captured, each for its price, and nothing is held any more."""
    wait_until(lambda: account.held == 0 and account.spent == requests * PRICE_ATOMIC, f"{requests} requests are captured")
    for kind in ("reservation", "usage"):
        assert [row["amount"] for row in account.rows(kind)] == ["0.001"] * requests


def credited(chain: Chain, account: Account, *transactions: str) -> None:
    """By these transactions and no other ones, all of which are mined."""
    rows = account.rows("x402_topup")
    assert [row["payment"] for row in rows] == [f"{BASE_SEPOLIA}/{transaction}" for transaction in transactions]
    for row, transaction in zip(rows, transactions):
        [(_, to, amount)] = chain.transfers(transaction)
        assert to == chain.address("payTo").lower()
        assert row["amount"] == f"{amount // DOLLAR}.00"


def said(answer: Any) -> str:
    """The text of a completion."""
    return answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("script", CLIENTS)
def test_an_official_client_tops_up_and_is_served_from_the_balance_from_then_on(shop: Shop, sepolia: Chain, payer: Payer, script: str) -> None:
    account = shop.account()
    refused = shop.ask(account, CHAT, COMPLETIONS)
    assert refused.status == 402 and refused.json()["error"]["code"] == "insufficient_credits"
    assert [offer["amount"] for offer in refused.challenge["accepts"]] == TIERS
    assert {offer["payTo"] for offer in refused.challenge["accepts"]} == {sepolia.address("payTo")}
    assert refused.challenge["resource"]["url"].endswith(COMPLETIONS)
    assert account.rows() == []

    with moves(sepolia, DOLLAR, payer.address):
        result = shop.client(payer.key, account, script=script)
    assert result.status == 200 and said(result.json) == ANSWER
    assert result.receipt["success"] is True and result.receipt["payer"].lower() == payer.address.lower()
    credited(sepolia, account, result.receipt["transaction"])
    charged(account, 1)
    assert account.balance == DOLLAR - PRICE_ATOMIC

    with moves(sepolia, 0, payer.address):
        result = shop.client(payer.key, account, script=script)
    assert result.status == 200 and said(result.json) == ANSWER and result.receipt is None
    charged(account, 2)
    assert (account.balance, account.funded) == (DOLLAR - 2 * PRICE_ATOMIC, DOLLAR)


@pytest.mark.parametrize("stream", ["0", "1"], ids=["whole", "stream"])
def test_an_sdk_tops_up(shop: Shop, sepolia: Chain, payer: Payer, stream: str) -> None:
    """OpenAI's, which pays by an official client in place of its fetch."""
    account = shop.account()
    with moves(sepolia, DOLLAR, payer.address):
        result = shop.client(payer.key, account, script="sdk-openai.mjs", STREAM=stream)
    assert result.status == 200 and result.body == ANSWER
    charged(account, 1)
    with moves(sepolia, 0, payer.address):
        assert shop.client(payer.key, account, script="sdk-openai.mjs", STREAM=stream).body == ANSWER
    charged(account, 2)
    assert (account.balance, account.funded) == (DOLLAR - 2 * PRICE_ATOMIC, DOLLAR)


def test_a_payment_that_is_sent_again_is_credited_once(shop: Shop, sepolia: Chain, payer: Payer) -> None:
    account = shop.account()
    payment = signed(payer, asked(shop, account))
    with moves(sepolia, DOLLAR, payer.address):
        answers = [served(shop, account, payment) for _ in range(6)]
    assert [(answer.status, said(answer.json())) for answer in answers] == [(200, ANSWER)] * 6
    [transaction] = {answer.receipt["transaction"] for answer in answers}
    credited(sepolia, account, transaction)
    charged(account, 6)
    assert account.balance == DOLLAR - 6 * PRICE_ATOMIC


def test_a_payment_that_comes_eight_times_at_once_is_credited_once(shop: Shop, sepolia: Chain, payer: Payer) -> None:
    account = shop.account()
    payment, together = signed(payer, asked(shop, account)), Barrier(8)

    def send(_: int) -> Response:
        together.wait(60)
        return served(shop, account, payment)

    with moves(sepolia, DOLLAR, payer.address), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    [transaction] = {answer.receipt["transaction"] for answer in answers}
    credited(sepolia, account, transaction)
    charged(account, 8)
    assert account.balance == DOLLAR - 8 * PRICE_ATOMIC


def test_a_payment_of_another_tenant_credits_nobody_again(shop: Shop, sepolia: Chain, payer: Payer) -> None:
    account, other = shop.account(), shop.account()
    payment = signed(payer, asked(shop, account))
    with moves(sepolia, DOLLAR, payer.address):
        assert served(shop, account, payment).status == 200
        answer = shop.ask(other, CHAT, COMPLETIONS, payment)
    assert answer.status == 402 and answer.json()["error"]["code"] == "nonce_already_used"
    assert not answer.has_receipt and other.rows() == []
    charged(account, 1)


def test_a_client_pays_no_more_than_its_cap(dear: Shop, sepolia: Chain, payer: Payer) -> None:
    """@x402/fetch has one of a dollar. It does not send the request again then, and throws."""
    account = dear.account()
    assert [offer["amount"] for offer in asked(dear, account)["accepts"]] == ["5000000"]
    capped = r"rejected by spendControls\.maxAmountPerPayment \(\$1, including USDC\)"
    with moves(sepolia, 0, payer.address), pytest.raises(AssertionError, match=capped):
        dear.client(payer.key, account)
    assert account.rows() == []
    with moves(sepolia, 5 * DOLLAR, payer.address):
        result = dear.client(payer.key, account, cap="$5")
    assert result.status == 200 and said(result.json) == ANSWER
    credited(sepolia, account, result.receipt["transaction"])
    charged(account, 1)
    assert account.balance == 5 * DOLLAR - PRICE_ATOMIC


@pytest.mark.parametrize("amount", ["100.000001", "100.01", "0.009999", "0", "-1", "ten", "1.0000001", None])
def test_funding_beyond_the_bounds_is_refused(dear: Shop, sepolia: Chain, payer: Payer, amount: str | None) -> None:
    """With a payment that would have been good, too."""
    account = dear.account()
    payment = signed(payer, dear.ask(account, {"amount": "100.00"}).challenge, 100 * DOLLAR)
    with moves(sepolia, 0, payer.address):
        for paying in (None, payment):
            answer = dear.ask(account, {"amount": amount}, payment=paying)
            assert answer.status == 400 and answer.json()["error"]["code"] == "invalid_amount"
            assert answer.header("payment-required") is None and answer.header("x-payment-intent-id") is None
    assert account.rows() == []


def test_funding_at_the_bounds(dear: Shop, sepolia: Chain, payer: Payer) -> None:
    account = dear.account()
    for text, amount in (("100.00", 100 * DOLLAR), ("$0.01", 10_000)):
        payment = signed(payer, dear.ask(account, {"amount": text}).challenge, amount)
        with moves(sepolia, amount, payer.address):
            assert dear.ask(account, {"amount": text}, payment=payment).status == 200
    assert account.balance == account.funded == 100 * DOLLAR + 10_000


@pytest.mark.parametrize("amount", [PRICE_ATOMIC, DOLLAR - 1, DOLLAR + 1, 2 * DOLLAR])
def test_a_payment_of_an_amount_that_is_no_tier_is_refused(shop: Shop, sepolia: Chain, payer: Payer, amount: int) -> None:
    account = shop.account()
    payment = signed(payer, asked(shop, account), amount)
    with moves(sepolia, 0, payer.address):
        answer = shop.ask(account, CHAT, COMPLETIONS, payment)
    assert answer.status == 402 and not answer.has_receipt
    assert [offer["amount"] for offer in answer.challenge["accepts"]] == TIERS
    assert account.rows() == [] and not payer.has_used(payment)


@pytest.mark.parametrize("path", [COMPLETIONS, FUND])
def test_an_unknown_key_is_refused_whatever_it_pays(shop: Shop, sepolia: Chain, payer: Payer, path: str) -> None:
    account, body = shop.account(), CHAT if path == COMPLETIONS else {"amount": "1.00"}
    payment = signed(payer, shop.ask(account, body, path).challenge)
    with moves(sepolia, 0, payer.address):
        answer = shop.ask("x402_of-nobody", body, path, payment)
    assert answer.status == 401 and not answer.has_receipt
    assert not payer.has_used(payment)
    # It was good: for whom it was meant it is taken.
    with moves(sepolia, DOLLAR, payer.address):
        assert shop.ask(account, body, path, payment).status == 200


def test_an_intent_is_made_paid_and_looked_up(shop: Shop, sepolia: Chain, payer: Payer) -> None:
    """The workspace is the key's, whatever a body says."""
    account, other = shop.account(), shop.account()
    body = {"amount": "10.00", "tenant": other.tenant, "workspace": other.tenant}
    wanted = shop.ask(account, body)
    assert wanted.status == 402
    intent = wanted.json()["payment_intent_id"]
    assert intent.startswith("pi_") and wanted.header("x-payment-intent-id") == intent
    assert wanted.json()["amount"] == "10.00" and wanted.json()["error"]["code"] == "insufficient_credits"
    assert [offer["amount"] for offer in wanted.challenge["accepts"]] == ["10000000"]
    assert wanted.challenge["resource"]["url"].endswith(FUND)
    waiting = shop.ask(account, {"payment_intent_id": intent}, SETTLE)
    assert (waiting.status, waiting.json()["status"], waiting.json()["balance"]) == (200, "requires_payment", "0.00")

    body = {**body, "payment_intent_id": intent}
    assert shop.ask(account, body).json()["payment_intent_id"] == intent
    payment = signed(payer, wanted.challenge, 10 * DOLLAR)
    with moves(sepolia, 10 * DOLLAR, payer.address):
        paid = shop.ask(account, body, payment=payment)
    assert paid.status == 200 and paid.header("payment-required") is None
    transaction = paid.receipt["transaction"]
    facts = {"payment_intent_id": intent, "status": "settled", "amount": "10.00", "transaction": transaction, "network": BASE_SEPOLIA}
    assert facts.items() <= paid.json().items()
    credited(sepolia, account, transaction)

    for _ in range(3):
        found = shop.ask(account, {"payment_intent_id": intent, "tenant": other.tenant}, SETTLE)
        assert found.status == 200 and {**facts, "balance": "10.00"}.items() <= found.json().items()
    # What is settled is not bought again: not with the same payment, and not with another one.
    with moves(sepolia, 0, payer.address):
        for paying in (payment, signed(payer, wanted.challenge, 10 * DOLLAR), None):
            answer = shop.ask(account, body, payment=paying)
            assert answer.status == 200 and facts.items() <= answer.json().items()
    for path, asks in ((SETTLE, {"payment_intent_id": intent}), (FUND, body)):
        answer = shop.ask(other, asks, path)
        assert answer.status == 404 and answer.json()["error"]["code"] == "no_such_intent"
        assert transaction not in answer.body.decode()
    assert other.rows() == [] and other.balance == 0
    assert shop.ask(None, {"payment_intent_id": intent}, SETTLE).status == 401

    assert shop.ask(account, None, BALANCE).json() == {"tenant": account.tenant, "available": "10.00", "reserved": "0.00", "currency": "usd"}
    listed = shop.ask(account, None, TRANSACTIONS)
    [row] = listed.json()["data"]
    assert (row["kind"], row["amount"], row["reference"]) == ("x402_topup", "10.00", intent)
    assert row["payment"] == f"{BASE_SEPOLIA}/{transaction}" and not listed.json()["has_more"]
    table = shop.ask(account, None, f"{TRANSACTIONS}?format=csv")
    assert table.header("content-type").startswith("text/csv")
    names, line = table.body.decode().splitlines()
    columns = dict(zip(names.split(","), line.split(",")))
    assert columns == {name: str(value) for name, value in row.items()}
    for path in (BALANCE, TRANSACTIONS, f"{TRANSACTIONS}?format=csv"):
        assert shop.ask(None, None, path).status == 401
    assert shop.ask(other, None, TRANSACTIONS).json()["data"] == []
    assert len(shop.ask(other, None, f"{TRANSACTIONS}?format=csv").body.splitlines()) == 1


def test_an_official_client_funds(shop: Shop, sepolia: Chain, payer: Payer) -> None:
    """It pays without a word of the intent that it was told of."""
    account = shop.account()
    with moves(sepolia, DOLLAR, payer.address):
        result = shop.client(payer.key, account, json.dumps({"amount": "1.00"}), FUND)
    assert result.status == 200 and result.json["status"] == "settled" and result.receipt["success"] is True
    found = shop.ask(account, {"payment_intent_id": result.json["payment_intent_id"]}, SETTLE).json()
    assert (found["status"], found["balance"], found["transaction"]) == ("settled", "1.00", result.receipt["transaction"])
    credited(sepolia, account, result.receipt["transaction"])


def succeeded(intent: str, transaction: str, amount: str = "1.00") -> Json:
    """What somebody says who has seen an intent's payment."""
    return {"id": f"evt_{secrets.token_hex(8)}", "type": "payment_intent.succeeded", "data": {
        "payment_intent_id": intent, "amount": amount, "transaction": transaction, "network": BASE_SEPOLIA, "payer": "0x" + "11" * 20}}


def test_webhooks_and_polls_at_once_credit_each_intent_once(shop: Shop) -> None:
    account = shop.account()
    intents = {shop.ask(account, {"amount": "1.00"}).json()["payment_intent_id"]: f"0x{number:064x}" for number in range(1, 101)}
    assert len(intents) == 100

    def webhook(intent: str, together: Barrier) -> Response:
        body, signature = shop.signed(succeeded(intent, intents[intent]))
        together.wait(60)
        return shop.ask(None, body, WEBHOOK, x402_signature=signature)

    def poll(intent: str, together: Barrier) -> Response:
        together.wait(60)
        return shop.ask(account, {"payment_intent_id": intent}, SETTLE)

    with ThreadPoolExecutor(4) as pool:
        for intent in intents:
            together = Barrier(4)
            hooks = [pool.submit(webhook, intent, together) for _ in range(2)]
            polls = [pool.submit(poll, intent, together) for _ in range(2)]
            assert [(hook.result().status, hook.result().json()) for hook in hooks] == [(200, {"received": True})] * 2
            for answer in (one.result() for one in polls):
                assert answer.status == 200 and answer.json()["status"] in ("requires_payment", "settled")
            assert poll(intent, Barrier(1)).json()["status"] == "settled"
    rows = account.rows()
    assert {row["reference"]: row["payment"] for row in rows} == {intent: f"{BASE_SEPOLIA}/{paid}" for intent, paid in intents.items()}
    assert [(row["kind"], row["amount"]) for row in rows] == [("x402_topup", "1.00")] * 100
    assert account.balance == 100 * DOLLAR


def test_a_webhook_that_is_not_signed_is_not_believed(shop: Shop) -> None:
    account = shop.account()
    intent = shop.ask(account, {"amount": "1.00"}).json()["payment_intent_id"]
    event = succeeded(intent, "0x" + "22" * 32)
    body, good = shop.signed(event)
    other, _ = shop.signed(succeeded(intent, "0x" + "33" * 32))
    refused = [
        (body, {}), (body, {"x402_signature": ""}), (other, {"x402_signature": good}), (body, {"x402_signature": good[:-1]}),
        *((sent, {"x402_signature": signature}) for sent, signature in (
            shop.signed(event, secret="another secret"), shop.signed(event, age=301), shop.signed(event, age=-3600))),
    ]
    for sent, headers in refused:
        answer = shop.ask(None, sent, WEBHOOK, **headers)
        assert answer.status == 400 and answer.json()["error"]["code"] == "invalid_signature", headers
    # A key is no signature.
    assert shop.ask(account, body, WEBHOOK).status == 400
    assert account.rows() == []
    for wrong, status in ((succeeded(intent, "", "2.00"), 409), (succeeded("pi_of-nobody", ""), 404)):
        sent, signature = shop.signed(wrong)
        assert shop.ask(None, sent, WEBHOOK, x402_signature=signature).status == status
    assert account.rows() == []
    assert shop.ask(None, body, WEBHOOK, x402_signature=good).status == 200
    assert account.balance == DOLLAR


def test_what_was_said_and_who_said_it_is_kept_nowhere(shop: Shop, wire: Wire, official: Service, sepolia: Chain, payer: Payer) -> None:
    """No prompt, no answer, no API key, and no signature once its payment has ended: neither in the database nor in a log."""
    account, canary, query = shop.account(), f"canary{secrets.token_hex(12)}", f"canary{secrets.token_hex(12)}"
    challenge = asked(shop, account)
    payment = signed(payer, challenge)
    chat = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": canary}]})
    answers = [shop.ask(account, chat, COMPLETIONS, payment)]
    # Here the backend answers with the prompt.
    answers.append(shop.ask(account, chat, f"/echo?q={query}"))
    assert [answer.status for answer in answers] == [200, 200]
    assert said(answers[0].json()) == ANSWER and canary in answers[1].body.decode()
    funding = signed(payer, shop.ask(account, {"amount": "1.50", "note": canary}).challenge, 1_500_000)
    answers.append(shop.ask(account, {"amount": "1.50", "note": canary}, payment=funding))
    assert answers[2].status == 200
    # Refused payments are told of, too.
    unfit, last = signed(payer, challenge, 2 * DOLLAR), secrets.token_hex(8)
    assert shop.ask(account, chat, COMPLETIONS, unfit, x_test_id=last).status == 402
    charged(account, 2)

    shop.envoy.access_log(test_id=last)
    places = {
        "the database": shop.ledger.stored(), "the ledger's log": shop.ledger.logs().encode(), "Envoy's log": shop.envoy.log().encode(),
        "Envoy's access log": shop.envoy.access_log_file.read_bytes(), "the facilitator's log": official.process.output().encode(),
        "what the facilitator was told": wire.said,
    }
    transaction, topup = answers[0].receipt["transaction"], account.rows("x402_topup")[-1]["reference"]
    # These are looked for where they are, so that nothing is found because nothing was looked at.
    for place, known in (("the database", account.tenant), ("the database", transaction), ("the ledger's log", topup),
                         ("Envoy's access log", COMPLETIONS), ("Envoy's log", "x402"), ("the facilitator's log", transaction),
                         ("what the facilitator was told", payment.payload["signature"]), ("what the facilitator was told", shop.facilitator_key)):
        assert known.encode() in places[place], (place, known)
    secret = {"the prompt": canary, "the completion": ANSWER, **{f"key {number}": key for number, key in enumerate(shop.keys)},
              **{name: shop.ledger.env[f"X402_LEDGER_{name}"] for name in ("TOKEN", "ADMIN_TOKEN", "WEBHOOK_SECRET", "KEY")}}
    # Of these the facilitator is told.
    signatures = {"the facilitator's key": shop.facilitator_key}
    for name, one in (("payment", payment), ("funding", funding), ("unfit", unfit)):
        [(_, header)] = one.headers()
        assert leaks(one.payload["signature"], header.encode())
        signatures |= {f"signature of {name}": one.payload["signature"][2:], f"header of {name}": header}
    for place, content in places.items():
        told = place == "what the facilitator was told"
        # Envoy's access log has paths as they came: that is its own.
        asked_for = {} if place == "Envoy's access log" else {"the query": query}
        found = [name for name, text in {**secret, **asked_for, **({} if told else signatures)}.items() if leaks(text, content)]
        assert found == [], f"in {place}"
