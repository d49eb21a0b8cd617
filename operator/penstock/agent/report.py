"""The status of a GPUNode as this agent writes it. A figure that is not known is left out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from penstock.agent.health import Health, Xid
from penstock.agent.node import NodeObservation
from penstock.agent.reading import Identity, MigReading, Reading, RemappedRows
from penstock.agent.sampler import Observation

_MESSAGE_LENGTH = 1024


class RemappedRowsStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    correctable: int = 0
    uncorrectable: int = 0
    pending: bool = False
    failed: bool = False


class XidStatus(msgspec.Struct, frozen=True):
    code: int
    at: str


class MigStatus(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    uuid: str
    profile: str = ""
    slices: int | None = None
    memory_total_bytes: int | None = None
    activity_percent: float | None = None


class PlatformStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Every field is written each time, as in the status itself."""

    chassis_serial: str
    slot: int | None
    tray: int | None
    host_id: int | None = msgspec.field(name="hostID")
    fabric_cluster: str
    fabric_clique: int | None


class GpuStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One GPU; fields as in `penstock.api.gpunode.GpuReading`."""

    uuid: str
    index: int
    health: Health
    product: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    power_watts: float | None = None
    power_scope: str | None = None
    power_p95_watts: float | None = None
    accounted_watts: float | None = None
    accounted_gap_percent: float | None = None
    requested_limit_watts: float | None = None
    enforced_limit_watts: float | None = None
    enforced_limit_age_seconds: float | None = None
    minimum_limit_watts: float | None = None
    default_limit_watts: float | None = None
    maximum_limit_watts: float | None = None
    energy_joules: float | None = None
    activity_percent: float | None = None
    activity_source: str | None = None
    tensor_activity_percent: float | None = None
    dram_activity_percent: float | None = None
    temperature_celsius: float | None = None
    thermal_margin_celsius: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    throttled_seconds: dict[str, float] = {}
    persistence_mode: bool | None = None
    mig_mode: bool | None = None
    mig_instances: tuple[MigStatus, ...] = ()
    fabric_state: str = ""
    recovery_action: str = ""
    uncorrectable_ecc_errors: int | None = None
    remapped_rows: RemappedRowsStatus | None = None
    xid_errors: tuple[XidStatus, ...] = ()
    message: str = ""


class PodStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One pod's GPUs; fields as in `penstock.api.gpunode.PodReading`."""

    namespace: str
    name: str
    devices: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    shared: bool = False
    watts: float | None = None
    energy_joules: float | None = None
    activity_percent: float | None = None
    attribution: str | None = None


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str


class GPUNodeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every field is written each time: in a merge patch a null takes away what an earlier report said."""

    heartbeat_seconds: float
    sequence: int
    sampled_at: str
    boot_id: str = msgspec.field(name="bootID")
    driver_version: str | None
    nvml_version: str | None
    platform: PlatformStatus | None = None
    watts: float | None
    gpu_count: int
    gpus: tuple[GpuStatus, ...]
    idle_watts: float | None = None
    pod_resources: str | None = None
    pods: tuple[PodStatus, ...] = ()
    unallocated_in_use: tuple[str, ...] = ()
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The Ready condition before it has a time."""

    status: str
    reason: str
    message: str


def gpu_status(observation: Observation, now: float) -> GpuStatus:
    """`now` in monotonic seconds, for the age of the limit."""
    reading = observation.reading or Reading()
    identity = observation.identity or Identity(f"unknown-{observation.index}", observation.index, "", None, None)
    accounted, state = observation.accounted, reading.state
    limit = reading.enforced_limit_watts
    return GpuStatus(
        uuid=identity.uuid,
        index=observation.index,
        health=observation.health,
        product=identity.product,
        memory_total_bytes=identity.memory_total_bytes,
        memory_used_bytes=reading.memory_used_bytes,
        power_watts=_tenths(reading.power_watts),
        power_scope=reading.power_scope,
        power_p95_watts=_tenths(observation.planned_watts),
        accounted_watts=_tenths(accounted.watts if accounted else None),
        accounted_gap_percent=_tenths(accounted.gap_percent if accounted else None),
        requested_limit_watts=reading.requested_limit_watts,
        enforced_limit_watts=limit,
        enforced_limit_age_seconds=None if limit is None else _tenths(max(0.0, now - observation.taken_at)),
        minimum_limit_watts=identity.minimum_limit_watts,
        default_limit_watts=identity.default_limit_watts,
        maximum_limit_watts=identity.maximum_limit_watts,
        energy_joules=reading.energy_joules,
        activity_percent=_tenths(reading.activity_percent),
        activity_source=reading.activity_source,
        tensor_activity_percent=_tenths(reading.tensor_activity_percent),
        dram_activity_percent=_tenths(reading.dram_activity_percent),
        temperature_celsius=reading.temperature_celsius,
        thermal_margin_celsius=reading.thermal_margin_celsius,
        throttle_reasons=reading.throttle_reasons,
        throttled_seconds={reason: round(seconds, 1) for reason, seconds in reading.throttled_seconds},
        persistence_mode=state.persistence_mode,
        mig_mode=state.mig_mode,
        mig_instances=tuple(_mig(device) for device in reading.mig_instances),
        fabric_state=state.fabric_state,
        recovery_action=reading.recovery,
        uncorrectable_ecc_errors=state.uncorrectable_ecc_errors,
        remapped_rows=_rows(state.remapped_rows),
        xid_errors=tuple(_xid(xid) for xid in observation.xids),
        message=observation.message[:_MESSAGE_LENGTH],
    )


def _mig(device: MigReading) -> MigStatus:
    return MigStatus(
        device.uuid, device.profile, device.slices, device.memory_total_bytes, _tenths(device.activity_percent)
    )


def _rows(rows: RemappedRows | None) -> RemappedRowsStatus | None:
    if rows is None:
        return None
    return RemappedRowsStatus(rows.correctable, rows.uncorrectable, rows.pending, rows.failed)


def _xid(xid: Xid) -> XidStatus:
    return XidStatus(xid.code, timestamp(xid.at))


def node_platform(gpus: tuple[Observation, ...]) -> PlatformStatus | None:
    """Where the node is, by the first of its GPUs that knows; None where none does."""
    places = (gpu.reading.state.place for gpu in gpus if gpu.reading)
    place = next((place for place in places if place), None)
    if place is None:
        return None
    return PlatformStatus(
        chassis_serial=place.chassis_serial,
        slot=place.slot,
        tray=place.tray,
        host_id=place.host_id,
        fabric_cluster=place.fabric_cluster,
        fabric_clique=place.fabric_clique,
    )


def node_watts(gpus: tuple[GpuStatus, ...]) -> float | None:
    """Sum over the GPUs that told their draw; None where none did."""
    draws = [gpu.power_watts for gpu in gpus if gpu.power_watts is not None]
    return round(sum(draws), 1) if draws else None


def verdict(observation: NodeObservation) -> Verdict:
    """Whether this node's telemetry can be used at all, in one sentence."""
    if observation.paused:
        return Verdict("False", "Paused", observation.fault[:_MESSAGE_LENGTH])
    if observation.fault:
        return Verdict("False", "NVMLUnavailable", observation.fault[:_MESSAGE_LENGTH])
    if not observation.gpus:
        return Verdict("False", "NoGPUs", "NVML finds no GPU on this node")
    faulty = [gpu for gpu in observation.gpus if gpu.health is not Health.HEALTHY]
    if not faulty:
        return Verdict("True", "Sampling", f"{len(observation.gpus)} of {len(observation.gpus)} GPUs are healthy")
    first = faulty[0]
    message = f"{len(faulty)} of {len(observation.gpus)} GPUs are not healthy; GPU {first.index}: {first.health}"
    return Verdict("False" if len(faulty) == len(observation.gpus) else "True", "GPUsUnhealthy", message)


def encode(status: GPUNodeStatus) -> bytes:
    """The merge patch for the `/status` subresource."""
    return msgspec.json.encode({"status": status})


def timestamp(wall: datetime) -> str:
    """RFC 3339 with milliseconds, from an aware time in UTC."""
    return wall.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_document(status: GPUNodeStatus) -> Any:
    """Plain values, for a person to read."""
    return msgspec.to_builtins(status)


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
