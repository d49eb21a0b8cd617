"""Each namespace's ceiling: of all policies' demands those that are for it, settled anew only where one changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

from penstock.api.names import LAW_LABEL, LAW_REQUIRED
from penstock.cluster.objects import Namespace
from penstock.cluster.state import ClusterState
from penstock.control.residency.coverage import Coverage
from penstock.core.placement.scheduling import LabelRule
from penstock.core.residency import reading
from penstock.core.residency.ceiling import NO_LAW, Demand, Effective, effective, under
from penstock.core.residency.standing import Ceiling, Standing

MOST_ASKS = 256
"""How many different things the pools of one namespace may ask of their places before some are worked out again."""


@dataclass(frozen=True, slots=True)
class Law:
    """A pool's law: what new placements go by, and what is demanded of where its replicas are."""

    placing: Effective = NO_LAW
    running: Effective = NO_LAW


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """What policies come to for a namespace; another object as soon as anything of it may have changed."""

    placing: Effective | None
    """For new placements; None where no policy selects the namespace and none ever did."""
    running: Effective | None
    """For what runs."""
    law: Callable[[Demand], Law]
    """Of a pool by what it asks itself: one and the same for equal asks."""


class _Part(NamedTuple):
    """A ceiling, and a view of the namespaces that it covers."""

    ceiling: Ceiling
    names: set[str]


class _Reach(NamedTuple):
    """What a policy demands of new placements, and of what runs."""

    placing: tuple[_Part, ...] = ()
    running: tuple[_Part, ...] = ()

    @property
    def names(self) -> set[str]:
        return {name for part in (*self.placing, *self.running) for name in part.names}

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        return tuple(part.ceiling for part in (*self.placing, *self.running))

    def covers(self, name: str) -> bool:
        return any(name in part.names for part in (*self.placing, *self.running))


@dataclass
class Ceilings:
    """Every policy's demands, and what they come to for each namespace."""

    state: ClusterState
    exempt: frozenset[str]
    """Namespaces that are never under a law."""
    _coverage: Coverage = field(init=False)
    _reaches: dict[str, _Reach] = field(default_factory=dict)
    """By policy, in the order of their names."""
    _settled: dict[str, Settled] = field(default_factory=dict)
    """What somebody asked for since it was forgotten."""
    _known: _Known = field(init=False)

    def __post_init__(self) -> None:
        self._coverage = Coverage(self.exempt)
        self._known = _Known(())

    def of(self, namespace: str) -> Settled:
        """What all policies come to for a namespace."""
        settled = self._settled.get(namespace)
        if settled is None:
            found = self.state.namespaces.get(namespace)
            if found is None:
                return LAWLESS
            settled = self._settled[namespace] = self._known.settled(found)
        return settled

    def covering(self, namespace: str) -> list[str]:
        """The policies that select a namespace, or did by what is still in force."""
        return [name for name, reach in self._reaches.items() if reach.covers(namespace)]

    def selected(self, ceiling: Ceiling) -> Collection[str]:
        """The namespaces that a ceiling is for."""
        return self._coverage.of(ceiling.selector)

    def missing(self, namespace: str) -> list[str]:
        """The policies that would narrow what is placed in a namespace, were it not exempt."""
        found = self.state.namespaces.get(namespace)
        if found is None or namespace not in self.exempt:
            return []
        placing = ((name, part.ceiling) for name, reach in self._reaches.items() for part in reach.placing)
        return sorted({name for name, one in placing if one.demand.enforced and one.covers(found.labels)})

    def covered(self, policies: Iterable[str]) -> set[str]:
        """The namespaces that one of these policies selects, or did."""
        return {name for policy in policies for name in self._reaches.get(policy, _Reach()).names}

    def selector_keys(self, policies: Iterable[str]) -> list[str]:
        """The label keys by which these policies select namespaces."""
        ceilings = (ceiling for policy in policies for ceiling in self._reaches[policy].ceilings)
        return sorted({rule.key for ceiling in ceilings for rule in ceiling.selector.requirements})

    # -------------------------------------------------------------------------------------------------- what changes

    def look(self) -> set[str]:
        """Take in the namespaces' labels; those that came, went or were relabelled."""
        return self._coverage.look(self.state.namespaces)

    def put(self, one: Standing) -> set[str]:
        """Take in what a policy demands now; the namespaces for which that is another thing."""
        running = (one.in_force,) if one.in_force else ()
        return self._replace(one.name, _Reach(self._parts(one.placing), self._parts(running)))

    def drop(self, policy: str) -> set[str]:
        """A policy is gone; the namespaces that it was for."""
        return self._replace(policy, _Reach())

    def forget(self, names: Iterable[str]) -> None:
        """What all policies come to for these namespaces may be another thing now."""
        self._known = _Known(self._reaches.values())
        for name in names:
            self._settled.pop(name, None)

    def _replace(self, policy: str, reach: _Reach) -> set[str]:
        before = self._reaches.get(policy, _Reach())
        if reach == before:
            return set()
        self._reaches.pop(policy, None)
        if reach != _Reach():
            self._reaches = dict(sorted({**self._reaches, policy: reach}.items()))
        if {one.selector for one in before.ceilings}.difference(one.selector for one in reach.ceilings):
            self._coverage.forget_all_but(self._selectors())
        return before.names | reach.names | (self.exempt & self.state.namespaces.keys())

    def _parts(self, ceilings: Iterable[Ceiling]) -> tuple[_Part, ...]:
        return tuple(_Part(one, self._coverage.of(one.selector)) for one in ceilings)

    def _selectors(self) -> set[LabelRule]:
        return {one.selector for reach in self._reaches.values() for one in reach.ceilings}


class _Known:
    """What these policies come to, once for the same demands: most namespaces have theirs in common with others."""

    def __init__(self, reaches: Iterable[_Reach]) -> None:
        self._reaches = tuple(reaches)
        # By identity: to tell demands by their contents costs as much as to work them out. Each is kept alive here.
        self._ceilings: dict[tuple[int, ...], Effective] = {}
        self._settled: dict[tuple[int, int], Settled] = {}

    def settled(self, namespace: Namespace) -> Settled:
        """For one namespace."""
        name = namespace.name
        placing = tuple(demand for demand, names in self._placing if name in names)
        running = tuple(demand for demand, names in self._running if name in names)
        ceilings = self._ceiling(placing or _left_behind(namespace)), self._ceiling(running)
        same = id(ceilings[0]), id(ceilings[1])
        if same not in self._settled:
            self._settled[same] = _settled(*ceilings)
        return self._settled[same]

    @cached_property
    def _placing(self) -> Sequence[tuple[Demand, set[str]]]:
        return [(part.ceiling.demand, part.names) for reach in self._reaches for part in reach.placing]

    @cached_property
    def _running(self) -> Sequence[tuple[Demand, set[str]]]:
        return [(part.ceiling.demand, part.names) for reach in self._reaches for part in reach.running]

    def _ceiling(self, demands: tuple[Demand, ...]) -> Effective | None:
        """Nothing at all where nobody demands anything."""
        if not demands:
            return None
        same = tuple(map(id, demands))
        if same not in self._ceilings:
            self._ceilings[same] = effective(demands)
        return self._ceilings[same]


def _settled(placing: Effective | None, running: Effective | None) -> Settled:
    return Settled(placing, running, lru_cache(MOST_ASKS)(partial(_law, placing or NO_LAW, running or NO_LAW)))


def _law(placing: Effective, running: Effective, own: Demand) -> Law:
    found = under(placing, own)
    return Law(found, found if running is placing else under(running, own))


def _left_behind(namespace: Namespace) -> tuple[Demand, ...]:
    """What is demanded where policies selected a namespace once and none does any more."""
    if namespace.labels.get(LAW_LABEL) != LAW_REQUIRED:
        return ()
    return (Demand(f"Namespace/{namespace.name}", reading.NOWHERE),)


LAWLESS = _settled(None, None)
"""What pools are under that no policy is for."""
