"""Replicas at their places, as the pages of `penstock audit` show them and their JSON holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from penstock.core.decisionlog.history import NO_TIME, UNWATCHED, Gap, Stay
from penstock.core.residency import places
from penstock.core.telling.figures import rfc3339

PAGE_WIDTH = 160
MOST_SHOWN = 200
"""Lines of one section of a page; JSON holds all."""


def page() -> Console:
    """Where a page is printed: as wide on paper as on a screen."""
    return Console(width=PAGE_WIDTH, highlight=False, markup=False, soft_wrap=True)


def plain(text: str) -> str:
    """On one line and without what moves a terminal's cursor: whoever writes a reason or a name writes no page."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def gap(one: Gap) -> str:
    """A time in which nobody watched, in words."""
    return f"{span(one.from_time, one.until_time)}: {one.why}"


def gaps(found: Iterable[Gap]) -> list[dict[str, Any]]:
    """The same as JSON holds them."""
    return [
        {"from": rfc3339(one.from_time), "to": rfc3339(one.until_time), "seconds": one.seconds, "why": one.why}
        for one in found
    ]


def span(from_time: float, until_time: float) -> str:
    """From when until when, and how long."""
    return f"{rfc3339(from_time)} to {rfc3339(until_time)} ({length(until_time - from_time)})"


def window(from_time: float, until_time: float) -> dict[str, str | None]:
    """The time that an answer is about, as JSON holds it."""
    return {"from": when(from_time or None), "to": when(until_time or None)}


def asked(from_time: float, until_time: float) -> str:
    """The same in words; empty where no line tells of a time."""
    return "" if until_time == NO_TIME else f"from {span(from_time, until_time)}"


def content(stay: Stay) -> dict[str, Any]:
    """A replica at one place, as JSON holds it."""
    return {
        "pool": stay.pool,
        "pod": stay.pod,
        "uid": stay.uid,
        "node": stay.node,
        "place": dict(stay.labels),
        "law": list(stay.sources),
        "outside": list(stay.outside),
        "from": rfc3339(stay.from_time),
        "to": when(stay.until_time),
        "outOfTraffic": when(stay.isolated_time),
        "ending": stay.ending or None,
    }


def when(time: float | None) -> str | None:
    """A time of the API, or None."""
    return None if time is None else rfc3339(time)


def table(console: Console, stays: Sequence[Stay]) -> None:
    """Each replica and where it was, oldest first."""
    if not stays:
        return
    console.print()
    rows = Table("REPLICA", "NODE", "PLACE", "FROM", "TO", "", box=None, pad_edge=False)
    for stay in stays[:MOST_SHOWN]:
        said = (stay.pod, stay.node, places.told(stay.labels), rfc3339(stay.from_time), *_until(stay))
        rows.add_row(*map(plain, said))
    console.print(rows)
    if len(stays) > MOST_SHOWN:
        console.print(f"and {len(stays) - MOST_SHOWN} more: see --output json")


def _until(stay: Stay) -> tuple[str, str]:
    if stay.until_time is None:
        return "is there", _traffic(stay)
    how = {"": "went on, as below", UNWATCHED: "ended while nobody watched, then at the latest"}
    return rfc3339(stay.until_time), "; ".join(filter(None, (how.get(stay.ending, stay.ending), _traffic(stay))))


def _traffic(stay: Stay) -> str:
    return f"out of traffic {rfc3339(stay.isolated_time)}" if stay.isolated_time is not None else ""


def length(seconds: float) -> str:
    """A time span as people say it, to its two largest units."""
    parts, left = [], round(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "less than 1 s"
