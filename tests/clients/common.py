"""What the Python clients have in common: what they are told (by the environment) and what they print."""

import base64
import json
import os
from typing import Any, Mapping

from eth_account import Account
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.mechanisms.evm.upto import UptoEvmClientScheme

URL = os.environ["URL_TO_PAY"]
BODY = os.environ.get("BODY")
# With a body the request is a POST.
METHOD = "GET" if BODY is None else "POST"
HEADERS = {} if BODY is None else {"content-type": "application/json", **json.loads(os.environ.get("HEADERS", "{}"))}


def registered(client: Any) -> Any:
    """The client, able to pay `exact` and `upto` on any EVM network."""
    signer = EthAccountSigner(Account.from_key(os.environ["PAYER_KEY"]))
    register_exact_evm_client(client, signer)
    client.register("eip155:*", UptoEvmClientScheme(signer))
    return client


def report(status: int, headers: Mapping[str, str], text: str, **more: Any) -> None:
    """The one line that a test reads."""
    named = {name.lower(): value for name, value in headers.items()}
    receipt = named.get("payment-response") or named.get("x-payment-response")
    print(json.dumps({
        "status": status, "headers": named, "body": text,
        "receipt": json.loads(base64.b64decode(receipt)) if receipt else None, **more,
    }))
