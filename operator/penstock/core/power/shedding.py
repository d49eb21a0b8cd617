"""Whom to shed: the fewest replicas of the lowest priority that cover what a domain draws too much, all at once.

Higher priority is touched only when everything lower that may be shed does not suffice. Within one priority the
largest go first, so that few are enough, and the last one is the smallest that still covers the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from penstock.core.model import Mode, Pod, PoolKey
from penstock.core.placement.fleet import Fleet
from penstock.core.pool import Pool, RollCall
from penstock.core.power import pressure
from penstock.core.power.cappable import Cappable, trimmable_watts
from penstock.core.power.pressure import NOTHING_KNOWN, Last, Watts

ENOUGH_WATTS = 1.0
"""A watt more or less is none that a meter would show."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that may be shed, and what that saves in each domain of its node."""

    pod: Pod
    pool: PoolKey
    watts: Watts

    @property
    def key(self) -> tuple[str, str]:
        return str(self.pool), self.pod.name


@dataclass(frozen=True, slots=True)
class Cut:
    """What a domain has to lose. `most` bounds how many replicas may go."""

    domain: str
    watts: float
    most: int
    emergency: bool = False


@dataclass
class Allowance:
    """How many more ready replicas of each pool may be taken out now, by its `disruption`."""

    left: dict[PoolKey, int] = field(default_factory=dict)

    def allows(self, one: Candidate) -> bool:
        return not one.pod.ready or self.left.get(one.pool, 0) > 0

    def take(self, one: Candidate) -> None:
        if one.pod.ready:
            self.left[one.pool] = self.left.get(one.pool, 0) - 1


def candidates(
    fleet: Fleet,
    pools: Mapping[PoolKey, Pool],
    rolls: Mapping[PoolKey, RollCall],
    last: Last = NOTHING_KNOWN,
) -> tuple[Candidate, ...]:
    """Every running replica that may be shed: its pool allows it, and its controller makes another in its place.

    A pool that only takes advice is never touched; a pod without a controller, or of a Job, would be lost.
    """
    found = [
        (key, pod)
        for key, pool in pools.items()
        if pool.rules.may_be_shed and pool.rules.mode is Mode.ENFORCE
        for pod in rolls[key].bound
        if pod.owner is not None and pod.owner.kind != "Job"
    ]
    saved = pressure.savings(fleet, (pod for _, pod in found), last)
    return tuple(Candidate(pod, key, watts) for (key, pod), watts in zip(found, saved, strict=True))


def by_domain(able: Iterable[Candidate]) -> Mapping[str, Sequence[Candidate]]:
    """The candidates of each domain."""
    found: dict[str, list[Candidate]] = {}
    for one in able:
        for name in one.watts:
            found.setdefault(name, []).append(one)
    return found


def allowance(pools: Mapping[PoolKey, Pool], rolls: Mapping[PoolKey, RollCall], leaving: Collection[str]) -> Allowance:
    """What each pool's `disruption.maxUnavailable` leaves, after those that are on their way out (`leaving` are about
    to be, by uid) or not ready yet. Those that wait at the gate take nobody's turn: what was shed stays away.
    """
    return Allowance(
        {key: max(0, pool.rules.max_unavailable - _unavailable(rolls[key], leaving)) for key, pool in pools.items()}
    )


def _unavailable(roll: RollCall, leaving: Collection[str]) -> int:
    away = sum(not pod.ready or pod.uid in leaving for pod in roll.bound)
    return len(roll.terminating) + len(roll.pinned) + away


def choose(cut: Cut, asked: Iterable[Candidate], allowed: Allowance) -> tuple[Candidate, ...]:
    """Whom to evict for this cut; those chosen are taken out of `allowed`.

    In an emergency a pool's disruption is passed over where nobody else is left to cover the rest.
    """
    able = sorted((one for one in asked if one.watts.get(cut.domain, 0.0) > ENOUGH_WATTS), key=lambda one: one.key)
    chosen = list(_cover(cut, cut.watts, able, cut.most, allowed))
    missing = cut.watts - _sum(cut, chosen)
    if cut.emergency and missing > ENOUGH_WATTS:
        rest = [one for one in able if one not in chosen]
        chosen += _cover(cut, missing, rest, cut.most - len(chosen), None)
    return tuple(chosen)


def _cover(
    cut: Cut, watts: float, able: Sequence[Candidate], most: int, allowed: Allowance | None
) -> Iterator[Candidate]:
    for _, members in groupby(sorted(able, key=lambda one: one.pod.priority), key=lambda one: one.pod.priority):
        for one in _fewest(cut, watts, members, allowed):
            if watts <= ENOUGH_WATTS or most <= 0:
                return
            if allowed is not None:
                allowed.take(one)
            watts -= one.watts[cut.domain]
            most -= 1
            yield one


def _fewest(cut: Cut, watts: float, members: Iterable[Candidate], allowed: Allowance | None) -> Iterator[Candidate]:
    """The largest first, and as the last one the smallest that suffices."""
    left = sorted(members, key=lambda one: (-one.watts[cut.domain], one.key))
    while left:
        left = [one for one in left if allowed is None or allowed.allows(one)]
        if not left:
            return
        enough = [one for one in left if one.watts[cut.domain] >= watts - ENOUGH_WATTS]
        one = min(enough, key=lambda each: each.watts[cut.domain]) if enough else left[0]
        left.remove(one)
        watts -= one.watts[cut.domain]
        yield one


def _sum(cut: Cut, chosen: Iterable[Candidate]) -> float:
    return sum(one.watts[cut.domain] for one in chosen)


def reachable_watts(domain: str, draw_watts: float, able: Sequence[Candidate], capped: Iterable[Cappable]) -> float:
    """What a domain would draw at its lowest: everybody shed who may be, and the others capped as far as they may."""
    shed = {one.pod.uid for one in able}
    trimmable = trimmable_watts(one for one in capped if one.pod.uid not in shed)
    return max(0.0, draw_watts - sum(one.watts.get(domain, 0.0) for one in able) - trimmable.get(domain, 0.0))


# ------------------------------------------------------------------------------------------------------ who was shed


@dataclass(frozen=True, slots=True)
class Shed:
    """One replica that a domain shed and that waits since. `watts` of the domain were saved by it."""

    pool: PoolKey
    domain: str
    watts: float
    since_time: float
    uid: str = ""
    """Of the pod; empty where it is only known from a status."""


YOUNG_SECONDS = 90.0
"""So long nobody asks whether a replica is still missing: its pod has to end and another has to be made."""


def still_waiting(found: Sequence[Shed], missing: Mapping[PoolKey, int], now_time: float) -> tuple[Shed, ...]:
    """Those that still wait. `missing` counts each pool's replicas without a place: one scaled down waits for none."""
    kept: list[Shed] = []
    counts: dict[PoolKey, int] = {}
    for one in sorted(found, key=lambda each: -each.since_time):
        taken = counts.get(one.pool, 0)
        young = now_time - one.since_time < YOUNG_SECONDS
        if one.pool in missing and (young or taken < missing[one.pool]):
            counts[one.pool] = taken + 1
            kept.append(one)
    return tuple(reversed(kept))


def returned(found: Sequence[Shed], pools: Iterable[PoolKey]) -> tuple[Shed, ...]:
    """Those that still wait after one replica of each named pool was placed again: the longest waiting first."""
    kept = sorted(found, key=lambda each: each.since_time)
    for pool in pools:
        first = next((one for one in kept if one.pool == pool), None)
        if first is not None:
            kept.remove(first)
    return tuple(kept)
