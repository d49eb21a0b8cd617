"""The status of a GPUNode as this agent writes it. A figure that is not known is left out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from penstock.agent.node import NodeObservation
from penstock.agent.nvml import Identity, Reading
from penstock.agent.sampler import Health, Observation

_MESSAGE_LENGTH = 1024


class GpuStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One GPU; fields as in `penstock.api.gpunode.GpuReading`."""

    uuid: str
    index: int
    health: Health
    product: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    power_watts: float | None = None
    power_p95_watts: float | None = None
    enforced_limit_watts: float | None = None
    enforced_limit_age_seconds: float | None = None
    maximum_limit_watts: float | None = None
    energy_joules: float | None = None
    activity_percent: float | None = None
    activity_source: str | None = None
    temperature_celsius: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    message: str = ""


class PodStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One pod's GPUs; fields as in `penstock.api.gpunode.PodReading`."""

    namespace: str
    name: str
    devices: tuple[str, ...] = ()
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
    limit = reading.enforced_limit_watts
    return GpuStatus(
        uuid=identity.uuid,
        index=observation.index,
        health=observation.health,
        product=identity.product,
        memory_total_bytes=identity.memory_total_bytes,
        memory_used_bytes=reading.memory_used_bytes,
        power_watts=_tenths(reading.power_watts),
        power_p95_watts=_tenths(observation.planned_watts),
        enforced_limit_watts=limit,
        enforced_limit_age_seconds=None if limit is None else _tenths(max(0.0, now - observation.taken_at)),
        maximum_limit_watts=identity.maximum_limit_watts,
        energy_joules=reading.energy_joules,
        activity_percent=_tenths(reading.activity_percent),
        activity_source=reading.activity_source,
        temperature_celsius=reading.temperature_celsius,
        throttle_reasons=reading.throttle_reasons,
        message=observation.message[:_MESSAGE_LENGTH],
    )


def node_watts(gpus: tuple[GpuStatus, ...]) -> float | None:
    """Sum over the GPUs that told their draw; None where none did."""
    draws = [gpu.power_watts for gpu in gpus if gpu.power_watts is not None]
    return round(sum(draws), 1) if draws else None


def verdict(observation: NodeObservation) -> Verdict:
    """Whether this node's telemetry can be used at all, in one sentence."""
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
