"""GPUNodes as they come over the wire: what agents and cappers report, and what is asked of them."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from penstock.cluster.wire import Metadata, NodeCondition


class ManagedField(Struct, gc=False):
    manager: str = ""
    time: datetime | None = None
    subresource: str = ""


class WrittenMetadata(Metadata, gc=False):
    """Metadata with the API server's own record of who wrote when."""

    managedFields: list[ManagedField] | None = None


class MigInstance(Struct, gc=False):
    uuid: str = ""
    profile: str = ""
    slices: int | None = None


class Gpu(Struct, gc=False):
    uuid: str = ""
    index: int = 0
    product: str = ""
    memoryTotalBytes: int = 0
    memoryUsedBytes: int = 0
    powerWatts: float | None = None
    powerP95Watts: float | None = None
    accountedWatts: float | None = None
    enforcedLimitWatts: float | None = None
    enforcedLimitAgeSeconds: float | None = None
    requestedLimitWatts: float | None = None
    minimumLimitWatts: float | None = None
    defaultLimitWatts: float | None = None
    maximumLimitWatts: float | None = None
    energyJoules: float | None = None
    activityPercent: float | None = None
    temperatureCelsius: float | None = None
    thermalMarginCelsius: float | None = None
    throttleReasons: list[str] | None = None
    migMode: bool | None = None
    migInstances: list[MigInstance] | None = None
    health: str = ""
    message: str = ""


class Platform(Struct, gc=False):
    chassisSerial: str = ""
    slot: int | None = None
    tray: int | None = None
    hostID: int | None = None
    fabricCluster: str = ""
    fabricClique: int | None = None


class PodReading(Struct, gc=False):
    namespace: str = ""
    name: str = ""
    devices: list[str] | None = None
    claims: list[str] | None = None
    shared: bool = False
    watts: float | None = None
    activityPercent: float | None = None
    attribution: str = ""


class CappedGpu(Struct, gc=False):
    uuid: str = ""
    outcome: str = ""
    reason: str = ""
    podUID: str = ""
    baselineWatts: float | None = None


class CapperStatus(Struct, gc=False):
    mode: str = ""
    sequence: int = 0
    heartbeatSeconds: float = 0.0
    gpus: list[CappedGpu] | None = None


class PlaceStatus(Struct, gc=False):
    conditions: list[NodeCondition] | None = None


class GpuNodeStatus(Struct, gc=False):
    heartbeatSeconds: float = 0.0
    sequence: int = 0
    sampledAt: str = ""
    """Read where the report is judged: an agent may write what the API server takes for a time and nobody else does."""
    platform: Platform | None = None
    gpus: list[Gpu] | None = None
    podResources: str = ""
    pods: list[PodReading] | None = None
    unallocatedInUse: list[str] | None = None
    capper: CapperStatus | None = None
    place: PlaceStatus | None = None


class Cap(Struct, gc=False):
    uuid: str = ""
    watts: float = 0.0
    namespace: str = ""
    pod: str = ""
    podUID: str = ""


class GpuNodeSpec(Struct, gc=False):
    caps: list[Cap] | None = None


class GpuNode(Struct, gc=False):
    metadata: WrittenMetadata
    spec: GpuNodeSpec | None = None
    status: GpuNodeStatus | None = None
