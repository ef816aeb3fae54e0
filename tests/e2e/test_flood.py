"""Thousands of payments thrown at four workers: copies, junk, and payments that are made to stay in the memory.

The requests go over connections that stay open, HTTP/1.1 and HTTP/2 mixed, some to each worker (`crowd.py`).
"""

import asyncio
import random
import secrets
from collections import Counter

import pytest
from eth_account import Account

from stack.process import DEADLINE, wait_until

from .checks import alive
from .crowd import Ask, Crowd
from .facilitator import Facilitator, spends
from .payments import OTHER, encode, high_s, now, pay
from .wire import eventually, fresh_id
from .world import MAIN, World, changed

WORKERS = 4
PAYMENTS, BATCH = 1000, 50
# Thrown together with the first one, and a batch later.
COPIES, LATE = 4, 1
# In seconds: more than a batch takes on any machine, so that each payment meets the filter in time.
VALID = 15
JUNK, GOOD = 4000, 200
YEARS = 10 * 365 * 86400
# No clock to allow for: a claim ends with its payment.
CONFIG = changed(pre_check={**MAIN["pre_check"], "clock_skew": "0s"})


def in_order(seed, things):
    """Shuffled, and the same way each time."""
    random.Random(seed).shuffle(things)
    return things


def until(payment):
    """When it expires."""
    return int(payment.authorization["validBefore"])


class Flood:
    """Every payment, and what came of all its copies."""

    def __init__(self, worlds):
        self.world = worlds.world("flood", CONFIG, workers=WORKERS)
        self.challenge = self.world.call("/paid").challenge
        self.payments, self.told = [], []
        # A few of everybody's payments are in each batch.
        self._payers = [Account.create() for _ in range(BATCH // 2)]
        asyncio.run(self._throw())
        self.ended_at = now()
        # Read before anything else is done, and bounded by what has expired meanwhile.
        self.claims, self.still_valid = self.world.metric("x402_claims"), sum(until(one) >= now() for one in self.payments)

    def _batch(self):
        offer, resource = self.challenge["accepts"][0], self.challenge["resource"]
        return [pay(offer, self._payers[number // 2], resource, valid_for=VALID) for number in range(BATCH)]

    async def _throw(self):
        def ask(payment):
            return Ask("/paid", [("x-test-id", fresh_id()), *payment.headers()], payment)

        async with Crowd(self.world) as crowd:
            before = []
            for number in range(PAYMENTS // BATCH):
                batch = self._batch()
                self.payments += batch
                asks = [ask(payment) for payment in batch for _ in range(1 + COPIES)]
                asks += [ask(payment) for payment in before for _ in range(LATE)]
                self.told += await crowd.throw(in_order(number, asks))
                before = batch
            self.told += await crowd.throw([ask(payment) for payment in before for _ in range(LATE)])


@pytest.fixture(scope="module")
def flood(worlds) -> Flood:
    return Flood(worlds)


def test_a_thousand_payments_buy_a_thousand_answers(flood):
    """However many copies of them come, on whichever worker."""
    world = flood.world
    alive(world)
    assert len(flood.told) == PAYMENTS * (1 + COPIES + LATE)
    answers = {spends(payment.payload): [] for payment in flood.payments}
    for told in flood.told:
        answers[spends(told.ask.tag.payload)].append(told)
    assert len(answers) == PAYMENTS
    calls = Counter((call.what, call.spends) for call in world.facilitator.calls_seen)
    served = Counter(test_id for request in world.backend.everything for test_id in request.all("x-test-id"))
    for key, found in answers.items():
        assert [told.status for told in found].count(200) == 1, (key, Counter(told.status for told in found))
        assert calls["settle", key] == calls["verify", key] == 1, key
        assert sum(served[told.ask.headers[0][1]] for told in found) == 1, key
        for told in found:
            if told.status == 200:
                assert told.receipt["success"], told
            else:
                assert told.receipt is None and (told.status, told.error) in expected(told), told
    assert world.metric("x402_settlements.outcome.settled") == PAYMENTS


def expected(told):
    """How a copy may be refused."""
    found = {(409, "payment_in_use"), (402, "nonce_already_used")}
    if told.sent_at >= until(told.ask.tag) - 1:
        found.add((402, "invalid_exact_evm_payload_authorization_valid_before"))
    return found


def test_a_thousand_payments_are_remembered(flood):
    """One record each, until it expires."""
    assert flood.still_valid <= flood.claims <= PAYMENTS


@pytest.fixture(scope="module")
def junk(worlds) -> World:
    """With a facilitator of its own: nobody else calls it."""
    return worlds.world("junk", CONFIG, workers=WORKERS, facilitator=Facilitator(worlds.loop, worlds.journal))


def lines(world):
    """Calls for payments: the offers' facts are asked for as well."""
    return [call for call in world.facilitator.calls_seen if call.what in ("verify", "settle")]


# Each makes junk of a good payment. Signing again is left out where the signature is not even looked at.
SPOILT = {
    "another one's signature": lambda it: it.authorization.update({"from": Account.create().address}),
    "another nonce": lambda it: it.authorization.update(nonce="0x" + secrets.token_hex(32)),
    "other terms": lambda it: it.authorization.update(validBefore=str(until(it) + 1)),
    "high s": lambda it: it.payload.update(signature=high_s(it.payload["signature"])),
    "random signature": lambda it: it.payload.update(signature="0x" + secrets.token_hex(64) + "1b"),
    "no signature": lambda it: it.payload.update(signature="0x"),
    "expired": lambda it: it.authorization.update(validBefore=str(now() - 1)),
    "not valid yet": lambda it: it.authorization.update(validAfter=str(now() + 600)),
    "valid for years": lambda it: it.authorization.update(validBefore=str(now() + YEARS)),
    "too little": lambda it: it.authorization.update(value="9999"),
    "too much": lambda it: it.authorization.update(value="10001"),
    "to somebody else": lambda it: it.authorization.update(to=OTHER),
    "another token": lambda it: it.offer.update(asset=OTHER),
    "another network": lambda it: it.offer.update(network="eip155:1"),
    "another scheme": lambda it: it.offer.update(scheme="gift"),
    "a lower price": lambda it: it.offer.update(amount="1"),
    "another resource": lambda it: setattr(it, "resource", {**it.resource, "url": "http://api.test/reports/x"}),
    "another version": lambda it: setattr(it, "extensions", 7),
}
# Nor is all of it JSON.
MALFORMED = {
    "no base64": lambda text: "!" + text,
    "cut off": lambda text: text[:len(text) // 2],
    "no JSON": lambda text: encode(secrets.token_bytes(600)),
    "too deep": lambda text: encode(b'{"x402Version":2,"payload":' + b"[" * 5000),
    "a key twice": lambda text: encode(b'{"x402Version":2,"x402Version":2}'),
    "too long": lambda text: text + "A" * 17_000,
    "nothing": lambda text: encode(b"{}"),
}


# What a dialect does not say, it cannot say wrongly.
V2_ONLY = {"another token", "another network", "another scheme", "a lower price", "another resource", "another version"}
NOT_PLAIN = {"to somebody else"}


def spoilt(payment, number):
    """What is wrong with the payment of this number, and its headers: every kind comes up in each dialect that can say it."""
    kinds = [*SPOILT, *MALFORMED]
    kind, turn = kinds[number % len(kinds)], number // len(kinds)
    if kind in MALFORMED:
        name, value = payment.headers(("v2", "v1")[turn % 2])[0]
        return kind, [(name, MALFORMED[kind](value))]
    dialects = ["v2"] if kind in V2_ONLY else ["v2", "v1"] if kind in NOT_PLAIN else ["v2", "v1", "plain"]
    return kind, payment.but(SPOILT[kind]).headers(dialects[turn % len(dialects)])


def test_junk_never_reaches_the_facilitator(junk, flood):
    """Nor does it take a claim, nor keep a good payment from being served. The claims of the flood expire meanwhile."""
    challenge = junk.call("/paid").challenge
    offer, resource = challenge["accepts"][0], challenge["resource"]
    payers = [Account.create() for _ in range(20)]
    good = [pay(offer, payers[number % 20], resource) for number in range(GOOD)]
    base = [pay(offer, payer, resource) for payer in payers]
    asks = [Ask("/paid", [("x-test-id", fresh_id()), *payment.headers()], payment) for payment in good]
    for number in range(JUNK):
        kind, headers = spoilt(base[number % len(base)], number)
        asks.append(Ask("/paid", [("x-test-id", fresh_id()), *headers], kind))

    async def throw():
        async with Crowd(junk) as crowd:
            return await crowd.throw(in_order("junk", asks))

    told = asyncio.run(throw())
    alive(junk)
    assert len(told) == JUNK + GOOD
    served = Counter(test_id for request in junk.backend.everything for test_id in request.all("x-test-id"))
    reasons = {}
    for one in told:
        if isinstance(one.ask.tag, str):
            assert one.status in (400, 402) and one.receipt is None, (one.ask.tag, one)
            assert served[one.ask.headers[0][1]] == 0, one.ask.tag
            reasons.setdefault(one.ask.tag, set()).add(one.error)
        else:
            assert one.status == 200 and one.receipt["success"], one
    assert len(reasons) == len(SPOILT) + len(MALFORMED)
    # Refused for what is wrong with it, and not by chance for something else.
    assert reasons["too little"] == {"invalid_exact_evm_payload_authorization_value"}, reasons
    assert reasons["valid for years"] == {"validity_too_long"}, reasons
    assert reasons["another nonce"] == {"invalid_exact_evm_payload_signature"}, reasons
    assert {call.spends for call in lines(junk)} == {spends(payment.payload) for payment in good}
    assert Counter(call.what for call in lines(junk)) == {"verify": GOOD, "settle": GOOD}
    assert junk.metric("x402_claims") == GOOD


@pytest.mark.parametrize("path", ["/paid", "/permit2", "/upto"])
def test_a_payment_for_years_is_not_remembered(junk, path):
    """It is refused before anybody is asked, however well it is signed: nobody fills the memory for good."""
    calls, claims = len(lines(junk)), junk.metric("x402_claims")
    for valid_for in (3600 + 60, YEARS, 2**255):
        payment = junk.payment(path, valid_for=valid_for)
        answer = junk.call(path, payment=payment)
        assert (answer.status, answer.json()["error"]) == (402, "validity_too_long"), answer
        assert junk.reached(answer) == 0
    assert (len(lines(junk)), junk.metric("x402_claims")) == (calls, claims)
    # An hour is what `max_validity` says.
    payment = junk.payment(path, valid_for=3600)
    assert junk.call(path, payment=payment).status == 200
    assert junk.metric("x402_claims") == claims + 1


def test_claims_are_swept_without_new_traffic(flood):
    """64 buckets a second, all 4096 of them in about a minute; nobody sends anything."""
    eventually(lambda: now() > max(map(until, flood.payments)), "the last payment has expired")
    requests = flood.world.envoy.stats(r"^http\.gateway\.downstream_rq_total$")
    wait_until(lambda: flood.world.metric("x402_claims") <= 0, "the claims are swept", 2 * DEADLINE)
    assert flood.world.metric("x402_claims") == 0
    assert flood.world.envoy.stats(r"^http\.gateway\.downstream_rq_total$") == requests
    alive(flood.world)
