"""GPUNode: what one node's own agent reads from NVML. A figure that NVML does not support is left out."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.api.meta import (
    AGE,
    AS_SET,
    Bytes,
    Column,
    Conditions,
    Count,
    Kind,
    Model,
    Name,
    Resource,
    Sentence,
    Time,
    Watts,
    Word,
    condition_column,
    keyed_by,
)
from penstock.api.names import LONGEST_HEARTBEAT_SECONDS

NO_SECONDS: dict[str, float] = {}
GpuUuid = Annotated[str, Field(min_length=1, max_length=96)]
ClaimName = Annotated[str, Field(min_length=1, max_length=317)]
Percent = Annotated[float, Field(ge=0, le=100)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]


class RemappedRows(Model):
    """Memory rows that the GPU replaced by spare ones."""

    correctable: Count = 0
    uncorrectable: Count = 0
    pending: bool = False
    """Waits for a reset of the GPU."""
    failed: bool = False
    """No spare row was left: the GPU has to be exchanged."""


class XidError(Model):
    """One error that the driver reported by an NVML event."""

    code: Annotated[int, Field(ge=0, le=100_000)]
    at: Time
    """By the node's own clock."""


class MigInstance(Model):
    """One MIG device of a GPU."""

    uuid: GpuUuid
    profile: Word = ""
    """NVML's name, such as `1g.18gb`."""
    slices: Annotated[int, Field(ge=0, le=16)] | None = None
    """Compute slices, of the seven that a GPU has."""
    memory_total_bytes: Bytes | None = None
    activity_percent: Percent | None = None
    """Share of its own SMs that were busy."""


class GpuReading(Model):
    """One GPU."""

    uuid: GpuUuid
    index: Annotated[int, Field(ge=0, le=1023)]
    product: Word = ""
    """NVML's name in GPU Feature Discovery's spelling, such as `NVIDIA-H200`."""
    memory_total_bytes: Bytes | None = None
    memory_used_bytes: Bytes | None = None
    power_watts: Watts | None = None
    """Now: NVML's mean over a second."""
    power_scope: Literal["GPU", "Module"] | None = None
    """What the watts cover. Module: the chip has no scope of its own (Grace-Hopper), so CPU and memory are in it."""
    power_p95_watts: Watts | None = None
    """Planned: 95th percentile over five minutes."""
    accounted_watts: Watts | None = None
    """For billing: the energy counter's rise over the last minute; where the integral of `powerWatts` contradicts it,
    the larger of the two."""
    accounted_gap_percent: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """How far the energy counter and the integral of `powerWatts` are apart, of the larger one. Left out up to 15;
    above, one of the two is wrong."""
    requested_limit_watts: Watts | None = None
    """The cap that somebody set last."""
    enforced_limit_watts: Watts | None = None
    """The cap in force, as read back from the driver. Below the requested one: somebody else caps too."""
    enforced_limit_age_seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """How long before publishing the cap was read back."""
    minimum_limit_watts: Watts | None = None
    default_limit_watts: Watts | None = None
    maximum_limit_watts: Watts | None = None
    """The highest cap that the device takes."""
    energy_joules: Annotated[float, Field(ge=0, le=1e18)] | None = None
    """Counter since the driver was loaded; may restart at zero."""
    activity_percent: Percent | None = None
    activity_source: Literal["GPM", "Utilization"] | None = None
    """GPM: share of SMs that were busy. Utilization: share of time in which any kernel ran."""
    tensor_activity_percent: Percent | None = None
    dram_activity_percent: Percent | None = None
    temperature_celsius: Annotated[float, Field(ge=-273.15, le=1000)] | None = None
    thermal_margin_celsius: Annotated[float, Field(ge=-1000, le=1000)] | None = None
    """How much hotter it may become before it slows down."""
    throttle_reasons: Annotated[tuple[Word, ...], Field(max_length=32)] = ()
    throttled_seconds: Annotated[dict[str, Seconds], Field(max_length=16)] = NO_SECONDS
    """Counters since the driver was loaded, by reason."""
    persistence_mode: bool | None = None
    mig_instances: Annotated[tuple[MigInstance, ...], Field(max_length=16, json_schema_extra=keyed_by("uuid"))] = ()
    mig_mode: bool | None = None
    fabric_state: Word = ""
    recovery_action: Word = ""
    """What NVML says has to be done: `GPUReset`, `NodeReboot`, `DrainP2P`, `DrainAndReset`, `RecoverIMEXDomain`,
    `BusReset` or `SystemReboot`; empty: nothing."""
    uncorrectable_ecc_errors: Annotated[int, Field(ge=0, le=2**53)] | None = None
    remapped_rows: RemappedRows | None = None
    xid_errors: Annotated[tuple[XidError, ...], Field(max_length=8)] = ()
    """The latest since the GPU was last reset, newest first. Those of programs (13, 31, 43, 45, 68, 109) are held
    against no GPU."""
    health: Literal["Healthy", "Lost", "Unresponsive", "NeedsReset", "Failed"] = "Healthy"
    message: Sentence = ""


class PodReading(Model):
    """What one pod's GPUs do, by the kubelet's word on which are its own. Finished pods may be among them."""

    namespace: Word
    name: Name
    devices: Annotated[tuple[GpuUuid, ...], Field(max_length=64, json_schema_extra=AS_SET)] = ()
    """UUIDs of GPUs and MIG devices."""
    claims: Annotated[tuple[ClaimName, ...], Field(max_length=64, json_schema_extra=AS_SET)] = ()
    """The ResourceClaims, `namespace/name`, through which it holds some of them."""
    shared: bool = False
    """Whether others hold one of them too, by time-slicing or MPS."""
    watts: Watts | None = None
    energy_joules: Annotated[float, Field(ge=0, le=1e18)] | None = None
    """Since the agent first saw the pod."""
    activity_percent: Percent | None = None
    attribution: Literal["Exact", "Proportional", "Estimated"] | None = None
    """Exact: whole GPUs of its own. Proportional: its share of a shared GPU. Estimated: by the size of its slice."""


class Platform(Model):
    """Where the node is in its rack, as NVML tells it."""

    chassis_serial: Word = ""
    slot: Annotated[int, Field(ge=0, le=255)] | None = None
    tray: Annotated[int, Field(ge=0, le=255)] | None = None
    host_id: Annotated[int, Field(ge=0, le=255)] | None = None
    fabric_cluster: Annotated[str, Field(max_length=64)] = ""
    fabric_clique: Annotated[int, Field(ge=0, le=2**32)] | None = None


class Cap(Model):
    """One power limit that is asked for."""

    uuid: GpuUuid
    watts: Annotated[float, Field(gt=0, le=1e6)]
    namespace: Word
    pod: Name
    """The pod whose GPU it is: the cap ends with it."""
    pod_uid: Word


class GPUNodeSpec(Model):
    """What the operator asks of the node. Written by nobody else."""

    caps: Annotated[tuple[Cap, ...], Field(max_length=64, json_schema_extra=keyed_by("uuid"))] = ()
    """Power limits for the capper, where one runs. A GPU without an entry gets its baseline back."""
    caps_fence: Annotated[str, Field(max_length=320)] = ""
    """The leader's fence, as each lift carries it."""
    caps_at: Time | None = None
    """When the operator last said so; renewed while there are caps, for without its word no limit is raised."""
    caps_urgent: bool = False
    """An emergency: limits are set at once, whatever pace the capper keeps otherwise."""


class CappedGpu(Model):
    """What became of one power limit."""

    uuid: GpuUuid
    requested_watts: Watts | None = None
    enforced_watts: Watts | None = None
    """As read back after setting it."""
    baseline_watts: Watts | None = None
    """The limit before our first; never passed by ours, and given back at the end."""
    outcome: Literal["Applied", "Restored", "Refused", "HandsOff", "Observed", "Waiting"]
    """HandsOff: somebody else sets this limit. Observed: what would be done. Waiting: for its turn."""
    reason: Word = ""
    """Such as `NotSupported`, `NoPermission`, `NotApplied`, `ForeignLimit`, `NoPersistenceMode`."""
    pod_uid: Word = ""
    """The pod for whose sake."""
    message: Sentence = ""
    since: Time | None = None


class CapperReading(Model):
    """The capper's own report; no other process writes it."""

    mode: Literal["Observe", "Enforce", "Off"]
    sequence: Annotated[int, Field(ge=0, le=2**53)]
    heartbeat_seconds: Annotated[float, Field(gt=0, le=LONGEST_HEARTBEAT_SECONDS)]
    gpus: Annotated[tuple[CappedGpu, ...], Field(max_length=64, json_schema_extra=keyed_by("uuid"))] = ()
    message: Sentence = ""


class PlaceReading(Model):
    """What the operator doubts of the node's place; nobody else writes it."""

    conditions: Conditions = ()
    """`PlaceDisputed`, `PlaceUnsteady` and `PlaceUnreadable`, each only while it is so."""


class GPUNodeStatus(Model):
    """The agent's report. Fresh for three heartbeats after `sequence` last rose."""

    heartbeat_seconds: Annotated[float, Field(gt=0, le=LONGEST_HEARTBEAT_SECONDS)] | None = None
    sequence: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """Rises by at least one with each publish; starts from Unix seconds, so that a restart never falls back."""
    sampled_at: Time | None = None
    """By the node's own clock; shown, never compared."""
    boot_id: Annotated[str, Field(max_length=64)] | None = None
    driver_version: Word | None = None
    nvml_version: Word | None = None
    platform: Platform | None = None
    watts: Watts | None = None
    """Of all GPUs together, now."""
    idle_watts: Watts | None = None
    """Of the GPUs that no pod holds."""
    gpu_count: Count | None = None
    gpus: Annotated[tuple[GpuReading, ...], Field(max_length=64, json_schema_extra=keyed_by("uuid"))] = ()
    pod_resources: Literal["Read", "Unavailable"] | None = None
    """Whether `pods` can be believed: the kubelet's PodResources answered within its deadline."""
    pods: Annotated[tuple[PodReading, ...], Field(max_length=512, json_schema_extra=keyed_by("namespace", "name"))] = ()
    unallocated_in_use: Annotated[tuple[GpuUuid, ...], Field(max_length=64, json_schema_extra=AS_SET)] = ()
    """GPUs that work or hold memory though no pod holds them."""
    capper: CapperReading | None = None
    place: PlaceReading | None = None
    conditions: Conditions = ()


class GPUNode(Resource):
    """What one node's own agent reads from NVML. Its name is the node's name, and it goes when its Node goes."""

    definition: ClassVar[Kind] = Kind(
        kind="GPUNode",
        plural="gpunodes",
        short_names=("gpun",),
        scope="Cluster",
        columns=(
            Column("GPUs", ".status.gpuCount", "integer"),
            Column("Watts", ".status.watts", "number"),
            Column("Product", ".status.gpus[0].product"),
            condition_column("Health", "Ready"),
            Column("Heard", ".status.sampledAt", "date"),
            AGE,
            Column("Limit", ".status.gpus[0].enforcedLimitWatts", "number", wide=True),
            Column("Driver", ".status.driverVersion", wide=True),
            Column("Doubt", ".status.place.conditions[0].type", wide=True),
            condition_column("Message", "Ready", "message", wide=True),
        ),
    )

    spec: GPUNodeSpec | None = None
    status: GPUNodeStatus | None = None
