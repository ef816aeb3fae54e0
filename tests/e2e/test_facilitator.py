"""What the facilitator does, and what becomes of the payment: refused, unusable, unknown."""

import pytest

from . import facilitator as says
from .checks import paid, refused, unpaid, untouched
from .facilitator import Facilitator, hang, ok, refuse, reply, spends
from .wire import eventually
from .world import MAIN, World, changed, dead_port, facilitator_entry

SECRET = "the-backends-secret"
ANSWER = {"kind": "body", "text": SECRET, "headers": [["x-secret", SECRET], ["etag", SECRET]]}


# /verify refuses

@pytest.mark.parametrize("reason,code", [
    ("insufficient_funds", "402.1"),
    ("invalid_exact_evm_insufficient_balance", "402.1"),
    ("invalid_exact_evm_payload_recipient_mismatch", "402.2"),
    ("invalid_network", "402.4"),
    ("invalid_exact_evm_payload_authorization_valid_before", "402.5"),
    ("something_nobody_has_heard_of", None),
])
@pytest.mark.parametrize("status", [200, 400, 402, 500])
def test_verify_refuses(main, reason, code, status):
    """Some facilitators refuse with a 4xx or 5xx and the same JSON: the body counts."""
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, verify=refuse(reason, status=status))
    unpaid(main, main.call("/paid", payment=payment), 402, reason, code)
    assert main.count(payment, "settle") == 0


def test_a_signature_that_was_found_good_here_is_not_the_payers_fault(main, protocol):
    """A facilitator that has lost its node calls good signatures invalid: no challenge, and the payment stays good."""
    known = main.metric("x402_verifications.outcome.contradicted")
    payment = main.payment("/paid")
    wrong = refuse("invalid_exact_evm_payload_signature")
    main.facilitator.script(payment.payload, verify=[wrong, ok()], settle=[wrong, ok()])
    unpaid(main, main.call("/paid", payment=payment, protocol=protocol), 503, "facilitator_unavailable")
    assert main.metric("x402_verifications.outcome.contradicted") == known + 1
    answer = main.call("/paid", payment=payment, protocol=protocol, does=ANSWER)
    refused(answer, 503, "facilitator_unavailable")
    assert SECRET not in repr(answer)
    paid_again = main.call("/paid", payment=payment, protocol=protocol)
    assert paid_again.status == 200 and paid_again.receipt["success"], paid_again
    assert main.count(payment, "settle") == 2
    # What nobody here can judge is the facilitator's to judge.
    wallet = main.payment("/paid").but(lambda it: it.payload.update(signature="0x" + "ab" * 100))
    main.facilitator.script(wallet.payload, verify=wrong)
    unpaid(main, main.call("/paid", payment=wallet, protocol=protocol), 402, "invalid_exact_evm_payload_signature")


@pytest.mark.parametrize("status", [200, 412])
def test_allowance_is_missing(main, status):
    payment = main.payment("/permit2")
    main.facilitator.script(payment.payload, verify=[refuse("permit2_allowance_required", status=status), ok()])
    answer = main.call("/permit2", payment=payment)
    refused(answer, 412, "permit2_allowance_required")
    untouched(main, answer)
    paid(main, main.call("/permit2", payment=payment), payment)


def test_reasons_are_cleaned(main):
    page = "The contract function reverted\n" + "x" * 50_000 + "\nURL: http://user:key@rpc.internal:8545/\x1b[31m"
    for behaviour in (refuse("insufficient_funds", page), refuse(page)):
        payment = main.payment("/paid")
        main.facilitator.script(payment.payload, verify=behaviour)
        answer = main.call("/paid", payment=payment)
        assert answer.status == 402, answer
        untouched(main, answer)
        whole = answer.body.decode() + str(answer.challenge) + str(answer.headers)
        assert "rpc.internal" not in whole and "\x1b" not in whole and "\\u001b" not in whole
        assert len(answer.body) < 8192 and len(answer.header("payment-required")) < 4096


def test_extension_responses_stay_here(main):
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=reply(
        200, {"success": True, "transaction": "0xabc", "network": "eip155:8453", "payer": payment.payer.address},
        [("EXTENSION-RESPONSES", "e30=")]))
    answer = main.call("/paid", payment=payment)
    assert answer.status == 200 and not answer.all("extension-responses")


# /verify cannot be used

UNUSABLE = {
    "reset": says.reset(),
    "reset in mid-body": says.reset_in_body(),
    "garbage": says.garbage(),
    "empty": reply(200, b""),
    "not an object": reply(200, []),
    "neither yes nor no": reply(200, {}),
    "yes as text": reply(200, {"isValid": "true"}),
    "500": reply(500, b"oops"),
    "500 with other JSON": reply(500, {"error": "database"}),
    "502": reply(502, b""),
    "503": reply(503, b"busy"),
    "429": reply(429, {"error": "slow down"}),
    "404": reply(404, b"no such page"),
    "401": reply(401, {"error": "unauthorized"}),
    "3 MB": says.oversize(),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_verify_is_unusable(main, name):
    """503, never a 402; the claim is released and the same payment works afterwards."""
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, verify=[UNUSABLE[name], ok()])
    unpaid(main, main.call("/paid", payment=payment), 503, "facilitator_unavailable")
    assert main.count(payment, "settle") == 0
    paid(main, main.call("/paid", payment=payment), payment)


@pytest.fixture(scope="session")
def impatient(worlds) -> World:
    """Short timeouts, for what hangs."""
    return worlds.world("impatient", changed(facilitators=facilitator_entry(
        verify_timeout="1s", settle_timeout="1s")))


def test_verify_hangs(impatient):
    payment = impatient.payment("/paid")
    impatient.facilitator.script(payment.payload, verify=[hang(), ok()])
    unpaid(impatient, impatient.call("/paid", payment=payment), 503, "facilitator_unavailable")
    answer = eventually(lambda: (found := impatient.call("/paid", payment=payment)).status == 200 and found,
                        "the same payment works")
    assert answer.receipt["success"]
    impatient.facilitator.gate(payment.payload).release()


def test_settle_hangs(impatient):
    payment = impatient.payment("/paid")
    impatient.facilitator.script(payment.payload, settle=hang())
    answer = impatient.call("/paid", payment=payment, does=ANSWER)
    pending(answer)
    assert SECRET not in repr(answer)
    pending(impatient.call("/paid", payment=payment))
    impatient.facilitator.gate(payment.payload).release(100)


def test_nobody_listens(worlds):
    world = worlds.world("nobody", MAIN, facilitator_port=dead_port(), ready=lambda _: True)
    offers = world.accepts("/paid")
    assert offers, "offers that need no facts are made"
    payment = world.payment("/paid")
    for _ in range(3):
        unpaid(world, world.call("/paid", payment=payment), 503, "facilitator_unavailable")
    for path in ("/upto", "/solana"):
        unpaid(world, world.call(path), 503, "facilitator_unavailable")


def test_no_endpoint(worlds):
    world = worlds.world("no-endpoint", MAIN, facilitator_port=[], ready=lambda _: True)
    payment = world.payment("/paid")
    for _ in range(3):
        unpaid(world, world.call("/paid", payment=payment), 503, "facilitator_unavailable")


def test_facts_come_late(worlds):
    """An offer that needs the facilitator's facts is left out until they are known; then it is made."""
    late = Facilitator(worlds.loop, worlds.journal)

    async def wait(self, call, answer):
        await late.gate("supported").wait()
        await reply(200, late.supported)(self, call, answer)

    late.supported_behaviour = wait
    world = worlds.world("late", MAIN, facilitator=late, ready=lambda _: True)
    late.gate("supported").await_reached()
    unpaid(world, world.call("/upto"), 503, "facilitator_unavailable")
    assert world.call("/paid").status == 402
    late.gate("supported").release(10_000)
    eventually(lambda: world.everywhere(lambda: world.call("/upto").status == 402), "the offer is made")
    payment = world.payment("/upto")
    paid(world, world.call("/upto", payment=payment), payment)


def test_second_facilitator(worlds):
    """The first cannot be reached: the next one is asked."""
    from stack.envoy import cluster
    entries = facilitator_entry(cluster="dead", url="http://dead.test") + facilitator_entry()
    world = worlds.world("second", changed(facilitators=entries), clusters=[
        cluster("nowhere", []), cluster("dead", dead_port())])
    payment = world.payment("/paid")
    paid(world, world.call("/paid", payment=payment), payment)


# /settle refuses

SURE = ["insufficient_funds", "invalid_exact_evm_insufficient_balance",
        "invalid_exact_evm_payload_authorization_valid_before", "invalid_exact_evm_payload_authorization_value",
        "invalid_exact_evm_payload_recipient_mismatch", "unsupported_scheme", "invalid_network"]


def failed(world, answer, payment):
    """402 with the failed receipt, a fresh challenge and nothing of the backend's answer."""
    refused(answer, 402)
    receipt = answer.receipt
    assert receipt["success"] is False and receipt["errorReason"], receipt
    assert SECRET not in repr(answer) and not answer.all("etag")
    assert world.reached(answer) == 1
    assert world.count(payment, "settle") == 1


@pytest.mark.parametrize("reason", SURE)
@pytest.mark.parametrize("status", [200, 400])
def test_settle_refuses(main, reason, status):
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=refuse(reason, status=status))
    answer = main.call("/paid", payment=payment, does=ANSWER)
    failed(main, answer, payment)
    assert answer.json()["error"] == answer.receipt["errorReason"] == reason


@pytest.mark.parametrize("dialect,header", [("v2", "payment-response"), ("v1", "x-payment-response"),
                                            ("libertai", "x-payment-response")])
def test_failed_receipt_by_dialect(main, protocol, dialect, header):
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=refuse("insufficient_funds"))
    answer = main.call("/paid", payment=payment, dialect=dialect, protocol=protocol, does=ANSWER)
    failed(main, answer, payment)
    assert answer.all(header)


@pytest.mark.parametrize("does", [
    ANSWER, {"kind": "bytes", "size": 3 << 20, "headers": [["etag", SECRET]]}, {"status": 204, "kind": "empty"},
    {"kind": "sse", "chunks": 50, "free": True, "headers": [["etag", SECRET]]}, {"kind": "trailers"},
    {"status": 302, "headers": [["location", SECRET]]},
], ids=lambda does: f'{does.get("kind")}-{does.get("status", 200)}')
def test_no_byte_before_the_settlement(main, protocol, does):
    """Whatever the backend answers, and on both protocols."""
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=hang(refuse("insufficient_funds")))
    exchange, test_id = main.open("/paid", payment=payment, protocol=protocol, does=does)
    main.facilitator.gate(payment.payload).await_reached()
    if protocol == "h1":
        assert exchange.quiet(), "something was sent before the settlement"
    main.facilitator.gate(payment.payload).release()
    answer = exchange.response()
    answer.test_id = test_id
    failed(main, answer, payment)
    assert b"data:" not in answer.body and b"trailers" not in answer.body and not answer.trailers
    assert not answer.all("location")


# /settle leaves it open

def pending(answer):
    """503 that tells the client to send the same payment again: no challenge."""
    refused(answer, 503, "settlement_pending")
    assert SECRET not in repr(answer), answer


UNKNOWN = {
    "transaction failed, none named": refuse("invalid_exact_evm_transaction_failed"),
    "transaction failed (v1's word)": refuse("transaction_failed"),
    "unexpected": refuse("unexpected_settle_error"),
    "pending": refuse("settlement_pending"),
    "unlisted reason": refuse("the_moon_was_full"),
    "no reason": reply(200, {"success": False, "transaction": "", "network": "eip155:8453"}),
    "unlisted with 400": refuse("the_moon_was_full", status=400),
    "reset": says.reset(),
    "reset in mid-body": says.reset_in_body(),
    "garbage": says.garbage(),
    "empty": reply(200, b""),
    "nothing said": reply(200, {}),
    "success as text": reply(200, {"success": "true", "transaction": "0x1"}),
    "500": reply(500, b"oops"),
    "502": reply(502, b"<html>bad gateway"),
    "503 with JSON": reply(503, {"error": "busy"}),
    "404": reply(404, b"no such page"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_settlement_is_unknown(main, name):
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=UNKNOWN[name])
    answer = main.call("/paid", payment=payment, does=ANSWER)
    pending(answer)
    assert main.reached(answer) == 1
    settlements = main.count(payment, "settle")
    assert settlements >= 1
    # Sent again it is asked about again, before anything else.
    for number in range(3):
        again = main.call("/paid", payment=payment)
        pending(again)
        untouched(main, again)
        assert main.count(payment, "settle") == settlements + number + 1
    assert main.count(payment, "verify") == 1


def test_settled_with_a_page_of_padding(main):
    """3 MB around a clear yes: either it is read, or the outcome is unknown; never a new challenge."""
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=says.oversize())
    answer = main.call("/paid", payment=payment, does=ANSWER)
    assert answer.status in (200, 503), answer
    if answer.status == 503:
        pending(answer)


def test_receipt_is_bounded(main):
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=reply(200, {
        "success": True, "transaction": "0x" + "ab" * 32, "network": "eip155:8453", "payer": payment.payer.address,
        "extensions": {"x": "y" * 20_000}}))
    answer = main.call("/paid", payment=payment)
    assert answer.status == 200 and answer.receipt["transaction"] == "0x" + "ab" * 32
    assert len(answer.header("payment-response")) < 8192


def test_unknown_is_counted(main):
    before = main.metric("x402_settlements.outcome.unknown")
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=says.reset())
    pending(main.call("/paid", payment=payment))
    eventually(lambda: main.metric("x402_settlements.outcome.unknown") > before, "it is counted")
    assert main.journal.of(spends(payment.payload))[:2] == ["verify", "settle"]
