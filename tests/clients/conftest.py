"""Official clients pay through a real Envoy, with the official facilitators in turn, and the chain is asked who got what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stack.envoy import Envoy, gateway as envoy_config  # noqa: E402

from . import world  # noqa: E402
from .world import BASE, BASE_SEPOLIA, Chain, Service  # noqa: E402


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs log to."""
    world.ensure_node()
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="session")
def sepolia(directory: Path) -> Iterator[Chain]:
    """The chain that stands for Base Sepolia."""
    chain = Chain(directory, 84532)
    yield chain
    chain.service.process.stop()


@pytest.fixture(scope="session")
def base(directory: Path) -> Iterator[Chain]:
    """The chain that stands for Base, where LibertAI's clients sign."""
    chain = Chain(directory, 8453)
    yield chain
    chain.service.process.stop()


@pytest.fixture(scope="session")
def backend(directory: Path) -> Iterator[Service]:
    """An OpenAI-compatible backend."""
    service = world.node("backend.mjs", directory)
    yield service
    service.process.stop()


@pytest.fixture(scope="session", params=["typescript", "python"])
def facilitator(request: pytest.FixtureRequest, directory: Path, sepolia: Chain, base: Chain) -> Iterator[Service]:
    """The official facilitators."""
    chains = ["--chain", sepolia.option, "--chain", base.option]
    if request.param == "typescript":
        service = world.node("facilitator.mjs", directory, *chains)
    else:
        service = world.python("facilitator.py", directory, *chains)
    yield service
    service.process.stop()


@pytest.fixture(scope="session")
def permit_facilitator(directory: Path, base: Chain) -> Iterator[Service]:
    """The one that settles permits."""
    service = world.node("permit-facilitator.mjs", directory, "--chain", base.option)
    yield service
    service.process.stop()


@pytest.fixture(scope="session")
def gateway(facilitator: Service, permit_facilitator: Service, backend: Service, sepolia: Chain) -> Iterator[Envoy]:
    """Envoy with the filter, settling with `facilitator`."""
    envoy = start_gateway(
        {"facilitator": facilitator.port}, [_facilitator("facilitator", BASE_SEPOLIA, BASE)],
        backend.port, sepolia.address("payTo"), permit_facilitator.facts["address"],
    )
    yield envoy
    envoy.stop()


@pytest.fixture(scope="session")
def permit_gateway(permit_facilitator: Service, backend: Service, sepolia: Chain) -> Iterator[Envoy]:
    """Envoy with the filter, settling with `permit_facilitator`."""
    envoy = start_gateway(
        {"facilitator": permit_facilitator.port}, [_facilitator("facilitator", BASE)],
        backend.port, sepolia.address("payTo"), permit_facilitator.facts["address"],
    )
    yield envoy
    envoy.stop()


def start_gateway(clusters: dict[str, int], facilitators: list[dict], backend: int, pay_to: str, spender: str) -> Envoy:
    """An Envoy with a route for each way to be paid."""
    return Envoy(envoy_config(backend, clusters), world.filter_config(pay_to, facilitators, spender))


def _facilitator(cluster: str, *networks: str) -> dict:
    return {"cluster": cluster, "url": f"http://{cluster}.test", "networks": list(networks),
            "verify_timeout": "10s", "settle_timeout": "30s"}
