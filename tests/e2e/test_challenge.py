"""The 402: one answer for every kind of client (PROTOCOL, "The 402")."""

import re

import pytest

from .checks import unpaid
from .payments import OTHER, SELLER, offer
from .facilitator import FACILITATOR_ADDRESS, FEE_PAYER, SOLANA
from .payments import SOLANA_USDC
from .world import EURO_TOKEN, MAIN, SOLANA_SELLER, changed, default_offers

BROWSER = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
           ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0")]


def test_v2_header(main, protocol):
    answer = unpaid(main, main.call("/paid", protocol=protocol), 402, "Payment required", "402")
    challenge = answer.challenge
    assert challenge["x402Version"] == 2
    assert challenge["resource"] == {"url": "http://api.test/paid", "description": "One paid thing",
                                     "mimeType": "application/json"}
    assert challenge["accepts"] == default_offers(10_000)
    assert len(answer.header("payment-required")) < 4096


def test_v1_body(main, protocol):
    body = main.call("/paid", protocol=protocol).json()
    assert body["x402Version"] == 1 and body["code"] == "402"
    # Neither what v1 cannot say (Permit2) nor fields that make published v1 clients throw the list away.
    assert body["accepts"] == [
        {"scheme": "exact", "network": name, "maxAmountRequired": "10000", "asset": wanted["asset"], "payTo": SELLER,
         "resource": "http://api.test/paid", "description": "One paid thing", "mimeType": "application/json",
         "maxTimeoutSeconds": 300, "extra": wanted["extra"]}
        for name, wanted in (("base", offer(10_000)), ("base-sepolia", offer(10_000, network="eip155:84532")))
    ]


def test_v1_body_never_has_nulls(main):
    item = main.call("/reports/x").json()["accepts"][0]
    assert item["description"] == "" and item["mimeType"] == "" and "outputSchema" not in item


def test_plain_headers(main, protocol):
    answer = main.call("/paid", protocol=protocol)
    assert answer.header("x-payment-required") == "true"
    assert answer.header("x-payment-amount") == "0.01"
    assert answer.header("x-payment-asset") == "USDC"
    assert answer.header("x-payment-network") == "base"
    assert answer.header("x-payment-recipient").lower() == SELLER.lower()


def test_browser(main, protocol):
    answer = main.call("/paid", headers=BROWSER, protocol=protocol)
    assert answer.status == 402
    assert answer.header("content-type").startswith("text/html")
    assert answer.header("cache-control") == "no-store"
    assert answer.challenge["accepts"] == default_offers(10_000)
    page = answer.body.decode()
    assert "0.01" in page and "USDC" in page and SELLER.lower() in page.lower() and "One paid thing" in page
    # Self-contained: nothing is loaded from elsewhere.
    assert not re.search(r"<script[^>]+src|<link|<img[^>]+src=.?http|@import|url\(", page, re.I)


def test_html_needs_both_headers(main):
    for headers in (BROWSER[:1], BROWSER[1:]):
        assert main.call("/paid", headers=headers).header("content-type").startswith("application/json")


@pytest.mark.parametrize("path,host", [
    ("/reports/<script>alert(1)</script>", "api.test"),
    ("/reports/%3Cscript%3Ealert(1)%3C/script%3E", "api.test"),
    ("/reports/a?<script>alert(1)</script>", "api.test"),
    ("/reports/\"onload='alert(1)'", "api.test"),
])
def test_page_escapes_what_the_client_chose(main, path, host):
    answer = main.call(path, headers=BROWSER, host=host)
    assert main.reached(answer) == 0
    assert b"<script>alert" not in answer.body and b"\"onload='" not in answer.body


def test_origin_exposes_headers(main):
    answer = main.call("/paid", headers=[("origin", "https://shop.example")])
    assert answer.tokens("access-control-expose-headers") >= {"payment-required", "payment-response",
                                                              "x-payment-response"}
    assert not main.call("/paid").all("access-control-expose-headers")


def test_same_quote_twice(main):
    assert main.accepts("/paid") == main.accepts("/paid")


def test_resource_of_a_query(main):
    """No document says whether the query is part of the resource; that it is a URL of this path is certain."""
    url = main.call("/paid?a=1&b=%20x").challenge["resource"]["url"]
    assert url.split("?")[0] == "http://api.test/paid"


def test_upto_needs_the_facilitators_address(main):
    assert main.accepts("/upto") == [
        offer(100_000, scheme="upto", transfer="permit2", facilitatorAddress=FACILITATOR_ADDRESS)]


def test_permit(main):
    wanted = offer(100_000, scheme="upto", pay_to=OTHER, primaryType="Permit", recipientAddress=SELLER)
    answer = main.call("/permit")
    # No version 2 client can pay it, so that the header, which is theirs, does not offer it.
    assert answer.status == 402 and answer.header("payment-required") is None
    # @libertai/x402 reads the first of the body, whatever it is.
    first = answer.json()["accepts"][0]
    assert (first["scheme"], first["maxAmountRequired"], first["payTo"]) == ("upto", "100000", OTHER)
    assert first["extra"] == wanted["extra"]


def test_solana(main):
    found, = main.accepts("/solana")
    assert found["extra"]["feePayer"] == FEE_PAYER
    assert {key: found[key] for key in ("scheme", "network", "amount", "asset", "payTo")} == {
        "scheme": "exact", "network": SOLANA, "amount": "10000", "asset": SOLANA_USDC, "payTo": SOLANA_SELLER}


def test_currencies(main):
    euro, dollar = main.accepts("/euro")
    assert (euro["asset"], euro["amount"], euro["extra"]["name"]) == (EURO_TOKEN, "9000", "Test EUR")
    assert (dollar["asset"], dollar["amount"]) == (offer(1, "eip155:84532")["asset"], "10000")


def test_amounts_are_rounded_up(main):
    assert main.accepts("/fraction")[0]["amount"] == "1"


def test_other_styles(worlds):
    world = worlds.world("openai", changed(
        challenge={"v1": False, "plain_headers": False, "body": "openai"},
        # A permit is for v1's body alone.
        routes=[route for route in MAIN["routes"] if route["name"] != "permit"]))
    answer = world.call("/paid", headers=[("authorization", "Bearer sk-abc")])
    assert answer.status == 402 and world.reached(answer) == 0
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("billing_error", "insufficient_credits") and error["message"]
    assert answer.challenge["accepts"] == default_offers(10_000)
    assert answer.header("cache-control") == "no-store"
    assert not [name for name, _ in answer.headers if name.lower().startswith("x-payment-")]


def test_public_url(worlds):
    world = worlds.world("public", changed(public_url="https://shop.example"))
    answer = world.call("/paid", host="internal:8080")
    assert answer.challenge["resource"]["url"] == "https://shop.example/paid"
    assert answer.json()["accepts"][0]["resource"] == "https://shop.example/paid"
