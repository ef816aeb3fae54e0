"""Settlements without a clear answer: sent again, believed where there is reason to, and taken up by whoever sends the payment again."""

import copy

import pytest
from eth_account import Account

from stack.envoy import with_filter_config

from .checks import alive, refused, unpaid
from .facilitator import garbage, hang, ok, refuse, reset
from .wire import eventually
from .world import BASE, BASE_PERMIT2, UPTO, World, changed, price

USED = "invalid_exact_evm_nonce_already_used"
TRANSACTION = "0x" + "ab" * 32


@pytest.fixture(scope="module")
def patient(worlds) -> World:
    """Retries as they are by default, on three workers."""
    config = changed(settlement={"retries": 3, "retry_budget": "60s", "accept_used_nonce_up_to": "$0.01"}, routes=[
        {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]},
        {"name": "dear", "match": {"path": "/dear"}, "price": price("0.010001"), "accept": [BASE]},
        {"name": "upfront", "match": {"path": "/upfront"}, "price": price("0.01"), "accept": [BASE], "flow": "upfront"},
    ])
    return worlds.world("patient", config, ready=lambda world: bool(world.accepts("/paid")), workers=3)


@pytest.mark.parametrize("path", ["/paid", "/upfront"])
@pytest.mark.parametrize("first", [reset, garbage], ids=["reset", "garbage"])
def test_what_has_no_answer_is_sent_again(patient, protocol, path, first):
    """The client waits, and gets what it has paid for, once."""
    known = patient.metric("x402_settlement_retries")
    payment = patient.payment(path)
    patient.facilitator.script(payment.payload, settle=[first(), ok()])
    answer = patient.call(path, payment=payment, protocol=protocol)
    assert answer.status == 200 and answer.receipt["success"], answer
    assert patient.count(payment, "settle") == 2 and patient.reached(answer) == 1
    assert patient.metric("x402_settlement_retries") == known + 1
    unpaid(patient, patient.call(path, payment=payment), 402, "nonce_already_used")


def test_it_is_the_same_settlement_each_time(patient):
    payment = patient.payment("/paid")
    patient.facilitator.script(payment.payload, settle=[garbage(), garbage(), ok()])
    assert patient.call("/paid", payment=payment).status == 200
    calls = patient.facilitator.calls(payment.payload, "settle")
    assert len(calls) == 3 and all(call.json == calls[0].json for call in calls)


def test_a_named_transaction_is_no_proof_but_a_receipt(patient, protocol):
    """A payer can outbid it while it waits for its block: above the bound somebody has to look at the chain."""
    def named(path: str):
        payment = patient.payment(path)
        pending = refuse("settlement_pending", transaction=TRANSACTION)
        patient.facilitator.script(payment.payload, settle=[pending, refuse(USED)])
        return patient.call(path, payment=payment, protocol=protocol)

    answer = named("/dear")
    refused(answer, 503, "settlement_pending")
    assert patient.envoy.access_log(test_id=answer.test_id)["x402_transaction"] == TRANSACTION
    answer = named("/paid")
    assert answer.status == 200 and answer.receipt["transaction"] == TRANSACTION, answer


def test_another_transaction_that_fails_is_evidence_as_a_used_nonce_is(patient, protocol):
    """Some facilitators have no other word for it."""
    def failed(path: str):
        payment = patient.payment(path)
        reverted = refuse("invalid_exact_evm_transaction_failed", transaction=TRANSACTION)
        patient.facilitator.script(payment.payload, settle=[reset(), reverted])
        return patient.call(path, payment=payment, protocol=protocol)

    refused(failed("/dear"), 503, "settlement_pending")
    assert failed("/paid").receipt["success"] is True


def test_a_payment_whose_transaction_failed_is_used_up(patient, protocol):
    """It would fail again, at the facilitator's expense."""
    payment = patient.payment("/paid")
    patient.facilitator.script(payment.payload, settle=refuse("invalid_exact_evm_transaction_failed", transaction=TRANSACTION))
    answer = patient.call("/paid", payment=payment, protocol=protocol)
    refused(answer, 402)
    unpaid(patient, patient.call("/paid", payment=payment, protocol=protocol), 402, "nonce_already_used")
    assert patient.count(payment, "settle") == 1


def test_a_used_nonce_alone_counts_for_little_money_once_an_hour(patient):
    """More than that, or more often, and it stays pending: a payer can burn a nonce."""
    payer = Account.create()
    known = patient.metric("x402_settlements.outcome.inferred")

    def inferred(path: str, who=payer):
        payment = patient.payment(path, payer=who)
        patient.facilitator.script(payment.payload, settle=[reset(), refuse(USED)])
        return patient.call(path, payment=payment)

    refused(inferred("/dear"), 503, "settlement_pending")
    assert inferred("/paid").receipt["success"] is True
    refused(inferred("/paid"), 503, "settlement_pending")
    assert inferred("/paid", Account.create()).status == 200
    assert patient.metric("x402_settlements.outcome.inferred") == known + 2


def test_a_refusal_after_an_attempt_without_an_answer_proves_nothing(patient):
    """The balance may be gone because the first attempt took it: no new challenge."""
    payment = patient.payment("/paid")
    patient.facilitator.script(payment.payload, settle=[reset(), refuse("insufficient_funds")])
    answer = patient.call("/paid", payment=payment)
    refused(answer, 503, "settlement_pending")
    assert patient.count(payment, "settle") == 4


def test_a_client_that_leaves_stops_nothing(patient, protocol):
    payment = patient.payment("/paid")
    patient.facilitator.script(payment.payload, settle=[hang(garbage()), ok()])
    exchange, test_id = patient.open("/paid", payment=payment, protocol=protocol)
    patient.facilitator.gate(payment.payload).await_reached()
    exchange.leave()
    patient.envoy.access_log(test_id=test_id)
    patient.facilitator.gate(payment.payload).release()
    eventually(lambda: patient.count(payment, "settle") == 2, "it is sent again")
    eventually(lambda: patient.call("/paid", payment=payment).status == 402, "it is settled")
    unpaid(patient, patient.call("/paid", payment=payment), 402, "nonce_already_used")
    alive(patient)


def test_a_configuration_that_goes_ends_what_it_began(worlds):
    """It sends again what has no answer, when its listener and connections are gone."""
    def config(**more) -> dict:
        return changed(settlement={"retries": 3}, routes=[
            {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]}], **more)

    world = worlds.world("goes", config(), ready=lambda world: bool(world.accepts("/paid")))
    payment = world.payment("/paid")
    world.facilitator.script(payment.payload, settle=[hang(garbage()), garbage(), ok()])
    exchange, _ = world.open("/paid", payment=payment)
    world.facilitator.gate(payment.payload).await_reached()
    other = with_filter_config(copy.deepcopy(world.envoy.config), config(quote_grace="61s"))
    assert world.envoy.update(config=other) is None
    draining = r"^listener_manager\.total_(filter_chains|listeners)_draining$"
    eventually(lambda: sum(world.envoy.stats(draining).values()) == 0, "the old listener is gone")
    # Nobody takes over what may yet be heard of.
    unpaid(world, world.call("/paid", payment=payment), 503, "settlement_pending")
    world.facilitator.gate(payment.payload).release()
    eventually(lambda: world.count(payment, "settle") == 3, "it is sent again, and again")
    eventually(lambda: world.call("/paid", payment=payment).status == 402, "it is settled")
    unpaid(world, world.call("/paid", payment=payment), 402, "nonce_already_used")
    exchange.close()
    alive(world)


def test_a_burnt_nonce_is_no_settlement(patient, protocol):
    """While the settlement hangs the payer burns its nonce: what is reverted for that proves nothing."""
    payment = patient.payment("/dear")
    patient.facilitator.script(payment.payload, settle=[reset(), refuse(USED, transaction=TRANSACTION)])
    answer = patient.call("/dear", payment=payment, protocol=protocol)
    refused(answer, 503, "settlement_pending")
    assert not answer.has_receipt


# Sent again by the client

def test_a_pending_payment_takes_up_where_it_stopped(main, protocol):
    """The request goes to the backend once it is known that it was paid."""
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=[garbage(), garbage(), ok()])
    refused(main.call("/paid", payment=payment, protocol=protocol), 503, "settlement_pending")
    again = main.call("/paid", payment=payment, protocol=protocol)
    unpaid(main, again, 503, "settlement_pending")
    answer = main.call("/paid", "POST", payment=payment, protocol=protocol, body=b"x" * 50_000, does={"kind": "mirror"})
    assert answer.status == 200 and answer.receipt["success"] and answer.body == b"x" * 50_000, answer
    assert main.count(payment, "verify") == 1 and main.count(payment, "settle") == 3
    unpaid(main, main.call("/paid", payment=payment), 402, "nonce_already_used")


def test_one_request_at_a_time_asks_about_it(main):
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=[garbage(), hang()])
    refused(main.call("/paid", payment=payment), 503, "settlement_pending")
    exchange, _ = main.open("/paid", payment=payment)
    main.facilitator.gate(payment.payload).await_reached()
    for _ in range(8):
        assert main.call("/paid", payment=payment).status == 409
    main.facilitator.gate(payment.payload).release()
    assert exchange.response().receipt["success"]
    exchange.close()
    assert main.count(payment, "settle") == 2


def test_one_nonce_buys_no_second_answer_by_another_scheme(worlds):
    """A metered answer was delivered and its settlement is unknown: a payment of exact with its nonce takes nothing over."""
    world = worlds.world("two-schemes", changed(routes=[
        {"name": "upto", "match": {"path": "/upto"}, "price": price("0.01"), "accept": [UPTO], "flow": "metered"},
        {"name": "exact", "match": {"path": "/exact"}, "price": price("0.01"), "accept": [BASE_PERMIT2]},
    ]), ready=lambda world: world.everywhere(lambda: world.call("/upto").status == 402))
    payer = Account.create()
    first = world.payment("/upto", payer=payer)
    world.facilitator.script(first.payload, settle=[garbage(), ok()])
    assert world.call("/upto", payment=first).status == 200
    second = world.payment("/exact", payer=payer, nonce=first.authorization["nonce"])
    assert second.authorization["nonce"] == first.authorization["nonce"]
    unpaid(world, world.call("/exact", payment=second), 503, "settlement_pending")
    assert world.count(first, "settle") == 1


def test_what_nobody_here_can_vouch_for_stays_pending(main):
    """Nor does upto: it may have been less than the quote."""
    for path in ("/solana", "/upto"):
        payment = main.payment(path)
        main.facilitator.script(payment.payload, settle=garbage())
        refused(main.call(path, payment=payment), 503, "settlement_pending")
        unpaid(main, main.call(path, payment=payment), 503, "settlement_pending")
        assert main.count(payment, "settle") == 1
