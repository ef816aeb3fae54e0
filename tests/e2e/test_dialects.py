"""Each row of PROTOCOL's table of payments, what the facilitator is told, and the receipt."""

import base64
import json
import secrets

import pytest
from eth_account import Account

from .checks import paid, unpaid
from .facilitator import spends
from .payments import OTHER, SELLER, V1_NAMES, compact, encode, now, offer, pay, v01
from .world import FACILITATOR_HEADERS

PERMIT_TERMS = offer(100_000, scheme="upto", pay_to=OTHER, primaryType="Permit", recipientAddress=SELLER)
RECEIPTS = {"v2": "payment-response", "v1": "x-payment-response", "libertai": "x-payment-response", "plain": None}


def v1_requirements(wanted, resource="http://api.test/paid", description="One paid thing", mime="application/json"):
    """The v1 form of an offer."""
    return {"scheme": wanted["scheme"], "network": V1_NAMES[wanted["network"]], "maxAmountRequired": wanted["amount"],
            "asset": wanted["asset"], "payTo": wanted["payTo"], "resource": resource, "description": description,
            "mimeType": mime, "maxTimeoutSeconds": 300, "extra": wanted["extra"]}


@pytest.mark.parametrize("dialect", RECEIPTS)
def test_paid_once(main, protocol, dialect):
    payment = main.payment("/paid")
    answer = paid(main, main.call("/paid", payment=payment, dialect=dialect, protocol=protocol), payment,
                  RECEIPTS[dialect])
    assert main.count(payment, "verify") == 1
    assert answer.receipt["payer"].lower() == payment.payer.address.lower()
    if dialect in ("v1", "libertai"):
        assert answer.receipt["network"] == "base"
    elif dialect == "v2":
        assert answer.receipt["network"] == "eip155:8453"
    assert main.journal.of(answer.test_id, spends(payment.payload)) == ["verify", "backend", "settle"]


def test_v2_reaches_the_facilitator_as_it_came(main):
    payment = main.payment("/paid")
    body = payment.v2
    body["unknown"] = {"kept": [1, {"deeply": None}]}
    body["payload"]["memo"] = "€"
    text = json.dumps(body).replace('"kept": [1,', '"kept": [1.500,')
    answer = main.call("/paid", headers=[("payment-signature", encode(text.encode()))])
    paid(main, answer, payment)
    for call in main.facilitator.calls(payment.payload):
        assert call.json["x402Version"] == 2
        assert call.payload == json.loads(text)
        assert b"1.500" in call.request.body
        assert call.requirements == payment.offer
        assert (call.request.method, call.request.path) == ("POST", f"/api/{call.what}".encode())
        assert call.request.header("host") == "facilitator.test"
        assert (call.request.header("content-type") or "").startswith("application/json")
        for name, value in FACILITATOR_HEADERS.items():
            assert call.request.header(name) == value


@pytest.mark.parametrize("dialect", ["v1", "libertai"])
def test_v1_reaches_the_facilitator_as_v1(main, dialect):
    payment = main.payment("/paid")
    paid(main, main.call("/paid", payment=payment, dialect=dialect), payment, "x-payment-response")
    for call in main.facilitator.calls(payment.payload):
        assert call.json["x402Version"] == 1
        assert call.payload == payment.v1
        assert call.requirements == v1_requirements(payment.offer)


def test_plain_reaches_the_facilitator_as_v2(main):
    payment = main.payment("/paid")
    paid(main, main.call("/paid", payment=payment, dialect="plain"), payment, None)
    for call in main.facilitator.calls(payment.payload):
        assert call.json["x402Version"] == 2 and call.payload["x402Version"] == 2
        assert call.payload["payload"] == payment.payload
        assert call.payload["accepted"] == payment.offer == call.requirements


def test_plain_short_nonce_and_no_valid_after(main):
    number = secrets.randbelow(10**12)
    payment = main.payment("/paid", nonce="0x" + number.to_bytes(32).hex())
    answer = main.call("/paid", headers=payment.plain(Nonce=str(number), Valid_After=None))
    paid(main, answer, payment, None)
    signed = main.facilitator.calls(payment.payload, "settle")[0].payload["payload"]["authorization"]
    assert signed["nonce"] == "0x" + number.to_bytes(32).hex() and signed["validAfter"] == "0"


@pytest.mark.parametrize("missing", ["Payer", "Nonce", "Valid-Before"])
def test_plain_says_what_is_missing(main, missing):
    payment = main.payment("/paid")
    answer = unpaid(main, main.call("/paid", headers=payment.plain(**{missing: None})), 400, "invalid_payload")
    assert f"x-payment-{missing}".lower() in answer.json()["message"].lower()
    main.no_calls(payment)


def test_permit2(main, protocol):
    payment = main.payment("/permit2")
    paid(main, main.call("/permit2", payment=payment, protocol=protocol), payment)
    assert main.facilitator.calls(payment.payload, "settle")[0].requirements == payment.offer


def test_upto_settles_the_price(main, protocol):
    payment = main.payment("/upto")
    answer = paid(main, main.call("/upto", payment=payment, protocol=protocol), payment)
    verify, settle = main.facilitator.calls(payment.payload)
    assert verify.requirements == payment.offer == settle.requirements
    assert answer.receipt["amount"] == "100000"


def test_permit(main):
    payment = pay(PERMIT_TERMS)
    answer = main.call("/permit", payment=payment, dialect="libertai")
    paid(main, answer, payment, "x-payment-response")
    call = main.facilitator.calls(payment.payload, "settle")[0]
    assert call.json["x402Version"] == 1 and call.payload["network"] == "base"
    assert call.requirements["payTo"] == OTHER and call.requirements["extra"]["recipientAddress"] == SELLER


def test_solana(main, protocol):
    payment = main.payment("/solana")
    answer = paid(main, main.call("/solana", payment=payment, protocol=protocol), payment)
    assert answer.receipt["network"] == payment.offer["network"]


def test_euro(main):
    payment = main.payment("/euro")
    assert payment.offer["extra"]["name"] == "Test EUR"
    paid(main, main.call("/euro", payment=payment), payment)


def test_second_and_third_offer(main):
    for chosen in (offer(10_000, transfer="permit2"), offer(10_000, network="eip155:84532")):
        payment = main.payment("/paid", choose=lambda found: found == chosen)
        paid(main, main.call("/paid", payment=payment), payment)


ENCODINGS = {
    "standard": base64.b64encode,
    "unpadded": lambda data: base64.b64encode(data).rstrip(b"="),
    "url": base64.urlsafe_b64encode,
    "url-unpadded": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_base64(main, encoding):
    payment = main.payment("/paid")
    # Every alphabet's own letters, and every length.
    for padding in ("???>>>", "???>>>?", "???>>>??"):
        fresh = main.payment("/paid")
        body = json.dumps({**fresh.v2, "padding": padding}).encode()
        answer = main.call("/paid", headers=[("payment-signature", ENCODINGS[encoding](body))])
        paid(main, answer, fresh)
    main.no_calls(payment)


def lower_addresses(payment):
    """All addresses as some clients write them."""
    payment.offer["payTo"] = payment.offer["payTo"].lower()
    payment.offer["asset"] = payment.offer["asset"].lower()
    for key in ("from", "to"):
        payment.payload["authorization"][key] = payment.payload["authorization"][key].lower()


ACCEPTABLE = {
    "lower-case addresses": lambda found: found.but(lower_addresses),
    "upper-case payTo": lambda found: found.but(
        lambda it: it.offer.update(payTo="0x" + it.offer["payTo"][2:].upper())),
    "extra is a superset": lambda found: found.but(lambda it: it.offer["extra"].update(more="x")),
    "no resource": lambda found: found.but(lambda it: setattr(it, "resource", None)),
    "unknown extension": lambda found: found.but(lambda it: setattr(it, "extensions", {"x": {"info": {"a": 1}}})),
    "3.6 KB of extensions": lambda found: found.but(
        lambda it: setattr(it, "extensions", {"x": {"schema": {"text": "y" * 2400}}})),
    "v as 0 or 1": lambda found: found.but(lambda it: it.payload.update(signature=v01(it.payload["signature"]))),
    "EIP-2098": lambda found: found.but(lambda it: it.payload.update(signature=compact(it.payload["signature"]))),
    "upper-case nonce": lambda found: found.but(
        lambda it: it.payload["authorization"].update(nonce="0x" + it.authorization["nonce"][2:].upper())),
    "resource in other case with default port": lambda found: found.but(
        lambda it: it.resource.update(url="HTTP://API.Test:80/paid")),
}


@pytest.mark.parametrize("name", ACCEPTABLE)
def test_seen_in_the_field(main, name):
    payment = ACCEPTABLE[name](main.payment("/paid"))
    paid(main, main.call("/paid", payment=payment), payment)


def test_valid_after_in_the_past(main):
    payment = main.payment("/paid", valid_after=now() - 600)
    paid(main, main.call("/paid", payment=payment), payment)


def test_keys_in_any_order(main):
    payment = main.payment("/paid")
    text = json.dumps(payment.v2, sort_keys=True, indent=1)
    paid(main, main.call("/paid", headers=[("PAYMENT-SIGNATURE", encode(text.encode()))]), payment)
    payment = main.payment("/paid")
    turned = json.dumps(dict(reversed(payment.v2.items())))
    paid(main, main.call("/paid", headers=[("Payment-signature", encode(turned.encode()))]), payment)


def test_headers_of_official_clients(main):
    payment = main.payment("/paid")
    headers = [("Access-Control-Expose-Headers", "PAYMENT-RESPONSE,X-PAYMENT-RESPONSE"), ("Payment-Retry", "1")]
    paid(main, main.call("/paid", headers=headers, payment=payment), payment)


def test_longer_signatures_are_for_the_facilitator(main):
    payment = main.payment("/paid").but(lambda it: it.payload.update(signature="0x" + secrets.token_hex(300)))
    paid(main, main.call("/paid", payment=payment), payment)
    assert main.count(payment, "verify") == 1


def test_same_nonce_of_other_payers(main):
    nonce = "0x" + secrets.token_hex(32)
    for payer in (Account.create(), Account.create()):
        payment = main.payment("/paid", payer=payer, nonce=nonce)
        paid(main, main.call("/paid", payment=payment), payment)


def test_receipt_with_origin_is_exposed(main):
    payment = main.payment("/paid")
    answer = paid(main, main.call("/paid", headers=[("origin", "https://shop.example")], payment=payment), payment)
    assert "payment-response" in answer.tokens("access-control-expose-headers")
