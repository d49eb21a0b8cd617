"""How times, measured figures and many names are written where people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from penstock.api.meta import rfc3339 as spelled

MOST_NAMED = 8
WATTS_STEP_RATIO = 0.05
WATTS_STEP = 10.0
"""A measured figure is written anew when it moved by more than both: a status must not change with every sample."""


def utc(time_seconds: float) -> datetime:
    """Unix time as a time of the API: whole seconds of UTC."""
    return datetime.fromtimestamp(int(time_seconds), UTC)


def rfc3339(time_seconds: float) -> str:
    """Unix time as an annotation spells it."""
    return _spelled(int(time_seconds))


@lru_cache(maxsize=1024)  # Whatever is told in one turn is of the same second.
def _spelled(second: int) -> str:
    return spelled(utc(second))


def steady(before: float | None, measured: float) -> float:
    """A measured figure for a status: the one shown before, until it moved enough to be worth a write."""
    if before is None:
        return round(measured)
    moved = abs(measured - before)
    return round(measured) if moved > WATTS_STEP and moved > WATTS_STEP_RATIO * before else before


def listed(names: Sequence[str], most: int = MOST_NAMED, between: str = ", ") -> str:
    """The first `most` names, and how many more there are: who reads `a, b` must be able to trust that it is all."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more
