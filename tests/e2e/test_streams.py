"""Streams, clients that leave, and the methods that are not GET and POST."""

import pytest

from stack.process import DEADLINE

from .backend import sse_event
from .checks import paid, refused, unpaid
from .client import Http1, Http2, raw
from .facilitator import hang
from .wire import eventually, fresh_id


@pytest.mark.parametrize("path", ["/paid", "/upto"])
def test_events_pass_one_by_one(main, protocol, path):
    """Settled first, then each event as it comes: the backend sends the next only after this one was seen."""
    payment = main.payment(path)
    exchange, test_id = main.open(path, payment=payment, protocol=protocol, does={"kind": "sse", "chunks": 12})
    status, headers = exchange.head()
    assert status == 200 and any(name.lower() == "payment-response" for name, _ in headers)
    assert main.count(payment, "settle") == 1
    for number in range(12):
        main.backend.gate(test_id).release()
        assert exchange.read_until(len(sse_event(number))) == sse_event(number)
    assert exchange.read() == b""
    exchange.close()


def test_two_hundred_events(main, protocol):
    payment = main.payment("/paid")
    answer = main.call("/paid", payment=payment, protocol=protocol, does={"kind": "sse", "chunks": 200, "free": True})
    paid(main, answer, payment)
    assert answer.body == b"".join(sse_event(number) for number in range(200))


def test_client_leaves_in_mid_stream(main, protocol):
    payment = main.payment("/paid")
    exchange, test_id = main.open("/paid", payment=payment, protocol=protocol, does={"kind": "sse", "chunks": 5})
    assert exchange.head()[0] == 200
    main.backend.gate(test_id).release()
    exchange.read_until(5)
    exchange.leave()
    assert main.backend.one(test_id).aborted.wait(DEADLINE)
    assert main.count(payment, "settle") == 1


def test_client_leaves_while_verifying(main, protocol):
    """The backend never hears of it, and the payment can be used again."""
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, verify=[hang(), hang()])
    exchange, test_id = main.open("/paid", payment=payment, protocol=protocol)
    main.facilitator.gate(payment.payload).await_reached()
    exchange.leave()
    main.envoy.access_log(test_id=test_id)
    main.facilitator.gate(payment.payload).release(100)
    main.facilitator.await_call(payment.payload, "verify").ended.wait(DEADLINE)
    answer = eventually(lambda: (found := main.call("/paid", payment=payment)).status == 200 and found,
                        "the claim is released")
    assert answer.receipt["success"] and main.count(payment, "settle") == 1
    assert main.backend.requests(test_id) == []


def test_client_leaves_before_the_backend_answers(main, protocol):
    """Nothing was delivered and nothing is settled."""
    payment = main.payment("/paid")
    exchange, test_id = main.open("/paid", payment=payment, protocol=protocol, does={"hold": True})
    main.backend.gate(test_id).await_reached()
    exchange.leave()
    assert main.backend.one(test_id).aborted.wait(DEADLINE)
    main.backend.gate(test_id).release()
    answer = eventually(lambda: (found := main.call("/paid", payment=payment)).status == 200 and found,
                        "the claim is released")
    assert answer.receipt["success"] and main.count(payment, "settle") == 1


def test_client_leaves_while_settling(main, protocol):
    """The settlement goes on, its outcome is known, and the claim is spent: never a second settlement."""
    settled = main.metric("x402_settlements.outcome.settled")
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=hang())
    exchange, test_id = main.open("/paid", payment=payment, protocol=protocol)
    main.facilitator.gate(payment.payload).await_reached()
    exchange.leave()
    main.envoy.access_log(test_id=test_id)
    main.facilitator.gate(payment.payload).release(100)
    main.facilitator.await_call(payment.payload, "settle").ended.wait(DEADLINE)
    eventually(lambda: main.metric("x402_settlements.outcome.settled") > settled, "the settlement is counted")
    answer = main.call("/paid", payment=payment)
    # Spent; or, with redelivery, served once without another settlement.
    assert answer.status in (200, 402), answer
    if answer.status == 402:
        unpaid(main, answer, 402, "nonce_already_used")
    assert main.count(payment, "settle") == 1


def test_client_leaves_while_settling_and_it_fails(main):
    """Refused after the client has left: known all the same, and nothing was paid."""
    from .facilitator import refuse
    refusals = main.metric("x402_settlements.outcome.refused")
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=hang(refuse("insufficient_funds")))
    exchange, test_id = main.open("/paid", payment=payment)
    main.facilitator.gate(payment.payload).await_reached()
    exchange.leave()
    main.envoy.access_log(test_id=test_id)
    main.facilitator.gate(payment.payload).release(100)
    eventually(lambda: main.metric("x402_settlements.outcome.refused") > refusals, "the refusal is counted")


def test_head_is_priced(main, protocol):
    answer = main.call("/paid", "HEAD", protocol=protocol)
    assert answer.status == 402 and answer.challenge["accepts"] == main.accepts("/paid") and answer.body == b""
    assert main.reached(answer) == 0
    payment = main.payment("/paid")
    answer = paid(main, main.call("/paid", "HEAD", payment=payment, protocol=protocol), payment)
    assert answer.body == b""


def test_options_is_priced_unless_it_is_a_preflight(main, protocol):
    unpaid(main, main.call("/paid", "OPTIONS", protocol=protocol), 402)
    unpaid(main, main.call("/paid", "OPTIONS", [("origin", "https://shop.example")], protocol=protocol), 402)
    unpaid(main, main.call("/paid", "OPTIONS", [("access-control-request-method", "GET")], protocol=protocol), 402)
    answer = main.call("/paid", "OPTIONS", [("origin", "https://shop.example"),
                                            ("access-control-request-method", "GET")], protocol=protocol)
    assert answer.status == 200 and main.reached(answer) == 1 and not answer.has_receipt
    payment = main.payment("/paid")
    paid(main, main.call("/paid", "OPTIONS", payment=payment, protocol=protocol), payment)


@pytest.mark.parametrize("kind", ["websocket", "WebSocket", "CONNECT"])
def test_upgrade_is_refused(main, kind):
    payment = main.payment("/paid")
    for headers in ([], payment.headers()):
        exchange = Http1(main.port)
        test_id = fresh_id()
        exchange.start("GET", "/paid", [("connection", "upgrade"), ("upgrade", kind), ("x-test-id", test_id), *headers])
        assert exchange.head()[0] in (400, 403), "upgrade on a priced route"
        assert main.backend.requests(test_id) == []
        exchange.close()
    main.no_calls(payment)


def upgrade_of_a_chat(main, kind, *headers):
    """The answer to an upgrade on the route whose price the body says; its request never ends."""
    exchange = Http1(main.port)
    test_id = fresh_id()
    exchange.start("POST", "/v1/chat/completions", [("connection", "upgrade"), ("upgrade", kind), ("x-test-id", test_id),
                                                    *headers])
    answer = exchange.response()
    exchange.close()
    assert main.backend.requests(test_id) == []
    return answer


@pytest.mark.parametrize("headers", [[], [("content-type", "application/json")]], ids=["bare", "JSON"])
@pytest.mark.parametrize("kind", ["websocket", "CONNECT"])
def test_upgrade_is_refused_where_the_body_says_the_price(main, kind, headers):
    """At once: an upgrade has no body that could be waited for."""
    refused(upgrade_of_a_chat(main, kind, *headers), 400)


def test_upgrade_is_refused_by_its_name_where_the_body_says_the_price(main):
    refused(upgrade_of_a_chat(main, "websocket", ("content-type", "application/json")), 400, "upgrade_not_payable")


def test_extended_connect_is_refused(main):
    exchange = Http2(main.port)
    test_id = fresh_id()
    fields = [(b":method", b"CONNECT"), (b":scheme", b"http"), (b":authority", b"api.test"), (b":path", b"/paid"),
              (b":protocol", b"websocket"), (b"x-test-id", raw(test_id))]
    exchange._h2.send_headers(1, fields, end_stream=False)
    exchange._flush()
    assert exchange.head()[0] in (400, 403)
    assert main.backend.requests(test_id) == []
    exchange.close()


def test_connect_does_not_kill_a_worker(main):
    """No path at all: whatever becomes of it, the VM lives."""
    for _ in range(8):
        exchange = Http1(main.port)
        exchange.raw(b"CONNECT api.test:443 HTTP/1.1\r\nhost: api.test:443\r\n\r\n")
        exchange._method = "CONNECT"
        exchange.head()
        exchange.leave()
    for _ in range(16):
        assert main.call("/paid").status == 402


def test_upgrade_of_something_free_passes(main):
    exchange = Http1(main.port)
    test_id = fresh_id()
    exchange.start("GET", "/free", [("connection", "upgrade"), ("upgrade", "websocket"), ("x-test-id", test_id)])
    exchange.head()
    assert main.backend.requests(test_id)
    exchange.leave()
