"""Metered answers are delivered on trust: how much of it one payer and all of them get, and who gets none for a while."""

import copy
import json

import pytest
from eth_account import Account

from stack.envoy import wasm_plugins, with_filter_config

from .checks import alive, unpaid
from .facilitator import garbage, hang, ok, refuse
from .payments import pay
from .test_lockout import smart
from .wire import eventually
from .world import UPTO, World, changed

BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000}).encode()
QUOTE = 10_000  # 1000 tokens of output at 10 units; input is free
ASKS = {"method": "POST", "headers": [("content-type", "application/json")], "body": BODY}
ANSWER = {"kind": "body", "headers": [["content-type", "application/json"]],
          "text": json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 7}})}


def metered(name: str, terms: dict) -> dict:
    """A metered route."""
    return {"name": name, "match": {"path": f"/{name}"}, "accept": [UPTO], "flow": "metered", "metered": terms,
            "price": {"per_token": {"input": "$0", "output": "$0.00001", "max_output": 4096}}}


CONFIG = changed(routes=[
    metered("two", {"exposure": {"payer": "$0.02"}}),
    metered("three", {"exposure": {"payer": "$0.02", "total": "$0.03"}}),
    metered("three-unknown", {"exposure": {"total": "$0.03"}}),
    metered("many", {"exposure": {"payer": "$0.6"}}),
    metered("free-for-all", {"ban": "0s"}),
    metered("banning", {"ban": "3s"}),
    metered("strict", {"on_client_abort": "maximum"}),
    metered("elsewhere", {}),
])


@pytest.fixture(scope="module")
def trusting(worlds) -> World:
    """Several workers, and routes with different trust."""
    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call("/two", **ASKS).status == 402)

    return worlds.world("trusting", CONFIG, ready=ready, workers=4)


@pytest.fixture
def payer():
    """Somebody whom no other test knows."""
    return Account.create()


def payment(world: World, path: str, payer) -> object:
    """One more payment by a payer."""
    made = world.payment(path, payer=payer, **ASKS)
    assert made.offer["amount"] == str(QUOTE)
    return made


def opened(world: World, path: str, payer, **does):
    """A request whose answer waits at the backend; its payment, exchange and test id."""
    made = payment(world, path, payer)
    exchange, test_id = world.open(path, payment=made, does={"hold": True, **ANSWER, **does}, **ASKS)
    world.backend.gate(test_id).await_reached()
    return made, exchange, test_id


def refused(world: World, path: str, made, reason: str = "exposure_exceeded"):
    """Refused with word of when to come again, and nobody was asked."""
    answer = world.call(path, payment=made, does=ANSWER, **ASKS)
    unpaid(world, answer, 429, reason)
    assert int(answer.header("retry-after")) >= 1
    world.no_calls(made)
    return answer


def served(world: World, path: str, made) -> None:
    """Served, and charged for seven tokens."""
    answer = world.call(path, payment=made, does=ANSWER, **ASKS)
    assert answer.status == 200 and answer.clean, answer
    assert world.facilitator.calls(made.payload, "settle")[0].json["paymentRequirements"]["amount"] == "70"


def settles(world, opened, made):
    _, exchange, test_id = opened
    world.backend.gate(test_id).release()
    assert exchange.response().status == 200


def leaves(world, opened, made):
    opened[1].leave()
    world.envoy.access_log(test_id=opened[2])


def fails(world, opened, made):
    _, exchange, test_id = opened
    world.backend.gate(test_id).release()
    assert exchange.response().status == 500


ENDS = {"settled": (settles, {}), "client gone": (leaves, {}), "backend failed": (fails, {"status": 500})}


@pytest.mark.parametrize("name", ENDS)
def test_what_one_payer_has_open_is_bounded(trusting, payer, name):
    """Two quotes fit; a third one does, with the same payment, when one has ended."""
    end, does = ENDS[name]
    first, second = (opened(trusting, "/two", payer, **does) for _ in range(2))
    third = payment(trusting, "/two", payer)
    refused(trusting, "/two", third)
    served(trusting, "/two", payment(trusting, "/two", Account.create()))
    served(trusting, "/strict", payment(trusting, "/strict", payer))
    end(trusting, first, None)
    eventually(lambda: trusting.call("/two", payment=third, does=ANSWER, **ASKS).status == 200, "there is room again")
    leaves(trusting, second, None)
    alive(trusting)


def test_what_all_have_open_is_bounded(trusting):
    """Three quotes fit, whoever they are of."""
    held = [opened(trusting, "/three", Account.create()) for _ in range(3)]
    fourth = payment(trusting, "/three", Account.create())
    refused(trusting, "/three", fourth)
    settles(trusting, held.pop(), None)
    served(trusting, "/three", fourth)
    for one in held:
        leaves(trusting, one, None)
    # Nothing is left behind by what has ended.
    held = [opened(trusting, "/three", Account.create()) for _ in range(3)]
    for one in held:
        settles(trusting, one, None)


def test_what_is_not_known_to_be_settled_stays_open(trusting, payer):
    for _ in range(2):
        made = payment(trusting, "/two", payer)
        trusting.facilitator.script(made.payload, settle=garbage())
        assert trusting.call("/two", payment=made, does=ANSWER, **ASKS).status == 200
    refused(trusting, "/two", payment(trusting, "/two", payer))


def test_what_is_not_known_to_be_settled_counts_for_all(trusting):
    for _ in range(3):
        made = payment(trusting, "/three-unknown", Account.create())
        trusting.facilitator.script(made.payload, settle=garbage())
        assert trusting.call("/three-unknown", payment=made, does=ANSWER, **ASKS).status == 200
    refused(trusting, "/three-unknown", payment(trusting, "/three-unknown", Account.create()))


def test_one_payer_may_have_many_open(worlds, payer):
    """As many as the limit allows, in the smallest store that can be configured."""
    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call("/many", **ASKS).status == 402)

    world = worlds.world("trusting-small", {**CONFIG, "replay": {"max_claims": 1000}}, ready=ready)
    held = [opened(world, "/many", payer) for _ in range(60)]
    refused(world, "/many", payment(world, "/many", payer))
    served(world, "/many", payment(world, "/many", Account.create()))
    for one in held:
        settles(world, one, None)
    served(world, "/many", payment(world, "/many", payer))


def test_many_at_once_get_no_more_than_the_limit(trusting, payer):
    """On all workers together."""
    made = [payment(trusting, "/two", payer) for _ in range(20)]
    exchanges = [trusting.open("/two", payment=one, does={"hold": True, **ANSWER}, **ASKS) for one in made]
    eventually(lambda: sum(bool(trusting.backend.requests(test_id)) for _, test_id in exchanges) == 2, "two are served")
    statuses = []
    for exchange, test_id in exchanges:
        if trusting.backend.requests(test_id):
            trusting.backend.gate(test_id).release()
        statuses.append(exchange.response().status)
    assert sorted(statuses) == [200] * 2 + [429] * 18


def not_paid(world: World, path: str, payer) -> None:
    """An answer whose settlement is refused when the client has had it."""
    made = payment(world, path, payer)
    world.facilitator.script(made.payload, settle=refuse("insufficient_funds"))
    known = world.metric("x402_served_unsettled")
    exchange, _ = world.open(path, payment=made, does=ANSWER, **ASKS)
    assert exchange.head()[0] == 200
    eventually(lambda: world.metric("x402_served_unsettled") == known + 1, "it was not paid for")
    exchange.close()


def test_who_did_not_pay_is_refused_on_that_route_for_a_while(trusting, payer):
    not_paid(trusting, "/strict", payer)
    again = payment(trusting, "/strict", payer)
    answer = refused(trusting, "/strict", again, "payer_banned")
    assert 3590 <= int(answer.header("retry-after")) <= 3601
    served(trusting, "/elsewhere", payment(trusting, "/elsewhere", payer))
    served(trusting, "/strict", payment(trusting, "/strict", Account.create()))


def test_who_left_and_did_not_pay_is_refused_too(trusting, payer):
    """The settlement of an answer whose client has left is as good as any other."""
    made = payment(trusting, "/strict", payer)
    trusting.facilitator.script(made.payload, settle=refuse("insufficient_funds"))
    exchange, test_id = trusting.open("/strict", payment=made, does={"kind": "sse", "chunks": 2}, **ASKS)
    trusting.backend.gate(test_id).release()
    exchange.read_until(1)
    exchange.leave()
    trusting.facilitator.await_call(made.payload, "settle")
    again = payment(trusting, "/strict", payer)
    eventually(lambda: trusting.call("/strict", payment=again, does={"status": 500}, **ASKS).status == 429, "it is banned")
    calls = len(trusting.facilitator.calls(again.payload))
    assert trusting.call("/strict", payment=again, **ASKS).json()["error"] == "payer_banned"
    assert len(trusting.facilitator.calls(again.payload)) == calls


def test_a_ban_ends(trusting, payer):
    not_paid(trusting, "/banning", payer)
    again = payment(trusting, "/banning", payer)
    refused(trusting, "/banning", again, "payer_banned")
    eventually(lambda: trusting.call("/banning", payment=again, does=ANSWER, **ASKS).status == 200, "the ban has ended")


def test_bans_can_be_done_without(trusting, payer):
    not_paid(trusting, "/free-for-all", payer)
    served(trusting, "/free-for-all", payment(trusting, "/free-for-all", payer))


@pytest.mark.parametrize("what", ["filter", "VM"])
def test_a_new_configuration_forgets_neither(worlds, payer, what):
    """The filter's own, or its VM's: a new VM with the old one's store."""
    def ready(world: World) -> bool:
        return world.everywhere(lambda: world.call("/two", **ASKS).status == 402)

    world = worlds.world("trusting-reloaded", CONFIG, ready=ready)
    held, exchanges = [], []
    for _ in range(2):
        made = payment(world, "/two", payer)
        world.facilitator.script(made.payload, settle=hang())
        exchanges.append(world.open("/two", payment=made, does=ANSWER, **ASKS)[0])
        world.facilitator.gate(made.payload).await_reached()
        held.append(made)
    not_paid(world, "/strict", payer)
    other = copy.deepcopy(world.envoy.config)
    if what == "filter":
        other = with_filter_config(other, {**CONFIG, "quote_grace": "61s"})
    else:
        for plugin in wasm_plugins(other):
            plugin["vm_config"]["environment_variables"] = {"key_values": {"generation": "2"}}
    assert world.envoy.update(config=other) is None
    third = payment(world, "/two", payer)
    refused(world, "/two", third)
    refused(world, "/strict", payment(world, "/strict", payer), "payer_banned")
    for made in held:
        world.facilitator.gate(made.payload).release()
    eventually(lambda: world.call("/two", payment=third, does=ANSWER, **ASKS).status == 200, "there is room again")
    served(world, "/two", payment(world, "/two", payer))
    for exchange in exchanges:
        exchange.close()
    alive(world)


def test_a_payer_that_is_only_named_is_neither_charged_nor_locked_out(trusting, payer):
    """Whoever signs for somebody else is refused before any trust is taken."""
    attacker = Account.create()
    for _ in range(5):
        made = payment(trusting, "/two", attacker)
        made.payload["permit2Authorization"]["from"] = payer.address
        answer = trusting.call("/two", payment=made, does=ANSWER, **ASKS)
        unpaid(trusting, answer, 402)
    for _ in range(2):
        served(trusting, "/two", pay(trusting.payment("/two", payer=payer, **ASKS).offer, payer))


def test_a_smart_wallet_that_is_only_named_takes_no_trust(trusting, payer):
    """What only the chain can judge is trusted once it has been."""
    attacks = [smart(payment(trusting, "/two", payer)) for _ in range(3)]
    exchanges = []
    for made in attacks:
        trusting.facilitator.script(made.payload, verify=hang(refuse("invalid_signature")))
        exchanges.append(trusting.open("/two", payment=made, does=ANSWER, **ASKS)[0])
        trusting.facilitator.gate(made.payload).await_reached()
    held = [opened(trusting, "/two", payer) for _ in range(2)]
    for made, exchange in zip(attacks, exchanges):
        trusting.facilitator.gate(made.payload).release()
        assert exchange.response().status == 402
    # They took nothing along.
    refused(trusting, "/two", payment(trusting, "/two", payer))
    for one in held:
        settles(trusting, one, None)


def test_a_smart_wallets_trust_is_bounded(trusting, payer):
    def signed() -> object:
        return smart(payment(trusting, "/two", payer))

    late = signed()
    trusting.facilitator.script(late.payload, verify=[hang(), ok()])
    exchange, test_id = trusting.open("/two", payment=late, does=ANSWER, **ASKS)
    trusting.facilitator.gate(late.payload).await_reached()
    held = []
    for made in (signed(), signed()):
        opening = trusting.open("/two", payment=made, does={"hold": True, **ANSWER}, **ASKS)
        trusting.backend.gate(opening[1]).await_reached()
        held.append((made, *opening))
    # Before the facilitator is asked, and after it has vouched for one that was in time.
    refused(trusting, "/two", signed())
    trusting.facilitator.gate(late.payload).release()
    assert exchange.response().status == 429
    assert trusting.backend.requests(test_id) == []
    for one in held:
        settles(trusting, one, None)
    served(trusting, "/two", late)
