"""Whose watt it is, added up by hand. A GPU draws 100 W idle of 500 W, unless the case says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from penstock.agent.attribution import Certainty, EnergyMeter, IdleDraw, MeasuredGpu, MigPart, attribute
from penstock.agent.podresources import Allocation, Device, PodName

A, B, C = (PodName("search", name) for name in "abc")
EXACT, PROPORTIONAL, ESTIMATED = Certainty
HALVES = (MigPart("MIG-1", 3, 60.0), MigPart("MIG-2", 4, 20.0))


def gpu(index: int = 0, **changed: Any) -> MeasuredGpu:
    values: dict[str, Any] = {
        "uuid": f"GPU-{index}",
        "minor": index,
        "watts": 500.0,
        "idle_watts": 100.0,
        "activity_percent": 80.0,
        "memory_used_bytes": 10**10,
    }
    return MeasuredGpu(**{**values, **changed})


def holds(pod: PodName, *devices: str | Device) -> Allocation:
    return Allocation(pod, tuple(Device(one) if isinstance(one, str) else one for one in devices))


Case = tuple[tuple[MeasuredGpu, ...], tuple[Allocation, ...], Mapping[PodName, float], float]
WATTS: dict[str, Case] = {
    "a GPU of its own": ((gpu(),), (holds(A, "GPU-0"),), {A: 500}, 0),
    "two GPUs of its own": ((gpu(0), gpu(1, watts=300)), (holds(A, "GPU-0", "GPU-1"),), {A: 800}, 0),
    "a GPU that nobody holds is idle watts": ((gpu(0), gpu(1, watts=90)), (holds(A, "GPU-0"),), {A: 500}, 90),
    "nobody holds anything": ((gpu(0), gpu(1, watts=90)), (), {}, 590),
    "a GPU that DRA gave out by its minor number": ((gpu(0), gpu(1)), (holds(A, Device(minor=1)),), {A: 500}, 500),
    "whose minor number is not where NVML lists it": (
        (gpu(0, minor=1), gpu(1, minor=0, watts=300)),
        (holds(A, Device(minor=1)),),
        {A: 500},
        300,
    ),
    "a GPU held through plugin and claim is held once": ((gpu(),), (holds(A, "GPU-0", Device(minor=0)),), {A: 500}, 0),
    "a device that NVML does not show explains nothing": ((gpu(),), (holds(A, "GPU-9"),), {}, 500),
    "two that share split evenly where processes are not told": (
        (gpu(),),
        (holds(A, "GPU-0"), holds(B, "GPU-0")),
        {A: 250, B: 250},
        0,
    ),
    "two that share split the active watts by their processes": (
        (gpu(process_percent={A: 60.0, B: 20.0}),),
        (holds(A, "GPU-0"), holds(B, "GPU-0")),
        {A: 50 + 300, B: 50 + 100},
        0,
    ),
    "two that share split evenly where only the MPS server, whose pod holds nothing, is told": (
        (gpu(process_percent={C: 90.0}),),
        (holds(A, "GPU-0"), holds(B, "GPU-0")),
        {A: 250, B: 250},
        0,
    ),
    "a pod without a process has its part of the idle draw": (
        (gpu(process_percent={A: 60.0}),),
        (holds(A, "GPU-0"), holds(B, "GPU-0")),
        {A: 450, B: 50},
        0,
    ),
    "a draw below idle is split as idle": (
        (gpu(watts=80.0, process_percent={A: 1.0}),),
        (holds(A, "GPU-0"), holds(B, "GPU-0")),
        {A: 40, B: 40},
        0,
    ),
    "MIG: idle by slices, active by activity and slices": (
        (gpu(parts=HALVES),),
        (holds(A, "MIG-1"), holds(B, "MIG-2")),
        {A: 100 * 3 / 7 + 400 * 180 / 260, B: 100 * 4 / 7 + 400 * 80 / 260},
        0,
    ),
    "MIG: a device that nobody holds is idle watts": (
        (gpu(parts=HALVES),),
        (holds(A, "MIG-1"),),
        {A: 100 * 3 / 7 + 400 * 180 / 260},
        100 * 4 / 7 + 400 * 80 / 260,
    ),
    "MIG: slices that were never made are idle watts": (
        (gpu(parts=(MigPart("MIG-1", 3, 60.0),)),),
        (holds(A, "MIG-1"),),
        {A: 100 * 3 / 7 + 400},
        100 * 4 / 7,
    ),
    "MIG: without activity by slices": (
        (gpu(parts=(MigPart("MIG-1", 3), MigPart("MIG-2", 4))),),
        (holds(A, "MIG-1"), holds(B, "MIG-2")),
        {A: 500 * 3 / 7, B: 500 * 4 / 7},
        0,
    ),
    "MIG: two pods on one device": (
        (gpu(parts=(MigPart("MIG-1", 7, 50.0),)),),
        (holds(A, "MIG-1"), holds(B, "MIG-1")),
        {A: 250, B: 250},
        0,
    ),
    "MIG by DRA: by the size in its name": (
        (gpu(parts=HALVES),),
        (holds(A, Device(minor=0, mig="gpu-0-mig-9-0-4")), holds(B, Device(minor=0, mig="gpu-0-mig-14-4-2"))),
        {A: 100 * 4 / 7 + 400 * 4 / 6, B: 100 * 2 / 7 + 400 * 2 / 6},
        100 / 7,
    ),
    "MIG by DRA: by the profile in its name": (
        (gpu(parts=HALVES),),
        (holds(A, Device(minor=0, mig="gpu-0-mig-4g71gb-5-0")), holds(B, Device(minor=0, mig="gpu-0-mig-2g35gb-14-4"))),
        {A: 100 * 4 / 7 + 400 * 4 / 6, B: 100 * 2 / 7 + 400 * 2 / 6},
        100 / 7,
    ),
}


@pytest.mark.parametrize(("gpus", "allocations", "watts", "idle"), WATTS.values(), ids=WATTS.keys())
def test_watts(
    gpus: tuple[MeasuredGpu, ...], allocations: tuple[Allocation, ...], watts: Mapping[PodName, float], idle: float
) -> None:
    found = attribute(gpus, allocations)
    assert {pod: sum(share.watts or 0 for share in one) for pod, one in found.pods.items()} == pytest.approx(watts)
    assert found.idle_watts == pytest.approx(idle)
    # Whatever the case: what is shared out is what the node draws.
    assert sum(watts.values()) + found.idle_watts == pytest.approx(sum(one.watts or 0 for one in gpus), rel=0.01)


CERTAIN: dict[str, tuple[tuple[Allocation, ...], Certainty, bool]] = {
    "alone": ((holds(A, "GPU-0"),), EXACT, False),
    "shared": ((holds(A, "GPU-0"), holds(B, "GPU-0")), PROPORTIONAL, True),
    "a MIG device": ((holds(A, "MIG-1"),), ESTIMATED, False),
    "a shared MIG device": ((holds(A, "MIG-1"), holds(B, "MIG-1")), ESTIMATED, True),
}


@pytest.mark.parametrize(("allocations", "certainty", "shared"), CERTAIN.values(), ids=CERTAIN.keys())
def test_how_sure_it_is(allocations: tuple[Allocation, ...], certainty: Certainty, shared: bool) -> None:
    parts = HALVES if certainty is ESTIMATED else ()
    (share,) = attribute((gpu(parts=parts),), allocations).pods[A]
    assert (share.certainty, share.shared) == (certainty, shared)


def test_a_gpu_without_figures_gives_a_pod_no_watts_rather_than_none() -> None:
    (share,) = attribute((gpu(watts=None, activity_percent=None),), (holds(A, "GPU-0"),)).pods[A]
    assert (share.watts, share.activity_percent, share.portion) == (None, None, 1.0)


IN_USE: dict[str, tuple[dict[str, Any], bool]] = {
    "it works": ({"activity_percent": 5.0, "memory_used_bytes": 0}, True),
    "it holds memory": ({"activity_percent": 0.0, "memory_used_bytes": 256 * 2**20}, True),
    "it rests": ({"activity_percent": 4.9, "memory_used_bytes": 2**20}, False),
    "nothing is known of it": ({"activity_percent": None, "memory_used_bytes": None}, False),
}


@pytest.mark.parametrize(("figures", "in_use"), IN_USE.values(), ids=IN_USE.keys())
def test_a_gpu_that_nobody_holds_is_in_use_where(figures: dict[str, Any], in_use: bool) -> None:
    found = attribute((gpu(**figures), gpu(1)), (holds(A, "GPU-1"),))
    assert found.unallocated_in_use == (("GPU-0",) if in_use else ())


def joules(*rounds: tuple[float, float | None, float | None]) -> float:
    """Joules of A after rounds of (monotonic seconds, counter, watts)."""
    meter, total = EnergyMeter(), {A: 0.0}
    for at, counter, watts in rounds:
        one = (gpu(energy_joules=counter, watts=watts),)
        total = dict(meter.add(one, attribute(one, (holds(A, "GPU-0"),)), at))
    return total[A]


ENERGY = {
    "by the counter": (((0, 1000, 500), (10, 5500, 500)), 4500),
    "from when the pod was first listed": (((0, 9000, 500),), 0),
    "a counter that fell back is not believed": (((0, 9000, 500), (10, 20, 500)), 5000),
    "what it counts while the driver says nothing": (((0, 1000, 500), (10, None, None), (20, 11000, 500)), 10000),
    "without a counter by watts and time": (((0, None, 500), (10, None, 400), (20, None, 400)), 8000),
}


@pytest.mark.parametrize(("rounds", "want"), ENERGY.values(), ids=ENERGY.keys())
def test_energy(rounds: tuple[tuple[float, float | None, float | None], ...], want: float) -> None:
    assert joules(*rounds) == pytest.approx(want)


def test_a_pod_that_left_and_came_back_begins_anew() -> None:
    meter, one = EnergyMeter(), (gpu(energy_joules=0.0),)
    held, free = attribute(one, (holds(A, "GPU-0"),)), attribute(one, ())
    rounds = enumerate((held, held, free, held))
    joules = [dict(meter.add((gpu(energy_joules=500.0 * at),), found, float(at))) for at, found in rounds]
    assert joules == [{A: 0.0}, {A: 500.0}, {}, {A: 0.0}]


def test_what_a_silent_gpu_counted_for_the_pod_before_is_not_billed_to_the_next() -> None:
    meter = EnergyMeter()
    joules: Mapping[PodName, float] = {}
    rounds = ((0, A, 1000, 500), (1, A, None, None), (100, B, None, None), (101, B, None, None), (102, B, 51700, 500))
    for at, pod, counter, watts in rounds:
        one = (gpu(energy_joules=counter, watts=watts),)
        joules = meter.add(one, attribute(one, (holds(pod, "GPU-0"),)), at)
    assert joules == {B: pytest.approx(500)}


def test_idle_draw_is_the_lowest_seen_and_never_that_of_a_busy_gpu() -> None:
    idle = IdleDraw()
    assert idle.watts("GPU-0", 600.0, 700.0) == pytest.approx(98)
    assert idle.watts("GPU-0", 76.0, 700.0) == 76
    assert idle.watts("GPU-0", 500.0, 700.0) == 76
