"""Answers that the backend did not give, and requests that Envoy sends on by itself: nothing is sold twice or for nothing."""

import pytest

from stack.envoy import route

from .checks import paid, refused, unpaid
from .world import MAIN, ROUTES, World

SECRET = "not-for-sale"

INTERNAL = {"internal_redirect_policy": {"max_internal_redirects": 2, "redirect_response_codes": [302, 307]}}
OWN_ROUTES = [
    route("/reports/moved", name="moved", action=INTERNAL),
    route("/elsewhere", name="elsewhere", action=INTERNAL),
    *({"name": f"direct-{status}", "match": {"prefix": f"/reports/direct-{status}"},
       "direct_response": {"status": status, "body": {"inline_string": SECRET}}} for status in (200, 201, 404, 503)),
    {"name": "redirect", "match": {"prefix": "/reports/redirect"}, "redirect": {"path_redirect": f"/{SECRET}"}},
]


@pytest.fixture(scope="module")
def redirecting(worlds) -> World:
    """Routes that redirect or answer by themselves, all on priced paths."""
    return worlds.world("redirecting", MAIN, routes=[*OWN_ROUTES, *ROUTES])


def usable(world, payment):
    """Nothing was settled, and the payment buys something of the same price."""
    assert world.count(payment, "settle") == 0
    again = payment.but(lambda it: setattr(it, "resource", None))
    paid(world, world.call("/reports/other", payment=again), payment)


@pytest.mark.parametrize("to", ["/not-named", "/free", "/reports/other", "/paid"])
@pytest.mark.parametrize("status", [302, 307])
def test_internal_redirect_of_a_paid_request(redirecting, protocol, to, status):
    """Wherever it leads: the request that was paid for ends without an answer, so no other may take its place."""
    payment = redirecting.payment("/reports/moved")
    answer = redirecting.call("/reports/moved", payment=payment, protocol=protocol,
                              does={"status": status, "headers": [["location", f"http://api.test{to}"]]})
    refused(answer, 500, "internal_redirect_not_payable")
    assert not answer.has_receipt
    assert [request.path for request in redirecting.backend.requests(answer.test_id)] == [b"/reports/moved"]
    usable(redirecting, payment)


@pytest.mark.parametrize("dialect", ["v1", "plain"])
def test_internal_redirect_in_other_dialects(redirecting, dialect):
    payment = redirecting.payment("/reports/moved")
    answer = redirecting.call("/reports/moved", payment=payment, dialect=dialect,
                              does={"status": 302, "headers": [["location", "http://api.test/not-named"]]})
    refused(answer, 500, "internal_redirect_not_payable")
    usable(redirecting, payment)


def test_internal_redirect_that_is_none(redirecting):
    """To another scheme: Envoy passes it on, and an answer of the backend it is."""
    payment = redirecting.payment("/reports/moved")
    answer = redirecting.call("/reports/moved", payment=payment,
                              does={"status": 302, "headers": [["location", "https://api.test/not-named"]]})
    paid(redirecting, answer, payment, status=302)


def test_internal_redirect_of_a_free_request_to_a_priced_path(redirecting, protocol):
    answer = redirecting.call("/elsewhere", protocol=protocol,
                              does={"status": 302, "headers": [["location", "http://api.test/paid"]]})
    refused(answer, 402)
    assert [request.path for request in redirecting.backend.requests(answer.test_id)] == [b"/elsewhere"]


def test_mark_of_a_redirect_is_not_the_clients(redirecting, protocol):
    """Whoever sends the header that marks redirected requests is served like everybody else."""
    mark = [("x-x402-forwarded", "1")]
    unpaid(redirecting, redirecting.call("/paid", headers=mark, protocol=protocol), 402)
    payment = redirecting.payment("/paid")
    paid(redirecting, redirecting.call("/paid", headers=mark, payment=payment, protocol=protocol), payment)
    assert redirecting.call("/free", headers=mark, protocol=protocol).status == 200


@pytest.mark.parametrize("kind", ["direct-200", "direct-201", "redirect"])
def test_answers_that_the_backend_did_not_give(redirecting, protocol, kind):
    path = f"/reports/{kind}"
    payment = redirecting.payment(path)
    answer = redirecting.call(path, payment=payment, protocol=protocol)
    refused(answer, 502, "answer_not_sold")
    assert not answer.has_receipt and SECRET not in repr(answer), answer
    usable(redirecting, payment)
    unpaid(redirecting, redirecting.call(path, protocol=protocol), 402)


@pytest.mark.parametrize("status", [404, 503])
def test_failures_that_the_backend_did_not_give(redirecting, protocol, status):
    """They pass as they are: nobody pays for them."""
    path = f"/reports/direct-{status}"
    payment = redirecting.payment(path)
    answer = redirecting.call(path, payment=payment, protocol=protocol)
    assert answer.status == status and answer.body == SECRET.encode() and not answer.has_receipt, answer
    usable(redirecting, payment)


@pytest.mark.parametrize("headers", [[], [["upgrade", "chat"], ["connection", "upgrade"]]])
def test_switching_protocols_that_nobody_asked_for(redirecting, headers):
    """A 101 without an upgrade is no answer: what follows it would not be metered, and the client waits for more."""
    payment = redirecting.payment("/reports/101")
    answer = redirecting.call("/reports/101", payment=payment, does={"status": 101, "kind": "empty", "headers": headers})
    refused(answer, 502)
    assert not answer.has_receipt
    usable(redirecting, payment)
