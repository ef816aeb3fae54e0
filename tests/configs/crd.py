"""Kubernetes resources against the schemas of their CustomResourceDefinitions.

The API server drops fields that a schema does not know; here they are errors, for a dropped field is a setting that does not
take effect. Rules in CEL (x-kubernetes-validations) are not evaluated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import yaml

Json = dict[str, Any]


def schemas(directory: Path) -> dict[tuple[str, str], Json]:
    """By (apiVersion, kind), of all definitions in a directory."""
    found: dict[tuple[str, str], Json] = {}
    for path in sorted(directory.glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text()):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = dict(version["schema"]["openAPIV3Schema"])
                # Every resource has these, whether its schema says so or not; the API server checks them by itself.
                schema["properties"] = {
                    **schema["properties"], "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                    "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                }
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = strict(schema)
    return found


def strict(schema: Json) -> Json:
    """The same schema in JSON Schema's terms, refusing fields it does not know."""
    out: Json = {}
    for key, value in schema.items():
        if key == "properties":
            out[key] = {name: strict(inner) for name, inner in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = strict(value)
        elif not key.startswith("x-kubernetes-") and key not in ("nullable", "format", "description"):
            out[key] = value  # oneOf, anyOf and not hold no properties of their own: left as they are
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema and "additionalProperties" not in schema \
            and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    if schema.get("nullable"):
        out = {"anyOf": [{"type": "null"}, out]}
    return out


def problems(schema: Json, resource: Json) -> list[str]:
    """What the schema has against a resource, each with its place."""
    validator = jsonschema.Draft202012Validator(schema)
    return sorted(f"{error.json_path}: {error.message}" for error in validator.iter_errors(resource))
