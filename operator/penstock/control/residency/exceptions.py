"""ResidencyExceptions: which are in force, for which pools, and what is wrong with the others."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.cluster.objects import ExceptionObject
from penstock.core.model import PoolKey
from penstock.core.residency import reading
from penstock.core.residency.ceiling import Widening
from penstock.core.residency.groups import Groups
from penstock.core.telling.problem import Problem

Widenings = tuple[Widening, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """An exception as it was read: what it names, and what it widens while it is in force."""

    found: ExceptionObject
    names: frozenset[str] = frozenset()
    """Policies, and groups as they are cited: when one of them changes it reads otherwise."""
    widening: Widening | None = None
    """None where it cannot be in force, whatever the time is."""
    pool: str = ""
    expires_time: float = math.inf
    problems: tuple[Problem, ...] = ()
    void: bool = False
    """Whether nothing of it can be in force as it is written."""


@dataclass
class Exceptions:
    """Read again only where one, or something that it names, changed. `levels` as those of `Laws`."""

    levels: Sequence[str]
    _read: dict[PoolKey, _Read] = field(default_factory=dict)
    _in_force: Mapping[str, Mapping[str, Widenings]] = field(default_factory=dict)
    """By namespace and the pool's name."""
    _ends_time: float = math.inf
    """When the next one in force ends."""

    @property
    def problems(self) -> dict[PoolKey, tuple[Problem, ...]]:
        return {key: one.problems for key, one in self._read.items() if one.problems}

    @property
    def void(self) -> frozenset[PoolKey]:
        """Those of which nothing can be in force as they are written."""
        return frozenset(key for key, one in self._read.items() if one.void)

    @property
    def in_force(self) -> Mapping[PoolKey, Widenings]:
        """What widens the policies, by pool."""
        return {PoolKey(name, pool): found for name, pools in self._in_force.items() for pool, found in pools.items()}

    def of(self, pool: PoolKey) -> Widenings:
        """What widens the policies for a pool."""
        return self.within(pool.namespace).get(pool.name, ())

    def within(self, namespace: str) -> Mapping[str, Widenings]:
        """The same for every pool of a namespace that there is one for, by its name."""
        return self._in_force.get(namespace, {})

    def look(
        self,
        written: Mapping[PoolKey, ExceptionObject],
        policies: Collection[str],
        known: Groups,
        changed: set[str],
        now_time: float,
    ) -> set[str]:
        """Take in what is written now; `changed` are policies that came or went, and groups that are other ones.

        Returns the namespaces in which another one is in force.
        """
        before, self._read = self._read, {}
        for key, found in sorted(written.items(), key=lambda entry: str(entry[0])):
            one = before.get(key)
            same = one is not None and (one.found is found or one.found == found) and one.names.isdisjoint(changed)
            self._read[key] = one if one is not None and same else self._try(found, policies, known)
        return self._settle(now_time)

    def keep_time(self, now_time: float) -> set[str]:
        """The namespaces in which one ended since the last look."""
        return set() if now_time < self._ends_time else self._settle(now_time)

    def _try(self, found: ExceptionObject, policies: Collection[str], known: Groups) -> _Read:
        if found.spec is None:
            return _Read(found, problems=found.problems, void=True)
        spec, source = found.spec, f"ResidencyException/{found.namespace}/{found.name}@{found.generation}"
        read = reading.exception(source, spec.policies, spec.widen, known, self.levels)
        problems = (*read.problems, *_unknown(spec, policies))
        names = frozenset(spec.policies) | reading.cited(spec.widen.allowed, spec.widen.operator)
        # A policy that goes takes nobody's exception from the others: what was approved for them was approved.
        void = bool(read.problems) or not any(name in policies for name in spec.policies)
        counts = not void and spec.approval is not None and not found.terminating
        widening = read.found if counts else None
        return _Read(found, names, widening, spec.pool, spec.expires.timestamp(), problems, void)

    def _settle(self, now_time: float) -> set[str]:
        before, found = self._in_force, defaultdict[str, dict[str, Widenings]](dict)
        self._ends_time = math.inf
        for key, one in self._read.items():
            if one.widening is None or one.expires_time <= now_time:
                continue
            pools = found[key.namespace]
            pools[one.pool] = (*pools.get(one.pool, ()), one.widening)
            self._ends_time = min(self._ends_time, one.expires_time)
        self._in_force = dict(found)
        return {name for name in before.keys() | found.keys() if before.get(name) != self._in_force.get(name)}


def _unknown(spec: ResidencyExceptionSpec, policies: Collection[str]) -> tuple[Problem, ...]:
    return tuple(
        Problem(f"spec.policies[{at}]", name, "no such ResidencyPolicy: name one that there is")
        for at, name in enumerate(spec.policies)
        if name not in policies
    )
