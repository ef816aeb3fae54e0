"""What one payer may ask for, and what it calls its payments."""

import json
import secrets

import pytest
from eth_account import Account

from .checks import alive, paid, refused, unpaid
from .facilitator import garbage, hang
from .payments import pay
from .wire import eventually
from .world import BASE, SOLANA_OFFER, World, changed, price

LIMITED = "payer_limit_exceeded"


@pytest.fixture(scope="module")
def limited(worlds) -> World:
    """Six requests and five cents in ten minutes."""
    config = changed(limits={"payer": {"requests": 6, "window": "10m", "spend": "$0.05"}}, routes=[
        {"name": "cheap", "match": {"path": "/cheap"}, "price": price("0.000001"), "accept": [BASE]},
        {"name": "dear", "match": {"path": "/dear"}, "price": price("0.02"), "accept": [BASE, SOLANA_OFFER]},
        {"name": "too-dear", "match": {"path": "/too-dear"}, "price": price("0.06"), "accept": [BASE]},
    ])
    return worlds.world("limited", config, workers=3, ready=lambda world: world.everywhere(
        lambda: len(world.accepts("/dear")) == 2))


def over(answer, most: int = 600) -> None:
    """429, and when it is over."""
    refused(answer, 429, LIMITED)
    assert 1 <= int(answer.header("retry-after")) <= most, answer
    assert not answer.all("payment-required")


def test_a_payer_has_so_many_requests_over_all_workers(limited, protocol):
    """The seventh is not asked about; other payers are served; its payment stays good."""
    payer = Account.create()
    for _ in range(6):
        payment = limited.payment("/cheap", payer=payer)
        paid(limited, limited.call("/cheap", payment=payment, protocol=protocol), payment)
    payment = limited.payment("/cheap", payer=payer)
    assert limited.everywhere(lambda: over(limited.call("/cheap", payment=payment, protocol=protocol)) is None)
    limited.no_calls(payment)
    other = limited.payment("/cheap")
    paid(limited, limited.call("/cheap", payment=other), other)


def test_a_payer_spends_so_much_and_what_was_not_paid_is_not_spent(limited, protocol):
    payer = Account.create()
    for does, status in [({}, 200), ({"status": 500}, 500), ({"status": 404}, 404), ({}, 200)]:
        payment = limited.payment("/dear", payer=payer)
        assert limited.call("/dear", payment=payment, protocol=protocol, does=does).status == status
    payment = limited.payment("/dear", payer=payer)
    over(limited.call("/dear", payment=payment, protocol=protocol))
    limited.no_calls(payment)
    alone = limited.payment("/too-dear")
    over(limited.call("/too-dear", payment=alone, protocol=protocol))


def test_many_at_once_are_no_more(limited):
    """One payer's forty requests race over three workers."""
    payer = Account.create()
    offer = limited.accepts("/cheap")[0]
    opened = [limited.open("/cheap", payment=pay(offer, payer)) for _ in range(40)]
    answers = [exchange.response() for exchange, _ in opened]
    assert sorted(answer.status for answer in answers) == [200] * 6 + [429] * 34
    for exchange, _ in opened:
        exchange.close()
    alive(limited)


def test_nobody_uses_up_what_another_payer_has(limited, protocol):
    """A payer is counted by its own signature, and by no other one."""
    payer = Account.create()
    for _ in range(10):
        forged = pay(limited.accepts("/cheap")[0], Account.create())
        forged.payload["authorization"]["from"] = payer.address
        refused(limited.call("/cheap", payment=forged, protocol=protocol), 402, "invalid_exact_evm_payload_signature")
    payment = limited.payment("/cheap", payer=payer)
    paid(limited, limited.call("/cheap", payment=payment, protocol=protocol), payment)


def test_a_cooldown_lies_between_two_requests(worlds, protocol):
    world = worlds.world("cooling", changed(limits={"cooldown": "1h"}, routes=[
        {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]}]),
        ready=lambda world: bool(world.accepts("/paid")))
    payer = Account.create()
    first, second = world.payment("/paid", payer=payer), world.payment("/paid", payer=payer)
    paid(world, world.call("/paid", payment=first, protocol=protocol), first)
    answer = world.call("/paid", payment=second, protocol=protocol)
    over(answer, most=3600)
    assert int(answer.header("retry-after")) > 3000
    world.no_calls(second)


# payment-identifier

@pytest.fixture(scope="module")
def named(worlds) -> World:
    """Payments may have names."""
    config = changed(payment_identifier="optional", routes=[
        {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]}])
    return worlds.world("named", config, workers=3, ready=lambda world: bool(world.accepts("/paid")))


@pytest.fixture(scope="module")
def demanding(worlds) -> World:
    """They must."""
    config = changed(payment_identifier="required", routes=[
        {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]},
        {"name": "three", "match": {"path": "/three*"}, "price": price("0.01"), "accept": [BASE],
         "limits": {"requests_per_payment": 3}}])
    return worlds.world("demanding", config, workers=2, ready=lambda world: bool(world.accepts("/paid")))


def called(world: World, identifier: str | None, payer=None, path: str = "/paid"):
    """A payment that echoes the extension as it is advertised, with an id."""
    extensions = world.call(path).challenge["extensions"]
    payment = world.payment(path, payer=payer)
    if identifier is not None:
        extensions["payment-identifier"]["info"]["id"] = identifier
    payment.extensions = extensions
    return payment


def fresh() -> str:
    return "pay_" + secrets.token_hex(16)


def test_one_identifier_is_one_payment_for_one_request(named, protocol):
    """Whoever signs anew for want of an answer does not pay twice; on every worker."""
    identifier, payer = fresh(), Account.create()
    first, anew = called(named, identifier, payer), called(named, identifier, payer)
    named.facilitator.script(first.payload, settle=[hang()])
    exchange, test_id = named.open("/paid", payment=first, protocol=protocol)
    named.facilitator.gate(first.payload).await_reached()
    exchange.leave()
    named.envoy.access_log(test_id=test_id)
    conflict = "payment_identifier_conflict"
    assert named.everywhere(lambda: refused(named.call("/paid", payment=anew), 409, conflict) is not None)
    named.no_calls(anew)
    named.facilitator.gate(first.payload).release()
    eventually(lambda: named.call("/paid?other", payment=first).json()["error"] == conflict, "another request conflicts")
    answer = eventually(lambda: (found := named.call("/paid", payment=first)).status == 200 and found, "the first is had again")
    paid(named, answer, first)
    unpaid(named, named.call("/paid", payment=first), 402, "nonce_already_used")
    unpaid(named, named.call("/paid", payment=anew), 409, conflict)
    other = called(named, fresh(), payer)
    paid(named, named.call("/paid", payment=other), other)


def test_a_payment_that_is_pending_keeps_its_name_and_one_that_is_given_back_does_not(named, protocol):
    identifier, payer = fresh(), Account.create()
    failed, anew, third = (called(named, identifier, payer) for _ in range(3))
    assert named.call("/paid", payment=failed, protocol=protocol, does={"status": 500}).status == 500
    named.facilitator.script(anew.payload, settle=[garbage()])
    refused(named.call("/paid", payment=anew, protocol=protocol), 503, "settlement_pending")
    unpaid(named, named.call("/paid", payment=third), 409, "payment_identifier_conflict")


def test_without_a_name_it_is_as_ever(named, protocol):
    payment = called(named, None)
    paid(named, named.call("/paid", payment=payment, protocol=protocol), payment)
    bare = named.payment("/paid")
    paid(named, named.call("/paid", payment=bare, protocol=protocol), bare)


def test_where_it_is_required_only_what_has_one_is_served(demanding, protocol):
    challenge = demanding.call("/paid")
    assert challenge.challenge["extensions"]["payment-identifier"]["info"] == {"required": True}
    assert "accepts" not in challenge.json() and not challenge.all("x-payment-amount")
    bare = demanding.payment("/paid")
    unpaid(demanding, demanding.call("/paid", payment=bare, protocol=protocol), 400, "payment_identifier_required")
    unpaid(demanding, demanding.call("/paid", payment=bare, dialect="v1", protocol=protocol), 400, "payment_identifier_required")
    demanding.no_calls(bare)
    short = called(demanding, "short")
    unpaid(demanding, demanding.call("/paid", payment=short, protocol=protocol), 400, "invalid_payload")
    changed_echo = called(demanding, fresh())
    changed_echo.extensions["payment-identifier"]["info"]["required"] = False
    unpaid(demanding, demanding.call("/paid", payment=changed_echo, protocol=protocol), 402, "extension_echo_mismatch")
    good = called(demanding, fresh())
    paid(demanding, demanding.call("/paid", payment=good, protocol=protocol), good)


def test_what_one_payment_buys_goes_by_its_name(demanding, protocol):
    """Who reads the payment from the chain does not know its identifier."""
    payment = called(demanding, fresh(), path="/three")
    paid(demanding, demanding.call("/three", payment=payment, protocol=protocol), payment)
    theirs, payment.extensions = payment.extensions, json.loads(json.dumps(payment.extensions))
    payment.extensions["payment-identifier"]["info"]["id"] = fresh()
    unpaid(demanding, demanding.call("/three", payment=payment, protocol=protocol), 402, "nonce_already_used")
    payment.extensions = theirs
    for path in ("/three/a", "/three/b"):
        paid(demanding, demanding.call(path, payment=payment, protocol=protocol), payment)
    unpaid(demanding, demanding.call("/three", payment=payment), 402, "nonce_already_used")
