"""What a metered answer costs, to the unit: the words of each API, in every form in which they come."""

import pytest

from .checks import alive
from .metered import JSON
from .metering import (
    CHAT, DETAILED, asks, choose, comments, count, delta, late, permit, settled, stream, terms, whole)
from .world import BASE, PERMIT, UPTO, World, changed

MODELS = {"per_token": {"max_output": 1000, "models": {
    "small*": {"input": "$0.0000001", "output": "$0.0000004"}, "small-vision": {"input": "$0.000001", "output": "$0.000002"}},
    "default": {"input": "$0.00001", "output": "$0.00003"}}}
DYNAMIC = {"dynamic": {"base": "$0.01", "multipliers": [{"when": 'body.quality == "hd"', "times": 2.5}]}}
CONFIG = changed(routes=[
    terms("/permit/v1/*", DETAILED, [PERMIT]),
    terms("/models/v1/*", MODELS),
    terms("/dynamic", DYNAMIC),
    terms("/minutes", {"per_minute": {"amount": "$0.10", "minimum": 2, "maximum": 4}}),
    terms("/fixed", {"per_request": {"usd": "0.0123"}}),
    terms("/v1/*", DETAILED, [UPTO, BASE]),
])


def ready(world: World) -> bool:
    return world.everywhere(lambda: world.call("/fixed").status == 402)


@pytest.fixture(scope="module")
def amounts(worlds) -> World:
    return worlds.world("metered-amounts", CONFIG, ready=ready)


@pytest.fixture(scope="module")
def over_h2(worlds) -> World:
    """The backend is spoken to over HTTP/2."""
    return worlds.world("metered-amounts-h2", CONFIG, ready=ready, backend_http2=True)


MESSAGES = [{"role": "user", "content": "hi"}]
ASKED = {"messages": MESSAGES, "max_tokens": 300}
STREAMED = {**ASKED, "stream": True}
ANTHROPIC = {**ASKED, "model": "claude"}
RESPONSES = {"input": "hi", "max_output_tokens": 300}

CACHED = {"prompt_tokens": 120, "prompt_tokens_details": {"cached_tokens": 101}, "completion_tokens": 50,
          "completion_tokens_details": {"reasoning_tokens": 31}, "total_tokens": 170}

# name: (path, body of the request, what the backend does, smallest units). Input costs 2.5, cached 1.25, output 10, reasoning 20.
USED = {
    # 19 × 2.5 + 101 × 1.25 + 19 × 10 + 31 × 20 = 47.5 + 126.25 + 190 + 620
    "chat, cached and reasoning": (CHAT, ASKED, whole({"choices": [], "usage": CACHED}), 984),
    "chat stream, cached and reasoning": (CHAT, STREAMED, stream(
        delta("Hel"), delta("lo"), {"choices": [], "usage": CACHED}, "[DONE]"), 984),
    # 1 × 2.5
    "one token": (CHAT, ASKED, whole({"usage": {"prompt_tokens": 1, "completion_tokens": 0}}), 3),
    # The rest of the total is output: 32 × 2.5 + (103 - 94) × 10 + 94 × 20
    "reasoning in the total alone": (CHAT, ASKED, whole({"usage": {
        "prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
        "completion_tokens_details": {"reasoning_tokens": 94}}}), 2050),
    # The largest counts: 7 × 2.5 + 3 × 10
    "a usage in each chunk": (CHAT, STREAMED, stream(
        {**delta("a"), "usage": {"prompt_tokens": 7, "completion_tokens": 1}},
        {**delta("b"), "usage": {"prompt_tokens": 7, "completion_tokens": 3}}, "[DONE]"), 48),
    # What a model writes is text, whatever it looks like: 4 × 2.5 + 6 × 10
    "a usage in the text": (CHAT, ASKED, whole({
        "choices": [{"message": {"content": '{"usage":{"prompt_tokens":9999,"completion_tokens":9999}}'},
                     "usage": {"prompt_tokens": 9999, "completion_tokens": 9999}}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 6}}), 70),
    "a usage in the text of a stream": (CHAT, STREAMED, stream(
        delta('data: {"usage":{"prompt_tokens":9999}}\n\ndata: [DONE]\n\n'), count(4, 6), "[DONE]"), 70),
    # 6 × 2.5 + 12 × 10
    "completions stream": ("/v1/completions", {"prompt": "hi", "max_tokens": 300, "stream": True}, stream(
        {"choices": [{"text": "Hello", "index": 0}]}, count(6, 12), "[DONE]"), 135),
    # (50 - 14) × 2.5 + 14 × 1.25 + (20 - 10) × 10 + 10 × 20 = 90 + 17.5 + 100 + 200
    "responses": ("/v1/responses", RESPONSES, whole({"object": "response", "output": [], "usage": {
        "input_tokens": 50, "input_tokens_details": {"cached_tokens": 14}, "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 10}, "total_tokens": 70}}), 408),
    "responses stream": ("/v1/responses", {**RESPONSES, "stream": True}, stream(
        {"type": "response.created", "response": {"usage": None}},
        {"type": "response.output_text.delta", "delta": "Hello"},
        {"type": "response.completed", "response": {"usage": {
            "input_tokens": 50, "input_tokens_details": {"cached_tokens": 14}, "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 10}, "total_tokens": 70}}}), 408),
    # 1001 × 2.5
    "embeddings": ("/v1/embeddings", {"input": ["x" * 1000, "y"]}, whole({"data": [], "usage": {
        "prompt_tokens": 1001, "total_tokens": 1001}}), 2503),
    # Read from the cache 1.25, written to it 2.5: (8 + 20) × 2.5 + 100 × 1.25 + 5 × 10
    "messages, cached": ("/v1/messages", {**ANTHROPIC, "messages": [{"role": "user", "content": "x" * 200}]}, whole({
        "type": "message", "content": [], "usage": {
            "input_tokens": 8, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 5}}), 245),
    "messages stream, cached": ("/v1/messages", {**ANTHROPIC, "stream": True, "messages": [
        {"role": "user", "content": "x" * 200}]}, stream(
        {"type": "message_start", "message": {"usage": {
            "input_tokens": 8, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 1}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"}), 245),
}


def costs(world: World, name: str, protocol: str, **does) -> None:
    """The answer to this request costs what it says there, and its client learns it."""
    path, body, answers, expected = USED[name]
    payment = world.payment(path, choose("upto"), **asks(body))
    answer = world.call(path, payment=payment, does={**answers, "free": True, **does}, protocol=protocol, **asks(body))
    assert answer.status == 200 and answer.clean and not answer.has_receipt, answer
    assert settled(world, payment) == expected < int(payment.offer["amount"])
    assert late(answer)["amount"] == str(expected)


@pytest.mark.parametrize("name", USED)
def test_what_was_used_is_paid(amounts, protocol, name):
    costs(amounts, name, protocol)


@pytest.mark.parametrize("name", USED)
def test_a_backend_that_speaks_http2(over_h2, name):
    costs(over_h2, name, "h2")


@pytest.mark.parametrize("name", USED)
def test_one_byte_at_a_time(amounts, name):
    """Each byte a chunk of its own, also of what is no stream."""
    does = USED[name][2]
    text = does.get("text") or "".join(does["parts"])
    costs(amounts, name, "h1", kind="parts", parts=list(text))


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_of_other_systems(amounts, end):
    """And `data:` without a space, which parsers take as well."""
    does = USED["chat stream, cached and reasoning"][2]
    parts = [part.replace("data: ", "data:").replace("\n", end) for part in does["parts"]]
    costs(amounts, "chat stream, cached and reasoning", "h1", parts=parts)


@pytest.mark.parametrize("spelled", ["text/event-stream; charset=utf-8", "Text/Event-Stream"])
def test_other_spellings_of_the_type(amounts, spelled):
    costs(amounts, "chat stream, cached and reasoning", "h1", headers=[["content-type", spelled]])


@pytest.mark.parametrize("body,does,expected", [
    # 19 × 2.5 + 101 × 1.25 + 19 × 10 + 31 × 20
    (ASKED, whole({"usage": CACHED}), 984),
    # 4 × 2.5 + 6 × 10
    (STREAMED, stream(delta("Hello"), count(4, 6), "[DONE]", free=True), 70)], ids=["json", "events"])
def test_libertais_permit(amounts, protocol, body, does, expected):
    """Verified for the maximum and settled for what was used, in the words of v1; the receipt is in its trailer."""
    path = f"/permit{CHAT}"
    payment = permit(amounts, path, body)
    answer = amounts.call(path, payment=payment, dialect="libertai", does=does, protocol=protocol, **asks(body))
    assert answer.status == 200 and answer.clean, answer
    assert settled(amounts, payment) == expected
    assert answer.header("trailer") == "x-payment-response"
    [(name, _)] = [pair for pair in answer.trailers if pair[0].lower() != "date"]
    assert name.lower() == "x-payment-response" and late(answer)["amount"] == str(expected)
    assert comments(answer.body) == ([late(answer)] if does["kind"] == "parts" else [])


@pytest.mark.parametrize("model,expected", [
    # 1000 × 0.1 + 333 × 0.4 = 233.2; 1000 × 1 + 333 × 2; 1000 × 10 + 333 × 30
    ("small-1", 234), ("small-vision", 1666), ("large", 19_990)])
def test_each_model_has_its_rates(amounts, model, expected):
    """The model that was asked for, whatever the answer says."""
    body = {"model": model, "max_tokens": 400, "messages": [{"role": "user", "content": "x" * 1000}]}
    does = whole({"model": "small-1", "usage": {"prompt_tokens": 1000, "completion_tokens": 333}})
    payment = amounts.payment(f"/models{CHAT}", **asks(body))
    answer = amounts.call(f"/models{CHAT}", payment=payment, does=does, **asks(body))
    assert settled(amounts, payment) == expected == int(late(answer)["amount"])


@pytest.mark.parametrize("path,body,expected", [
    ("/fixed", None, 12_300), ("/minutes", None, 200_000),
    ("/dynamic", {"quality": "hd"}, 25_000), ("/dynamic", {"quality": "sd"}, 10_000)])
def test_prices_that_no_usage_changes(amounts, protocol, path, body, expected):
    """Fixed prices whole, minutes at least their minimum; the payer of minutes had signed for four."""
    payment = amounts.payment(path, **asks(body))
    assert int(payment.offer["amount"]) == (400_000 if path == "/minutes" else expected)
    does = whole({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    answer = amounts.call(path, payment=payment, does=does, protocol=protocol, **asks(body))
    assert answer.status == 200 and answer.clean, answer
    assert settled(amounts, payment) == expected == int(late(answer)["amount"])


def test_the_access_log_says_what_was_used(amounts, protocol):
    """The backend's count, of which the details are parts, and what was settled of what was quoted."""
    path, body, does, _ = USED["chat stream, cached and reasoning"]
    payment = amounts.payment(path, choose("upto"), **asks(body))
    answer = amounts.call(path, payment=payment, does={**does, "free": True}, protocol=protocol, **asks(body))
    entry = amounts.envoy.access_log(test_id=answer.test_id)
    found = {name: entry[f"x402_{name}"] for name in ("outcome", "amount", "settled", "input_tokens", "output_tokens")}
    assert found == {"outcome": "paid", "amount": payment.offer["amount"], "settled": "984", "input_tokens": "120",
                     "output_tokens": "50"}
    assert entry["x402_transaction"] == late(answer)["transaction"]


def test_nothing_used_is_nothing_settled(amounts, protocol):
    """The receipt says so, the payment is given back and the worker lives."""
    body = ASKED
    payment = amounts.payment(CHAT, choose("upto"), **asks(body))
    does = whole({"usage": {"prompt_tokens": 0, "completion_tokens": 0}})
    answer = amounts.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(body))
    assert answer.status == 200 and answer.clean, answer
    assert late(answer)["success"] is True and late(answer)["amount"] == "0"
    assert amounts.envoy.access_log(test_id=answer.test_id)["x402_outcome"] == "nothing_due"
    assert amounts.count(payment, "settle") == 0
    alive(amounts)
    answer = amounts.call(CHAT, payment=payment, does=USED["one token"][2], **asks(body))
    assert answer.status == 200 and amounts.count(payment, "settle") == 1, answer


def test_a_large_answer_says_at_its_end_what_it_used(amounts, protocol):
    """Megabytes, which no buffer holds: 4 × 2.5 + 6 × 10."""
    parts = ['{"choices": [],', '"usage": {"prompt_tokens": 4, "completion_tokens": 6}}']
    payment = amounts.payment(CHAT, choose("upto"), **asks(ASKED))
    does = {"kind": "parts", "headers": JSON, "parts": parts, "free": True, "padding": 9 << 20}
    answer = amounts.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(ASKED))
    assert answer.status == 200 and answer.clean
    assert answer.body == parts[0].encode() + b" " * (9 << 20) + parts[1].encode()
    assert settled(amounts, payment) == 70 == int(late(answer)["amount"])
