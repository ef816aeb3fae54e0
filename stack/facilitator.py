"""The official Python facilitator (PyPI `x402`) as an HTTP server: /verify, /settle, /supported;
`exact` with EIP-3009 and Permit2, `upto`, and x402 version 1.

    .local/venv/bin/python stack/facilitator.py [--port 4024] [--chain 84532=http://127.0.0.1:8545]... [--key 0x…]
                                                [--receipt-timeout 120] [--pending-store memory|broken]

`--receipt-timeout`: how many seconds it waits for a transaction to be mined (the default is the package's own). `--pending-store broken`: where
it notes the transactions that it waited for in vain cannot be written to, as happens to a store that several facilitators share.
Prints one line of JSON when it is ready, and runs until SIGTERM or SIGINT.
"""

import argparse
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from x402 import x402FacilitatorSync
from x402.mechanisms.evm.exact import ExactEvmFacilitatorScheme
from x402.mechanisms.evm.exact.v1.facilitator import ExactEvmSchemeV1
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
from x402.mechanisms.evm.upto import UptoEvmFacilitatorScheme
from x402.schemas import parse_payment_payload, parse_payment_requirements

V1_NAMES = {"84532": "base-sepolia", "8453": "base"}
# Anvil's account 7; known to everybody, worth nothing.
KEY = "0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356"


class BrokenStore:
    """A pending-settlement store that takes nothing."""

    def get(self, key: str) -> str | None:
        return None

    def set(self, key: str, tx_hash: str) -> None:
        raise OSError("the store is read-only")

    def delete(self, key: str) -> None:
        pass


def build(chains: list[str], key: str, receipt_timeout: float, store: BrokenStore | None) -> x402FacilitatorSync:
    """A facilitator for each `id=rpc`."""
    facilitator = x402FacilitatorSync()
    for chain in chains:
        chain_id, rpc = chain.split("=", 1)
        signer = FacilitatorWeb3Signer(private_key=key, rpc_url=rpc, confirmation_timeout_seconds=receipt_timeout)
        network = f"eip155:{chain_id}"
        facilitator.register([network], ExactEvmFacilitatorScheme(signer, pending_store=store))
        facilitator.register([network], UptoEvmFacilitatorScheme(signer, pending_store=store))
        facilitator.register_v1([V1_NAMES[chain_id]], ExactEvmSchemeV1(signer))
    return facilitator


def serve(facilitator: x402FacilitatorSync, port: int) -> ThreadingHTTPServer:
    """The HTTP side; each request has its own thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/supported":
                return self.answer(200, facilitator.get_supported())
            self.answer(404, {"error": "not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            act = {"/verify": facilitator.verify, "/settle": facilitator.settle}.get(self.path)
            if act is None:
                return self.answer(404, {"error": "not found"})
            try:
                payload = parse_payment_payload(body["paymentPayload"])
                wanted = parse_payment_requirements(payload.x402_version, body["paymentRequirements"])
                result = act(payload, wanted)
            except Exception as error:  # whatever it is, the caller gets an answer
                self.log_message("%s: %r", self.path, error)
                return self.answer(500, {"error": str(error)})
            reason = getattr(result, "invalid_reason", None) or getattr(result, "error_reason", None)
            self.log_message("%s v%s %s: %s", self.path, payload.x402_version, wanted.scheme, reason or "ok")
            self.answer(200, result)

        def answer(self, status: int, body: object) -> None:
            if hasattr(body, "model_dump"):
                body = body.model_dump(by_alias=True, exclude_none=True)
            data = json.dumps(body).encode()
            self.send_response_only(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=4024)
    parser.add_argument("--chain", action="append")
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--receipt-timeout", type=float, default=120)
    parser.add_argument("--pending-store", choices=["memory", "broken"], default="memory")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    store = BrokenStore() if options.pending_store == "broken" else None
    facilitator = build(options.chain or ["84532=http://127.0.0.1:8545"], options.key, options.receipt_timeout, store)
    server = serve(facilitator, options.port)
    print(json.dumps({"ready": True, "url": f"http://127.0.0.1:{options.port}", "pid": os.getpid()}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
