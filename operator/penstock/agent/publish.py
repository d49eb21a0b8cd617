"""When to publish: at once where something changed that a placement depends on, else at the heartbeat."""

from __future__ import annotations

from penstock.agent.report import Condition, GPUNodeStatus, GpuStatus
from penstock.agent.window import held

LEAST_PAUSE_SECONDS = 1.0
POWER_CHANGE = 0.05
ACTIVITY_CHANGE_PERCENT = 20.0
MEMORY_CHANGE = 0.05
HEARTBEAT_JITTER = 0.2
ALARMS = frozenset({"HwPowerBrake", "HwSlowdown", "HwThermalSlowdown"})
"""Reasons to slow down that the hardware has and that seldom come and go: a facility's emergency is one of them."""


def heartbeat_due_seconds(heartbeat_seconds: float, chance: float) -> float:
    """Pause until the next heartbeat: 80 to 100 % of the stated one by `chance` in [0, 1), so never later than it."""
    return heartbeat_seconds * (1 - HEARTBEAT_JITTER * chance)


def publish_reason(
    last: GPUNodeStatus | None, now: GPUNodeStatus, since_seconds: float, due_seconds: float
) -> str | None:
    """Why to publish `now`, `since_seconds` after `last` went out; None to wait. Never twice within a second."""
    if last is None:
        return "first"
    if since_seconds < LEAST_PAUSE_SECONDS:
        return None
    if since_seconds >= due_seconds:
        return "heartbeat"
    return _change(last, now)


def _change(last: GPUNodeStatus, now: GPUNodeStatus) -> str | None:
    if [_facts(gpu) for gpu in last.gpus] != [_facts(gpu) for gpu in now.gpus]:
        return "GPUs, their health or their limits changed"
    if [_told(condition) for condition in last.conditions] != [_told(condition) for condition in now.conditions]:
        return "readiness changed"
    if _holdings(last) != _holdings(now):
        return "pods on GPUs changed"
    if _differs(last.watts, now.watts) or _differs(_planned(last), _planned(now)):
        return "power changed"
    if any(_load_differs(before, after) for before, after in zip(last.gpus, now.gpus, strict=True)):
        return "load changed"
    return None


def _told(condition: Condition) -> tuple[str, str]:
    """Where the node is not ready, the sentence too: whether the devices were let go is somebody's to act on."""
    return condition.reason, "" if condition.status == "True" else condition.message


def _facts(gpu: GpuStatus) -> tuple[object, ...]:
    """What holds until something happens, and which figures are there at all."""
    told = (gpu.power_watts, gpu.memory_used_bytes, gpu.activity_percent, gpu.temperature_celsius)
    return (
        *(gpu.uuid, gpu.index, gpu.product, gpu.health, gpu.xid_errors, ALARMS.intersection(gpu.throttle_reasons)),
        *(gpu.requested_limit_watts, gpu.enforced_limit_watts, gpu.maximum_limit_watts, gpu.persistence_mode),
        *(gpu.mig_mode, [device.uuid for device in gpu.mig_instances], gpu.fabric_state, gpu.power_scope),
        *(gpu.activity_source, gpu.accounted_gap_percent is None, *(figure is None for figure in told)),
    )


def _holdings(status: GPUNodeStatus) -> tuple[object, ...]:
    """Who holds what, and what works without a pod."""
    pods = tuple((pod.namespace, pod.name, pod.devices) for pod in status.pods)
    return status.pod_resources, pods, status.unallocated_in_use


def _planned(status: GPUNodeStatus) -> float:
    return sum(gpu.power_p95_watts or 0.0 for gpu in status.gpus)


def _differs(last: float | None, now: float | None) -> bool:
    if last is None or now is None:
        return last is not now
    return abs(now - last) > POWER_CHANGE * max(last, 1.0)


def _load_differs(last: GpuStatus, now: GpuStatus) -> bool:
    if held(last.memory_used_bytes, last.activity_percent) != held(now.memory_used_bytes, now.activity_percent):
        return True
    activity = abs((now.activity_percent or 0.0) - (last.activity_percent or 0.0))
    memory = abs((now.memory_used_bytes or 0) - (last.memory_used_bytes or 0))
    return activity >= ACTIVITY_CHANGE_PERCENT or memory > MEMORY_CHANGE * (now.memory_total_bytes or float("inf"))
