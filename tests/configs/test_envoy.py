"""Each shipped configuration is one that Envoy takes, in every version, with the module loaded and configured."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stack import demo_credits
from stack.ledger import token_file

from . import render, shipped
from .conftest import Validate


def accepted(result: object) -> None:
    """Envoy said OK and had nothing to remark."""
    said = result.stdout + result.stderr  # type: ignore[attr-defined]
    assert result.returncode == 0, said  # type: ignore[attr-defined]
    assert "deprecated" not in said.lower(), said


def bootstrap(path: Path, wasm: Path) -> str:
    """A file as it is, but for the path of the module; Envoy looks for the ledger's token where the file says."""
    if demo_credits.TOKEN.name in path.read_text() and not demo_credits.TOKEN.exists():
        token_file(demo_credits.TOKEN, "of-nobody")
    (document,) = shipped.documents(path)
    (filename,) = {config["vm_config"]["code"]["local"]["filename"] for config in shipped.wasm_filters(document)}
    return path.read_text().replace(filename, str(wasm)).replace(*shipped.STAND_IN)


@pytest.mark.parametrize("path", shipped.BOOTSTRAPS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_bootstraps(path: Path, wasm: Path, validate: Validate) -> None:
    accepted(validate(bootstrap(path, wasm)))


def test_istio_envoy_filter(wasm: Path, validate: Validate) -> None:
    rendered = render.with_module(render.istio(shipped.document("istio/envoyfilter.yaml")), wasm)
    assert [config["root_id"] for config in shipped.wasm_filters(rendered)] == ["x402-reader", "x402"]
    accepted(validate(rendered))


def test_istio_discovers_the_extensions(validate: Validate) -> None:
    accepted(validate(render.istio(shipped.document("istio/envoyfilter.yaml"), discovered=True)))


def test_envoy_gateway_patch_policy(wasm: Path, validate: Validate) -> None:
    rendered = render.with_module(render.envoy_gateway(shipped.document("envoy-gateway/envoypatchpolicy.yaml")), wasm)
    assert [config["root_id"] for config in shipped.wasm_filters(rendered)] == ["x402-reader", "x402"]
    accepted(validate(rendered))


def test_istio_stream_idle_timeout(validate: Validate) -> None:
    rendered = render.istio(shipped.document("istio/streamidletimeout.yaml"))
    assert [one["stream_idle_timeout"] for one in shipped.walk(rendered) if one.get("@type") == shipped.HCM] == ["300s"]
    accepted(validate(rendered))


@pytest.mark.parametrize("name", shipped.PLAIN)
def test_plain_forms(name: str, wasm: Path, validate: Validate) -> None:
    accepted(validate(render.gate(json.dumps(shipped.plain_configuration(name)), wasm)))


def test_validation_reaches_the_filter(wasm: Path, validate: Validate) -> None:
    """Else the tests above would prove nothing of prices."""
    if "X402_WASM" in os.environ:
        pytest.skip("X402_WASM names a module that may take anything")
    text = bootstrap(shipped.ENVOY / "envoy.yaml", wasm)
    assert 'per_request: "$0.02"' in text
    result = validate(text.replace('per_request: "$0.02"', 'per_requets: "$0.02"'))
    assert result.returncode != 0
    assert "routes[0].price" in result.stdout + result.stderr


def test_validation_reaches_envoy(wasm: Path, validate: Validate) -> None:
    text = bootstrap(shipped.ENVOY / "envoy.yaml", wasm)
    assert "stream_idle_timeout" in text
    assert validate(text.replace("stream_idle_timeout", "stream_idle_timeuot")).returncode != 0
