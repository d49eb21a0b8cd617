"""ResourceClaims of Dynamic Resource Allocation as they come over the wire: what the planner reads of them."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from penstock.api.names import EXTENDED_RESOURCE_CLAIM_ANNOTATION


class ClaimAnnotations(Struct, gc=False, rename={"extended": EXTENDED_RESOURCE_CLAIM_ANNOTATION}):
    extended: str = ""


class ClaimMetadata(Struct, gc=False):
    name: str = ""
    namespace: str = ""
    annotations: ClaimAnnotations | None = None


class GrantedDevice(Struct, gc=False):
    driver: str = ""
    device: str = ""
    adminAccess: bool | None = None


class GrantedDevices(Struct, gc=False):
    results: list[GrantedDevice] | None = None


class Allocation(Struct, gc=False):
    devices: GrantedDevices = msgspec.field(default_factory=GrantedDevices)


class Consumer(Struct, gc=False):
    apiGroup: str = ""
    resource: str = ""
    uid: str = ""


class ClaimStatus(Struct, gc=False):
    allocation: Allocation | None = None
    reservedFor: list[Consumer] | None = None


class ResourceClaim(Struct, gc=False):
    metadata: ClaimMetadata
    status: ClaimStatus | None = None
