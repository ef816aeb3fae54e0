"""What a settled payment still buys: the same answer where it was not delivered, further requests where it was sold for several."""

import json

import pytest

from .checks import alive, paid, refused, unpaid
from .client import Closed
from .facilitator import hang, ok
from .wire import eventually
from .world import BASE, SOLANA_OFFER, UPTO, World, changed, price

USED = "nonce_already_used"


@pytest.fixture(scope="module")
def selling(worlds) -> World:
    """Three workers, and a reader in front."""
    cent = {"price": price("0.01"), "accept": [BASE]}
    config = changed(redeliver={"times": 1, "window": "10m"}, routes=[
        {"name": "paid", "match": {"path": "/paid*"}, **cent},
        {"name": "upfront", "match": {"path": "/upfront"}, "flow": "upfront", **cent},
        {"name": "solana", "match": {"path": "/solana"}, "price": price("0.01"), "accept": [SOLANA_OFFER]},
        {"name": "chat", "match": {"methods": ["POST"], "path": "/chat", "model": "gpt*"}, **cent},
        {"name": "three", "match": {"path": "/three*"}, **cent, "limits": {"requests_per_payment": 3}},
        {"name": "metered", "match": {"path": "/metered"}, "price": price("0.01"), "accept": [UPTO], "flow": "metered"},
        {"name": "minutes", "match": {"path": "/minutes"}, "accept": [BASE],
         "price": {"per_minute": {"amount": "$0.01", "minimum": 1, "maximum": 1}}},
    ])
    return worlds.world("selling", config, workers=3,
                        ready=lambda world: world.everywhere(lambda: world.call("/solana").status == 402))


STREAM = {"kind": "sse", "chunks": 2}


def cut(world: World, path: str, payment, protocol: str, method: str = "GET", **more) -> str:
    """The client leaves when it has had the first of two chunks; the test id of what it asked."""
    exchange, test_id = world.open(path, method, payment=payment, protocol=protocol, does=STREAM, **more)
    world.backend.gate(test_id).release()
    status, _ = exchange.head()
    assert status == 200
    exchange.read_until(1)
    exchange.leave()
    world.backend.gate(test_id).release()
    line = world.envoy.access_log(test_id=test_id)
    assert line["x402_outcome"] == "paid_not_delivered", line
    return test_id


@pytest.mark.parametrize("path", ["/paid?q=1", "/upfront", "/solana"])
def test_a_client_that_lost_its_connection_has_its_answer_again(selling, protocol, path):
    """With the same receipt, and once; whichever worker it comes to."""
    payment = selling.payment(path)
    before = selling.metric("x402_undelivered"), selling.metric("x402_entitled.right.again")
    cut(selling, path, payment, protocol)
    again = paid(selling, selling.call(path, payment=payment, protocol=protocol), payment)
    assert again.receipt["transaction"] and selling.envoy.access_log(test_id=again.test_id)["x402_outcome"] == "served_again"
    unpaid(selling, selling.call(path, payment=payment), 402, USED)
    assert (selling.metric("x402_undelivered"), selling.metric("x402_entitled.right.again")) == tuple(n + 1 for n in before)
    assert selling.count(payment, "settle") == 1


def test_while_the_first_answer_is_on_its_way_nobody_is_asked_to_pay_again(selling, protocol):
    """Envoy does not know that a client is gone before its connection says so."""
    payment = selling.payment("/paid")
    exchange, test_id = selling.open("/paid", payment=payment, protocol=protocol, does=STREAM)
    selling.backend.gate(test_id).release()
    exchange.head()
    exchange.read_until(1)
    assert selling.everywhere(lambda: selling.call("/paid", payment=payment).status == 409)
    exchange.leave()
    selling.backend.gate(test_id).release()
    eventually(lambda: selling.call("/paid", payment=payment).status == 200, "it is had again")


def test_of_many_that_come_back_at_once_one_is_served(selling):
    for _ in range(5):
        payment = selling.payment("/paid")
        cut(selling, "/paid", payment, "h1")
        opened = [selling.open("/paid", payment=payment, does={"hold": True}) for _ in range(12)]
        served = eventually(lambda: [test_id for _, test_id in opened if selling.backend.requests(test_id)], "one is let through")
        assert len(served) == 1
        others = [exchange.response().status for exchange, test_id in opened if test_id != served[0]]
        assert others == [409] * 11
        selling.backend.gate(served[0]).release()
        assert [exchange.response().status for exchange, test_id in opened if test_id == served[0]] == [200]
        for exchange, _ in opened:
            exchange.close()
    alive(selling)


def test_a_second_cut_is_the_last(selling, protocol):
    payment = selling.payment("/paid")
    cut(selling, "/paid", payment, protocol)
    cut(selling, "/paid", payment, protocol)
    unpaid(selling, selling.call("/paid", payment=payment), 402, USED)


def test_a_backend_that_breaks_off_is_no_delivery(selling, protocol):
    payment = selling.payment("/paid")
    exchange, test_id = selling.open("/paid", payment=payment, protocol=protocol, does={"kind": "cut", "parts": ["half"], "breaks": True})
    status, _ = exchange.head()
    assert status == 200 and exchange.read_until(4) == b"half"
    selling.backend.gate(test_id).release()
    with pytest.raises(Closed):
        while exchange.read():
            pass
    assert selling.envoy.access_log(test_id=test_id)["x402_outcome"] == "paid_not_delivered"
    exchange.close()
    paid(selling, selling.call("/paid", payment=payment, protocol=protocol), payment)
    unpaid(selling, selling.call("/paid", payment=payment), 402, USED)


@pytest.mark.parametrize("does", [{"status": 500}, {"status": 404}, {"reset": "before"}])
def test_what_was_paid_up_front_is_asked_for_until_the_backend_answers(selling, protocol, does):
    payment = selling.payment("/upfront")
    for _ in range(4):
        failed = selling.call("/upfront", payment=payment, protocol=protocol, does=does)
        assert failed.status >= 400 and failed.receipt["success"], failed
    paid(selling, selling.call("/upfront", payment=payment, protocol=protocol), payment)
    unpaid(selling, selling.call("/upfront", payment=payment), 402, USED)


def test_a_client_that_left_while_it_paid_comes_back_for_its_answer(selling, protocol):
    payment = selling.payment("/paid")
    selling.facilitator.script(payment.payload, settle=[hang(ok())])
    exchange, test_id = selling.open("/paid", payment=payment, protocol=protocol)
    selling.facilitator.gate(payment.payload).await_reached()
    exchange.leave()
    selling.envoy.access_log(test_id=test_id)
    selling.facilitator.gate(payment.payload).release()
    answer = eventually(lambda: (found := selling.call("/paid", payment=payment)).status != 409 and found, "it is settled")
    paid(selling, answer, payment)


def test_only_the_same_request_is_served_again(selling, protocol):
    ask = {"method": "POST", "headers": [("content-type", "application/json")]}
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}).encode()
    payment = selling.payment("/chat", body=body, **ask)
    test_id = cut(selling, "/chat", payment, protocol, body=body, **ask)
    assert selling.backend.requests(test_id)[0].body == body
    for path, more in [
        ("/chat?other", {"body": body, **ask}),
        ("/chat", {"body": body.replace(b"hello", b"world"), **ask}),
        ("/paid", {}),
    ]:
        answer = selling.call(path, payment=payment, protocol=protocol, **more)
        assert answer.status == 402 and selling.reached(answer) == 0, answer
    other_host = selling.call("/chat", payment=payment, protocol=protocol, body=body, host="other.test", **ask)
    assert other_host.status == 402
    paid(selling, selling.call("/chat", payment=payment, protocol=protocol, body=body, **ask), payment)


def test_a_body_that_no_reader_saw_is_not_served_again(selling, protocol):
    """Nobody knows whether it is the same."""
    payment = selling.payment("/paid")
    cut(selling, "/paid", payment, protocol, method="POST", body=b"something")
    unpaid(selling, selling.call("/paid", "POST", payment=payment, body=b"something"), 402, USED)


def test_a_metered_answer_is_settled_for_what_was_delivered(selling, protocol):
    payment = selling.payment("/metered")
    exchange, test_id = selling.open("/metered", payment=payment, protocol=protocol, does=STREAM)
    selling.backend.gate(test_id).release()
    exchange.head()
    exchange.read_until(1)
    exchange.leave()
    selling.backend.gate(test_id).release()
    eventually(lambda: selling.count(payment, "settle") == 1, "it is settled")
    answer = eventually(lambda: (found := selling.call("/metered", payment=payment)).status != 409 and found, "it is over")
    unpaid(selling, answer, 402, USED)


@pytest.mark.parametrize("does", [{"kind": "empty", "status": 204}, {"kind": "trailers"}, {"kind": "bytes", "size": 300_000}])
def test_whole_answers_of_every_kind_are_delivered(selling, protocol, does):
    payment = selling.payment("/paid")
    answer = selling.call("/paid", payment=payment, protocol=protocol, does=does)
    assert answer.status in (200, 204) and answer.clean, answer
    eventually(lambda: selling.call("/paid", payment=payment).status != 409, "it is over")
    unpaid(selling, selling.call("/paid", payment=payment), 402, USED)


def test_a_configuration_that_comes_meanwhile_changes_nothing(worlds, protocol):
    """What was paid under one is had again under the next."""
    def config(**more) -> dict:
        return changed(routes=[{"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]}], **more)

    import copy

    from stack.envoy import with_filter_config
    world = worlds.world(f"redelivers-later-{protocol}", config(), ready=lambda world: bool(world.accepts("/paid")))
    payment = world.payment("/paid")
    cut(world, "/paid", payment, protocol)
    assert world.envoy.update(config=with_filter_config(copy.deepcopy(world.envoy.config), config(quote_grace="61s"))) is None
    paid(world, world.call("/paid", payment=payment, protocol=protocol), payment)
    unpaid(world, world.call("/paid", payment=payment), 402, USED)


# Several requests for one payment

def test_one_payment_buys_three_requests(selling, protocol):
    payment = selling.payment("/three")
    first = paid(selling, selling.call("/three", payment=payment, protocol=protocol), payment)
    for path, more in [("/three/other", {}), ("/three", {"method": "POST", "body": b"x" * 1000})]:
        answer = paid(selling, selling.call(path, payment=payment, protocol=protocol, **more), payment)
        assert answer.receipt == first.receipt
        assert selling.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "prepaid"
    unpaid(selling, selling.call("/three", payment=payment), 402, USED)
    assert selling.count(payment, "verify") == 1


def test_three_are_three_over_all_workers_at_once(selling):
    """Thirty come at once, when the first one has been settled."""
    for _ in range(3):
        payment = selling.payment("/three")
        paid(selling, selling.call("/three", payment=payment), payment)
        opened = [selling.open("/three", payment=payment) for _ in range(30)]
        answers = [exchange.response() for exchange, _ in opened]
        assert sorted(answer.status for answer in answers) == [200] * 2 + [402] * 28
        for exchange, _ in opened:
            exchange.close()
        assert selling.count(payment, "settle") == 1
    alive(selling)


def test_a_backend_that_fails_uses_up_none_of_them(selling, protocol):
    payment = selling.payment("/three")
    paid(selling, selling.call("/three", payment=payment, protocol=protocol), payment)
    for _ in range(5):
        failed = selling.call("/three", payment=payment, protocol=protocol, does={"status": 500})
        assert failed.status == 500
    for _ in range(2):
        paid(selling, selling.call("/three", payment=payment, protocol=protocol), payment)
    refused(selling.call("/three", payment=payment), 402, USED)
