"""Metered answers at their edges: prices above the quote, streams that Envoy cuts, and receipts that are nobody else's."""

import json
import re

import pytest

from stack.envoy import route

from .checks import alive, paid
from .facilitator import garbage, hang, refuse
from .metered import EVENTS, INPUT, JSON, LIMIT, QUOTE, UNBLAMED, rises
from .metering import (
    CHAT, LATE, Live, asks, chat, choose, comments, count, delta, given_back, late, permit, settled, spent, stream, terms,
    whole)
from .world import BASE, PERMIT, ROUTES, UPTO, World, changed

CONFIG = changed(routes=[
    terms("/idle", **UNBLAMED),
    terms("/duration", **UNBLAMED),
    terms("/hasty", receipt_wait="50ms"),
    terms("/free", missing_usage="free"),
    {"name": "plain", "match": {"path": "/plain"}, "price": {"per_request": "$0.01"}, "accept": [BASE, UPTO]},
    terms("/v1/*", accept=[UPTO, BASE]),
], access={"bypass": [{"header": "x-internal-caller", "value": "friend-of-the-house"}]})
LIMITED = [
    route("/idle", name="idle", action={"idle_timeout": LIMIT}),
    route("/duration", name="duration", action={"max_stream_duration": {"max_stream_duration": LIMIT}}),
]
BODY = chat(1000)
WITH_USAGE = chat(1000, stream_options={"include_usage": True})
# 20 and 21 bytes of text are 41: 11 begun tokens.
TEXT = ["Twenty bytes of text", "and twenty-one of it."]
ESTIMATE = INPUT + 110


@pytest.fixture(scope="module")
def edges(worlds) -> World:
    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call("/hasty", **asks(BODY)).status == 402)

    return worlds.world("metered-edges", CONFIG, ready=ready, routes=[*LIMITED, *ROUTES])


# The backend asks for more than was quoted

@pytest.mark.parametrize("amount", ["3751", "100.1%", "250%", "$0.003751", "$12", "1" + "0" * 30])
@pytest.mark.parametrize("does", [whole({"usage": {"prompt_tokens": 4, "completion_tokens": 1}}),
                                  stream(delta("Hello"), count(4, 1), "[DONE]", free=True)], ids=["json", "events"])
def test_an_override_above_the_quote_is_capped(edges, does, amount):
    """And counted: the quote is settled, not the usage and not what was asked for."""
    before = edges.metric("x402_usage_above_quote")
    ignored = edges.metric("x402_overrides_ignored")
    payment = edges.payment(CHAT, choose("upto"), **asks(BODY))
    assert payment.offer["amount"] == str(QUOTE)
    headers = [*does["headers"], ["settlement-overrides", json.dumps({"amount": amount})]]
    answer = edges.call(CHAT, payment=payment, does={**does, "headers": headers}, **asks(BODY))
    assert answer.status == 200 and answer.clean and not answer.all("settlement-overrides"), answer
    assert settled(edges, payment) == QUOTE == int(late(answer)["amount"])
    rises(edges, "x402_usage_above_quote", before)
    assert edges.metric("x402_overrides_ignored") == ignored


def test_an_override_above_the_quote_where_nothing_is_metered(edges, protocol):
    before = edges.metric("x402_usage_above_quote")
    payment = edges.payment("/plain", choose("upto"))
    does = {"headers": [["settlement-overrides", '{"amount":"10001"}']]}
    answer = paid(edges, edges.call("/plain", payment=payment, does=does, protocol=protocol), payment)
    assert settled(edges, payment) == 10_000 == int(answer.receipt["amount"])
    rises(edges, "x402_usage_above_quote", before)


# Envoy cuts a stream off

DETAILS = {"/idle": "stream_idle_timeout", "/duration": "max_duration_timeout"}
COUNTED = {**delta("counted"), "usage": {"prompt_tokens": 40, "completion_tokens": 3}}
PRICED = {"headers": [*EVENTS, ["settlement-overrides", '{"amount":"77"}']]}

# name: (what the backend does, how many of its parts it gets to, what is settled)
CUTS = {
    "text": (stream(*map(delta, TEXT), delta("never")), 2, ESTIMATE),
    # What the backend told counts; what came after that is estimated: 40 × 2.5 + (3 + 6) × 10.
    "a count and text": (stream(COUNTED, delta(TEXT[1]), delta("never")), 2, 190),
    # It has left nothing out: 4 × 2.5 + 1 × 10.
    "the last event": (stream(delta("Hello"), count(4, 1), "[DONE]", "never"), 3, 20),
    # The backend's own word holds, whoever ended the answer.
    "a price": ({**stream(delta("Hello"), delta("never")), **PRICED}, 1, 77),
    "nothing": (stream(delta("never")), 0, None),
}


@pytest.fixture(scope="module")
def cuts(edges) -> dict:
    """Streams that stall until Envoy ends them, all at once: each waits as long as its limit is."""
    lives = {(path, protocol, name): Live(edges, path, WITH_USAGE, CUTS[name][0], protocol, delivers=CUTS[name][1])
             for path in DETAILS for protocol in ("h1", "h2") for name in CUTS}
    for live in lives.values():
        live.end()
    return lives


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("path", DETAILS)
def test_a_stream_that_envoy_cuts_off(edges, cuts, protocol, path, name):
    """Neither client nor backend is to blame: what was delivered is estimated, whatever the policies are."""
    live, amount = cuts[path, protocol, name], CUTS[name][2]
    assert not live.answer.clean
    entry = edges.envoy.access_log(test_id=live.test_id)
    assert entry["details"].startswith(DETAILS[path]), entry
    if amount is None:
        assert (entry["x402_outcome"], entry["x402_settled"]) == ("interrupted", "0"), entry
        given_back(edges, path, live.payment, WITH_USAGE)
    else:
        assert settled(edges, live.payment) == amount
        assert entry["x402_outcome"] == "interrupted", entry
        spent(edges, path, live.payment, WITH_USAGE)
    alive(edges)


# The comment with the receipt

def dispatched(body: bytes) -> list[dict[str, str]]:
    """The events that a parser of such streams gives out, by the WHATWG's rules: what lacks its blank line is none."""
    lines = re.split("\r\n|\n|\r", body.decode())[:-1]
    found, event = [], {}
    for line in lines:
        if line == "":
            if "data" in event:
                found.append(event)
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            event[name] = f'{event[name]}\n{value}' if name == "data" and name in event else value
    return found


USED = "".join(stream(delta("Hello"), count(4, 1))["parts"])

# name: how the backend's bytes end
ENDINGS = {
    "whole": "data: [DONE]\n\n",
    "whole, CRLF": "data: [DONE]\r\n\r\n",
    "whole, CR": "data: [DONE]\r\r",
    "whole, more blank lines": "data: [DONE]\n\n\n\n",
    "in a line": "data: [DONE]",
    "in a line of a word": "data: [DO",
    "in a field": "id: 7\nda",
    "after a line": "data: [DONE]\n",
    "after a line, CRLF": "data: [DONE]\r\n",
    "after a line, CR": "data: [DONE]\r",
    "between CR and LF": "data: [DONE]\r\n\r",
    "in a comment": ": ping",
    "after a comment": ": ping\n",
    "after nothing": "",
}


@pytest.mark.parametrize("cut", ["together", "apart"])
@pytest.mark.parametrize("name", ENDINGS)
def test_the_comment_has_a_line_of_its_own(edges, protocol, name, cut):
    """It completes nothing that the backend has not completed, and nothing is added where an event has ended."""
    ending = ENDINGS[name]
    parts = [USED + ending] if cut == "together" else [USED, *ending]
    payment = edges.payment(CHAT, choose("upto"), **asks(WITH_USAGE))
    does = {"kind": "parts", "headers": EVENTS, "parts": parts, "free": True}
    answer = edges.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(WITH_USAGE))
    assert answer.status == 200 and answer.clean, answer
    sent = (USED + ending).encode()
    assert answer.body.startswith(sent)
    assert settled(edges, payment) == 20
    [found] = [line for line in re.split("\r\n|\n|\r", answer.body.decode()) if line.startswith(": payment-response ")]
    assert comments(found.encode()) == [late(answer)]
    added = answer.body[len(sent):].decode()
    if name.startswith("whole") or name == "after nothing":
        assert added == f"{found}\n\n"
    elif ending.endswith(("\n", "\r")):
        assert added.startswith(f"{found}\n")
    else:
        assert added.startswith(f"\n{found}\n")
    assert dispatched(answer.body) == dispatched(sent)


def test_the_comment_after_a_chunk_that_is_withheld(edges, protocol):
    """What the client has had decides, not what the backend sent."""
    payment = edges.payment(CHAT, choose("upto"), **asks(BODY))
    does = stream(delta("Hello"), count(4, 1), free=True)
    answer = edges.call(CHAT, payment=payment, does=does, protocol=protocol, **asks(BODY))
    [value] = comments(answer.body)
    kept, = stream(delta("Hello"))["parts"]
    assert answer.body.startswith(f"{kept}: payment-response ".encode()) and answer.body.endswith(b"\n\n")
    assert value == late(answer) and value["amount"] == "20"


def test_the_comment_alone(edges, protocol):
    """A stream of nothing but what is withheld."""
    payment = edges.payment(CHAT, choose("upto"), **asks(BODY))
    answer = edges.call(CHAT, payment=payment, does=stream(count(4, 1), free=True), protocol=protocol, **asks(BODY))
    assert answer.clean and answer.body.startswith(b": payment-response ") and answer.body.endswith(b"\n\n")
    assert comments(answer.body) == [late(answer)] and settled(edges, payment) == 20


# Trailers that only this filter may send

FORGED = [["payment-response", "Zm9yZ2Vk"], ["x-payment-response", "Zm9yZ2Vk"], ["Payment-Response", "dHdpY2U="],
          ["settlement-overrides", '{"amount":"1"}'], ["x-checksum", "abc"]]


def forging(*parts: str, **more) -> dict:
    """An answer that ends with such trailers, and begins with such headers."""
    forged = [pair for pair in FORGED if pair[0].islower() and pair[0] not in ("x-checksum", "settlement-overrides")]
    return {"kind": "parts", "headers": [*JSON, *forged], "parts": parts, "trailers": FORGED, "free": True, **more}


def unforged(answer) -> list[str]:
    """The names of the receipts among the trailers; all others are the backend's."""
    assert answer.clean, answer
    names = [name.lower() for name, _ in answer.trailers]
    assert ("x-checksum", "abc") in answer.trailers, answer.trailers
    assert not {value for _, value in answer.trailers} & {"Zm9yZ2Vk", "dHdpY2U=", '{"amount":"1"}'}, answer.trailers
    assert not {value for name in LATE for value in answer.all(name)} & {"Zm9yZ2Vk"}, answer
    assert "settlement-overrides" not in names
    return [name for name in names if name in LATE]


TOLD = '{"usage": {"prompt_tokens": 4, "completion_tokens": 1}}'


def test_forged_trailers_before_a_receipt(edges, protocol):
    payment = edges.payment(CHAT, choose("upto"), **asks(BODY))
    answer = edges.call(CHAT, payment=payment, does=forging(TOLD), protocol=protocol, **asks(BODY))
    assert unforged(answer) == ["payment-response"]
    assert settled(edges, payment) == 20 == int(late(answer)["amount"])


def test_forged_trailers_before_a_receipt_that_is_late(edges, protocol):
    """The receipt does not come in time, and nothing stands in its place."""
    payment = edges.payment("/hasty", **asks(BODY))
    edges.facilitator.script(payment.payload, settle=hang())
    answer = edges.call("/hasty", payment=payment, does=forging(TOLD), protocol=protocol, **asks(BODY))
    assert unforged(answer) == []
    edges.facilitator.gate(payment.payload).release()
    spent(edges, "/hasty", payment, BODY)


def test_forged_trailers_where_nobody_knows(edges, protocol):
    payment = edges.payment(CHAT, choose("upto"), **asks(BODY))
    edges.facilitator.script(payment.payload, settle=garbage())
    answer = edges.call(CHAT, payment=payment, does=forging(TOLD), protocol=protocol, **asks(BODY))
    assert unforged(answer) == []


def test_forged_trailers_where_nothing_is_due(edges, protocol):
    payment = edges.payment("/free", **asks(BODY))
    answer = edges.call("/free", payment=payment, does=forging("{}"), protocol=protocol, **asks(BODY))
    assert unforged(answer) == ["payment-response"]
    assert late(answer)["amount"] == "0" and edges.count(payment, "settle") == 0


@pytest.mark.parametrize("status", [400, 500])
def test_forged_trailers_of_an_error(edges, protocol, status):
    payment = edges.payment(CHAT, choose("upto"), **asks(BODY))
    answer = edges.call(CHAT, payment=payment, does=forging("{}", status=status), protocol=protocol, **asks(BODY))
    assert answer.status == status and unforged(answer) == []
    assert edges.count(payment, "settle") == 0


@pytest.mark.parametrize("scheme", ["exact", "upto"])
def test_forged_trailers_where_nothing_is_metered(edges, protocol, scheme):
    """The receipt is in the headers, and no other one comes after it."""
    payment = edges.payment("/plain", choose(scheme))
    answer = edges.call("/plain", payment=payment, does=forging("{}"), protocol=protocol)
    assert answer.receipt["success"] is True and unforged(answer) == []
    assert settled(edges, payment) == 10_000


def test_forged_trailers_of_an_exact_payment_on_a_metered_route(edges, protocol):
    payment = edges.payment(CHAT, choose("exact"), **asks(BODY))
    answer = edges.call(CHAT, payment=payment, does=forging("{}"), protocol=protocol, **asks(BODY))
    assert answer.receipt["success"] is True and unforged(answer) == []
    assert settled(edges, payment) == QUOTE


def test_forged_trailers_of_libertais_way(worlds, protocol):
    """Its receipt has the other name."""
    world = worlds.world("metered-edges-permit", changed(routes=[terms("/permit", accept=[PERMIT])]),
                         ready=lambda world: world.everywhere(lambda: world.call("/permit", **asks(BODY)).status == 402))
    payment = permit(world, "/permit", BODY)
    answer = world.call("/permit", payment=payment, dialect="libertai", does=forging(TOLD), protocol=protocol, **asks(BODY))
    assert unforged(answer) == ["x-payment-response"] and late(answer)["amount"] == "20"


def test_an_answer_of_nothing_but_forged_trailers(edges, protocol):
    """No body at all, and no count: the input is estimated."""
    payment = edges.payment(CHAT, choose("upto"), **asks(BODY))
    answer = edges.call(CHAT, payment=payment, does=forging(), protocol=protocol, **asks(BODY))
    assert unforged(answer) == ["payment-response"]
    assert settled(edges, payment) == INPUT == int(late(answer)["amount"])


def test_a_refusal_after_forged_trailers_is_no_end(edges, protocol):
    """The answer breaks off: no trailer passes at all."""
    payment = edges.payment(CHAT, choose("upto"), **asks(BODY))
    edges.facilitator.script(payment.payload, settle=refuse("insufficient_funds"))
    answer = edges.call(CHAT, payment=payment, does=forging(TOLD), protocol=protocol, **asks(BODY))
    assert answer.status == 200 and not answer.clean and answer.trailers == [], answer
