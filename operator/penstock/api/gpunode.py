"""GPUNode: what one node's own agent reads from NVML. A figure that NVML does not support is left out."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.api.meta import (
    AGE,
    Bytes,
    Column,
    Conditions,
    Count,
    Kind,
    Model,
    Resource,
    Sentence,
    Time,
    Watts,
    Word,
    condition_column,
    keyed_by,
)


class GpuReading(Model):
    """One GPU."""

    uuid: Annotated[str, Field(min_length=1, max_length=96)]
    index: Annotated[int, Field(ge=0, le=1023)]
    product: Word = ""
    """NVML's name in GPU Feature Discovery's spelling, such as `NVIDIA-H200`."""
    memory_total_bytes: Bytes | None = None
    memory_used_bytes: Bytes | None = None
    power_watts: Watts | None = None
    power_p95_watts: Watts | None = None
    """95th percentile over five minutes."""
    enforced_limit_watts: Watts | None = None
    """The cap in force, as read back from the driver."""
    enforced_limit_age_seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """How long before publishing the cap was read back."""
    maximum_limit_watts: Watts | None = None
    """The highest cap that the device takes."""
    energy_joules: Annotated[float, Field(ge=0, le=1e18)] | None = None
    """Counter since the driver was loaded; may restart at zero."""
    activity_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    activity_source: Literal["GPM", "Utilization"] | None = None
    """GPM: share of SMs that were busy. Utilization: share of time in which any kernel ran."""
    temperature_celsius: Annotated[float, Field(ge=-273.15, le=1000)] | None = None
    throttle_reasons: Annotated[tuple[Word, ...], Field(max_length=32)] = ()
    health: Literal["Healthy", "Lost", "Unresponsive", "NeedsReset"] = "Healthy"
    message: Sentence = ""


class GPUNodeSpec(Model):
    """Nothing is asked of a node yet."""


class GPUNodeStatus(Model):
    """The agent's report. Fresh for three heartbeats after `sequence` last rose."""

    heartbeat_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    sequence: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """Rises by at least one with each publish; starts from Unix seconds, so that a restart never falls back."""
    sampled_at: Time | None = None
    """By the node's own clock; shown, never compared."""
    boot_id: Annotated[str, Field(max_length=64)] | None = None
    driver_version: Word | None = None
    nvml_version: Word | None = None
    watts: Watts | None = None
    """Of all GPUs together, now."""
    gpu_count: Count | None = None
    gpus: Annotated[tuple[GpuReading, ...], Field(max_length=64, json_schema_extra=keyed_by("uuid"))] = ()
    conditions: Conditions = ()


class GPUNode(Resource):
    """What one node's own agent reads from NVML. Its name is the node's name."""

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
            condition_column("Message", "Ready", "message", wide=True),
        ),
    )

    spec: GPUNodeSpec | None = None
    status: GPUNodeStatus | None = None
