"""Prices that depend on the body, and bodies that depend on nothing: `x402-reader`."""

import gzip
import hashlib
import json

import pytest

from .backend import pattern
from .checks import paid, refused, unpaid, untouched
from .facilitator import hang
from .world import MAIN, World, changed, price

CHAT = "/v1/chat/completions"
JSON_BODY = [("content-type", "application/json")]


def chat(model="gpt-4o-mini", **more):
    """A chat request."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}], **more}).encode()


def buy(world, **more):
    """A payment for the chat route."""
    return world.payment(CHAT, method="POST", headers=JSON_BODY, body=chat(), **more)


def test_model_is_priced(main, protocol):
    answer = unpaid(main, main.call(CHAT, "POST", JSON_BODY, body=chat(), protocol=protocol), 402)
    assert answer.challenge["accepts"][0]["amount"] == "50000"
    payment = buy(main)
    answer = paid(main, main.call(CHAT, "POST", JSON_BODY, body=chat(), payment=payment, protocol=protocol), payment)
    assert main.backend.one(answer.test_id).body == chat()


def test_free_model(main, protocol):
    answer = main.call(CHAT, "POST", JSON_BODY, body=chat("tiny"), protocol=protocol)
    assert answer.status == 200 and main.backend.one(answer.test_id).body == chat("tiny")


def unpriceable(world, answer):
    """Refused with a 400, never free and never a challenge."""
    assert answer.status == 400, answer
    refused(answer, 400)
    untouched(world, answer)
    return answer.json()


@pytest.mark.parametrize("body", [chat("other"), chat(""), b'{"messages":[]}', b'{"model":null}', b'{"model":7}',
                                  b'{"model":["gpt-4o"]}', b'{"Model":"gpt-4o"}', b'{"x":{"model":"gpt-4o"}}'])
def test_condition_failed_names_it(main, protocol, body):
    found = unpriceable(main, main.call(CHAT, "POST", JSON_BODY, body=body, protocol=protocol))
    assert found["error"] in ("route_condition_failed", "unreadable_body") and "model" in found["message"].lower(), found


def test_header_condition_failed_names_it(main, protocol):
    for headers in ([], [("x-tier", "silver")], [("x-tier", "")], [("x-tier", "silver"), ("x-tier", "gold")]):
        answer = main.call("/tier", headers=headers, protocol=protocol)
        assert answer.status in (400, 402), answer
        untouched(main, answer)
        if len(headers) < 2:
            refused(answer, 400, "route_condition_failed")
            assert "x-tier" in answer.json()["message"].lower()


TINY_THEN_BIG = {
    "twice": b'{"model":"tiny","model":"gpt-4o"}',
    "twice, the other way": b'{"model":"gpt-4o","model":"tiny"}',
    "twice, once escaped": b'{"model":"tiny","mod\\u0065l":"gpt-4o"}',
    "twice, far apart": b'{"model":"tiny","x":[' + b"1," * 5000 + b'1],"model":"gpt-4o"}',
}
UNREADABLE = {
    **TINY_THEN_BIG,
    "not JSON": b"model=tiny",
    "an array": b'["tiny"]',
    "a string": b'"tiny"',
    "empty": b"",
    "cut off": b'{"model":"tiny"',
    "something after it": b'{"model":"tiny"}{"model":"gpt-4o"}',
    "not UTF-8": b'{"model":"tiny","x":"\xff"}',
    "UTF-16": '{"model":"tiny"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"model":"tiny"}',
    "a comment": b'{"model":"tiny"/* "model":"gpt-4o" */}',
    "far too deep": b'{"model":"tiny","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NUL": b'{"model":"tiny\x00"}',
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_bodies(main, protocol, name):
    """A backend might read another model out of it than the filter did."""
    unpriceable(main, main.call(CHAT, "POST", JSON_BODY, body=UNREADABLE[name], protocol=protocol))


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "identity, gzip", "br", "deflate", "unknown"])
def test_encoded_bodies(main, encoding):
    body = gzip.compress(chat("tiny"))
    unpriceable(main, main.call(CHAT, "POST", [*JSON_BODY, ("content-encoding", encoding)], body=body))
    # A body that claims to be encoded and is not: the backend may believe the claim.
    unpriceable(main, main.call(CHAT, "POST", [*JSON_BODY, ("content-encoding", encoding)], body=chat("tiny")))


def test_no_body_at_all(main, protocol):
    answer = main.call(CHAT, "POST", protocol=protocol)
    unpriceable(main, answer)


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain"])
def test_content_type_does_not_open(main, kind):
    """The backend may not look at it: a priced model stays priced."""
    answer = main.call(CHAT, "POST", [("content-type", kind)], body=chat())
    assert answer.status in (400, 402), answer
    untouched(main, answer)


SHAPES = {
    "length": {"body": chat()},
    "chunks": {"chunks": [chat()[:10], chat()[10:]]},
    "many chunks": {"chunks": [chat()[index:index + 1] for index in range(len(chat()))]},
    "trailers": {"chunks": [chat()], "trailers": [("x-sum", "1")]},
    "many chunks and trailers": {"chunks": [chat()[:10], chat()[10:30], chat()[30:]], "trailers": [("x-sum", "1")]},
}

# A route whose price depends on the body of whatever is sent there.
ANY_METHOD = changed(routes=[{"name": "any", "match": {"path": CHAT, "model": "gpt-4o*"}, "price": price("0.02")}, *MAIN["routes"]])


@pytest.fixture(scope="session")
def any_method(worlds) -> World:
    return worlds.world("any-method", ANY_METHOD)


@pytest.fixture(scope="session")
def no_reader(worlds) -> World:
    """`x402` alone, as with plain Istio and Envoy Gateway resources."""
    return worlds.world("no-reader", MAIN, reader=False)


def test_reader_is_missing(no_reader, protocol):
    for body in (chat(), chat("tiny")):
        answer = no_reader.call(CHAT, "POST", JSON_BODY, body=body, protocol=protocol)
        assert 400 <= answer.status < 600 and answer.status != 402, answer
        assert answer.json()["error"] == "reader_missing"
        untouched(no_reader, answer)


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "get"])
@pytest.mark.parametrize("shape", ["length", "chunks", "trailers"])
def test_methods_without_a_body(any_method, protocol, method, shape):
    """The reader does not see a GET; what it brings along must not pass for no body."""
    world = any_method
    answer = world.call(CHAT, method, JSON_BODY, protocol=protocol, **SHAPES[shape])
    if method == "GET":
        assert (answer.status, answer.json()["error"]) == (400, "unreadable_body")
        assert "GET" in answer.json()["message"]
    else:
        # Envoy itself may not know "get".
        assert answer.status in ((400, 402) if method == "get" else (402,)), answer
    untouched(world, answer)
    refused(world.call(CHAT, "GET", protocol=protocol), 400, "route_condition_failed")
    unpaid(world, world.call(CHAT, "POST", JSON_BODY, protocol=protocol, **SHAPES[shape]), 402)


def test_other_routes_do_without(no_reader, protocol):
    payment = no_reader.payment("/paid")
    answer = no_reader.call("/paid", "POST", payment=payment, body=pattern(1 << 16), protocol=protocol,
                            does={"kind": "mirror"})
    assert paid(no_reader, answer, payment).body == pattern(1 << 16)


# The trap that releases an unpaid request: Continue from the body callback while the header callback waits.

@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", [CHAT, "/paid"])
def test_unpaid_bodies_never_pass(main, protocol, shape, path):
    answer = main.call(path, "POST", JSON_BODY, protocol=protocol, **SHAPES[shape])
    unpaid(main, answer, 402)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", [CHAT, "/paid"])
def test_nothing_passes_while_verifying(main, no_reader, protocol, shape, path):
    for world in (main, no_reader) if path == "/paid" else (main,):
        payment = buy(world) if path == CHAT else world.payment(path)
        world.facilitator.script(payment.payload, verify=hang())
        sent = SHAPES[shape]
        length = len(sent["body"]) if "body" in sent else None
        exchange, test_id = world.open(path, "POST", JSON_BODY, payment=payment, protocol=protocol, end=False,
                                       length=length, does={"kind": "echo"})
        for chunk in sent.get("chunks", [sent.get("body")]):
            exchange.send(chunk)
        exchange.finish(sent.get("trailers", ()))
        world.facilitator.gate(payment.payload).await_reached()
        # Others are served meanwhile, so whatever was going to slip through has had its turn.
        for _ in range(8):
            assert world.call("/free").status == 200
        assert world.backend.requests(test_id) == []
        world.facilitator.gate(payment.payload).release()
        answer = exchange.response()
        answer.test_id = test_id
        paid(world, answer, payment)
        seen = world.backend.one(test_id)
        assert seen.body == chat()
        if "trailers" in sent:
            assert ("x-sum", "1") in [(name.decode().lower(), value.decode()) for name, value in seen.trailers]
        exchange.close()


def test_refused_while_the_body_is_on_its_way(main, protocol):
    """402 before the body is over: no byte of it goes on."""
    exchange, test_id = main.open("/paid", "POST", protocol=protocol, end=False, length=1 << 20)
    exchange.send(b"x" * 1000)
    assert exchange.head()[0] == 402
    exchange.leave()
    assert main.backend.requests(test_id) == []


def test_reader_waits_for_the_whole_body(main, protocol):
    """The model comes last: it is known when the body is over, not before."""
    body = b'{"x":"' + b"y" * 100_000 + b'","model":"gpt-4o"}'
    exchange, test_id = main.open(CHAT, "POST", JSON_BODY, protocol=protocol, end=False, length=len(body))
    exchange.send(body[:60_000])
    for _ in range(8):
        assert main.call("/free").status == 200
    assert main.backend.requests(test_id) == []
    exchange.send(body[60_000:])
    exchange.finish()
    assert exchange.head()[0] == 402
    assert main.backend.requests(test_id) == []
    exchange.close()


def big_chat(size):
    """A chat request of about `size` bytes."""
    return chat(padding=hashlib.sha256(str(size).encode()).hexdigest() * (size // 64))


@pytest.mark.parametrize("path", [CHAT, "/paid"])
@pytest.mark.parametrize("how", ["body", "chunks"])
def test_two_megabytes_up(main, protocol, path, how):
    payment = buy(main) if path == CHAT else main.payment(path)
    body = big_chat(2 << 20) if path == CHAT else pattern(2 << 20)
    sent = {"body": body} if how == "body" else {
        "chunks": [body[index:index + 50_001] for index in range(0, len(body), 50_001)], "trailers": [("x-sum", "2")]}
    answer = main.call(path, "POST", JSON_BODY, payment=payment, protocol=protocol, does={"kind": "echo"}, **sent)
    paid(main, answer, payment)
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    assert answer.json()["length"] == len(body)
    if how == "chunks":
        assert answer.json()["trailers"] == [["x-sum", "2"]]


@pytest.mark.parametrize("path", [CHAT, "/paid"])
def test_three_megabytes_down(main, protocol, path):
    payment = buy(main) if path == CHAT else main.payment(path)
    answer = main.call(path, "POST", JSON_BODY, body=chat(), payment=payment, protocol=protocol,
                       does={"kind": "bytes", "size": 3 << 20})
    assert paid(main, answer, payment).body == pattern(3 << 20)


def test_over_the_buffer_limit(main):
    """Envoy's own 413: nothing was charged."""
    payment = buy(main)
    answer = main.call(CHAT, "POST", JSON_BODY, body=big_chat(9 << 20), payment=payment)
    assert answer.status == 413, answer
    main.no_calls(payment)
    untouched(main, answer)


def test_backend_over_http2(worlds, protocol):
    """The same with HTTP/2 to the backend, trailers both ways."""
    world = worlds.world("backend-h2", MAIN, backend_http2=True)
    payment = buy(world)
    answer = world.call(CHAT, "POST", JSON_BODY, chunks=[chat()], trailers=[("x-sum", "1")], payment=payment,
                        protocol=protocol, does={"kind": "trailers"})
    paid(world, answer, payment)
    assert answer.trailers == [("x-from-backend", "trailer")]
    assert world.backend.one(answer.test_id).trailers == [(b"x-sum", b"1")]
    unpaid(world, world.call(CHAT, "POST", JSON_BODY, chunks=[chat()], trailers=[("x-sum", "1")], protocol=protocol), 402)
