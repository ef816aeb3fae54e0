"""Whether all that was sold for credits was paid for once, and all that was paid for was credited once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from e2e.facilitator import spends, transaction_of
from e2e.world import BASE

from stack.ledger import Account, micros

from .credits import GIVEN, House

Json = dict[str, Any]


def check(house: House) -> Counter[str]:
    """At rest: each sum, and each request. What was seen, counted."""
    assert "every balance is the sum" in house.service.command("check")
    # A connection that is left in a transaction keeps its locks, and loses what is written on it next.
    for sign in ("already a transaction in progress", "non-zero transaction depth"):
        assert sign not in house.service.logs(), sign
    rows = house.rows()
    references = Counter((row["kind"], row["reference"]) for row in rows)
    assert not [found for found, times in references.items() if times > 1]
    for account in house.accounts:
        _check_account(house, account, [row for row in rows if row["tenant"] == account.tenant])
    seen = _check_attempts(house, rows)
    seen.update(payments=len(house.till.manners), topped_up=len(house.till.moved),
                inferred=sum(row["payment"].endswith("/") for row in rows if row["kind"] == "x402_topup"))
    return seen


def _check_account(house: House, account: Account, rows: list[Json]) -> None:
    def total(kind: str) -> int:
        return sum(micros(row["amount"]) for row in rows if row["kind"] == kind)

    assert (account.balance, account.held) == (total("adjustment") + total("x402_topup") - total("usage"), 0)
    assert total("adjustment") == GIVEN and total("reservation") == total("usage") + total("refund") - _late(rows)
    # Each nonce that was settled is credited once, to whom it was sent for, and no other.
    paid = {spends(order.payment.payload): int(order.payment.offer["amount"])
            for order in house.orders if order.payment and order.account is account}
    moved = {nonce: amount for nonce, amount in paid.items() if nonce in house.till.moved}
    credited = [row for row in rows if row["kind"] == "x402_topup"]
    assert sorted(micros(row["amount"]) for row in credited) == sorted(moved.values())
    assert set(house.till.moved.values()) <= {1}
    named = Counter(row["payment"] for row in credited if not row["payment"].endswith("/"))
    assert set(named) <= {f"{BASE['network']}/{transaction_of(nonce)}" for nonce in moved} and set(named.values()) <= {1}


def _late(rows: list[Json]) -> int:
    """What was charged after it had been given back."""
    return sum(micros(row["amount"]) for row in rows if row["kind"] == "usage" and row["debit"] == "available")


def _check_attempts(house: House, rows: list[Json]) -> Counter[str]:
    held = {row["reference"]: row for row in rows if row["kind"] == "reservation"}
    usage = {row["reference"]: row for row in rows if row["kind"] == "usage"}
    asked, known, seen = house.reservations(), set(), Counter[str]()
    for order in house.orders:
        for attempt in order.attempts:
            ids = {body["id"] for body in asked.get(attempt.test_id, [])}
            reached = house.kitchen.reached[attempt.test_id]
            charged = [micros(usage[found]["amount"]) for found in ids if found in usage]
            said = (attempt, order.kind, ids, reached, charged)
            known |= ids
            assert len(ids) <= 1 and reached <= 1, said
            # None is served without money that is held for it, and none pays for what it was not served.
            assert reached <= len(ids & set(held)) and len(charged) <= reached, said
            assert all(held[found]["tenant"] == order.account.tenant for found in ids & set(held)), said
            exact = [order.kind.due] if order.kind.due else []
            if attempt.due is not None and attempt.envoy == house.envoys:
                assert charged == ([attempt.due] if attempt.due else []), said
            else:
                assert charged in ([], exact), said
            seen.update(attempts=1, reached=reached, charged=len(charged), verdicts=attempt.due is not None,
                        uncharged=bool(attempt.due) and not charged)
    # Nothing was charged, or held, that was not asked for.
    assert set(usage) <= known and set(held) <= known
    late = sum(row["debit"] == "available" for row in usage.values())
    seen.update(late=late)
    return seen
