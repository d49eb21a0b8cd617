"""The off-ramp on a real control plane: everything goes on without us, and nothing that runs restarts."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.api.names import (
    API_VERSION,
    COUNTRY_LABEL,
    GATE,
    LEASE_NAME,
    LEFT_ANNOTATION,
    POWER_DEGRADED_CONDITION,
)
from penstock.core.manifests import Workload, deployment
from penstock.core.model import PoolKey
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart
from rig.waiting import wait_for

SYSTEM = "penstock-system"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"
POOLS = "/apis/penstock.dev/v1alpha1/namespaces/search/inferencepools"
DEPLOYMENTS = "/apis/apps/v1/namespaces/search/deployments"
REPLICA_SETS = "/apis/apps/v1/namespaces/search/replicasets"
PODS = "/api/v1/namespaces/search/pods"
GPU_NODES = f"/apis/{API_VERSION}/gpunodes"
TEMPLATE = {"spec": {"containers": [{"name": "s", "image": "s", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]}}
Object = dict[str, Any]


@dataclass(frozen=True)
class Left:
    """A cluster whose operator has gone: one replica runs, two wait at the gate, one has left the count."""

    cp: ControlPlane
    rescuer: Path
    running: str

    def release(self, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "penstock", "release", *arguments, "-o", "json")
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig or self.rescuer)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def pods(self) -> list[Object]:
        return self.cp.api.list(PODS)

    def all_run(self, number: int) -> bool:
        pods = [pod for pod in self.pods() if pod["metadata"]["labels"].get("app") != "adopted"]
        return len(pods) == number and all(pod["status"]["phase"] == "Running" for pod in pods)


@pytest.fixture
def left() -> Iterator[Left]:
    with ControlPlane.start() as cp:
        add_nodes(cp, [gpu_node("gpu-de", country="DE"), gpu_node("gpu-us", country="US")])
        install_chart(cp, {"operator.replicas": 0})
        cp.api.create("/api/v1/namespaces", {"metadata": {"name": "search"}})
        account = "/api/v1/namespaces/search/serviceaccounts/default"
        wait_for("the namespace takes pods", lambda: cp.api.get(account), 60)
        make_pool_with_one_running_replica(cp)
        (running,) = (pod for pod in cp.api.list(PODS) if pod["status"]["phase"] == "Running")
        yield Left(cp, cp.user("ben", ("penstock:break-glass",)), running["metadata"]["uid"])


def make_pool_with_one_running_replica(cp: ControlPlane) -> None:
    pool = cp.api.create(POOLS, pool_object())
    workload = Workload(PoolKey("search", "llama"), pool["metadata"]["uid"], TEMPLATE, 3, 1, "2026-01-01T00:00:00Z", 1)
    cp.api.create(DEPLOYMENTS, deployment(workload))
    wait_for("three gated pods", lambda: len(cp.api.list(PODS)) == 3, 60)
    first = cp.api.list(PODS)[0]["metadata"]["name"]
    rescuer = cp.api_as(cp.user("anna", ("penstock:break-glass",)))
    pinned = {"nodeSelectorTerms": [{"matchExpressions": [{"key": COUNTRY_LABEL, "operator": "In", "values": ["DE"]}]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": pinned}}
    lift = [
        {"op": "add", "path": "/spec/affinity", "value": affinity},
        {"op": "remove", "path": "/spec/schedulingGates"},
    ]
    wait_for("the first replica is let go", lambda: rescuer.patch(f"{PODS}/{first}", lift, "json"), 60)
    wait_for("it runs", lambda: cp.api.get(f"{PODS}/{first}")["status"]["phase"] == "Running", 60)


def pool_object() -> Object:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": "llama", "namespace": "search"},
        "spec": {"replicas": 4, "residency": {"allowed": ["DE"]}, "template": TEMPLATE},
    }


def adopted_stateful_set() -> Object:
    labels = {"app": "adopted"}
    spec = {**TEMPLATE["spec"], "schedulingGates": [{"name": GATE}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "adopted", "namespace": "search"},
        "spec": {
            "replicas": 1,
            "serviceName": "adopted",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def objects(answer: subprocess.CompletedProcess[str]) -> list[Object]:
    found: list[Object] = json.loads(answer.stdout)["objects"]
    return found


def test_everything_that_fits_starts_without_us_and_nothing_that_runs_restarts(left: Left) -> None:
    before = left.release("--check")
    assert before.returncode == 1, before.stderr

    answer = left.release("--all")

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert all(line["done"] for line in objects(answer))
    wait_for("all four replicas run", lambda: left.all_run(4), 120)
    (old,) = (pod for pod in left.pods() if pod["metadata"]["uid"] == left.running)
    assert "deletionTimestamp" not in old["metadata"]
    assert {pod["spec"]["nodeName"] for pod in left.pods()} == {"gpu-de"}, "the law is kept"
    assert len([one for one in left.cp.api.list(REPLICA_SETS) if one["spec"]["replicas"]]) == 1
    found = left.cp.api.get(f"{DEPLOYMENTS}/llama")
    assert found["spec"]["replicas"] == 4
    assert not found["spec"].get("paused")
    assert LEFT_ANNOTATION not in found["metadata"]["annotations"]

    after = left.release("--check")
    assert (after.returncode, objects(after)) == (0, [])
    again = left.release("--all")
    assert (again.returncode, objects(again)) == (0, [])


def test_a_replica_made_later_starts_without_a_gate_and_still_inside_no_ones_pin(left: Left) -> None:
    assert left.release("--all").returncode == 0
    left.cp.api.patch(f"{DEPLOYMENTS}/llama", {"spec": {"replicas": 5}})
    wait_for("a fifth replica runs by kube-scheduler alone", lambda: left.all_run(5), 120)


def test_an_adopted_owner_is_named_and_not_touched(left: Left) -> None:
    left.cp.api.create("/apis/apps/v1/namespaces/search/statefulsets", adopted_stateful_set())
    wait_for("its pod waits", lambda: left.cp.api.get(f"{PODS}/adopted-0")["spec"]["schedulingGates"], 60)

    answer = left.release("--all")

    assert answer.returncode == 0, answer.stdout + answer.stderr
    (told,) = (line for line in objects(answer) if line["object"] == "statefulset/adopted -n search")
    assert not told["done"]
    assert "spec.template.spec.schedulingGates" in told["says"]
    template = left.cp.api.get("/apis/apps/v1/namespaces/search/statefulsets/adopted")["spec"]["template"]
    assert template["spec"]["schedulingGates"] == [{"name": GATE}]
    wait_for("its pod runs", lambda: left.cp.api.get(f"{PODS}/adopted-0")["status"]["phase"] == "Running", 60)
    assert left.release("--check").returncode == 1


def marked_nodes(cp: ControlPlane) -> None:
    """A node with all that is ours and a label that is not; two more GPUNodes: one is reported to, one has caps."""
    label = {"penstock.dev/gpu.power.limit.max": "700", "example.com/owner": "us"}
    cp.api.patch("/api/v1/nodes/gpu-de", {"metadata": {"labels": label}})
    condition = {"type": POWER_DEGRADED_CONDITION, "status": "True", "reason": "GPULost", "message": "GPU 0 is lost"}
    path = "/api/v1/nodes/gpu-de/status"
    cp.api.patch(path, {"status": {"conditions": [condition]}}, "strategic")
    for name, heartbeat_seconds in (("gpu-de", 1), ("gpu-us", 300), ("capped", 1)):
        metadata = {"name": name, "labels": {"made-by": "the-test"}}
        cp.api.create(GPU_NODES, {"apiVersion": API_VERSION, "kind": "GPUNode", "metadata": metadata})
        status = {"heartbeatSeconds": heartbeat_seconds, "sequence": 1}
        cp.api.patch(f"{GPU_NODES}/{name}/status", {"status": status})
    cap = {"uuid": "GPU-0", "watts": 400, "namespace": "search", "pod": "llama", "podUID": "u"}
    rescuer = cp.api_as(cp.user("clara", ("penstock:break-glass",)))
    rescuer.patch(f"{GPU_NODES}/capped", {"spec": {"caps": [cap]}})


def on_node(cp: ControlPlane) -> tuple[set[str], set[str]]:
    """Labels and conditions of the marked node."""
    node = cp.api.get("/api/v1/nodes/gpu-de")
    return set(node["metadata"]["labels"]), {one["type"] for one in node["status"]["conditions"]}


def test_nothing_of_ours_stays_on_a_node_and_nothing_of_anybody_else_s_goes(left: Left) -> None:
    plain = on_node(left.cp)
    marked_nodes(left.cp)
    assert on_node(left.cp)[1] == plain[1] | {POWER_DEGRADED_CONDITION}
    time.sleep(4)  # three heartbeats of the silent agents are over
    told = [line["says"] for line in objects(left.release("--check")) if line["object"] == "nodes"]
    assert [one.partition(":")[0] for one in told] == [
        "node/gpu-de",
        "gpunode/capped",
        "gpunode/gpu-de",
        "gpunode/gpu-us",
    ]
    assert "--caps comes first" in told[1]
    assert "once the agents are gone" in told[3]

    answer = left.release("--nodes")

    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert on_node(left.cp) == (plain[0] | {"example.com/owner"}, plain[1])
    assert [line["object"] for line in objects(answer) if not line["done"]] == ["gpunode/capped", "gpunode/gpu-us"]
    assert {one["metadata"]["name"] for one in left.cp.api.list(GPU_NODES)} == {"capped", "gpu-us"}
    assert left.release("--caps").returncode == 0
    left.cp.api.patch(f"{GPU_NODES}/gpu-us/status", {"status": {"heartbeatSeconds": 1, "sequence": 2}})
    time.sleep(4)
    assert left.release("--nodes").returncode == 0
    assert left.cp.api.list(GPU_NODES) == []
    again = left.release("--nodes")
    assert (again.returncode, objects(again)) == (0, [])
    assert not [line for line in objects(left.release("--check")) if line["object"] == "nodes"]


def test_while_an_operator_leads_nothing_is_released_unless_forced(left: Left) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "op-1", "renewTime": now, "leaseDurationSeconds": 600, "leaseTransitions": 1}
    left.cp.api.create(LEASES, {"metadata": {"name": LEASE_NAME, "namespace": SYSTEM}, "spec": spec})

    for what in ("--all", "--nodes"):
        refused = left.release(what)
        assert refused.returncode == 1
        assert "op-1 leads" in refused.stderr
        assert "--replicas=0" in refused.stderr
    assert any(pod["spec"].get("schedulingGates") for pod in left.pods())

    assert left.release("--all", "--force").returncode == 0
    wait_for("all four replicas run", lambda: left.all_run(4), 120)


def test_somebody_outside_the_break_glass_group_is_refused_for_each_pod_and_told_why(left: Left) -> None:
    answer = left.release("--all", kubeconfig=left.cp.kubeconfig)
    assert answer.returncode == 1
    refused = [line for line in objects(answer) if "refused" in line["says"]]
    assert len(refused) >= 2
    assert all("break-glass" in line["says"] for line in refused)
    assert any(pod["spec"].get("schedulingGates") for pod in left.pods())
