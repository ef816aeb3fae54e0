"""`docker compose up` ends with four healthy services and a gateway that asks for payment.

Uses the daemon that `docker` reaches if that has the base images or can pull them; else starts one of its own (root, `dockerd`), with
its own directories, and makes stand-ins for the base images. Skipped, with the reason, where neither is possible.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stack import tools  # noqa: E402
from stack.process import NotReady, Process, free_port, wait_until  # noqa: E402

from . import standins  # noqa: E402

IMAGES = ["node:20-slim", "envoyproxy/envoy:v1.40-latest", "rust:1.95-slim"]
SERVICES = {"gateway", "chain", "facilitator", "backend"}


@pytest.fixture(scope="module")
def daemon() -> Iterator[dict[str, str]]:
    """The environment in which `docker` reaches a daemon that has the base images."""
    # /usr/bin first: a newer client without its plugins may stand before the distribution's.
    path = {"PATH": f"/usr/bin:{os.environ['PATH']}"}
    if shutil.which("docker", path=path["PATH"]) is None:
        pytest.skip("docker is not installed")
    mine = {**os.environ, **path}
    if _quiet(["docker", "info"], mine) and all(_quiet(["docker", "image", "inspect", image], mine)
                                                or _quiet(["docker", "pull", image], mine) for image in IMAGES):
        yield mine
        return
    dockerd = shutil.which("dockerd")
    if dockerd is None or os.geteuid() != 0:
        pytest.skip("no daemon with the base images, and none can be started: that takes root and dockerd")
    try:
        wasm = Path(os.environ["X402_WASM"]) if "X402_WASM" in os.environ else tools.ensure_wasm()
        envoy = tools.ensure_envoy()
    except tools.Missing as missing:
        pytest.skip(str(missing))
    with tempfile.TemporaryDirectory(prefix="x402-docker-", ignore_cleanup_errors=True) as home:
        socket = f"unix://{home}/docker.sock"
        child = Process([dockerd, "--storage-driver", "vfs", "--data-root", f"{home}/data", "--exec-root", f"{home}/exec",
                         "--host", socket, "--pidfile", f"{home}/pid"], Path(home) / "log", "dockerd")
        own = {**mine, "DOCKER_HOST": socket}
        try:
            child.wait_ready(lambda: _quiet(["docker", "info"], own), deadline=30)
            subprocess.run(["docker", "info"], env=own, check=True, capture_output=True)
        except (NotReady, subprocess.CalledProcessError) as problem:
            child.stop()
            pytest.skip(f"a daemon of its own did not start: {str(problem)[-400:]}")
        try:
            standins.build(own, envoy, wasm)
            yield own
        finally:
            child.stop(grace=20)


@pytest.fixture(scope="module")
def gateway(daemon: dict[str, str]) -> Iterator[str]:
    """The address of the composed gateway, everything healthy."""
    compose = _compose(daemon)
    port, admin = free_port(), free_port()
    env = {**daemon, "X402_PORT": str(port), "X402_ADMIN_PORT": str(admin)}
    project = [*compose, "-p", f"x402-test-{os.getpid()}"]
    with tempfile.TemporaryDirectory(prefix="x402-context-") as context:
        _copy(Path(context))

        def run(*words: str) -> str:
            done = subprocess.run([*project, *words], cwd=context, env=env, text=True, capture_output=True)
            assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            return done.stdout

        try:
            run("up", "-d", "--build")
            wait_until(lambda: set(_healthy(project, context, env)) == SERVICES, "all services are healthy", deadline=120)
            yield f"http://127.0.0.1:{port}"
        finally:
            logs = subprocess.run([*project, "logs", "--tail", "20"], cwd=context, env=env, text=True, capture_output=True)
            print(logs.stdout)
            subprocess.run([*project, "down", "-t", "2", "-v"], cwd=context, env=env, capture_output=True)


def test_an_unpaid_request_is_asked_for_payment(gateway: str) -> None:
    status, headers, body = _post(f"{gateway}/v1/chat/completions", {"model": "demo", "messages": []})
    assert status == 402
    assert "payment-required" in headers
    assert json.loads(body)["x402Version"] == 1


def test_a_free_route_reaches_the_backend(gateway: str) -> None:
    with urllib.request.urlopen(f"{gateway}/v1/models", timeout=10) as answer:
        assert answer.status == 200 and json.load(answer)["object"] == "list"


def test_the_plugin_image_holds_one_file(daemon: dict[str, str], tmp_path: Path) -> None:
    _copy(tmp_path)
    name = f"x402-plugin-test-{os.getpid()}"

    def docker(*words: str) -> bytes:
        return subprocess.run(["docker", *words], env=daemon, cwd=tmp_path, check=True, capture_output=True).stdout

    docker("build", "-t", name, ".")
    container = docker("create", name, "/plugin.wasm").decode().strip()
    try:
        (tmp_path / "image.tar").write_bytes(docker("export", container))
        listed = subprocess.run(["tar", "-tf", tmp_path / "image.tar"], capture_output=True, text=True, check=True).stdout
        # The rest is what Docker puts into every container.
        files = {line for line in listed.split() if not line.startswith(("dev/", "etc/", "proc/", "sys/", ".dockerenv"))}
        assert files == {"plugin.wasm"}
        layer = subprocess.run(["tar", "-xOf", tmp_path / "image.tar", "plugin.wasm"], capture_output=True, check=True).stdout
        assert layer.startswith(b"\0asm")
    finally:
        docker("rm", container)
        docker("rmi", name)


def _compose(env: dict[str, str]) -> list[str]:
    if _quiet(["docker", "compose", "version"], env):
        return ["docker", "compose"]
    if shutil.which("docker-compose", path=env["PATH"]):
        return ["docker-compose"]
    pytest.skip("neither `docker compose` nor docker-compose is installed")


def _healthy(project: list[str], context: str, env: dict[str, str]) -> Iterator[str]:
    for service in SERVICES:
        listed = subprocess.run([*project, "ps", "-q", service], cwd=context, env=env, text=True, capture_output=True)
        for container in listed.stdout.split():
            state = subprocess.run(["docker", "inspect", "-f", "{{.State.Health.Status}}", container],
                                   env=env, text=True, capture_output=True)
            if state.stdout.strip() == "healthy":
                yield service


def _copy(context: Path) -> None:
    """What the images are built from, without build outputs: the classic builder sends all of a directory."""
    skip = shutil.ignore_patterns("node_modules", "__pycache__", "target")
    for name in ("Cargo.toml", "Cargo.lock", "Dockerfile", "docker-compose.yml"):
        shutil.copy(ROOT / name, context)
    for name in (".cargo", "src", "secp256k1", "ledger", "stack", "docker", "envoy"):
        shutil.copytree(ROOT / name, context / name, ignore=skip)


def _post(url: str, body: object) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {key.lower(): value for key, value in error.headers.items()}, error.read()


def _quiet(words: list[str], env: dict[str, str]) -> bool:
    try:
        return subprocess.run(words, env=env, capture_output=True, timeout=300).returncode == 0
    except subprocess.TimeoutExpired:
        return False
