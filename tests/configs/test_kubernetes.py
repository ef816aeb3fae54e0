"""The Kubernetes resources fit the schemas of Istio's and Envoy Gateway's CustomResourceDefinitions.

Those are not part of this repository: put them as YAML into ../shared/crds, or where X402_CRDS says.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest

from . import crd, shipped
from .shipped import Json

DIRECTORY = Path(os.environ.get("X402_CRDS", shipped.ROOT.parent / "shared" / "crds"))
RESOURCES = [
    pytest.param(one, id=f"{path.parent.name}/{path.stem}-{one['kind']}")
    for path in sorted(shipped.ENVOY.glob("*/*.yaml")) for one in shipped.documents(path)
]


@pytest.fixture(scope="module")
def schemas() -> dict[tuple[str, str], Json]:
    if not DIRECTORY.is_dir():
        pytest.skip(f"no CustomResourceDefinitions in {DIRECTORY}")
    return crd.schemas(DIRECTORY)


@pytest.mark.parametrize("resource", RESOURCES)
def test_fits_its_definition(resource: Json, schemas: dict[tuple[str, str], Json]) -> None:
    schema = schemas.get((resource["apiVersion"], resource["kind"]))
    if schema is None:
        pytest.skip(f"no definition of {resource['kind']} in {DIRECTORY}")
    assert crd.problems(schema, resource) == []


@pytest.mark.parametrize("resource", RESOURCES)
def test_is_complete(resource: Json) -> None:
    assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(resource["metadata"]) == {"name", "namespace"}


def test_a_field_that_is_not_known_is_found(schemas: dict[tuple[str, str], Json]) -> None:
    plugin = copy.deepcopy(shipped.document("istio/wasmplugin.yaml"))
    plugin["spec"]["vmId"] = "x402"
    plugin["spec"]["failStrategy"] = "FAIL_RETRY"
    plugin["spec"]["pluginConfig"]["anything"] = "goes"  # x-kubernetes-preserve-unknown-fields
    found = crd.problems(schemas[plugin["apiVersion"], plugin["kind"]], plugin)
    assert len(found) == 2
    assert any("vmId" in one for one in found) and any("FAIL_RETRY" in one for one in found)


@pytest.mark.parametrize("name, path", [
    ("istio/wasmplugin.yaml", ("spec",)), ("istio/trafficextension.yaml", ("spec", "wasm")),
    ("envoy-gateway/envoyextensionpolicy.yaml", ("spec", "wasm", 0)),
])
def test_the_limits_named_in_the_plain_forms_are_real(name: str, path: tuple[str | int, ...],
                                                     schemas: dict[tuple[str, str], Json]) -> None:
    """When one of these is taken, the comments and the README can promise more."""
    for field in ("vmId", "vm_id", "allowOnHeadersStopIteration", "failurePolicy"):
        resource = copy.deepcopy(shipped.document(name))
        place = resource
        for key in path:
            place = place[key]  # type: ignore[index]
        place[field] = "x402"
        assert crd.problems(schemas[resource["apiVersion"], resource["kind"]], resource), field
