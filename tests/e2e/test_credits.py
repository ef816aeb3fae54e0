"""Prepaid credits on a real Envoy: what the ledger is asked, what the backend gets, and what is captured in the end."""

import copy
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from stack.envoy import cluster, managers, with_filter_config

from .checks import alive, paid, refused, unpaid
from .client import Closed
from .ledger import Ledger
from .metered import PRICE, QUOTE
from .metering import asks, chat, count, delta, stream, whole
from .wire import eventually
from .world import BASE, World, changed, dead_port, price

ENTRY = {"cluster": "ledger", "url": "http://ledger.test/books", "timeout": "60s", "topup_timeout": "60s",
         "headers": {"authorization": "Bearer of-envoy"}, "breaker": {"failures": 0}}
ROUTES = [
    {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]},
    {"name": "upfront", "match": {"path": "/upfront"}, "price": price("0.01"), "accept": [BASE], "flow": "upfront"},
    {"name": "chat", "match": {"path": "/v1/chat/completions"}, "price": PRICE, "accept": [BASE]},
    {"name": "free", "match": {"path": "/free"}, "price": "free"},
]
CHAT = "/v1/chat/completions"
numbers = itertools.count(1)


def config(**changes):
    """Routes of each kind, paid from balances."""
    access = {"dummy_api_keys": ["x402"], "credits": {"enabled": True}}
    return changed(**{"routes": ROUTES, "access": access, "ledger": ENTRY, **changes})


@pytest.fixture(scope="module")
def ledger(worlds) -> Ledger:
    return Ledger(worlds.loop, worlds.journal)


@pytest.fixture(scope="module")
def world(worlds, ledger) -> World:
    return worlds.world("credits", config(), clusters=[cluster("nowhere", []), cluster("ledger", ledger.port)],
                        ready=lambda world: world.call("/paid").status == 402)


@pytest.fixture
def key() -> str:
    return f"sk-canary-{next(numbers)}"


def bearer(key):
    return [("authorization", f"Bearer {key}")]


def settled(account, spent):
    """All is captured or given back, and so much was charged."""
    eventually(lambda: not account.held and account.spent == spent, f"{spent} are captured")


def called(world, key, path="/paid", headers=(), **more):
    return world.call(path, headers=[*bearer(key), *headers], **more)


def test_a_key_pays_from_its_balance(world, ledger, key, protocol):
    account = ledger.account(key, 25_000)
    for _ in range(2):
        answer = called(world, key, protocol=protocol)
        assert answer.status == 200 and not answer.has_receipt
        assert answer.tokens("cache-control") & {"private"}
        seen = world.backend.one(answer.test_id)
        assert seen.header("authorization") is None
        assert (seen.header("x-x402-payer"), seen.header("x-x402-network")) == ("ten_1", "credits")
        assert (seen.header("x-x402-amount"), seen.header("x-x402-scheme")) == ("10000", "credits")
    settled(account, 20_000)
    answer = called(world, key, protocol=protocol)
    assert answer.status == 402 and answer.json()["error"]["code"] == "insufficient_credits"
    assert answer.all("payment-required") == ["e30="] and not answer.all("set-cookie")
    assert world.reached(answer) == 0
    assert (account.balance, account.spent) == (5_000, 20_000)


def test_the_flow_of_the_route_does_not_matter(world, ledger, key):
    account = ledger.account(key, 10_000)
    assert called(world, key, "/upfront").status == 200
    settled(account, 10_000)


def test_an_unknown_key_is_the_ledger_s_to_refuse(world, key):
    answer = called(world, key)
    assert answer.status == 401 and world.reached(answer) == 0


def test_only_the_hash_of_the_key_travels(world, ledger, key):
    ledger.account(key, 10_000)
    assert called(world, key).status == 200
    for _, body, request in list(ledger.calls):
        text = json.dumps(body) + repr(vars(request))
        assert "sk-canary" not in text
        assert request.all("authorization") == ["Bearer of-envoy"]
        assert request.path.startswith(b"/books/internal/v1/")
    assert "sk-canary" not in world.envoy.log() and "of-envoy" not in world.envoy.log()


def test_sixty_four_at_once_on_a_balance_for_ten(world, ledger, key):
    account = ledger.account(key, 100_000)
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: called(world, key), range(64)))
    assert sorted(answer.status for answer in answers) == [200] * 10 + [402] * 54
    assert sum(world.reached(answer) for answer in answers) == 10
    settled(account, 100_000)
    assert account.balance == 0


@pytest.mark.parametrize("does", [{"status": 400}, {"status": 500}, {"reset": "before"}, {"reset": "after"}])
def test_a_failure_costs_nothing_unless_it_had_begun(world, ledger, key, does):
    account = ledger.account(key, 10_000)
    answer = called(world, key, does=does, may_close=True)
    assert isinstance(answer, Closed) or not answer.clean or answer.status >= 400
    begun = does.get("reset") == "after"
    settled(account, 10_000 if begun else 0)
    assert account.balance == (0 if begun else 10_000)


def test_the_payment_goes_to_the_ledger_alone(world, ledger, key):
    """The same request again, with a payment and the key: topped up, and served from the new balance."""
    account = ledger.account(key, 0)
    assert called(world, key).status == 402
    payment = world.payment("/paid")
    answer = world.call("/paid", headers=bearer(key), payment=payment)
    assert answer.status == 200 and answer.all("payment-response") == ["e30="]
    assert world.count(payment, "verify") == world.count(payment, "settle") == 0
    assert world.backend.one(answer.test_id).header("payment-signature") is None
    settled(account, 10_000)
    assert account.balance == 990_000
    assert ledger.heard("reserve")[-1]["headers"] == [["payment-signature", payment.headers()[0][1]]]


def test_without_a_key_nothing_is_different(world, protocol):
    payment = world.payment("/paid")
    paid(world, world.call("/paid", payment=payment, protocol=protocol), payment)
    unpaid(world, world.call("/paid", headers=bearer("x402"), protocol=protocol), 402)
    assert world.call("/free", headers=bearer("sk-1")).status == 200


@pytest.mark.parametrize("usage, spent", [((211, 57), 1098), ((1, 1), 13), ((10**6, 10**6), QUOTE)])
def test_tokens_are_counted_as_they_stream(world, ledger, key, usage, spent):
    """The reader asks for the count in the client's name, which the client does not see, and lowers the limit that was quoted."""
    account = ledger.account(key, 10_000)
    asked = asks(chat())
    asked["headers"] = [*asked["headers"], *bearer(key)]
    answer = world.call(CHAT, does=stream(delta("Hello"), count(*usage), "[DONE]", free=True), **asked)
    assert answer.status == 200 and b"Hello" in answer.body and b"[DONE]" in answer.body
    assert b"prompt_tokens" not in answer.body
    seen = json.loads(world.backend.one(answer.test_id).body)
    assert seen["stream_options"] == {"include_usage": True} and seen["max_tokens"] == 100
    settled(account, spent)
    assert ledger.heard("reserve")[-1]["amount"] == str(QUOTE)


def test_a_whole_answer_is_counted_too(world, ledger, key):
    account = ledger.account(key, 10_000)
    asked = asks({"max_tokens": 100, "messages": []})
    asked["headers"] = [*asked["headers"], *bearer(key)]
    answer = world.call(CHAT, does=whole({"usage": {"prompt_tokens": 211, "completion_tokens": 20}}), **asked)
    assert answer.status == 200
    settled(account, 728)


def test_what_is_due_is_told_again_until_it_is_heard(world, ledger, key):
    account = ledger.account(key, 10_000)
    ledger.fails["capture"] = 2
    assert called(world, key).status == 200
    settled(account, 10_000)
    assert ledger.fails["capture"] == 0


def test_a_ledger_that_fails_serves_nobody_and_holds_nothing(world, ledger, key):
    account = ledger.account(key, 10_000)
    ledger.fails["reserve"] = 1
    unpaid(world, called(world, key), 503, "ledger_unavailable")
    asked = ledger.heard("reserve")[-1]["id"]
    eventually(lambda: {"id": asked, "amount": "0"} in ledger.heard("capture"), "it is given up")
    assert account.balance == 10_000
    assert called(world, key).status == 200


def test_a_ledger_that_is_not_there(worlds, key):
    """Requests with a key are refused; the others are served as ever."""
    world = worlds.world("credits-down", config(), clusters=[cluster("nowhere", []), cluster("ledger", dead_port())],
                         ready=lambda world: world.call("/paid").status == 402)
    unpaid(world, called(world, key), 503, "ledger_unavailable")
    payment = world.payment("/paid")
    paid(world, world.call("/paid", payment=payment), payment)
    assert world.metric("x402_reservations.outcome.unavailable") >= 1
    alive(world)


@pytest.mark.parametrize("status", [401, 500])
def test_a_ledger_that_only_fails_is_left_alone(worlds, key, status):
    """Such as one that does not know Envoy's token. Nothing is held, and the breaker opens: nobody asks it any more."""
    ledger = Ledger(worlds.loop, worlds.journal)
    ledger.status, ledger.fails = status, {"reserve": 10**6, "capture": 10**6}
    entry = {**ENTRY, "breaker": {"failures": 5, "open": "10m"}}
    world = worlds.world(f"credits-failing-{status}", config(ledger=entry), workers=1,
                         clusters=[cluster("nowhere", []), cluster("ledger", ledger.port)],
                         ready=lambda world: world.call("/paid").status == 402)
    for _ in range(20):
        unpaid(world, called(world, key), 503, "ledger_unavailable")
    # What is given up fails too, and counts.
    assert len(ledger.heard("reserve")) == 5 if status == 401 else 1 <= len(ledger.heard("reserve")) <= 5
    if status == 401:
        assert not ledger.heard("capture")
    world.envoy.stop()


def test_a_payment_that_nobody_can_read(world, ledger, key):
    account = ledger.account(key, 10_000)
    for value in (b"\xff\xfe", b"%%%", b"e30="):
        answer = called(world, key, headers=[("payment-signature", value)])
        unpaid(world, answer, 400)
    assert account.balance == 10_000


@pytest.mark.parametrize("what", ["filter", "VM"])
def test_a_new_configuration_in_the_middle_of_an_answer(worlds, ledger, key, what):
    """What is due is captured by the old one, however long the ledger does not listen; where the VM is another one, if it listens at once."""
    world = worlds.world(f"credits-reload-{what}", config(), clusters=[cluster("nowhere", []), cluster("ledger", ledger.port)],
                         ready=lambda world: world.call("/paid").status == 402)
    account = ledger.account(key, 20_000)
    exchange, test_id = world.open("/paid", headers=bearer(key), does={"kind": "sse", "chunks": 2})
    world.backend.gate(test_id).await_reached()
    before, fails = len(ledger.heard("capture")), 2 if what == "filter" else 0
    if what == "filter":
        changed_config = with_filter_config(world.envoy.config, config(pre_check={"clock_skew": "7s"}))
    else:
        changed_config = another_vm(world)
    assert world.envoy.update(config=changed_config) is None
    ledger.fails["capture"] = fails
    world.backend.gate(test_id).release(2)
    assert exchange.response().status == 200
    exchange.close()
    settled(account, 10_000)
    assert len(ledger.heard("capture")) == before + 1 + fails
    assert called(world, key).status == 200
    settled(account, 20_000)
    alive(world)


def another_vm(world):
    """The same configuration in another VM."""
    changed_config = copy.deepcopy(world.envoy.config)
    for manager in managers(changed_config):
        for http_filter in manager["http_filters"]:
            if http_filter["name"].startswith("x402"):
                http_filter["typed_config"]["config"]["vm_config"]["environment_variables"] = {"key_values": {"generation": "2"}}
    return changed_config


def test_limits_of_the_account_go_along(worlds, ledger, key):
    limits = {"account": {"requests": 5, "window": "60s", "spend": "$2"}}
    world = worlds.world("credits-limits", config(limits=limits), clusters=[cluster("nowhere", []), cluster("ledger", ledger.port)],
                         ready=lambda world: world.call("/paid").status == 402)
    ledger.account(key, 10_000)
    assert called(world, key).status == 200
    assert ledger.heard("reserve")[-1]["limits"] == {"requests": 5, "window_ms": 60_000, "spend": "2000000"}


def test_off_is_as_if_it_were_not_there(worlds, ledger, key):
    """Not one call, and a key excuses nobody from paying."""
    access = {"dummy_api_keys": ["x402"], "credits": {"enabled": False}}
    world = worlds.world("credits-off", config(access=access), clusters=[cluster("nowhere", []), cluster("ledger", ledger.port)],
                         ready=lambda world: world.call("/paid").status == 402)
    before = len(ledger.calls)
    refused(called(world, key), 402)
    payment = world.payment("/paid")
    answer = world.call("/paid", headers=bearer(key), payment=payment)
    paid(world, answer, payment)
    assert world.backend.one(answer.test_id).header("authorization") == f"Bearer {key}"
    assert len(ledger.calls) == before
    assert not world.envoy.metrics(r"^x402_(reservations|captures|spent)")


def test_it_is_counted(world, ledger, key):
    ledger.account(key, 10_000)
    spent = world.metric("x402_spent_credits")
    assert called(world, key).status == 200
    eventually(lambda: world.metric("x402_spent_credits") == spent + 10_000, "what was spent is counted")
    assert world.metric("x402_captures.outcome.captured") >= 1
    alive(world)
