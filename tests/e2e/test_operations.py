"""Running it: configuration and its errors, updates, metrics, logs."""

import copy
import json

import pytest

from stack.envoy import Envoy, Refused, gateway, with_filter_config

from .checks import alive, paid, unpaid
from .facilitator import Facilitator, refuse
from .payments import SELLER
from .wire import eventually
from .world import MAIN, World, changed, wasm


def edited(change):
    """MAIN after a change."""
    config = copy.deepcopy(MAIN)
    change(config)
    return config


WRONG = {
    # name: (change, what must be named)
    "unknown field": (lambda it: it.update(colour="blue"), ["colour"]),
    "unknown field further in": (lambda it: it["routes"][2].update(prise=1), ["routes[2]", "prise"]),
    "no unmatched": (lambda it: it.pop("unmatched"), ["unmatched"]),
    "unmatched is odd": (lambda it: it.update(unmatched="maybe"), ["unmatched", "maybe"]),
    "no pay_to": (lambda it: it.pop("pay_to"), ["pay_to"]),
    "pay_to is no address": (lambda it: it["pay_to"].update(eip155="0x12"), ["pay_to.eip155", "0x12"]),
    "unknown asset": (lambda it: it["accept"][0].update(asset="DOGE"), ["accept[0]", "DOGE"]),
    "unknown scheme": (lambda it: it["accept"][0].update(scheme="gift"), ["accept[0].scheme", "gift"]),
    "network is no CAIP-2": (lambda it: it["accept"][0].update(network="base!"), ["accept[0].network"]),
    "price in no currency": (lambda it: it["routes"][2].update(price={"per_request": "0,01"}), ["routes[2].price"]),
    "price is negative": (lambda it: it["routes"][2].update(price={"per_request": "$-1"}), ["routes[2].price", "-1"]),
    "price is a number": (lambda it: it["routes"][2].update(price={"per_request": 0.01}), ["routes[2].price"]),
    "no price": (lambda it: it["routes"][2].pop("price"), ["routes[2]", "price"]),
    "currency is missing": (lambda it: it["routes"][2].update(
        accept=[{"scheme": "exact", "network": "eip155:84532", "asset": "TEUR"}]), ["routes[2]", "eur"]),
    "bad duration": (lambda it: it["accept"][0].update(max_timeout="5 minutes"), ["accept[0].max_timeout"]),
    "no cluster": (lambda it: it["facilitators"][0].pop("cluster"), ["facilitators[0]", "cluster"]),
    "url is no URL": (lambda it: it["facilitators"][0].update(url="facilitator"), ["facilitators[0].url"]),
    "no facilitator for a network": (lambda it: it["facilitators"][0].update(networks=["solana:*"]), ["facilitators"]),
    "path does not begin with a slash": (lambda it: it["routes"][2]["match"].update(path="paid"), ["routes[2].match.path"]),
    "permit without spender": (lambda it: it["routes"][7]["accept"][0].pop("spender"), ["routes[7]", "spender"]),
    "route names twice": (lambda it: it["routes"][3].update(name="paid"), ["routes[3]", "paid"]),
    "body style": (lambda it: it["challenge"].update(body="pigeon"), ["challenge.body", "pigeon"]),
    "public_url": (lambda it: it.update(public_url="api.example.com"), ["public_url"]),
    "api_keys.then": (lambda it: it["access"].update(api_keys={"header": "authorization", "then": "heaven"}),
                      ["access.api_keys.then", "heaven"]),
}


@pytest.fixture(scope="module")
def updated(worlds) -> World:
    """An Envoy whose configuration these tests change."""
    return worlds.world("updated", MAIN)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_configuration_is_refused(updated, name):
    """It says where and what; the one before stays."""
    change, named = WRONG[name]
    why = updated.envoy.update(edited(change))
    assert why is not None, "it was taken"
    for part in named:
        assert part in why, why
    assert updated.accepts("/paid")[0]["amount"] == "10000"


def test_all_errors_at_once(updated):
    def change(it):
        it.update(colour="blue", unmatched="maybe")
        it["routes"][2].update(price={"per_request": "cheap"})
        it["accept"][0].update(asset="DOGE")
        it["facilitators"][0].pop("cluster")
    why = updated.envoy.update(edited(change))
    for part in ("colour", "unmatched", "maybe", "routes[2].price", "cheap", "accept[0]", "DOGE", "facilitators[0]"):
        assert part in (why or ""), why


def test_secrets_are_not_logged(updated):
    def change(it):
        it["facilitators"][0]["headers"] = {"authorization": "Bearer hush", "bad name": "hush-too"}
        it["access"]["bypass"] = [{"header": "x-friend", "value": "hush-hush", "oops": 1}]
    why = updated.envoy.update(edited(change))
    assert why is not None and "hush" not in why
    assert "hush" not in updated.envoy.log() and "friend-of-the-house" not in updated.envoy.log()


def test_update_takes_effect(updated):
    payment = updated.payment("/paid")
    paid(updated, updated.call("/paid", payment=payment), payment)
    dearer = changed(routes=[{**route, "price": {"per_request": "$0.07"}} if route["name"] == "paid" else route
                             for route in MAIN["routes"]])
    assert updated.envoy.update(dearer) is None
    eventually(lambda: updated.everywhere(lambda: updated.accepts("/paid")[0]["amount"] == "70000"), "the new price")
    # Claims are kept: what was spent stays spent.
    again = updated.call("/paid", payment=payment)
    assert again.status == 402 and updated.reached(again) == 0
    assert updated.envoy.update(MAIN) is None
    eventually(lambda: updated.everywhere(lambda: updated.accepts("/paid")[0]["amount"] == "10000"), "the old price")
    unpaid(updated, updated.call("/paid", payment=payment), 402, "nonce_already_used")


def test_wrong_at_the_start(worlds):
    """Envoy does not serve without the filter."""
    config = gateway(worlds.backend.port, {"facilitator": worlds.facilitator.port}, wasm=wasm())
    with pytest.raises(Refused) as refusal:
        Envoy(config, edited(lambda it: it.update(colour="blue")), name="wrong")
    assert "colour" in str(refusal.value)


@pytest.mark.parametrize("form", ["struct", "string"])
def test_forms_of_configuration(worlds, form):
    """A google.protobuf.Struct, as people write it in Envoy's YAML, and a StringValue of JSON, as Istio hands it on."""
    config = gateway(worlds.backend.port, {"facilitator": worlds.facilitator.port}, wasm=wasm())
    with Envoy(with_filter_config(config, MAIN, form), name=f"form-{form}") as envoy:
        world = World(envoy, worlds.backend, worlds.facilitator, worlds.journal)
        assert world.accepts("/paid")[0]["payTo"] == SELLER


METRICS = ["x402_claims", "x402_verifications", "x402_settlements", "x402_released"]


def test_metrics_are_there_from_the_start(updated):
    text = updated.envoy.prometheus()
    for name in METRICS:
        assert name in text, name


def test_metrics_count(main):
    names = {name: main.metric(name) for name in (
        "x402_challenges.route.paid", "x402_verifications.outcome.valid", "x402_verifications.outcome.refused",
        "x402_settlements.outcome.settled", "x402_settlements.outcome.refused", "x402_refusals.reason.invalid_payload")}
    payment = main.payment("/paid")
    paid(main, main.call("/paid", payment=payment), payment)
    for step in ("verify", "settle"):
        payment = main.payment("/paid")
        main.facilitator.script(payment.payload, **{step: refuse("insufficient_funds")})
        assert main.call("/paid", payment=payment).status == 402
    unpaid(main, main.call("/paid", headers=[("payment-signature", "!")]), 400)
    for name, before in names.items():
        eventually(lambda: main.metric(name) > before, f"{name} is counted")


def test_earnings_and_latency(main):
    network, earned = "base", "x402_earned.asset.USDC.network.base"
    payment = main.payment("/paid", choose=lambda found: found["network"] == "eip155:8453")
    before = main.metric(earned)
    paid(main, main.call("/paid", payment=payment), payment)
    eventually(lambda: main.metric(earned) == before + int(payment.offer["amount"]), f"USDC on {network} is counted to the unit")
    text = main.envoy.prometheus()
    assert "x402_verify_ms_bucket" in text and "x402_settle_ms_bucket" in text


def test_offers_that_nobody_supports(worlds):
    kinds = [{"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}]
    facilitator = Facilitator(worlds.loop, worlds.journal, {"kinds": kinds, "extensions": [], "signers": {}})
    accept = [{"scheme": "exact", "network": network, "asset": "USDC"} for network in ("eip155:84532", "eip155:8453")]
    config = changed(accept=accept, routes=[{"name": "paid", "match": {"path": "/paid"}, "price": {"per_request": "$0.01"}}])
    world = worlds.world("unsupported", config, facilitator=facilitator,
                         ready=lambda world: world.metric("x402_unsupported_offers") > 0)
    assert world.metric("x402_unsupported_offers") == 1
    assert "no facilitator says that it supports exact on eip155:8453, which route paid offers for USDC" in world.envoy.log()
    assert len(world.accepts("/paid")) == 2, "it is offered all the same: the facilitator has the last word"


def test_module_is_lean():
    assert wasm().stat().st_size <= 900 << 10


def test_metric_names_hold_nothing_of_the_client(main):
    main.call("/paid", headers=[("payment-signature", "c2VjcmV0LXRleHQ=")])
    main.call("/reports/very-special-path")
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, verify=refuse("very_special_reason"))
    main.call("/paid", payment=payment)
    assert "very" not in main.envoy.prometheus().replace("discovery", "").replace("every", "").replace("delivery", "")


def test_access_log_names_the_payer(main):
    payment = main.payment("/paid")
    answer = paid(main, main.call("/paid", payment=payment), payment)
    entry = main.envoy.access_log(test_id=answer.test_id)
    assert entry["x402_payer"].lower() == payment.payer.address.lower()
    unpaid_answer = main.call("/paid")
    assert main.envoy.access_log(test_id=unpaid_answer.test_id)["x402_payer"] is None


def test_nothing_private_in_the_log(main):
    payment = main.payment("/paid")
    body = json.dumps({"model": "x", "messages": [{"content": "a-very-private-prompt"}]}).encode()
    answer = main.call("/paid", "POST", [("authorization", "Bearer sk-very-private-key")], payment=payment, body=body,
                       does={"kind": "body", "text": "a-very-private-completion"})
    paid(main, answer, payment)
    main.envoy.access_log(test_id=answer.test_id)
    log = main.envoy.log()
    for secret in ("private-prompt", "private-completion", "private-key", payment.payload["signature"][2:]):
        assert secret not in log
    for call in main.facilitator.calls(payment.payload):
        assert b"private" not in call.request.body and b"private" not in str(call.request.headers).encode()


def test_what_every_worker_finds_is_logged_once(worlds):
    """Whoever is first says it: the shared data are set only if they are absent."""
    world = worlds.world("warned", changed(public_url="http://shop.example"), workers=4)
    eventually(lambda: "public_url is http" in world.envoy.log(), "the warning is logged")
    assert world.envoy.log().count("public_url is http") == 1


def test_workers_survived_all_this(main):
    """Last in its file: no VM failed while the tests above and before ran."""
    alive(main)
