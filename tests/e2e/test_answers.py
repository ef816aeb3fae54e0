"""What the backend says decides: paid for, or passed on unpaid; and what it sees of all this: nothing."""

import json

import pytest

from .checks import paid, unpaid
from .facilitator import spends, transaction_of
from .payments import OTHER
from .wire import eventually

X402 = ["x-x402-payer", "x-x402-network", "x-x402-asset", "x-x402-amount", "x-x402-scheme"]
PAYMENT_HEADERS = {"payment-signature", "x-payment"}


def unsettled(main, answer, payment, reached=1):
    """Passed on as it is, for nothing, and the payment is as good as new."""
    assert not answer.has_receipt, answer
    assert main.reached(answer) == reached
    assert main.count(payment, "settle") == 0
    paid(main, main.call("/paid", payment=payment.but(lambda it: setattr(it, "resource", None))), payment)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 301, 302, 304, 307])
def test_below_400_is_paid_for(main, protocol, status):
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, protocol=protocol, does={"status": status})
    paid(main, answer, payment, status=status)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 502, 503])
def test_from_400_up_is_not(main, protocol, status):
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, protocol=protocol,
                       does={"status": status, "headers": [["x-mine", "yes"]]})
    assert answer.status == status and answer.json()["status"] == status and answer.header("x-mine") == "yes"
    unsettled(main, answer, payment)


def test_the_backends_own_402_is_passed_on(main):
    """Outside of `api_keys`, a 402 of the backend is an answer like others, and unpaid."""
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, does={"status": 402})
    assert answer.status == 402 and not answer.has_receipt
    assert main.count(payment, "settle") == 0


def test_reset_before_headers(main, protocol):
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, protocol=protocol, does={"reset": "before"})
    assert answer.status in (502, 503) and "challenge" not in answer.body.decode()
    assert not answer.all("payment-required")
    unsettled(main, answer, payment, reached=main.reached(answer))


def test_reset_after_headers(main, protocol):
    """The headers said 200: that was paid for, and the cut is passed on as a cut."""
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, protocol=protocol, does={"reset": "after"})
    assert not answer.clean or answer.status >= 500
    assert main.count(payment, "settle") <= 1
    if answer.status == 200:
        assert answer.receipt["success"]


def test_local_reply_is_not_paid_for(main, protocol):
    """Envoy answers for a cluster without endpoints: the backend did not give that answer."""
    payment = main.payment("/reports/local-reply")
    answer = main.call("/reports/local-reply", payment=payment, protocol=protocol)
    assert answer.status == 503 and not answer.has_receipt
    assert main.count(payment, "settle") == 0 and main.count(payment, "verify") == 1
    again = main.call("/reports/local-reply", payment=payment)
    assert again.status == 503 and b"payment_in_use" not in again.body
    assert main.count(payment, "verify") == 2, "the claim was released"


def test_order(main, protocol):
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, protocol=protocol)
    main.journal.note(answer.test_id, "client")
    assert main.journal.of(answer.test_id, spends(payment.payload)) == ["verify", "backend", "settle", "client"]


def test_receipt_is_the_facilitators(main):
    payment = main.payment("/paid")
    receipt = paid(main, main.call("/paid", payment=payment), payment).receipt
    assert receipt["transaction"] == transaction_of(spends(payment.payload))
    assert receipt["network"] == "eip155:8453"


@pytest.mark.parametrize("dialect", ["v2", "v1", "libertai", "plain"])
def test_what_the_backend_sees(main, protocol, dialect):
    payment = main.payment("/paid")
    spoofed = [(name, "spoofed") for name in X402] + [(X402[0].title(), "twice")]
    answer = main.call("/paid", "POST", [*spoofed, ("x-own", "kept"), ("authorization", "Bearer x402")],
                       payment=payment, dialect=dialect, protocol=protocol, body=b"hello")
    paid(main, answer, payment, None)
    seen = main.backend.one(answer.test_id)
    assert seen.header("x-x402-payer").lower() == payment.payer.address.lower()
    assert seen.header("x-x402-network") == "eip155:8453"
    assert seen.header("x-x402-amount") == "10000"
    assert seen.header("x-x402-scheme") == "exact"
    assert seen.header("x-x402-asset").lower() in ("usdc", payment.offer["asset"].lower())
    assert not [name for name in seen.names() if name in PAYMENT_HEADERS or name.startswith("x-payment-")], seen.names()
    assert "authorization" not in seen.names(), "a dummy API key is removed"
    assert seen.header("x-own") == "kept" and seen.body == b"hello"
    assert "x402_body" not in str(seen.headers)


def test_a_real_key_is_kept(main):
    payment = main.payment("/paid")
    answer = main.call("/paid", headers=[("authorization", "Bearer sk-real")], payment=payment)
    paid(main, answer, payment)
    assert main.backend.one(answer.test_id).header("authorization") == "Bearer sk-real"


@pytest.mark.parametrize("path", ["/free", "/not-named-anywhere"])
def test_spoofed_headers_never_pass(main, protocol, path):
    """Nor on what is free: the backend trusts these headers wherever they come."""
    answer = main.call(path, headers=[(name, OTHER) for name in X402], protocol=protocol)
    assert answer.status == 200
    assert not set(X402) & main.backend.one(answer.test_id).names()


@pytest.mark.parametrize("sent,kept", [
    ([], set()), (["public, max-age=60"], {"max-age=60"}), (["no-store"], {"no-store"}),
    (["private, max-age=5"], {"max-age=5"}), (["max-age=1", "public"], {"max-age=1"}), (["Public"], set()),
    (["s-maxage=100"], set()),
])
def test_cache_control(main, protocol, sent, kept):
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, protocol=protocol,
                       does={"headers": [["cache-control", value] for value in sent]})
    paid(main, answer, payment)
    tokens = answer.tokens("cache-control")
    assert "public" not in tokens and kept <= tokens, tokens


def test_vary_is_added_to(main):
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, does={"headers": [["vary", "Accept-Encoding"]]})
    paid(main, answer, payment)
    assert "accept-encoding" in answer.tokens("vary")


def test_a_backend_cannot_forge_receipts(main):
    payment = main.payment("/paid")
    forged = [["payment-response", "Zm9yZ2Vk"], ["x-payment-response", "Zm9yZ2Vk"], ["settlement-overrides", '{"amount":"1"}']]
    answer = main.call("/paid", payment=payment, does={"headers": forged})
    paid(main, answer, payment)
    assert answer.receipt["transaction"] == transaction_of(spends(payment.payload))
    assert not answer.all("settlement-overrides")


def test_settlement_overrides_on_upto(main):
    """For `upto` it wins, within the quote; it is removed in any case."""
    payment = main.payment("/upto")
    answer = main.call("/upto", payment=payment, does={"headers": [["settlement-overrides", json.dumps({"amount": "1234"})]]})
    paid(main, answer, payment)
    assert not answer.all("settlement-overrides")
    assert main.facilitator.calls(payment.payload, "settle")[0].requirements["amount"] in ("1234", "100000")


@pytest.mark.parametrize("kind", ["trailers", "empty"])
def test_ends_of_answers(main, protocol, kind):
    payment = main.payment("/paid")
    answer = paid(main, main.call("/paid", payment=payment, protocol=protocol, does={"kind": kind}), payment)
    if kind == "trailers":
        assert answer.trailers == [("x-from-backend", "trailer")] and answer.body == b'{"with":"trailers"}'


def test_cors_answers(worlds):
    """Envoy's CORS filter in front: preflights are free, answers are exposed."""
    from .world import MAIN
    world = worlds.world("cors", MAIN, cors=True)
    preflight = [("origin", "https://shop.example"), ("access-control-request-method", "POST"),
                 ("access-control-request-headers", "payment-signature")]
    answer = world.call("/paid", "OPTIONS", preflight)
    assert answer.status == 200 and answer.header("access-control-allow-origin") == "https://shop.example"
    payment = world.payment("/paid", headers=preflight[:1])
    answer = paid(world, world.call("/paid", headers=preflight[:1], payment=payment), payment)
    assert answer.header("access-control-allow-origin") == "https://shop.example"
    assert "payment-response" in answer.tokens("access-control-expose-headers")
    assert "payment-required" in world.call("/paid", headers=preflight[:1]).tokens("access-control-expose-headers")
    unpaid(world, world.call("/paid", headers=preflight[:1]), 402)


def test_released_claims_are_counted(main):
    before = main.metric("x402_released")
    payment = main.payment("/paid")
    main.call("/paid", payment=payment, does={"status": 500})
    eventually(lambda: main.metric("x402_released") > before, "the release is counted")
