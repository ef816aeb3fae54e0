"""A running x402-ledger, and what an operator asks of it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

from . import tools
from .postgres import binaries
from .process import Process, free_port

Json = dict[str, Any]
MICROS = 1_000_000
DESCRIPTION = tools.ROOT / "docs" / "ledger.openapi.json"


@cache
def _templates() -> list[tuple[list[str], Json]]:
    return [(path.split("/"), methods) for path, methods in json.loads(DESCRIPTION.read_text())["paths"].items()]


def is_described(method: str, path: str, status: int) -> bool:
    """Whether the API's description has such an answer."""
    parts = path.split("?")[0].split("/")
    for names, methods in _templates():
        if len(names) == len(parts) and all(name == part or name.startswith("{") for name, part in zip(names, parts)):
            return str(status) in methods[method.lower()]["responses"]
    # The description itself, and what there is not.
    return (path, status) == ("/openapi.json", 200) or status == 404


def token_file(path: Path, token: str) -> Path:
    """Envoy's secret with the data path's token, as its `path_config_source` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "ledger-token",
        "generic_secret": {"secret": {"inline_string": f"Bearer {token}"}}}]}))
    path.chmod(0o600)
    return path


class Ledger:
    """The service on a database; killed and started again it is the same one."""

    def __init__(self, directory: Path, config: Json, database: str | None = None, log: str = "info", port: int | None = None) -> None:
        """`config` is ledger.yaml without `listen`; `database` a URL, or None for a file of SQLite's."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = f"token-of-envoy-{self.port}"
        self.webhook_secret = f"whsec-of-the-tests-{self.port}"
        self.database = database or f"sqlite:{directory / 'ledger.db'}"
        # YAML is a superset of JSON.
        self.file = directory / "ledger.yaml"
        self.file.write_text(json.dumps({"listen": f"127.0.0.1:{self.port}", **config}))
        self.env = {
            "X402_LEDGER_CONFIG": str(self.file), "X402_LEDGER_DATABASE_URL": self.database, "X402_LEDGER_LOG": log,
            "X402_LEDGER_TOKEN": self.token, "X402_LEDGER_ADMIN_TOKEN": f"token-of-admins-{self.port}",
            "X402_LEDGER_WEBHOOK_SECRET": self.webhook_secret, "X402_LEDGER_KEY": "5a" * 32,
        }
        self.start()

    def start(self) -> None:
        """Until it answers."""
        self.process = Process([tools.ensure_ledger(), "serve"], self.directory / "ledger.log", name="x402-ledger", env=self.env)
        self.process.wait_ready(self._ready)

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
            return answer.status == 200

    def kill(self) -> None:
        """As a power cut would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.stop()

    def stop(self) -> None:
        """As an operator would."""
        self.process.stop(grace=40)

    def logs(self) -> str:
        """All it has written."""
        return self.process.output()

    def call(self, method: str, path: str, body: Json | bytes | None = None, headers: Json | None = None) -> tuple[int, Json, Json]:
        """Status, headers with names in lower case, and the JSON of the body."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", method=method, data=data,
                                         headers={"content-type": "application/json", **(headers or {})})
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read()
            assert is_described(method, path, answer.status), (method, path, answer.status, text)
            found = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, found, json.loads(text) if found.get("content-type") == "application/json" else {"text": text.decode()}

    def admin(self, method: str, path: str, body: Json | None = None) -> Json:
        """What the admin API answers; anything but success is an error."""
        token = {"authorization": f"Bearer {self.env['X402_LEDGER_ADMIN_TOKEN']}"}
        status, _, said = self.call(method, f"/admin/v1{path}", body, token)
        assert status < 300, (status, said)
        return said

    def command(self, *words: str) -> str:
        """What the command line says; a failure is an error."""
        done = subprocess.run([tools.ensure_ledger(), *words], env={**os.environ, **self.env}, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def stored(self) -> bytes:
        """All that the database holds: the bytes of SQLite's files, or a dump."""
        if self.database.startswith("sqlite:"):
            file = Path(self.database.removeprefix("sqlite:"))
            parts = [Path(f"{file}{ending}") for ending in ("", "-wal", "-shm")]
            return b"".join(part.read_bytes() for part in parts if part.exists())
        return subprocess.run([binaries() / "pg_dump", "--dbname", self.database, "--inserts"], capture_output=True, check=True).stdout

    def sql(self, statements: str) -> None:
        """Past the service, as an operator could. It must not hold anything meanwhile."""
        if self.database.startswith("sqlite:"):
            connection = sqlite3.connect(self.database.removeprefix("sqlite:"), timeout=60)
            connection.executescript(statements)
            connection.close()
        else:
            subprocess.run([binaries() / "psql", "-qc", statements, self.database], check=True, stdout=subprocess.DEVNULL)

    def end_leases(self, settling_until: int | None = None) -> None:
        """As time passes: whatever somebody holds who is gone is given up. Of what is being settled, if it is until then at most (None: all)."""
        ended = "" if settling_until is None else f" AND (state <> 'settling' OR lease_until < {settling_until})"
        self.sql(f"UPDATE intents SET lease_until = 1 WHERE lease_until > 1 AND holder NOT LIKE 'pi_%'{ended}; "
                 "UPDATE reservations SET expires_at = 1 WHERE state = 'open';")

    def account(self, micros: int = 0, name: str = "test") -> Account:
        """A new tenant with a key and so many micro-dollars, given by hand."""
        tenant = self.admin("POST", "/tenants", {"name": name})["id"]
        key = self.admin("POST", f"/tenants/{tenant}/keys", {"label": name})["key"]
        account = Account(self, tenant, key)
        if micros:
            account.give(micros)
        return account


class Account:
    """A tenant and its key."""

    def __init__(self, ledger: Ledger, tenant: str, key: str) -> None:
        self.ledger = ledger
        self.tenant = tenant
        self.key = key

    def give(self, micros: int) -> None:
        """By hand."""
        amount = f"{micros / MICROS:.6f}"
        self.ledger.admin("POST", f"/tenants/{self.tenant}/adjustments", {"amount": amount, "reference": f"test-{time.time_ns()}", "reason": "a test"})

    def _has(self, what: str) -> int:
        return micros(self.ledger.admin("GET", f"/tenants/{self.tenant}")[what])

    @property
    def balance(self) -> int:
        """What can be spent, in micro-dollars."""
        return self._has("available")

    @property
    def held(self) -> int:
        """What is reserved, in micro-dollars."""
        return self._has("reserved")

    def rows(self, kind: str = "") -> list[Json]:
        """The journal, the latest first: at most 1000 rows."""
        query = f"&kind={kind}" if kind else ""
        return self.ledger.admin("GET", f"/transactions?limit=1000&tenant={self.tenant}{query}")["data"]

    @property
    def spent(self) -> int:
        """All that was charged, in micro-dollars."""
        return sum(micros(row["amount"]) for row in self.rows("usage"))

    @property
    def funded(self) -> int:
        """All that came in by x402, in micro-dollars."""
        return sum(micros(row["amount"]) for row in self.rows("x402_topup"))


def micros(dollars: str) -> int:
    """Micro-dollars of `1.50`."""
    whole, _, part = dollars.partition(".")
    return int(whole) * MICROS + int(part.ljust(6, "0"))
