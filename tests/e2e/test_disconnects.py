"""Clients that leave at the worst moment: Envoy lives, and each payment is either spent once or as good as new."""

import pytest

from .checks import alive, paid, unpaid
from .facilitator import garbage, hang, ok, refuse
from .payments import pay
from .wire import eventually
from .world import MAIN, World

# At once, and how often: a race is lost rarely.
TOGETHER = 20
ROUNDS = 3


@pytest.fixture(scope="module")
def racing(worlds) -> World:
    """An Envoy of their own: one that dies takes no other tests with it."""
    return worlds.world("racing", MAIN)


def payments(world, settle=None):
    """A round of them; their settlements wait at their gates."""
    challenge = world.call("/paid").challenge
    made = [pay(challenge["accepts"][0], resource=challenge["resource"]) for _ in range(TOGETHER)]
    for payment in made:
        if settle is not None:
            world.facilitator.script(payment.payload, settle=settle)
    return made


def at_last(world, payment):
    """The answer to the payment sent again, once the claim is out of use."""
    return eventually(lambda: (found := world.call("/paid", payment=payment)).status != 409 and found,
                      "the payment is not in use any more")


def spent(world, payment):
    """It was settled, and buys nothing more."""
    unpaid(world, at_last(world, payment), 402, "nonce_already_used")
    assert world.count(payment, "settle") == 1


def had_again(world, payment):
    """It was settled, and its answer is had when it is sent again, once."""
    answer = at_last(world, payment)
    assert answer.status == 200 and answer.receipt["success"], answer
    spent(world, payment)


def settled(world, payment):
    """It was settled. Its answer was handed to Envoy before the client was gone, or is had again."""
    if at_last(world, payment).status == 200:
        assert world.metric("x402_entitled.right.again") > 0
    spent(world, payment)


def free_again(world, payment):
    """It was refused, and buys an answer now."""
    answer = at_last(world, payment)
    assert answer.status == 200 and answer.receipt["success"], answer
    assert world.count(payment, "settle") == 2


def held(world, payment):
    """Nobody knows: it is asked about when it is sent again, and offered no new challenge."""
    unpaid(world, at_last(world, payment), 503, "settlement_pending")
    assert world.count(payment, "settle") == 2


ANSWERS = {
    # name: (what /settle answers first, and afterwards; what has become of the payment)
    "settled": (lambda: [hang(), ok()], settled),
    "refused": (lambda: [hang(refuse("insufficient_funds")), ok()], free_again),
    "unknown": (lambda: [hang(garbage()), garbage()], held),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_client_leaves_as_the_settlement_is_answered(racing, protocol, name):
    """A reset and the facilitator's answer reach the worker together, in either order."""
    answers, outcome = ANSWERS[name]
    for _ in range(ROUNDS):
        made = payments(racing)
        exchanges = []
        for payment in made:
            racing.facilitator.script(payment.payload, settle=answers())
            exchanges.append(racing.open("/paid", payment=payment, protocol=protocol)[0])
        for payment in made:
            racing.facilitator.gate(payment.payload).await_reached()
        for number, (payment, exchange) in enumerate(zip(made, exchanges)):
            racing.facilitator.gate(payment.payload).race(exchange.leave, first=number % 2 == 0)
        for payment in made:
            eventually(racing.facilitator.await_call(payment.payload, "settle").ended.is_set, "/settle is answered")
        alive(racing)
        for payment in made:
            outcome(racing, payment)
    alive(racing)


def test_client_leaves_as_the_backend_answers(racing, protocol):
    """Around the moment at which the settlement is sent: not charged, or spent, and no third state."""
    for _ in range(ROUNDS):
        made = payments(racing)
        opened = [racing.open("/paid", payment=payment, protocol=protocol, does={"hold": True}) for payment in made]
        for _, test_id in opened:
            racing.backend.gate(test_id).await_reached()
        for number, (exchange, test_id) in enumerate(opened):
            racing.backend.gate(test_id).race(exchange.leave, first=number % 2 == 0)
        for _, test_id in opened:
            racing.envoy.access_log(test_id=test_id)
        for payment in made:
            answer = at_last(racing, payment)
            if answer.status == 200:
                # This answer was paid for, and it alone.
                paid(racing, answer, payment)
            spent(racing, payment)
    alive(racing)


def test_client_leaves_as_the_payment_is_verified(racing, protocol):
    """Not charged, unless everything went on before it was noticed that the client had left."""
    for _ in range(ROUNDS):
        made = payments(racing)
        exchanges = []
        for payment in made:
            racing.facilitator.script(payment.payload, verify=[hang(), ok()])
            exchanges.append(racing.open("/paid", payment=payment, protocol=protocol))
        for payment in made:
            racing.facilitator.gate(payment.payload).await_reached()
        for number, (payment, (exchange, _)) in enumerate(zip(made, exchanges)):
            racing.facilitator.gate(payment.payload).race(exchange.leave, first=number % 2 == 0)
        for _, test_id in exchanges:
            racing.envoy.access_log(test_id=test_id)
        for payment in made:
            answer = at_last(racing, payment)
            if answer.status == 200:
                paid(racing, answer, payment)
            spent(racing, payment)
    alive(racing)


def test_client_leaves_between_the_backends_answer_and_the_settlement(racing, protocol):
    """The backend's headers are there, its body is not: whatever was sent is known."""
    made = payments(racing, hang())
    opened = [racing.open("/paid", payment=payment, protocol=protocol, does={"kind": "sse", "chunks": 1})
              for payment in made]
    for payment in made:
        racing.facilitator.gate(payment.payload).await_reached()
    for exchange, _ in opened:
        exchange.leave()
    for _, test_id in opened:
        racing.envoy.access_log(test_id=test_id)
    for payment in made:
        racing.facilitator.gate(payment.payload).release()
    for payment in made:
        had_again(racing, payment)
    alive(racing)
