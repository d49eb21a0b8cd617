"""The simulated kubelet's devices: who gets which, and what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rig.podresources import WITH_FINISHED, NodeDevices, socket_path

GPU = "nvidia.com/gpu"


def pod(uid: str, gpus: int = 1, resource: str = GPU) -> dict[str, Any]:
    container = {"name": "server", "resources": {"limits": {resource: str(gpus)}}}
    return {"metadata": {"uid": uid, "namespace": "search", "name": f"pod-{uid}"}, "spec": {"containers": [container]}}


def listed(devices: NodeDevices) -> dict[str, list[str]]:
    return {
        one.name: [each for container in one.containers for given in container.devices for each in given.device_ids]
        for one in devices.listed().pod_resources
    }


def test_each_pod_gets_devices_that_nobody_else_has_and_keeps_them() -> None:
    devices = NodeDevices({GPU: ["GPU-a", "GPU-b", "GPU-c"]})
    assert devices.give(pod("1", 2))
    assert devices.give(pod("2"))
    assert not devices.give(pod("1", 2))
    assert listed(devices) == {"pod-1": ["GPU-a", "GPU-b"], "pod-2": ["GPU-c"]}


def test_a_pod_that_asks_for_none_gets_none() -> None:
    devices = NodeDevices({GPU: ["GPU-a"]})
    assert not devices.give(pod("1", 1, "example.com/other"))
    assert listed(devices) == {}


def test_what_a_pod_leaves_is_given_again() -> None:
    devices = NodeDevices({GPU: ["GPU-a"]})
    devices.give(pod("1"))
    assert devices.take_back("1")
    assert not devices.take_back("1")
    devices.give(pod("2"))
    assert listed(devices) == {"pod-2": ["GPU-a"]}


def test_a_finished_pod_may_be_listed_though_another_has_its_device() -> None:
    devices = NodeDevices({GPU: ["GPU-a"]}, answers=WITH_FINISHED)
    devices.give(pod("1"))
    devices.take_back("1")
    devices.give(pod("2"))
    assert listed(devices) == {"pod-1": ["GPU-a"], "pod-2": ["GPU-a"]}
    assert devices.holders() == {"2": ["GPU-a"]}


def test_time_slices_are_spread_over_the_gpus() -> None:
    devices = NodeDevices({GPU: ["GPU-a::0", "GPU-a::1", "GPU-b::0", "GPU-b::1"]})
    for uid in "123":
        devices.give(pod(uid))
    assert listed(devices) == {"pod-1": ["GPU-a::0"], "pod-2": ["GPU-b::0"], "pod-3": ["GPU-a::1"]}
    assert devices.holders() == {"1": ["GPU-a"], "2": ["GPU-b"], "3": ["GPU-a"]}


def test_a_socket_is_named_for_its_node() -> None:
    assert socket_path(Path("/run"), "gpu-0") == Path("/run/kubelet/gpu-0.sock")
