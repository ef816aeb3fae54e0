"""Every way in which a payment is made to fail, one function each.

A scenario takes a fresh case and asks its facilitator. Whose doing a failure is (`payer`, `facilitator`, `nobody`) is said here, by who did it.
"""

from __future__ import annotations

from typing import Callable, Iterator

from tests.clients.payer import BURNS

from .recorder import SCHEMES, Case

Run = Callable[[Case], None]


def burns(transfer: str) -> tuple[str, ...]:
    """How a nonce can be burnt."""
    return BURNS["eip3009" if transfer == "eip3009" else "permit2"]


def good(case: Case) -> None:
    """Nothing is wrong, and then the same payment is settled once more."""
    payment = case.payment()
    case.verify(payment, "nobody")
    case.settle(payment, "nobody")
    case.dust_settles()
    case.settle(payment, "payer", "it was settled before")
    case.another()
    case.settle(payment, "payer", "it was settled before, by another instance")


def burnt(how: str) -> Run:
    """The payer burns the nonce after signing."""
    def run(case: Case) -> None:
        payment = case.payment()
        case.burn(payment, how)
        case.verify(payment, "payer", "the nonce is burnt")
        case.settle(payment, "payer", "the nonce is burnt")
    return run


def burnt_between(how: str) -> Run:
    """The payer burns the nonce after it was verified."""
    def run(case: Case) -> None:
        payment = case.payment()
        case.verify(payment, "nobody")
        case.burn(payment, how)
        case.settle(payment, "payer", "the nonce was burnt after /verify")
    return run


def burnt_in_flight(how: str) -> Run:
    """The payer burns the nonce when the facilitator has checked everything: its transaction reverts."""
    def run(case: Case) -> None:
        payment = case.payment()
        case.relay.before_broadcast = lambda: case.burn(payment, how)
        case.settle(payment, "payer", "the nonce was burnt as the transaction was sent")
        case.dust_settles()
        case.settle(payment, "payer", "again")
    return run


def empty(case: Case) -> None:
    """The payer has nothing."""
    payment = case.payment()
    case.empty()
    case.verify(payment, "payer", "the wallet is empty")
    case.settle(payment, "payer", "the wallet is empty")


def emptied_between(case: Case) -> None:
    """The payer spends it all after it was verified."""
    payment = case.payment()
    case.verify(payment, "nobody")
    case.empty()
    case.settle(payment, "payer", "the wallet was emptied after /verify")


def emptied_in_flight(case: Case) -> None:
    """The payer spends it all when the facilitator has checked everything: its transaction reverts."""
    payment = case.payment()
    case.relay.before_broadcast = case.empty
    case.settle(payment, "payer", "the wallet was emptied as the transaction was sent")
    case.dust_settles()
    case.settle(payment, "payer", "again")


def expired(case: Case) -> None:
    """The payment has run out."""
    payment = case.payment(valid_for=-30)
    case.verify(payment, "payer", "it has expired")
    case.settle(payment, "payer", "it has expired")


def no_allowance(case: Case) -> None:
    """Permit2 may not touch the payer's tokens."""
    payment = case.payment()
    case.chain.mined(case.payer.disallow())
    case.verify(payment, "payer", "no allowance for Permit2")
    case.settle(payment, "payer", "no allowance for Permit2")


def not_mined_in_time(case: Case) -> None:
    """Broadcast, not mined until the facilitator gives up, asked again, mined, asked again."""
    payment = case.payment()
    case.hold_blocks(True)
    case.settle(payment, "nobody", "nothing is mined")
    case.settle(payment, "nobody", "again, still nothing is mined")
    case.dust_settles()
    case.settle(payment, "nobody", "again, it was mined meanwhile")
    case.settle(payment, "payer", "and once more")


def not_mined_in_time_other_instance(case: Case) -> None:
    """As above, but another instance of the facilitator is asked again."""
    payment = case.payment()
    case.hold_blocks(True)
    case.settle(payment, "nobody", "nothing is mined")
    case.another()
    case.settle(payment, "nobody", "again, another instance, still nothing is mined")
    case.dust_settles()
    case.another()
    case.settle(payment, "nobody", "again, another instance, it was mined meanwhile")


def outbid(how: str, other_instance: bool) -> Run:
    """Broadcast, not mined until the facilitator gives up; then the payer's own transaction overtakes it and burns the nonce."""
    def run(case: Case) -> None:
        payment = case.payment()
        case.hold_blocks(True)
        case.settle(payment, "nobody", "nothing is mined")
        case.payer.burn(payment, how)
        case.dust_settles()
        if other_instance:
            case.another()
        for _ in range(2):
            case.settle(payment, "payer", "again, the nonce was burnt by a transaction that came first")
    return run


def outbid_while_it_waits(how: str) -> Run:
    """Broadcast, and while the facilitator waits the payer's own transaction overtakes it and burns the nonce."""
    def run(case: Case) -> None:
        payment = case.payment()
        case.hold_blocks(True)
        asking = case.settling(payment, "payer", "the nonce was burnt by a transaction that came first")
        case.payer.burn(payment, how)
        case.hold_blocks(False)
        asking.join()
        case.dust_settles()
    return run


def chain_out_of_reach(case: Case) -> None:
    """The facilitator does not reach its node."""
    payment = case.payment()
    case.relay.down = True
    case.verify(payment, "facilitator", "its node cannot be reached")
    case.settle(payment, "facilitator", "its node cannot be reached")


def broadcast_without_answer(case: Case) -> None:
    """The node takes the transaction, and the connection breaks before it says so."""
    payment = case.payment()
    case.relay.lose_answer = True
    case.settle(payment, "facilitator", "the answer to the broadcast was lost")
    case.dust_settles()
    case.settle(payment, "facilitator", "again")


def node_lost_after_broadcast(case: Case) -> None:
    """The node takes the transaction and says so, and is not reached any more."""
    payment = case.payment()
    case.relay.down_after_broadcast = True
    case.settle(payment, "facilitator", "its node was lost after the broadcast")
    case.dust_settles()
    case.relay.down_after_broadcast = case.relay.down = False
    case.settle(payment, "facilitator", "again, the node is back")


def no_gas(case: Case) -> None:
    """The facilitator's account cannot pay for a transaction."""
    payment = case.payment()
    case.chain.rpc("anvil_setBalance", case.chain.address(case.kind.role), "0x1")
    case.verify(payment, "facilitator", "no money for gas")
    case.settle(payment, "facilitator", "no money for gas")


def not_noted(case: Case) -> None:
    """Broadcast, not mined until the facilitator gives up, and the store where it notes that cannot be written to."""
    payment = case.payment()
    case.hold_blocks(True)
    case.settle(payment, "nobody", "nothing is mined, and its store is broken")
    case.dust_settles()
    case.settle(payment, "nobody", "again, it was mined meanwhile")


def scenarios(has_store: bool) -> Iterator[tuple[str, str, Run, tuple[str, ...]]]:
    """Transfer, name, what is done, and options of the facilitator."""
    plain = [good, empty, emptied_between, emptied_in_flight, expired, not_mined_in_time, not_mined_in_time_other_instance,
             chain_out_of_reach, broadcast_without_answer, node_lost_after_broadcast, no_gas]
    for transfer in SCHEMES:
        for run in plain if transfer == "eip3009" else [*plain, no_allowance]:
            yield transfer, run.__name__.replace("_", " "), run, ()
        if has_store:
            yield transfer, "not noted", not_noted, ("--pending-store", "broken")
        for how in burns(transfer):
            yield transfer, f"burnt by {how}", burnt(how), ()
            yield transfer, f"burnt by {how} after verify", burnt_between(how), ()
            yield transfer, f"burnt by {how} in flight", burnt_in_flight(how), ()
        how = burns(transfer)[0]
        yield transfer, "outbid", outbid(how, other_instance=False), ()
        yield transfer, "outbid, other instance", outbid(how, other_instance=True), ()
        # Long enough for it to see the end.
        yield transfer, "outbid while it waits", outbid_while_it_waits(how), ("--receipt-timeout", "30")
