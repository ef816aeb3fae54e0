"""Prepaid credits on a real Envoy with the real ledger, on both of its databases: what it is asked, what the backend gets, what is charged."""

import copy
import csv
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator

import pytest

from stack.envoy import cluster, wasm_plugins, with_filter_config
from stack.ledger import Ledger as Service
from stack.postgres import Postgres

from .checks import alive, paid, refused, unpaid
from .client import Closed
from .ledger import Ledger
from .metered import PRICE, QUOTE
from .metering import asks, chat, count, delta, stream, whole
from .wire import eventually
from .world import BASE, MAIN, World, changed, dead_port, price

ENTRY = {"cluster": "ledger", "url": "http://ledger.test/books", "timeout": "60s", "topup_timeout": "60s",
         "headers": {"authorization": "Bearer of-nobody"}, "breaker": {"failures": 0}}
# The default tiers.
TIERS = ["1000000", "5000000", "10000000", "20000000"]
ROUTES = [
    {"name": "paid", "match": {"path": "/paid"}, "price": price("0.01"), "accept": [BASE]},
    {"name": "upfront", "match": {"path": "/upfront"}, "price": price("0.01"), "accept": [BASE], "flow": "upfront"},
    {"name": "chat", "match": {"path": "/v1/chat/completions"}, "price": PRICE, "accept": [BASE]},
    {"name": "free", "match": {"path": "/free"}, "price": "free"},
]
CHAT = "/v1/chat/completions"


def config(ledger=None, **changes):
    """Routes of each kind, paid from balances of this ledger."""
    access = {"dummy_api_keys": ["x402"], "credits": {"enabled": True}}
    token = {"headers": {"authorization": f"Bearer {ledger.service.token}"}} if ledger else {}
    return changed(**{"routes": ROUTES, "access": access, "ledger": {**ENTRY, **token}, **changes})


def start(worlds, name, port, filter_config, **options):
    """A world whose ledger is there."""
    return worlds.world(name, filter_config, clusters=[cluster("nowhere", []), cluster("ledger", port)],
                        ready=lambda world: world.call("/paid").status == 402, **options)


def ledger_config(worlds):
    """What is sold, and who settles it."""
    return {"pay_to": MAIN["pay_to"], "accept": [BASE], "pre_check": MAIN["pre_check"], "public_url": "https://api.example.com", "credits": {"lease_ttl": "2s"},
            "facilitators": [{"url": f"http://127.0.0.1:{worlds.facilitator.port}/api"}]}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def ledger(request, worlds, tmp_path_factory) -> Iterator[Ledger]:
    server = Postgres() if request.param == "postgres" else None
    service = Service(tmp_path_factory.mktemp("ledger"), ledger_config(worlds), server and server.database())
    found = Ledger(worlds.loop, worlds.journal, service)
    found.name = request.param
    yield found
    assert "every balance is the sum" in service.command("check")
    service.stop()
    if server:
        server.stop()


@pytest.fixture(scope="module")
def world(worlds, ledger) -> World:
    return start(worlds, f"credits-{ledger.name}", ledger.port, config(ledger))


def bearer(key):
    return [("authorization", f"Bearer {key}")]


def settled(account, spent):
    """All is captured or given back, and so much was charged."""
    eventually(lambda: not account.held and account.spent == spent, f"{spent} are captured")


def called(world, key, path="/paid", headers=(), **more):
    return world.call(path, headers=[*bearer(key), *headers], **more)


def test_a_key_pays_from_its_balance(world, ledger, protocol):
    account = ledger.account(25_000)
    for _ in range(2):
        answer = called(world, account.key, protocol=protocol)
        assert answer.status == 200 and not answer.has_receipt
        assert answer.tokens("cache-control") & {"private"}
        seen = world.backend.one(answer.test_id)
        assert seen.header("authorization") is None
        assert (seen.header("x-x402-payer"), seen.header("x-x402-network")) == (account.tenant, "credits")
        assert (seen.header("x-x402-amount"), seen.header("x-x402-scheme")) == ("10000", "credits")
    settled(account, 20_000)
    answer = called(world, account.key, protocol=protocol)
    assert answer.status == 402 and answer.json()["error"]["code"] == "insufficient_credits"
    assert [offer["amount"] for offer in answer.challenge["accepts"]] == TIERS
    assert answer.challenge["resource"]["url"].endswith("/paid")
    assert world.reached(answer) == 0
    assert (account.balance, account.spent) == (5_000, 20_000)


def test_the_flow_of_the_route_does_not_matter(world, ledger):
    account = ledger.account(10_000)
    assert called(world, account.key, "/upfront").status == 200
    settled(account, 10_000)


def test_an_unknown_key_is_refused_with_and_without_a_payment(world):
    """Nothing is settled for it."""
    payment = world.payment("/paid")
    for paying in (None, payment):
        answer = world.call("/paid", headers=bearer("x402_unknown"), payment=paying)
        assert answer.status == 401 and world.reached(answer) == 0
        assert answer.json()["error"]["code"] == "invalid_api_key" and answer.all("www-authenticate") == ["Bearer"]
    world.no_calls(payment)


def test_a_revoked_key_is_unknown_at_once(world, ledger):
    account = ledger.account(20_000)
    assert called(world, account.key).status == 200
    settled(account, 10_000)
    [key] = ledger.service.admin("GET", f"/tenants/{account.tenant}/keys")
    assert ledger.service.call("DELETE", f"/admin/v1/keys/{key['id']}", headers={"authorization": "Bearer of-nobody-here"})[0] == 401
    ledger.service.command("key", "revoke", key["id"])
    assert called(world, account.key).status == 401
    assert account.balance == 10_000


def test_only_the_hash_of_the_key_travels(world, ledger):
    account = ledger.account(10_000)
    assert called(world, account.key).status == 200
    for _, body, request in list(ledger.calls):
        text = json.dumps(body) + repr(vars(request))
        assert account.key not in text
        assert request.all("authorization") == [f"Bearer {ledger.service.token}"]
        assert request.path.startswith(b"/books/internal/v1/")
    for log in (world.envoy.log(), ledger.service.logs()):
        assert account.key not in log and ledger.service.token not in log


def test_sixty_four_at_once_on_a_balance_for_ten(world, ledger):
    account = ledger.account(100_000)
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: called(world, account.key), range(64)))
    assert sorted(answer.status for answer in answers) == [200] * 10 + [402] * 54
    assert sum(world.reached(answer) for answer in answers) == 10
    settled(account, 100_000)
    assert account.balance == 0


@pytest.mark.parametrize("does", [{"status": 400}, {"status": 500}, {"reset": "before"}, {"reset": "after"}])
def test_a_failure_costs_nothing_unless_it_had_begun(world, ledger, does):
    account = ledger.account(10_000)
    answer = called(world, account.key, does=does, may_close=True)
    assert isinstance(answer, Closed) or not answer.clean or answer.status >= 400
    begun = does.get("reset") == "after"
    settled(account, 10_000 if begun else 0)
    assert account.balance == (0 if begun else 10_000)


def test_the_payment_goes_to_the_ledger_alone(world, ledger):
    """The same request again, with a payment and the key: topped up, and served from the new balance."""
    account = ledger.account()
    assert called(world, account.key).status == 402
    payment = world.payment("/paid", headers=bearer(account.key))
    answer = called(world, account.key, payment=payment)
    assert answer.status == 200 and answer.receipt["transaction"] and answer.receipt["success"]
    for what in ("verify", "settle"):
        [call] = world.facilitator.calls(payment.payload, what)
        # The filter has a header that it says who it is with.
        assert call.request.header("x-facilitator-key") is None
        assert account.key not in repr(vars(call.request))
    assert world.backend.one(answer.test_id).header("payment-signature") is None
    settled(account, 10_000)
    assert (account.funded, account.balance) == (1_000_000, 990_000)
    assert ledger.heard("reserve")[-1]["headers"] == [["payment-signature", payment.headers()[0][1]]]
    # Sent again it credits nothing, and is served from the balance.
    for _ in range(2):
        answer = called(world, account.key, payment=payment)
        assert answer.status == 200 and answer.receipt["transaction"]
    settled(account, 30_000)
    assert (account.funded, account.balance) == (1_000_000, 970_000)
    assert world.count(payment, "settle") == 1


def test_without_a_key_nothing_is_different(world, protocol):
    payment = world.payment("/paid")
    paid(world, world.call("/paid", payment=payment, protocol=protocol), payment)
    unpaid(world, world.call("/paid", headers=bearer("x402"), protocol=protocol), 402)
    assert world.call("/free", headers=bearer("sk-1")).status == 200


@pytest.mark.parametrize("usage, spent", [((211, 57), 1098), ((1, 1), 13), ((10**6, 10**6), QUOTE)])
def test_tokens_are_counted_as_they_stream(world, ledger, usage, spent):
    """The reader asks for the count in the client's name, which the client does not see, and lowers the limit that was quoted."""
    account = ledger.account(10_000)
    asked = asks(chat())
    asked["headers"] = [*asked["headers"], *bearer(account.key)]
    answer = world.call(CHAT, does=stream(delta("Hello"), count(*usage), "[DONE]", free=True), **asked)
    assert answer.status == 200 and b"Hello" in answer.body and b"[DONE]" in answer.body
    assert b"prompt_tokens" not in answer.body
    seen = json.loads(world.backend.one(answer.test_id).body)
    assert seen["stream_options"] == {"include_usage": True} and seen["max_tokens"] == 100
    settled(account, spent)
    assert ledger.heard("reserve")[-1]["amount"] == str(QUOTE)


def test_a_whole_answer_is_counted_too(world, ledger):
    account = ledger.account(10_000)
    asked = asks({"max_tokens": 100, "messages": []})
    asked["headers"] = [*asked["headers"], *bearer(account.key)]
    answer = world.call(CHAT, does=whole({"usage": {"prompt_tokens": 211, "completion_tokens": 20}}), **asked)
    assert answer.status == 200
    settled(account, 728)


def test_what_is_due_is_told_again_until_it_is_heard(world, ledger):
    account = ledger.account(10_000)
    ledger.fails["capture"] = 2
    assert called(world, account.key).status == 200
    settled(account, 10_000)
    assert ledger.fails["capture"] == 0


def test_a_ledger_that_fails_serves_nobody_and_holds_nothing(world, ledger):
    account = ledger.account(10_000)
    ledger.fails["reserve"] = 1
    unpaid(world, called(world, account.key), 503, "ledger_unavailable")
    asked = ledger.heard("reserve")[-1]["id"]
    eventually(lambda: {"id": asked, "amount": "0"} in ledger.heard("capture"), "it is given up")
    assert account.balance == 10_000
    assert called(world, account.key).status == 200


def test_a_ledger_that_is_not_there(worlds):
    """Requests with a key are refused; the others are served as ever."""
    world = start(worlds, "credits-down", dead_port(), config())
    unpaid(world, called(world, "x402_any"), 503, "ledger_unavailable")
    payment = world.payment("/paid")
    paid(world, world.call("/paid", payment=payment), payment)
    assert world.metric("x402_reservations.outcome.unavailable") >= 1
    alive(world)


@pytest.mark.parametrize("status", [401, 500])
def test_a_ledger_that_only_fails_is_left_alone(worlds, status):
    """Such as one that does not know Envoy's token. Nothing is held, and the breaker opens: nobody asks it any more."""
    ledger = Ledger(worlds.loop, worlds.journal, None)
    ledger.status, ledger.fails = status, {"reserve": 10**6, "capture": 10**6}
    entry = {**ENTRY, "breaker": {"failures": 5, "open": "10m"}}
    world = start(worlds, f"credits-failing-{status}", ledger.port, changed(**{**config(), "ledger": entry}), workers=1)
    for _ in range(20):
        unpaid(world, called(world, "x402_any"), 503, "ledger_unavailable")
    # What is given up fails too, and counts.
    assert len(ledger.heard("reserve")) == 5 if status == 401 else 1 <= len(ledger.heard("reserve")) <= 5
    if status == 401:
        assert not ledger.heard("capture")
    world.envoy.stop()


def test_as_much_is_served_as_may_be_open_while_the_ledger_is_down(worlds, ledger):
    """Three times a cent, on both workers, and all of it is charged when the ledger is back."""
    access = {"dummy_api_keys": ["x402"], "credits": {"enabled": True, "on_ledger_failure": {"allow_up_to": "$0.03"}}}
    world = start(worlds, f"credits-trust-{ledger.name}", ledger.port, config(ledger, access=access))
    account = ledger.account(100_000)
    assert called(world, account.key).status == 200
    settled(account, 10_000)
    ledger.service.kill()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: called(world, account.key), range(16)))
    assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 13
    served = [answer for answer in answers if answer.status == 200]
    assert all(world.backend.one(answer.test_id).header("x-x402-payer") == "unknown" for answer in served)
    payment = world.payment("/paid")
    assert called(world, account.key, payment=payment).status == 503
    ledger.service.start()
    settled(account, 40_000)
    # It is open no more.
    assert called(world, account.key).status == 200
    settled(account, 50_000)
    assert world.metric("x402_reservations.outcome.trusted") == 3
    alive(world)


def test_a_busy_key_is_not_asked_about_each_time(worlds, ledger):
    """A balance for twenty: whatever is leased on either worker, twenty are served, and all is charged in the end."""
    access = {"dummy_api_keys": ["x402"], "credits": {"enabled": True, "lease": "$0.04"}}
    world = start(worlds, f"credits-lease-{ledger.name}", ledger.port, config(ledger, access=access))
    rich = ledger.account(10_000_000)
    before = len(ledger.heard("reserve"))
    for _ in range(40):
        assert called(world, rich.key).status == 200
    assert len(ledger.heard("reserve")) - before < 30
    assert world.metric("x402_reservations.outcome.leased") > 10
    settled(rich, 400_000)
    assert rich.balance == 9_600_000
    account = ledger.account(200_000)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: called(world, account.key), range(64)))
    # What is leased on one worker is not to be had on the other before it ends.
    served = sum(answer.status == 200 for answer in answers)
    assert 16 <= served <= 20 and {answer.status for answer in answers} == {200, 402}
    settled(account, served * 10_000)
    while called(world, account.key).status == 200:
        served += 1
    settled(account, 200_000)
    assert served == 20 and account.balance == 0
    # A lease that nobody has heard of goes back at once, as its reservation does.
    unlucky, served = ledger.account(4_000_000), 0
    ledger.loses_leases = 1
    while (status := called(world, unlucky.key).status) == 200:
        served += 1
    assert status == 503 and ledger.heard("reserve")[-1]["lease"]["amount"] == "40000"
    settled(unlucky, served * 10_000)
    alive(world)


def test_a_payment_that_nobody_can_read(world, ledger):
    account = ledger.account(10_000)
    for value in (b"\xff\xfe", b"%%%", b"e30="):
        answer = called(world, account.key, headers=[("payment-signature", value)])
        unpaid(world, answer, 400)
    assert account.balance == 10_000


@pytest.mark.parametrize("what", ["filter", "VM"])
def test_a_new_configuration_in_the_middle_of_an_answer(worlds, ledger, what):
    """What is due is captured by the old one, however long the ledger does not listen; where the VM is another one, if it listens at once."""
    world = start(worlds, f"credits-reload-{what}-{ledger.name}", ledger.port, config(ledger))
    account = ledger.account(20_000)
    exchange, test_id = world.open("/paid", headers=bearer(account.key), does={"kind": "sse", "chunks": 2})
    world.backend.gate(test_id).await_reached()
    before, fails = len(ledger.heard("capture")), 2 if what == "filter" else 0
    if what == "filter":
        changed_config = with_filter_config(world.envoy.config, config(ledger, pre_check={"clock_skew": "7s"}))
    else:
        changed_config = another_vm(world)
    assert world.envoy.update(config=changed_config) is None
    ledger.fails["capture"] = fails
    world.backend.gate(test_id).release(2)
    assert exchange.response().status == 200
    exchange.close()
    settled(account, 10_000)
    assert len(ledger.heard("capture")) == before + 1 + fails
    assert called(world, account.key).status == 200
    settled(account, 20_000)
    alive(world)


def another_vm(world):
    """The same configuration in another VM."""
    changed_config = copy.deepcopy(world.envoy.config)
    for plugin in wasm_plugins(changed_config):
        plugin["vm_config"]["environment_variables"] = {"key_values": {"generation": "2"}}
    return changed_config


def test_limits_of_the_account_go_along(worlds, ledger):
    limits = {"account": {"requests": 3, "window": "24h", "spend": "$2"}}
    world = start(worlds, f"credits-limits-{ledger.name}", ledger.port, config(ledger, limits=limits))
    account, other = ledger.account(100_000), ledger.account(100_000)
    for _ in range(3):
        assert called(world, account.key).status == 200
    assert ledger.heard("reserve")[-1]["limits"] == {"requests": 3, "window_ms": 86_400_000, "spend": "2000000"}
    answer = called(world, account.key)
    assert answer.status == 429 and answer.json()["error"]["code"] == "account_limit_exceeded"
    assert 86_000 < int(answer.all("retry-after")[0]) <= 86_400 and world.reached(answer) == 0
    assert called(world, other.key).status == 200
    settled(account, 30_000)


def test_off_is_as_if_it_were_not_there(worlds, ledger):
    """Not one call, and a key excuses nobody from paying."""
    access = {"dummy_api_keys": ["x402"], "credits": {"enabled": False}}
    world = start(worlds, f"credits-off-{ledger.name}", ledger.port, config(ledger, access=access))
    before = len(ledger.calls)
    key = ledger.account(10_000).key
    refused(called(world, key), 402)
    payment = world.payment("/paid")
    answer = world.call("/paid", headers=bearer(key), payment=payment)
    paid(world, answer, payment)
    assert world.backend.one(answer.test_id).header("authorization") == f"Bearer {key}"
    assert len(ledger.calls) == before
    assert not world.envoy.metrics(r"^x402_(reservations|captures|spent)")


def test_the_journal_by_pages_by_filters_and_as_a_table(ledger):
    """Of one tenant, whatever is asked for with its key; the command has the same."""
    service, account, other = ledger.service, ledger.account(), ledger.account(7_000_000)
    reasons = ["plain", "a, b", 'say "x"', "two\nlines", "=1+1"]
    for number, reason in enumerate(reasons):
        service.admin("POST", f"/tenants/{account.tenant}/adjustments",
                      {"amount": f"{number + 1}.00", "reference": f"{account.tenant}-{number}", "reason": reason})
        time.sleep(0.002)

    def asked(query="", status=200):
        found, headers, said = service.call("GET", f"/v1/billing/transactions?{query}", headers=dict(bearer(account.key)))
        assert found == status, said
        return headers, said

    rows = asked()[1]["data"]
    assert [row["payment"] for row in rows] == reasons[::-1] and [row["amount"] for row in rows] == ["5.00", "4.00", "3.00", "2.00", "1.00"]
    assert [row["balance_after"] for row in rows] == ["15.00", "10.00", "6.00", "3.00", "1.00"]
    assert {(row["tenant"], row["kind"], row["debit"], row["credit"]) for row in rows} == {(account.tenant, "adjustment", "adjustments", "available")}

    pages, before = [], ""
    while before is not None:
        page = asked(f"limit=2{before and f'&before={before}'}")[1]
        pages.append(page["data"])
        assert page["has_more"] == (page["next"] is not None)
        before = page["next"]
    assert [len(page) for page in pages] == [2, 2, 1] and sum(pages, []) == rows
    middle = rows[2]
    for query, expected in ((f"reference={middle['reference']}", [middle]), ("kind=adjustment", rows), ("kind=usage", []),
                            (f"since={middle['created_at']}", rows[:3]), (f"until={middle['created_at']}", rows[3:]),
                            (f"since={middle['created_at']}&limit=1", rows[:1]), (f"tenant={other.tenant}", rows)):
        assert asked(query)[1]["data"] == expected, query
    for wrong in ("limit=0", "limit=1001", "limit=x", "kind=nothing", "format=xml"):
        asked(wrong, 400)

    tables, before = "", ""
    while before is not None:
        headers, said = asked(f"format=csv&limit=2{before and f'&before={before}'}")
        tables += said["text"] if not tables else said["text"].split("\r\n", 1)[1]
        before = headers["x-next"] or None
    read = list(csv.DictReader(io.StringIO(tables, newline="")))
    # What a table program would take for a formula is a text.
    assert [row["payment"] for row in read] == [reason if reason[0] != "=" else f"'{reason}" for reason in reasons[::-1]]
    assert [{**row, "payment": ""} for row in read] == [{**{name: str(value) for name, value in row.items()}, "payment": ""} for row in rows]
    assert export(service, "--tenant", account.tenant) == read
    assert export(service, "--tenant", account.tenant, "--since", str(middle["created_at"]), "--until", str(rows[0]["created_at"])) == read[1:3]
    assert {row["tenant"] for row in export(service)} >= {account.tenant, other.tenant}


def export(service, *words):
    """What the command prints, read."""
    return list(csv.DictReader(io.StringIO(service.command("export", *words), newline="")))


def test_nobody_is_let_in_with_anothers_token(ledger):
    """Every path of the API, as it describes itself."""
    service, account = ledger.service, ledger.account(1_000_000)
    tokens = {"data_path": service.token, "admin": service.env["X402_LEDGER_ADMIN_TOKEN"], "api_key": account.key}
    described, protected = service.call("GET", "/openapi.json")[2], set()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method == "parameters":
                continue
            [needed] = [name for one in operation.get("security", []) for name in one] or [None]
            if needed is None:
                assert path in ("/v1/billing/x402/webhook", "/healthz", "/readyz", "/metrics"), path
                continue
            protected.add(path)
            sent = {"method": method.upper(), "body": None if method == "get" else {},
                    "path": path.replace("{tenant}", account.tenant).replace("{key}", "key_none").replace("{facilitator}", "0")}
            for name, token in [*tokens.items(), ("nobody", "x" * 40), ("none", "")]:
                status, headers, said = service.call(**sent, headers=dict(bearer(token)) if token else {})
                assert (status == 401) == (name != needed), (path, method, name, status, said)
                assert status != 401 or headers["www-authenticate"] == "Bearer"
    assert len(protected) > 12 and account.balance == 1_000_000


def test_it_is_counted(world, ledger):
    account = ledger.account(10_000)
    spent = world.metric("x402_spent_credits")
    assert called(world, account.key).status == 200
    eventually(lambda: world.metric("x402_spent_credits") == spent + 10_000, "what was spent is counted")
    assert world.metric("x402_captures.outcome.captured") >= 1
    alive(world)
