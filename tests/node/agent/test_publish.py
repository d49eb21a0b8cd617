"""When a report is worth a write."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from penstock.agent.health import Health
from penstock.agent.publish import heartbeat_due_seconds, publish_reason
from penstock.agent.report import Condition, GPUNodeStatus, GpuStatus, XidStatus, node_watts

GIB = 2**30


def gpu(index: int = 0, **differs: Any) -> GpuStatus:
    figures: dict[str, Any] = {
        "uuid": f"GPU-{index}",
        "index": index,
        "health": Health.HEALTHY,
        "product": "NVIDIA-H200",
        "memory_total_bytes": 141 * GIB,
        "memory_used_bytes": 120 * GIB,
        "power_watts": 400.0,
        "power_p95_watts": 450.0,
        "enforced_limit_watts": 700.0,
        "maximum_limit_watts": 700.0,
        "energy_joules": 1e6,
        "activity_percent": 50.0,
        "activity_source": "GPM",
        "temperature_celsius": 60.0,
    }
    return GpuStatus(**(figures | differs))


def status(*gpus: GpuStatus, reason: str = "Sampling") -> GPUNodeStatus:
    condition = Condition(type="Ready", status="True", reason=reason, message="", last_transition_time="")
    return GPUNodeStatus(
        heartbeat_seconds=10,
        sequence=1,
        sampled_at="",
        boot_id="",
        driver_version="580",
        nvml_version="13",
        watts=node_watts(gpus),
        gpu_count=len(gpus),
        gpus=gpus,
        conditions=(condition,),
    )


FOUR = status(*(gpu(index) for index in range(4)))


def four(**differs: Any) -> GPUNodeStatus:
    """The four GPUs, the last one of which differs."""
    return status(*FOUR.gpus[:3], gpu(3, **differs))


@pytest.mark.parametrize(
    ("now", "published"),
    (
        pytest.param(FOUR, False, id="nothing changed"),
        pytest.param(four(power_watts=480.0), False, id="a node change of exactly 5 % waits"),
        pytest.param(four(power_watts=481.0), True, id="a node change over 5 % goes out, up"),
        pytest.param(four(power_watts=319.0), True, id="a node change over 5 % goes out, down"),
        pytest.param(four(power_p95_watts=100.0), True, id="planned watts that were credited go out"),
        pytest.param(four(energy_joules=2e6, temperature_celsius=63.0), False, id="energy and temperature wait"),
        pytest.param(four(enforced_limit_age_seconds=0.9), False, id="the limit's age alone waits"),
        pytest.param(four(health=Health.LOST), True, id="health goes out"),
        pytest.param(four(xid_errors=(XidStatus(31, "now"),)), True, id="an error of the driver goes out"),
        pytest.param(four(throttle_reasons=("HwPowerBrake",)), True, id="a power brake goes out"),
        pytest.param(four(throttle_reasons=("SwPowerCap",)), False, id="a power cap that bites waits"),
        pytest.param(four(requested_limit_watts=600.0), True, id="a limit that was asked for goes out"),
        pytest.param(four(accounted_gap_percent=20.0), True, id="a gap in the account goes out"),
        pytest.param(four(accounted_watts=390.0), False, id="accounted watts wait"),
        pytest.param(four(enforced_limit_watts=690.0), True, id="a limit goes out"),
        pytest.param(four(maximum_limit_watts=600.0), True, id="a maximum limit goes out"),
        pytest.param(status(*FOUR.gpus[:3]), True, id="one GPU fewer goes out"),
        pytest.param(four(uuid="GPU-new"), True, id="another GPU goes out"),
        pytest.param(four(activity_source="Utilization"), True, id="another source of activity goes out"),
        pytest.param(four(activity_percent=None), True, id="a figure that went away goes out"),
        pytest.param(four(activity_percent=69.9), False, id="activity under 20 points waits"),
        pytest.param(four(activity_percent=70.0), True, id="activity of 20 points goes out"),
        pytest.param(four(memory_used_bytes=121 * GIB), False, id="a little memory waits"),
        pytest.param(four(memory_used_bytes=100 * GIB), True, id="much memory goes out"),
        pytest.param(
            status(*FOUR.gpus, reason="GPUsUnhealthy"), True, id="another reason of the Ready condition goes out"
        ),
    ),
)
def test_a_change_is_published_at_once(now: GPUNodeStatus, published: bool) -> None:
    assert bool(publish_reason(FOUR, now, since_seconds=2, due_seconds=9)) is published


def test_a_node_that_is_not_ready_tells_every_new_sentence() -> None:
    def paused(message: str) -> GPUNodeStatus:
        condition = Condition(type="Ready", status="False", reason="Paused", message=message, last_transition_time="")
        return replace(FOUR, conditions=(condition,))

    assert publish_reason(paused("being let go"), paused("let go"), 2, 9)
    assert not publish_reason(paused("let go"), paused("let go"), 2, 9)


def test_a_gpu_that_somebody_takes_or_leaves_is_published_however_small_the_change() -> None:
    free = gpu(0, memory_used_bytes=0, activity_percent=0.0)
    taken = replace(free, memory_used_bytes=GIB)
    assert publish_reason(status(free), status(taken), 2, 9)
    assert publish_reason(status(taken), status(free), 2, 9)


@pytest.mark.parametrize(
    ("last", "since_seconds", "published"),
    (
        pytest.param(None, 0.0, True, id="the first report goes out"),
        pytest.param(FOUR, 8.9, False, id="before the heartbeat is due nothing goes out"),
        pytest.param(FOUR, 9.0, True, id="the heartbeat goes out when it is due"),
    ),
)
def test_heartbeat(last: GPUNodeStatus | None, since_seconds: float, published: bool) -> None:
    assert bool(publish_reason(last, FOUR, since_seconds, due_seconds=9)) is published


def test_never_twice_within_a_second() -> None:
    assert publish_reason(FOUR, four(health=Health.LOST), since_seconds=0.99, due_seconds=0) is None


def test_jitter_brings_a_heartbeat_forward_and_never_past_the_stated_one() -> None:
    assert heartbeat_due_seconds(10, 0.0) == 10
    assert heartbeat_due_seconds(10, 0.999) == pytest.approx(8, abs=0.01)
