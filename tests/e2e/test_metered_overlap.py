"""Metered answers whose backend began before the verdict: nothing leaves before it, and then everything is as ever."""

import pytest

from .checks import alive, refused
from .client import Closed
from .facilitator import hang, ok, refuse
from .metered import EVENTS, JSON
from .metering import (
    CHAT, LATE, asks, chat, comments, count, delta, given_back, late, settled, spent, stream, terms, whole)
from .wire import eventually
from .world import World, changed

CONFIG = changed(routes=[{**terms("/fixed", {"per_request": "$0.01"}), "verify": "overlap"},
                         {**terms("/v1/*"), "verify": "overlap"}])
BODY = chat(1000)
SHOWN = delta("Hello")
DOES = stream(SHOWN, count(4, 1), "[DONE]", free=True)
SEEN = "".join(part for part in DOES["parts"] if '"choices": []' not in part)
# 4 × 2.5 + 1 × 10
USED = 20


@pytest.fixture(scope="module")
def overlap(worlds) -> World:
    return worlds.world("metered-overlap", CONFIG, ready=lambda world: world.everywhere(
        lambda: world.call("/fixed").status == 402))


class Early:
    """A request whose backend has answered, all of it unless it waits, and whose verdict has not come."""

    def __init__(self, world: World, protocol: str, does: dict, then=None, path: str = CHAT, body: dict | None = BODY) -> None:
        self.world, self.path, self.body = world, path, body
        self.payment = world.payment(path, **asks(body))
        world.facilitator.script(self.payment.payload, verify=[hang(then), ok()])
        self.exchange, self.test_id = world.open(path, payment=self.payment, protocol=protocol, does=does, **asks(body))
        self.verdict.await_reached()
        eventually(lambda: world.backend.requests(self.test_id), "the backend is asked")
        assert self.exchange.quiet() and world.count(self.payment, "settle") == 0

    @property
    def verdict(self):
        """Where the facilitator waits."""
        return self.world.facilitator.gate(self.payment.payload)

    def answered(self) -> None:
        """The backend has said all that it says; the client has had nothing."""
        eventually(self.world.backend.one(self.test_id).answered.is_set, "the backend has answered")
        assert self.exchange.quiet() and self.world.count(self.payment, "settle") == 0

    def response(self):
        answer = self.exchange.response()
        self.exchange.close()
        return answer


ANSWERS = {
    # name: (what the backend does, the body that leaves, without the comment)
    "events": (DOES, SEEN),
    "events and trailers": ({**DOES, "trailers": [["x-checksum", "abc"], ["payment-response", "forged"]]}, SEEN),
    "json": (whole({"usage": {"prompt_tokens": 4, "completion_tokens": 1}}), None),
    "json and trailers": ({"kind": "parts", "headers": JSON, "free": True, "trailers": [["x-checksum", "abc"]],
                           "parts": ['{"usage": {"prompt_tokens": 4, "completion_tokens": 1}}']}, None),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_before_the_verdict(overlap, protocol, name):
    """It is metered and settled when it leaves."""
    does, body = ANSWERS[name]
    early = Early(overlap, protocol, does)
    early.answered()
    early.verdict.release()
    answer = early.response()
    assert answer.status == 200 and answer.clean and not answer.has_receipt, answer
    assert settled(overlap, early.payment) == USED == int(late(answer)["amount"])
    assert (("x-checksum", "abc") in answer.trailers) == ("trailers" in name)
    if body is None:
        assert answer.json()["usage"] == {"prompt_tokens": 4, "completion_tokens": 1}
    else:
        assert answer.body.decode().startswith(body)
        # Where the backend sends trailers there is none.
        assert comments(answer.body) == ([] if "trailers" in name else [late(answer)])
    spent(overlap, CHAT, early.payment, BODY)
    alive(overlap)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_that_is_refused(overlap, protocol, name):
    """Not a byte of it leaves, and nothing is settled."""
    early = Early(overlap, protocol, ANSWERS[name][0], refuse("insufficient_funds"))
    early.answered()
    early.verdict.release()
    answer = early.response()
    refused(answer, 402, "insufficient_funds")
    assert answer.trailers == [] and not answer.has_receipt and answer.header("trailer") is None
    assert overlap.count(early.payment, "settle") == 0
    alive(overlap)


def test_a_large_answer_before_the_verdict(overlap, protocol):
    """It waits in the backend's hands as far as no buffer holds it."""
    parts = ['{"choices": [],', '"usage": {"prompt_tokens": 4, "completion_tokens": 1}}']
    does = {"kind": "parts", "headers": JSON, "parts": parts, "free": True, "padding": 20 << 20}
    early = Early(overlap, protocol, does)
    early.verdict.release()
    answer = early.response()
    assert answer.status == 200 and answer.clean
    assert answer.body == parts[0].encode() + b" " * (20 << 20) + parts[1].encode()
    assert settled(overlap, early.payment) == USED


def test_parts_after_the_verdict_pass_one_by_one(overlap, protocol):
    """What came before it comes at once."""
    parts = stream(SHOWN, SHOWN, SHOWN)["parts"]
    early = Early(overlap, protocol, {"kind": "parts", "headers": EVENTS, "parts": parts})
    gate = overlap.backend.gate(early.test_id)
    gate.release()
    for _ in range(2):
        gate.await_reached()
    assert early.exchange.quiet()
    early.verdict.release()
    assert early.exchange.head()[0] == 200
    assert early.exchange.read_until(len(parts[0])) == parts[0].encode()
    for part in parts[1:]:
        gate.release()
        found = early.exchange.read_until(len(part))
        assert found.startswith(part.encode())
    # 1000 bytes and 15 of text: 875 + 4 × 10
    assert settled(overlap, early.payment) == 915
    early.exchange.close()


def test_the_client_leaves_before_the_verdict(overlap, protocol):
    """It has had nothing, whatever the backend did."""
    early = Early(overlap, protocol, DOES)
    early.answered()
    early.exchange.leave()
    overlap.envoy.access_log(test_id=early.test_id)
    early.verdict.release()
    given_back(overlap, CHAT, early.payment, BODY)
    alive(overlap)


@pytest.mark.parametrize("then", [None, refuse("insufficient_funds")], ids=["valid", "refused"])
def test_the_backend_breaks_off_before_the_verdict(overlap, protocol, then):
    """Nothing was delivered: nothing is settled, and the client does not see an answer that ends."""
    does = {**stream(SHOWN, free=True), "waits": True, "breaks": True}
    early = Early(overlap, protocol, does, then)
    gate = overlap.backend.gate(early.test_id)
    gate.await_reached()
    gate.release()
    active = "cluster.backend.upstream_rq_active"
    eventually(lambda: overlap.envoy.stats(f"^{active}$")[active] == 0, "Envoy has seen the reset")
    early.verdict.release()
    try:
        answer = early.response()
        assert not answer.clean or answer.status >= 400, answer
        assert late(answer) is None and not any(answer.all(name) for name in LATE)
    except Closed:
        pass
    given_back(overlap, CHAT, early.payment, BODY)
    alive(overlap)


@pytest.mark.parametrize("status", [200, 204])
def test_an_answer_without_a_body(overlap, protocol, status):
    """Its receipt is in its headers, as ever."""
    early = Early(overlap, protocol, {"kind": "empty", "status": status}, path="/fixed", body=None)
    early.verdict.release()
    answer = early.response()
    assert answer.status == status and answer.clean and answer.receipt["amount"] == "10000", answer
    assert settled(overlap, early.payment) == 10_000
    spent(overlap, "/fixed", early.payment, None)
