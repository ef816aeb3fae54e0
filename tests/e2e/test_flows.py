"""When money moves, and when the backend may begin: `flow: upfront`, `verify: overlap` and `verify: local`."""

import pytest

from stack.envoy import route

from .checks import alive, paid, refused, unpaid
from .facilitator import garbage, hang, ok, refuse
from .payments import pay
from .wire import eventually
from .world import BASE, ROUTES, SOLANA_OFFER, UPTO, World, changed, price


@pytest.fixture(scope="module")
def flows(worlds) -> World:
    """A route for each."""
    cent = {"price": price("0.01"), "accept": [BASE, SOLANA_OFFER]}
    tokens = {"per_token": {"input": "$0", "output": "$0.00001", "max_output": 1000}}
    config = changed(routes=[
        {"name": "upfront", "match": {"path": "/upfront"}, "flow": "upfront", **cent},
        {"name": "idle", "match": {"path": "/idle"}, "flow": "upfront", **cent},
        {"name": "timed", "match": {"path": "/timed"}, **cent},
        {"name": "stalled", "match": {"path": "/stalled"}, **cent},
        {"name": "overlap", "match": {"path": "/overlap"}, "verify": "overlap", **cent},
        {"name": "local", "match": {"path": "/local"}, "verify": "local", **cent},
        {"name": "metered", "match": {"path": "/metered"}, "verify": "overlap", "flow": "metered", "accept": [UPTO],
         "price": tokens},
    ])

    def ready(world: World) -> bool:
        asks = {"method": "POST", "headers": [("content-type", "application/json")], "body": b"{}"}
        return world.everywhere(lambda: len(world.accepts("/local")) == 2 and
                                world.call("/metered", **asks).status == 402)

    routes = [route("/idle", name="idle", action={"idle_timeout": "1s"}),
              route("/stalled", name="stalled", action={"idle_timeout": "1s"}),
              route("/timed", name="timed", action={"timeout": "1s"}), *ROUTES]
    return worlds.world("flows", config, routes=routes, ready=ready)



def outcome(world: World, answer) -> str:
    """What the access log says of a request."""
    return world.envoy.access_log(test_id=answer.test_id)["x402_outcome"]


# Settled first

def test_upfront_is_one_call_and_says_so(flows, protocol):
    payment = flows.payment("/upfront")
    assert payment.offer["extra"]["paymentFlow"] == "upfront"
    answer = paid(flows, flows.call("/upfront", payment=payment, protocol=protocol), payment)
    assert flows.count(payment, "verify") == 0 and outcome(flows, answer) == "paid"
    unpaid(flows, flows.call("/upfront", payment=payment), 402, "nonce_already_used")


def test_the_backend_waits_for_the_settlement(flows, protocol):
    """And the body of the request with it."""
    payment = flows.payment("/upfront")
    flows.facilitator.script(payment.payload, settle=hang())
    exchange, test_id = flows.open("/upfront", "POST", payment=payment, protocol=protocol, does={"kind": "mirror"},
                                   body=b"x" * 100_000)
    gate = flows.facilitator.gate(payment.payload)
    gate.await_reached()
    assert flows.backend.requests(test_id) == []
    assert flows.call("/upfront", payment=payment).status == 409
    gate.release()
    answer = exchange.response()
    assert answer.status == 200 and answer.body == b"x" * 100_000 and answer.receipt["success"]
    exchange.close()


def test_answers_stream_after_it(flows, protocol):
    payment = flows.payment("/upfront")
    answer = flows.call("/upfront", payment=payment, protocol=protocol, does={"kind": "sse", "chunks": 50, "free": True})
    paid(flows, answer, payment)


@pytest.mark.parametrize("does", [{"status": 500}, {"status": 404}, {"reset": "before"}])
def test_what_was_paid_and_not_delivered_has_a_receipt_and_says_so(flows, protocol, does):
    payment = flows.payment("/upfront")
    answer = flows.call("/upfront", payment=payment, protocol=protocol, does=does)
    assert answer.status == does.get("status", 503) and answer.receipt["success"] is True, answer
    assert flows.count(payment, "settle") == 1 and outcome(flows, answer) == "paid_not_delivered"
    alive(flows)


ENDS = {
    "refused": (lambda: refuse("insufficient_funds"), 402, "insufficient_funds"),
    "unknown": (garbage, 503, "settlement_pending"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_is_not_settled_never_reaches_the_backend(flows, protocol, name):
    then, status, reason = ENDS[name]
    payment = flows.payment("/upfront")
    flows.facilitator.script(payment.payload, settle=[then(), then()])
    answer = flows.call("/upfront", "POST", payment=payment, protocol=protocol, body=b"x" * 100_000)
    refused(answer, status, reason)
    assert flows.reached(answer) == 0 and not answer.all("payment-required") or status == 402
    again = flows.call("/upfront", payment=payment)
    refused(again, status, reason)
    assert flows.count(payment, "settle") == 2


def test_a_client_that_leaves_while_it_pays_has_paid(flows, protocol):
    payment = flows.payment("/upfront")
    flows.facilitator.script(payment.payload, settle=hang())
    known = flows.metric("x402_settlements.outcome.settled")
    exchange, test_id = flows.open("/upfront", payment=payment, protocol=protocol)
    flows.facilitator.gate(payment.payload).await_reached()
    exchange.leave()
    assert flows.envoy.access_log(test_id=test_id)["x402_outcome"] == "settling"
    flows.facilitator.gate(payment.payload).release()
    eventually(lambda: flows.metric("x402_settlements.outcome.settled") > known, "the settlement is known")
    eventually(lambda: flows.call("/upfront", payment=payment).status != 409, "the payment is not in use any more")
    unpaid(flows, flows.call("/upfront", payment=payment), 402, "nonce_already_used")
    assert flows.backend.requests(test_id) == []
    alive(flows)


def test_what_envoy_answers_meanwhile_is_an_answer(flows, protocol):
    """Envoy gives up a request that is being paid for: its answer comes whole, and the payment buys the backend's afterwards."""
    payment = flows.payment("/idle")
    flows.facilitator.script(payment.payload, settle=hang())
    exchange, test_id = flows.open("/idle", payment=payment, protocol=protocol)
    gate = flows.facilitator.gate(payment.payload)
    gate.await_reached()
    answer = exchange.response()
    assert answer.status == 504 and answer.clean and answer.body == b"stream timeout", answer
    assert flows.envoy.access_log(test_id=test_id)["x402_outcome"] == "settling"
    gate.release()
    eventually(lambda: flows.call("/idle", payment=payment, test_id=test_id).status == 200, "the answer is served after all")
    assert flows.backend.requests(test_id) and flows.count(payment, "settle") == 1
    unpaid(flows, flows.call("/idle", payment=payment), 402, "nonce_already_used")
    alive(flows)


GIVES_UP = {"/timed": {"kind": "sse", "chunks": 2}, "/stalled": {"kind": "mirror"}}


@pytest.mark.parametrize("path", GIVES_UP)
def test_what_is_settled_after_envoy_gave_up_is_served_again(flows, protocol, path):
    """The backend had answered; Envoy's own answer goes out in its place, and the settlement goes on."""
    payment = flows.payment(path)
    flows.facilitator.script(payment.payload, settle=hang())
    exchange, test_id = flows.open(path, payment=payment, protocol=protocol, does=GIVES_UP[path])
    gate = flows.facilitator.gate(payment.payload)
    gate.await_reached()
    answer = exchange.response()
    assert answer.status == 504 and answer.clean and not answer.has_receipt, answer
    assert flows.envoy.access_log(test_id=test_id)["x402_outcome"] == "settling"
    gate.release()
    eventually(lambda: flows.call(path, payment=payment).status == 200, "the answer is served after all")
    assert flows.count(payment, "settle") == 1
    unpaid(flows, flows.call(path, payment=payment), 402, "nonce_already_used")
    alive(flows)


def test_many_leave_as_they_pay(flows, protocol):
    """A reset and the facilitator's answer together, in either order: no worker dies, nothing is taken twice."""
    made = [flows.payment("/upfront") for _ in range(20)]
    exchanges = []
    for payment in made:
        flows.facilitator.script(payment.payload, settle=hang())
        exchanges.append(flows.open("/upfront", payment=payment, protocol=protocol)[0])
    for payment in made:
        flows.facilitator.gate(payment.payload).await_reached()
    for number, (payment, exchange) in enumerate(zip(made, exchanges)):
        flows.facilitator.gate(payment.payload).race(exchange.leave, first=number % 2 == 0)
    for payment in made:
        eventually(lambda: flows.call("/upfront", payment=payment).status == 402, "the payment is spent")
        assert flows.count(payment, "settle") == 1
    alive(flows)


# Verified meanwhile

def test_the_backend_works_while_the_payment_is_verified(flows, protocol):
    """And nothing leaves before both have answered."""
    payment = flows.payment("/overlap")
    flows.facilitator.script(payment.payload, verify=hang())
    exchange, test_id = flows.open("/overlap", "POST", payment=payment, protocol=protocol, does={"kind": "mirror"},
                                   body=b"y" * 100_000)
    gate = flows.facilitator.gate(payment.payload)
    gate.await_reached()
    assert flows.backend.one(test_id).body == b"y" * 100_000
    assert flows.count(payment, "settle") == 0
    assert exchange.quiet() or protocol == "h2"
    gate.release()
    answer = exchange.response()
    assert answer.status == 200 and answer.body == b"y" * 100_000 and answer.receipt["success"]
    exchange.close()


def test_a_verdict_may_come_first(flows, protocol):
    payment = flows.payment("/overlap")
    exchange, test_id = flows.open("/overlap", payment=payment, protocol=protocol, does={"hold": True})
    flows.backend.gate(test_id).await_reached()
    flows.facilitator.await_call(payment.payload, "verify").ended.wait(10)
    flows.backend.gate(test_id).release()
    assert exchange.response().receipt["success"]
    exchange.close()


@pytest.mark.parametrize("holds", [True, False], ids=["before the answer", "after the answer"])
def test_what_is_refused_meanwhile_gets_nothing(flows, protocol, holds):
    payment = flows.payment("/overlap")
    flows.facilitator.script(payment.payload, verify=[hang(refuse("insufficient_funds")), ok()])
    exchange, test_id = flows.open("/overlap", payment=payment, protocol=protocol, does={"hold": holds})
    gate = flows.facilitator.gate(payment.payload)
    gate.await_reached()
    if holds:
        flows.backend.gate(test_id).await_reached()
    else:
        assert flows.backend.one(test_id)
    gate.release()
    answer = exchange.response()
    refused(answer, 402, "insufficient_funds")
    assert flows.count(payment, "settle") == 0
    exchange.close()
    if holds:
        assert flows.backend.one(test_id).aborted.wait(10)
    # It is as good as before.
    paid_again = flows.call("/overlap", payment=payment)
    assert paid_again.status == 200 and paid_again.receipt["success"]
    alive(flows)


def test_an_error_is_passed_on_without_a_verdict(flows, protocol):
    payment = flows.payment("/overlap")
    flows.facilitator.script(payment.payload, verify=[hang(), ok()])
    answer = flows.call("/overlap", payment=payment, protocol=protocol, does={"status": 500})
    assert answer.status == 500 and not answer.has_receipt
    flows.facilitator.gate(payment.payload).release()
    eventually(lambda: flows.call("/overlap", payment=payment).status == 200, "the payment is as good as before")
    assert flows.count(payment, "settle") == 1
    alive(flows)


def test_a_client_that_leaves_meanwhile_pays_nothing(flows, protocol):
    payment = flows.payment("/overlap")
    flows.facilitator.script(payment.payload, verify=[hang(), ok()])
    exchange, test_id = flows.open("/overlap", payment=payment, protocol=protocol)
    flows.facilitator.gate(payment.payload).await_reached()
    assert flows.backend.one(test_id)
    exchange.leave()
    flows.envoy.access_log(test_id=test_id)
    flows.facilitator.gate(payment.payload).release()
    eventually(lambda: flows.call("/overlap", payment=payment).status == 200, "the payment is as good as before")
    assert flows.count(payment, "settle") == 1


def test_a_metered_answer_begins_when_both_are_there(flows, protocol):
    asks = {"headers": [("content-type", "application/json")], "body": b'{"messages": [], "max_tokens": 9, "stream": true}'}
    payment = flows.payment("/metered", method="POST", **asks)
    flows.facilitator.script(payment.payload, verify=hang())
    does = {"kind": "parts", "free": True, "headers": [["content-type", "text/event-stream"]], "parts": [
        'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n', 'data: {"choices":[],"usage":{"completion_tokens":2}}\n\n']}
    exchange, test_id = flows.open("/metered", "POST", payment=payment, protocol=protocol, does=does, **asks)
    flows.facilitator.gate(payment.payload).await_reached()
    assert flows.backend.one(test_id)
    assert exchange.quiet() or protocol == "h2"
    flows.facilitator.gate(payment.payload).release()
    answer = exchange.response()
    assert answer.status == 200 and answer.clean
    [settle] = flows.facilitator.calls(payment.payload, "settle")
    assert settle.json["paymentRequirements"]["amount"] == "20"
    exchange.close()


# Nobody verifies

def test_local_asks_for_the_settlement_alone(flows, protocol):
    payment = flows.payment("/local")
    answer = paid(flows, flows.call("/local", payment=payment, protocol=protocol), payment)
    assert flows.count(payment, "verify") == 0 and outcome(flows, answer) == "paid"


def test_local_lets_nothing_out_that_is_not_settled(flows, protocol):
    payment = flows.payment("/local")
    flows.facilitator.script(payment.payload, settle=[refuse("insufficient_funds"), ok()])
    answer = flows.call("/local", payment=payment, protocol=protocol)
    refused(answer, 402, "insufficient_funds")
    assert flows.reached(answer) == 1
    assert flows.call("/local", payment=payment).status == 200


@pytest.mark.parametrize("path", ["/upfront", "/overlap", "/local"])
def test_a_forgery_reaches_nobody(flows, protocol, path):
    payment = flows.payment(path)
    payment.payload["signature"] = pay(payment.offer).payload["signature"]
    answer = flows.call(path, payment=payment, protocol=protocol)
    unpaid(flows, answer, 402, "invalid_exact_evm_payload_signature")
    flows.no_calls(payment)


@pytest.mark.parametrize("path", ["/upfront", "/overlap", "/local"])
def test_what_is_not_proven_here_is_verified_first(flows, protocol, path):
    """A Solana transaction, whose signatures are the facilitator's to check."""
    payment = flows.payment(path, lambda found: found["network"].startswith("solana:"))
    flows.facilitator.script(payment.payload, verify=hang())
    exchange, test_id = flows.open(path, payment=payment, protocol=protocol)
    flows.facilitator.gate(payment.payload).await_reached()
    assert flows.backend.requests(test_id) == [] and flows.count(payment, "settle") == 0
    flows.facilitator.gate(payment.payload).release()
    assert exchange.response().receipt["success"]
    assert flows.count(payment, "settle") == 1
    exchange.close()
