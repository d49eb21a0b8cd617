"""The rig is honest: a rig that lies passes toys."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.api.names import GPU_RESOURCE
from rig.api import ApiError
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node, is_ready
from rig.waiting import wait_for

Object = dict[str, Any]

PATIENCE_SECONDS = 60
FINALIZER = "rig.penstock.dev/hold"
_numbers = itertools.count()


@pytest.fixture
def node(cp: ControlPlane) -> Iterator[str]:
    name = f"kubelet-{next(_numbers)}"
    add_nodes(cp, [gpu_node(name, gpus=4, labels={"rig.test": name})])
    yield name
    cp.api.delete(f"/api/v1/nodes/{name}")


def pod(name: str, node: str, *, gpus: int = 1, bound: bool = False, **spec: Any) -> Object:
    """A pod for one node: chosen by selector, or `bound` past the scheduler as only a mistake or a malice does."""
    container = {"name": "server", "image": "example.test/server", "resources": {"limits": {GPU_RESOURCE: str(gpus)}}}
    place: Object = {"nodeName": node} if bound else {"nodeSelector": {"rig.test": node}}
    settings = {"containers": [container], "terminationGracePeriodSeconds": 1, **place, **spec}
    return {"metadata": {"name": name}, "spec": settings}


class Pods:
    """The pods of one namespace."""

    def __init__(self, cp: ControlPlane, namespace: str) -> None:
        self._api = cp.api
        self.path = f"/api/v1/namespaces/{namespace}/pods"

    def create(self, obj: Object) -> str:
        name: str = self._api.create(self.path, obj)["metadata"]["name"]
        return name

    def get(self, name: str) -> Object:
        return self._api.get(f"{self.path}/{name}")

    def await_state(self, name: str, what: str, holds: Callable[[Object], bool]) -> Object:
        def probe() -> Object | None:
            found = self.get(name)
            return found if holds(found) else None

        return wait_for(f"{name} {what}", probe, PATIENCE_SECONDS)

    def await_ready(self, name: str) -> Object:
        return self.await_state(name, "is Ready", is_ready)

    def await_unready(self, name: str) -> Object:
        return self.await_state(name, "is not Ready", lambda found: not is_ready(found))

    def await_gone(self, name: str) -> None:
        wait_for(f"{name} is gone", lambda: name not in self.names(), PATIENCE_SECONDS)

    def names(self) -> set[str]:
        return {item["metadata"]["name"] for item in self._api.list(self.path)}


@pytest.fixture
def pods(cp: ControlPlane, ns: str) -> Pods:
    return Pods(cp, ns)


def test_a_scheduled_pod_runs_and_is_ready_with_an_address(pods: Pods, node: str) -> None:
    pods.create(pod("plain", node))
    status = pods.await_ready("plain")["status"]
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("10.")
    assert status["containerStatuses"][0]["state"]["running"]


def test_pods_that_overcommit_gpus_are_refused_and_those_that_fit_are_not(pods: Pods, node: str) -> None:
    for number in range(3):
        pods.create(pod(f"two-{number}", node, gpus=2, bound=True))
    phases = wait_for("all three are judged", lambda: _judged(pods), PATIENCE_SECONDS)
    refused = [status for status in phases if status["phase"] == "Failed"]
    assert [status["phase"] for status in phases].count("Running") == 2
    assert [status["reason"] for status in refused] == ["UnexpectedAdmissionError"]
    assert "Requested: 2, Available: 0" in refused[0]["message"]


def _judged(pods: Pods) -> list[Object] | None:
    statuses: list[Object] = [pods.get(name)["status"] for name in sorted(pods.names())]
    return statuses if all(status["phase"] in {"Running", "Failed"} for status in statuses) else None


def test_gpus_are_free_again_only_when_their_pod_is_gone(cp: ControlPlane, pods: Pods, node: str) -> None:
    pods.create(pod("first", node, gpus=4, terminationGracePeriodSeconds=3))
    pods.await_ready("first")
    cp.api.delete(f"{pods.path}/first")
    pods.create(pod("hasty", node, gpus=4, bound=True))
    refused = pods.await_state("hasty", "is judged", lambda found: found["status"]["phase"] != "Pending")
    assert refused["status"]["reason"] == "UnexpectedAdmissionError"
    pods.await_gone("first")
    pods.create(pod("patient", node, gpus=4, bound=True))
    pods.await_ready("patient")


def test_termination_takes_the_whole_grace_and_serves_meanwhile(cp: ControlPlane, pods: Pods, node: str) -> None:
    pods.create(pod("graceful", node, terminationGracePeriodSeconds=3))
    pods.await_ready("graceful")
    asked = time.monotonic()
    cp.api.delete(f"{pods.path}/graceful")
    leaving = pods.get("graceful")
    assert leaving["metadata"]["deletionTimestamp"]
    assert leaving["status"]["phase"] == "Running"
    pods.await_gone("graceful")
    assert time.monotonic() - asked >= 3


def test_a_second_delete_may_shorten_the_grace(cp: ControlPlane, pods: Pods, node: str) -> None:
    pods.create(pod("hurried", node, terminationGracePeriodSeconds=600))
    pods.await_ready("hurried")
    cp.api.delete(f"{pods.path}/hurried")
    cp.api.delete(f"{pods.path}/hurried", {"gracePeriodSeconds": 1})
    pods.await_gone("hurried")


def test_a_finalizer_holds_the_pod_after_its_containers_ended(cp: ControlPlane, pods: Pods, node: str) -> None:
    held = pod("held", node)
    held["metadata"]["finalizers"] = [FINALIZER]
    pods.create(held)
    pods.await_ready("held")
    cp.api.delete(f"{pods.path}/held")
    ended = pods.await_state("held", "has ended", lambda found: found["status"]["phase"] == "Succeeded")
    assert not is_ready(ended)
    time.sleep(2)
    assert "held" in pods.names()
    cp.api.patch(f"{pods.path}/held", {"metadata": {"finalizers": None}})
    pods.await_gone("held")


def test_a_readiness_gate_holds_readiness_both_ways(cp: ControlPlane, pods: Pods, node: str) -> None:
    gate = "example.test/warm"
    pods.create(pod("gated", node, readinessGates=[{"conditionType": gate}]))
    running = pods.await_state("gated", "is Running", lambda found: found["status"]["phase"] == "Running")
    assert not is_ready(running)
    for status in ("True", "False"):
        change = {"status": {"conditions": [{"type": gate, "status": status}]}}
        cp.api.patch(f"{pods.path}/gated/status", change, "strategic")
        await_readiness = pods.await_ready if status == "True" else pods.await_unready
        await_readiness("gated")


def test_a_dead_node_is_not_ready_keeps_its_pods_terminating_and_comes_back(
    cp: ControlPlane, pods: Pods, node: str
) -> None:
    pods.create(pod("stays", node))
    pods.create(pod("leaves", node))
    pods.await_ready("stays")
    pods.await_ready("leaves")
    cp.kill_node(node)
    cp.api.delete(f"{pods.path}/leaves")
    wait_for("the node is not Ready", lambda: not is_ready(cp.api.get(f"/api/v1/nodes/{node}")), PATIENCE_SECONDS)
    pods.await_unready("stays")
    late = pods.create(pod("late", node, bound=True, tolerations=[{"operator": "Exists"}]))
    time.sleep(3)
    assert pods.get("leaves")["metadata"]["deletionTimestamp"]
    assert pods.get(late)["status"]["phase"] == "Pending"
    assert not is_ready(pods.get("stays"))
    cp.revive_node(node)
    pods.await_gone("leaves")
    pods.await_ready("stays")
    pods.await_ready(late)


def test_a_deleted_pod_that_never_ran_goes_at_once(cp: ControlPlane, pods: Pods, node: str) -> None:
    pods.create(pod("gated", node, schedulingGates=[{"name": "example.test/wait"}], terminationGracePeriodSeconds=600))
    cp.api.delete(f"{pods.path}/gated")
    pods.await_gone("gated")


def test_two_hundred_replicas_of_a_deployment_come_and_go(cp: ControlPlane, pods: Pods, ns: str) -> None:
    names = [f"crowd-{number}" for number in range(10)]
    add_nodes(cp, [gpu_node(name, gpus=20, labels={"rig.test": "crowd"}) for name in names])
    template = pod("", "crowd")
    labels = {"app": "crowd"}
    deployment = {
        "metadata": {"name": "crowd"},
        "spec": {
            "replicas": 200,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        },
    }
    cp.api.create(f"/apis/apps/v1/namespaces/{ns}/deployments", deployment)
    path = f"/apis/apps/v1/namespaces/{ns}/deployments/crowd"
    wait_for("200 replicas are Ready", lambda: cp.api.get(path)["status"].get("readyReplicas") == 200, 120)
    cp.api.delete(path, {"propagationPolicy": "Foreground"})
    wait_for("200 replicas are gone", lambda: not pods.names(), 120)
    for name in names:
        cp.api.delete(f"/api/v1/nodes/{name}")


def test_a_request_without_a_right_is_refused(cp: ControlPlane) -> None:
    stranger = cp.api_as(cp.user("stranger"))
    with pytest.raises(ApiError, match="Forbidden") as refusal:
        stranger.list("/api/v1/nodes")
    assert refusal.value.status == 403
