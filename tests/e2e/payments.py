"""Payments in every dialect, signed with eth-account: an oracle that shares no code with the filter.

A `Payment` is plain data: take a good one, change any field, say whether to sign again, and turn it into headers.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, Callable

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount

Json = dict[str, Any]
Field = tuple[str, str]

SELLER = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
OTHER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
EXACT_PROXY = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001"
UPTO_PROXY = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"
# secp256k1's group order.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

USDC = {
    "eip155:8453": {"address": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "name": "USD Coin", "version": "2"},
    "eip155:84532": {"address": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "name": "USDC", "version": "2"},
}
V1_NAMES = {"eip155:8453": "base", "eip155:84532": "base-sepolia", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp": "solana"}

TRANSFER = [{"name": "from", "type": "address"}, {"name": "to", "type": "address"}, {"name": "value", "type": "uint256"},
            {"name": "validAfter", "type": "uint256"}, {"name": "validBefore", "type": "uint256"},
            {"name": "nonce", "type": "bytes32"}]
PERMIT = [{"name": "owner", "type": "address"}, {"name": "spender", "type": "address"},
          {"name": "value", "type": "uint256"}, {"name": "nonce", "type": "uint256"},
          {"name": "deadline", "type": "uint256"}]
TOKEN_PERMISSIONS = [{"name": "token", "type": "address"}, {"name": "amount", "type": "uint256"}]
PERMIT_WITNESS = [{"name": "permitted", "type": "TokenPermissions"}, {"name": "spender", "type": "address"},
                  {"name": "nonce", "type": "uint256"}, {"name": "deadline", "type": "uint256"},
                  {"name": "witness", "type": "Witness"}]
EXACT_WITNESS = [{"name": "to", "type": "address"}, {"name": "validAfter", "type": "uint256"}]
UPTO_WITNESS = [{"name": "to", "type": "address"}, {"name": "facilitator", "type": "address"},
                {"name": "validAfter", "type": "uint256"}]


def now() -> int:
    """The clock both sides share."""
    return int(time.time())


def chain_id(network: str) -> int:
    """The chain id of an eip155 network."""
    return int(network.split(":")[1])


def encode(value: Any) -> str:
    """JSON (or bytes) as a payment header carries it."""
    data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.b64encode(data).decode()


def sign(payer: LocalAccount, domain: Json, primary: str, types: Json, message: Json) -> str:
    """An EIP-712 signature, 65 bytes with v 27 or 28."""
    kinds = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
    typed = {
        "types": {"EIP712Domain": [{"name": key, "type": kinds[key]} for key in kinds if key in domain], **types},
        "primaryType": primary, "domain": domain, "message": message,
    }
    return "0x" + payer.sign_message(encode_typed_data(full_message=typed)).signature.hex().removeprefix("0x")


def token_domain(offer: Json, **changes: Any) -> Json:
    """The EIP-712 domain of an offer's token."""
    extra = offer.get("extra", {})
    return {"name": extra.get("name"), "version": extra.get("version"), "chainId": chain_id(offer["network"]),
            "verifyingContract": offer["asset"], **changes}


@dataclass
class Payment:
    """A payment in its v2 form, and who can sign it."""

    payer: LocalAccount
    offer: Json
    payload: Json
    resource: Json | None = None
    extensions: Json | None = None

    @property
    def v2(self) -> Json:
        """The v2 payment payload."""
        body: Json = {"x402Version": 2, "accepted": self.offer, "payload": self.payload}
        if self.resource is not None:
            body["resource"] = self.resource
        if self.extensions is not None:
            body["extensions"] = self.extensions
        return body

    @property
    def v1(self) -> Json:
        """The v1 payment payload."""
        network = self.offer["network"]
        return {"x402Version": 1, "scheme": self.offer["scheme"], "network": V1_NAMES.get(network, network),
                "payload": self.payload}

    @property
    def libertai(self) -> Json:
        """LibertAI's: v1's shape that calls itself version 2."""
        return {**self.v1, "x402Version": 2, "network": self.offer["network"]}

    @property
    def authorization(self) -> Json:
        """The signed part, whatever the method."""
        return self.payload.get("authorization") or self.payload["permit2Authorization"]

    def headers(self, dialect: str = "v2") -> list[Field]:
        """The payment as request headers."""
        match dialect:
            case "v2":
                return [("PAYMENT-SIGNATURE", encode(self.v2))]
            case "v1":
                return [("X-PAYMENT", encode(self.v1))]
            case "libertai":
                return [("X-PAYMENT", json.dumps(self.libertai, separators=(",", ":")))]
            case "plain":
                return self.plain()
        raise ValueError(dialect)

    def plain(self, **changes: str | None) -> list[Field]:
        """The authorization spelled out in headers; a change to None leaves one out."""
        signed = self.payload["authorization"]
        fields = {
            "Signature": self.payload["signature"], "Payer": signed["from"],
            "Amount": decimal(int(signed["value"])), "Asset": "USDC", "Network": V1_NAMES[self.offer["network"]],
            "Nonce": signed["nonce"], "Valid-After": signed["validAfter"], "Valid-Before": signed["validBefore"],
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        return [(f"X-Payment-{name}", value) for name, value in fields.items() if value is not None]

    def but(self, change: Callable[[Payment], Any], resign: bool = False, **domain: Any) -> Payment:
        """A copy with a change; signed again if asked (with changes to the domain, if there are any)."""
        other = copy.deepcopy(self)
        change(other)
        return other.sign(**domain) if resign or domain else other

    def sign(self, **domain: Any) -> Payment:
        """Sign what the payload says, over the offer's domain with these changes."""
        if "authorization" in self.payload:
            signed = self.payload["authorization"]
            if self.offer.get("extra", {}).get("primaryType") == "Permit":
                message = {"owner": signed["from"], "spender": signed["to"], "value": int(signed["value"]),
                           "nonce": int(signed["nonce"], 16), "deadline": int(signed["validBefore"])}
                primary, types = "Permit", {"Permit": PERMIT}
            else:
                message = {**signed, **{key: int(signed[key]) for key in ("value", "validAfter", "validBefore")},
                           "nonce": bytes.fromhex(signed["nonce"][2:])}
                primary, types = "TransferWithAuthorization", {"TransferWithAuthorization": TRANSFER}
            over = token_domain(self.offer, **domain)
        else:
            signed = self.payload["permit2Authorization"]
            witness = {**signed["witness"], "validAfter": int(signed["witness"]["validAfter"])}
            message = {
                "permitted": {"token": signed["permitted"]["token"], "amount": int(signed["permitted"]["amount"])},
                "spender": signed["spender"], "nonce": int(signed["nonce"]), "deadline": int(signed["deadline"]),
                "witness": witness,
            }
            primary = "PermitWitnessTransferFrom"
            types = {"TokenPermissions": TOKEN_PERMISSIONS, primary: PERMIT_WITNESS,
                     "Witness": UPTO_WITNESS if "facilitator" in witness else EXACT_WITNESS}
            over = {"name": "Permit2", "chainId": chain_id(self.offer["network"]), "verifyingContract": PERMIT2, **domain}
        self.payload["signature"] = sign(self.payer, over, primary, types, message)
        return self


def pay(offer: Json, payer: LocalAccount | None = None, resource: Json | None = None, valid_after: int = 0,
        valid_for: int | None = None, nonce: str | None = None) -> Payment:
    """A good payment for an offer, whichever way it wants the money moved, with a fresh nonce."""
    payer = payer or Account.create()
    offer = copy.deepcopy(offer)
    until = str(now() + (offer["maxTimeoutSeconds"] if valid_for is None else valid_for))
    extra = offer.get("extra", {})
    if offer["network"].startswith("solana:"):
        return Payment(payer, offer, {"transaction": solana_transaction(offer)}, resource)
    if extra.get("assetTransferMethod") == "permit2":
        upto = offer["scheme"] == "upto"
        witness = {"to": offer["payTo"], "validAfter": str(valid_after)}
        if upto:
            witness["facilitator"] = extra["facilitatorAddress"]
        payload: Json = {"permit2Authorization": {
            "from": payer.address, "permitted": {"token": offer["asset"], "amount": offer["amount"]},
            "spender": UPTO_PROXY if upto else EXACT_PROXY, "nonce": nonce or str(secrets.randbits(255)),
            "deadline": until, "witness": witness,
        }}
    else:
        payload = {"authorization": {
            "from": payer.address, "to": offer["payTo"], "value": offer["amount"], "validAfter": str(valid_after),
            "validBefore": until, "nonce": nonce or "0x" + secrets.token_hex(32),
        }}
        if extra.get("primaryType") == "Permit":
            payload["authorization"]["nonce"] = nonce or "0x" + "0" * 64
    return Payment(payer, offer, payload, resource).sign()


def offer(amount: int | str, network: str = "eip155:8453", scheme: str = "exact", transfer: str = "eip3009",
          pay_to: str = SELLER, timeout: int = 300, **extra: Any) -> Json:
    """The v2 requirements that the filter must advertise for USDC."""
    token = USDC[network]
    facts: Json = {"name": token["name"], "version": token["version"], **extra}
    if transfer == "permit2":
        facts["assetTransferMethod"] = "permit2"
    return {"scheme": scheme, "network": network, "amount": str(amount), "asset": token["address"], "payTo": pay_to,
            "maxTimeoutSeconds": timeout, "extra": facts}


def decimal(atomic: int, decimals: int = 6) -> str:
    """Smallest units as a decimal amount without trailing zeros: 10000 is 0.01."""
    whole, fraction = divmod(atomic, 10**decimals)
    text = f"{whole}.{fraction:0{decimals}d}".rstrip("0").rstrip(".")
    return text


# Signatures that are not what they should be

def _parts(signature: str) -> tuple[int, int, int]:
    data = bytes.fromhex(signature[2:])
    return int.from_bytes(data[:32]), int.from_bytes(data[32:64]), data[64]


def with_v(signature: str, v: int) -> str:
    """The same r and s with another v."""
    return signature[:-2] + f"{v:02x}"


def v01(signature: str) -> str:
    """v as 0 or 1."""
    return with_v(signature, _parts(signature)[2] - 27)


def compact(signature: str) -> str:
    """EIP-2098, 64 bytes."""
    r, s, v = _parts(signature)
    return "0x" + (r.to_bytes(32) + (s | (v - 27) << 255).to_bytes(32)).hex()


def high_s(signature: str) -> str:
    """The other signature of the same message: recovers to the same signer, and is malleable."""
    r, s, v = _parts(signature)
    return "0x" + (r.to_bytes(32) + (ORDER - s).to_bytes(32) + bytes([55 - v])).hex()


# Solana: a message that is shaped as the exact scheme wants it

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
TOKEN_PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
ATA_PROGRAM = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"
COMPUTE_BUDGET = "ComputeBudget111111111111111111111111111111"
SYSTEM_PROGRAM = "11111111111111111111111111111111"
RECENT_BLOCKHASHES = "SysvarRecentB1ockHashes11111111111111111111"
MEMO_PROGRAM = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
SOLANA_USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"


def unbase58(text: str) -> bytes:
    """Base58 to 32 bytes."""
    number = 0
    for letter in text:
        number = number * 58 + ALPHABET.index(letter)
    return number.to_bytes(32)


def base58(data: bytes) -> str:
    """32 bytes to base58."""
    number, text = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def _on_curve(data: bytes) -> bool:
    prime = 2**255 - 19
    d = -121665 * pow(121666, -1, prime) % prime
    y = int.from_bytes(data, "little") & ((1 << 255) - 1)
    if y >= prime:
        return False
    square = (y * y - 1) * pow(d * y * y + 1, -1, prime) % prime
    return square == 0 or pow(square, (prime - 1) // 2, prime) == 1


def associated_account(owner: str, mint: str) -> bytes:
    """Where the owner's tokens of a mint are."""
    for bump in range(255, -1, -1):
        seeds = unbase58(owner) + unbase58(TOKEN_PROGRAM) + unbase58(mint) + bytes([bump])
        found = hashlib.sha256(seeds + unbase58(ATA_PROGRAM) + b"ProgramDerivedAddress").digest()
        if not _on_curve(found):
            return found
    raise ValueError("no program derived address")


def _short(length: int) -> bytes:
    found = b""
    while length > 127:
        found += bytes([length & 127 | 128])
        length >>= 7
    return found + bytes([length])


def solana_transaction(offer: Json, amount: int | None = None, fee_payer: str | None = None, mint: str | None = None,
                       pay_to: str | None = None, owner: bytes | None = None, instructions: list[str] | None = None,
                       memo: bytes | None = None) -> str:
    """A version 0 transaction, signed by the owner only in shape: limits, price, TransferChecked, memo.

    "nonce" among the `instructions` advances a durable nonce: as the first one it keeps the transaction good for ever.
    """
    instructions = instructions or ["limit", "price", "transfer", "memo"]
    mint = mint or offer["asset"]
    durable = "nonce" in instructions
    writable = {
        "fee payer": unbase58(fee_payer or offer["extra"]["feePayer"]), "owner": owner or secrets.token_bytes(32),
        "source": secrets.token_bytes(32), "target": associated_account(pay_to or offer["payTo"], mint),
        **({"nonce": secrets.token_bytes(32)} if durable else {}),
    }
    readonly = {
        "budget": unbase58(COMPUTE_BUDGET), "token": unbase58(TOKEN_PROGRAM), "mint": unbase58(mint),
        "memo": unbase58(MEMO_PROGRAM),
        **({"system": unbase58(SYSTEM_PROGRAM), "blockhashes": unbase58(RECENT_BLOCKHASHES)} if durable else {}),
    }
    keys = {**writable, **readonly}
    places = list(keys)
    data = {
        "limit": ("budget", [], b"\x02" + (20_000).to_bytes(4, "little")),
        "price": ("budget", [], b"\x03" + (1).to_bytes(8, "little")),
        "transfer": ("token", ["source", "mint", "target", "owner"],
                     b"\x0c" + int(amount or offer["amount"]).to_bytes(8, "little") + b"\x06"),
        "memo": ("memo", [], memo or secrets.token_hex(16).encode()),
        "nonce": ("system", ["nonce", "blockhashes", "owner"], (4).to_bytes(4, "little")),
    }
    message = bytes([0x80, 2, 1, len(readonly)]) + _short(len(keys)) + b"".join(keys.values()) + secrets.token_bytes(32)
    message += _short(len(instructions))
    for program, accounts, payload in (data[name] for name in instructions):
        message += bytes([places.index(program)]) + _short(len(accounts))
        message += bytes(places.index(account) for account in accounts) + _short(len(payload)) + payload
    message += b"\0"
    signatures = _short(2) + bytes(64) + secrets.token_bytes(64)
    return base64.b64encode(signatures + message).decode()
