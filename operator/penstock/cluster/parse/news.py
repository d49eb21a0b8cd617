"""Which GPUNode reports are news: a planner that wakes for every joule never sleeps."""

from __future__ import annotations

from penstock.core.health import is_hot
from penstock.core.model import Gpu, Telemetry
from penstock.core.placement.evidence import HEARTBEATS_UNTIL_STALE


def is_news(known: Telemetry, new: Telemetry) -> bool:
    """Whether a report differs in anything that a decision could turn on; energy and a watt or a degree do not."""
    if known.contradiction != new.contradiction or known.heartbeat_seconds != new.heartbeat_seconds:
        return True
    if known.heard_at != new.heard_at and _was_stale(known, new.heard_at):
        return True
    if _holdings(known) != _holdings(new) or _caps(known) != _caps(new):
        return True
    if len(known.gpus) != len(new.gpus):
        return True
    return any(_material(before) != _material(after) for before, after in zip(known.gpus, new.gpus, strict=True))


def _was_stale(known: Telemetry, now: float) -> bool:
    return now - known.heard_at > HEARTBEATS_UNTIL_STALE * known.heartbeat_seconds


def _holdings(telemetry: Telemetry) -> tuple[object, ...]:
    """Who holds which GPU, and which works without a pod."""
    pods = telemetry.pods
    held = None if pods is None else [(pod.namespace, pod.name, pod.uuids, pod.shares) for pod in pods]
    return held, telemetry.unallocated_in_use


def _caps(telemetry: Telemetry) -> tuple[object, ...]:
    """What is asked of the node's capper, and what became of it."""
    capper = telemetry.capper
    return telemetry.caps, None if capper is None else (capper.mode, capper.gpus)


def _material(gpu: Gpu) -> tuple[object, ...]:
    return (
        gpu.uuid,
        gpu.index,
        gpu.product,
        gpu.memory_total_bytes,
        gpu.memory_used_bytes >> 28,
        _step(gpu.power_watts, 10),
        _step(gpu.planned_watts, 2),
        gpu.limit_watts,
        gpu.maximum_watts,
        _step(gpu.activity_percent, 5),
        _step(gpu.temperature_celsius, 5),
        gpu.throttled,
        gpu.health,
        gpu.power_braked,
        is_hot(gpu),
        gpu.message,
    )


def _step(value: float | None, width: float) -> int | None:
    return None if value is None else round(value / width)
