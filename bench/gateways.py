"""The Envoys that are compared: one worker each, on the server's core, all with the same listener and without an access log."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stack.envoy import STRING, TYPE, Envoy, gateway, route, wasm_filter, with_filter_config
from stack.process import Process, free_port, listening

from . import build, machine

Json = dict[str, Any]

SELLER = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
NETWORK = "eip155:84532"
# As envoy/envoy.yaml sets the connection manager up.
MANAGER: Json = {
    "common_http_protocol_options": {"idle_timeout": "3600s", "headers_with_underscores_action": "REJECT_REQUEST"},
    "use_remote_address": True,
    "normalize_path": True,
    "merge_slashes": True,
    "path_with_escaped_slashes_action": "REJECT_REQUEST",
    "request_headers_timeout": "10s",
}
ACCEPT: Json = {"scheme": "exact", "network": NETWORK, "asset": "USDC", "transfer": "eip3009", "max_timeout": "300s"}
# envoy/envoy.yaml's, and what the benches ask for: a priced path that needs no body, and the same settled before.
FILTER: Json = {
    "pay_to": {"eip155": SELLER},
    "accept": [ACCEPT],
    "facilitators": [{"cluster": "facilitator", "url": "http://facilitator.test", "networks": [NETWORK],
                      "verify_timeout": "5s", "settle_timeout": "60s"}],
    "pre_check": {"clock_skew": "5s", "max_validity": "1h"},
    "public_url": "https://api.example.com",
    "unmatched": "deny",
    "routes": [
        {"name": "chat-large", "match": {"methods": ["POST"], "path": "/v1/chat/completions", "model": "gpt-4o*"},
         "price": {"per_request": "$0.02"}, "description": "Chat completion, large model", "mime_type": "application/json"},
        {"name": "chat", "match": {"methods": ["POST"], "path": "/v1/chat/completions"}, "price": {"per_request": "$0.005"},
         "description": "Chat completion", "mime_type": "application/json"},
        {"name": "embeddings", "match": {"methods": ["POST"], "path": "/v1/embeddings"}, "price": {"per_request": "$0.001"},
         "description": "Embeddings", "mime_type": "application/json"},
        {"name": "report", "match": {"methods": ["GET"], "path": "/v1/report"}, "price": {"per_request": "$0.01"},
         "description": "A report", "mime_type": "application/json"},
        {"name": "upfront", "match": {"methods": ["GET"], "path": "/v1/upfront"}, "price": {"per_request": "$0.01"},
         "flow": "upfront", "description": "A report", "mime_type": "application/json"},
        {"name": "models", "match": {"methods": ["GET"], "path": "/v1/models"}, "price": "free"},
        {"name": "health", "match": {"methods": ["GET"], "path": "/healthz"}, "price": "free"},
    ],
    "access": {"dummy_api_keys": ["x402"]},
    "replay": {"max_claims": 1_000_000},
    "challenge": {"v1": True, "plain_headers": True, "body": "x402"},
}


def changed(**changes: Any) -> Json:
    """FILTER with other values at its first level."""
    return {**copy.deepcopy(FILTER), **copy.deepcopy(changes)}


class Site:
    """A backend and a facilitator on the driver's core, and whatever Envoys are asked for. A context manager."""

    def __init__(self, *, backend: tuple[str, ...] = (), delay_ms: int = 0) -> None:
        self._stack = contextlib.ExitStack()
        self.backend = self._server("backend", *backend)
        supported = build.HOME / "supported.json"
        supported.parent.mkdir(parents=True, exist_ok=True)
        supported.write_text(json.dumps({
            "kinds": [{"x402Version": version, "scheme": scheme, "network": network, "extra": {"facilitatorAddress": SELLER}}
                      for version, network in ((2, NETWORK), (1, "base-sepolia")) for scheme in ("exact", "upto")],
            "extensions": [], "signers": {"eip155:*": [SELLER]}}))
        self.facilitator = self._server("facilitator", "--supported", str(supported), "--delay-ms", str(delay_ms))

    def _server(self, name: str, *arguments: str) -> int:
        port = free_port()
        self.process(name, [build.tool(name), "--port", str(port), *arguments], machine.DRIVER, port)
        return port

    def process(self, name: str, argv: list[str | Path], cores: set[int], port: int, **options: Any) -> Process:
        """A server that is ended with the site, ready once it listens."""
        with machine.on(cores):
            process = self._stack.enter_context(Process(argv, log=build.HOME / f"{name}.log", name=name, **options))
        process.wait_ready(lambda: listening(port))
        return process

    def envoy(self, name: str, *, filters: list[Json] | None = None, filter_config: Json | None = None, reader: bool = True,
              routes: list[Json] | None = None, workers: int = 1, clusters: list[Json] = (), wasm: Path | None = None,
              before: list[Json] = (), after: list[Json] = (), cores: set[int] | None = None, read_get: bool = False,
              edit: Callable[[Json], None] | None = None) -> Envoy:
        """An Envoy: with the filter if it has a configuration, else with `filters` (none: a plain proxy). `edit` changes what was made.

        Its reader is asked about everything but a GET, as in envoy/envoy.yaml, or with `read_get` about a GET too.
        """
        config = gateway(self.backend, {"facilitator": self.facilitator}, filters=filter_config is not None, reader=reader, read_get=read_get, wasm=wasm or build.MODULE,
                         before=before, after=[*(filters or []), *after], routes=routes, clusters=clusters, path_normalisation=MANAGER)
        if filter_config is not None:
            config = with_filter_config(config, filter_config)
        if edit is not None:
            edit(config)
        with machine.on(cores or machine.SERVER):
            return self._stack.enter_context(Envoy(config, workers=workers, name=f"bench-{name}", access_log=False))

    def envoys(self, name: str, starts: int, **options: Any) -> list[Envoy]:
        """The same one, started so many times."""
        return [self.envoy(name, **options) for _ in range(starts)]

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def noop(name: str = "noop") -> Json:
    """The filter that does nothing."""
    return wasm_filter(name, build.HOME / "x402_bench_filters.wasm", vm_id="bench")


# As long as what a facilitator is sent, and answered alike.
_ASKED = ('{"x402Version":2,"paymentPayload":{"payload":{"authorization":{"from":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8"}},"padding":"%s"},'
          '"paymentRequirements":{"network":"eip155:84532","amount":"10000"}}')
BODY = _ASKED % ("x" * (1069 - len(_ASKED) + len("%s")))


def calls(*paths: str, body: str = BODY, cluster: str = "facilitator", others: bool = False) -> Json:
    """The filter that asks the first path before the backend, the second after it, and does nothing else; or makes all `others` of the calls
    of Envoy that the real one makes for a paid request, and decides nothing."""
    word = "same calls" if others else "calls"
    return _configured(word.replace(" ", "-"), "\n".join([word, cluster, *paths, *[""] * (2 - len(paths)), body]))


def reading() -> Json:
    """The filter that fetches each part of an answer's body, and does nothing with it."""
    return _configured("reading", "reading")


def looking() -> Json:
    """The filter that fetches the request's headers, looks at the clock, and lets it pass."""
    return _configured("looking", "looking")


def _configured(name: str, configuration: str) -> Json:
    made = wasm_filter(name, build.HOME / "x402_bench_filters.wasm", vm_id=name)
    made["typed_config"]["config"]["configuration"] = {"@type": STRING, "value": configuration}
    return made


def constant(headers: list[tuple[str, str]], body: bytes, *, observing: bool = False) -> Json:
    """The filter that answers 402 with these bytes; if it is `observing`, after the same calls of Envoy that the real one makes for a challenge."""
    name = "observing" if observing else "constant"
    return _configured(name, ("observing\n" if observing else "") + "".join(f"{name}: {value}\n" for name, value in headers) + "\n" + body.decode())


def direct(headers: list[tuple[str, str]], body: bytes, status: int = 402) -> list[Json]:
    """Routes on which Envoy itself answers with these bytes."""
    made = route("/", name="direct")
    del made["route"]
    return [{**made, "direct_response": {"status": status, "body": {"inline_string": body.decode()}},
             "response_headers_to_add": [{"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                                         for name, value in headers]}]


def lua(headers: list[tuple[str, str]], body: bytes) -> Json:
    """Envoy's Lua filter, answering 402 with these bytes."""
    fields = ", ".join(f"[ [==[{name}]==] ] = [==[{value}]==]" for name, value in [(":status", "402"), *headers])
    code = f"local headers, body = {{{fields}}}, [==[{body.decode()}]==]\nfunction envoy_on_request(handle) handle:respond(headers, body) end\n"
    return {"name": "envoy.filters.http.lua", "typed_config": {
        "@type": TYPE + "extensions.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": code}}}


def ext_authz(cluster: str = "facilitator") -> Json:
    """Envoy's own filter that asks a service over HTTP about each request."""
    return {"name": "envoy.filters.http.ext_authz", "typed_config": {
        "@type": TYPE + "extensions.filters.http.ext_authz.v3.ExtAuthz",
        "http_service": {"server_uri": {"uri": "http://authz.test", "cluster": cluster, "timeout": "5s"}, "path_prefix": "/authz"}}}


__all__ = ["FILTER", "Site", "calls", "changed", "constant", "direct", "ext_authz", "looking", "lua", "noop", "reading"]
