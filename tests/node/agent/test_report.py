"""What the agent writes is what the API takes, with a sequence that always rises."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from penstock.agent.health import Health
from penstock.agent.node import NodeObservation
from penstock.agent.reading import Identity, Reading
from penstock.agent.report import GPUNodeStatus, encode
from penstock.agent.reporter import Reporter
from penstock.agent.sampler import Observation
from penstock.api.gpunode import GPUNodeStatus as ApiStatus

WALL = datetime(2026, 3, 1, 12, tzinfo=UTC)
IDENTITY = Identity("GPU-0", 0, "NVIDIA-H200", 141 * 2**30, 700.0)
READING = Reading(
    power_watts=412.34,
    energy_joules=123.456,
    enforced_limit_watts=650.0,
    memory_used_bytes=2**30,
    memory_reserve_known=True,
    activity_percent=41.26,
    activity_source="GPM",
    temperature_celsius=61.0,
    throttle_reasons=("SwPowerCap",),
)
SOUND = Observation(0, 100.0, IDENTITY, READING, planned_watts=450.06)
LOST = Observation(1, 90.0, Identity("GPU-1", 1, "NVIDIA-H200", 141 * 2**30, 700.0), health=Health.LOST, message="gone")
NEVER_SEEN = Observation(2, 90.0, health=Health.UNRESPONSIVE, message="no answer")


class Gpus:
    """Stands where the threads are, with what they saw."""

    def __init__(self, seen: NodeObservation | None) -> None:
        self.seen = seen

    def observe(self, now: float) -> NodeObservation | None:
        return self.seen


def reporter(seen: NodeObservation | None) -> Reporter:
    return Reporter(Gpus(seen), heartbeat_seconds=10, boot_id="boot", started=WALL)


def report(*gpus: Observation, fault: str = "") -> GPUNodeStatus:
    seen = NodeObservation(gpus, None if fault else "580", None if fault else "13.580", fault)
    status = reporter(seen).next(WALL, now=100.75)
    assert status is not None
    return status


def test_a_sound_gpu_tells_every_figure_and_the_age_of_its_limit() -> None:
    written = json.loads(encode(report(SOUND)))["status"]
    assert written["gpus"] == [
        {
            "uuid": "GPU-0",
            "index": 0,
            "health": "Healthy",
            "product": "NVIDIA-H200",
            "memoryTotalBytes": 141 * 2**30,
            "memoryUsedBytes": 2**30,
            "powerWatts": 412.3,
            "powerP95Watts": 450.1,
            "enforcedLimitWatts": 650.0,
            "enforcedLimitAgeSeconds": 0.8,
            "maximumLimitWatts": 700.0,
            "energyJoules": 123.456,
            "activityPercent": 41.3,
            "activitySource": "GPM",
            "temperatureCelsius": 61.0,
            "throttleReasons": ["SwPowerCap"],
        }
    ]
    assert (written["watts"], written["gpuCount"], written["bootID"]) == (412.3, 1, "boot")
    assert written["sampledAt"] == "2026-03-01T12:00:00.000Z"


def test_a_gpu_without_a_reading_keeps_its_name_and_leaves_its_figures_out() -> None:
    written = json.loads(encode(report(SOUND, LOST, NEVER_SEEN)))["status"]
    assert set(written["gpus"][1]) == {
        *("uuid", "index", "health", "product", "memoryTotalBytes", "maximumLimitWatts", "message")
    }
    assert written["gpus"][2] == {
        "uuid": "unknown-2",
        "index": 2,
        "health": "Unresponsive",
        "message": "no answer",
    }
    assert written["watts"] == 412.3


@pytest.mark.parametrize("gpus", ((SOUND,), (SOUND, LOST, NEVER_SEEN), ()), ids=["sound", "with faults", "no GPU"])
def test_the_api_takes_what_the_agent_writes(gpus: tuple[Observation, ...]) -> None:
    read = ApiStatus.model_validate(json.loads(encode(report(*gpus)))["status"])
    assert read.gpu_count == len(gpus)
    assert [gpu.uuid for gpu in read.gpus] == [gpu.identity.uuid if gpu.identity else "unknown-2" for gpu in gpus]


def test_what_is_no_longer_known_of_the_node_is_taken_away_by_a_null() -> None:
    written = json.loads(encode(report(LOST, fault="NVML: gone")))["status"]
    assert (written["watts"], written["driverVersion"], written["nvmlVersion"]) == (None, None, None)


@pytest.mark.parametrize(
    ("gpus", "fault", "status", "reason"),
    (
        pytest.param((SOUND,), "", "True", "Sampling", id="all healthy"),
        pytest.param((SOUND, LOST), "", "True", "GPUsUnhealthy", id="some healthy"),
        pytest.param((LOST,), "", "False", "GPUsUnhealthy", id="none healthy"),
        pytest.param((), "", "False", "NoGPUs", id="no GPU"),
        pytest.param((LOST,), "NVML: driver", "False", "NVMLUnavailable", id="no NVML"),
    ),
)
def test_ready_says_whether_the_telemetry_can_be_used(
    gpus: tuple[Observation, ...], fault: str, status: str, reason: str
) -> None:
    (condition,) = report(*gpus, fault=fault).conditions
    assert (condition.type, condition.status, condition.reason) == ("Ready", status, reason)


def test_the_sequence_starts_at_unix_seconds_and_rises_with_each_attempt_only() -> None:
    source = reporter(NodeObservation((SOUND,)))
    sequences = [source.next(WALL, 0), source.compose(WALL, 0), source.next(WALL, 0)]
    start = int(WALL.timestamp())
    assert [status.sequence for status in sequences if status] == [start + 1, start + 1, start + 2]


def test_a_transition_is_dated_when_the_status_changes_and_not_when_it_is_repeated() -> None:
    gpus = Gpus(NodeObservation((SOUND,)))
    source = Reporter(gpus, 10, "boot", started=WALL)
    times = []
    for minute, seen in ((1, SOUND), (2, SOUND), (3, LOST), (4, LOST), (5, SOUND)):
        gpus.seen = NodeObservation((seen,))
        status = source.next(WALL.replace(minute=minute), 0)
        assert status is not None
        times.append(status.conditions[0].last_transition_time[14:16])
    assert times == ["01", "01", "03", "03", "05"]


def test_there_is_no_report_before_the_first_readings() -> None:
    assert reporter(None).next(WALL, 0) is None
