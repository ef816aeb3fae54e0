"""A reload that changes prices: who was quoted a moment ago pays that, in every dialect, and nobody else does."""

import copy
import json

import pytest

from stack.envoy import wasm_plugins, with_filter_config

from .checks import alive, paid, unpaid
from .payments import Payment, pay
from .wire import eventually
from .world import BASE, UPTO, World, changed, price

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
JSON = [("content-type", "application/json")]
ASKS = {"method": "POST", "headers": JSON, "body": json.dumps(CHAT).encode()}


def per_token(output: str, most: int) -> dict:
    """A price per token, with free input."""
    return {"per_token": {"input": "$0", "output": f"${output}", "max_output": most}}


def prices(amount: str, output: str, most: int, **more) -> dict:
    """A configuration with these prices."""
    return changed(routes=[
        {"name": "paid", "match": {"path": "/paid"}, "price": price(amount), "accept": [BASE]},
        {"name": "chat", "match": {"path": "/v1/chat/completions"}, "price": per_token(output, most), "accept": [BASE]},
        {"name": "metered", "match": {"path": "/metered"}, "price": per_token(output, most), "accept": [UPTO],
         "flow": "metered"},
    ], **more)


BEFORE = prices("0.01", "0.00001", 100)
AFTER = prices("0.02", "0.00003", 4000)


@pytest.fixture
def repriced(worlds, request) -> World:
    """An Envoy whose prices a test changes."""
    # `upto` waits for what the facilitator says of itself.
    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call("/metered", **ASKS).status == 402)

    return worlds.world(f"grace-{request.node.name}", BEFORE, ready=ready)


def reprice(world: World, config: dict, everywhere: int) -> None:
    """Another configuration, in force on every worker."""
    assert world.envoy.update(config=with_filter_config(copy.deepcopy(world.envoy.config), config)) is None
    eventually(lambda: world.everywhere(lambda: int(world.accepts("/paid")[0]["amount"]) == everywhere),
               "every worker asks the new price")


@pytest.mark.parametrize("dialect", ["v2", "v1", "libertai", "plain"])
def test_who_was_quoted_before_pays_that(repriced, dialect):
    """The facilitator verifies and settles the former amount; a challenge names the new one."""
    payment, other = repriced.payment("/paid"), repriced.payment("/paid")
    reprice(repriced, AFTER, 20_000)
    answer = repriced.call("/paid", payment=payment, dialect=dialect)
    paid(repriced, answer, payment, header=None)
    for call in repriced.facilitator.calls(payment.payload):
        requirements = call.json["paymentRequirements"]
        assert requirements.get("amount", requirements.get("maxAmountRequired")) == "10000"
    assert repriced.metric("x402_former_quotes") == 1
    # What it says must be what was signed and quoted.
    cheap = other.but(lambda payment: payment.offer.update(amount="9999"))
    cheap.authorization["value"] = "9999"
    unpaid(repriced, repriced.call("/paid", payment=cheap.sign(), dialect=dialect), 402)
    repriced.no_calls(cheap)
    fresh = repriced.payment("/paid")
    assert fresh.offer["amount"] == "20000"
    paid(repriced, repriced.call("/paid", payment=fresh, dialect=dialect), fresh, header=None)
    assert repriced.metric("x402_former_quotes") == 1


def test_the_limit_in_the_body_is_that_of_the_price_that_is_paid(repriced):
    """The backend must not be able to give more than was quoted."""
    payment = repriced.payment("/v1/chat/completions", **ASKS)
    assert payment.offer["amount"] == "1000"
    reprice(repriced, AFTER, 20_000)
    limits = []
    for payment in (payment, repriced.payment("/v1/chat/completions", **ASKS)):
        answer = repriced.call("/v1/chat/completions", payment=payment, **ASKS)
        paid(repriced, answer, payment, header=None)
        [request] = repriced.backend.requests(answer.test_id)
        limits.append((payment.offer["amount"], json.loads(request.body)["max_tokens"]))
    assert limits == [("1000", 100), ("120000", 4000)]


def of_chat_before(world: World):
    """A payment of what a chat cost before, for which nobody has asked this Envoy: who pays need not have."""
    challenge = world.call("/paid").challenge
    resource = challenge["resource"]
    resource = {**resource, "url": resource["url"].replace("/paid", "/v1/chat/completions")}
    return pay({**challenge["accepts"][0], "amount": "1000"}, resource=resource)


def unasked(worlds, name: str, **options) -> tuple[World, Payment]:
    """An Envoy to which nothing but GETs has come, and so nothing that the reader was asked about; then its prices change."""
    world = worlds.world(name, BEFORE, ready=lambda world: world.everywhere(lambda: world.call("/paid").status == 402), **options)
    payment = of_chat_before(world)
    reprice(world, AFTER, 20_000)
    return world, payment


def test_the_reader_knows_what_came_to_the_gate_alone(worlds):
    """The former price with the former limit in the body, although the reader has seen none of it."""
    world, payment = unasked(worlds, "grace-unasked")
    answer = paid(world, world.call("/v1/chat/completions", payment=payment, **ASKS), payment)
    [request] = world.backend.requests(answer.test_id)
    assert json.loads(request.body)["max_tokens"] == 100
    [settle] = world.facilitator.calls(payment.payload, "settle")
    assert settle.json["paymentRequirements"]["amount"] == "1000"


def test_no_former_price_for_todays_limit(worlds):
    """A reader that cannot know of the configuration before, being in another VM, writes today's limit: then today's price is asked."""
    def apart(config):
        for plugin in wasm_plugins(config):
            if plugin["root_id"] == "x402-reader":
                plugin["vm_config"]["vm_id"] = "apart"

    world, payment = unasked(worlds, "grace-apart", edit=apart)
    unpaid(world, world.call("/v1/chat/completions", payment=payment, **ASKS), 402, "invalid_payment_requirements")
    world.no_calls(payment)
    assert world.accepts("/v1/chat/completions", **ASKS)[0]["amount"] == "120000"
    # What the reader has no part in is still to be had.
    former = pay({**world.accepts("/paid")[0], "amount": "10000"}, resource=world.call("/paid").challenge["resource"])
    paid(world, world.call("/paid", payment=former), former)


def test_a_metered_answer_is_charged_at_the_rates_that_were_quoted(repriced):
    """Rates and ceiling are of before, on a body that only the reader has seen."""
    payment = repriced.payment("/metered", **ASKS)
    reprice(repriced, AFTER, 20_000)
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}
    does = {"kind": "body", "text": json.dumps(usage), "headers": JSON}
    answer = repriced.call("/metered", payment=payment, does=does, **ASKS)
    assert answer.status == 200, answer
    [settle] = repriced.facilitator.calls(payment.payload, "settle")
    assert settle.json["paymentRequirements"]["amount"] == "70"


def test_a_former_price_ends(repriced):
    """With no grace at all, and with one that has run out."""
    payments = [repriced.payment("/paid", valid_for=300) for _ in range(2)]
    reprice(repriced, prices("0.02", "0.00003", 4000, quote_grace="0s"), 20_000)
    unpaid(repriced, repriced.call("/paid", payment=payments[0]), 402, "invalid_payment_requirements")
    quoted = repriced.payment("/paid")
    reprice(repriced, prices("0.03", "0.00003", 4000, quote_grace="1s"), 30_000)
    eventually(lambda: repriced.call("/paid", payment=quoted.but(fresh_nonce, resign=True)).status == 402,
               "the former price has ended")
    unpaid(repriced, repriced.call("/paid", payment=payments[1]), 402, "invalid_payment_requirements")
    alive(repriced)


def fresh_nonce(payment) -> None:
    """The same payment anew."""
    payment.authorization["nonce"] = pay(payment.offer, payment.payer).authorization["nonce"]


def test_a_refused_configuration_changes_nothing(repriced):
    """It was never in use, so that the one before it is still the one before."""
    payment = repriced.payment("/paid")
    broken = prices("0.05", "0.00003", 4000, unmatched="perhaps")
    assert repriced.envoy.update(config=with_filter_config(copy.deepcopy(repriced.envoy.config), broken)) is not None
    assert repriced.accepts("/paid")[0]["amount"] == "10000"
    reprice(repriced, AFTER, 20_000)
    paid(repriced, repriced.call("/paid", payment=payment), payment)
