"""ResourceClaims: the GPUs that Dynamic Resource Allocation gave out, which no pod's requests show."""

from __future__ import annotations

import re

import msgspec

from penstock.cluster import wire_claims as wire
from penstock.cluster.objects import ResourceClaim

GPU_DRIVER = "gpu.nvidia.com"
_PART = re.compile(r"(gpu-\d+)-mig-.+")
"""NVIDIA's driver names a GPU `gpu-3`, and a part of it `gpu-3-mig-…`."""

decode_claim = msgspec.json.Decoder(wire.ResourceClaim).decode


def resource_claim(seen: wire.ResourceClaim) -> ResourceClaim:
    """What a claim holds, and for which pods. A part of a GPU takes all of it from whoever wants a whole one.

    Admin access looks at a device and holds nothing. A claim that kube-scheduler made for an extended resource says
    what the pod's requests say already.
    """
    status = seen.status or wire.ClaimStatus()
    granted = status.allocation.devices.results if status.allocation else None
    gpus = frozenset(
        found[1] if (found := _PART.fullmatch(one.device)) else one.device
        for one in granted or ()
        if one.driver == GPU_DRIVER and not one.adminAccess
    )
    notes = seen.metadata.annotations
    asked_by_requests = notes is not None and notes.extended == "true"
    return ResourceClaim(
        key=f"{seen.metadata.namespace}/{seen.metadata.name}",
        gpus=frozenset() if asked_by_requests else gpus,
        pods=frozenset(one.uid for one in status.reservedFor or () if one.resource == "pods" and not one.apiGroup),
    )
