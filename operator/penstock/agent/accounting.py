"""The accounted watts of one GPU: what it drew over the last minute, by its energy counter and by its power sensor."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

HORIZON_SECONDS = 60.0
LEAST_SECONDS = 10.0
"""Less than this says more of the counter's own steps than of the draw."""
LONGEST_GAP_SECONDS = 3.0
"""Two samples further apart prove nothing about what was drawn between them; the counter does."""
CONFLICT_PERCENT = 15.0
IMPOSSIBLE_RATIO = 2.0
"""No GPU draws twice its highest limit for a second: a counter that says so has jumped."""


@dataclass(frozen=True, slots=True)
class Accounted:
    """`gap_percent` is how far counter and integral are apart, of the larger; None where they agree."""

    watts: float
    gap_percent: float | None = None


@dataclass(frozen=True, slots=True)
class _Span:
    """From one sample to the next. Where only one of counter and sensor proves something, both say what it says."""

    until: float
    seconds: float
    counted_joules: float
    sensed_joules: float


class EnergyWindow:
    """The last minute; `at` is in monotonic seconds and never falls.

    A counter that restarts or jumps does not count for that span: the power sensor does.
    """

    def __init__(self, highest_watts: float | None = None) -> None:
        self._highest_watts = highest_watts
        self._spans: deque[_Span] = deque()
        self._seconds = self._counted_joules = self._sensed_joules = 0.0
        self._last: tuple[float, float | None, float | None] | None = None

    def add(self, at: float, joules: float | None, watts: float | None) -> None:
        """Take one sample of the counter and of the sensor."""
        before, self._last = self._last, (at, joules, watts)
        if before is None or at <= before[0]:
            return
        seconds = at - before[0]
        counted = self._counted(before[1], joules, seconds)
        sensed = _sensed(before[2], watts, seconds, counted)
        if counted is not None or sensed is not None:
            self._take(_Span(at, seconds, _either(counted, sensed), _either(sensed, counted)))
        while self._spans and self._spans[0].until <= at - HORIZON_SECONDS:
            self._take_back(self._spans.popleft())

    def accounted(self) -> Accounted | None:
        """Over the last minute, or since the first sample; None before ten seconds are known."""
        if self._seconds < LEAST_SECONDS:
            return None
        counted, sensed = self._counted_joules / self._seconds, self._sensed_joules / self._seconds
        larger = max(counted, sensed)
        gap_percent = 100 * abs(counted - sensed) / larger if larger > 0 else 0.0
        if gap_percent <= CONFLICT_PERCENT:
            return Accounted(max(counted, 0.0))
        return Accounted(larger, gap_percent)

    def _take(self, span: _Span) -> None:
        self._spans.append(span)
        self._seconds += span.seconds
        self._counted_joules += span.counted_joules
        self._sensed_joules += span.sensed_joules

    def _take_back(self, span: _Span) -> None:
        self._seconds -= span.seconds
        self._counted_joules -= span.counted_joules
        self._sensed_joules -= span.sensed_joules

    def _counted(self, before: float | None, joules: float | None, seconds: float) -> float | None:
        if before is None or joules is None or joules < before:
            return None
        rise = joules - before
        jumped = self._highest_watts is not None and rise > IMPOSSIBLE_RATIO * self._highest_watts * seconds
        return None if jumped else rise


def _sensed(before: float | None, watts: float | None, seconds: float, counted: float | None) -> float | None:
    if before is None or watts is None or (seconds > LONGEST_GAP_SECONDS and counted is not None):
        return None
    return (before + watts) / 2 * seconds


def _either(first: float | None, second: float | None) -> float:
    return first if first is not None else second or 0.0
