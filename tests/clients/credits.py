"""A shop that sells by prepaid credits: Envoy with the filter, the ledger behind it, and all that is said to the facilitator."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stack.envoy import Envoy, cluster, gateway as envoy_config, route
from stack.ledger import Account, Json, Ledger, is_described
from stack.process import free_port, wait_until

from .world import BASE_SEPOLIA, CLIENTS, PRICE, Result, pay

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.client import Response, call  # noqa: E402
from e2e.payments import Payment  # noqa: E402

COMPLETIONS = "/v1/chat/completions"
FUND, SETTLE, WEBHOOK = (f"/v1/billing/x402/{what}" for what in ("fund", "settle", "webhook"))
CHAT = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "Hello!"}]})
OFFER = {"scheme": "exact", "network": BASE_SEPOLIA, "asset": "USDC", "transfer": "eip3009"}


class Wire:
    """Stands before a facilitator: requests and answers pass through, and are kept as they came."""

    def __init__(self, target: str) -> None:
        self._said: list[bytes] = []
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                wire._said.append(f"{self.requestline}\n{self.headers}".encode() + body)
                asked = urllib.request.Request(f"{target}{self.path}", method=self.command, data=body or None,
                                               headers={"content-type": "application/json"})
                try:
                    found = urllib.request.urlopen(asked, timeout=60)
                except urllib.error.HTTPError as error:
                    found = error
                with found:
                    answer = found.read()
                wire._said.append(answer)
                self.send_response_only(found.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def said(self) -> bytes:
        """Everything, in both directions."""
        return b"\n".join(self._said)

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


class Shop:
    """Two routes that are paid from balances, and the ledger's own paths."""

    def __init__(self, directory: Path, backend: int, facilitator: str, pay_to: str, database: str | None = None, **credits: Any) -> None:
        """`facilitator` is a URL; `credits` that section of the ledger's configuration."""
        # What the facilitator knows the ledger by.
        self.facilitator_key = f"of-the-facilitator-{directory.name}-{free_port()}"
        self.ledger = Ledger(directory, {
            "pay_to": {"eip155": pay_to}, "accept": [OFFER], "credits": credits,
            "facilitators": [{"url": facilitator, "verify_timeout": "10s", "settle_timeout": "30s",
                              "headers": {"authorization": f"Bearer {self.facilitator_key}"}}],
        }, database, log="debug")
        # Every key that was made here.
        self.keys: list[str] = []
        clusters = cluster("ledger", self.ledger.port), cluster("facilitator", int(facilitator.rsplit(":", 1)[1]))
        routes = [route("/v1/billing/", "billing", to="ledger"), route()]
        self.envoy = Envoy(envoy_config(backend, {}, routes=routes, clusters=clusters), {
            "pay_to": {"eip155": pay_to}, "accept": [OFFER], "unmatched": "deny",
            "facilitators": [{"cluster": "facilitator", "url": "http://facilitator.test", "networks": [BASE_SEPOLIA]}],
            "routes": [
                {"name": "billing", "match": {"path": "/v1/billing/*"}, "price": "free"},
                {"name": "chat", "match": {"path": COMPLETIONS}, "price": {"per_request": PRICE}},
                {"name": "echo", "match": {"path": "/echo"}, "price": {"per_request": PRICE}},
            ],
            "access": {"credits": {"enabled": True}},
            "ledger": {"cluster": "ledger", "url": "http://ledger.test", "headers": {"authorization": f"Bearer {self.ledger.token}"}},
        }, directory=directory / "envoy")
        # Until the ledger knows what the facilitator takes.
        first = self.account()
        wait_until(lambda: self.ask(first, CHAT, COMPLETIONS).status == 402, "an offer of a top-up")

    def account(self, micros: int = 0) -> Account:
        """A new tenant with a key."""
        account = self.ledger.account(micros)
        self.keys.append(account.key)
        return account

    def ask(self, account: Account | str | None, body: Any = None, path: str = FUND, payment: Payment | None = None, **headers: str) -> Response:
        """A request through Envoy, with an account's key and a payment; without a body it is a GET. Bodies are JSON, or as they are."""
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if account is not None:
            fields.append(("authorization", f"Bearer {account if isinstance(account, str) else account.key}"))
        if payment is not None:
            fields += payment.headers()
        if body is None:
            answer = call(self.envoy.port, "GET", path, fields)
        else:
            data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
            answer = call(self.envoy.port, "POST", path, [("content-type", "application/json"), *fields], data)
        # These the ledger answers itself.
        assert not path.startswith("/v1/billing") or is_described("GET" if body is None else "POST", path, answer.status), answer
        return answer

    def client(self, payer: str, account: Account, body: str = CHAT, path: str = COMPLETIONS, script: str = "fetch.mjs", cap: str | None = None,
               **environment: str) -> Result:
        """An official client as its users call it, with an account's key; `cap` raises the most that @x402/fetch pays at once."""
        url, headers = self.envoy.url(path), json.dumps({"authorization": f"Bearer {account.key}"})
        if cap is None:
            return pay(script, url, payer, BODY=body, HEADERS=headers, **environment)
        program = (CLIENTS / script).read_text()
        capped = program.replace("new x402Client()", f"new x402Client().setSpendControls({{ maxAmountPerPayment: '{cap}' }})")
        assert capped != program
        done = subprocess.run(["node", "--import", CLIENTS / "resolve.mjs", "--input-type=module", "--eval", capped], cwd=CLIENTS, timeout=120,
                              capture_output=True, text=True, env={
                                  **os.environ, "URL_TO_PAY": url, "PAYER_KEY": payer, "PACKAGES": ".", "BODY": body, "HEADERS": headers})
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        return Result(said["status"], said["body"], said["headers"], said.get("receipt"))

    def signed(self, event: Json, secret: str | None = None, age: int = 0) -> tuple[bytes, str]:
        """A webhook's body and its X402-Signature."""
        body, moment = json.dumps(event).encode(), int(time.time()) - age
        mac = hmac.new((secret or self.ledger.webhook_secret).encode(), f"{moment}.".encode() + body, hashlib.sha256)
        return body, f"t={moment},v1={mac.hexdigest()}"

    def stop(self) -> None:
        """Ends it; its books are right."""
        assert "every balance is the sum" in self.ledger.command("check")
        self.envoy.stop()
        self.ledger.stop()
