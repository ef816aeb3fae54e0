"""A real Envoy with the filter in it.

`gateway()` builds the configuration that the tests, the demo and the benches share; `Envoy` runs one and asks its admin
interface. Listeners come from a file (LDS), so that `Envoy.update` can try a new filter configuration on a running
Envoy. Standard library only.

    config = gateway(backend=8001, facilitators={"facilitator": 8002})
    with Envoy(config, filter_config={"unmatched": "pass", ...}) as envoy:
        print(envoy.url("/"))
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Iterable, Mapping

from . import tools
from .process import DEADLINE, Process, free_port, listening, wait_until

Json = dict[str, Any]

TYPE = "type.googleapis.com/envoy."
HCM = TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
WASM = TYPE + "extensions.filters.http.wasm.v3.Wasm"
STRUCT = "type.googleapis.com/google.protobuf.Struct"
STRING = "type.googleapis.com/google.protobuf.StringValue"
UPSTREAM = TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions"
UPSTREAM_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Shared data belongs to a vm_id; an empty one would be shared with strangers.
VM_ID = "x402"
# How the filter's configuration is written into Envoy's: as a google.protobuf.Struct or as a google.protobuf.StringValue
# holding JSON. Envoy passes a Struct on as the bytes of the protobuf message, NOT as JSON (1.36 to 1.40, measured).
FORMS = ("struct", "string")
# The net under a dead VM, nothing else: longer than a settlement and than the longest silence of a model.
STREAM_IDLE_TIMEOUT = "300s"

ACCESS_LOG = {
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "test_id": "%REQ(X-TEST-ID)%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_sent": "%BYTES_SENT%",
    "upstream": "%UPSTREAM_HOST%",
    "x402_payer": "%FILTER_STATE(wasm.x402_payer:PLAIN)%",
    "x402_network": "%FILTER_STATE(wasm.x402_network:PLAIN)%",
    "x402_asset": "%FILTER_STATE(wasm.x402_asset:PLAIN)%",
    "x402_amount": "%FILTER_STATE(wasm.x402_amount:PLAIN)%",
    "x402_scheme": "%FILTER_STATE(wasm.x402_scheme:PLAIN)%",
    "x402_outcome": "%FILTER_STATE(wasm.x402_outcome:PLAIN)%",
    "x402_settled": "%FILTER_STATE(wasm.x402_settled:PLAIN)%",
    "x402_input_tokens": "%FILTER_STATE(wasm.x402_input_tokens:PLAIN)%",
    "x402_output_tokens": "%FILTER_STATE(wasm.x402_output_tokens:PLAIN)%",
    "x402_transaction": "%FILTER_STATE(wasm.x402_transaction:PLAIN)%",
}


def wasm_filter(root_id: str, wasm: Path, configuration: Json | None = None, vm_id: str = VM_ID,
                on_headers_stop_iteration: bool = False, reload_after: str = "1s") -> Json:
    """One role of the module as an HTTP filter; both roles must share `vm_id`, code and configuration."""
    plugin: Json = {
        "name": root_id,
        "root_id": root_id,
        "vm_config": {
            "vm_id": vm_id,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": str(wasm)}},
        },
        "configuration": plugin_configuration(configuration or {}),
        "failure_policy": "FAIL_RELOAD",
        "reload_config": {"backoff": {"base_interval": reload_after}},
    }
    if on_headers_stop_iteration:
        plugin["allow_on_headers_stop_iteration"] = True
    return {"name": root_id, "typed_config": {"@type": WASM, "config": plugin}}


def doing_without_reader(route: Json) -> Json:
    """The part of a route that the reader is not asked about: nobody reads the body of a GET."""
    found = copy.deepcopy(route)
    found["match"].setdefault("headers", []).append({"name": ":method", "string_match": {"exact": "GET"}})
    found.setdefault("typed_per_filter_config", {})["x402-reader"] = {"@type": TYPE + "config.route.v3.FilterConfig", "disabled": True}
    return found


def wasm_plugins(config: Any) -> Iterable[Json]:
    """The plugin of each wasm filter anywhere in a bootstrap, in order."""
    if isinstance(config, dict):
        if config.get("@type") == WASM:
            yield config["config"]
        config = list(config.values())
    if isinstance(config, list):
        for inner in config:
            yield from wasm_plugins(inner)


def plugin_configuration(configuration: Json, form: str = "struct") -> Json:
    """The filter's configuration as the Any that Envoy wants, in one of `FORMS`."""
    if form == "string":
        return {"@type": STRING, "value": json.dumps(configuration)}
    return {"@type": STRUCT, "value": configuration}


def cors_filter() -> Json:
    """Envoy's own CORS filter; the policy is the one `gateway` puts on its virtual host."""
    return {"name": "envoy.filters.http.cors",
            "typed_config": {"@type": TYPE + "extensions.filters.http.cors.v3.Cors"}}


def cluster(name: str, ports: int | Iterable[int], http2: bool = False, connect_timeout: str = "2s") -> Json:
    """A STATIC cluster on 127.0.0.1; no port makes a cluster without endpoints."""
    ports = [ports] if isinstance(ports, int) else list(ports)
    options: Json = (
        {"http2_protocol_options": {"allow_connect": True}} if http2
        else {"http_protocol_options": {"enable_trailers": True}}
    )
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": connect_timeout,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in ports]}],
        },
        "typed_extension_protocol_options": {
            UPSTREAM_KEY: {"@type": UPSTREAM, "explicit_http_config": options},
        },
    }


def route(prefix: str = "/", name: str = "default", to: str = "backend", **more: Any) -> Json:
    """An Envoy route without a timeout of its own: a settlement or a model may take long."""
    match = more.pop("match", {"prefix": prefix})
    return {"name": name, "match": match, "route": {"cluster": to, "timeout": "0s", **more.pop("action", {})}, **more}


def gateway(
    backend: int | Iterable[int],
    facilitators: Mapping[str, int | Iterable[int]] | None = None,
    *,
    wasm: Path | None = None,
    reader: bool = True,
    read_get: bool = False,
    filters: bool = True,
    backend_http2: bool = False,
    codec: str = "AUTO",
    cors: bool = False,
    routes: list[Json] | None = None,
    clusters: Iterable[Json] = (),
    before: Iterable[Json] = (),
    after: Iterable[Json] = (),
    upgrades: Iterable[str] = (),
    buffer_limit: int | None = None,
    path_normalisation: Json | None = None,
    vm_id: str = VM_ID,
    port: int | None = None,
    host: str = "127.0.0.1",
) -> Json:
    """The standard gateway as an Envoy bootstrap: one listener (HTTP/1.1 and h2c by prior knowledge with codec AUTO),
    `x402-reader`, `x402`, optional CORS, router; clusters `backend` and one per facilitator.

    `filters=False` leaves the filter out, `reader=False` only the reader, which is asked about a GET only with `read_get`.
    `before` and `after` are HTTP filters around it. `buffer_limit` (bytes) raises what may be collected of a request.
    `path_normalisation` is merged into the connection manager, which otherwise leaves paths as they come. `host` is where
    the listener binds.
    """
    chain: list[Json] = [cors_filter()] if cors else []
    chain += list(before)
    if filters:
        module = wasm or tools.ensure_wasm()
        if reader:
            chain.append(wasm_filter("x402-reader", module, vm_id=vm_id, on_headers_stop_iteration=True))
        chain.append(wasm_filter("x402", module, vm_id=vm_id))
    chain += list(after)
    chain.append({"name": "envoy.filters.http.router",
                  "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}})

    known = list(routes or [route()])
    if filters and reader and not read_get:
        # As envoy/envoy.yaml has it.
        known = [one for whole in known for one in (doing_without_reader(whole), whole)]
    virtual_host: Json = {"name": "all", "domains": ["*"], "routes": known}
    if buffer_limit is not None:
        virtual_host["request_body_buffer_limit"] = buffer_limit
    if cors:
        virtual_host["typed_per_filter_config"] = {"envoy.filters.http.cors": {
            "@type": TYPE + "extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"safe_regex": {"regex": ".*"}}],
            "allow_methods": "GET, POST, OPTIONS",
            "allow_headers": "content-type, payment-signature, x-payment",
            # This filter's encoder side runs last and overwrites the header, so it must name ours too.
            "expose_headers": "payment-required, payment-response, x-payment-response",
        }}

    manager: Json = {
        "@type": HCM,
        "stat_prefix": "gateway",
        "codec_type": codec,
        "stream_idle_timeout": STREAM_IDLE_TIMEOUT,
        "http_protocol_options": {"enable_trailers": True},
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": kind} for kind in upgrades],
        "route_config": {"name": "gateway", "virtual_hosts": [virtual_host]},
        "http_filters": chain,
        **(path_normalisation or {}),
    }
    listener: Json = {
        "name": "gateway",
        "address": _address(port or free_port(), host),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    if buffer_limit is not None:
        listener["per_connection_buffer_limit_bytes"] = buffer_limit

    named = {"facilitator": []} if facilitators is None else facilitators
    return {"static_resources": {
        "listeners": [listener],
        "clusters": [
            cluster("backend", backend, http2=backend_http2),
            *(cluster(name, ports) for name, ports in named.items()),
            *clusters,
        ],
    }}


def managers(config: Json) -> Iterable[Json]:
    """Every HTTP connection manager of a bootstrap."""
    for listener in config["static_resources"]["listeners"]:
        for filter_chain in listener["filter_chains"]:
            for network_filter in filter_chain["filters"]:
                if network_filter["typed_config"].get("@type") == HCM:
                    yield network_filter["typed_config"]


def with_filter_config(config: Json, filter_config: Json, form: str = "struct") -> Json:
    """A copy in which each wasm filter has this configuration; `form` is one of `FORMS`."""
    config = copy.deepcopy(config)
    for plugin in wasm_plugins(config):
        plugin["configuration"] = plugin_configuration(filter_config, form)
    return config


class Refused(Exception):
    """Envoy does not start with this configuration; the message ends with what it logged."""


class Envoy:
    """One Envoy process; ready once constructed.

    `config` is a bootstrap, as `gateway()` makes it; `filter_config`, when given, goes into each wasm filter.
    Files (bootstrap, log, access log) go to `directory`, by default a fresh one under `.local/run`.
    """

    _count = itertools.count(1)

    def __init__(
        self,
        config: Json,
        filter_config: Json | None = None,
        workers: int = 2,
        version: str = tools.ENVOY_VERSION,
        *,
        binary: Path | None = None,
        directory: Path | None = None,
        name: str = "envoy",
        log_level: str = "warning",
        component_log_level: str = "wasm:info",
        drain_seconds: int = 1,
        deadline: float = DEADLINE,
        access_log: bool = True,
    ) -> None:
        binary = binary or tools.ensure_envoy(version)
        self.version = version
        self.workers = workers
        self.directory = directory or _run_directory(f"{name}-{next(self._count)}")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.access_log_file = self.directory / "access.log"
        self.admin_port = free_port()
        self._access_log = access_log
        self.config = config if filter_config is None else with_filter_config(config, filter_config)
        listeners = self.config["static_resources"]["listeners"]
        self.ports: dict[str, int] = {
            listener["name"]: listener["address"]["socket_address"]["port_value"] for listener in listeners
        }
        self._update = 0
        self._write_listeners(self.config)
        bootstrap = self.directory / "envoy.json"
        bootstrap.write_text(json.dumps(self._bootstrap(), indent=1))
        self.process = Process(
            [binary, "--config-path", bootstrap, "--concurrency", str(workers), "--disable-hot-restart",
             "--log-level", log_level, "--component-log-level", component_log_level,
             "--file-flush-interval-msec", "20", "--drain-time-s", str(drain_seconds),
             "--parent-shutdown-time-s", str(drain_seconds + 1)],
            log=self.directory / "envoy.log", name=f"Envoy {version}",
        )
        try:
            self.process.wait_ready(self._ready, deadline)
        except BaseException:
            self.process.stop()
            raise

    def _bootstrap(self) -> Json:
        statics = {key: value for key, value in self.config["static_resources"].items() if key != "listeners"}
        return {
            **{key: value for key, value in self.config.items() if key != "static_resources"},
            "node": {"id": "x402", "cluster": "x402"},
            "admin": {"address": _address(self.admin_port)},
            "static_resources": statics,
            "dynamic_resources": {"lds_config": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": str(self.directory / "listeners.json"),
                    "watched_directory": {"path": str(self.directory)},
                },
            }},
        }

    def _write_listeners(self, config: Json) -> None:
        resources = []
        for listener in copy.deepcopy(config["static_resources"]["listeners"]):
            listener["@type"] = TYPE + "config.listener.v3.Listener"
            resources.append(listener)
        for manager in managers({"static_resources": {"listeners": resources}}):
            if self._access_log:
                manager.setdefault("access_log", []).append({
                    "name": "file",
                    "typed_config": {
                        "@type": TYPE + "extensions.access_loggers.file.v3.FileAccessLog",
                        "path": str(self.access_log_file),
                        "log_format": {"json_format": ACCESS_LOG},
                    },
                })
        self._update += 1
        document = {"version_info": str(self._update), "resources": resources}
        # Renamed into place: that is the event Envoy watches for, and it never reads half a file.
        new = self.directory / ".listeners.new"
        new.write_text(json.dumps(document, indent=1))
        os.replace(new, self.directory / "listeners.json")

    def _ready(self) -> bool:
        rejected = self.stats(r"^listener_manager\.lds\.update_rejected$")
        if any(rejected.values()):
            raise Refused(f"listener refused\n{self.process.tail()}")
        try:
            if self.admin("/ready").strip() != "LIVE":
                return False
        except urllib.error.HTTPError:
            return False
        known = {item["name"] for item in json.loads(self.admin("/listeners?format=json")).get("listener_statuses", [])}
        started = self.stats(r"^listener_manager\.workers_started$")
        return (known >= set(self.ports) and any(started.values())
                and all(listening(port) for port in self.ports.values()))

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return next(iter(self.ports.values()))

    def url(self, path: str = "/", listener: str | None = None) -> str:
        """Where to send a request."""
        return f"http://127.0.0.1:{self.port if listener is None else self.ports[listener]}{path}"

    # Configuration updates

    def update(self, filter_config: Json | None = None, config: Json | None = None,
               deadline: float = DEADLINE) -> str | None:
        """Offer a new filter configuration (or a whole one: listeners only) to the running Envoy.

        Returns None when Envoy took it, else why it refused: Envoy's reason and what was logged meanwhile (the filter's
        errors are in the log alone). A taken one serves new connections; those there before drain within `drain_seconds`.
        """
        wanted = config or self.config
        if filter_config is not None:
            wanted = with_filter_config(wanted, filter_config)
        before, logged = self._lds(), len(self.log())
        self._write_listeners(wanted)
        now = wait_until(lambda: (stats := self._lds()) != before and stats, "listener update", deadline)
        if now["update_rejected"] != before["update_rejected"]:
            return f"{self._refusal()}\n{self.log()[logged:]}"
        self.config = wanted
        wait_until(lambda: self.stats(r"^listener_manager\.total_listeners_warming$")
                   .get("listener_manager.total_listeners_warming") == 0, "listener warming", deadline)
        return None

    def _lds(self) -> dict[str, float]:
        stats = self.stats(r"^listener_manager\.lds\.update_(success|rejected)$")
        return {name.rsplit(".", 1)[1]: value for name, value in stats.items()}

    def _refusal(self) -> str | None:
        for part in self.config_dump().get("configs", []):
            for listener in part.get("dynamic_listeners", []):
                if details := listener.get("error_state", {}).get("details"):
                    return details
        return None

    # What Envoy knows

    def admin(self, path: str, method: str = "GET", timeout: float = 20.0) -> str:
        """An answer of the admin interface."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method)
        with _direct.open(request, timeout=timeout) as answer:
            return answer.read().decode()

    def stats(self, pattern: str = "") -> dict[str, float]:
        """Counters and gauges whose name matches the regular expression; histograms are left out."""
        query = urllib.parse.urlencode({"format": "json", "filter": pattern} if pattern else {"format": "json"})
        items = json.loads(self.admin(f"/stats?{query}"))["stats"]
        return {item["name"]: item["value"] for item in items if "value" in item}

    def prometheus(self) -> str:
        """All metrics as Prometheus reads them."""
        return self.admin("/stats/prometheus")

    def metrics(self, pattern: str = r"^x402_") -> dict[str, float]:
        """Prometheus samples as {'name{labels}': value}, those whose name matches."""
        found = {}
        for line in self.prometheus().splitlines():
            if line and not line.startswith("#") and re.search(pattern, line):
                sample, value = line.rsplit(" ", 1)
                found[sample] = float(value)
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 when there is none."""
        total = 0.0
        for sample, value in self.metrics(rf"^{re.escape(name)}[{{ ]").items():
            if all(f'{key}="{want}"' in sample for key, want in labels.items()):
                total += value
        return total

    def config_dump(self) -> Json:
        """The configuration that Envoy runs."""
        return json.loads(self.admin("/config_dump"))

    def log(self) -> str:
        """All that Envoy logged so far."""
        return self.process.output()

    def access_logs(self) -> list[Json]:
        """The access log entries written so far; they come a moment after the answer."""
        if not self.access_log_file.exists():
            return []
        lines = self.access_log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def access_log(self, deadline: float = DEADLINE, **fields: Any) -> Json:
        """The first entry with these values, awaited."""
        def entry() -> Json | None:
            for item in self.access_logs():
                if all(item.get(key) == value for key, value in fields.items()):
                    return item
            return None
        return wait_until(entry, f"access log entry with {fields}", deadline)

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def __enter__(self) -> Envoy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# Never through a proxy from the environment: everything is on 127.0.0.1.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _address(port: int, host: str = "127.0.0.1") -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _run_directory(name: str) -> Path:
    home = tools.LOCAL / "run"
    home.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home))
