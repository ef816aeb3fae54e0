"""What a whole answer costs: by its usage, without one, or by the backend's own word."""

import gzip
import json

import pytest

from .checks import alive
from .metered import (
    ASKS, DELIVERED, DONE, ESTIMATE, JSON, QUOTE, USAGE, USED, answers, event, receipt, receipts, rises, settled,
    streams, unsettled)
from .payments import Payment
from .world import World

# What a whole answer says

@pytest.mark.parametrize("path, amount", [("/default", ESTIMATE), ("/maximum", QUOTE)])
@pytest.mark.parametrize("does", [answers(None), streams(*DELIVERED, DONE, free=True)], ids=["json", "events"])
def test_no_usage(metered, protocol, does, path, amount):
    payment = metered.payment(path, **ASKS)
    answer = metered.call(path, payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 200 and receipt(answer)["amount"] == str(amount), answer
    settled(metered, path, payment, amount)


@pytest.mark.parametrize("does", [answers(None), streams(*DELIVERED, DONE, free=True)], ids=["json", "events"])
def test_no_usage_for_nothing(metered, protocol, does):
    payment = metered.payment("/lenient", **ASKS)
    answer = metered.call("/lenient", payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 200 and receipt(answer)["amount"] == "0", answer
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "nothing_due"
    unsettled(metered, "/lenient", payment)


def test_usage_above_the_quote(metered, protocol):
    """1000 × 2.5 + 400 × 10 = 6500, of which 3750 were signed for."""
    before = metered.metric("x402_usage_above_quote")
    payment = metered.payment("/default", **ASKS)
    assert payment.offer["amount"] == str(QUOTE)
    answer = metered.call("/default", payment=payment, protocol=protocol,
                          does=answers({"prompt_tokens": 1000, "completion_tokens": 400}), **ASKS)
    assert receipt(answer)["amount"] == str(QUOTE)
    settled(metered, "/default", payment, QUOTE)
    rises(metered, "x402_usage_above_quote", before)


@pytest.mark.parametrize("path", ["/default", "/lenient"])
def test_an_encoded_answer(metered, protocol, path):
    """Its count cannot be read, though the backend was asked for one that can: the quote, and the answer as it is."""
    packed = gzip.compress(json.dumps({"choices": [], "usage": USAGE}).encode(), mtime=0)
    payment = metered.payment(path, **ASKS)
    asks = {**ASKS, "headers": [*JSON, ("accept-encoding", "gzip")]}
    does = {**streams(packed.decode("latin-1"), free=True), "headers": [*JSON, ("content-encoding", "gzip")]}
    answer = metered.call(path, payment=payment, does=does, protocol=protocol, **asks)
    assert answer.body == packed and answer.header("content-encoding") == "gzip"
    assert receipt(answer)["amount"] == str(QUOTE)
    assert metered.backend.one(answer.test_id).header("accept-encoding") == "identity"
    settled(metered, path, payment, QUOTE)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_the_backend_answers_with_an_error(metered, protocol, status):
    """Nothing is settled, whatever it says it used."""
    payment = metered.payment("/maximum", **ASKS)
    answer = metered.call("/maximum", payment=payment, does=answers(status=status), protocol=protocol, **ASKS)
    assert answer.status == status and answer.clean and answer.json()["usage"] == USAGE, answer
    assert not answer.has_receipt and not receipts(answer), answer
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "not_charged"
    assert metered.count(payment, "settle") == 0
    unsettled(metered, "/maximum", payment)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "events"])
def test_nothing_was_used(metered, protocol, stream):
    """The end comes at once, and the receipt says so."""
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    released = metered.metric("x402_released")
    payment = metered.payment("/maximum", **ASKS)
    does = streams(event(usage=nothing), DONE, free=True) if stream else answers(nothing)
    answer = metered.call("/maximum", payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 200 and receipt(answer)["amount"] == "0", answer
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "nothing_due"
    assert metered.count(payment, "settle") == 0
    rises(metered, "x402_released", released)
    unsettled(metered, "/maximum", payment)
    alive(metered)


# The backend names the price

def overrides(value: str, **more) -> dict:
    """What the backend does: an answer with a usage, and this header."""
    return answers(**{**more, "headers": [*JSON, ("Settlement-Overrides", value)]})


def overridden(world: World, protocol: str, value: str, amount: int) -> Payment:
    """Such an answer is paid with this amount, and its header stays here."""
    payment = world.payment("/default", **ASKS)
    answer = world.call("/default", payment=payment, does=overrides(value), protocol=protocol, **ASKS)
    assert answer.status == 200 and receipt(answer)["amount"] == str(amount), answer
    assert not answer.all("settlement-overrides"), answer
    assert "settlement-overrides" not in {name.lower() for name, _ in answer.trailers}
    return payment


@pytest.mark.parametrize("says_amount, amount", [("1234", 1234), ("50%", 1875), ("$0.002", 2000), ("3750", 3750)])
def test_the_backend_names_the_price(metered, protocol, says_amount, amount):
    ignored = metered.metric("x402_overrides_ignored")
    payment = overridden(metered, protocol, json.dumps({"amount": says_amount}), amount)
    settled(metered, "/default", payment, amount)
    assert metered.metric("x402_overrides_ignored") == ignored


@pytest.mark.parametrize("says_amount", ["0", "0%", "$0"])
def test_the_backend_asks_for_nothing(metered, protocol, says_amount):
    payment = overridden(metered, protocol, json.dumps({"amount": says_amount}), 0)
    assert metered.count(payment, "settle") == 0
    unsettled(metered, "/default", payment)


@pytest.mark.parametrize("says_amount", ["3751", "101%", "$1", "9" * 30])
def test_the_backend_asks_for_more_than_was_quoted(metered, protocol, says_amount):
    before = metered.metric("x402_usage_above_quote")
    payment = overridden(metered, protocol, json.dumps({"amount": says_amount}), QUOTE)
    settled(metered, "/default", payment, QUOTE)
    rises(metered, "x402_usage_above_quote", before)


UNREADABLE = ["nonsense", "", "{}", '{"amount":}', '{"amount":"much"}', '{"amount":"-1"}', '{"amount":"12.5"}',
              '{"amount":["1"]}', json.dumps({"amount": "9" * 60})]


@pytest.mark.parametrize("value", UNREADABLE)
def test_the_backend_names_no_price_that_can_be_read(metered, protocol, value):
    """It is ignored, and the usage counts."""
    before = metered.metric("x402_overrides_ignored")
    payment = overridden(metered, protocol, value, USED)
    settled(metered, "/default", payment, USED)
    rises(metered, "x402_overrides_ignored", before)


def test_an_override_of_an_error(metered, protocol):
    """It stays here too, and nothing is settled."""
    payment = metered.payment("/default", **ASKS)
    does = overrides('{"amount":"1234"}', status=500)
    answer = metered.call("/default", payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 500 and not answer.all("settlement-overrides"), answer
    assert metered.count(payment, "settle") == 0
    unsettled(metered, "/default", payment)
