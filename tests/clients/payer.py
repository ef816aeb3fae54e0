"""A payer with a key and an account of its own, and what one can do to spoil a payment that was signed already.

Everything here is sent by the payer to the chain, past the gateway and past every facilitator.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from eth_abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak

from .world import Chain

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.payments import PERMIT2, TOKEN_PERMISSIONS, TRANSFER, Payment, sign, token_domain  # noqa: E402

CANCEL = [{"name": "authorizer", "type": "address"}, {"name": "nonce", "type": "bytes32"}]
PERMIT_TRANSFER = [{"name": "permitted", "type": "TokenPermissions"}, {"name": "spender", "type": "address"},
                   {"name": "nonce", "type": "uint256"}, {"name": "deadline", "type": "uint256"}]
# How a payer can make the nonce of a payment useless, by the way the payment moves money.
BURNS = {"eip3009": ("cancelAuthorization", "transfer to itself"), "permit2": ("invalidateUnorderedNonces", "transfer to itself")}
# What a transaction offers for each unit of gas, in wei: 50 gwei, so that it is mined whatever others have made of the base fee.
FEE = 50_000_000_000
FOR_EVER = 2**256 - 1


def call(signature: str, *arguments: Any) -> str:
    """The data of a call, `name(type,(type,type))` as Solidity has it."""
    types, depth, begin = [], 0, signature.index("(") + 1
    for place, letter in enumerate(signature[begin:], begin):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth < 0 or (depth == 0 and letter == ","):
            types.append(signature[begin:place])
            begin = place + 1
    return "0x" + (keccak(text=signature)[:4] + encode([kind for kind in types if kind], arguments)).hex()


def unhex(text: str) -> bytes:
    """0x… as bytes."""
    return bytes.fromhex(text[2:])


def offered(transaction: dict[str, str]) -> int:
    """What a transaction that waits offers for each unit of gas, in wei."""
    return int(transaction.get("maxFeePerGas") or transaction["gasPrice"], 16)


class Payer:
    """An account with ether, tokens and an allowance for Permit2."""

    def __init__(self, chain: Chain, key: str | None = None, tokens: int = 1_000_000) -> None:
        self.chain = chain
        self.account: LocalAccount = Account.from_key(key) if key else Account.create()
        self.token: str = chain.facts["token"]["address"]
        chain.rpc("anvil_setBalance", self.address, hex(10**20))
        self.chain.mined(self.send(self.token, call("mint(address,uint256)", self.address, tokens)))
        self.chain.mined(self.send(self.token, call("approve(address,uint256)", PERMIT2, FOR_EVER)))

    @property
    def address(self) -> str:
        return self.account.address

    @property
    def key(self) -> str:
        return "0x" + self.account.key.hex().removeprefix("0x")

    def send(self, to: str, data: str) -> str:
        """A transaction, on its way; how it ends is another question. It overtakes all that wait to be mined."""
        waiting = self.chain.rpc("txpool_content")["pending"].values()
        fee = max([FEE, *(2 * offered(one) for queue in waiting for one in queue.values())])
        nonce = int(self.chain.rpc("eth_getTransactionCount", self.address, "pending"), 16)
        signed = self.account.sign_transaction({
            "chainId": self.chain.facts["chainId"], "nonce": nonce, "to": to, "data": data, "value": 0, "gas": 500_000,
            "maxFeePerGas": fee, "maxPriorityFeePerGas": fee,
        })
        return self.chain.rpc("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex().removeprefix("0x"))

    def empty(self, to: str = "0x000000000000000000000000000000000000dEaD") -> str:
        """All tokens go elsewhere."""
        return self.send(self.token, call("transfer(address,uint256)", to, self.chain.balance(self.address)))

    def disallow(self) -> str:
        """Permit2 may take nothing any more."""
        return self.send(self.token, call("approve(address,uint256)", PERMIT2, 0))

    def burn(self, payment: Payment, how: str) -> str:
        """The nonce of a payment is used up, for nothing: one of [`BURNS`]."""
        signed = payment.authorization
        match how, "permit2Authorization" in payment.payload:
            case "cancelAuthorization", False:
                message = {"authorizer": self.address, "nonce": unhex(signed["nonce"])}
                signature = sign(self.account, token_domain(payment.offer), "CancelAuthorization", {"CancelAuthorization": CANCEL}, message)
                data = call("cancelAuthorization(address,bytes32,bytes)", self.address, unhex(signed["nonce"]), unhex(signature))
                return self.send(self.token, data)
            case "transfer to itself", False:
                moved = {"from": self.address, "to": self.address, "value": 1, "validAfter": 0, "validBefore": FOR_EVER,
                         "nonce": unhex(signed["nonce"])}
                signature = sign(self.account, token_domain(payment.offer), "TransferWithAuthorization",
                                 {"TransferWithAuthorization": TRANSFER}, moved)
                data = call("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)",
                            *moved.values(), unhex(signature))
                return self.send(self.token, data)
            case "invalidateUnorderedNonces", True:
                word, bit = divmod(int(signed["nonce"]), 256)
                return self.send(PERMIT2, call("invalidateUnorderedNonces(uint256,uint256)", word, 1 << bit))
            case "transfer to itself", True:
                permitted = (self.token, 1)
                nonce = int(signed["nonce"])
                message = {"permitted": dict(zip(("token", "amount"), permitted)), "spender": self.address, "nonce": nonce,
                           "deadline": FOR_EVER}
                domain = {"name": "Permit2", "chainId": self.chain.facts["chainId"], "verifyingContract": PERMIT2}
                signature = sign(self.account, domain, "PermitTransferFrom",
                                 {"TokenPermissions": TOKEN_PERMISSIONS, "PermitTransferFrom": PERMIT_TRANSFER}, message)
                data = call("permitTransferFrom(((address,uint256),uint256,uint256),(address,uint256),address,bytes)",
                            (permitted, nonce, FOR_EVER), (self.address, 1), self.address, unhex(signature))
                return self.send(PERMIT2, data)
        raise ValueError(how)

    def has_used(self, payment: Payment) -> bool:
        """Whether the chain takes the nonce of a payment for used."""
        signed = payment.authorization
        if "permit2Authorization" in payment.payload:
            word, bit = divmod(int(signed["nonce"]), 256)
            bits = self.chain.view(PERMIT2, call("nonceBitmap(address,uint256)", self.address, word))
            return bool(bits >> bit & 1)
        return bool(self.chain.view(self.token, call("authorizationState(address,bytes32)", self.address, unhex(signed["nonce"]))))
