"""The harness itself, against an Envoy without the filter: what the other tests rely on to be true."""

import hashlib
import threading

import pytest

from stack.process import DEADLINE

from . import client
from .backend import pattern, sse_event
from .facilitator import hang, refuse, reset, spends
from .payments import Payment, associated_account, base58, compact, decimal, high_s, offer, pay, unbase58, v01
from .wire import Gates
from .world import World, Worlds, _nowhere


@pytest.fixture(scope="module", params=["h1", "h2"])
def plain(request, worlds: Worlds) -> World:
    """No filter; the backend on either protocol."""
    return worlds.world(f"plain-{request.param}", filters=False, wasm=None, backend_http2=request.param == "h2")


def test_requests_arrive_as_sent(plain, protocol):
    body = pattern(2 << 20)
    answer = plain.call("/x?a=%2f", "POST", [("x-odd", b"caf\xe9")], body=body, protocol=protocol,
                        does={"kind": "echo"})
    assert answer.status == 200 and answer.clean
    assert answer.json() == {"sha256": hashlib.sha256(body).hexdigest(), "length": len(body), "trailers": []}
    seen = plain.backend.one(answer.test_id)
    assert (seen.method, seen.path, seen.header("x-odd")) == ("POST", b"/x?a=%2f", "caf\xe9")
    assert seen.body == body


def test_chunks_and_trailers(plain, protocol):
    answer = plain.call("/x", "POST", chunks=[b"one", b"two"], trailers=[("x-sum", "2")], protocol=protocol,
                        does={"kind": "echo"})
    assert answer.json()["trailers"] == [["x-sum", "2"]]
    assert plain.backend.one(answer.test_id).body == b"onetwo"
    answer = plain.call("/x", protocol=protocol, does={"kind": "trailers"})
    assert answer.trailers == [("x-from-backend", "trailer")]


def test_big_answers(plain, protocol):
    answer = plain.call("/x", protocol=protocol, does={"kind": "bytes", "size": 3 << 20})
    assert answer.body == pattern(3 << 20)


@pytest.mark.parametrize("status", [200, 204, 301, 404, 500])
def test_statuses(plain, protocol, status):
    answer = plain.call("/x", protocol=protocol, does={"status": status})
    assert answer.status == status and answer.clean


def test_head_and_empty(plain, protocol):
    assert plain.call("/x", "HEAD", protocol=protocol).body == b""
    assert plain.call("/x", protocol=protocol, does={"kind": "empty"}).body == b""


def test_resets(plain, protocol):
    assert plain.call("/x", protocol=protocol, does={"reset": "before"}).status == 503
    assert not plain.call("/x", protocol=protocol, does={"reset": "after"}).clean


def test_events_come_one_by_one(plain, protocol):
    exchange, test_id = plain.open("/x", protocol=protocol, does={"kind": "sse", "chunks": 4})
    assert exchange.head()[0] == 200
    for number in range(4):
        plain.backend.gate(test_id).release()
        assert exchange.read_until(len(sse_event(number))) == sse_event(number)
    assert exchange.read() == b""
    exchange.close()


def test_a_client_that_leaves_is_noticed(plain, protocol):
    exchange, test_id = plain.open("/x", protocol=protocol, does={"hold": True})
    plain.backend.gate(test_id).await_reached()
    exchange.leave()
    assert plain.backend.one(test_id).aborted.wait(DEADLINE)


def test_local_reply(plain):
    answer = plain.call("/reports/local-reply")
    assert answer.status == 503 and plain.reached(answer) == 0


def test_many_at_once(plain):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(plain.call("/x").status)) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 100


def test_access_log(plain):
    answer = plain.call("/logged")
    entry = plain.envoy.access_log(test_id=answer.test_id)
    # The client closes as soon as it has the answer, which Envoy may notice first: its details then speak of that.
    assert entry["status"] == 200 and entry["upstream"]


def test_facilitator_does_as_told(worlds):
    payment = pay(offer(1000))
    body = {"x402Version": 2, "paymentPayload": payment.v2, "paymentRequirements": payment.offer}
    facilitator = worlds.facilitator

    def post(what):
        import json
        return client.call(facilitator.port, "POST", f"/api/{what}", body=json.dumps(body).encode())

    assert post("verify").json() == {"isValid": True, "payer": payment.payer.address}
    assert post("settle").json()["success"] is True
    facilitator.script(payment.payload, verify=[refuse("insufficient_funds"), reset()], settle=hang())
    assert post("verify").json()["invalidReason"] == "insufficient_funds"
    with pytest.raises(client.Closed):
        post("verify")
    results = []
    waiting = threading.Thread(target=lambda: results.append(post("settle").json()))
    waiting.start()
    facilitator.gate(payment.payload).await_reached()
    assert results == []
    facilitator.gate(payment.payload).release()
    waiting.join()
    assert results[0]["success"] is True
    assert worlds.journal.of(spends(payment.payload)) == ["verify", "settle", "verify", "verify", "settle"]
    assert client.call(facilitator.port, "GET", "/api/supported").json()["kinds"]


def test_signatures():
    from eth_account import Account
    payment = pay(offer(1000))
    signature = payment.payload["signature"]
    assert len(signature) == 132 and int(signature[-2:], 16) in (27, 28)
    assert int(v01(signature)[-2:], 16) in (0, 1) and len(compact(signature)) == 130
    assert high_s(high_s(signature)) == signature != high_s(signature)
    assert decimal(10000) == "0.01" and decimal(1_000_000) == "1" and decimal(1) == "0.000001"
    assert isinstance(payment, Payment) and Account


def test_solana_addresses():
    # The USDC account of a well-known wallet, as explorers show it, would tie this to the network; the system program's
    # id and a round trip have to do.
    assert unbase58("11111111111111111111111111111111") == bytes(32)
    assert base58(associated_account("2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4",
                                     "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"))


def test_nowhere_is_a_cluster_without_endpoints():
    assert _nowhere()["load_assignment"]["endpoints"] == [{"lb_endpoints": []}]


def test_whoever_asks_first_for_a_gate_gets_the_others(worlds):
    """The test and the server do, on two threads and at the same moment."""
    gates, ready, found = Gates(worlds.loop), threading.Barrier(2), ([], [])

    def ask(mine):
        ready.wait()
        mine += [gates[str(number)] for number in range(20_000)]

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one is other for one, other in zip(*found, strict=True))
