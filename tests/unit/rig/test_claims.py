"""What claims were granted, as the simulated kubelet lists it and the plant loads it."""

from __future__ import annotations

from typing import Any

from penstock.agent.podresources import Allocation, Device, PodName, allocations
from rig.claims import DRIVER, Grants
from rig.podresources import NodeDevices

GPU = "nvidia.com/gpu"
UUIDS = ["GPU-a", "GPU-b", "GPU-c"]


def pod(uid: str, claim: str = "", gpus: int = 0) -> dict[str, Any]:
    """A pod whose claim was made from a template."""
    container = {"name": "server", "resources": {"limits": {GPU: str(gpus)}}}
    spec: dict[str, Any] = {"containers": [container]}
    statuses = []
    if claim:
        spec["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
        statuses = [{"name": "gpu", "resourceClaimName": claim}]
    metadata = {"uid": uid, "namespace": "search", "name": f"pod-{uid}"}
    return {"metadata": metadata, "spec": spec, "status": {"resourceClaimStatuses": statuses}}


def claim(name: str, device: str, uid: str, driver: str = DRIVER) -> dict[str, Any]:
    results = [{"driver": driver, "device": device}]
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": [{"resource": "pods", "uid": uid}]}
    return {"metadata": {"namespace": "search", "name": name}, "status": status}


def node(grants: Grants) -> NodeDevices:
    claimable = {f"gpu-{minor}": uuid for minor, uuid in enumerate(UUIDS)}
    return NodeDevices({GPU: UUIDS}, claimable=claimable, grants=grants)


def test_a_pod_is_listed_with_the_devices_of_its_claim_as_the_agent_reads_them() -> None:
    grants = Grants()
    devices = node(grants)
    assert devices.give(pod("1", "claim-1"))
    assert devices.holders() == {"1": []}
    assert list(grants.see("ADDED", claim("claim-1", "gpu-1", "1"))) == ["1"]
    assert devices.holders() == {"1": ["GPU-b"]}
    found = allocations(devices.listed("gpu-0"))
    assert found == (Allocation(PodName("search", "pod-1"), (Device(minor=1),), ("search/claim-1",)),)


def test_the_device_plugin_gives_out_last_what_a_claim_holds() -> None:
    grants = Grants()
    devices = node(grants)
    devices.give(pod("1", "claim-1"))
    list(grants.see("LISTED", {"items": [claim("claim-1", "gpu-0", "1")]}))
    devices.give(pod("2", gpus=2))
    assert devices.holders() == {"1": ["GPU-a"], "2": ["GPU-b", "GPU-c"]}


def test_a_claim_that_is_gone_or_another_drivers_holds_nothing() -> None:
    grants = Grants()
    list(grants.see("ADDED", claim("claim-1", "gpu-0", "1")))
    list(grants.see("DELETED", claim("claim-1", "gpu-0", "1")))
    list(grants.see("ADDED", claim("claim-2", "gpu-1", "1", driver="gpu.example.com")))
    assert grants.listed("gpu-0", "search", ["claim-1", "claim-2", "claim-3"]) == []
