"""What a pool draws at its peak: learned from reports, kept in its status, in force again after a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from factory import BRISK, PATIENCE_SECONDS, Factory, fleet, open_factory
from rig.controlplane import ControlPlane
from rig.waiting import wait_for

Object = dict[str, Any]

DAY_SECONDS = 86_400
DRAW_WATTS = 480.0
LIMIT_WATTS = 1.03 * 700
GPUS = 2


@pytest.fixture(scope="module")
def plant() -> Iterator[Factory]:
    """A factory whose operator writes what it learned every few seconds."""
    with ControlPlane.start(audit=True) as plane:
        opened = open_factory(plane, {**BRISK, "PENSTOCK_LEARNED_WRITE_SECONDS": "6"})
        try:
            yield opened
        finally:
            opened.telemetry.stop()
        plane.check()


def learned(factory: Factory) -> list[Object]:
    found: list[Object] = factory.status("llama").get("power", {}).get("learned", [])
    return found


def reserved_watts(factory: Factory) -> float:
    watts: float = factory.status("llama").get("power", {}).get("reservedWatts", 0.0)
    return watts


def busy_week(template_hash: str) -> Object:
    """What a status would hold after a week at `DRAW_WATTS`, up to yesterday."""
    today = int(time.time() // DAY_SECONDS)
    days = [
        {
            "day": datetime.fromtimestamp(number * DAY_SECONDS, UTC).isoformat().replace("+00:00", "Z"),
            "p99Watts": DRAW_WATTS,
            "samples": 8_640,
            "busy": number == today - 3,
        }
        for number in range(today - 7, today)
    ]
    return {
        "product": "NVIDIA-H200",
        "templateHash": template_hash,
        "p99Watts": DRAW_WATTS,
        "samples": 7 * 8_640,
        "since": days[0]["day"],
        "updated": days[-1]["day"],
        "inForce": True,
        "days": days,
    }


def test_a_pool_learns_and_a_restart_forgets_nothing_that_was_written(factory: Factory) -> None:
    factory.add(fleet("DE", gpus=GPUS))
    factory.domain("everything", 100_000, {}, guarantee="Statistical")
    factory.pool("llama", gpus=GPUS)
    (pod,) = factory.wait_running("llama", 1)
    holds = {"namespace": "default", "name": pod["metadata"]["name"], "devices": ["GPU-de-0-0", "GPU-de-0-1"]}
    factory.telemetry.set(
        "de-0",
        watts=[DRAW_WATTS] * GPUS,
        activity_percent=[90.0] * GPUS,
        status_changes={"podResources": "Read", "pods": [{**holds, "attribution": "Exact"}]},
    )
    (first,) = wait_for("it is learned and written", lambda: learned(factory) or None, PATIENCE_SECONDS)
    assert (first["product"], first["p99Watts"], first.get("inForce", False)) == ("NVIDIA-H200", DRAW_WATTS, False)
    assert first["templateHash"] == pod["metadata"]["labels"]["pod-template-hash"]
    assert reserved_watts(factory) == round(GPUS * LIMIT_WATTS), "one day does not count: it is charged as Hard"

    factory.operator.stop()
    week = busy_week(first["templateHash"])
    factory.plane.api.patch(f"{factory.pool_path('llama')}/status", {"status": {"power": {"learned": [week]}}})
    factory.operator.start()
    factory.operator.wait_ready()
    wait_for("the week counts", lambda: reserved_watts(factory) == GPUS * DRAW_WATTS, PATIENCE_SECONDS)

    def goes_on() -> bool:
        return any(one["samples"] > week["samples"] and len(one["days"]) == 8 for one in learned(factory))

    wait_for("it goes on where it left off", goes_on, PATIENCE_SECONDS)
    assert [one["inForce"] for one in learned(factory)] == [True]
