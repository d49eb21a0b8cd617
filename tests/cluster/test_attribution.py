"""Whose watt it is, end to end: a kubelet that says which pod got which GPU, the real agent, and the plant's truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from penstock.api.names import GPU_RESOURCE
from rig.agents import LOAD_ANNOTATION, Agents, RunningPlant, start_agents, start_plant
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart
from rig.podresources import HANGING, RIGHTLY, WITH_FINISHED
from rig.waiting import wait_for

Object = dict[str, Any]

NODE = "gpu-0"
GPUS = 4
GPU_NODE = f"/apis/penstock.dev/v1alpha1/gpunodes/{NODE}"
PODS = "/api/v1/namespaces/default/pods"
PARTS = "nvidia.com/mig-part"
HEARTBEAT_SECONDS = 2
CEILING_SECONDS = 100.0
"""Ten times the ten seconds between two looks at the kubelet."""
CREDIT_CEILING_SECONDS = 150.0
EXACT, SHARED = 0.02, 0.15


@dataclass(frozen=True)
class Rig:
    plane: ControlPlane
    running: RunningPlant
    agents: Agents

    @property
    def status(self) -> Object:
        found: Object = self.plane.api.get(GPU_NODE)["status"]
        return found

    def until(self, what: str, true: Callable[[Object], object], ceiling_seconds: float = CEILING_SECONDS) -> Object:
        def probe() -> Object | None:
            status = self.status
            return status if true(status) else None

        return wait_for(what, probe, ceiling_seconds)

    def serve(self, name: str, gpus: int, load: float, resource: str = GPU_RESOURCE) -> str:
        """A pod straight on the node; its uid."""
        container = {"name": "server", "image": "server", "resources": {"limits": {resource: str(gpus)}}}
        spec = {"nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 1}
        metadata = {"name": name, "annotations": {LOAD_ANNOTATION: str(load)}}
        uid: str = self.plane.api.create(PODS, {"metadata": metadata, "spec": spec})["metadata"]["uid"]
        return uid

    def clear(self) -> None:
        for pod in self.plane.api.list(PODS):
            self.plane.api.delete(f"{PODS}/{pod['metadata']['name']}")
        self.until("nobody is listed any more", lambda status: not status.get("pods"), CREDIT_CEILING_SECONDS)

    def truth(self, uid: str) -> float:
        return self.running.plant.pod_watts(NODE).get(uid, 0.0)


@pytest.fixture(scope="module")
def started() -> Iterator[Rig]:
    with ControlPlane.start() as plane:
        add_nodes(plane, [gpu_node(NODE, product="NVIDIA-H200", gpus=GPUS)])
        install_chart(plane)
        with start_plant(plane, [NODE]) as running:
            agents = start_agents(plane, running, [NODE], heartbeat_seconds=HEARTBEAT_SECONDS)
            yield Rig(plane, running, agents)
            agents.stop_all()


@pytest.fixture
def rig(started: Rig) -> Iterator[Rig]:
    """A node at rest on which nobody is."""
    started.until("the agent hears the kubelet", lambda status: status.get("podResources") == "Read")
    yield started
    started.agents.answer(NODE, RIGHTLY)
    started.clear()


def readings(status: Object) -> dict[str, Object]:
    return {pod["name"]: pod for pod in status.get("pods", [])}


def test_each_pod_is_told_its_own_gpus_and_watts_and_all_add_up(rig: Rig) -> None:
    uids = {"big": rig.serve("big", 2, 0.9), "small": rig.serve("small", 1, 0.2)}
    status = rig.until("both pods' watts are right", lambda status: judged(rig, status, uids, EXACT, "Exact"))
    pods = readings(status)
    assert [len(pods[name]["devices"]) for name in uids] == [2, 1]
    held = {uuid for pod in pods.values() for uuid in pod["devices"]}
    assert held <= {gpu["uuid"] for gpu in status["gpus"]}
    assert len(held) == 3
    together = status["idleWatts"] + sum(pod["watts"] for pod in pods.values())
    assert together == pytest.approx(status["watts"], rel=0.01)
    assert status["unallocatedInUse"] == []


def judged(rig: Rig, status: Object, uids: dict[str, str], tolerance: float, attribution: str) -> bool:
    """Whether what is said of each pod is the plant's truth, within the tolerance."""
    pods = readings(status)
    return pods.keys() == uids.keys() and all(
        pods[name]["attribution"] == attribution and close(rig, pods[name], uid, tolerance)
        for name, uid in uids.items()
    )


def close(rig: Rig, reading: Object, uid: str, tolerance: float) -> bool:
    truth = rig.truth(uid)
    return truth > 0 and abs(reading.get("watts", 0.0) - truth) <= tolerance * truth


@pytest.fixture
def shared(rig: Rig) -> Iterator[Rig]:
    """The third GPU is given out in turns, the fourth in two parts; nothing else is."""
    plant = rig.running.plant
    parts = plant.partition(NODE, 3, (4, 3))
    turns = [f"{plant.uuids(NODE)[2]}::{number}" for number in range(2)]
    room = {"status": {"allocatable": {PARTS: "2"}, "capacity": {PARTS: "2"}}}
    rig.plane.api.patch(f"/api/v1/nodes/{NODE}/status", room)
    rig.agents.offer(NODE, {GPU_RESOURCE: turns, PARTS: parts})
    rig.until("the agent sees the parts", lambda status: len(status["gpus"][3].get("migInstances", [])) == len(parts))
    yield rig
    rig.clear()
    plant.partition(NODE, 3, ())
    rig.agents.offer(NODE, {GPU_RESOURCE: plant.uuids(NODE)})


def test_who_shares_a_gpu_in_turns_or_in_parts_has_its_own_watts_too(shared: Rig) -> None:
    turns = {"turn-a": shared.serve("turn-a", 1, 0.9), "turn-b": shared.serve("turn-b", 1, 0.2)}
    parts = {"part-a": shared.serve("part-a", 1, 0.9, PARTS), "part-b": shared.serve("part-b", 1, 0.3, PARTS)}
    wanted = {**dict.fromkeys(turns, "Proportional"), **dict.fromkeys(parts, "Estimated")}

    def right(status: Object) -> bool:
        pods = readings(status)
        told = {name: pods.get(name, {}).get("attribution") for name in wanted}
        return told == wanted and all(close(shared, pods[name], uid, SHARED) for name, uid in (turns | parts).items())

    status = shared.until("who shares has its watts", right)
    together = status["idleWatts"] + sum(pod["watts"] for pod in status["pods"])
    assert together == pytest.approx(status["watts"], rel=0.01)
    assert [readings(status)[name].get("shared", False) for name in wanted] == [True, True, False, False]


def test_a_pod_that_is_gone_has_no_watts_and_its_gpu_is_credited(rig: Rig) -> None:
    rig.serve("replica", 1, 0.9)
    rig.until("its watts", lambda status: readings(status).get("replica", {}).get("watts", 0) > 500)
    rig.plane.api.delete(f"{PODS}/replica")
    rig.until(
        "its watts are credited",
        lambda status: not status["pods"] and max(gpu["powerP95Watts"] for gpu in status["gpus"]) < 100,
        CREDIT_CEILING_SECONDS,
    )


def test_a_kubelet_that_hangs_leaves_out_every_pod_and_stops_no_figure(rig: Rig) -> None:
    rig.serve("replica", 1, 0.9)
    before = rig.until("its watts", lambda status: readings(status).get("replica", {}).get("watts", 0) > 500)
    rig.agents.answer(NODE, HANGING)
    hung = rig.until("nobody knows whose watts", lambda status: status["podResources"] == "Unavailable")
    assert (hung["pods"], "idleWatts" in hung) == ([], False)
    assert hung["watts"] == pytest.approx(before["watts"], rel=0.1)
    rig.agents.answer(NODE, RIGHTLY)
    rig.until("the pod is listed again", lambda status: "replica" in readings(status))


def test_a_finished_pod_that_the_kubelet_still_lists_is_told_as_listed(rig: Rig) -> None:
    rig.agents.answer(NODE, WITH_FINISHED)
    rig.serve("replica", 1, 0.9)
    rig.until("the pod is listed", lambda status: "replica" in readings(status))
    rig.plane.api.delete(f"{PODS}/replica")
    ended = rig.until("it draws nothing", lambda status: readings(status).get("replica", {}).get("watts", 999) < 100)
    assert readings(ended)["replica"]["attribution"] == "Exact"
