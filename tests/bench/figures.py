"""How a benchmark says what it found: one line a figure, beside its limit where there is one."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """`limit` is the most that is wanted, or with `at_least` the least; None for a figure that only informs."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "met" if met else "missed"


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print the figures of one benchmark."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("figure", "measured", "limit", ""):
        table.add_column(heading, justify="left" if heading in ("figure", "") else "right")
    for one in figures:
        sign = "≥" if one.at_least else "≤"
        limit = "" if one.limit is None else f"{sign} {one.limit:,g} {one.unit}"
        table.add_row(one.name, f"{one.value:,.4g} {one.unit}", limit, one.verdict)
    Console(width=120).print(table)


def wanted_cores() -> Figure:
    """How busy the machine was in the last minute: beyond one, somebody waited for a core."""
    return Figure("  processes that wanted a core, for each there is", os.getloadavg()[0] / (os.cpu_count() or 1), "")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least this share of them does not pass."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
