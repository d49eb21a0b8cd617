"""The budget at a moment, and the lowest of a span: windows, overlaps, both changes of the clocks, both ends."""

from __future__ import annotations

import math
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSimError

from penstock.core.power.budget import (
    Change,
    Schedule,
    Window,
    first_firing,
    floor_watts,
    lowest_ahead_watts,
    lowest_watts,
    next_change,
    watts_at,
)

HOUR = 3600.0
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def at(clock: str, zone: str = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(clock).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def window(cron: str = "0 22 * * *", hours: float = 8, watts: float = 70.0, zone: str = BERLIN) -> Window:
    return Window(cron, hours * HOUR, zone, watts)


NIGHTLY = Schedule(100.0, windows=(window(),))
ANNOUNCED = Schedule(70.0, previous_watts=100.0, effective_time=1000.0, until_time=2000.0)


@pytest.mark.parametrize(
    ("told", "schedule", "moment", "watts"),
    (
        ("a budget with nothing else always counts", Schedule(100.0), 0.0, 100.0),
        ("an announced one does not count before its time", ANNOUNCED, 999.9, 100.0),
        ("an announced one counts from its time on", ANNOUNCED, 1000.0, 70.0),
        ("it counts until its end", ANNOUNCED, 1999.9, 70.0),
        ("at its end the one before it returns", ANNOUNCED, 2000.0, 100.0),
        ("with nothing before it, it counts before its time too", Schedule(70.0, None, 1000.0, 2000.0), 0.0, 70.0),
        ("with nothing before it, it counts behind its end too", Schedule(70.0, None, 1000.0, 2000.0), 3000.0, 70.0),
        ("before its window the budget is whole", NIGHTLY, at("2026-06-01T21:59:59"), 100.0),
        ("a window counts from its first second", NIGHTLY, at("2026-06-01T22:00"), 70.0),
        ("a window counts beyond midnight", NIGHTLY, at("2026-06-02T05:59:59"), 70.0),
        ("a window is over after its duration", NIGHTLY, at("2026-06-02T06:00"), 100.0),
        ("the night the clocks go forward is as long", NIGHTLY, at("2026-03-29T06:59:59"), 70.0),
        ("and ends an hour later by the clock", NIGHTLY, at("2026-03-29T07:00"), 100.0),
        ("the night the clocks go back is as long", NIGHTLY, at("2026-10-25T04:59:59"), 70.0),
        ("and ends an hour earlier by the clock", NIGHTLY, at("2026-10-25T05:00"), 100.0),
    ),
)
def test_the_budget_in_force_at_a_moment(told: str, schedule: Schedule, moment: float, watts: float) -> None:
    assert watts_at(schedule, moment) == watts, told


OVERLAPPING = Schedule(
    100.0, windows=(window("0 12 * * *", 4, 80.0), window("0 13 * * *", 1, 60.0), window("0 13 * * *", 2, 150.0))
)


@pytest.mark.parametrize(
    ("clock", "watts"), (("11:30", 100.0), ("12:30", 80.0), ("13:30", 60.0), ("14:30", 80.0), ("16:00", 100.0))
)
def test_of_windows_that_overlap_the_lowest_wins_and_none_raises_the_budget(clock: str, watts: float) -> None:
    assert watts_at(OVERLAPPING, at(f"2026-06-01T{clock}")) == watts


def test_a_window_that_fires_again_before_it_ends_stays_open() -> None:
    schedule = Schedule(100.0, windows=(window("0 * * * *", 2, 70.0),))
    assert {watts_at(schedule, 1.78e9 + second) for second in range(0, 7200, 60)} == {70.0}


@pytest.mark.parametrize(
    ("told", "zone", "cron", "after", "fires"),
    (
        ("a skipped one opens behind the jump", BERLIN, "30 2 * * *", "2026-03-29T00:00", "2026-03-29T03:00"),
        ("the same on another day of change", NEW_YORK, "30 2 * * *", "2026-03-08T00:00", "2026-03-08T03:00"),
        ("the day behind it is as usual", BERLIN, "30 2 * * *", "2026-03-29T12:00", "2026-03-30T02:30"),
        ("a leap day fires in a leap year only", BERLIN, "0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
    ),
)  # fmt: skip
def test_when_a_window_opens_next(told: str, zone: str, cron: str, after: str, fires: str) -> None:
    assert first_firing(window(cron, zone=zone), at(after, zone)) == at(fires, zone), told


@pytest.mark.parametrize(("zone", "day"), ((BERLIN, "2026-10-25"), (NEW_YORK, "2026-11-01")))
def test_an_hour_that_the_clocks_repeat_opens_a_window_once(zone: str, day: str) -> None:
    half_past = "30 1" if zone == NEW_YORK else "30 2"
    hour = half_past.split()[1].rjust(2, "0")
    one = window(f"{half_past} * * *", zone=zone)
    first = at(f"{day}T{hour}:30", zone, fold=0)
    assert first_firing(one, at(f"{day}T00:00", zone)) == first
    # From the middle of the repeated hour the day's firing is over, though the clock says that it is to come.
    again = at(f"{day}T{hour}:15", zone, fold=1)
    assert again > first
    assert first_firing(one, again) > again + 20 * HOUR


@pytest.mark.parametrize("zone", (BERLIN, NEW_YORK))
@pytest.mark.parametrize("month", (3, 10, 11))
def test_over_both_changes_of_the_clocks_every_night_is_cut_for_its_whole_duration(zone: str, month: int) -> None:
    schedule = Schedule(100.0, windows=(window("0 22 * * *", 8, 70.0, zone),))
    start = at(f"2026-{month:02}-01T12:00", zone)
    cut = sum(watts_at(schedule, start + minute * 60) == 70.0 for minute in range(28 * 24 * 60))
    assert abs(cut - 28 * 8 * 60) <= 60


@pytest.mark.parametrize(
    ("told", "schedule", "start", "seconds", "watts"),
    (
        ("a cut ahead is seen inside the span", ANNOUNCED, 900.0, 100.0, 70.0),
        ("a cut behind the span is not", ANNOUNCED, 900.0, 99.0, 100.0),
        ("the return to a lower one before it is seen", Schedule(100.0, 70.0, 0.0, 2000.0), 1990.0, 30.0, 70.0),
        ("a window that opens in the span is seen", NIGHTLY, at("2026-06-01T21:46"), 900.0, 70.0),
        ("a window that opens behind it is not", NIGHTLY, at("2026-06-01T21:44"), 900.0, 100.0),
        ("a window that closes in the span is seen", NIGHTLY, at("2026-06-02T05:59"), 900.0, 70.0),
    ),
)
def test_the_lowest_budget_of_a_span(told: str, schedule: Schedule, start: float, seconds: float, watts: float) -> None:
    assert lowest_watts(schedule, start, start + seconds) == watts, told


@pytest.mark.parametrize(
    ("told", "schedule", "now", "change"),
    (
        ("nothing moves a plain budget", Schedule(100.0), 0.0, None),
        ("the announced one is next", ANNOUNCED, 0.0, Change(70.0, 1000.0)),
        ("then the one before it", ANNOUNCED, 1000.0, Change(100.0, 2000.0)),
        ("then nothing", ANNOUNCED, 2000.0, None),
        ("the night is next", NIGHTLY, at("2026-06-01T12:00"), Change(70.0, at("2026-06-01T22:00"))),
        ("at night the morning is", NIGHTLY, at("2026-06-01T23:00"), Change(100.0, at("2026-06-02T06:00"))),
        ("a window above the budget changes nothing", Schedule(50.0, windows=(window(),)), 1.78e9, None),
    ),
)  # fmt: skip
def test_the_next_change_of_a_budget(told: str, schedule: Schedule, now: float, change: Change | None) -> None:
    assert next_change(schedule, now) == change, told


def test_the_lowest_that_a_schedule_asks_for_counts_its_windows_and_not_what_was_before() -> None:
    assert floor_watts(Schedule(100.0, 10.0, 0.0, math.inf, (window(watts=70.0),))) == 70.0


@pytest.mark.parametrize(
    ("told", "schedule", "now", "watts"),
    (
        ("a cut that is announced", ANNOUNCED, 0.0, 70.0),
        ("a cut that counts", ANNOUNCED, 1500.0, 70.0),
        ("a cut that is over is not ahead", ANNOUNCED, 2000.0, 100.0),
        ("what comes back behind a rise", Schedule(100.0, 70.0, 1000.0, 2000.0), 1500.0, 70.0),
        ("a window", NIGHTLY, 0.0, 70.0),
    ),
)
def test_the_lowest_budget_ahead(told: str, schedule: Schedule, now: float, watts: float) -> None:
    assert lowest_ahead_watts(schedule, now) == watts, told


@pytest.mark.parametrize("cron", ("0 0 30 2 *", "not a cron", "61 * * * *", "0 0 31 4,6,9,11 *"))
def test_an_expression_that_never_fires_or_cannot_be_read_is_refused(cron: str) -> None:
    with pytest.raises(CronSimError):
        first_firing(window(cron), 1.78e9)
