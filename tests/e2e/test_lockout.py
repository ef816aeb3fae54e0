"""What only the chain can judge: a signature in a smart wallet's form proves nothing yet, and locks nobody out."""

import secrets

import pytest

from .checks import paid, unpaid, untouched
from .facilitator import hang, ok, refuse, spends
from .payments import OTHER, SELLER, offer, pay
from .test_claims import COPIES, all_at_once


def smart(payment):
    """The same payment under a hundred bytes that a wallet contract may take for a signature."""
    return payment.but(lambda it: it.payload.update(signature="0x" + secrets.token_hex(100)))


def victims(main, path):
    """A good payment, and its dialect. The nonce of EIP-2612 is a counter that everybody can read."""
    if path == "/permit":
        return pay(offer(100_000, scheme="upto", pay_to=OTHER, primaryType="Permit", recipientAddress=SELLER)), "libertai"
    return main.payment(path), "v2"


def refused_in_any_dialect(main, answer, reason):
    """LibertAI's offers are made in a body alone, so a v2 challenge is not asked for."""
    assert answer.status == 402 and answer.json()["error"] == reason and not answer.has_receipt, answer
    untouched(main, answer)


@pytest.mark.parametrize("path", ["/paid", "/permit2", "/upto", "/permit"])
def test_garbage_does_not_lock_the_payer_out(main, path):
    victim, dialect = victims(main, path)
    attack = smart(victim)
    main.facilitator.script(victim.payload, verify=[hang(refuse("invalid_signature")), ok()])
    exchange, test_id = main.open(path, payment=attack, dialect=dialect)
    main.facilitator.gate(attack.payload).await_reached()
    paid(main, main.call(path, payment=victim, dialect=dialect), victim, None)
    main.facilitator.gate(attack.payload).release()
    answer = exchange.response()
    answer.test_id = test_id
    # What it names is spent by now, whatever the facilitator says of it.
    refused_in_any_dialect(main, answer, "nonce_already_used")
    refused_in_any_dialect(main, main.call(path, payment=victim, dialect=dialect), "nonce_already_used")
    assert main.count(victim, "settle") == 1


def test_garbage_that_is_verified_too_late(main):
    """The facilitator finds it good, but what it spends is spent."""
    victim = main.payment("/paid")
    main.facilitator.script(victim.payload, verify=[hang(), ok()])
    exchange, test_id = main.open("/paid", payment=smart(victim))
    main.facilitator.gate(victim.payload).await_reached()
    paid(main, main.call("/paid", payment=victim), victim)
    main.facilitator.gate(victim.payload).release()
    answer = exchange.response()
    answer.test_id = test_id
    unpaid(main, answer, 402, "nonce_already_used")
    assert main.count(victim, "settle") == 1


def test_attacker_that_leaves_takes_nothing_along(main, protocol):
    """A request without the claim does not release the claim of another."""
    victim = main.payment("/paid")
    main.facilitator.script(victim.payload, verify=[hang(), ok()])
    attacker, attack_id = main.open("/paid", payment=smart(victim), protocol=protocol)
    main.facilitator.gate(victim.payload).await_reached()
    exchange, test_id = main.open("/paid", payment=victim, protocol=protocol, does={"hold": True})
    main.backend.gate(test_id).await_reached()
    attacker.leave()
    main.envoy.access_log(test_id=attack_id)
    unpaid(main, main.call("/paid", payment=victim), 409, "payment_in_use")
    main.backend.gate(test_id).release()
    answer = exchange.response()
    answer.test_id = test_id
    paid(main, answer, victim)
    main.facilitator.gate(victim.payload).release()


@pytest.mark.parametrize("path", ["/paid", "/permit2"])
@pytest.mark.parametrize("kind", ["copies", "disguises"])
def test_race(main, path, kind):
    """A hundred at once, all of them found good by the facilitator: one answer."""
    payment = main.payment(path)
    one = smart(payment)
    sent = [one if kind == "copies" else smart(payment) for _ in range(COPIES)]
    answers = all_at_once([
        lambda copy=copy, protocol=("h1", "h2")[number % 2]: main.call(path, payment=copy, protocol=protocol)
        for number, copy in enumerate(sent)
    ])
    winners = [answer for answer in answers if answer.status == 200]
    assert len(winners) == 1, [answer.status for answer in answers]
    assert sum(main.reached(answer) for answer in answers) == 1
    assert main.count(payment, "settle") == 1
    for answer in answers:
        if answer is not winners[0]:
            assert answer.status in (402, 409), answer
            unpaid(main, answer, answer.status, "payment_in_use" if answer.status == 409 else "nonce_already_used")
    assert main.journal.of(spends(payment.payload)).count("settle") == 1
