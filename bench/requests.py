"""Requests as bytes, files of them for the load generator, and one exchange by hand."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import build, machine

Json = dict[str, Any]

HOST = "api.example.com"
# What an SDK sends with each request, about: the filter reads all of it.
HEADERS = [("host", HOST), ("user-agent", "bench/1.0"), ("accept", "application/json")]
# Set by Envoy or by HTTP itself, so no part of what a filter answers.
NOT_OURS = {"content-length", "date", "server", "connection", "x-envoy-upstream-service-time", "transfer-encoding"}


def get(path: str, *more: tuple[str, str]) -> bytes:
    """A GET."""
    return _head("GET", path, more)


def post(path: str, body: Json, *more: tuple[str, str]) -> bytes:
    """A POST of JSON."""
    text = json.dumps(body).encode()
    return _head("POST", path, [("content-type", "application/json"), ("content-length", str(len(text))), *more]) + text


def _head(method: str, path: str, more: Any) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in [*HEADERS, *more])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def file(*requests: bytes) -> Path:
    """A file of requests for `load`."""
    path = _path("requests")
    path.write_bytes(b"".join(struct.pack("<I", len(one)) + one for one in requests))
    return path


@dataclass(frozen=True)
class Challenge:
    """A 402 as it came: the headers and the body that are the filter's own, and the v2 challenge in them."""

    headers: list[tuple[str, str]]
    body: bytes

    @property
    def required(self) -> Json:
        """The x402 v2 `PaymentRequired`."""
        found = dict(self.headers).get("payment-required")
        return json.loads(base64.b64decode(found)) if found else json.loads(self.body)


def challenge(port: int, path: str, method: str = "GET", body: Json | None = None) -> Challenge | None:
    """What a request without a payment is answered; None unless that is a 402."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, dict([*HEADERS, *([("content-type", "application/json")] if body else [])]))
        answer = connection.getresponse()
        data = answer.read()
        fields = [(name.lower(), value) for name, value in answer.getheaders() if name.lower() not in NOT_OURS]
        return Challenge(fields, data) if answer.status == 402 else None
    finally:
        connection.close()


def facilitator_calls(port: int) -> dict[str, int]:
    """How often the facilitator was asked so far: `verify`, `settle`, `plain`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/calls")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def payments(asked: Challenge, template: bytes, count: int, *, payers: int = 100, forged: bool = False,
             scheme: str = "exact") -> Path:
    """A file of `count` requests that pay what was asked: each good once, for as long as the offer says.

    The template is a request with `{payment}` where the value of the payment header goes.
    """
    required, request, out = _path("challenge"), _path("template"), _path("payments")
    required.write_text(json.dumps(asked.required))
    request.write_bytes(template)
    with machine.on(machine.DRIVER):
        subprocess.run([str(build.tool("pay")), "--challenge", str(required), "--template", str(request), "--out", str(out),
                        "--count", str(count), "--payers", str(payers), "--forged", str(int(forged)), "--scheme", scheme], check=True)
    required.unlink()
    request.unlink()
    return out


def _path(kind: str) -> Path:
    home = build.HOME / "requests"
    home.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix=f"{kind}-", dir=home)
    open(handle, "wb").close()
    return Path(path)
