"""What a domain may draw at any moment: one pure function of its schedule and the time.

A budget counts from one instant to another; before and after, the one that was in force before it does. Windows lay a
lower budget over both: of everything that is in force at a moment, the lowest wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

ADMISSION_LEAD_SECONDS = 15 * 60.0
"""How far ahead of a lower budget nothing is placed any more that would not fit under it."""
CUT_DELAY_SECONDS = 30.0
"""How long after it was first seen a cut counts that names no time: what has to give way needs as long."""
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Window:
    """A lower budget that comes back: from each firing of `cron` in `time_zone`, for as many elapsed seconds.

    Where the clocks skip a firing's hour it opens when they have; where they repeat it, it opens once.
    """

    cron: str
    duration_seconds: float
    time_zone: str
    watts: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """One budget with everything that moves it. Times are Unix times.

    `watts` counts from `effective_time` until `until_time`, `previous_watts` before and after; `after_watts` after it
    where that is another. Without a previous one there is nothing else to be in force, so `watts` always counts.
    """

    watts: float
    previous_watts: float | None = None
    effective_time: float = -math.inf
    until_time: float = math.inf
    windows: tuple[Window, ...] = ()
    after_watts: float | None = None

    def base_at(self, at_time: float) -> float:
        """The budget without its windows."""
        if self.previous_watts is None or self.effective_time <= at_time < self.until_time:
            return self.watts
        return self.previous_watts if self.after_watts is None or at_time < self.until_time else self.after_watts


@dataclass(frozen=True, slots=True)
class Change:
    """The next budget and when it counts."""

    watts: float
    at_time: float


def watts_at(schedule: Schedule, at_time: float) -> float:
    """The budget in force at a moment: the lowest of what is open then."""
    return lowest_watts(schedule, at_time, at_time)


def lowest_watts(schedule: Schedule, from_time: float, until_time: float) -> float:
    """The lowest budget in force at any moment of a span, both of its ends included."""
    moments = (from_time, until_time, schedule.effective_time, schedule.until_time)
    lowest = min(schedule.base_at(moment) for moment in moments if from_time <= moment <= until_time)
    opened = (one.watts for one in schedule.windows if one.watts < lowest and _opens(one, from_time, until_time))
    return min(opened, default=lowest)


def floor_watts(schedule: Schedule) -> float:
    """The lowest budget that the schedule ever asks for, leaving out what was in force before it."""
    return min([schedule.watts, *(window.watts for window in schedule.windows)])


def lowest_ahead_watts(schedule: Schedule, now_time: float) -> float:
    """The lowest budget that is still to come, or has come to stay: what is over counts no more."""
    base = [schedule.base_at(max(now_time, schedule.effective_time))]
    if now_time < schedule.until_time < math.inf:
        base.append(schedule.base_at(schedule.until_time))
    return min([*base, *(window.watts for window in schedule.windows)])


def next_change(schedule: Schedule, now_time: float) -> Change | None:
    """The next other budget after now; `None` where none is in sight."""
    current = watts_at(schedule, now_time)
    for moment in sorted({moment for moment in _moments(schedule, now_time) if now_time < moment < math.inf}):
        watts = watts_at(schedule, moment)
        if watts != current:
            return Change(watts, moment)
    return None


def first_firing(window: Window, after_time: float) -> float:
    """When a window opens next after a moment, as Unix time; infinite where it never does again.

    Raises CronSimError for an expression that cannot be read or never fires, ZoneInfoNotFoundError, ValueError or
    OSError for a time zone that is not known.
    """
    day = math.floor(after_time / _DAY_SECONDS) * _DAY_SECONDS
    return next((one for one in _firings(window.cron, window.time_zone, day) if one > after_time), math.inf)


def _moments(schedule: Schedule, now_time: float) -> Iterator[float]:
    """When the budget may change next: its own two ends, and each window's next opening and closing."""
    yield from (schedule.effective_time, schedule.until_time)
    for window in schedule.windows:
        running = first_firing(window, now_time - window.duration_seconds)
        yield running + window.duration_seconds
        yield running if running > now_time else first_firing(window, now_time)


def _opens(window: Window, from_time: float, until_time: float) -> bool:
    """Whether it is open at any moment of a span: whether a firing that had not ended before the span lies in it."""
    return first_firing(window, from_time - window.duration_seconds) <= until_time


@lru_cache(maxsize=4096)
def _firings(cron: str, time_zone: str, day_time: float) -> tuple[float, ...]:
    """The firings of one day and the first one behind it: a day of a fleet's windows is worked out once."""
    found = []
    for firing in CronSim(cron, datetime.fromtimestamp(day_time - 1.0, UTC).astimezone(ZoneInfo(time_zone))):
        # An hour that the clocks repeat is read as its first one, which may be over.
        if firing.timestamp() >= day_time:
            found.append(firing.timestamp())
        if firing.timestamp() >= day_time + _DAY_SECONDS:
            break
    return tuple(found)
