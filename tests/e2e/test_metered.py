"""Metered answers: every chunk at once, the usage to the unit, and the receipt at the end."""

import base64
import json

import pytest

from .checks import alive, paid
from .facilitator import hang
from .payments import OTHER, SELLER, offer, pay
from .wire import eventually
from .world import BASE, PERMIT, UPTO, World, changed

JSON = [["content-type", "application/json"]]
EVENTS = [["content-type", "text/event-stream"]]
RATES = {"input": "$0.0000025", "output": "$0.00001", "cached_input": "$0.00000125", "reasoning": "$0.00002"}
TOKENS = {"per_token": {**RATES, "max_output": 4096}}
LATE = ["payment-response", "x-payment-response"]


def metered(path: str, price: dict, accept: list, **more) -> dict:
    """A metered route."""
    name = path.strip("/*").replace("/", "-") or "root"
    return {"name": name, "match": {"path": path}, "price": price, "accept": accept, "flow": "metered", **more}


@pytest.fixture(scope="module")
def meter(worlds) -> World:
    """Routes that are metered in one way or another."""
    config = changed(routes=[
        metered("/permit/v1/*", TOKENS, [PERMIT]),
        metered("/impatient/v1/*", TOKENS, [UPTO], metered={"receipt_wait": "50ms"}),
        metered("/minutes", {"per_minute": {"amount": "$0.01", "minimum": 2, "maximum": 3}}, [UPTO]),
        metered("/fixed", {"per_request": "$0.01"}, [UPTO]),
        {"name": "plain", "match": {"path": "/plain"}, "price": {"per_request": "$0.01"}, "accept": [BASE]},
        metered("/v1/*", TOKENS, [UPTO, BASE]),
    ])

    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call("/fixed").status == 402)

    return worlds.world("metered", config, ready=ready)


def asks(body: dict | None) -> dict:
    """A request with this body."""
    if body is None:
        return {}
    headers = [("content-type", "application/json")]
    return {"method": "POST", "headers": headers, "body": json.dumps(body).encode()}


def whole(usage: dict | None) -> dict:
    """An answer in one piece."""
    return {"kind": "body", "headers": JSON, "text": json.dumps({"choices": [], "usage": usage})}


def stream(*events: dict | str, **more) -> dict:
    """An answer in events, each a part of its own."""
    texts = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return {"kind": "parts", "headers": EVENTS, "parts": [f"data: {text}\n\n" for text in texts], **more}


def delta(text: str) -> dict:
    """A chunk of a chat completion."""
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def count(**usage: int) -> dict:
    """The chunk that says what an OpenAI stream used."""
    return {"choices": [], "usage": usage}


def choose(scheme: str):
    """The offer of a scheme."""
    return lambda offer: offer["scheme"] == scheme


def receipt(value: str) -> dict:
    """What a receipt says."""
    return json.loads(base64.b64decode(value))


def trailer(answer) -> dict | None:
    """The receipt in the trailers, of which there is at most one."""
    found = [value for name, value in answer.trailers if name.lower() in LATE]
    assert len(found) <= 1, answer.trailers
    return receipt(found[0]) if found else None


def comments(body: bytes) -> list[str]:
    """The receipts in comments of an event stream, each on a line of its own."""
    lines = body.decode().split("\n")
    return [line.split(" ", 2)[2] for line in lines if line.startswith((": payment-response", ": x-payment-response"))]


def settled(world: World, payment) -> int:
    """What was settled, once; nothing else was asked but about the whole quote."""
    [verify] = world.facilitator.calls(payment.payload, "verify")
    [settle] = world.facilitator.calls(payment.payload, "settle")

    def amount(call) -> int:
        asked = call.json["paymentRequirements"]
        return int(asked.get("amount") or asked["maxAmountRequired"])

    assert amount(verify) == int(payment.offer["amount"])
    return amount(settle)


CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 500}
STREAM = {**CHAT, "stream": True}
WITH_USAGE = {**STREAM, "stream_options": {"include_usage": True}}
COMPLETIONS = "/v1/chat/completions"

# name: (path, body of the request, answer, smallest units)
USED = {
    # 11 × 2.5 + 7 × 10 = 97.5
    "chat": (COMPLETIONS, CHAT, whole({"prompt_tokens": 11, "completion_tokens": 7}), 98),
    # 6 × 2.5 + 5 × 1.25 + 4 × 10 + 3 × 20 = 121.25
    "cached and reasoning": (COMPLETIONS, CHAT, whole({
        "prompt_tokens": 11, "prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 3}}), 122),
    "chat stream": (COMPLETIONS, STREAM,
                    stream(delta("Hel"), delta("lo"), count(prompt_tokens=12, completion_tokens=2), "[DONE]"), 50),
    "completions": ("/v1/completions", {"prompt": "hi", "max_tokens": 9},
                    whole({"prompt_tokens": 2, "completion_tokens": 9}), 95),
    "responses": ("/v1/responses", {"input": "hi", "max_output_tokens": 9},
                  {"kind": "body", "headers": JSON,
                   "text": json.dumps({"object": "response", "usage": {"input_tokens": 4, "output_tokens": 1}})}, 20),
    "responses stream": ("/v1/responses", {"input": "hi", "max_output_tokens": 9, "stream": True}, stream(
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.completed", "response": {"usage": {"input_tokens": 4, "output_tokens": 3}}}), 40),
    "embeddings": ("/v1/embeddings", {"input": "hi"}, whole({"prompt_tokens": 3, "total_tokens": 3}), 8),
    "messages": ("/v1/messages", {**CHAT, "model": "claude"}, {
        "kind": "body", "headers": JSON,
        "text": json.dumps({"type": "message", "content": [], "usage": {"input_tokens": 8, "output_tokens": 2}})}, 40),
    "messages stream": ("/v1/messages", {**STREAM, "model": "claude"}, stream(
        {"type": "message_start", "message": {"usage": {"input_tokens": 8, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "message_delta", "usage": {"output_tokens": 6}}, {"type": "message_stop"}), 80),
}


@pytest.mark.parametrize("name", USED)
def test_what_was_used_is_settled(meter, protocol, name):
    """Verified for the quote, settled once for the usage; the receipt says so."""
    path, body, does, expected = USED[name]
    payment = meter.payment(path, choose("upto"), **asks(body))
    answer = meter.call(path, payment=payment, does={**does, "free": True}, protocol=protocol, **asks(body))
    assert answer.status == 200 and answer.clean, answer
    assert settled(meter, payment) == expected < int(payment.offer["amount"])
    found = trailer(answer)
    assert (found["success"], found["amount"]) == (True, str(expected))
    assert answer.header("content-length") is None and answer.header("trailer") == "payment-response", answer


@pytest.mark.parametrize("name", [name for name in USED if "stream" in name])
def test_how_an_answer_is_cut_makes_no_difference(meter, name):
    """One byte at a time."""
    path, body, does, expected = USED[name]
    parts = list("".join(does["parts"]))
    payment = meter.payment(path, choose("upto"), **asks(body))
    answer = meter.call(path, payment=payment, does={**does, "parts": parts, "free": True}, **asks(body))
    assert answer.status == 200 and answer.clean, answer
    assert settled(meter, payment) == expected


def test_a_permit_is_metered_too(meter, protocol):
    """LibertAI's way to pay, and its receipt."""
    path = f"/permit{COMPLETIONS}"
    # Only a v1 body has such an offer.
    quote = int(meter.call(path, **asks(STREAM)).json()["accepts"][0]["maxAmountRequired"])
    payment = pay(offer(quote, scheme="upto", pay_to=OTHER, primaryType="Permit", recipientAddress=SELLER))
    does = stream(delta("Hello"), count(prompt_tokens=12, completion_tokens=2), "[DONE]", free=True)
    answer = meter.call(path, payment=payment, dialect="libertai", does=does, protocol=protocol, **asks(STREAM))
    assert answer.status == 200 and answer.clean, answer
    assert settled(meter, payment) == 50
    assert answer.header("trailer") == "x-payment-response" and trailer(answer)["amount"] == "50"
    assert [receipt(value) for value in comments(answer.body)] == [trailer(answer)]


@pytest.mark.parametrize("path,expected", [("/minutes", 20_000), ("/fixed", 10_000)])
def test_prices_that_no_token_decides(meter, path, expected):
    """At least the minimum of minutes; a fixed price whole. The receipt comes last all the same."""
    payment = meter.payment(path)
    answer = meter.call(path, payment=payment, does=whole(None))
    assert answer.status == 200 and settled(meter, payment) == expected == int(trailer(answer)["amount"])


def test_each_chunk_passes_before_the_next_one_is_there(meter, protocol):
    """The first follows the verification and precedes the settlement, which nothing but the end waits for."""
    payment = meter.payment(COMPLETIONS, choose("upto"), **asks(WITH_USAGE))
    meter.facilitator.script(payment.payload, settle=hang())
    does = stream(*(delta(f"part {number}") for number in range(12)), count(prompt_tokens=4, completion_tokens=9))
    exchange, test_id = meter.open(COMPLETIONS, payment=payment, protocol=protocol, does=does, **asks(WITH_USAGE))
    assert exchange.head()[0] == 200
    assert (meter.count(payment, "verify"), meter.count(payment, "settle")) == (1, 0)
    for part in does["parts"]:
        meter.backend.gate(test_id).release()
        assert exchange.read_until(len(part)) == part.encode()
        assert meter.count(payment, "settle") == 0 or part == does["parts"][-1]
    gate = meter.facilitator.gate(payment.payload)
    gate.await_reached()
    # HTTP/2 has frames of its own to send.
    assert exchange.quiet() or protocol == "h2"
    gate.release()
    [comment] = comments(exchange.read())
    assert receipt(comment)["amount"] == "100" and exchange.read() == b""
    assert settled(meter, payment) == 100
    exchange.close()


@pytest.mark.parametrize("body,passes", [(STREAM, False), (WITH_USAGE, True),
                                         ({**STREAM, "stream_options": {"include_usage": False}}, False)])
def test_the_backend_is_asked_for_usage_and_the_client_sees_it_if_it_asked(meter, protocol, body, passes):
    """What goes to the backend is what came, but for that."""
    does = stream(delta("Hello"), count(prompt_tokens=12, completion_tokens=2), "[DONE]", free=True)
    payment = meter.payment(COMPLETIONS, choose("upto"), **asks(body))
    given = [*asks(body)["headers"], ("accept-encoding", "gzip, br")]
    answer = meter.call(COMPLETIONS, payment=payment, does=does, protocol=protocol, **{**asks(body), "headers": given})
    seen = meter.backend.one(answer.test_id)
    assert json.loads(seen.body) == {**body, "stream_options": {"include_usage": True}}
    assert seen.all("accept-encoding") == ["identity"]
    events = [part for part in does["parts"] if passes or '"usage"' not in part]
    [comment] = comments(answer.body)
    assert answer.body.decode() == "".join(events) + f": payment-response {comment}\n\n"
    assert receipt(comment) == trailer(answer)


def test_the_limit_is_written_where_there_is_none(meter):
    body = {"messages": CHAT["messages"]}
    payment = meter.payment(COMPLETIONS, choose("upto"), **asks(body))
    answer = meter.call(COMPLETIONS, payment=payment, does=USED["chat"][2], **asks(body))
    assert json.loads(meter.backend.one(answer.test_id).body) == {**body, "max_tokens": 4096}
    assert settled(meter, payment) == 98


def test_the_receipt_follows_the_backends_own_trailers(meter, protocol):
    does = {**stream(delta("Hello"), count(prompt_tokens=4, completion_tokens=1), free=True),
            "trailers": [["x-checksum", "abc"], ["payment-response", "forged"], ["x-payment-response", "forged"],
                         ["settlement-overrides", "{}"]]}
    payment = meter.payment(COMPLETIONS, choose("upto"), **asks(WITH_USAGE))
    answer = meter.call(COMPLETIONS, payment=payment, does=does, protocol=protocol, **asks(WITH_USAGE))
    assert answer.clean and ("x-checksum", "abc") in answer.trailers
    assert trailer(answer)["amount"] == "20" and comments(answer.body) == []
    assert {name for name, _ in answer.trailers} == {"x-checksum", "payment-response"}


def test_no_trailer_of_a_backend_looks_like_a_receipt(meter, protocol):
    """Where nothing is metered either."""
    does = {"kind": "parts", "parts": ["{}"], "headers": JSON, "free": True,
            "trailers": [["payment-response", "forged"], ["settlement-overrides", "{}"], ["x-kept", "yes"]]}
    payment = meter.payment("/plain")
    answer = paid(meter, meter.call("/plain", payment=payment, does=does, protocol=protocol), payment)
    assert answer.trailers == [("x-kept", "yes")]


@pytest.mark.parametrize("last,comment", [("data: [DONE]\n\n", ": payment-response R\n\n"), ("data: [DONE]", "\n: payment-response R\n"),
                                          ("data: [DONE]\r\n", ": payment-response R\n")])
def test_the_comment_has_a_line_of_its_own(meter, protocol, last, comment):
    """And ends no event that the backend has not ended."""
    parts = [*stream(count(prompt_tokens=4, completion_tokens=1))["parts"], last]
    does = {"kind": "parts", "headers": EVENTS, "parts": parts, "free": True}
    payment = meter.payment(COMPLETIONS, choose("upto"), **asks(WITH_USAGE))
    answer = meter.call(COMPLETIONS, payment=payment, does=does, protocol=protocol, **asks(WITH_USAGE))
    [value] = comments(answer.body)
    assert answer.body.decode() == "".join(parts) + comment.replace("R", value)


def test_an_answer_without_a_body_has_its_receipt_in_the_headers(meter, protocol):
    payment = meter.payment("/fixed")
    answer = meter.call("/fixed", payment=payment, does={"kind": "empty", "status": 204}, protocol=protocol)
    paid(meter, answer, payment, status=204)


def test_nobody_waits_for_a_receipt_for_ever(meter, protocol):
    """The end comes without one, and the settlement counts when it is known."""
    path = f"/impatient{COMPLETIONS}"
    payment = meter.payment(path, **asks(WITH_USAGE))
    meter.facilitator.script(payment.payload, settle=hang())
    known = meter.metric("x402_settlements.outcome.settled")
    does = stream(delta("Hello"), count(prompt_tokens=4, completion_tokens=1), "[DONE]", free=True)
    answer = meter.call(path, payment=payment, does=does, protocol=protocol, **asks(WITH_USAGE))
    assert answer.clean and answer.body.decode() == "".join(does["parts"])
    assert trailer(answer) is None
    meter.facilitator.gate(payment.payload).release()
    eventually(lambda: meter.metric("x402_settlements.outcome.settled") == known + 1, "the settlement counts")
    assert meter.call(path, payment=payment, **asks(WITH_USAGE)).json()["error"] == "nonce_already_used"
    alive(meter)


def test_exact_pays_the_whole_quote_before_the_answer_leaves(meter, protocol):
    payment = meter.payment(COMPLETIONS, choose("exact"), **asks(STREAM))
    does = stream(delta("Hello"), "[DONE]", free=True)
    answer = meter.call(COMPLETIONS, payment=payment, does=does, protocol=protocol, **asks(STREAM))
    paid(meter, answer, payment)
    assert settled(meter, payment) == int(payment.offer["amount"])
    assert comments(answer.body) == [] and trailer(answer) is None
    # Nobody reads its usage, so that nobody is asked for it.
    assert "stream_options" not in json.loads(meter.backend.one(answer.test_id).body)
