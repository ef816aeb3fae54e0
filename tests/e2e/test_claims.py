"""One payment pays once, however often, however fast and in whatever clothes it comes."""

import base64
import secrets
import threading
from collections import Counter

import pytest
from eth_account import Account

from .checks import paid, refused, unpaid
from .facilitator import hang, spends
from .payments import compact, offer
from .world import BASE_PERMIT2, EURO, SOLANA_OFFER, changed

COPIES = 100


def all_at_once(calls):
    """Run these on a thread each, started together."""
    answers, ready = [None] * len(calls), threading.Barrier(len(calls))

    def one(index, call):
        ready.wait()
        answers[index] = call()

    threads = [threading.Thread(target=one, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in answers
    return answers


def lost(main, answer):
    """A copy that came too late: in use, or spent."""
    assert answer.status in (402, 409), answer
    unpaid(main, answer, answer.status, "payment_in_use" if answer.status == 409 else "nonce_already_used")


@pytest.mark.parametrize("path,dialects", [("/paid", ["v2"]), ("/paid", ["v2", "v1", "libertai", "plain"]),
                                           ("/permit2", ["v2"]), ("/upto", ["v2"]), ("/solana", ["v2"])])
def test_race(main, path, dialects):
    payment = main.payment(path)
    answers = all_at_once([
        lambda dialect=dialects[number % len(dialects)], protocol=("h1", "h2")[number // 2 % 2]:
            main.call(path, payment=payment, dialect=dialect, protocol=protocol)
        for number in range(COPIES)
    ])
    winners = [answer for answer in answers if answer.status == 200]
    assert len(winners) == 1, Counter(answer.status for answer in answers)
    assert sum(main.reached(answer) for answer in answers) == 1
    assert main.count(payment, "settle") == 1 and main.count(payment, "verify") == 1
    for answer in answers:
        if answer is not winners[0]:
            lost(main, answer)


def test_in_use_while_verifying(main, protocol):
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, verify=hang())
    exchange, test_id = main.open("/paid", payment=payment, protocol=protocol)
    main.facilitator.gate(payment.payload).await_reached()
    for _ in range(4):
        unpaid(main, main.call("/paid", payment=payment, protocol=protocol), 409, "payment_in_use")
    main.facilitator.gate(payment.payload).release()
    answer = exchange.response()
    answer.test_id = test_id
    paid(main, answer, payment)
    unpaid(main, main.call("/paid", payment=payment, protocol=protocol), 402, "nonce_already_used")
    assert main.count(payment, "verify") == 1


def test_in_use_while_the_backend_works(main):
    payment = main.payment("/paid")
    exchange, test_id = main.open("/paid", payment=payment, does={"hold": True})
    main.backend.gate(test_id).await_reached()
    unpaid(main, main.call("/paid", payment=payment), 409, "payment_in_use")
    main.backend.gate(test_id).release()
    answer = exchange.response()
    answer.test_id = test_id
    paid(main, answer, payment)


def test_in_use_while_settling(main):
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=hang())
    exchange, test_id = main.open("/paid", payment=payment)
    main.facilitator.gate(payment.payload).await_reached()
    answer = main.call("/paid", payment=payment)
    assert answer.status in (409, 503), answer
    refused(answer, answer.status)
    main.facilitator.gate(payment.payload).release()
    answer = exchange.response()
    answer.test_id = test_id
    paid(main, answer, payment)


def test_spent_on_every_worker(main):
    payment = main.payment("/paid")
    paid(main, main.call("/paid", payment=payment), payment)
    assert main.everywhere(lambda: unpaid(main, main.call("/paid", payment=payment), 402, "nonce_already_used"))
    assert main.count(payment, "verify") == 1


@pytest.mark.parametrize("first,second", [("v2", "v1"), ("v1", "v2"), ("v2", "plain"), ("plain", "libertai")])
def test_spent_in_every_dialect(main, first, second):
    payment = main.payment("/paid")
    paid(main, main.call("/paid", payment=payment, dialect=first), payment, None)
    unpaid(main, main.call("/paid", payment=payment, dialect=second), 402, "nonce_already_used")


def test_spent_on_another_route(main):
    payment = main.payment("/paid")
    paid(main, main.call("/paid", payment=payment), payment)
    again = payment.but(lambda it: setattr(it, "resource", None))
    unpaid(main, main.call("/base-only", payment=again), 402, "nonce_already_used")


DISGUISES = {
    "compact signature": lambda it: it.payload.update(signature=compact(it.payload["signature"])),
    "lower-case payer": lambda it: it.authorization.update({"from": it.authorization["from"].lower()}),
    "upper-case nonce": lambda it: it.authorization.update(nonce="0x" + it.authorization["nonce"][2:].upper()),
    "more JSON": lambda it: setattr(it, "extensions", {"x": {}}),
    "a signature only the chain can judge": lambda it: it.payload.update(signature="0x" + secrets.token_hex(200)),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_spent_in_any_clothes(main, name):
    payment = main.payment("/paid")
    paid(main, main.call("/paid", payment=payment), payment)
    unpaid(main, main.call("/paid", payment=payment.but(DISGUISES[name])), 402, "nonce_already_used")
    assert main.count(payment, "settle") == 1


def test_another_signature_for_the_same_nonce(main):
    """Signed again over other terms: the nonce is spent all the same."""
    payment = main.payment("/paid")
    paid(main, main.call("/paid", payment=payment), payment)
    again = main.payment("/reports/x", payer=payment.payer, nonce=payment.authorization["nonce"])
    unpaid(main, main.call("/reports/x", payment=again), 402, "nonce_already_used")


def test_permit2_nonces_are_the_owners(main):
    """Whatever the scheme."""
    payer, nonce = Account.create(), str(secrets.randbits(200))
    first = main.payment("/permit2", payer=payer, nonce=nonce)
    paid(main, main.call("/permit2", payment=first), first)
    second = main.payment("/upto", payer=payer, nonce=nonce)
    answer = main.call("/upto", payment=second)
    unpaid(main, answer, 402, "nonce_already_used")


def test_permit2_nonce_with_leading_zeros(main):
    payment = main.payment("/permit2", nonce=str(secrets.randbits(200)))
    paid(main, main.call("/permit2", payment=payment), payment)
    again = payment.but(lambda it: it.authorization.update(nonce="00" + it.authorization["nonce"]))
    answer = main.call("/permit2", payment=again)
    assert answer.status in (400, 402)
    unpaid(main, answer, answer.status)


def test_eip3009_nonces_are_each_tokens_own(main):
    payer, nonce = Account.create(), "0x" + secrets.token_hex(32)
    for wanted in (offer(10_000), offer(10_000, network="eip155:84532")):
        payment = main.payment("/paid", choose=lambda found: found == wanted, payer=payer, nonce=nonce)
        answer = main.call("/paid", payment=payment)
        assert answer.status == 200 and answer.receipt["success"], answer


def test_solana_message_without_its_signatures(main):
    """The claim is on the message: other signatures around it change nothing."""
    payment = main.payment("/solana")
    paid(main, main.call("/solana", payment=payment), payment)
    unpaid(main, main.call("/solana", payment=resigned(payment)), 402, "nonce_already_used")


# What one Permit2 nonce could be spent on, by route.
USDC_OFFER, EUR_OFFER = {**BASE_PERMIT2, "network": "eip155:84532"}, {**EURO, "transfer": "permit2"}
SPENDS = {"/usdc": USDC_OFFER, "/eur": EUR_OFFER, "/upto-usdc": {**USDC_OFFER, "scheme": "upto"},
          "/upto-eur": {**EUR_OFFER, "scheme": "upto"}}


@pytest.fixture(scope="module")
def tokens(worlds):
    """Two tokens and two schemes on one network, all paid for by Permit2, and Solana; four workers."""
    price = {"per_request": {"usd": "0.01", "eur": "0.009"}}
    routes = [{"name": path[1:], "match": {"path": path}, "price": price, "accept": [offer]} for path, offer in SPENDS.items()]
    routes.append({"name": "solana", "match": {"path": "/solana"}, "price": price, "accept": [SOLANA_OFFER]})
    paths = [*SPENDS, "/solana"]
    return worlds.world("tokens", changed(routes=routes), workers=4,
                        ready=lambda world: world.everywhere(lambda: all(world.call(path).status == 402 for path in paths)))


def permit2_twins(world):
    """Payments of one owner with one nonce, all that could be had for it."""
    payer, nonce = Account.create(), str(secrets.randbits(200))
    found = {path: world.payment(path, payer=payer, nonce=nonce) for path in SPENDS}
    assert len({payment.authorization["permitted"]["token"] for payment in found.values()}) == 2
    assert len({payment.authorization["spender"] for payment in found.values()}) == 2
    return [(path, payment) for path, payment in found.items()]


def resigned(payment):
    """The same Solana message in other signatures."""
    data = base64.b64decode(payment.payload["transaction"])
    return payment.but(lambda it: it.payload.update(
        transaction=base64.b64encode(data[:1] + secrets.token_bytes(128) + data[129:]).decode()))


def solana_twins(world):
    """One message, signed in many ways."""
    payment = world.payment("/solana")
    return [("/solana", payment), *(("/solana", resigned(payment)) for _ in range(3))]


TWINS = {"permit2": permit2_twins, "solana": solana_twins}


def calls_for(world, twins, what):
    """How often the facilitator was called for any of them; what they spend may be written in more than one way."""
    keys = {spends(payment.payload) for _, payment in twins}
    return sum(call.what == what and call.spends in keys for call in list(world.facilitator.calls_seen))


@pytest.mark.parametrize("kind", TWINS)
def test_race_of_what_spends_the_same(tokens, kind):
    """On whichever tokens, schemes, signatures and workers: one is served."""
    for _ in range(5):
        twins = TWINS[kind](tokens)
        answers = all_at_once([
            lambda path=path, payment=payment, protocol=protocol: tokens.call(path, payment=payment, protocol=protocol)
            for path, payment in twins for protocol in ("h1", "h2") for _ in range(5)
        ])
        winners = [answer for answer in answers if answer.status == 200]
        assert len(winners) == 1, Counter(answer.status for answer in answers)
        assert sum(tokens.reached(answer) for answer in answers) == 1
        assert calls_for(tokens, twins, "verify") == calls_for(tokens, twins, "settle") == 1
        for answer in answers:
            if answer is not winners[0]:
                lost(tokens, answer)


@pytest.mark.parametrize("kind", TWINS)
def test_what_spends_the_same_is_held_on_every_worker(tokens, kind):
    """While one of them is in use, and when it has been spent."""
    twins = TWINS[kind](tokens)
    (path, first), *others = twins
    tokens.facilitator.script(first.payload, verify=hang())
    exchange, test_id = tokens.open(path, payment=first)
    tokens.facilitator.gate(first.payload).await_reached()
    for other, payment in others:
        assert tokens.everywhere(lambda: unpaid(tokens, tokens.call(other, payment=payment), 409, "payment_in_use"))
    tokens.facilitator.gate(first.payload).release()
    answer = exchange.response()
    answer.test_id = test_id
    paid(tokens, answer, first)
    for other, payment in twins:
        assert tokens.everywhere(lambda: unpaid(tokens, tokens.call(other, payment=payment), 402, "nonce_already_used"))
    assert calls_for(tokens, twins, "verify") == calls_for(tokens, twins, "settle") == 1


def test_refused_payment_is_free_again(main):
    from .facilitator import ok, refuse
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, verify=[refuse("insufficient_funds"), ok()])
    unpaid(main, main.call("/paid", payment=payment), 402, "insufficient_funds", "402.1")
    paid(main, main.call("/paid", payment=payment), payment)


def test_race_of_releases(main):
    """The backend fails, the claim is released, and many try again: one gets through."""
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, does={"status": 500})
    assert answer.status == 500
    answers = all_at_once([lambda: main.call("/paid", payment=payment) for _ in range(20)])
    assert Counter(answer.status for answer in answers)[200] == 1
    assert main.count(payment, "settle") == 1
