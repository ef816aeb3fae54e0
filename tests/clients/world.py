"""What the clients meet: a local chain, facilitators, a backend, and the gateway's configuration.

Owns how these are started and how a balance is read. Knows nothing of the clients.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import tools
from stack.process import Process, free_port, wait_until

STACK = tools.ROOT / "stack"
CLIENTS = Path(__file__).resolve().parent
VENV_PYTHON = tools.LOCAL / "venv" / "bin" / "python"

# What every priced route here costs, in the smallest unit of the token.
PRICE = "$0.001"
PRICE_ATOMIC = 1000

# What tokens cost on the metered routes: 2.5 units for one of the input, 10 for one of the output.
PER_TOKEN = {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}

BASE_SEPOLIA = "eip155:84532"
BASE = "eip155:8453"
# Keccak-256 of `Transfer(address,address,uint256)`.
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def ensure_node() -> None:
    """The npm packages and anvil, installed the first time."""
    tools.need("node", "Install Node.js 20 or newer.")
    with tools.locked("node"):
        subprocess.run(["node", str(STACK / "install.mjs")], check=True)


class Service:
    """A program of `stack/` that prints one line of JSON when it is ready; `facts` is that line."""

    def __init__(self, argv: list[str | Path], directory: Path, name: str) -> None:
        self.process = Process(argv, log=directory / f"{name}.log", name=name)
        self.facts: dict[str, Any] = {}
        self.process.wait_ready(self._ready)

    def _ready(self) -> bool:
        for line in self.process.output().splitlines():
            if line.startswith('{"ready"'):
                self.facts = json.loads(line)
                return True
        return False

    @property
    def port(self) -> int:
        return int((self.facts.get("url") or self.facts["rpc"]).rsplit(":", 1)[1])


def node(program: str, directory: Path, *options: str) -> Service:
    """A Node program of `stack/`, on a free port."""
    port = free_port()
    return Service(["node", STACK / program, "--port", str(port), *options], directory, f"{program}-{port}")


def python(program: str, directory: Path, *options: str) -> Service:
    """A Python program of `stack/`, on a free port."""
    port = free_port()
    return Service([VENV_PYTHON, STACK / program, "--port", str(port), *options], directory, f"{program}-{port}")


class Chain:
    """A local chain and what it knows."""

    def __init__(self, directory: Path, chain_id: int) -> None:
        self.service = node("chain.mjs", directory, "--chain-id", str(chain_id))
        self.facts = self.service.facts
        self.rpc_url: str = self.facts["rpc"]
        # As the facilitators take it.
        self.option = f"{chain_id}={self.rpc_url}"

    def address(self, role: str) -> str:
        return self.facts["roles"][role]["address"]

    def key(self, role: str) -> str:
        return self.facts["roles"][role]["key"]

    def rpc(self, method: str, *params: Any) -> Any:
        request = urllib.request.Request(self.rpc_url, method="POST", headers={"content-type": "application/json"}, data=json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
        with urllib.request.urlopen(request, timeout=20) as answer:
            said = json.load(answer)
        assert "result" in said, (method, said)
        return said["result"]

    def view(self, to: str, data: str) -> int:
        """What a contract says of its state: a number."""
        return int(self.rpc("eth_call", {"to": to, "data": data}, "latest"), 16)

    def balance(self, address: str) -> int:
        """Of the token, in its smallest unit."""
        return self.view(self.facts["token"]["address"], "0x70a08231" + address[2:].lower().rjust(64, "0"))

    def fate(self, transaction: str) -> str:
        """What has become of a transaction: `pending`, `reverted` or `mined`."""
        receipt = self.rpc("eth_getTransactionReceipt", transaction)
        return "pending" if receipt is None else "mined" if receipt["status"] == "0x1" else "reverted"

    def mined(self, transaction: str) -> str:
        """Wait until a transaction has come through."""
        wait_until(lambda: self.fate(transaction) != "pending", f"{transaction} is mined")
        assert self.fate(transaction) == "mined", transaction
        return transaction

    def hold_blocks(self, hold: bool) -> None:
        """Nothing is mined meanwhile; what has come in waits, and is mined in the order of its fees."""
        self.rpc("evm_setAutomine", not hold)
        if not hold:
            self.rpc("evm_mine")

    def transfers(self, transaction: str) -> list[tuple[str, str, int]]:
        """What a transaction moved of the token: from whom, to whom, how much."""
        receipt = self.rpc("eth_getTransactionReceipt", transaction)
        assert receipt is not None and receipt["status"] == "0x1", transaction
        return [
            ("0x" + log["topics"][1][26:], "0x" + log["topics"][2][26:], int(log["data"], 16)) for log in receipt["logs"]
            if log["topics"][0] == TRANSFER and log["address"].lower() == self.facts["token"]["address"].lower()
        ]

    def succeeded(self, transaction: str) -> bool:
        """Whether this transaction is in a block and did not revert."""
        receipt = self.rpc("eth_getTransactionReceipt", transaction)
        return receipt is not None and receipt["status"] == "0x1"


@dataclass
class Result:
    """What a client reported."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    receipt: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def pay(script: str, url: str, key: str, *, packages: str = ".", **environment: str) -> Result:
    """Run one client of this directory. A client that says nothing fails the test with what it wrote instead."""
    if script.endswith(".py"):
        argv = [str(VENV_PYTHON), str(CLIENTS / script)]
    else:
        argv = ["node", "--import", str(CLIENTS / "resolve.mjs"), str(CLIENTS / script)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env={
        **os.environ, "URL_TO_PAY": url, "PAYER_KEY": key, "PACKAGES": packages, **environment,
    })
    try:
        said = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise AssertionError(f"{script} ended with {done.returncode}\n{done.stdout}\n{done.stderr}") from None
    return Result(status=said.pop("status"), body=said.pop("body"), headers=said.pop("headers"),
                  receipt=said.pop("receipt", None), more=said)


def filter_config(pay_to: str, facilitators: list[dict[str, Any]], spender: str) -> dict[str, Any]:
    """A route for each way to be paid that the facilitators' networks allow; `spender` is who may use a permit."""
    served = {network for facilitator in facilitators for network in facilitator["networks"]}

    def usdc(scheme: str, network: str, **more: str) -> dict[str, str]:
        return {"scheme": scheme, "network": network, "asset": "USDC", **more}

    def priced(name: str, path: str, *accept: dict[str, str]) -> dict[str, Any]:
        return {"name": name, "match": {"path": path}, "price": {"per_request": PRICE}, "accept": list(accept),
                "description": f"A request to {path}", "mime_type": "application/json"}

    def metered(name: str, path: str, **terms: str) -> dict[str, Any]:
        offers = usdc("upto", BASE_SEPOLIA), usdc("exact", BASE_SEPOLIA, transfer="eip3009")
        more = {"metered": terms} if terms else {}
        return {**priced(name, path, *offers), "price": {"per_token": PER_TOKEN}, "flow": "metered", **more}

    routes = [
        metered("metered", "/metered/*"),
        metered("metered-free", "/metered-free/*", on_backend_failure="free"),
        priced("exact", "/v1/*", usdc("exact", BASE_SEPOLIA, transfer="eip3009")),
        priced("permit2", "/permit2/*", usdc("exact", BASE_SEPOLIA, transfer="permit2")),
        priced("upto", "/upto/*", usdc("upto", BASE_SEPOLIA)),
        priced("any", "/any/*", usdc("upto", BASE_SEPOLIA), usdc("exact", BASE_SEPOLIA, transfer="eip3009"),
               usdc("exact", BASE_SEPOLIA, transfer="permit2")),
        priced("base", "/base/*", usdc("exact", BASE, transfer="eip3009")),
        priced("permit", "/permit/*", usdc("upto", BASE, transfer="permit", spender=spender)),
    ]
    return {
        "pay_to": {"eip155": pay_to},
        "facilitators": facilitators,
        "unmatched": "deny",
        "routes": [
            {"name": "health", "match": {"path": "/healthz"}, "price": "free"},
            *(route for route in routes if served.issuperset(offer["network"] for offer in route["accept"])),
        ],
        "access": {"dummy_api_keys": ["x402"]},
        # Advertised to every client here, known to some.
        "payment_identifier": "optional",
        "challenge": {"v1": True, "plain_headers": True, "body": "x402"},
    }
