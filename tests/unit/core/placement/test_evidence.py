"""What is old, missing or impossible is told apart from what can be believed."""

from __future__ import annotations

import math
from typing import Any

import pytest

import builders as a
from penstock.core.model import GpuHealth, Telemetry
from penstock.core.placement.evidence import Evidence, contradiction, judge


def reporting(**changed: Any) -> Telemetry:
    return a.telemetry(gpus=[a.gpu(0, **changed)])


CASES: dict[str, tuple[Telemetry | None, Evidence]] = {
    "a node that never spoke is silent": (None, Evidence.SILENT),
    "a report heard now is fresh": (a.telemetry(), Evidence.FRESH),
    "three heartbeats ago is still fresh": (a.telemetry(heard_at=a.NOW_AT - 30), Evidence.FRESH),
    "more than three heartbeats ago is stale": (a.telemetry(heard_at=a.NOW_AT - 30.1), Evidence.STALE),
    "the heartbeat is the one that the agent states": (
        a.telemetry(heard_at=a.NOW_AT - 30.1, heartbeat_seconds=20.0),
        Evidence.FRESH,
    ),
    "a contradiction that was seen counts": (a.telemetry(contradiction="went back in time"), Evidence.CONTRADICTED),
    "no heartbeat at all is nonsense": (a.telemetry(heartbeat_seconds=0.0), Evidence.CONTRADICTED),
    "negative watts are impossible": (reporting(power_watts=-1.0), Evidence.CONTRADICTED),
    "a GPU that answers draws more than nothing": (reporting(planned_watts=0.0), Evidence.CONTRADICTED),
    "watts that are no number are impossible": (reporting(planned_watts=math.nan), Evidence.CONTRADICTED),
    "endless watts are impossible": (reporting(power_watts=math.inf), Evidence.CONTRADICTED),
    "a limit above the device's maximum is impossible": (reporting(limit_watts=701.0), Evidence.CONTRADICTED),
    "a limit of next to nothing is a lie": (reporting(limit_watts=10.0), Evidence.CONTRADICTED),
    "a limit read back in the future is impossible": (reporting(limit_age_seconds=-1.0), Evidence.CONTRADICTED),
    "more than full activity is impossible": (reporting(activity_percent=101.0), Evidence.CONTRADICTED),
    "negative memory is impossible": (reporting(memory_used_bytes=-1), Evidence.CONTRADICTED),
    "a figure that NVML does not have is no lie": (reporting(power_watts=None, limit_watts=None), Evidence.FRESH),
    "a lost GPU may say anything": (reporting(power_watts=0.0, health=GpuHealth.LOST), Evidence.FRESH),
}


@pytest.mark.parametrize(("report", "want"), CASES.values(), ids=CASES.keys())
def test_judge(report: Telemetry | None, want: Evidence) -> None:
    assert judge(report, a.NOW_AT) is want


def test_a_contradiction_names_the_gpu_and_the_figure() -> None:
    assert contradiction(reporting(power_watts=-5.0)) == "GPU 0: power of -5.0 W"
