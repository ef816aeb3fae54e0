"""Prices that depend on the request: what is quoted is what is paid, and what the backend can be asked for."""

import json

import pytest

from .checks import paid, refused
from .world import World, changed

TOKENS = {"per_token": {"models": {"small*": {"input": "$0.0000025", "output": "$0.00001"},
                                   "large": {"input": "$0.00003", "output": "$0.00006"}},
                        "max_output": 500}}
DYNAMIC = {"dynamic": {"base": "$0.01", "multipliers": [
    {"when": "query_length > 1000", "times": 2.0}, {"when": "requires_browser", "times": 1.5}]}}
MINUTES = {"per_minute": {"amount": "$0.10", "minimum": 1, "maximum": 3}}
ACCEPT = [{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}]
ROUTES = [
    {"name": "tokens", "match": {"path": "/v1/chat/completions"}, "price": TOKENS},
    {"name": "search", "match": {"path": "/search"}, "price": DYNAMIC},
    {"name": "voice", "match": {"path": "/voice"}, "price": MINUTES},
]
JSON = [("content-type", "application/json")]


@pytest.fixture(scope="module")
def prices(worlds) -> World:
    return worlds.world("prices", changed(accept=ACCEPT, routes=ROUTES),
                        ready=lambda world: world.everywhere(lambda: world.call("/voice").status == 402))


def chat(**fields) -> bytes:
    return json.dumps({"model": "small-1", "messages": [{"role": "user", "content": "Hello!"}], **fields}).encode()


def quote(world: World, path: str, body: bytes, headers=()) -> int:
    offers = world.accepts(path, method="POST", headers=[*JSON, *headers], body=body)
    return int(offers[0]["amount"])


def micros(body: bytes, output: int, rate=(2.5, 10.0)) -> int:
    """By hand: a token for each byte of the body and 100 of the backend's own, and the output; millionths, rounded up once."""
    tenths = (len(body) + 100) * round(rate[0] * 10) + output * round(rate[1] * 10)
    return -(-tenths // 10)


@pytest.mark.parametrize(("fields", "output"), [
    ({"max_tokens": 100}, 100), ({"max_completion_tokens": 7}, 7), ({"max_tokens": 9000}, 500), ({}, 500),
    ({"max_tokens": 100, "n": 3}, 300), ({"max_tokens": None}, 500), ({"max_tokens": 10, "max_completion_tokens": 20}, 20)])
def test_tokens_are_quoted_from_the_body(prices, fields, output):
    body = chat(**fields)
    assert quote(prices, "/v1/chat/completions", body) == micros(body, output)


def test_each_model_has_its_price(prices):
    body = chat(model="large", max_tokens=10)
    assert quote(prices, "/v1/chat/completions", body) == micros(body, 10, (30.0, 60.0))


@pytest.mark.parametrize(("body", "words"), [
    (chat(model="huge"), "model"),
    (chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]), "input"),
    (chat(max_tokens=-1), "whole number"),
    (b'{"model":"small-1","max_tokens":1,"max_tokens":9000,"messages":[]}', "more than once"),
])
def test_what_has_no_price_is_refused_and_not_free(prices, body, words):
    answer = prices.call("/v1/chat/completions", "POST", JSON, body=body)
    refused(answer, 400)
    assert words in answer.json()["message"] and prices.reached(answer) == 0


@pytest.mark.parametrize(("fields", "seen"), [({}, 500), ({"max_tokens": 9000}, 500), ({"max_tokens": 20}, 20)])
def test_the_backend_is_asked_for_no_more_than_was_quoted(prices, protocol, fields, seen):
    body = chat(**fields, stream=True)
    payment = prices.payment("/v1/chat/completions", method="POST", headers=JSON, body=body)
    answer = paid(prices, prices.call("/v1/chat/completions", "POST", JSON, payment=payment, body=body, protocol=protocol), payment)
    got, = prices.backend.requests(answer.test_id)
    expected = {**json.loads(body), "max_tokens": seen}
    assert json.loads(got.body) == expected
    settled, = prices.facilitator.calls(payment.payload, "settle")
    assert settled.json["paymentRequirements"]["amount"] == str(micros(body, seen))


def test_a_payment_for_a_small_request_buys_no_large_one(prices):
    small, large = chat(max_tokens=1), chat(max_tokens=500)
    payment = prices.payment("/v1/chat/completions", method="POST", headers=JSON, body=small)
    answer = prices.call("/v1/chat/completions", "POST", JSON, payment=payment, body=large)
    refused(answer, 402)
    prices.no_calls(payment)
    assert prices.reached(answer) == 0


@pytest.mark.parametrize(("query", "browser", "amount"), [
    ("x", False, 10_000), ("x" * 1001, False, 20_000), ("x", True, 15_000), ("x" * 1001, True, 30_000), ("é" * 1000, False, 10_000)])
def test_conditions_multiply(prices, query, browser, amount):
    body = json.dumps({"query": query, "requires_browser": browser}, ensure_ascii=False).encode()
    assert quote(prices, "/search", body) == amount
    in_header = [("x-requires-browser", "true" if browser else "false")]
    body = json.dumps({"query": query}, ensure_ascii=False).encode()
    assert quote(prices, "/search", body, in_header) == amount


def test_minutes_are_quoted_at_their_most(prices):
    assert int(prices.accepts("/voice")[0]["amount"]) == 300_000


def test_the_same_request_is_quoted_the_same(prices):
    body = chat(max_tokens=33)
    first, second = (prices.accepts("/v1/chat/completions", method="POST", headers=JSON, body=body) for _ in range(2))
    assert first == second
