"""Who need not pay: free routes, keys, friends; and what `unmatched` means."""

import pytest

from .checks import paid, unpaid
from .world import World, changed


@pytest.fixture(scope="session")
def deny(worlds) -> World:
    """What no route names is refused."""
    return worlds.world("deny", changed(unmatched="deny"))


def free(world, answer):
    """Served as if the filter were not there."""
    assert answer.status == 200, answer
    assert world.reached(answer) == 1
    assert not answer.has_receipt and not answer.all("payment-required")
    assert not answer.all("vary") and not answer.all("cache-control")


@pytest.mark.parametrize("path", ["/free", "/reports/public", "/not-named", "/", "/free?x=1", "/paid-not", "/paidx"])
def test_free(main, protocol, path):
    free(main, main.call(path, protocol=protocol))


def test_free_answers_are_untouched(main, protocol):
    headers = [["x-mine", "1"], ["cache-control", "public, max-age=60"], ["etag", '"x"']]
    answer = main.call("/free", protocol=protocol, does={"kind": "sse", "chunks": 3, "free": True, "headers": headers})
    assert answer.status == 200 and answer.header("cache-control") == "public, max-age=60"
    assert answer.body.count(b"data:") == 3


def test_free_requests_arrive_untouched(main, protocol):
    body = b"\x00\xff" * 1000
    answer = main.call("/free?a=%2e%2e", "POST", [("content-type", "application/octet-stream")], body=body,
                       protocol=protocol)
    seen = main.backend.one(answer.test_id)
    assert (seen.method, seen.path, seen.body) == ("POST", b"/free?a=%2e%2e", body)


@pytest.mark.parametrize("value", ["Bearer x402", "bearer x402", "x402"])
def test_dummy_key_does_not_open(main, keys, value):
    for world in (main, keys):
        unpaid(world, world.call("/paid", headers=[("authorization", value)]), 402)


def test_real_key_does_not_open_by_default(main):
    unpaid(main, main.call("/paid", headers=[("authorization", "Bearer sk-real")]), 402)


def test_real_key_goes_to_the_backend(keys, protocol):
    answer = keys.call("/paid", headers=[("authorization", "Bearer sk-real")], protocol=protocol)
    assert answer.status == 200 and not answer.has_receipt
    assert keys.backend.one(answer.test_id).header("authorization") == "Bearer sk-real"


def test_backends_402_becomes_our_challenge(keys, protocol):
    """The key's credit is used up: pay instead."""
    answer = keys.call("/paid", headers=[("authorization", "Bearer sk-broke")], protocol=protocol,
                       does={"status": 402, "kind": "body", "text": "out of credit"})
    assert answer.status == 402 and answer.challenge["accepts"] == keys.accepts("/paid")
    assert keys.reached(answer) == 1 and b"out of credit" not in answer.body


@pytest.mark.parametrize("status", [401, 403, 500])
def test_backends_other_refusals_are_its_own(keys, status):
    answer = keys.call("/paid", headers=[("authorization", "Bearer sk-bad")], does={"status": status})
    assert answer.status == status and not answer.all("payment-required")


def test_empty_key_is_none(keys):
    for value in ("", "Bearer", "Bearer "):
        unpaid(keys, keys.call("/paid", headers=[("authorization", value)]), 402)


def test_keyed_requests_cannot_spoof(keys):
    answer = keys.call("/paid", headers=[("authorization", "Bearer sk-real"), ("x-x402-payer", "me")])
    assert "x-x402-payer" not in keys.backend.one(answer.test_id).names()


def test_payment_with_dummy_key(keys):
    payment = keys.payment("/paid")
    answer = keys.call("/paid", headers=[("authorization", "Bearer x402")], payment=payment)
    paid(keys, answer, payment)
    assert "authorization" not in keys.backend.one(answer.test_id).names()


def test_bypass(main, protocol):
    free(main, main.call("/paid", headers=[("x-internal-caller", "friend-of-the-house")], protocol=protocol))


@pytest.mark.parametrize("value", ["", "friend", "friend-of-the-house2", "Friend-of-the-house", "friend-of-the-house,x"])
def test_bypass_wants_the_very_value(main, value):
    unpaid(main, main.call("/paid", headers=[("x-internal-caller", value)]), 402)


@pytest.mark.parametrize("path", ["/not-named", "/", "/paidx", "/%2e/x"])
def test_unmatched_deny(deny, protocol, path):
    answer = deny.call(path, protocol=protocol)
    assert 400 <= answer.status < 500 and answer.status != 402, answer
    assert deny.reached(answer) == 0


def test_deny_is_not_passed_by_what_only_looks_like_a_preflight(deny):
    headers = [("origin", "https://shop.example"), ("access-control-request-method", "POST")]
    answer = deny.call("/nowhere", "options", headers, protocol="h2", may_close=True)
    assert deny.reached(answer) == 0 and answer.status != 200, answer


def test_deny_lets_named_ones_through(deny):
    free(deny, deny.call("/free"))
    payment = deny.payment("/paid")
    paid(deny, deny.call("/paid", payment=payment), payment)


@pytest.mark.parametrize("path", ["/x%2fy", "/x\\y", "/x%zz", "/x;y", "/x%252f"])
def test_deny_refuses_ambiguous_paths(deny, path):
    unpaid(deny, deny.call(path), 400, "ambiguous_path")


@pytest.mark.parametrize("path", ["/x%2fy", "/x;y", "/x%252f"])
def test_pass_lets_ambiguous_paths_to_what_is_unpriced(main, path):
    answer = main.call(path)
    assert answer.status == 200 and main.reached(answer) == 1


def test_routes_match_host_route_and_header(main, protocol):
    free(main, main.call("/host", host="other.test", protocol=protocol))
    for host in ("api.example.com", "API.Example.COM", "api.example.com:80", "api.example.com:8080"):
        unpaid(main, main.call("/host", host=host, protocol=protocol), 402)
    unpaid(main, main.call("/named", protocol=protocol), 402)
    assert main.accepts("/named")[0]["amount"] == "60000"
    assert main.accepts("/tier", headers=[("x-tier", "gold-3")])[0]["amount"] == "30000"


def test_methods(main, protocol):
    free(main, main.call("/post-only", protocol=protocol))
    unpaid(main, main.call("/post-only", "POST", body=b"", protocol=protocol), 402)
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "QUERY", "get"):
        if (method, protocol) == ("get", "h1"):
            continue
        answer = main.call("/paid", method, protocol=protocol)
        assert answer.status in (400, 402), (method, answer)
        assert main.reached(answer) == 0
