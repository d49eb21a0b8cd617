"""Which GPUs a ResourceClaim holds, as kube-scheduler writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from penstock.cluster.objects import ResourceClaim
from penstock.cluster.parse.claims import decode_claim, resource_claim

Object = Mapping[str, Any]
POD = {"resource": "pods", "name": "trainer", "uid": "u"}


def granted(device: str, driver: str = "gpu.nvidia.com", **more: Any) -> Object:
    return {"request": "gpu", "driver": driver, "pool": "gpu-1", "device": device, **more}


def held(*results: Object, consumer: Object = POD, annotations: Mapping[str, str] | None = None) -> ResourceClaim:
    metadata = {"name": "claim", "namespace": "ml", "annotations": annotations}
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": [consumer]}
    return resource_claim(decode_claim(msgspec.json.encode({"metadata": metadata, "status": status})))


HELD: dict[str, tuple[tuple[Object, ...], frozenset[str]]] = {
    "a GPU": ((granted("gpu-3"),), frozenset({"gpu-3"})),
    "two of them": ((granted("gpu-3"), granted("gpu-0")), frozenset({"gpu-0", "gpu-3"})),
    "a part takes the whole": ((granted("gpu-3-mig-9-0-4"),), frozenset({"gpu-3"})),
    "two parts of one GPU": ((granted("gpu-3-mig-9-0-4"), granted("gpu-3-mig-1g18gb-19-4")), frozenset({"gpu-3"})),
    "one that a virtual machine has": ((granted("gpu-vfio-0"),), frozenset({"gpu-vfio-0"})),
    "who only looks holds nothing": ((granted("gpu-3", adminAccess=True),), frozenset()),
    "another driver's device": ((granted("channel-0", "compute-domain.nvidia.com"),), frozenset()),
    "nothing yet": ((), frozenset()),
}


@pytest.mark.parametrize(("results", "gpus"), HELD.values(), ids=HELD.keys())
def test_what_a_claim_holds(results: tuple[Object, ...], gpus: frozenset[str]) -> None:
    assert held(*results) == ResourceClaim("ml/claim", gpus, frozenset({"u"}))


def test_a_claim_that_stands_for_a_request_counts_with_the_request() -> None:
    extended = {"resource.kubernetes.io/extended-resource-claim": "true", "other": "note"}
    assert held(granted("gpu-3"), annotations=extended).gpus == frozenset()


def test_what_is_reserved_for_no_pod_is_nobodys() -> None:
    other = {"apiGroup": "scheduling.k8s.io", "resource": "podgroups", "name": "gang", "uid": "g"}
    assert held(granted("gpu-3"), consumer=other).pods == frozenset()


def test_a_claim_without_a_status_holds_nothing() -> None:
    bare = decode_claim(b'{"metadata": {"name": "claim", "namespace": "ml"}}')
    assert resource_claim(bare) == ResourceClaim("ml/claim", frozenset(), frozenset())
