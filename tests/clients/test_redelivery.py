"""What was paid for and not delivered: official clients lose their connections, and send their payments again as a library for retries would.

The chain says how often they have paid.
"""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from eth_abi import decode
from eth_utils import keccak, to_checksum_address

from stack.envoy import Envoy, gateway as envoy_config
from stack.process import wait_until

from .checks import moves, settlements
from .payer import unhex
from .world import BASE_SEPOLIA, PRICE, PRICE_ATOMIC, Chain, Result, Service, pay

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.client import Response, call  # noqa: E402
from e2e.payments import encode  # noqa: E402

CLIENTS = [pytest.param("fetch-kept.mjs", id="x402-fetch"), pytest.param("pay_kept.py", id="python-httpx")]
CHAT = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "Hello!"}]})
STREAM = json.dumps({**json.loads(CHAT), "stream": True})
ANSWER = "Paid and delivered: this answer came through Envoy."
COMPLETIONS = "/v1/chat/completions"
# After so many chunks of text the backend pauses, and the client leaves.
CUT = 3
# How tokens are moved with a signature: as the facilitators write it, with the signature in one piece or in three.
ONE_PIECE = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"
THREE_PIECES = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"


def shop(facilitator: Service, backend: Service, chain: Chain, **more: Any) -> Envoy:
    """A gateway of which nothing is said about redelivery: it is there by itself."""
    def priced(name: str, path: str, **terms: Any) -> dict[str, Any]:
        return {"name": name, "match": {"path": path, **terms.pop("match", {})}, "price": {"per_request": PRICE}, **terms}

    # The condition has the reader look at the body.
    known = {"methods": ["POST"], "model": "*"}
    return Envoy(envoy_config(backend.port, {"facilitator": facilitator.port}), {
        "pay_to": {"eip155": chain.address("payTo")},
        "accept": [{"scheme": "exact", "network": BASE_SEPOLIA, "asset": "USDC", "transfer": "eip3009"}],
        "facilitators": [{"cluster": "facilitator", "url": "http://facilitator.test", "networks": [BASE_SEPOLIA],
                          "verify_timeout": "10s", "settle_timeout": "30s"}],
        "unmatched": "deny",
        "routes": [
            priced("chat", COMPLETIONS, match=known),
            priced("upfront", f"/upfront{COMPLETIONS}", match=known, flow="upfront"),
            priced("three", "/three/*", limits={"requests_per_payment": 3}),
        ],
        **more,
    })


@pytest.fixture(scope="module")
def gateway(facilitator: Service, backend: Service, sepolia: Chain) -> Iterator[Envoy]:
    """For clients without names for their payments."""
    with shop(facilitator, backend, sepolia) as envoy:
        yield envoy


@pytest.fixture(scope="module")
def strict(facilitator: Service, backend: Service, sepolia: Chain) -> Iterator[Envoy]:
    """For clients that name their payments."""
    with shop(facilitator, backend, sepolia, payment_identifier="required") as envoy:
        yield envoy


def again(envoy: Envoy, path: str, payment: str, body: str | None = None) -> Response:
    """The payment once more, until Envoy knows how its last answer ended."""
    def answer() -> Response | None:
        headers = [("payment-signature", payment), ("content-type", "application/json")]
        method, sent = ("GET", None) if body is None else ("POST", body.encode())
        got = call(envoy.port, method, path, headers, sent, host=f"127.0.0.1:{envoy.port}")
        return None if got.status == 409 and got.json()["error"] == "payment_in_use" else got

    return wait_until(answer, f"an answer of {path}")


def served(answer: Response, first: Result) -> Response:
    """A whole answer, with the receipt that the client has already."""
    assert answer.status == 200 and answer.clean, answer
    assert answer.receipt == first.receipt and answer.receipt["success"] is True
    return answer


def spent(answer: Response) -> None:
    """Nothing more is to be had for it."""
    assert answer.status == 402 and answer.json()["error"] == "nonce_already_used", answer
    assert answer.challenge["accepts"] and not answer.has_receipt


def paid_once(chain: Chain, facilitator: Service, first: Result, settled_before: int) -> None:
    """The receipt's transaction moved the price, and no other one was asked for."""
    transfers = chain.transfers(first.receipt["transaction"])
    assert transfers == [(chain.address("client").lower(), chain.address("payTo").lower(), PRICE_ATOMIC)]
    assert settlements(facilitator) == settled_before + 1


def text_of(stream: bytes) -> str:
    """The text of a stream of events that has its end."""
    *events, done = [line.removeprefix("data: ") for line in stream.decode().splitlines() if line.startswith("data: ")]
    assert done == "[DONE]", stream
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


@pytest.mark.parametrize("script", CLIENTS)
def test_a_stream_that_broke_off_is_had_again_for_the_same_payment(
    gateway: Envoy, facilitator: Service, sepolia: Chain, script: str,
) -> None:
    before = settlements(facilitator)
    with moves(sepolia, PRICE_ATOMIC):
        first = pay(script, gateway.url(COMPLETIONS), sepolia.key("client"), BODY=STREAM, LEAVE_AFTER=str(CUT),
                    HEADERS=json.dumps({"x-answer-pauses-after": str(CUT)}))
        assert first.status == 200 and "[DONE]" not in first.body, first
        payment = first.more["payment"]
        # Another question is another purchase, and uses nothing up.
        other = again(gateway, COMPLETIONS, payment, STREAM.replace("Hello", "Farewell"))
        spent(other)
        answer = served(again(gateway, COMPLETIONS, payment, STREAM), first)
        assert text_of(answer.body) == ANSWER
        for _ in range(2):
            spent(again(gateway, COMPLETIONS, payment, STREAM))
    paid_once(sepolia, facilitator, first, before)


@pytest.mark.parametrize("script", CLIENTS)
def test_what_was_paid_up_front_is_had_once_the_backend_is_well(
    gateway: Envoy, facilitator: Service, sepolia: Chain, script: str,
) -> None:
    path, before = f"/upfront{COMPLETIONS}", settlements(facilitator)
    with moves(sepolia, PRICE_ATOMIC):
        first = pay(script, gateway.url(path), sepolia.key("client"), BODY=CHAT, HEADERS=json.dumps({"x-answer-status": "500"}))
        assert first.status == 500 and first.receipt["success"] is True, first
        answer = served(again(gateway, path, first.more["payment"], CHAT), first)
        assert answer.json()["choices"][0]["message"]["content"] == ANSWER
        spent(again(gateway, path, first.more["payment"], CHAT))
    paid_once(sepolia, facilitator, first, before)


def named(name: str) -> dict[str, Any]:
    """The extension of a payment that is called so."""
    return {"payment-identifier": {"info": {"required": True, "id": name}}}


def from_the_chain(chain: Chain, transaction: str, offer: dict[str, Any]) -> dict[str, Any]:
    """The payment of a settlement, as whoever reads the chain can put it together."""
    data = unhex(chain.rpc("eth_getTransactionByHash", transaction)["input"])
    (signature,) = [known for known in (ONE_PIECE, THREE_PIECES) if data.startswith(keccak(text=known)[:4])]
    kinds = signature[signature.index("(") + 1:-1].split(",")
    payer, seller, value, after, until, nonce, *pieces = decode(kinds, data[4:])
    signed = pieces[0] if len(pieces) == 1 else pieces[1] + pieces[2] + bytes([pieces[0]])
    return {"x402Version": 2, "accepted": offer, "payload": {"signature": f"0x{signed.hex()}", "authorization": {
        # Spelt as the official clients do.
        "from": to_checksum_address(payer), "to": to_checksum_address(seller), "value": str(value), "validAfter": str(after),
        "validBefore": str(until), "nonce": f"0x{nonce.hex()}",
    }}}


def backend_requests(envoy: Envoy) -> float:
    """How many requests have reached the backend."""
    return envoy.stats("cluster.backend.upstream_rq_total")["cluster.backend.upstream_rq_total"]


def challenged(envoy: Envoy, path: str) -> dict[str, Any]:
    """The one offer that is made to anybody."""
    (offer,) = call(envoy.port, "GET", path, host=f"127.0.0.1:{envoy.port}").challenge["accepts"]
    return offer


PATHS = [f"/three/{number}" for number in range(3)]


@pytest.mark.parametrize("script", CLIENTS)
def test_one_payment_buys_three_answers_and_no_reader_of_the_chain_any(
    strict: Envoy, facilitator: Service, sepolia: Chain, script: str,
) -> None:
    before, name = settlements(facilitator), f"pay_{secrets.token_hex(16)}"
    with moves(sepolia, PRICE_ATOMIC):
        first = pay(script, strict.url(PATHS[0]), sepolia.key("client"), PAYMENT_ID=name)
        assert first.status == 200 and first.json["path"] == PATHS[0], first
        reached = backend_requests(strict)
        offer = challenged(strict, PATHS[1])
        stolen = from_the_chain(sepolia, first.receipt["transaction"], offer)
        nameless = again(strict, PATHS[1], encode(stolen))
        assert nameless.status == 400 and nameless.json()["error"] == "payment_identifier_required", nameless
        for guess in (f"pay_{secrets.token_hex(16)}", name.upper()):
            spent(again(strict, PATHS[1], encode({**stolen, "extensions": named(guess)})))
        assert backend_requests(strict) == reached
        for path in PATHS[1:]:
            assert served(again(strict, path, first.more["payment"]), first).json()["path"] == path
        spent(again(strict, PATHS[0], first.more["payment"]))
    paid_once(sepolia, facilitator, first, before)


def test_without_a_name_a_reader_of_the_chain_has_the_rest(gateway: Envoy, sepolia: Chain) -> None:
    """What the warning says, and what the test above would not notice if the payment were put together wrongly."""
    assert "payment_identifier" in gateway.log()
    with moves(sepolia, PRICE_ATOMIC):
        first = pay("fetch-kept.mjs", gateway.url(PATHS[0]), sepolia.key("client"))
        stolen = from_the_chain(sepolia, first.receipt["transaction"], challenged(gateway, PATHS[1]))
        for path in PATHS[1:]:
            served(again(gateway, path, encode(stolen)), first)
        spent(again(gateway, PATHS[0], first.more["payment"]))
