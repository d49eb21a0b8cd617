"""What a pool's GPUs draw at their peak: what is a sample, what an hour keeps, and when it counts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.core.model import LearnedWatts, Phase, Pod, PodGpus, Telemetry
from penstock.core.power.learned_status import learned_of, learned_watts
from penstock.core.power.learning import DAY_SECONDS, DAYS_HELD, Day, Hour, Kind, Learned, Sample, in_force, samples

KIND = Kind(a.H200, "h1")
FIRST = 20_000
"""A day, by its number since 1970."""


def hour(watts: Iterable[float], number: int = FIRST * 24, *, busy: bool = False) -> Hour:
    found = Hour(number)
    for one in watts:
        found.add(Sample(a.POOL, KIND, one, busy))
    return found


HOURS: dict[str, tuple[list[float], float]] = {
    "nothing seen is nothing learned": ([], 0.0),
    "one sample is its own peak, rounded up": ([601.0], 605.0),
    "of few samples the highest counts": ([300.0] * 98 + [700.0], 700.0),
    "one in a hundred may be above": ([300.0] * 99 + [700.0], 300.0),
    "two in a hundred may not": ([300.0] * 98 + [700.0] * 2, 700.0),
    "a step is never below what was seen": ([302.5] * 1000, 305.0),
}


@pytest.mark.parametrize(("watts", "want"), HOURS.values(), ids=HOURS.keys())
def test_the_99th_percentile_of_an_hour(watts: list[float], want: float) -> None:
    assert hour(watts).p99_watts == want


def test_what_is_kept_is_never_below_the_percentile_of_all_samples_together() -> None:
    chance = random.Random(7)
    for _ in range(50):
        parts = [
            [chance.uniform(60, 700) ** chance.choice((1, 0.9)) for _ in range(chance.randint(1, 400))]
            for _ in range(8)
        ]
        learned = Learned()
        for number, part in enumerate(parts):
            learned = learned.with_hour(hour(part, FIRST * 24 + number))
        together = sorted(watts for part in parts for watts in part)
        assert learned.p99_watts >= together[len(together) - 1 - len(together) // 100]
        assert learned.samples == len(together)


BUSY_HOURS: dict[str, tuple[Hour, bool]] = {
    "busy all the time": (hour([600.0] * 100, busy=True), True),
    "busy for too few samples": (hour([600.0] * 99, busy=True), False),
    "never busy": (hour([90.0] * 360), False),
    "busy for less than half of the time": (
        Hour(0, steps=hour([600.0] * 360).steps, busy_samples=179),
        False,
    ),
}


@pytest.mark.parametrize(("seen", "want"), BUSY_HOURS.values(), ids=BUSY_HOURS.keys())
def test_a_busy_peak(seen: Hour, want: bool) -> None:
    assert seen.is_busy is want


def days(number: int, *, samples_each: int = 8_640, busy: Iterable[int] = (3,), watts: float = 500.0) -> Learned:
    return Learned(tuple(Day(FIRST + at, watts, samples_each, at in busy) for at in range(number)))


COUNTS: dict[str, tuple[Learned, bool]] = {
    "nothing": (Learned(), False),
    "seven days with a busy one": (days(7), True),
    "six days": (days(6), False),
    "a week without a busy peak does not count": (days(7, busy=()), False),
    "a week of hardly any samples does not count": (days(7, samples_each=999), False),
    "days without the pool do not count": (
        replace(days(12), days=tuple(day for day in days(12).days if day.number % 2)),
        False,
    ),
}


@pytest.mark.parametrize(("learned", "want"), COUNTS.values(), ids=COUNTS.keys())
def test_when_it_counts(learned: Learned, want: bool) -> None:
    assert learned.counts is want


def test_a_day_keeps_the_highest_of_its_hours_and_adds_their_samples() -> None:
    learned = days(1).with_hour(hour([600.0] * 100, busy=True)).with_hour(hour([100.0] * 50, FIRST * 24 + 5))
    assert learned.days == (Day(FIRST, 600.0, 8_790, busy=True),)


def test_what_is_older_than_a_fortnight_is_forgotten() -> None:
    learned = days(DAYS_HELD).with_hour(hour([200.0], (FIRST + DAYS_HELD) * 24))
    assert len(learned.days) == DAYS_HELD
    assert learned.days[0].number == FIRST + 1
    assert days(3).held_at((FIRST + 30) * DAY_SECONDS) == Learned()


def test_a_clock_that_went_back_loses_nothing() -> None:
    assert days(7).with_hour(hour([650.0], FIRST * 24)).p99_watts == 650.0
    assert len(days(7).with_hour(hour([650.0], FIRST * 24)).days) == 7


# ------------------------------------------------------------------------------------------------------------- samples

HASHED = a.pod(template_hash="h1")
MINE = PodGpus(a.POOL.namespace, "pod-1", ("GPU-0", "GPU-1"), (1.0, 1.0))


def report(listed: PodGpus | None = MINE, **changed: Any) -> Telemetry:
    values = {"power_watts": 600.0, "activity_percent": 90.0, **changed}
    gpus = [a.gpu(at, **values) for at in range(2)]
    return a.telemetry(gpus=gpus, pods=None if listed is None else (listed,))


SAMPLES: dict[str, tuple[Telemetry, Pod, list[tuple[float, bool]]]] = {
    "each GPU of a running replica is one": (report(), HASHED, [(600.0, True), (600.0, True)]),
    "idle GPUs are samples, though not busy ones": (
        report(power_watts=90.0, activity_percent=0.0),
        HASHED,
        [(90.0, False)] * 2,
    ),
    "without activity half of the limit is busy": (report(activity_percent=None), HASHED, [(600.0, True)] * 2),
    "and less is not": (report(activity_percent=None, power_watts=340.0), HASHED, [(340.0, False)] * 2),
    "without a reading there is none": (report(power_watts=None), HASHED, []),
    "a capped GPU shows its cap": (report(default_watts=700.0, limit_watts=500.0), HASHED, []),
    "one at its default limit is not capped": (
        report(default_watts=700.0, limit_watts=700.0),
        HASHED,
        [(600.0, True)] * 2,
    ),
    "a MIG device has no watts of its own": (report(mig=True), HASHED, []),
    "a shared GPU tells nothing of one replica": (report(replace(MINE, shared=True)), HASHED, []),
    "nor does a part of one": (report(replace(MINE, shares=(1.0, 0.5))), HASHED, []),
    "the kubelet did not say who holds what": (report(None), HASHED, []),
    "a foreign pod is nobody's": (report(), replace(HASHED, pool=""), []),
    "a pod of no known template is nobody's": (report(), replace(HASHED, template_hash=""), []),
    "a pod that has not started draws for somebody else": (report(), replace(HASHED, phase=Phase.PENDING), []),
    "a pod of another name": (report(), replace(HASHED, name="other"), []),
}


@pytest.mark.parametrize(("heard", "pod", "want"), SAMPLES.values(), ids=SAMPLES.keys())
def test_samples(heard: Telemetry, pod: Pod, want: list[tuple[float, bool]]) -> None:
    found = list(samples(heard, [pod]))
    assert [(one.watts, one.busy) for one in found] == want
    assert all((one.pool, one.kind) == (a.POOL, KIND) for one in found)


# ------------------------------------------------------------------------------------------------------------ in force

H100 = Kind("NVIDIA-H100-80GB-HBM3", "h1")
FORCE: dict[str, tuple[dict[Kind, Learned], tuple[str, ...], tuple[LearnedWatts, ...]]] = {
    "what counts is in force for its template": ({KIND: days(7)}, (a.H200,), (LearnedWatts("h1", 500.0),)),
    "what does not count yet is not": ({KIND: days(6)}, (a.H200,), ()),
    "a new template starts anew": ({Kind(a.H200, "h2"): days(1)}, (a.H200,), ()),
    "of two products the higher": (
        {KIND: days(7), H100: days(7, watts=650.0)},
        (a.H200, H100.product),
        (LearnedWatts("h1", 650.0),),
    ),
    "where one product is not learned it only raises what is declared": (
        {KIND: days(7)},
        (a.H200, H100.product),
        (LearnedWatts("h1", 500.0, everywhere=False),),
    ),
}


@pytest.mark.parametrize(("known", "products", "want"), FORCE.values(), ids=FORCE.keys())
def test_in_force(known: dict[Kind, Learned], products: tuple[str, ...], want: tuple[LearnedWatts, ...]) -> None:
    assert in_force(known, products) == want


def test_what_is_written_is_read_back_whole() -> None:
    known = {KIND: days(9), Kind(a.H200, "h2"): days(2, busy=())}
    written = learned_watts(known, (FIRST + 9) * DAY_SECONDS)
    assert learned_of(written) == known
    assert [(one.template_hash, one.in_force, one.p99_watts) for one in written] == [
        ("h1", True, 500.0),
        ("h2", False, 500.0),
    ]


def test_of_too_many_templates_those_seen_last_are_kept() -> None:
    known = {Kind(a.H200, f"h{at}"): Learned((Day(FIRST + at, 500.0, 1, busy=False),)) for at in range(20)}
    written = learned_watts(known, (FIRST + 20) * DAY_SECONDS)
    assert {one.template_hash for one in written} == {f"h{at}" for at in range(4, 20)}
