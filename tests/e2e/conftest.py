"""Fixtures: one run's worlds. `main` is what most tests want."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from .world import MAIN, World, Worlds  # noqa: E402


@pytest.fixture(scope="session")
def worlds():
    """Every Envoy of this run."""
    found = Worlds()
    yield found
    found.close()


@pytest.fixture(scope="session")
def main(worlds: Worlds) -> World:
    """The standard gateway with the standard configuration."""
    return worlds.world("main", MAIN)


@pytest.fixture(params=["h1", "h2"])
def protocol(request) -> str:
    """HTTP/1.1 and HTTP/2."""
    return request.param
