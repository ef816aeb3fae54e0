"""Fixtures: the module, an Envoy of each version, and a way to ask it whether it takes a configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stack import tools  # noqa: E402

Validate = Callable[[Any], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def wasm() -> Path:
    """The module, or the one that X402_WASM names."""
    given = os.environ.get("X402_WASM")
    if given:
        return Path(given)
    try:
        return tools.ensure_wasm()
    except tools.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session", params=tools.ENVOY_VERSIONS)
def envoy(request: pytest.FixtureRequest) -> Path:
    """Envoy, each version in turn."""
    try:
        return tools.ensure_envoy(request.param)
    except tools.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def validate(envoy: Path, tmp_path: Path) -> Validate:
    """Runs `envoy --mode validate`, which creates the wasm VMs and calls on_configure, so that the filter's own
    configuration is checked as well. Takes a bootstrap as an object or as the text of a file."""

    def run(bootstrap: Any) -> subprocess.CompletedProcess[str]:
        text = isinstance(bootstrap, str)
        path = tmp_path / ("bootstrap.yaml" if text else "bootstrap.json")
        path.write_text(bootstrap if text else json.dumps(bootstrap))
        return subprocess.run(
            [envoy, "--mode", "validate", "--log-level", "warning", "-c", path], capture_output=True, text=True, timeout=60,
        )

    return run
