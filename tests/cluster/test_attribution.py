"""Whose watt it is, end to end: a kubelet that says which pod got which GPU, the real agent, and the plant's truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from noderig import CREDIT_CEILING_SECONDS, NODE, PODS, NodeRig, node_rig
from penstock.api.names import GPU_RESOURCE
from rig.agents import LOAD_ANNOTATION
from rig.podresources import HANGING, RIGHTLY, WITH_FINISHED

Object = dict[str, Any]

PARTS = "nvidia.com/mig-part"
EXACT, SHARED = 0.02, 0.15


@pytest.fixture(scope="module")
def started() -> Iterator[NodeRig]:
    with node_rig(gpus=4) as found:
        yield found


@pytest.fixture
def rig(started: NodeRig) -> Iterator[NodeRig]:
    """A node at rest on which nobody is."""
    started.until("the agent hears the kubelet", lambda status: status.get("podResources") == "Read")
    yield started
    started.agents.answer(NODE, RIGHTLY)
    clear(started)


def serve(rig: NodeRig, name: str, gpus: int, load: float, resource: str = GPU_RESOURCE) -> str:
    """A pod straight on the node that keeps its GPUs so busy; its uid."""
    return rig.serve(name, gpus, resource, annotations={LOAD_ANNOTATION: str(load)})


def clear(rig: NodeRig) -> None:
    """Delete every pod, and wait until the agent lists none."""
    for pod in rig.plane.api.list(PODS):
        rig.plane.api.delete(f"{PODS}/{pod['metadata']['name']}")
    rig.until("nobody is listed any more", lambda status: not status.get("pods"), CREDIT_CEILING_SECONDS)


def readings(status: Object) -> dict[str, Object]:
    return {pod["name"]: pod for pod in status.get("pods", [])}


def test_each_pod_is_told_its_own_gpus_and_watts_and_all_add_up(rig: NodeRig) -> None:
    uids = {"big": serve(rig, "big", 2, 0.9), "small": serve(rig, "small", 1, 0.2)}
    status = rig.until("both pods' watts are right", lambda status: judged(rig, status, uids, EXACT, "Exact"))
    pods = readings(status)
    assert [len(pods[name]["devices"]) for name in uids] == [2, 1]
    held = {uuid for pod in pods.values() for uuid in pod["devices"]}
    assert held <= {gpu["uuid"] for gpu in status["gpus"]}
    assert len(held) == 3
    together = status["idleWatts"] + sum(pod["watts"] for pod in pods.values())
    assert together == pytest.approx(status["watts"], rel=0.01)
    assert status["unallocatedInUse"] == []


def judged(rig: NodeRig, status: Object, uids: dict[str, str], tolerance: float, attribution: str) -> bool:
    """Whether what is said of each pod is the plant's truth, within the tolerance."""
    pods = readings(status)
    return pods.keys() == uids.keys() and all(
        pods[name]["attribution"] == attribution and close(rig, pods[name], uid, tolerance)
        for name, uid in uids.items()
    )


def close(rig: NodeRig, reading: Object, uid: str, tolerance: float) -> bool:
    truth = rig.running.plant.pod_watts(NODE).get(uid, 0.0)
    return truth > 0 and abs(reading.get("watts", 0.0) - truth) <= tolerance * truth


@pytest.fixture
def shared(rig: NodeRig) -> Iterator[NodeRig]:
    """The third GPU is given out in turns, the fourth in two parts; nothing else is."""
    plant = rig.running.plant
    parts = plant.partition(NODE, 3, (4, 3))
    turns = [f"{plant.uuids(NODE)[2]}::{number}" for number in range(2)]
    room = {"status": {"allocatable": {PARTS: "2"}, "capacity": {PARTS: "2"}}}
    rig.plane.api.patch(f"/api/v1/nodes/{NODE}/status", room)
    rig.agents.offer(NODE, {GPU_RESOURCE: turns, PARTS: parts})
    rig.until("the agent sees the parts", lambda status: len(status["gpus"][3].get("migInstances", [])) == len(parts))
    yield rig
    clear(rig)
    plant.partition(NODE, 3, ())
    rig.agents.offer(NODE, {GPU_RESOURCE: plant.uuids(NODE)})


def test_who_shares_a_gpu_in_turns_or_in_parts_has_its_own_watts_too(shared: NodeRig) -> None:
    turns = {"turn-a": serve(shared, "turn-a", 1, 0.9), "turn-b": serve(shared, "turn-b", 1, 0.2)}
    parts = {"part-a": serve(shared, "part-a", 1, 0.9, PARTS), "part-b": serve(shared, "part-b", 1, 0.3, PARTS)}
    wanted = {**dict.fromkeys(turns, "Proportional"), **dict.fromkeys(parts, "Estimated")}

    def right(status: Object) -> bool:
        pods = readings(status)
        told = {name: pods.get(name, {}).get("attribution") for name in wanted}
        return told == wanted and all(close(shared, pods[name], uid, SHARED) for name, uid in (turns | parts).items())

    status = shared.until("who shares has its watts", right)
    together = status["idleWatts"] + sum(pod["watts"] for pod in status["pods"])
    assert together == pytest.approx(status["watts"], rel=0.01)
    assert [readings(status)[name].get("shared", False) for name in wanted] == [True, True, False, False]


def test_a_pod_that_is_gone_has_no_watts_and_its_gpu_is_credited(rig: NodeRig) -> None:
    serve(rig, "replica", 1, 0.9)
    rig.until("its watts", lambda status: readings(status).get("replica", {}).get("watts", 0) > 500)
    rig.plane.api.delete(f"{PODS}/replica")
    rig.until(
        "its watts are credited",
        lambda status: not status["pods"] and max(gpu["powerP95Watts"] for gpu in status["gpus"]) < 100,
        CREDIT_CEILING_SECONDS,
    )


def test_a_kubelet_that_hangs_leaves_out_every_pod_and_stops_no_figure(rig: NodeRig) -> None:
    serve(rig, "replica", 1, 0.9)
    before = rig.until("its watts", lambda status: readings(status).get("replica", {}).get("watts", 0) > 500)
    rig.agents.answer(NODE, HANGING)
    hung = rig.until("nobody knows whose watts", lambda status: status["podResources"] == "Unavailable")
    assert (hung["pods"], "idleWatts" in hung) == ([], False)
    assert hung["watts"] == pytest.approx(before["watts"], rel=0.1)
    rig.agents.answer(NODE, RIGHTLY)
    rig.until("the pod is listed again", lambda status: "replica" in readings(status))


def test_a_finished_pod_that_the_kubelet_still_lists_is_told_as_listed(rig: NodeRig) -> None:
    rig.agents.answer(NODE, WITH_FINISHED)
    serve(rig, "replica", 1, 0.9)
    rig.until("the pod is listed", lambda status: "replica" in readings(status))
    rig.plane.api.delete(f"{PODS}/replica")
    ended = rig.until("it draws nothing", lambda status: readings(status).get("replica", {}).get("watts", 999) < 100)
    assert readings(ended)["replica"]["attribution"] == "Exact"
