"""The chain, as tests of money need it: payers with money, and who has paid whom, read from the token's own log."""

from __future__ import annotations

import json
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.world import TRANSFER, Chain
from eth_account import Account
from eth_account.signers.local import LocalAccount

from stack.process import wait_until

Json = dict[str, Any]

# `mint(address,uint256)`, `approve(address,uint256)` and `transfer(address,uint256)`: the first four bytes of their hashes.
MINT, APPROVE, SEND = "0x40c10f19", "0x095ea7b3", "0xa9059cbb"
# What a payer gets: more than anything costs here.
PURSE = 1_000_000
EVERYTHING = (1 << 256) - 1
ETHER = hex(10**18)
# Payers are made so many at a time.
BATCH = 10


@dataclass(frozen=True)
class Transfer:
    """What one log entry of the token says."""

    to: str
    amount: int
    transaction: str


class Bank(Chain):
    """A local chain whose payers each make one payment, so that what has left an account was paid by that payment."""

    def __init__(self, directory: Path, chain_id: int) -> None:
        super().__init__(directory, chain_id)
        self.seller = self.address("payTo")
        self._token: str = self.facts["token"]["address"]
        self._payers: list[LocalAccount] = []
        self._lock = threading.Lock()
        # The payers' approvals of Permit2 are sent in their name.
        self.rpc("anvil_autoImpersonateAccount", True)

    def payer(self) -> LocalAccount:
        """An account with money that nobody else uses, and that lets Permit2 move it."""
        with self._lock:
            if not self._payers:
                self._payers = self._made(BATCH)
            return self._payers.pop()

    def provide(self, count: int) -> None:
        """So many payers, at least, are ready."""
        with self._lock:
            if count > len(self._payers):
                self._payers += self._made(count - len(self._payers))

    def _made(self, count: int) -> list[LocalAccount]:
        made = [Account.create() for _ in range(count)]
        minter, permit2 = self.address("deployer"), self.facts["contracts"]["permit2"]
        self._all([("anvil_setBalance", payer.address, ETHER) for payer in made])
        sent = self._all([self._send(payer.address, APPROVE, permit2, EVERYTHING) for payer in made])
        # One after the other: two transactions of one account that meet get the same nonce.
        for payer in made:
            sent += self._all([self._send(minter, MINT, payer.address, PURSE)])
        asked = [("eth_getTransactionReceipt", transaction) for transaction in sent]
        receipts = wait_until(lambda: all(found := self._all(asked)) and found, "the payers get their money")
        assert all(receipt["status"] == "0x1" for receipt in receipts)
        return made

    def spend_elsewhere(self, payer: LocalAccount, keep: int = 0) -> None:
        """The payer's money is gone, but for this, and not to the seller."""
        amount = self.balance(payer.address) - keep
        [sent] = self._all([self._send(payer.address, SEND, self.address("deployer"), amount)])
        wait_until(lambda: self.rpc("eth_getTransactionReceipt", sent), "the money is gone")
        assert self.balance(payer.address) == keep

    def paid(self, payer: LocalAccount) -> list[Transfer]:
        """All that the seller has got from this account, in the token's own words; balance and log must agree."""
        transfers = self._transfers(payer)
        left = PURSE - sum(transfer.amount for transfer in transfers)
        assert self.balance(payer.address) == left, (payer.address, transfers)
        return [transfer for transfer in transfers if transfer.to == self.seller.lower()]

    def income(self) -> int:
        """All that the seller has got, by the log; the balance must agree."""
        logs = self.rpc("eth_getLogs", {**self._log_of_token(), "topics": [TRANSFER, None, _word(self.seller)]})
        got = sum(int(log["data"], 16) for log in logs)
        assert self.balance(self.seller) == got
        return got

    def _transfers(self, payer: LocalAccount) -> list[Transfer]:
        logs = self.rpc("eth_getLogs", {**self._log_of_token(), "topics": [TRANSFER, _word(payer.address)]})
        return [Transfer("0x" + log["topics"][2][26:], int(log["data"], 16), log["transactionHash"]) for log in logs]

    def _log_of_token(self) -> Json:
        return {"address": self._token, "fromBlock": "0x0", "toBlock": "latest"}

    def _send(self, sender: str, what: str, whom: str, amount: int) -> tuple[Any, ...]:
        data = what + _word(whom)[2:] + f"{amount:064x}"
        return ("eth_sendTransaction", {"from": sender, "to": self._token, "data": data})

    def _all(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Many calls in one."""
        body = [{"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                for number, (method, *params) in enumerate(calls)]
        request = urllib.request.Request(self.rpc_url, method="POST", headers={"content-type": "application/json"},
                                         data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = sorted(json.load(answer), key=lambda item: item["id"])
        assert all("result" in item for item in found), [item for item in found if "result" not in item]
        return [item["result"] for item in found]


def _word(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")
