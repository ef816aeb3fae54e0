"""A fleet shares its claims by the ledger: each payment is one request's, whichever Envoy it comes to, and whoever dies."""

import json
import os
import secrets
import signal
from collections import Counter
from typing import Iterator

import pytest

from stack.envoy import cluster
from stack.ledger import Ledger as Service
from stack.postgres import Postgres

from .checks import alive, leaks, paid, refused, unpaid
from .facilitator import refuse, reply, spends, transaction_of
from .metered import ASKS, TEXT, USED, answers, event, streams, terms
from .metered import receipt as last_receipt
from .test_claims import all_at_once
from .wire import eventually
from .world import BASE, MAIN, UPTO, World, changed, price

ROUTES = [
    {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]},
    {"name": "upfront", "match": {"path": "/upfront"}, "price": price("0.01"), "accept": [BASE], "flow": "upfront"},
    # As much as a tier of top-ups.
    {"name": "dollar", "match": {"path": "/dollar"}, "price": price("1"), "accept": [BASE]},
    {"name": "free", "match": {"path": "/free"}, "price": "free"},
    terms("/metered"),
]
COPIES = 200


class Fleet:
    """Two Envoys, and the ledger that stands before the facilitator for both."""

    def __init__(self, worlds, name: str, service: Service, server: Postgres | None) -> None:
        self.worlds = worlds
        self.name = name
        self.service = service
        self.server = server
        self.one, self.two = self.envoy("one"), self.envoy("two")

    def envoy(self, which: str, **more) -> World:
        facilitator = {"cluster": "ledger", "url": "http://ledger.test/internal/v1/facilitators/0", "networks": ["eip155:*"],
                       "verify_timeout": "60s", "settle_timeout": "60s", "breaker": {"failures": 0},
                       "headers": {"authorization": f"Bearer {self.service.token}"}}
        config = changed(routes=ROUTES, facilitators=[facilitator], replay={"max_claims": 100_000, "claims": "shared"},
                         settlement={"retries": 0}, **more)
        return self.worlds.world(f"shared-{self.name}-{which}", config, clusters=[cluster("nowhere", []), cluster("ledger", self.service.port)],
                                 ready=lambda world: world.call("/metered", **ASKS).status == 402 and world.call("/paid").status == 402)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def fleet(request, worlds, tmp_path_factory) -> Iterator[Fleet]:
    server = Postgres() if request.param == "postgres" else None
    config = {"pay_to": MAIN["pay_to"], "accept": [BASE], "facilitators": [
        {"url": f"http://127.0.0.1:{worlds.facilitator.port}/api", "verify_timeout": "60s", "settle_timeout": "60s"}]}
    service = Service(tmp_path_factory.mktemp("ledger"), config, server and server.database())
    yield Fleet(worlds, request.param, service, server)
    for world in (found for name, found in worlds._open.items() if name.startswith(f"shared-{request.param}") and found.envoy.process.running()):
        alive(world)
    service.stop()
    if server:
        server.stop()


def test_two_hundred_copies_at_two_envoys(fleet):
    payment = fleet.one.payment("/paid")
    said = all_at_once([lambda world=(fleet.one, fleet.two)[number % 2]: world.call("/paid", payment=payment) for number in range(COPIES)])
    statuses = Counter(answer.status for answer in said)
    assert statuses[200] == 1 and set(statuses) <= {200, 402, 409}, statuses
    assert sum(fleet.one.reached(answer) for answer in said) == 1
    assert fleet.one.count(payment, "verify") == fleet.one.count(payment, "settle") == 1
    for answer in said:
        if answer.status != 200:
            unpaid(fleet.one, answer, answer.status, "payment_in_use" if answer.status == 409 else "nonce_already_used")


@pytest.mark.parametrize("path", ["/paid", "/upfront"])
def test_what_one_has_served_the_other_does_not(fleet, path, protocol):
    payment = fleet.one.payment(path)
    paid(fleet.one, fleet.one.call(path, payment=payment, protocol=protocol), payment)
    found = eventually(lambda: (answer := fleet.two.call(path, payment=payment, protocol=protocol)).status != 409 and answer, "it is delivered")
    refused(found, 402, "nonce_already_used")
    # What is settled before anything else was refused at the settlement, and says so.
    assert fleet.two.reached(found) == 0 and found.has_receipt == (path == "/upfront")
    unpaid(fleet.one, fleet.one.call(path, payment=payment), 402, "nonce_already_used")
    assert fleet.one.count(payment, "settle") == 1


@pytest.mark.parametrize("does", [{"status": 500}, {"status": 404}, {"reset": "before"}])
def test_what_one_could_not_serve_the_other_can(fleet, does):
    payment = fleet.one.payment("/paid")
    answer = fleet.one.call("/paid", payment=payment, does=does)
    assert answer.status >= 400 and not answer.has_receipt
    served = eventually(lambda: (found := fleet.two.call("/paid", payment=payment)).status != 409 and found, "it is given back")
    paid(fleet.two, served, payment)


def test_in_use_at_the_other(fleet):
    payment = fleet.one.payment("/paid")
    exchange, test_id = fleet.one.open("/paid", payment=payment, does={"hold": True})
    eventually(lambda: fleet.one.backend.requests(test_id), "the backend is at work")
    for protocol in ("h1", "h2"):
        unpaid(fleet.two, fleet.two.call("/paid", payment=payment, protocol=protocol), 409, "payment_in_use")
    exchange.close()
    served = eventually(lambda: (found := fleet.two.call("/paid", payment=payment)).status != 409 and found, "it is given back")
    paid(fleet.two, served, payment)


def test_refusals_of_the_facilitator_are_passed_on(fleet):
    payment = fleet.one.payment("/paid")
    fleet.one.facilitator.script(payment.payload, verify=[refuse("insufficient_funds"), refuse("insufficient_funds")])
    for world in (fleet.one, fleet.two):
        unpaid(world, world.call("/paid", payment=payment), 402, "insufficient_funds")
    assert fleet.one.count(payment, "verify") == 2 and fleet.one.count(payment, "settle") == 0


def test_a_settlement_that_is_refused_gives_it_back(fleet):
    payment = fleet.one.payment("/paid")
    fleet.one.facilitator.script(payment.payload, settle=[refuse("insufficient_funds"), refuse("insufficient_funds")])
    for world in (fleet.one, fleet.two):
        refused(world.call("/paid", payment=payment), 402, "insufficient_funds")
    assert fleet.one.count(payment, "settle") == 2


def test_a_settlement_without_an_outcome_is_found_out(fleet):
    """The other Envoy asks no facilitator, and serves it once the ledger knows."""
    payment = fleet.one.payment("/paid")
    transaction = "0x" + "ab" * 32
    settled = reply(200, {"success": True, "transaction": transaction, "network": "eip155:8453"})
    fleet.one.facilitator.script(payment.payload, settle=[reply(500, {"error": "database"}), settled])
    refused(fleet.one.call("/paid", payment=payment), 503, "settlement_pending")
    served = eventually(lambda: (found := fleet.two.call("/paid", payment=payment)).status == 200 and found, "its outcome is known")
    assert served.receipt["transaction"] == transaction
    assert fleet.one.count(payment, "settle") == 2 and fleet.one.count(payment, "verify") == 1
    found = eventually(lambda: (answer := fleet.two.call("/paid", payment=payment)).status != 409 and answer, "it is delivered")
    unpaid(fleet.two, found, 402, "nonce_already_used")


def test_a_settlement_that_no_facilitator_tells_the_end_of(fleet):
    """Somebody has looked at the chain: its client is served then, at the other Envoy too, and it is not sent again."""
    payment = fleet.one.payment("/paid")
    transaction = "0x" + "cd" * 32
    fleet.one.facilitator.script(payment.payload, settle=[reply(500, {"error": "database"})])
    refused(fleet.one.call("/paid", payment=payment), 503, "settlement_pending")
    refused(fleet.two.call("/paid", payment=payment), 503, "settlement_pending")
    # The only one that is open.
    rows = [row.split(",") for row in fleet.service.command("intents").splitlines()]
    [claim] = [claim for claim, state, *_ in rows if state in ("unknown", "settling")]

    def ends() -> bool:
        try:
            said = fleet.service.command("resolve", claim, "--paid", transaction)
        except AssertionError as failed:
            # The ledger sends it again every few seconds.
            assert "is being settled just now" in str(failed)
            return False
        return "is paid" in said

    eventually(ends, "it is ended")
    sent = fleet.one.count(payment, "settle")
    served = fleet.two.call("/paid", payment=payment)
    assert served.status == 200 and served.receipt["transaction"] == transaction
    # Where its settlement was in doubt it is, until the ledger has heard that it was delivered.
    found = eventually(lambda: (answer := fleet.one.call("/paid", payment=payment)).status != 503 and answer, "it is delivered")
    refused(found, 402, "nonce_already_used")
    assert fleet.one.reached(found) == 0
    assert fleet.one.count(payment, "settle") == sent


def test_metered_answers(fleet, protocol):
    payment = fleet.one.payment("/metered", **ASKS)
    answer = fleet.one.call("/metered", payment=payment, does=answers(), protocol=protocol, **ASKS)
    assert answer.status == 200 and last_receipt(answer)["amount"] == str(USED)
    [call] = fleet.one.facilitator.calls(payment.payload, "settle")
    assert call.json["paymentRequirements"]["amount"] == str(USED)
    unpaid(fleet.two, fleet.two.call("/metered", payment=payment, **ASKS), 402, "nonce_already_used")


def test_a_metered_answer_is_in_use_as_long_as_it_lasts(fleet):
    payment = fleet.one.payment("/metered", **ASKS)
    parts = [event(TEXT[0]), event(TEXT[1])]
    exchange, test_id = fleet.one.open("/metered", "POST", ASKS["headers"], payment, does=streams(*parts), body=ASKS["body"])
    status, _ = exchange.head()
    assert status == 200
    unpaid(fleet.two, fleet.two.call("/metered", payment=payment, **ASKS), 409, "payment_in_use")
    fleet.one.backend.gate(test_id).release()
    exchange.close()
    found = eventually(lambda: (answer := fleet.two.call("/metered", payment=payment, **ASKS)).status != 409 and answer, "it is settled")
    unpaid(fleet.two, found, 402, "nonce_already_used")
    assert fleet.one.count(payment, "settle") == 1


def test_an_envoy_that_dies(fleet):
    """Before it settles, the payment is free again; after that, the other serves what was paid for."""
    doomed = fleet.envoy("doomed")
    before, after = doomed.payment("/paid"), doomed.payment("/paid")
    waiting, first = doomed.open("/paid", payment=before, does={"hold": True})
    eventually(lambda: doomed.backend.requests(first), "the backend is at work")
    streaming, _ = doomed.open("/paid", payment=after, does={"kind": "sse", "chunks": 2})
    status, _ = streaming.head()
    assert status == 200 and doomed.count(after, "settle") == 1
    os.kill(doomed.envoy.process.pid, signal.SIGKILL)
    doomed.envoy.stop()
    for exchange in (waiting, streaming):
        exchange.close()
    for payment in (before, after):
        unpaid(fleet.two, fleet.two.call("/paid", payment=payment), 409, "payment_in_use")
    fleet.service.end_leases()
    paid(fleet.two, fleet.two.call("/paid", payment=before), before)
    served = fleet.two.call("/paid", payment=after)
    assert served.status == 200 and served.receipt["success"] is True
    assert doomed.count(after, "settle") == 1 and doomed.count(after, "verify") == 1
    for payment in (before, after):
        found = eventually(lambda: (answer := fleet.one.call("/paid", payment=payment)).status != 409 and answer, "it is delivered")
        unpaid(fleet.one, found, 402, "nonce_already_used")


def test_what_a_dead_envoy_owes_is_to_be_had_after_the_payment_has_run_out(fleet, protocol):
    """For the third Envoy, whose clock may be five minutes slow, payments of a few minutes have expired."""
    name = f"late-{protocol}"
    doomed, late = fleet.envoy(f"doomed-{name}"), fleet.envoy(name, pre_check={"clock_skew": "5m"})
    owed, unpaid_for = doomed.payment("/paid"), doomed.payment("/paid")
    streaming, _ = doomed.open("/paid", payment=owed, does={"kind": "sse", "chunks": 2})
    assert streaming.head()[0] == 200 and doomed.count(owed, "settle") == 1
    os.kill(doomed.envoy.process.pid, signal.SIGKILL)
    doomed.envoy.stop()
    streaming.close()
    # It may still be delivered.
    refused(late.call("/paid", payment=owed, protocol=protocol), 409, "payment_in_use")
    fleet.service.end_leases()
    served = late.call("/paid", payment=owed, protocol=protocol)
    assert served.status == 200 and served.receipt["success"] is True and late.reached(served) == 1
    found = eventually(lambda: (answer := late.call("/paid", payment=owed)).status != 409 and answer, "it is delivered")
    refused(found, 402, "nonce_already_used")
    # Nothing is owed for this one, and nobody asks a facilitator about it.
    for _ in range(2):
        refused(late.call("/paid", payment=unpaid_for, protocol=protocol), 402, "invalid_exact_evm_payload_authorization_valid_before")
    assert late.count(unpaid_for, "verify") == late.count(unpaid_for, "settle") == 0
    assert doomed.count(owed, "settle") == 1


def test_a_client_that_leaves_is_served_again_by_the_same(fleet):
    """What is left of a payment is that Envoy's to give, and the other does not give it as well."""
    payment = fleet.one.payment("/paid")
    exchange, test_id = fleet.one.open("/paid", payment=payment, does={"kind": "sse", "chunks": 2})
    assert exchange.head()[0] == 200
    exchange.close()
    found = eventually(lambda: (answer := fleet.two.call("/paid", payment=payment)).status != 409 and answer, "it is known")
    unpaid(fleet.two, found, 402, "nonce_already_used")
    again = eventually(lambda: (answer := fleet.one.call("/paid", payment=payment)).status == 200 and answer, "it is served again")
    assert again.receipt["success"] is True and fleet.one.count(payment, "settle") == 1


@pytest.mark.parametrize("outcome", ["released", "pending"])
def test_the_end_of_a_request_that_comes_before_what_it_asked(fleet, outcome):
    """Whatever of it comes late moves nothing, and holds nothing."""
    payment, name = fleet.one.payment("/paid"), secrets.token_hex(16)
    claim = secrets.token_hex(16)
    token = {"authorization": f"Bearer {fleet.service.token}"}
    body = {"x402Version": 2, "paymentPayload": payment.v2, "paymentRequirements": payment.offer}

    def asked(what: str, body: dict, request: str = name) -> tuple:
        late = {**token, "x-x402-intent": f"{request};claim={claim};until=1900000000"}
        return fleet.service.call("POST", f"/internal/v1/facilitators/0/{what}", body, late)

    assert asked("report", {"intent": name, "outcome": outcome})[0] == 404
    assert asked("settle", body)[2]["errorReason"] == asked("verify", body)[2]["invalidReason"] == "ledger_payment_in_use"
    assert not fleet.one.facilitator.calls(payment.payload)
    assert asked("verify", body, secrets.token_hex(16))[2]["isValid"] is True


def test_a_payment_with_a_key_and_without_one(fleet):
    """Whoever is first has it: the ledger knows a top-up's payment by the same name as the filter does."""
    entry = {"cluster": "ledger", "url": "http://ledger.test", "headers": {"authorization": f"Bearer {fleet.service.token}"}}
    world, account = fleet.envoy("keys", access={"credits": {"enabled": True}}, ledger=entry), fleet.service.account()
    key = [("authorization", f"Bearer {account.key}")]

    payment = world.payment("/dollar")
    exchange, test_id = world.open("/dollar", payment=payment, does={"hold": True})
    eventually(lambda: world.backend.requests(test_id), "the backend is at work")
    answer = world.call("/dollar", headers=key, payment=payment)
    assert (answer.status, answer.json()["error"]["code"]) == (409, "payment_in_use") and world.reached(answer) == 0
    exchange.close()
    served = eventually(lambda: (found := world.call("/dollar", headers=key, payment=payment)).status != 409 and found, "it is given back")
    assert served.status == 200 and account.funded == 1_000_000
    unpaid(world, world.call("/dollar", payment=payment), 402, "nonce_already_used")

    other = world.payment("/dollar")
    paid(world, world.call("/dollar", payment=other), other)
    answer = world.call("/dollar", headers=key, payment=other)
    assert (answer.status, answer.json()["error"]["code"]) == (402, "nonce_already_used") and world.reached(answer) == 0
    assert account.funded == 1_000_000 and world.count(payment, "settle") == world.count(other, "settle") == 1


def test_a_ledger_that_is_killed(fleet):
    """Nobody is served meanwhile, and what was held is held when it is back."""
    payment, other = fleet.one.payment("/paid"), fleet.one.payment("/paid")
    exchange, test_id = fleet.one.open("/paid", payment=payment, does={"hold": True})
    eventually(lambda: fleet.one.backend.requests(test_id), "the backend is at work")
    fleet.service.kill()
    unpaid(fleet.two, fleet.two.call("/paid", payment=other), 503, "facilitator_unavailable")
    assert fleet.two.call("/free").status == 200
    fleet.service.start()
    unpaid(fleet.two, fleet.two.call("/paid", payment=payment), 409, "payment_in_use")
    exchange.close()
    served = eventually(lambda: (found := fleet.two.call("/paid", payment=payment)).status != 409 and found, "it is given back")
    paid(fleet.two, served, payment)
    paid(fleet.one, fleet.one.call("/paid", payment=other), other)


@pytest.mark.parametrize("fleet", ["postgres"], indirect=True)
def test_a_database_that_crashes(fleet):
    """Nobody is served meanwhile. When it is back the ledger goes on by itself, and what was not settled is settled once."""
    payment, other = fleet.one.payment("/paid"), fleet.one.payment("/paid")
    exchange, test_id = fleet.one.open("/paid", payment=payment, does={"hold": True})
    eventually(lambda: fleet.one.backend.requests(test_id), "the backend is at work")
    fleet.server.kill()
    unpaid(fleet.two, fleet.two.call("/paid", payment=other), 503, "facilitator_unavailable")
    assert fleet.two.call("/free").status == 200
    assert fleet.service.call("GET", "/readyz")[0] == 503
    fleet.one.backend.gate(test_id).release()
    assert exchange.head()[0] == 503
    exchange.close()
    fleet.server.start()
    served = eventually(lambda: (found := fleet.two.call("/paid", payment=payment)).status not in (409, 503) and found, "it is had again")
    paid(fleet.two, served, payment)
    paid(fleet.one, fleet.one.call("/paid", payment=other), other)


def test_what_was_said_and_signed_is_nowhere(fleet):
    """No prompt, completion, query or key of a client's goes further than Envoy, and no signature outlives its settlement."""
    prompt, completion, query, key = (f"canary{secrets.token_hex(12)}" for _ in range(4))
    body = json.dumps({**json.loads(ASKS["body"]), "messages": [{"role": "user", "content": prompt}]}).encode()
    asks = {**ASKS, "body": body, "headers": [*ASKS["headers"], ("authorization", f"Bearer {key}")]}
    path = f"/metered?q={query}"
    payment = fleet.one.payment(path, **asks)
    exchange, test_id = fleet.one.open(path, "POST", asks["headers"], payment, does=streams(event(completion), event(TEXT[1])), body=body)
    assert exchange.head()[0] == 200
    # While it is held, what was signed is sealed.
    places = {"the database meanwhile": fleet.service.stored()}
    fleet.one.backend.gate(test_id).release()
    delivered = b""
    while part := exchange.read():
        delivered += part
    exchange.close()
    assert completion.encode() in delivered
    eventually(lambda: fleet.one.count(payment, "settle") == 1, "it is settled")
    found = eventually(lambda: (answer := fleet.two.call(path, payment=payment, **asks)).status != 409 and answer, "it is delivered")
    unpaid(fleet.two, found, 402, "nonce_already_used")
    seen = fleet.one.backend.one(test_id)
    assert prompt.encode() in seen.body and seen.header("authorization") == f"Bearer {key}"

    told = b"".join(repr(vars(call.request)).encode() for call in fleet.one.facilitator.calls(payment.payload))
    places |= {"the database": fleet.service.stored(), "the ledger's log": fleet.service.logs().encode(),
               "Envoy's log": fleet.one.envoy.log().encode(), "what the facilitator was told": told}
    signature = payment.payload["signature"][2:]
    holds = next(claim for claim in fleet.service.command("intents").splitlines() if transaction_of(spends(payment.payload)) in claim).split(",")[0]
    # These are looked for where they are, so that nothing is found because nothing was looked at.
    for place, known in (("the database", holds), ("the database meanwhile", holds), ("the ledger's log", "listening"), ("Envoy's log", "x402"),
                         ("what the facilitator was told", signature)):
        assert known.encode() in places[place], (place, known)
    said = {"the prompt": prompt, "the completion": completion, "the query": query, "the key": key, "Envoy's token": fleet.service.token}
    for place, content in places.items():
        texts = said if place == "what the facilitator was told" else {**said, "the signature": signature}
        assert [name for name, text in texts.items() if leaks(text, content)] == [], f"in {place}"
