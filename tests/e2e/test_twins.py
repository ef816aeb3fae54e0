"""Two copies of one payment on two workers at the same instant, thousands of times: one is in use, and the other has it.

Each worker gets the same requests in the same order. Who takes a claim has more to do than who finds it taken, so that the workers keep
catching up with each other and meet at most payments. The facilitator never answers: nothing else runs meanwhile, and every claim is
held until its client leaves. A store that ignores the versions of what it sets lets both have it a few times in a thousand.
"""

import asyncio
import json
import socket

import pytest
from eth_account import Account

from stack.process import DEADLINE

from .checks import alive
from .crowd import Ask, one_each
from .payments import pay
from .world import World, changed

# New ones each time, and how often they are raced.
GENERATIONS, PAYMENTS, ROUNDS = 10, 200, 4


class Deaf:
    """A facilitator to which calls can be made, and that does nothing at all about them."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def hang_up(self):
        """On all who have called so far."""
        while True:
            try:
                self._socket.accept()[0].close()
            except BlockingIOError:
                return


@pytest.fixture(scope="module")
def deaf():
    found = Deaf()
    yield found
    found.hang_up()


@pytest.fixture(scope="module")
def twins(worlds, deaf) -> World:
    """Two workers."""
    return worlds.world("twins", changed(), workers=2, facilitator_port=deaf.port,
                        ready=lambda world: world.everywhere(lambda: world.call("/paid").status == 402))


async def race(world, payments):
    """Sends each payment to both workers; how many copies were refused once all of them have met their fate."""
    # New ones each time: Envoy closes connections on which too much is broken off.
    lines = await one_each(world)
    both = [(line, line.begin(Ask("/paid", payment.headers("plain")))) for line in lines for payment in payments]
    for line in lines:
        line.flush()
    async with asyncio.timeout(DEADLINE):
        while True:
            refused = [(line, stream) for line, stream in both if line.answered(stream)]
            # Each copy either was refused or holds a claim.
            if len(refused) + await asyncio.to_thread(world.metric, "x402_claims") >= len(both):
                break
            await asyncio.sleep(0.01)
    for line, stream in refused:
        status, _, body = await line.take(stream)
        assert (status, json.loads(body)["error"]) == (409, "payment_in_use"), (status, body)
    for line in lines:
        await line.close()
    return len(refused)


def test_one_of_two_copies_has_the_payment(twins, deaf):
    """In the first round most of their buckets have never been written, in the others they have: those are two ways of setting one."""
    challenge = twins.call("/paid").challenge
    payers = [Account.create() for _ in range(10)]

    async def races():
        for generation in range(GENERATIONS):
            payments = [pay(challenge["accepts"][0], payers[number % 10], challenge["resource"]) for number in range(PAYMENTS)]
            for number in range(ROUNDS):
                assert await race(twins, payments) == PAYMENTS, f"round {generation}.{number}: a payment was had twice"
                async with asyncio.timeout(DEADLINE):
                    while await asyncio.to_thread(twins.metric, "x402_claims") != 0:
                        await asyncio.sleep(0.01)
                deaf.hang_up()

    asyncio.run(races())
    alive(twins)
