"""How old evidence is under each policy: counted anew now and then, since it ages by hours and nodes are many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.control.picture import Picture
from penstock.control.residency.headcount import RECOUNT_SECONDS
from penstock.core.residency.aging import Aging, Proven, aging, by_place
from penstock.core.residency.standing import Ceiling, Standing

MOST_AT_ONCE = 16
"""Policies that one look counts again: a turn waits for it."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """What came of a count, at this monotonic time and of this ceiling."""

    at: float
    ceiling: Ceiling | None
    found: Aging | None

    @property
    def next_time(self) -> float:
        """Until when nobody else's evidence is too old."""
        return self.found.next_time if self.found else math.inf


@dataclass
class Evidence:
    """What is told of evidence, by policy."""

    _counted: dict[str, _Counted] = field(default_factory=dict)
    _places: Sequence[Proven] = ()
    _placed_at: float = -math.inf

    def look(self, picture: Picture, now_at: float, now_time: float) -> None:
        """Count under the policies that are new, and under some of those for which something may have changed."""
        standings = picture.laws.standings
        for name in self._counted.keys() - standings.keys():
            del self._counted[name]
        new = standings.keys() - self._counted.keys()
        edited = {name for name, one in self._counted.items() if one.ceiling is not _ceiling(standings[name])}
        expired = {name for name, one in self._counted.items() if now_time > one.next_time}
        due = bool(new) or now_at - self._placed_at >= RECOUNT_SECONDS
        # Whoever has just proven places is told of these, not of what was there before: neither where a policy was
        # written, nor where something would be too old by now.
        if due or edited or expired:
            self._places = by_place(picture.state.nodes.values(), now_time)
        if due:
            self._placed_at = now_at
        late = [name for name, one in self._counted.items() if name in edited | expired or one.at < self._placed_at]
        late.sort(key=lambda name: (name not in edited, self._counted[name].at))
        for name in (*new, *late[:MOST_AT_ONCE]):
            ceiling = _ceiling(standings[name])
            found = aging(ceiling.demand.residency, self._places, now_time) if ceiling else None
            self._counted[name] = _Counted(now_at, ceiling, found)

    def of(self, policy: str) -> Aging | None:
        """None where a policy grants evidence any age."""
        known = self._counted.get(policy)
        return known.found if known else None


def _ceiling(one: Standing) -> Ceiling | None:
    return one.asked or one.in_force
