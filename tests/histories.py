"""How many random histories the properties are tried on, and how many were, which a run of them says at its end.

`PENSTOCK_HISTORIES` sets the number; what costs more to try takes a share of it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

HISTORIES = int(os.environ.get("PENSTOCK_HISTORIES", "10000" if os.environ.get("CI") else "1500"))

TRIED: Counter[str] = Counter()
"""By the property that was tried, as `file: test`."""

Parts = ParamSpec("Parts")


def count(check: Callable[Parts, None]) -> Callable[Parts, None]:
    """Have every history that a check is tried on counted."""

    @wraps(check)
    def counted(*parts: Parts.args, **named: Parts.kwargs) -> None:
        TRIED[f"{check.__module__.rpartition('.')[2]}: {check.__qualname__.partition('.')[0]}"] += 1
        check(*parts, **named)

    return counted


def over_histories(
    most: int, /, **parts: SearchStrategy[object]
) -> Callable[[Callable[Parts, None]], Callable[[], None]]:
    """Try a check on so many histories of its own, whose parts are drawn by name: no two tests draw the same ones.

    The same in every run, and with no deadline for one: a busy machine is no failure.
    """

    def decorate(check: Callable[Parts, None]) -> Callable[[], None]:
        tried = given(**parts)(count(check))
        limits = settings(
            max_examples=max(1, most), deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        decorated: Callable[[], None] = seed(check.__qualname__)(limits(tried))
        return decorated

    return decorate
