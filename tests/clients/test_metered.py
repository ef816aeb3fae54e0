"""A metered answer costs what it used: on chain, exactly, once, and never more than its quote."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from stack.process import wait_until
from .checks import comment, decoded, holdings, offered, settlements
from .world import Chain, Result, Service, pay

CHAT: dict[str, Any] = {"model": "fake-1", "messages": [{"role": "user", "content": "Hello!"}]}
STREAM = {**CHAT, "stream": True}
STREAM_AND_USAGE = {**STREAM, "stream_options": {"include_usage": True}}
MESSAGE = {**CHAT, "max_tokens": 400}
MESSAGE_STREAM = {**MESSAGE, "stream": True}

COMPLETIONS = "/v1/chat/completions"
MESSAGES = "/v1/messages"
ANSWERS = [
    pytest.param(COMPLETIONS, CHAT, id="chat"),
    pytest.param(COMPLETIONS, STREAM, id="chat-stream"),
    pytest.param(COMPLETIONS, STREAM_AND_USAGE, id="chat-stream-usage"),
    pytest.param(MESSAGES, MESSAGE, id="messages"),
    pytest.param(MESSAGES, MESSAGE_STREAM, id="messages-stream"),
]
USAGE_DECLINED = {**STREAM, "stream_options": {"include_usage": False}}
PROMPT = {"model": "fake-1", "prompt": "Hello!"}
INPUT = {"model": "fake-1", "input": "Hello!"}
OTHER_ANSWERS = [
    pytest.param(COMPLETIONS, USAGE_DECLINED, id="chat-stream-no-usage"),
    pytest.param("/v1/completions", PROMPT, id="completions"),
    pytest.param("/v1/completions", {**PROMPT, "stream": True}, id="completions-stream"),
    pytest.param("/v1/responses", INPUT, id="responses"),
    pytest.param("/v1/responses", {**INPUT, "stream": True}, id="responses-stream"),
    pytest.param("/v1/embeddings", INPUT, id="embeddings"),
]
STREAMS = [
    pytest.param(COMPLETIONS, STREAM, id="chat"),
    pytest.param(COMPLETIONS, STREAM_AND_USAGE, id="chat-usage"),
    pytest.param(MESSAGES, MESSAGE_STREAM, id="messages"),
]
LONG = 200  # chunks of text of an answer that does not come to its end
CUT = 10  # those that do come


@pytest.fixture(autouse=True)
def ready(gateway: Any) -> None:
    """The gateway can quote."""
    offered(gateway.url(f"/metered{COMPLETIONS}"))


def cost(usage: tuple[int, int]) -> int:
    """Input tokens at 2.5 units and output tokens at 10, rounded up."""
    tokens_in, tokens_out = usage
    return -(-(5 * tokens_in + 20 * tokens_out) // 2)


def quote(body: str) -> int:
    """A token for each byte and 100 more, and as much output as the request, or else the route, allows."""
    limit = json.loads(body).get("max_tokens", 4096)
    return cost((len(body.encode()) + 100, limit))


def guess(text: bytes) -> int:
    """A token for each begun four bytes."""
    return -(-len(text) // 4)


def asked(backend: Service, path: str, body: str, chunks: int | None = None) -> dict[str, Any]:
    """The backend's own whole answer, without a gateway."""
    headers = {"content-type": "application/json"} | ({} if chunks is None else {"x-answer-chunks": str(chunks)})
    whole = json.dumps({**json.loads(body), "stream": False}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{backend.port}{path}", data=whole, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def used(answer: dict[str, Any]) -> tuple[int, int]:
    """Input and output tokens, in either dialect."""
    usage = answer["usage"]
    if "input_tokens" in usage:
        return usage["input_tokens"], usage["output_tokens"]
    return usage["prompt_tokens"], usage.get("completion_tokens", 0)


def settled(chain: Chain, before: tuple[int, int], amount: int, receipt: dict[str, Any] | None = None) -> None:
    """Exactly this has moved, and the receipt, if there is one, names it and the transaction that moved it."""
    assert holdings(chain) == (before[0] - amount, before[1] + amount)
    if receipt is not None:
        payer, seller = chain.address("client").lower(), chain.address("payTo").lower()
        assert receipt["success"] is True and receipt["network"] == "eip155:84532"
        assert (receipt["amount"], receipt["payer"].lower()) == (str(amount), payer)
        assert chain.transfers(receipt["transaction"]) == [(payer, seller, amount)]


@pytest.mark.parametrize(("path", "request_body"), ANSWERS + OTHER_ANSWERS)
def test_usage_is_settled(gateway: Any, backend: Service, sepolia: Chain, path: str, request_body: dict[str, Any]) -> None:
    body = json.dumps(request_body)
    amount = cost(used(asked(backend, path, body)))
    before = holdings(sepolia)
    result = pay("fetch.mjs", gateway.url(f"/metered{path}"), sepolia.key("client"), BODY=body)
    assert result.status == 200 and "content-length" not in result.headers, result
    receipt = None
    if request_body.get("stream"):
        receipt = comment(result.body)
        if path in (COMPLETIONS, "/v1/completions"):
            assert ('"usage"' in result.body) == (request_body is STREAM_AND_USAGE)
    else:
        assert cost(used(result.json)) == amount
    assert 0 < amount < quote(body)
    settled(sepolia, before, amount, receipt)


@pytest.mark.parametrize(("path", "request_body"), ANSWERS)
def test_trailer(gateway: Any, backend: Service, sepolia: Chain, path: str, request_body: dict[str, Any]) -> None:
    """The receipt comes as a trailer, the same one that a stream of events has as a comment."""
    body = json.dumps(request_body)
    amount = cost(used(asked(backend, path, body)))
    before = holdings(sepolia)
    result = pay("metered.mjs", gateway.url(f"/metered{path}"), sepolia.key("client"), BODY=body)
    assert (result.status, result.more["cut"]) == (200, False), result
    assert result.headers["trailer"].lower() == "payment-response" and "payment-response" not in result.headers
    assert list(result.more["trailers"]) == ["payment-response"]
    receipt = decoded(result.more["trailers"]["payment-response"])
    if request_body.get("stream"):
        assert comment(result.body) == receipt
    settled(sepolia, before, amount, receipt)


@pytest.mark.parametrize(("script", "packages"), [
    pytest.param("axios.mjs", "clients-axios", id="x402-axios"),
    pytest.param("pay_httpx.py", ".", id="python-httpx"),
    pytest.param("pay_requests.py", ".", id="python-requests"),
])
def test_other_clients(gateway: Any, backend: Service, sepolia: Chain, script: str, packages: str) -> None:
    body = json.dumps(STREAM)
    before = holdings(sepolia)
    result = pay(script, gateway.url(f"/metered{COMPLETIONS}"), sepolia.key("client"), packages=packages, BODY=body)
    assert result.status == 200, result
    settled(sepolia, before, cost(used(asked(backend, COMPLETIONS, body))), comment(result.body))


def test_version_1_client_pays_the_quote(gateway: Any, sepolia: Chain) -> None:
    """Version 1 has no `upto`."""
    body = json.dumps(CHAT)
    before = holdings(sepolia)
    result = pay("fetch-v1.mjs", gateway.url(f"/metered{COMPLETIONS}"), sepolia.key("client"), packages="clients-v1", BODY=body)
    assert result.status == 200 and "x-payment-response" in result.headers, result
    assert result.receipt is not None and sepolia.succeeded(result.receipt["transaction"])
    settled(sepolia, before, quote(body))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_exact_pays_the_quote(gateway: Any, sepolia: Chain, stream: bool) -> None:
    body = json.dumps({**CHAT, "stream": stream})
    before = holdings(sepolia)
    result = pay("metered.mjs", gateway.url(f"/metered{COMPLETIONS}"), sepolia.key("client"), BODY=body, SCHEMES="exact")
    assert (result.status, result.more["cut"], result.more["trailers"]) == (200, False, {}), result
    assert "payment-response" in result.headers and "payment-response" not in result.body
    # Facilitators need not repeat the amount of an `exact` payment.
    settled(sepolia, before, quote(body), {"amount": str(quote(body)), **(result.receipt or {})})


def test_never_more_than_the_quote(gateway: Any, backend: Service, sepolia: Chain) -> None:
    """The backend ignores its limit, and claims more than the payer has signed for."""
    body = json.dumps({**STREAM, "max_tokens": 5})
    assert cost(used(asked(backend, COMPLETIONS, body, LONG))) > quote(body)
    before = holdings(sepolia)
    result = pay("fetch.mjs", gateway.url(f"/metered{COMPLETIONS}"), sepolia.key("client"), BODY=body,
                 HEADERS=json.dumps({"x-answer-chunks": str(LONG)}))
    assert result.body.count('"content":') == LONG + 1
    settled(sepolia, before, quote(body), comment(result.body))


def delivered(backend: Service, path: str, body: str) -> int:
    """What the first CUT chunks of text cost: what the backend has told by then, and an estimate of the rest."""
    text = text_of(asked(backend, path, body, CUT))
    if path == MESSAGES:
        # The first event counts the input, and one token of the output.
        return cost((used(asked(backend, path, body))[0], 1 + guess(text)))
    return cost((guess(body.encode()) + 100, guess(text)))


def text_of(answer: dict[str, Any]) -> bytes:
    text = answer["choices"][0]["message"]["content"] if "choices" in answer else answer["content"][0]["text"]
    return text.encode()


@pytest.mark.parametrize(("path", "request_body"), STREAMS)
def test_client_that_leaves(gateway: Any, facilitator: Service, backend: Service, sepolia: Chain, path: str,
                            request_body: dict[str, Any]) -> None:
    """It is charged for what it got, once."""
    body = json.dumps(request_body)
    before, calls = holdings(sepolia), settlements(facilitator)
    noted = gateway.metric("x402_settlements_outcome_settled")
    result = pay("metered.mjs", gateway.url(f"/metered{path}"), sepolia.key("client"), BODY=body, LEAVE_AFTER=str(CUT),
                 HEADERS=json.dumps({"x-answer-chunks": str(LONG), "x-answer-pauses-after": str(CUT)}))
    assert (result.status, result.more["cut"]) == (200, True), result
    wait_until(lambda: holdings(sepolia) != before, "the settlement")
    wait_until(lambda: gateway.metric("x402_settlements_outcome_settled") > noted, "the gateway knows of it")
    amount = delivered(backend, path, body)
    assert 0 < amount < cost(used(asked(backend, path, body, LONG))) < quote(body)
    settled(sepolia, before, amount)
    assert settlements(facilitator) == calls + 1


@pytest.mark.parametrize(("path", "request_body"), STREAMS)
def test_backend_that_dies(gateway: Any, facilitator: Service, backend: Service, sepolia: Chain, path: str,
                           request_body: dict[str, Any]) -> None:
    """What was delivered is charged, once, and the client sees that its answer is cut off."""
    body = json.dumps(request_body)
    before, calls = holdings(sepolia), settlements(facilitator)
    noted = gateway.metric("x402_settlements_outcome_settled")
    result = pay("metered.mjs", gateway.url(f"/metered{path}"), sepolia.key("client"), BODY=body,
                 HEADERS=json.dumps({"x-answer-chunks": str(LONG), "x-answer-dies-after": str(CUT)}))
    assert (result.status, result.more["cut"]) == (200, True), result
    assert result.body.count('"content_block_delta"' if path == MESSAGES else '"content":') == CUT + (path != MESSAGES)
    wait_until(lambda: gateway.metric("x402_settlements_outcome_settled") > noted, "the settlement")
    settled(sepolia, before, delivered(backend, path, body))
    assert settlements(facilitator) == calls + 1


def test_backend_that_dies_for_free(gateway: Any, facilitator: Service, sepolia: Chain) -> None:
    """`on_backend_failure: free`."""
    before, calls = holdings(sepolia), settlements(facilitator)
    released = gateway.metric("x402_released")
    result = pay("metered.mjs", gateway.url(f"/metered-free{COMPLETIONS}"), sepolia.key("client"), BODY=json.dumps(STREAM),
                 HEADERS=json.dumps({"x-answer-chunks": str(LONG), "x-answer-dies-after": str(CUT)}))
    assert (result.status, result.more["cut"]) == (200, True), result
    wait_until(lambda: gateway.metric("x402_released") > released, "the payment is given back")
    settled(sepolia, before, 0)
    assert settlements(facilitator) == calls


def test_stream_without_usage(gateway: Any, backend: Service, sepolia: Chain) -> None:
    """Of the text of a stream, what has no count is estimated."""
    body = json.dumps(STREAM)
    before = holdings(sepolia)
    result = pay("fetch.mjs", gateway.url(f"/metered{COMPLETIONS}"), sepolia.key("client"), BODY=body,
                 HEADERS=json.dumps({"x-answer-usage": "none"}))
    text = text_of(asked(backend, COMPLETIONS, body))
    settled(sepolia, before, cost((guess(body.encode()) + 100, guess(text))), comment(result.body))


def test_whole_answer_without_usage(gateway: Any, sepolia: Chain) -> None:
    """Of one document every byte counts."""
    body = json.dumps(CHAT)
    before = holdings(sepolia)
    result = pay("metered.mjs", gateway.url(f"/metered{COMPLETIONS}"), sepolia.key("client"), BODY=body,
                 HEADERS=json.dumps({"x-answer-usage": "none"}))
    assert "usage" not in result.json
    amount = cost((guess(body.encode()) + 100, guess(result.body.encode())))
    settled(sepolia, before, amount, decoded(result.more["trailers"]["payment-response"]))


# The SDKs


def sdk(script: str, url: str, key: str, request_body: dict[str, Any], **environment: str) -> Result:
    """An answer as the SDK sees it, without what the backend says of the gateway's headers."""
    stream = "1" if request_body.get("stream") else "0"
    result = pay(script, url, key, BODY=json.dumps(request_body), STREAM=stream, **environment)
    for event in result.more["events"]:
        event.pop("x402", None)
    return result


@pytest.mark.parametrize(("script", "path", "request_body"), [
    pytest.param(script, path, body, id=f"{name}-{kind}")
    for name, script, path, bodies in (
        ("openai-node", "sdk-openai.mjs", COMPLETIONS, {"whole": CHAT, "stream": STREAM, "stream-usage": STREAM_AND_USAGE}),
        ("openai-python", "sdk_openai.py", COMPLETIONS, {"whole": CHAT, "stream": STREAM, "stream-usage": STREAM_AND_USAGE}),
        ("anthropic-node", "sdk-anthropic.mjs", MESSAGES, {"whole": MESSAGE, "stream": MESSAGE_STREAM}),
        ("anthropic-python", "sdk_anthropic.py", MESSAGES, {"whole": MESSAGE, "stream": MESSAGE_STREAM}),
    )
    for kind, body in bodies.items()
])
def test_sdk(gateway: Any, backend: Service, sepolia: Chain, script: str, path: str, request_body: dict[str, Any]) -> None:
    """The SDK sees what it sees without a gateway: the same events, and a usage only if it asked for it."""
    key = sepolia.key("client")
    direct = sdk(script, f"http://127.0.0.1:{backend.port}{path}", key, request_body)
    before = holdings(sepolia)
    result = sdk(script, gateway.url(f"/metered{path}"), key, request_body)
    assert (result.status, direct.status) == (200, 200)
    assert result.body == direct.body == "Paid and delivered: this answer came through Envoy."
    assert result.more["events"] == direct.more["events"]
    assert result.more["sent"] == direct.more["sent"]
    if path == COMPLETIONS and request_body.get("stream"):
        counts = [event["usage"] for event in result.more["events"] if event.get("usage")]
        assert len(counts) == ("stream_options" in request_body)
    settled(sepolia, before, cost(used(asked(backend, path, result.more["sent"]))))


@pytest.mark.parametrize(("script", "path", "request_body"), [
    pytest.param("sdk-openai.mjs", COMPLETIONS, STREAM, id="openai-node"),
    pytest.param("sdk-anthropic.mjs", MESSAGES, MESSAGE_STREAM, id="anthropic-node"),
])
def test_sdk_that_leaves(gateway: Any, facilitator: Service, backend: Service, sepolia: Chain, script: str, path: str,
                         request_body: dict[str, Any]) -> None:
    """Breaking out of the loop over an SDK's stream is leaving."""
    before, calls = holdings(sepolia), settlements(facilitator)
    noted = gateway.metric("x402_settlements_outcome_settled")
    result = sdk(script, gateway.url(f"/metered{path}"), sepolia.key("client"), request_body, LEAVE_AFTER=str(CUT),
                 HEADERS=json.dumps({"x-answer-chunks": str(LONG), "x-answer-pauses-after": str(CUT)}))
    sent = result.more["sent"]
    assert result.body.encode() == text_of(asked(backend, path, sent, CUT))
    wait_until(lambda: gateway.metric("x402_settlements_outcome_settled") > noted, "the settlement")
    settled(sepolia, before, delivered(backend, path, sent))
    assert settlements(facilitator) == calls + 1
