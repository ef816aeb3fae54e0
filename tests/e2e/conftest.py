"""Fixtures: one run's worlds. `main` is what most tests want."""

import resource
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from .metered import CONFIG, LIMITED, asks_for_money  # noqa: E402
from .world import MAIN, ROUTES, World, Worlds, changed  # noqa: E402


# Clients, servers and what Envoys are asked over are all in this process: more than the 1024 that many systems begin with.
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1 << 16) if most != resource.RLIM_INFINITY else 1 << 16, most))


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


@pytest.fixture(scope="session")
def keys(worlds: Worlds) -> World:
    """The backend checks API keys itself."""
    access = {**MAIN["access"], "api_keys": {"header": "authorization", "then": "backend"}}
    return worlds.world("keys", changed(access=access))


@pytest.fixture(params=["h1", "h2"])
def protocol(request) -> str:
    """HTTP/1.1 and HTTP/2."""
    return request.param


@pytest.fixture(scope="session")
def metered(worlds: Worlds) -> World:
    """Metered routes, each with its own terms."""
    return worlds.world("metered-ends", CONFIG, ready=asks_for_money, routes=[*LIMITED, *ROUTES])
