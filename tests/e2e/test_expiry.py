"""Payments that end before their metered answer does: nobody gains by one, and nobody else decides how the backend is asked."""

import pytest

from stack.envoy import managers

from .checks import alive, unpaid
from .client import Closed
from .metered import ASKS, DELIVERED, ESTIMATE, answers, streams
from .payments import now, pay
from .wire import eventually
from .world import UPTO, World, changed, facilitator_entry

PRICE = {"per_token": {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}}
VALID = 6
SETTLING = 2


@pytest.fixture(scope="module")
def hasty(worlds) -> World:
    """Payments of six seconds, two of which a settlement may take."""
    config = changed(
        facilitators=facilitator_entry(verify_timeout="60s", settle_timeout=f"{SETTLING}s"),
        pre_check={"clock_skew": "0s", "max_validity": "1h"},
        routes=[{"name": "hasty", "match": {"path": "/hasty"}, "price": PRICE, "flow": "metered",
                 "accept": [{**UPTO, "max_timeout": f"{VALID}s"}],
                 "metered": {"missing_usage": "free", "on_client_abort": "maximum", "on_backend_failure": "free"}}])

    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call("/hasty", **ASKS).status == 402)

    return worlds.world("hasty", config, ready=ready)


def test_an_answer_ends_in_time_to_be_settled(hasty, protocol):
    """However slowly it comes: for what was delivered by then, and before the payment has expired."""
    payment = hasty.payment("/hasty", **ASKS)
    exchange, test_id = hasty.open("/hasty", payment=payment, protocol=protocol, does=streams(*DELIVERED), **ASKS)
    assert exchange.head()[0] == 200
    exchange.read_until(sum(map(len, DELIVERED)))
    call = hasty.facilitator.await_call(payment.payload, "settle")
    assert call.json["paymentRequirements"]["amount"] == str(ESTIMATE)
    with pytest.raises(Closed):
        while exchange.read():
            pass
    assert hasty.envoy.access_log(test_id=test_id)["x402_outcome"] == "interrupted"
    eventually(lambda: hasty.metric("x402_settlements.outcome.settled") >= 1, "it is settled")
    exchange.close()
    alive(hasty)


def test_a_backend_that_answers_too_late_sells_nothing(hasty, protocol):
    payment = hasty.payment("/hasty", **ASKS)
    does = {**answers(), "hold": True}
    exchange, test_id = hasty.open("/hasty", payment=payment, protocol=protocol, does=does, **ASKS)
    gate = hasty.backend.gate(test_id)
    gate.await_reached()
    eventually(lambda: now() >= int(payment.authorization["deadline"]) - SETTLING, "it is too late to be settled")
    gate.release()
    answer = exchange.response()
    assert answer.status == 402 and answer.json()["error"].endswith("valid_before"), answer
    assert hasty.count(payment, "settle") == 0
    exchange.close()


@pytest.mark.parametrize("seconds", [1, 2])
def test_a_payment_that_expires_soon_buys_nothing(hasty, seconds):
    offered = hasty.payment("/hasty", **ASKS)
    payment = pay(offered.offer, resource=offered.resource, valid_for=seconds)
    answer = hasty.call("/hasty", payment=payment, does=answers(), **ASKS)
    unpaid(hasty, answer, 402, "invalid_exact_evm_payload_authorization_valid_before")
    assert "maxTimeoutSeconds" in answer.json()["message"]
    hasty.no_calls(payment)


ROUTER = [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "3"), ("x-envoy-upstream-rq-timeout-ms", "1"),
          ("x-envoy-upstream-rq-per-try-timeout-ms", "1"), ("grpc-timeout", "1m")]


@pytest.fixture(scope="module")
def internal(worlds) -> World:
    """An Envoy that takes every client for one of its own, and so believes what they tell its router."""
    def trust(config: dict) -> None:
        for manager in managers(config):
            manager["internal_address_config"] = {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}
            manager.pop("use_remote_address", None)

    return worlds.world("internal", changed(), edit=trust)


def test_one_payment_buys_one_try(internal, protocol):
    """Whatever the client tells Envoy's router; a request that is not paid for may tell it what it likes."""
    headers = [("x-forwarded-for", "10.0.0.1"), *ROUTER[:2]]
    free = internal.call("/free", headers=headers, protocol=protocol, does={"status": 500})
    assert internal.reached(free) > 1, "this Envoy does believe its clients"
    payment = internal.payment("/paid")
    answer = internal.call("/paid", headers=headers, payment=payment, protocol=protocol, does={"status": 500})
    assert answer.status == 500 and internal.reached(answer) == 1
    answer = internal.call("/paid", headers=[headers[0], *ROUTER], payment=payment, protocol=protocol)
    assert answer.status == 200 and answer.receipt["success"]
    [request] = internal.backend.requests(answer.test_id)
    assert not {name for name, _ in ROUTER} & {name.decode().lower() for name, _ in request.headers}

