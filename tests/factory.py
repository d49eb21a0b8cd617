"""An AI factory on a control plane of the kit: nodes, telemetry, the chart and a running operator, and words to use it.

Everything goes through the API server, as a user's kubectl would; nothing is read from the operator but its metrics.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from penstock.api.names import API_VERSION, COUNTRY_LABEL, GATE, GPU_RESOURCE, POOL_LABEL
from rig.api import ApiError
from rig.audit import AuditLog
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import NAMESPACE, OPERATOR_ACCOUNT, Operator, install_chart, start_operator
from rig.telemetry import Publisher
from rig.waiting import Waited, wait_for

Object = dict[str, Any]

BRISK = {
    "PENSTOCK_LEASE_SECONDS": "4",
    "PENSTOCK_RENEW_SECONDS": "3",
    "PENSTOCK_RETRY_SECONDS": "0.5",
    "PENSTOCK_WAITING_LEAVES_COUNT_SECONDS": "4",
    "PENSTOCK_NODE_LOST_SECONDS": "4",
    "PENSTOCK_GPU_FAILED_SECONDS": "1",
    "PENSTOCK_PLACE_STEADY_SECONDS": "2",
    "PENSTOCK_BACK_OFF_SECONDS": "2",
    "PENSTOCK_IDLE_SECONDS": "3",
    "PENSTOCK_SCHEDULER_SLOW_SECONDS": "6",
}
"""Settings that make a test's patience suffice; every limit keeps its meaning."""

SOON_SECONDS = 10.0
"""Ceiling for what a user is promised within a second: ten times that, since this machine is shared."""
PATIENCE_SECONDS = 60.0


@dataclass
class Factory:
    """The control plane with everything on it. `plane.api` is the administrator."""

    plane: ControlPlane
    telemetry: Publisher
    operator: Operator
    namespace: str = "default"
    _names: set[str] = field(default_factory=set)

    # ---------------------------------------------------------------------------------------------------- asking for

    def pool(
        self,
        name: str,
        *,
        replicas: int = 1,
        gpus: int = 2,
        pod: Mapping[str, Any] | None = None,
        container: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> Object:
        """Apply a pool; `pod` and `container` are merged into its template, `spec` into its spec."""
        server = {"name": "server", "image": "server:1", "resources": {"limits": {GPU_RESOURCE: str(gpus)}}}
        template = {
            "spec": {"terminationGracePeriodSeconds": 1, **(pod or {}), "containers": [{**server, **(container or {})}]}
        }
        return self.apply("InferencePool", name, {"replicas": replicas, "template": template, **spec})

    def domain(self, name: str, watts: float, labels: Mapping[str, str], **spec: Any) -> Object:
        wanted = {"nodeSelector": {"matchLabels": dict(labels)}, "budget": {"watts": watts}, **spec}
        return self.apply("PowerDomain", name, wanted)

    def apply(self, kind: str, name: str, spec: Object) -> Object:
        metadata: Object = {"name": name}
        if kind == "InferencePool":
            metadata["namespace"] = self.namespace
        return self.plane.api.apply({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})

    def patch_pool(self, name: str, spec: Object) -> Object:
        return self.plane.api.patch(self.pool_path(name), {"spec": spec})

    def patch_domain(self, name: str, spec: Object) -> Object:
        return self.plane.api.patch(self.domain_path(name), {"spec": spec})

    def delete_pool(self, name: str) -> None:
        """Delete a pool and wait until nothing of it is left."""
        self.plane.api.delete(self.pool_path(name))
        wait_for(f"pool {name} is gone with its pods", lambda: not self.pods(name), PATIENCE_SECONDS)

    # --------------------------------------------------------------------------------------------------------- seeing

    def pool_path(self, name: str) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/inferencepools/{name}"

    @staticmethod
    def domain_path(name: str) -> str:
        return f"/apis/{API_VERSION}/powerdomains/{name}"

    def status(self, name: str) -> Object:
        status: Object = self.plane.api.get(self.pool_path(name)).get("status", {})
        return status

    def domain_status(self, name: str) -> Object:
        status: Object = self.plane.api.get(self.domain_path(name)).get("status", {})
        return status

    def condition(self, name: str, kind: str, *, domain: bool = False) -> Object:
        status = self.domain_status(name) if domain else self.status(name)
        found: Object = next((one for one in status.get("conditions", []) if one["type"] == kind), {})
        return found

    def wait_heard(self, node: str, watts_per_gpu: float) -> None:
        """Let a node's agent say a draw, and wait until the operator knows it, and so whatever was said before."""

        def is_heard() -> bool:
            told = self.operator.metrics().get(f'penstock_gpu_node_measured_watts{{node="{node}"}}', 0.0)
            # A lost GPU says nothing, so of how many it is the sum is no matter.
            return told > 0 and told % watts_per_gpu == 0

        # The test before may have left this draw on a node of the same name.
        wait_for(f"{node} says another draw", lambda: not is_heard(), SOON_SECONDS)
        self.telemetry.set(node, watts=[watts_per_gpu] * self.telemetry.gpus(node))
        wait_for(f"{node} is heard", is_heard, SOON_SECONDS)

    def pods(self, name: str) -> list[Object]:
        """All pods that carry the pool's label, oldest first."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        found = self.plane.api.list(path, labelSelector=f"{POOL_LABEL}={name}")
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def running(self, name: str) -> list[Object]:
        """The pool's pods that run and are not on their way out."""
        return [pod for pod in self.pods(name) if pod["status"].get("phase") == "Running" and is_staying(pod)]

    def nodes_of(self, name: str) -> list[str]:
        """The node of each running pod, sorted."""
        return sorted(pod["spec"]["nodeName"] for pod in self.running(name))

    def deployment(self, name: str) -> Object:
        return self.plane.api.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}")

    def audit(self) -> AuditLog:
        return AuditLog(self.plane.audit_log)

    @property
    def operator_user(self) -> str:
        return f"system:serviceaccount:{NAMESPACE}:{OPERATOR_ACCOUNT}"

    # -------------------------------------------------------------------------------------------------------- waiting

    def wait_running(self, name: str, number: int, ceiling_seconds: float = PATIENCE_SECONDS) -> list[Object]:
        """Wait until exactly `number` pods of the pool run; those pods."""

        def probe() -> list[Object] | None:
            found = self.running(name)
            return found or [{}] if len(found) == number else None

        try:
            found = wait_for(f"{number} replicas of {name} run", probe, ceiling_seconds)
        except Waited as late:
            raise Waited(f"{late}; waiting: {self.status(name).get('waiting')}") from late
        return found if number else []

    def wait_waiting(self, name: str, reason: str, ceiling_seconds: float = SOON_SECONDS) -> Object:
        """Wait until the pool says that replicas wait for this reason; that entry of `status.waiting`."""
        try:
            return wait_for(f"{name} says {reason}", lambda: self._waiting(name, reason), ceiling_seconds)
        except Waited as late:
            raise Waited(f"{late}; the status is {self.status(name)}") from late

    def _waiting(self, name: str, reason: str) -> Object | None:
        waiting = self.status(name).get("waiting", [])
        return next((one for one in waiting if one["reason"] == reason), None)

    def wait_condition(
        self, name: str, kind: str, reason: str, ceiling_seconds: float = SOON_SECONDS, *, domain: bool = False
    ) -> Object:
        def probe() -> Object | None:
            found = self.condition(name, kind, domain=domain)
            return found if found.get("reason") == reason else None

        return wait_for(f"{name}: {kind} says {reason}", probe, ceiling_seconds)

    def stays(self, what: str, holds: Callable[[], object], seconds: float) -> None:
        """Assert that something goes on holding for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert holds(), f"{what}: no longer holds"
            time.sleep(0.1)

    def settles(self, what: str, holds: Callable[[], object], seconds: float, ceiling_seconds: float) -> None:
        """Wait until something has held for so long on end."""
        since = time.monotonic()

        def held_for_long() -> bool:
            nonlocal since
            if not holds():
                since = time.monotonic()
            return time.monotonic() - since >= seconds

        wait_for(what, held_for_long, ceiling_seconds)

    # ------------------------------------------------------------------------------------------------------- changing

    def add(self, nodes: Iterable[Object]) -> None:
        """More nodes, with telemetry."""
        add_nodes(self.plane, nodes)
        self.telemetry.adopt()

    def reset(self) -> None:
        """Take every pool, domain, workload and node away, so that the next test starts on an empty floor."""
        api = self.plane.api
        for pool in api.list(f"/apis/{API_VERSION}/namespaces/{self.namespace}/inferencepools"):
            api.delete(self.pool_path(pool["metadata"]["name"]))
        for domain in api.list(f"/apis/{API_VERSION}/powerdomains"):
            api.delete(self.domain_path(domain["metadata"]["name"]))
        for path in ("/apis/apps/v1/namespaces/default/statefulsets", "/apis/apps/v1/namespaces/default/deployments"):
            for one in api.list(path):
                _delete(self.plane, f"{path}/{one['metadata']['name']}")
        wait_for("the floor is empty", self._swept, PATIENCE_SECONDS, report=False)
        for node in api.list("/api/v1/nodes"):
            name = node["metadata"]["name"]
            self.telemetry.forget(name)
            _delete(self.plane, f"/api/v1/nodes/{name}")
            _delete(self.plane, f"/apis/{API_VERSION}/gpunodes/{name}")

    def _swept(self) -> bool:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        for pod in self.plane.api.list(path):
            _delete(self.plane, f"{path}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
        return not self.plane.api.list(path)


def _delete(plane: ControlPlane, path: str, options: Object | None = None) -> None:
    try:
        plane.api.delete(path, options)
    except ApiError as error:
        if error.status != 404:
            raise


def is_staying(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def is_gated(pod: Object) -> bool:
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates", []))


def gpus_of(pod: Object) -> int:
    return sum(int(one["resources"].get("limits", {}).get(GPU_RESOURCE, 0)) for one in pod["spec"]["containers"])


def pins(pod: Object) -> set[str]:
    """The node names that the pod's required affinity pins it to, over all terms."""
    return {
        value
        for term in required_terms(pod)
        for rule in term.get("matchFields", [])
        if rule["key"] == "metadata.name"
        for value in rule["values"]
    }


def required_terms(pod: Object) -> list[Object]:
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms: list[Object] = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get(
        "nodeSelectorTerms", []
    )
    return terms


def countries(pod: Object) -> set[str]:
    """The countries that the law in the pod's terms allows."""
    return {
        value
        for term in required_terms(pod)
        for rule in term.get("matchExpressions", [])
        if rule["key"] == COUNTRY_LABEL and rule["operator"] == "In"
        for value in rule["values"]
    }


def record(pod: Object) -> Object:
    """The decision that is written on a placed pod."""
    found: Object = json.loads(pod["metadata"]["annotations"]["penstock.dev/decision"])
    return found


def overcommitted(factory: Factory) -> dict[str, int]:
    """Nodes that hold more GPUs than they have, with the number; all pods count, ours or not."""
    held: dict[str, int] = {}
    for pod in factory.plane.api.list("/api/v1/pods"):
        node = pod["spec"].get("nodeName") or next(iter(pins(pod)), "")
        if node and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            held[node] = held.get(node, 0) + gpus_of(pod)
    room = {
        node["metadata"]["name"]: int(node["status"]["allocatable"].get(GPU_RESOURCE, 0))
        for node in factory.plane.api.list("/api/v1/nodes")
    }
    return {node: gpus for node, gpus in held.items() if gpus > room.get(node, gpus)}


def fleet(*countries_of_nodes: str, gpus: int = 8, **spec: Any) -> list[Object]:
    """One node for each country named, called `de-0`, `de-1`, `fr-2` in order; `-` leaves the place unknown."""
    return [
        gpu_node(
            f"{country.lower() if country != '-' else 'nowhere'}-{number}",
            country="" if country == "-" else country,
            gpus=gpus,
            **deepcopy(spec),
        )
        for number, country in enumerate(countries_of_nodes)
    ]


def open_factory(
    plane: ControlPlane, env: Mapping[str, str] | None = None, values: Mapping[str, Any] | None = None
) -> Factory:
    """Install the chart and start the operator under its ServiceAccount, on a floor without nodes."""
    install_chart(plane, values)
    telemetry = Publisher(plane)
    telemetry.start(interval=5)
    operator = start_operator(plane, env={**BRISK, **(env or {})}, keep_running=True)
    operator.wait_ready()
    return Factory(plane, telemetry, operator)
