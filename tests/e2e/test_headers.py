"""Headers that only one side may set: neither clients nor backends can say what the filter says."""

import itertools

import pytest

from .checks import paid
from .client import raw
from .world import World

TRUSTED = ["x-x402-payer", "x-x402-network", "x-x402-asset", "x-x402-amount", "x-x402-scheme", "x-x402-forwarded"]
SPOOFED = "0xthe-attackers-word"
KEY = ("authorization", "Bearer sk-real")
FRIEND = ("x-internal-caller", "friend-of-the-house")
CHAT = "/v1/chat/completions"


def spellings(name):
    """With - and _ in any mixture: CGI and its heirs take them for the same."""
    parts = name.split("-")
    for marks in itertools.product("-_", repeat=len(parts) - 1):
        yield "".join(itertools.chain.from_iterable(zip(parts, [*marks, ""])))


SPOOFS = [(spelling, SPOOFED) for name in TRUSTED for spelling in spellings(name)]
SPOOFS += [(name.title(), SPOOFED) for name, _ in SPOOFS]


def request(world: World, kind: str):
    """Path, headers and payment of a request that gets through."""
    match kind:
        case "paid":
            return "/paid", [], world.payment("/paid")
        case "free":
            return "/free", [], None
        case "keyed":
            return "/paid", [KEY], None
        case "bypassed":
            return "/paid", [FRIEND], None
    raise ValueError(kind)


def trusted(pairs):
    """The filter's own headers among these, however they are spelt: name to values."""
    found = {}
    for name, value in pairs:
        name = name.decode("latin-1").lower().replace("_", "-")
        if name in TRUSTED:
            found.setdefault(name, []).append(value.decode("latin-1"))
    return found


def unspoofed(world, answer, payment):
    """What the backend was told is the filter's word alone."""
    seen = world.backend.one(answer.test_id)
    assert raw(SPOOFED) not in [value for _, value in [*seen.headers, *seen.trailers]], seen
    found = trusted(seen.headers)
    assert trusted(seen.trailers) == {}
    if payment is None:
        assert found == {}, found
    else:
        assert found["x-x402-payer"] == [payment.payer.address] or \
            [value.lower() for value in found["x-x402-payer"]] == [payment.payer.address.lower()]
        assert all(len(values) == 1 for values in found.values()), found
    return seen


@pytest.mark.parametrize("kind", ["paid", "free", "keyed", "bypassed"])
def test_spoofed_headers(keys, protocol, kind):
    path, headers, payment = request(keys, kind)
    answer = keys.call(path, headers=[*headers, *SPOOFS, ("x_x402", "kept"), ("x_own_header", "kept")], payment=payment,
                       protocol=protocol)
    assert answer.status == 200, answer
    seen = unspoofed(keys, answer, payment)
    assert seen.header("x_x402") == "kept" and seen.header("x_own_header") == "kept"


@pytest.mark.parametrize("name", [name for name, _ in SPOOFS if name == name.lower()])
def test_spoofed_header_alone(main, name):
    """One at a time: none hides behind another."""
    unspoofed(main, main.call("/free", headers=[(name, SPOOFED)]), None)


def test_spoofed_headers_where_no_route_is(main, protocol):
    """The exact names; the rest costs every request that is none of the filter's business."""
    answer = main.call("/not-named", headers=[(name, SPOOFED) for name in TRUSTED], protocol=protocol)
    assert answer.status == 200
    unspoofed(main, answer, None)


@pytest.mark.parametrize("kind", ["paid", "free", "keyed", "bypassed"])
def test_spoofed_trailers(keys, protocol, kind):
    """Trailers become headers in some servers."""
    path, headers, payment = request(keys, kind)
    answer = keys.call(path, "POST", headers, payment=payment, protocol=protocol, chunks=[b"one", b"two"],
                       trailers=[*SPOOFS, ("x-sum", "2")])
    assert answer.status == 200, answer
    seen = unspoofed(keys, answer, payment)
    assert seen.body == b"onetwo"
    assert seen.trailers == [(b"x-sum", b"2")]


def test_spoofed_trailers_behind_the_reader(main, protocol):
    """A route that is priced by its body."""
    body = b'{"model":"gpt-4o"}'
    payment = main.payment(CHAT, method="POST", body=body)
    answer = main.call(CHAT, "POST", payment=payment, protocol=protocol, chunks=[body[:7], body[7:]],
                       trailers=[*SPOOFS, ("x-sum", "2")])
    paid(main, answer, payment)
    seen = unspoofed(main, answer, payment)
    assert seen.body == body and seen.trailers == [(b"x-sum", b"2")]


OURS = [["payment-response", "Zm9yZ2Vk"], ["x-payment-response", "Zm9yZ2Vk"], ["settlement-overrides", '{"amount":"1"}']]


@pytest.mark.parametrize("status", [200, 302, 401, 402, 500])
def test_keyed_answers_hold_nothing_of_ours(keys, protocol, status):
    """Nothing was paid by x402 there, so no header may say so."""
    answer = keys.call("/paid", headers=[KEY], protocol=protocol, does={"status": status, "headers": [*OURS, ["x-mine", "1"]]})
    assert answer.status == status, answer
    for name, _ in OURS:
        assert not answer.all(name), answer
    assert "Zm9yZ2Vk" not in repr(answer)
    if status != 402:
        assert answer.header("x-mine") == "1"


def test_keyed_requests_hold_no_payment(keys, protocol):
    """Pieces of one that buy nothing: the backend is not to make anything of them."""
    pieces = [("x-payment", ""), ("payment-signature", ""), ("x-payment-network", "base"), ("x-payment-amount", "0.01")]
    answer = keys.call("/paid", headers=[KEY, *pieces], protocol=protocol)
    assert answer.status == 200 and not answer.has_receipt, answer
    names = keys.backend.one(answer.test_id).names()
    assert not [name for name in names if name == "payment-signature" or name.startswith("x-payment")], names
    assert "authorization" in names


def test_bypassed_requests_hold_no_payment(keys, protocol):
    """Nor where a friend sends a whole one: it is not used."""
    payment = keys.payment("/paid")
    answer = keys.call("/paid", headers=[FRIEND], payment=payment, protocol=protocol)
    assert answer.status == 200 and not answer.has_receipt, answer
    names = keys.backend.one(answer.test_id).names()
    assert not [name for name in names if name == "payment-signature" or name.startswith("x-payment")], names
    keys.no_calls(payment)
