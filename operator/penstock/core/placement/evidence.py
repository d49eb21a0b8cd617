"""How far a node's telemetry can be believed. What is missing, old or impossible never makes a node better."""

from __future__ import annotations

import math
from enum import IntEnum

from penstock.core.model import Gpu, GpuHealth, Telemetry

HEARTBEATS_UNTIL_STALE = 3
WHOLE_PERCENT = 100.0
LEAST_LIMIT_SHARE = 0.1
"""No NVIDIA device takes a power limit below a tenth of its maximum, so a report of one is nonsense."""


class Evidence(IntEnum):
    """Best first."""

    FRESH = 0
    STALE = 1
    CONTRADICTED = 2
    SILENT = 3
    """The node never spoke."""


def judge(telemetry: Telemetry | None, now_at: float) -> Evidence:
    if telemetry is None:
        return Evidence.SILENT
    if contradiction(telemetry):
        return Evidence.CONTRADICTED
    return Evidence.FRESH if now_at <= fresh_until_at(telemetry) else Evidence.STALE


def fresh_until_at(telemetry: Telemetry) -> float:
    return telemetry.heard_at + HEARTBEATS_UNTIL_STALE * telemetry.heartbeat_seconds


def limit_until_at(telemetry: Telemetry, gpu: Gpu) -> float:
    """Until when the enforced limit counts as read back (never: minus infinity)."""
    if gpu.limit_watts is None:
        return -math.inf
    return fresh_until_at(telemetry) - gpu.limit_age_seconds


def contradiction(telemetry: Telemetry) -> str:
    """What in the report cannot be true, in words; empty when nothing is."""
    if telemetry.contradiction:
        return telemetry.contradiction
    if not telemetry.heartbeat_seconds > 0:
        return f"a heartbeat of {telemetry.heartbeat_seconds} s"
    healthy = (gpu for gpu in telemetry.gpus if gpu.health is GpuHealth.HEALTHY)
    return next((wrong for gpu in healthy if (wrong := _impossible(gpu))), "")


def _impossible(gpu: Gpu) -> str:
    watts = (
        ("power", gpu.power_watts),
        ("planned power", gpu.planned_watts),
        ("enforced limit", gpu.limit_watts),
        ("maximum limit", gpu.maximum_watts),
    )
    for name, value in watts:
        # A GPU that answers draws something, so zero is as impossible as less.
        if value is not None and not 0 < value < math.inf:
            return f"GPU {gpu.index}: {name} of {value} W"
    if not gpu.limit_age_seconds >= 0:
        return f"GPU {gpu.index}: a limit read back {gpu.limit_age_seconds} s ago"
    if gpu.activity_percent is not None and not 0 <= gpu.activity_percent <= WHOLE_PERCENT:
        return f"GPU {gpu.index}: activity of {gpu.activity_percent} %"
    if gpu.memory_used_bytes < 0:
        return f"GPU {gpu.index}: {gpu.memory_used_bytes} bytes of memory used"
    return _impossible_limit(gpu)


def _impossible_limit(gpu: Gpu) -> str:
    if gpu.limit_watts is None or gpu.maximum_watts is None:
        return ""
    if LEAST_LIMIT_SHARE * gpu.maximum_watts <= gpu.limit_watts <= gpu.maximum_watts:
        return ""
    return f"GPU {gpu.index}: an enforced limit of {gpu.limit_watts} W of at most {gpu.maximum_watts} W"
