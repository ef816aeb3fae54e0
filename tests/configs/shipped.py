"""The shipped files: where they are, what is in them, and the filter configurations embedded in them.

Knows YAML and the shapes of Envoy's and the Kubernetes resources, nothing of Envoy at work.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Iterator

import yaml

ROOT = Path(__file__).resolve().parents[2]
ENVOY = ROOT / "envoy"
FILES = sorted([*ENVOY.rglob("*.yaml"), ROOT / "docker" / "envoy.yaml", ROOT / "docker-compose.yml"])
BOOTSTRAPS = [ENVOY / "envoy.yaml", ENVOY / "demo.yaml", ENVOY / "credits.yaml", ROOT / "docker" / "envoy.yaml"]

# The complete forms run both roles of the module, the plain ones the gate alone.
COMPLETE = ["istio/envoyfilter.yaml", "envoy-gateway/envoypatchpolicy.yaml"]
PLAIN = ["istio/wasmplugin.yaml", "istio/trafficextension.yaml", "envoy-gateway/envoyextensionpolicy.yaml"]

WASM = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
STRUCT = "type.googleapis.com/google.protobuf.Struct"
STRING = "type.googleapis.com/google.protobuf.StringValue"

# Who is paid is left for the user to say: as it stands the filter refuses it, so that nobody sells for somebody else.
STAND_IN = ("0xYourAccount", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C")

Json = dict[str, Any]


class UniqueKeys(yaml.SafeLoader):
    """A loader that refuses a key given twice, where PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {', '.join(sorted(twice))} given twice")
        return super().construct_mapping(node, deep)


def documents(path: Path) -> list[Json]:
    """All documents of a file."""
    return list(yaml.load_all(path.read_text().replace(*STAND_IN), UniqueKeys))


def document(name: str, kind: str | None = None) -> Json:
    """The document of a file in envoy/, by kind where it holds several."""
    found = [one for one in documents(ENVOY / name) if kind is None or one["kind"] == kind]
    assert len(found) == 1, f"{name}: {len(found)} documents"
    return found[0]


def walk(value: Any) -> Iterator[Json]:
    """Each mapping in a value, outermost first."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def wasm_filters(value: Any) -> list[Json]:
    """The `config` of each wasm filter anywhere in a value, in order."""
    return [one["config"] for one in walk(value) if one.get("@type") == WASM]


def filter_configuration(config: Json) -> Json:
    """What the filter is told, out of a wasm filter's `config`, whichever of the two forms it has."""
    given = config["configuration"]
    if given["@type"] == STRUCT:
        return given["value"]
    assert given["@type"] == STRING, given["@type"]
    return json.loads(given["value"])


def plain_configuration(name: str) -> Json:
    """What the filter is told by one of the plain Kubernetes resources."""
    spec = document(name)["spec"]
    match document(name)["kind"]:
        case "WasmPlugin":
            return spec["pluginConfig"]
        case "TrafficExtension":
            return spec["wasm"]["pluginConfig"]
        case "EnvoyExtensionPolicy":
            return spec["wasm"][0]["config"]
        case kind:
            raise AssertionError(kind)


def without_cluster(configuration: Json) -> Json:
    """A filter configuration without the names of its clusters, which differ by control plane."""
    configuration = copy.deepcopy(configuration)
    for facilitator in configuration["facilitators"]:
        del facilitator["cluster"]
    return configuration


def reads_body(route: Json) -> bool:
    """Whether a route needs the reader."""
    return "model" in route["match"]
