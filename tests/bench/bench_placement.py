"""Placing a thousand replicas on five hundred nodes: the operator beside a bare PATCH loop and kube-scheduler alone.

`python -m bench.bench_placement [rounds]`. Every arm runs on one control plane under the same admission policies
while one publisher writes all GPUNodes at their heartbeat; times come from the API server's audit log.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from bench.figures import Figure, percentile, show
from penstock.api.names import API_VERSION, GATE, LEASE_NAME, POOL_LABEL
from rig.audit import AuditLog, Request
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import NAMESPACE, OPERATOR_ACCOUNT, Operator, install_chart, start_operator
from rig.telemetry import Publisher
from rig.waiting import wait_for

NODES = 500
REPLICAS = 1000
TRICKLE = 200
CEILING_SECONDS = 300
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
POOLS = f"/apis/{API_VERSION}/namespaces/default/inferencepools"
PODS = "/api/v1/namespaces/default/pods"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"

Object = dict[str, Any]


def template(*, gated: bool, name: str = "") -> Object:
    resources = {"limits": {"nvidia.com/gpu": "1"}}
    spec: Object = {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "s", "image": "i", "resources": resources}],
    }
    if gated:
        spec["schedulingGates"] = [{"name": GATE}]
    metadata: Object = {"labels": {POOL_LABEL: "crowd"}} | ({"name": name} if name else {})
    return {"metadata": metadata, "spec": spec}


def deployment(*, gated: bool) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "crowd"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {POOL_LABEL: "crowd"}},
            "template": template(gated=gated),
        },
    }


def pool(replicas: int) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "InferencePool",
        "metadata": {"name": "crowd"},
        "spec": {"replicas": replicas, "template": {"spec": template(gated=False)["spec"]}},
    }


class Rig:
    """The control plane of every arm."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.audit = AuditLog(plane.audit_log)
        self.identity = plane.service_account(NAMESPACE, OPERATOR_ACCOUNT)

    def makespan_seconds(self, path: str, obj: Object) -> float:
        """From the creation of `obj` to the last binding of its thousand pods."""
        mark = self.audit.mark()
        self.plane.api.create(path, obj)
        wait_for(f"{REPLICAS} bindings", lambda: len(bindings(self.audit, mark)) >= REPLICAS, CEILING_SECONDS)
        moments = [at(one) for one in bindings(self.audit, mark)]
        began = min(at(one) for one in self.audit.since(mark) if one.resource == path.rsplit("/", 1)[1] and one.writes)
        self.plane.api.delete(f"{path}/crowd")
        wait_for("all pods are gone", lambda: not self.plane.api.list(PODS, limit=1), CEILING_SECONDS, report=False)
        return max(moments) - began

    @contextmanager
    def bare_loop(self) -> Iterator[None]:
        """The loop that decides nothing, as the holder of the Lease."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE_NAME, "namespace": NAMESPACE},
            "spec": {"holderIdentity": "bare", "leaseTransitions": 0},
        }
        self.plane.api.create(LEASES, lease)
        command = [sys.executable, "-m", "bench.bare_loop", str(self.identity), "bare/0"]
        child = self.plane.spawn("bare-loop", command, essential=False)
        try:
            yield
        finally:
            child.stop()
            self.plane.release(child)
            self.plane.api.delete(f"{LEASES}/{LEASE_NAME}")

    @contextmanager
    def operator(self, name: str, env: Mapping[str, str] | None = None) -> Iterator[Operator]:
        running = start_operator(self.plane, name=name, kubeconfig=self.identity, env=env)
        running.wait_ready()
        try:
            yield running
        finally:
            running.stop()
            self.plane.api.delete(f"{LEASES}/{LEASE_NAME}")


def at(request: Request) -> float:
    """When the API server had answered, Unix seconds."""
    return datetime.fromisoformat(request.event["stageTimestamp"]).timestamp()


def bindings(audit: AuditLog, mark: int) -> list[Request]:
    return [one for one in audit.since(mark) if one.resource == "pods/binding" and one.code < 300]


def gate_milliseconds(rig: Rig, pods_per_second: float) -> list[float]:
    """From the answer to each pod's creation to the answer to our lift of it, at a steady rate of single pods."""
    rig.plane.api.create(POOLS, {**pool(0), "spec": {}})
    mark, created = rig.audit.mark(), {}
    started = time.monotonic()
    for number in range(TRICKLE):
        time.sleep(max(0.0, started + number / pods_per_second - time.monotonic()))
        name = f"single-{number}"
        rig.plane.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", **template(gated=True, name=name)})
    for one in rig.audit.since(mark):
        if one.verb == "create" and one.resource == "pods":
            created[one.name] = at(one)
    wait_for(f"{TRICKLE} lifts", lambda: len(lifts(rig.audit, mark)) >= TRICKLE, CEILING_SECONDS)
    found = [1000 * (moment - created[name]) for name, moment in lifts(rig.audit, mark).items() if name in created]
    rig.plane.api.delete(f"{POOLS}/crowd")
    rig.plane.api.request("DELETE", PODS)
    wait_for("all pods are gone", lambda: not rig.plane.api.list(PODS, limit=1), CEILING_SECONDS, report=False)
    return found


def lifts(audit: AuditLog, mark: int) -> dict[str, float]:
    """When the API server had accepted our patch of each pod."""
    ours = [one for one in audit.since(mark) if OPERATOR_ACCOUNT in one.user and one.verb == "patch" and one.code < 300]
    return {one.name: at(one) for one in ours if one.resource == "pods"}


def main(rounds: int = 3) -> None:
    with ControlPlane.start(audit=True) as plane:
        install_chart(plane)
        add_nodes(plane, [gpu_node(f"gpu-{number:03}") for number in range(NODES)])
        publisher = Publisher(plane)
        publisher.start()
        rig = Rig(plane)
        arms: dict[str, list[float]] = {"kube-scheduler": [], "bare loop": [], "operator": []}
        for round_ in range(rounds):
            arms["kube-scheduler"].append(rig.makespan_seconds(DEPLOYMENTS, deployment(gated=False)))
            with rig.bare_loop():
                arms["bare loop"].append(rig.makespan_seconds(DEPLOYMENTS, deployment(gated=True)))
            with rig.operator(f"operator-{round_}"):
                arms["operator"].append(rig.makespan_seconds(POOLS, pool(REPLICAS)))
        half_rate = REPLICAS / statistics.median(arms["operator"]) / 2
        with rig.operator("operator-trickle"):
            waits = gate_milliseconds(rig, half_rate)
        publisher.stop()
    medians = {name: statistics.median(seconds) for name, seconds in arms.items()}
    show(
        f"{REPLICAS} replicas on {NODES} nodes, median of {rounds}",
        [
            *(Figure(f"makespan: {name}", seconds, "s") for name, seconds in medians.items()),
            Figure("operator ÷ bare loop", medians["operator"] / medians["bare loop"], "×", limit=1.15),
            Figure("operator ÷ kube-scheduler alone", medians["operator"] / medians["kube-scheduler"], "×"),
            Figure("gate → ungate accepted, p50", percentile(waits, 0.50), "ms", limit=50),
            Figure("gate → ungate accepted, p99", percentile(waits, 0.99), "ms", limit=250),
            Figure("  at half the highest rate of these rounds", half_rate, "pods/s"),
        ],
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
