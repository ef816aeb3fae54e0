"""What tests ask of the chain, of the facilitators and of the gateway."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import urllib.error
import urllib.request
from typing import Any, Iterator

from stack.process import wait_until
from .world import Chain, Service


@contextlib.contextmanager
def moves(chain: Chain, amount: int, payer: str = "client") -> Iterator[None]:
    """Exactly `amount` goes from the payer (a role, or an address) to the seller meanwhile."""
    accounts = (payer if payer.startswith("0x") else chain.address(payer), chain.address("payTo"))
    before = [chain.balance(account) for account in accounts]
    yield
    after = [chain.balance(account) for account in accounts]
    assert (after[0] - before[0], after[1] - before[1]) == (-amount, amount)


def offered(url: str) -> None:
    """Wait until the gateway can quote: some offers need a fact from the facilitator's /supported."""
    def quoted() -> bool:
        request = urllib.request.Request(url, method="POST", data=b"{}", headers={"content-type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as answer:
            if answer.code == 503:
                return False
            assert answer.code == 402, answer.code
            return True
        raise AssertionError("a priced route answered without a payment")

    wait_until(quoted, f"a quote of {url}")


def holdings(chain: Chain) -> tuple[int, int]:
    """What the payer and the seller have."""
    return chain.balance(chain.address("client")), chain.balance(chain.address("payTo"))


def settlements(facilitator: Service) -> int:
    """How often /settle has been answered; both facilitators log a line for each."""
    return facilitator.process.output().count("settle v2 ")


def comment(body: str) -> Any:
    """The receipt that a stream of events ends with."""
    found = re.findall(r"^: payment-response (\S+)$", body, re.MULTILINE)
    assert len(found) == 1 and body.endswith(f"\n\n: payment-response {found[0]}\n\n"), body[-400:]
    return decoded(found[0])


def decoded(receipt: str) -> Any:
    """A receipt as it is sent."""
    return json.loads(base64.b64decode(receipt))
