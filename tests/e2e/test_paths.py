"""Other spellings of a priced path: whatever reading a backend may make of it, it is never served unpaid."""

import re
from urllib.parse import unquote_to_bytes

import pytest

from .client import REFUSED_BY_CLOSING, raw_http1
from .wire import fresh_id
from .world import MAIN, World

PRICED = {b"/paid", b"/base-only", b"/tier"}


def readings(path: bytes) -> set[bytes]:
    """Every path that some server somewhere would serve for this one."""
    found, todo = set(), {path}
    while todo:
        one = todo.pop()
        if one in found or len(found) > 5000:
            continue
        found.add(one)
        todo.add(unquote_to_bytes(one))
        todo.add(one.replace(b"\\", b"/"))
        todo.add(re.sub(rb";[^/]*", b"", one))
        todo.add(re.sub(rb"//+", b"/", one))
        todo.add(re.sub(rb"/\.(?=/|$)", b"", one) or b"/")
        todo.add(re.sub(rb"/(?!\.\./|\.\.$)[^/]+/\.\.(?=/|$)", b"", one, count=1) or b"/")
        todo.add(re.sub(rb"^/\.\.(?=/|$)", b"", one) or b"/")
        todo.update(one.split(mark, 1)[0] for mark in (b"\0", b"?", b"#"))
        todo.add(one.rstrip(b"/") or b"/")
    return {one.lower() for one in found}


def costs(path: bytes) -> bool:
    """Whether any reading is a priced path."""
    return any(one in PRICED or (one.startswith(b"/reports/") and one != b"/reports/public") for one in readings(path))


SPELLINGS = [
    b"/paid", b"/PAID", b"/Paid", b"/paid/", b"/paid//", b"//paid", b"///paid", b"/./paid", b"/x/../paid",
    b"/x/./../paid", b"/paid/.", b"/paid/x/..", b"/../paid", b"/../../paid", b"/free/../paid", b"/free/..//paid",
    b"/p%61id", b"/%70%61%69%64", b"/p%61%69d", b"/P%41ID", b"/p%2561id", b"/%2570aid", b"/p%252561id",
    b"/%2fpaid", b"/%2Fpaid", b"/x%2f..%2fpaid", b"/x/..%2fpaid", b"/free%2f..%2fpaid", b"/paid%2f", b"/paid%2F.",
    b"/%2e/paid", b"/%2e%2e/paid", b"/x/%2e%2e/paid", b"/x/%2E%2e/paid", b"/x/.%2e/paid", b"/x/%252e%252e/paid",
    b"/x%5c..%5cpaid", b"/x\\..\\paid", b"\\paid", b"/\\paid", b"/x/..\\paid", b"/paid\\", b"/%5cpaid",
    b"/paid;x=1", b"/paid;", b"/;/paid", b"/x;/../paid", b"/free/..;/paid", b"/free;x/../paid", b"/paid;/x/..",
    b"/paid%3bx", b"/paid%3b", b"/paid%23x", b"/paid%3fx=1", b"/paid%00", b"/paid%00.txt", b"/paid%20", b"/paid%09", b"/%20/../paid%20",
    b"/pa%zzid", b"/paid%", b"/paid%2", b"/%u0070aid", b"/%c0%afpaid", b"/x/..%c0%afpaid", b"/p%E1id",
    b"/paid?x", b"/paid?", b"/paid?/../free", b"/paid?%2f..%2ffree", b"/paid#x", b"/free#/../paid",
    b"/reports/1", b"/reports/", b"/reports//1", b"/REPORTS/1", b"/reports/public/../1", b"/reports/public%2f..%2f1",
    b"/reports/public/..%2f1", b"/reports/public;x", b"/reports/public/1", b"/reports/public/%2e%2e/1",
    b"/reports%2f1", b"/reports/%2e/1", b"/reports/1/2/3", b"/reports\\1", b"/free/../reports/1", b"/reports/./1",
    b"/reports/public%00/1", b"/reports/PUBLIC/../x",
    b"/base%2donly", b"/base-only/../base-only", b"/tier/../tier",
]


@pytest.fixture(scope="module", params=["as-they-come", "normalised", "unescaped"])
def world(request, worlds, main) -> World:
    """Envoy's connection manager with and without its own path normalisation."""
    if request.param == "as-they-come":
        return main
    action = {"normalised": "KEEP_UNCHANGED", "unescaped": "UNESCAPE_AND_FORWARD"}[request.param]
    return worlds.world(f"paths-{request.param}", MAIN, path_normalisation={
        "normalize_path": True, "merge_slashes": True, "path_with_escaped_slashes_action": action})


def never_free(world, seen_before, answer):
    """Nothing that could be priced came to the backend since."""
    fresh = world.backend.everything[seen_before:]
    for request in fresh:
        assert not costs(request.path.split(b"?")[0]) and not costs(request.path), (request.path, answer)


@pytest.mark.parametrize("path", SPELLINGS, ids=lambda path: path.decode("latin-1"))
def test_spellings(world, protocol, path):
    before = len(world.backend.everything)
    answer = world.call(path, protocol=protocol, may_close=True)
    never_free(world, before, answer)
    if costs(path.split(b"?")[0].split(b"#")[0]):
        # Envoy's own refusals (400) and redirects (307, with UNESCAPE_AND_REDIRECT) are as good as ours.
        assert answer.status in (REFUSED_BY_CLOSING, 400, 402, 404), answer


@pytest.mark.parametrize("path", [b"/paid2", b"/xpaid", b"/x/paid", b"/case", b"/CASE",
                                  b"/free/paid", b"/pa/id", b"/x?/paid", b"/x?y=/../paid"])
def test_what_only_looks_like_it_passes(world, protocol, path):
    answer = world.call(path, protocol=protocol)
    assert answer.status == 200 and world.reached(answer) == 1, answer


def test_case_sensitive_routes(main, protocol):
    assert main.call("/Case", protocol=protocol).status == 402
    assert main.call("/case", protocol=protocol).status == 200


@pytest.mark.parametrize("spelling", ["/PAID", "/x/../paid", "/p%61id", "//paid", "/./paid"])
def test_a_plain_other_spelling_can_be_paid_for(main, spelling):
    """One reading: it is the priced route, and its price."""
    answer = main.call(spelling)
    if answer.status == 402:
        assert answer.challenge["accepts"] == main.accepts("/paid")
    else:
        assert answer.status == 400, answer


@pytest.mark.parametrize("spelling", ["/paid%2f", "/x\\..\\paid", "/paid%00", "/pa%zzid/../paid", "/p%2561id",
                                      "/paid;x=1", "/paid%23"])
def test_ambiguous_spellings_say_so(main, spelling):
    answer = main.call(spelling)
    assert answer.status == 400, answer
    if (answer.header("content-type") or "").startswith("application/json"):
        assert answer.json()["error"] == "ambiguous_path"


RAW = {
    "absolute form": b"GET http://api.test/paid HTTP/1.1\r\nhost: api.test\r\n%s\r\n",
    "absolute form, other host inside": b"GET http://other.test/paid HTTP/1.1\r\nhost: api.test\r\n%s\r\n",
    "HTTP/1.0": b"GET /paid HTTP/1.0\r\nhost: api.test\r\n%s\r\n",
    "no host": b"GET /paid HTTP/1.1\r\n%s\r\n",
    "two hosts": b"GET /paid HTTP/1.1\r\nhost: api.test\r\nhost: other.test\r\n%s\r\n",
    "spaces": b"GET  /paid HTTP/1.1\r\nhost: api.test\r\n%s\r\n",
    "tab": b"GET\t/paid HTTP/1.1\r\nhost: api.test\r\n%s\r\n",
    "folded header": b"GET /paid HTTP/1.1\r\nhost: api.test\r\nx-a: b\r\n c\r\n%s\r\n",
    "both lengths": b"POST /paid HTTP/1.1\r\nhost: api.test\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n%s\r\n0\r\n\r\n",
    "two lengths": b"POST /paid HTTP/1.1\r\nhost: api.test\r\ncontent-length: 0\r\ncontent-length: 4\r\n%s\r\nabcd",
    "method override": b"POST /post-only HTTP/1.1\r\nhost: api.test\r\nx-http-method-override: GET\r\ncontent-length: 0\r\n%s\r\n",
    "original path": b"GET /paid HTTP/1.1\r\nhost: api.test\r\nx-envoy-original-path: /free\r\nx-original-url: /free\r\n%s\r\n",
    "bare LF": b"GET /paid HTTP/1.1\nhost: api.test\n%s\n",
}


@pytest.mark.parametrize("name", RAW)
def test_raw_requests(main, name):
    before, test_id = len(main.backend.everything), fresh_id()
    from .client import Closed
    try:
        answer = raw_http1(main.port, RAW[name] % b"x-test-id: %s\r\n" % test_id.encode())
        assert answer.status >= 400, answer
    except Closed:
        pass
    assert len(main.backend.everything) == before


def test_pipelined_after_a_free_one(main):
    """Each request of a connection is looked at by itself."""
    from .client import Http1
    free, paid = fresh_id(), fresh_id()
    exchange = Http1(main.port)
    exchange._method = "GET"
    exchange.raw(b"GET /free HTTP/1.1\r\nhost: api.test\r\nx-test-id: %s\r\n\r\n"
                 b"GET /paid HTTP/1.1\r\nhost: api.test\r\nx-test-id: %s\r\n\r\n" % (free.encode(), paid.encode()))
    assert exchange.response().status == 200
    exchange._over = False
    assert exchange.response().status == 402
    assert main.backend.requests(free) and not main.backend.requests(paid)
    exchange.close()


HOSTS = [b"api.example.com", b"API.EXAMPLE.COM", b"api.example.com.", b"api.example.com:80", b"api.example.com:443",
         b"api.example.com.:80"]


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(main, protocol, host):
    """A name with a final dot, a port, or other case is the same host."""
    answer = main.call("/host", host=host, protocol=protocol)
    assert answer.status in (400, 402), answer
    assert main.reached(answer) == 0
