"""What a control plane makes of the complete Kubernetes forms: an Envoy bootstrap with the patches applied.

Stands in for istiod with its agent, and for Envoy Gateway, as far as these patches use them.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from .shipped import HCM, Json, WASM

ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}
ADDRESS = {"socket_address": {"address": "127.0.0.1", "port_value": 10000}}
XDS = {
    "name": "xds", "type": "STATIC",
    "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}}},
}


def connection_manager(http_filters: list[Json]) -> Json:
    """An HTTP connection manager the way control planes begin one."""
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": HCM, "stat_prefix": "http", "http_filters": http_filters,
            "route_config": {"virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 204}}]},
            ]},
        },
    }


def bootstrap(listener: Json, clusters: list[Json] = []) -> Json:
    """A bootstrap around one listener."""
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def with_module(value: Any, path: Path) -> Any:
    """A copy in which each wasm filter loads the module from a file, as it does after Istio's agent has fetched it."""
    if isinstance(value, dict):
        return {
            key: {"local": {"filename": str(path)}} if key == "code" and ("local" in inner or "remote" in inner)
            else with_module(inner, path)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [with_module(inner, path) for inner in value]
    return value


def gate(configuration: str, path: Path) -> Json:
    """A bootstrap with the gate alone, configured by JSON in a string, as istiod and Envoy Gateway render the plain forms."""
    return bootstrap({"name": "http", "address": ADDRESS, "filter_chains": [{"filters": [connection_manager([{
        "name": "x402",
        "typed_config": {"@type": WASM, "config": {
            "name": "x402", "root_id": "x402", "failure_policy": "FAIL_RELOAD",
            "vm_config": {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(path)}}},
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": configuration},
        }},
    }, ROUTER])]}]})


def istio(envoy_filter: Json, discovered: bool = False) -> Json:
    """Applies an EnvoyFilter to a gateway's listener. With `discovered`, extensions are left to be discovered, as istiod
    sends them; else they are put in their places, as Envoy sees them in the end."""
    extensions: dict[str, Json] = {}
    manager = connection_manager([copy.deepcopy(ROUTER)])
    listener: Json = {"name": "http", "address": ADDRESS, "filter_chains": [{"filters": [manager]}]}
    for one in envoy_filter["spec"]["configPatches"]:
        value = copy.deepcopy(one["patch"]["value"])
        assert one["match"]["context"] == "GATEWAY"
        match one["applyTo"], one["patch"]["operation"]:
            case "EXTENSION_CONFIG", "ADD":
                assert value["name"] not in extensions
                extensions[value["name"]] = value["typed_config"]
            case "HTTP_FILTER", "INSERT_BEFORE":
                before = one["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
                filters = manager["typed_config"]["http_filters"]
                place = next(at for at, there in enumerate(filters) if there["name"] == before)
                config = extensions[value["name"]]
                assert value["config_discovery"]["type_urls"] == [config["@type"]]
                filters.insert(place, value if discovered else {"name": value["name"], "typed_config": config})
            case "LISTENER", "MERGE":
                _merge(listener, value)
            case "NETWORK_FILTER", "MERGE":
                _merge(manager, value)
            case what:
                raise AssertionError(f"{what}: not known here")
    if not discovered:
        return bootstrap(listener)
    ads = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}
    return {**bootstrap(listener, [XDS]), "node": {"id": "test", "cluster": "test"},
            "dynamic_resources": {"ads_config": ads}}


def envoy_gateway(policy: Json) -> Json:
    """Applies an EnvoyPatchPolicy to the listener that Envoy Gateway generates for plain HTTP."""
    manager = connection_manager([copy.deepcopy(ROUTER)])
    listener: Json = {"name": "tcp-80", "address": ADDRESS, "per_connection_buffer_limit_bytes": 32768,
                      "default_filter_chain": {"filters": [manager]}}
    clusters: list[Json] = []
    for one in policy["spec"]["jsonPatches"]:
        operation = one["operation"]
        assert operation["op"] == "add"
        value = copy.deepcopy(operation["value"])
        match one["type"].rsplit(".", 1)[1]:
            case "Cluster":
                assert operation["path"] == "" and one["name"] == value["name"]
                clusters.append(value)
            case "Listener":
                assert one["name"] == listener["name"]
                _add(listener, operation["path"], value)
            case what:
                raise AssertionError(f"{what}: not known here")
    return bootstrap(listener, clusters)


def _merge(target: Json, change: Json) -> None:
    """A protobuf merge of what is used here: messages merge, scalars are replaced."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            assert not isinstance(value, list), f"{key}: lists would be appended to"
            target[key] = value


def _add(target: Any, pointer: str, value: Any) -> None:
    """JSON Patch's `add` (RFC 6902, section 4.1)."""
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target[part]
    if isinstance(target, list):
        target.insert(len(target) if last == "-" else int(last), value)
    else:
        target[last] = value
