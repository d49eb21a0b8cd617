"""The operator as a process: what it logs, what its probes say, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests

from factory import BRISK, PATIENCE_SECONDS, Factory, fleet, open_factory
from penstock.api.names import LEASE_NAME
from rig.controlplane import ControlPlane
from rig.install import NAMESPACE, start_operator
from rig.waiting import wait_for

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{LEASE_NAME}"
METRICS = (
    "penstock_decisions_total",
    "penstock_gate_seconds_count",
    "penstock_pool_placed_replicas",
    "penstock_power_domain_committed_watts",
    "penstock_power_domain_held_watts",
    "penstock_power_domain_stage",
    "penstock_gpu_node_measured_watts",
    "penstock_gpu_node_limit_watts",
    "penstock_gpu_node_telemetry_age_seconds",
    "penstock_pool_measured_watts",
    "penstock_pool_reserved_watts",
    "penstock_watch_age_seconds",
    "penstock_stale_gpu_nodes",
    "penstock_leading",
    "penstock_synced",
)


@pytest.fixture
def factory() -> Iterator[Factory]:
    """A factory whose operator stays down once it has ended."""
    with ControlPlane.start() as plane:
        opened = open_factory(plane)
        opened.operator.stop()
        opened.operator = start_operator(plane, name="lonely", env=BRISK)
        opened.operator.wait_ready()
        yield opened
        opened.telemetry.stop()


def probe(factory: Factory, page: str) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{factory.operator.port}/{page}", timeout=5)


def test_it_logs_json_answers_its_probes_and_hands_the_lease_over_when_told_to_stop(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 60_000, {})
    factory.pool("llama")
    factory.wait_running("llama", 1)
    assert probe(factory, "healthz").text == "ok"
    assert probe(factory, "readyz").text == "ok"

    def told() -> bool:
        found = {key.partition("{")[0] for key in factory.operator.metrics()}
        return found.issuperset(METRICS)

    wait_for("every metric is there", told, PATIENCE_SECONDS)
    assert factory.operator.stop() == 0
    assert factory.plane.api.get(LEASE)["spec"]["holderIdentity"] == ""
    for line in factory.operator.log_path.read_text().splitlines():
        assert {"level", "logger", "message", "time"} <= json.loads(line).keys()


def test_a_leader_whose_lease_was_taken_ends_itself_with_an_error(factory: Factory) -> None:
    # Ready is also who stands by: a lease taken from nobody ends nobody.
    wait_for("it leads", lambda: factory.operator.metrics().get("penstock_leading") == 1, PATIENCE_SECONDS)
    lease = factory.plane.api.get(LEASE)
    stolen = {"holderIdentity": "thief", "leaseTransitions": lease["spec"]["leaseTransitions"] + 1}
    factory.plane.api.patch(LEASE, {"spec": stolen})
    wait_for("it ends", lambda: factory.operator.exit_code is not None, PATIENCE_SECONDS)
    assert factory.operator.exit_code != 0
    assert "thief" in factory.operator.log_path.read_text()


def test_an_identity_without_rights_is_told_what_is_missing_and_never_ready(factory: Factory) -> None:
    factory.operator.stop()
    nobody = factory.plane.service_account(NAMESPACE, "penstock-agent")
    poor = start_operator(factory.plane, name="poor", kubeconfig=nobody, env=BRISK)

    def told() -> bool:
        return "forbidden" in poor.log_path.read_text().lower()

    wait_for("it says so", told, PATIENCE_SECONDS)
    try:
        assert requests.get(f"http://127.0.0.1:{poor.port}/readyz", timeout=5).status_code == 503
    except requests.ConnectionError:
        # It gave up in the meantime, which is no readiness either.
        wait_for("it ends", lambda: poor.exit_code is not None, PATIENCE_SECONDS)
        assert poor.exit_code != 0
