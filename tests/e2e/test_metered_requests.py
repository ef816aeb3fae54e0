"""What a metered request becomes on its way, and what is estimated from it and from the text of its answer."""

import json

import pytest

from .checks import refused
from .metered import INPUT, QUOTE
from .metering import CHAT, asks, chat, choose, comments, count, delta, late, settled, stream, terms, whole
from .world import BASE, UPTO, World, changed

RATES = {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}
CONTEXT = {"per_token": {**RATES, "max_input": 2000}}
COARSE = {"per_token": {**RATES, "input_estimate": {"bytes_per_token": 2.5, "overhead": 7}}}
CONFIG = changed(routes=[terms("/context/*", CONTEXT), terms("/coarse/*", COARSE), terms("/v1/*", accept=[UPTO, BASE])])
USAGE = {"prompt_tokens": 4, "completion_tokens": 1}
SAYS = whole({"usage": USAGE})
SENT = [("content-type", "application/json")]


@pytest.fixture(scope="module")
def requests(worlds) -> World:
    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call(f"/context{CHAT}", **asks(chat(1000))).status == 402)

    return worlds.world("metered-requests", CONFIG, ready=ready)


def seen(world: World, path: str, body: bytes, protocol: str, does: dict = SAYS, **more) -> bytes:
    """What the backend gets of a body that was paid for."""
    payment = world.payment(path, choose("upto"), method="POST", headers=SENT, body=body)
    asked = more or {"body": body}
    answer = world.call(path, "POST", SENT, payment=payment, does=does, protocol=protocol, **asked)
    assert answer.status == 200 and answer.clean, answer
    assert settled(world, payment) == 20
    got = world.backend.one(answer.test_id)
    assert got.header("content-length") in (None, str(len(got.body)))
    return got.body


# Each with its odd spaces, escapes and order, which say whether a byte of it was touched.
STARTS = b'{ "messages" : [ {"role":"user", "content":"\\u00e9 \xc3\xa9 \\/ \\"stream_options\\":{}"} ] ,\n\t"temperature":1.0e0,'


@pytest.mark.parametrize("rest,wants", [
    (b'"max_tokens" : 7 , "stream" : true }', {"stream_options": {"include_usage": True}}),
    (b'"max_tokens" : 7 , "stream" : true, "stream_options" : null }', {"stream_options": {"include_usage": True}}),
    (b'"max_tokens" : 7 , "stream" : true, "stream_options" : {} }', {"stream_options": {"include_usage": True}}),
    (b'"max_tokens" : 7 , "stream" : true, "stream_options" : { "include_usage" : false } }',
     {"stream_options": {"include_usage": True}}),
    (b'"max_tokens" : 7 , "stream" : true, "stream_options" : { "other" : [ 1 , 2 ] } }',
     {"stream_options": {"other": [1, 2], "include_usage": True}}),
    (b'"max_tokens" : 7 , "stream" : true, "stream_options" : { "include_usage" : true } }', {}),
    (b'"max_tokens" : 7 , "stream" : false }', {}),
    (b'"max_tokens" : 7 }', {}),
    (b'"stream" : true }', {"stream_options": {"include_usage": True}, "max_tokens": 4096}),
    (b'"max_tokens" : null , "n" : 1 }', {"max_tokens": 4096}),
])
def test_nothing_else_of_a_request_changes(requests, protocol, rest, wants):
    """The client's own bytes stay as they are, where they have the meaning that was quoted."""
    body = STARTS + rest
    got = seen(requests, CHAT, body, protocol)
    assert json.loads(got) == {**json.loads(body), **wants}
    assert STARTS[1:] in got
    if not wants:
        assert got == body


@pytest.mark.parametrize("path,body", [
    ("/v1/messages", {"model": "claude", "max_tokens": 9, "stream": True, "messages": []}),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 9, "stream": True}),
    ("/v1/embeddings", {"input": "hi"})])
def test_usage_is_asked_for_only_where_it_can_be(requests, protocol, path, body):
    """Other APIs tell it anyway, and do not know the option."""
    sent = json.dumps(body).encode()
    assert seen(requests, path, sent, protocol) == sent


def test_completions_are_asked_too(requests, protocol):
    sent = {"prompt": "hi", "max_tokens": 9, "stream": True}
    does = stream({"choices": [{"text": "Hi", "index": 0}]}, count(4, 1), "[DONE]", free=True)
    got = seen(requests, "/v1/completions", json.dumps(sent).encode(), protocol, does)
    assert json.loads(got) == {**sent, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_body_that_comes_in_pieces(requests, protocol, cut):
    """Without an announced length."""
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 300}], "stream": True}).encode()
    chunks = [body[at:at + cut] for at in range(0, len(body), cut)]
    got = seen(requests, CHAT, body, protocol, chunks=chunks)
    assert json.loads(got) == {**json.loads(body), "max_tokens": 4096, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("body", [
    b'{"messages":[],"max_tokens":1,"stream":true,"stream_options":{"include_usage":false,"include_usage":true}}',
    b'{"messages":[],"max_tokens":1,"stream":false,"stream":true}', b'{"messages":[],"max_tokens":1,"Stream":true}',
    b'{"messages":[],"max_tokens":1,"stream_options":{"include_usage":true},"stream_options":null}'])
def test_what_can_be_read_in_two_ways_is_refused(requests, protocol, body):
    answer = requests.call(CHAT, "POST", SENT, body=body, protocol=protocol)
    refused(answer, 400, "unreadable_body")
    assert requests.reached(answer) == 0


# Estimates

@pytest.mark.parametrize("texts,tokens", [
    ([], 0), (["a"], 1), (["abcd"], 1), (["abcd", "e"], 2), (["", ""], 0),
    # Bytes of UTF-8: 5 × 2, 3 × 3, 4
    (["ééééé"], 3), (["日本語"], 3), (["\N{GRINNING FACE}"], 1)])
def test_text_is_estimated_by_its_bytes(requests, texts, tokens):
    """A token for each begun four bytes, over all chunks."""
    body = chat(1000)
    payment = requests.payment(CHAT, choose("upto"), **asks(body))
    does = stream(*map(delta, texts), "[DONE]", free=True)
    answer = requests.call(CHAT, payment=payment, does=does, **asks(body))
    assert answer.clean and settled(requests, payment) == INPUT + 10 * tokens == int(late(answer)["amount"])


@pytest.mark.parametrize("name,event,tokens", [
    ("a tool's arguments", {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]}}]}, 2),
    ("reasoning", {"choices": [{"delta": {"reasoning_content": "x" * 9}}]}, 3),
    ("a refusal", {"choices": [{"delta": {"refusal": "x" * 9}}]}, 3),
    ("two answers", {"choices": [{"index": 0, "delta": {"content": "abcd"}}, {"index": 1, "delta": {"content": "e"}}]}, 2),
    ("what is no text", {"id": "x" * 100, "system_fingerprint": "x" * 100, "choices": [{"delta": {"role": "assistant"}}]}, 0),
])
def test_all_that_was_generated_is_text(requests, name, event, tokens):
    body = chat(1000)
    payment = requests.payment(CHAT, choose("upto"), **asks(body))
    answer = requests.call(CHAT, payment=payment, does=stream(event, "[DONE]", free=True), **asks(body))
    assert answer.clean and settled(requests, payment) == INPUT + 10 * tokens


IMAGE = {"max_tokens": 100, "messages": [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]}


@pytest.mark.parametrize("path,body,quote,expected", [
    # What is elsewhere: 2000 × 2.5 + 100 × 10, and 2000 × 2.5.
    (f"/context{CHAT}", IMAGE, 6000, 5000),
    # A long text is at most the context: the quote is the same, and 8000 ÷ 4 + 100 are more than 2000.
    (f"/context{CHAT}", chat(8000, stream=False), 6000, 5000),
    # A short one is what it is: (1000 + 100) × 2.5 + 100 × 10, and (1000 ÷ 4 + 100) × 2.5.
    (f"/context{CHAT}", chat(1000, stream=False), QUOTE, INPUT),
    # (1000 ÷ 2.5 + 7) × 2.5 + 100 × 10 = 2017.5, and (1000 ÷ 4 + 7) × 2.5 = 642.5.
    (f"/coarse{CHAT}", chat(1000, stream=False), 2018, 643)])
def test_input_is_estimated(requests, protocol, path, body, quote, expected):
    """Where nobody counts it. 41 bytes of an answer are 11 tokens."""
    payment = requests.payment(path, **asks(body))
    assert int(payment.offer["amount"]) == quote
    does = {**SAYS, "text": "{" + " " * 39 + "}"}
    answer = requests.call(path, payment=payment, does=does, protocol=protocol, **asks(body))
    assert answer.clean and settled(requests, payment) == expected + 110 == int(late(answer)["amount"])


def test_an_estimate_above_the_quote_is_no_news(requests):
    """It is capped, and not counted: the backend has not said it."""
    before = requests.metric("x402_usage_above_quote")
    body = chat(1000)
    payment = requests.payment(CHAT, choose("upto"), **asks(body))
    answer = requests.call(CHAT, payment=payment, does=stream(delta("x" * 4000), "[DONE]", free=True), **asks(body))
    assert answer.clean and settled(requests, payment) == QUOTE
    assert comments(answer.body) == [late(answer)]
    assert requests.metric("x402_usage_above_quote") == before
