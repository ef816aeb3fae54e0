"""Each client pays for a chat completion; the seller gets exactly the price, and exactly that leaves the payer."""

from __future__ import annotations

import json
import secrets
import subprocess
from typing import Any

import pytest

from .checks import moves, offered
from .world import PRICE_ATOMIC, STACK, Chain, Result, pay

CHAT = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "Hello!"}]})
STREAM = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "Hello!"}], "stream": True})
ANSWER = "Paid and delivered: this answer came through Envoy."


def paid(chain: Chain, result: Result, header: str = "payment-response") -> None:
    """The client was answered, and has a receipt for a transaction that the chain knows."""
    assert result.status == 200, result
    assert header in result.headers
    assert result.receipt is not None and result.receipt["success"] is True
    assert result.receipt["payer"].lower() == chain.address("client").lower()
    assert chain.succeeded(result.receipt["transaction"])


def answered(result: Result) -> None:
    assert result.json["choices"][0]["message"]["content"] == ANSWER


V2_ROUTES = ["", "/permit2", "/upto"]
V2_CLIENTS = [
    pytest.param("fetch.mjs", ".", id="x402-fetch"),
    pytest.param("axios.mjs", "clients-axios", id="x402-axios"),
    pytest.param("pay_httpx.py", ".", id="python-httpx"),
    pytest.param("pay_requests.py", ".", id="python-requests"),
]


@pytest.mark.parametrize("route", V2_ROUTES, ids=["exact", "permit2", "upto"])
@pytest.mark.parametrize(("script", "packages"), V2_CLIENTS)
def test_version_2_client(gateway: Any, sepolia: Chain, script: str, packages: str, route: str) -> None:
    url = gateway.url(f"{route}/v1/chat/completions")
    offered(url)
    with moves(sepolia, PRICE_ATOMIC):
        result = pay(script, url, sepolia.key("client"), packages=packages, BODY=CHAT)
    paid(sepolia, result)
    answered(result)
    assert result.receipt["network"] == "eip155:84532"


def test_get_without_a_body(gateway: Any, sepolia: Chain) -> None:
    with moves(sepolia, PRICE_ATOMIC):
        result = pay("fetch.mjs", gateway.url("/v1/models"), sepolia.key("client"))
    paid(sepolia, result)
    assert result.json["object"] == "list"


def test_streamed_answer(gateway: Any, sepolia: Chain) -> None:
    with moves(sepolia, PRICE_ATOMIC):
        result = pay("fetch.mjs", gateway.url("/v1/chat/completions"), sepolia.key("client"), BODY=STREAM)
    paid(sepolia, result)
    assert result.headers["content-type"].startswith("text/event-stream")
    assert result.body.endswith("data: [DONE]\n\n")


def test_several_offers(gateway: Any, sepolia: Chain) -> None:
    """The client takes the first of them; all are there."""
    url = gateway.url("/any/v1/chat/completions")
    offered(gateway.url("/upto/v1/chat/completions"))
    with moves(sepolia, PRICE_ATOMIC):
        result = pay("fetch.mjs", url, sepolia.key("client"), BODY=CHAT)
    paid(sepolia, result)


def test_version_1_client(gateway: Any, sepolia: Chain) -> None:
    with moves(sepolia, PRICE_ATOMIC):
        result = pay("fetch-v1.mjs", gateway.url("/v1/chat/completions"), sepolia.key("client"),
                     packages="clients-v1", BODY=CHAT)
    paid(sepolia, result, header="x-payment-response")
    answered(result)


@pytest.mark.parametrize("script", ["fetch-named.mjs", "pay_named.py"])
def test_a_payment_signed_anew_under_its_name_is_not_paid_twice(gateway: Any, sepolia: Chain, script: str) -> None:
    """As the official extension has it: the name is the client's word that it is the same purchase."""
    url, name = gateway.url("/v1/chat/completions"), f"pay_{secrets.token_hex(16)}"
    with moves(sepolia, PRICE_ATOMIC):
        first = pay(script, url, sepolia.key("client"), BODY=CHAT, PAYMENT_ID=name)
        again = pay(script, url, sepolia.key("client"), BODY=CHAT, PAYMENT_ID=name)
    paid(sepolia, first)
    answered(first)
    assert again.status == 409 and again.json["error"] == "payment_identifier_conflict" and again.receipt is None
    with moves(sepolia, PRICE_ATOMIC):
        paid(sepolia, pay(script, url, sepolia.key("client"), BODY=CHAT, PAYMENT_ID=f"{name}_2"))


def test_smart_wallet(gateway: Any, sepolia: Chain) -> None:
    """The gateway cannot check such a signature; the facilitator asks the wallet."""
    wallet = sepolia.facts["contracts"]["wallet1271"]
    with moves(sepolia, PRICE_ATOMIC, payer=wallet):
        result = pay("wallet.mjs", gateway.url("/v1/chat/completions"), sepolia.key("walletOwner"), WALLET=wallet, BODY=CHAT)
    answered(result)
    assert result.receipt["payer"].lower() == wallet.lower()


@pytest.mark.parametrize("stream", ["0", "1"], ids=["whole", "stream"])
def test_libertai_authorization(gateway: Any, base: Chain, stream: str) -> None:
    with moves(base, PRICE_ATOMIC):
        result = pay("libertai.mjs", gateway.url("/base/v1/chat/completions"), base.key("client"),
                     BODY=CHAT, STREAM=stream, RPC_URL=base.rpc_url)
    libertai_paid(base, result, stream)
    assert result.more["rpcCalls"] == 0


@pytest.mark.parametrize("stream", ["0", "1"], ids=["whole", "stream"])
def test_libertai_permit(permit_gateway: Any, base: Chain, stream: str) -> None:
    with moves(base, PRICE_ATOMIC):
        result = pay("libertai.mjs", permit_gateway.url("/permit/v1/chat/completions"), base.key("client"),
                     BODY=CHAT, STREAM=stream, RPC_URL=base.rpc_url)
    libertai_paid(base, result, stream)
    assert result.more["rpcCalls"] == 1


def libertai_paid(chain: Chain, result: Result, stream: str) -> None:
    assert "error" not in result.more, result.more
    paid(chain, result, header="x-payment-response")
    assert result.body == ANSWER
    assert result.more["usage"]["completion_tokens"] == 10
    assert (result.more["chunks"] > 10) == (stream == "1")


def test_curl_with_plain_headers(gateway: Any, sepolia: Chain) -> None:
    url = gateway.url("/v1/chat/completions")
    signed = subprocess.run(["node", STACK / "sign-plain.mjs", "-X", "POST", url, "--key", sepolia.key("client")],
                            capture_output=True, text=True, timeout=60)
    assert signed.returncode == 0, signed.stderr
    with moves(sepolia, PRICE_ATOMIC):
        curl = subprocess.run(["curl", "--silent", "--show-error", "--max-time", "60", "-H", "@-",
                               "-H", "content-type: application/json", "-d", CHAT, "-w", "\n%{http_code} %header{payment-response}", url],
                              input=signed.stdout, capture_output=True, text=True)
    assert curl.returncode == 0, curl.stderr
    body, last = curl.stdout.rsplit("\n", 1)
    status, receipt = last.split(" ")
    assert status == "200", curl.stdout
    assert receipt != ""
    answered(Result(status=200, body=body))


def test_nothing_is_paid_for_a_failure_of_the_backend(gateway: Any, sepolia: Chain) -> None:
    with moves(sepolia, 0):
        result = pay("fetch.mjs", gateway.url("/v1/chat/completions"), sepolia.key("client"), BODY=CHAT,
                     HEADERS=json.dumps({"x-answer-status": "500"}))
    assert result.status == 500
    assert result.receipt is None


def test_a_payer_without_money_is_told_so(gateway: Any, sepolia: Chain) -> None:
    with moves(sepolia, 0, payer="penniless"):
        result = pay("fetch.mjs", gateway.url("/v1/chat/completions"), sepolia.key("penniless"), BODY=CHAT)
    assert result.status == 402
    assert "choices" not in result.body


def test_a_free_route_needs_no_payment(gateway: Any, sepolia: Chain) -> None:
    with moves(sepolia, 0):
        result = pay("fetch.mjs", gateway.url("/healthz"), sepolia.key("client"))
    assert (result.status, result.receipt) == (200, None)
