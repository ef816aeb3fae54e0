"""How the settlement of a delivered answer ends, and what its client sees."""

import pytest

from . import facilitator as says
from .checks import alive, refused
from .facilitator import SUPPORTED, Facilitator, hang, refuse
from .metered import (
    ASKS, CONFIG, USED, WHOLE, Open, answers, asks_for_money, pending, receipts, rises, settled, streams)
from .payments import Payment
from .world import World


@pytest.mark.parametrize("does", [answers(), streams(*WHOLE, free=True)], ids=["json", "events"])
def test_refused_after_delivery(metered, protocol, does):
    """All of the answer but its end; the payment buys no other one."""
    before = metered.metric("x402_served_unsettled")
    payment = metered.payment("/default", **ASKS)
    metered.facilitator.script(payment.payload, settle=[refuse("insufficient_funds"), says.ok()])
    answer = metered.call("/default", payment=payment, does=does, protocol=protocol, **ASKS)
    assert answer.status == 200 and not answer.clean, answer
    sent = does["text"] if "text" in does else "".join(does["parts"])
    assert answer.body == sent.encode()
    assert not answer.has_receipt and not answer.trailers, answer
    rises(metered, "x402_served_unsettled", before)
    assert metered.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "served_unsettled"
    settled(metered, "/default", payment, USED)
    alive(metered)


UNKNOWN = {
    "500": lambda: says.reply(500, {"error": "broken"}), "502": lambda: says.reply(502, b"<html>"),
    "garbage": says.garbage, "reset": says.reset, "reset in body": says.reset_in_body,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_after_delivery(metered, protocol, name):
    """The answer ends without a receipt; nobody knows whether money moved, so it is not moved again."""
    before = metered.metric("x402_settlements.outcome.unknown")
    payment = metered.payment("/default", **ASKS)
    metered.facilitator.script(payment.payload, settle=UNKNOWN[name]())
    answer = metered.call("/default", payment=payment, does=streams(*WHOLE, free=True), protocol=protocol, **ASKS)
    ends_without_receipt(answer)
    rises(metered, "x402_settlements.outcome.unknown", before)
    pending(metered, "/default", payment)


def ends_without_receipt(answer) -> None:
    assert answer.status == 200 and answer.clean, answer
    assert answer.body.decode() == "".join(WHOLE)
    assert not answer.has_receipt and not receipts(answer), answer


def test_a_settlement_that_takes_longer_than_the_receipt_may(metered, protocol):
    """The answer ends without it; the settlement goes on."""
    before = metered.metric("x402_settlements.outcome.settled")
    payment = metered.payment("/hasty", **ASKS)
    metered.facilitator.script(payment.payload, settle=hang())
    answer = metered.call("/hasty", payment=payment, does=streams(*WHOLE, free=True), protocol=protocol, **ASKS)
    ends_without_receipt(answer)
    refused(metered.call("/hasty", payment=payment, does=answers(), **ASKS), 409, "payment_in_use")
    metered.facilitator.gate(payment.payload).release()
    rises(metered, "x402_settlements.outcome.settled", before)
    settled(metered, "/hasty", payment, USED)


def leaves_while_settling(world: World, protocol: str, then) -> Payment:
    """The client has had all but the end, and leaves; /settle is answered after that."""
    call = Open(world, "/default", protocol, streams(*WHOLE))
    world.facilitator.script(call.payment.payload, settle=[hang(then), says.ok()])
    call.gate.release()
    world.facilitator.gate(call.payment.payload).await_reached()
    call.exchange.leave()
    call.outcome("settling")
    world.facilitator.gate(call.payment.payload).release()
    return call.payment


def test_client_leaves_while_settling(metered, protocol):
    """The settlement goes on."""
    before = metered.metric("x402_settlements.outcome.settled")
    payment = leaves_while_settling(metered, protocol, says.ok())
    rises(metered, "x402_settlements.outcome.settled", before)
    settled(metered, "/default", payment, USED)
    alive(metered)


def test_client_leaves_while_settling_and_it_fails(metered, protocol):
    """It has had its answer: the payment buys no other one."""
    before = metered.metric("x402_served_unsettled")
    payment = leaves_while_settling(metered, protocol, refuse("insufficient_funds"))
    rises(metered, "x402_served_unsettled", before)
    settled(metered, "/default", payment, USED)
    alive(metered)


def test_client_leaves_while_settling_and_nobody_knows(metered, protocol):
    payment = leaves_while_settling(metered, protocol, says.garbage())
    pending(metered, "/default", payment)
    alive(metered)


def test_nobody_is_there_to_settle(worlds, protocol):
    """It cannot have been settled, and the answer has been given: the payment buys no other one."""
    gone = Facilitator(worlds.loop, worlds.journal)
    close = [("connection", "close")]

    async def verified(facilitator, call, answer):
        body = {"isValid": True, "payer": says.payer_of(call)}
        await says.reply(200, body, close)(facilitator, call, answer)

    # No connection is kept: the next call needs a new one.
    gone.supported_behaviour = says.reply(200, SUPPORTED, close)
    gone.default["verify"] = verified
    world = worlds.world(f"metered-gone-{protocol}", CONFIG, facilitator=gone, ready=asks_for_money)
    call = Open(world, "/default", protocol, streams(*WHOLE))

    async def stop_listening():
        gone._server.close()

    worlds.loop.run(stop_listening())
    call.gate.release()
    assert call.exchange.read() == b""
    assert not call.exchange.trailers()
    rises(world, "x402_served_unsettled", 0)
    assert world.metric("x402_settlements.outcome.unavailable") == 1
    call.outcome("served_unsettled")
    pending(world, "/default", call.payment, settles=0)
    alive(world)
