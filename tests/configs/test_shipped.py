"""What the shipped configurations say, without any Envoy: they parse, and they agree with each other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.envoy import doing_without_reader

from . import shipped
from .shipped import Json

NAMES = [str(path.relative_to(shipped.ROOT)) for path in shipped.FILES]
WITH_FILTERS = [path for path in shipped.FILES if shipped.wasm_filters(shipped.documents(path))]


@pytest.mark.parametrize("path", shipped.FILES, ids=NAMES)
def test_parses_without_a_key_given_twice(path: Path) -> None:
    assert all(isinstance(one, dict) for one in shipped.documents(path))


def test_the_loader_refuses_a_key_given_twice() -> None:
    with pytest.raises(yaml.YAMLError, match="price given twice"):
        yaml.load("routes: [{price: free, price: free}]", shipped.UniqueKeys)


@pytest.mark.parametrize("path", WITH_FILTERS, ids=lambda path: path.name)
def test_both_roles_run_in_one_vm_with_one_configuration(path: Path) -> None:
    roles = {config["root_id"]: config for config in shipped.wasm_filters(shipped.documents(path))}
    assert set(roles) == {"x402-reader", "x402"}
    reader, gate = roles["x402-reader"], roles["x402"]
    assert reader["vm_config"] == gate["vm_config"]
    assert gate["vm_config"]["vm_id"] == "x402"
    assert shipped.filter_configuration(reader) == shipped.filter_configuration(gate)
    assert reader["allow_on_headers_stop_iteration"] is True
    assert "allow_on_headers_stop_iteration" not in gate
    assert reader["failure_policy"] == gate["failure_policy"] == "FAIL_RELOAD"


@pytest.mark.parametrize("path", shipped.BOOTSTRAPS + [shipped.ENVOY / "envoy-gateway/envoypatchpolicy.yaml"],
                         ids=lambda path: path.name)
def test_the_reader_comes_before_the_gate(path: Path) -> None:
    order = [config["root_id"] for config in shipped.wasm_filters(shipped.documents(path))]
    if path.name == "envoypatchpolicy.yaml":
        order.reverse()  # each is added at the front
    assert order == ["x402-reader", "x402"]


def test_the_reader_is_not_asked_about_a_get() -> None:
    (document,) = shipped.documents(shipped.ENVOY / "envoy.yaml")
    without, whole = next(one["routes"] for one in shipped.walk(document) if "routes" in one and "domains" in one)
    # As the suites have it, which show what that means.
    assert doing_without_reader(whole) == without


def test_no_route_does_without_the_gate() -> None:
    for path in shipped.FILES:
        for one in shipped.walk(shipped.documents(path)):
            assert set(one.get("typed_per_filter_config", {})) <= {"x402-reader"}, path


def test_nothing_fails_open() -> None:
    for path in shipped.FILES:
        for value in shipped.walk(shipped.documents(path)):
            for key in ("failure_policy", "failStrategy"):
                assert value.get(key, "FAIL_RELOAD") == "FAIL_RELOAD", path
            assert not value.get("failOpen", False) and "fail_open" not in value, path


def gateway() -> Json:
    """The filter configuration of envoy.yaml, which the Kubernetes forms repeat."""
    (document,) = shipped.documents(shipped.ENVOY / "envoy.yaml")
    return shipped.filter_configuration(shipped.wasm_filters(document)[0])


@pytest.mark.parametrize("name", shipped.COMPLETE)
def test_complete_forms_sell_what_envoy_yaml_sells(name: str) -> None:
    given = shipped.filter_configuration(shipped.wasm_filters(shipped.document(name))[0])
    assert shipped.without_cluster(given) == shipped.without_cluster(gateway())


@pytest.mark.parametrize("name", shipped.PLAIN)
def test_plain_forms_sell_the_same_without_prices_by_body(name: str) -> None:
    want = gateway()
    want["routes"] = [route for route in want["routes"] if not shipped.reads_body(route)]
    assert len(want["routes"]) < len(gateway()["routes"])
    assert shipped.without_cluster(shipped.plain_configuration(name)) == shipped.without_cluster(want)


@pytest.mark.parametrize("path", shipped.BOOTSTRAPS, ids=lambda path: path.name)
def test_facilitators_are_clusters_of_the_same_file(path: Path) -> None:
    (document,) = shipped.documents(path)
    clusters = {cluster["name"] for cluster in document["static_resources"]["clusters"]}
    configuration = shipped.filter_configuration(shipped.wasm_filters(document)[0])
    assert {one["cluster"] for one in configuration["facilitators"]} <= clusters


def test_facilitators_are_destinations_of_the_mesh() -> None:
    spec = shipped.document("istio/facilitator.yaml", "ServiceEntry")["spec"]
    clusters = {f"outbound|{port['number']}||{host}" for host in spec["hosts"] for port in spec["ports"]}
    tls = shipped.document("istio/facilitator.yaml", "DestinationRule")["spec"]["trafficPolicy"]["tls"]
    assert tls["mode"] == "SIMPLE" and tls["subjectAltNames"] == spec["hosts"] == [tls["sni"]]
    complete = shipped.filter_configuration(shipped.wasm_filters(shipped.document("istio/envoyfilter.yaml"))[0])
    for given in [complete, *map(shipped.plain_configuration, shipped.PLAIN[:2])]:
        assert {one["cluster"] for one in given["facilitators"]} <= clusters


def test_facilitators_are_clusters_of_envoy_gateway() -> None:
    policy = shipped.document("envoy-gateway/envoypatchpolicy.yaml")
    added = {one["name"] for one in policy["spec"]["jsonPatches"] if one["type"].endswith(".Cluster")}
    complete = shipped.filter_configuration(shipped.wasm_filters(policy)[0])
    assert {one["cluster"] for one in complete["facilitators"]} <= added

    route = shipped.document("envoy-gateway/facilitator.yaml", "HTTPRoute")
    generated = f"httproute/{route['metadata']['namespace']}/{route['metadata']['name']}/rule/0"
    plain = shipped.plain_configuration("envoy-gateway/envoyextensionpolicy.yaml")
    assert {one["cluster"] for one in plain["facilitators"]} == {generated}


def test_timeouts_outlast_the_settlement() -> None:
    for path in shipped.BOOTSTRAPS:
        (document,) = shipped.documents(path)
        (manager,) = [one for one in shipped.walk(document) if one.get("@type") == shipped.HCM]
        longest = max(seconds(one["settle_timeout"]) for one in
                      shipped.filter_configuration(shipped.wasm_filters(document)[0])["facilitators"])
        assert seconds(manager["stream_idle_timeout"]) >= max(300, longest), path
        for route in (one["route"] for one in shipped.walk(manager["route_config"]) if "route" in one):
            assert route["timeout"] == "0s" and seconds(route["idle_timeout"]) >= max(300, longest), path


def idle_timeouts(path: Path) -> set[str]:
    """Whatever a file says of the connection manager's `stream_idle_timeout`, itself or by patches."""
    found = list(shipped.walk(shipped.documents(path)))
    patched = {one["value"] for one in found if str(one.get("path", "")).endswith("/stream_idle_timeout")}
    return patched | {one["stream_idle_timeout"] for one in found if "stream_idle_timeout" in one}


# The net under a dead VM. Envoy Gateway leaves it at Envoy's own 5 minutes, which a plain resource of it has to say.
@pytest.mark.parametrize("name", ["envoy.yaml", "demo.yaml", *shipped.COMPLETE, "istio/streamidletimeout.yaml"])
def test_a_dead_vm_keeps_nobody_waiting(name: str) -> None:
    assert idle_timeouts(shipped.ENVOY / name) == {"300s"}


@pytest.mark.parametrize("name", shipped.PLAIN)
def test_plain_forms_name_the_net_under_a_dead_vm(name: str) -> None:
    text = (shipped.ENVOY / name).read_text()
    assert ("streamidletimeout.yaml" if name.startswith("istio") else "stream_idle_timeout") in text


def seconds(duration: str) -> float:
    """A duration as Envoy writes it."""
    assert duration.endswith("s")
    return float(duration[:-1])


def test_containers_run_the_demo() -> None:
    (demo,) = shipped.documents(shipped.ENVOY / "demo.yaml")
    (docker,) = shipped.documents(shipped.ROOT / "docker" / "envoy.yaml")
    want: Any = copy.deepcopy(demo)
    want["admin"]["address"]["socket_address"]["address"] = "0.0.0.0"
    want["static_resources"]["listeners"][0]["address"]["socket_address"]["address"] = "0.0.0.0"
    for config in shipped.wasm_filters(want):
        config["vm_config"]["code"]["local"]["filename"] = "/etc/envoy/x402_envoy.wasm"
    assert docker == want


def test_the_demo_listens_on_loopback_alone() -> None:
    (demo,) = shipped.documents(shipped.ENVOY / "demo.yaml")
    assert {one["socket_address"]["address"] for one in shipped.walk(demo) if "socket_address" in one} == {"127.0.0.1"}


def test_compose_publishes_on_loopback_alone() -> None:
    (compose,) = shipped.documents(shipped.ROOT / "docker-compose.yml")
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "healthcheck" in service, name
        assert name == "gateway" or service["network_mode"] == "service:gateway", name
