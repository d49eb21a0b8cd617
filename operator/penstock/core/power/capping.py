"""Which power limits to ask for: the lowest priority first, all GPUs of a replica alike, and back in reverse order.

A cap is an ask until the node's agent reads the limit back; only then does it count in the power book. Here it counts
as under way for as long as a capper may take, so that one need is not met twice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from penstock.core.model import Mode, Pod, PoolKey
from penstock.core.placement.fleet import Fleet
from penstock.core.power.cappable import SAME_WATTS, Asked, Cappable
from penstock.core.power.node_watts import LIMIT_TOLERANCE

RAISE_SECONDS = 30.0
RAISE_SHARE = 0.05
"""A limit rises by this share of what it was before, once in `RAISE_SECONDS`."""
STEP_WATTS = 5.0
"""Limits are asked for in such steps, so that they do not move with every sample."""


@dataclass(frozen=True, slots=True)
class CapAsk:
    """One power limit that we ask of a node, and the pod with which it ends."""

    node: str
    uuid: str
    watts: float
    namespace: str
    pod: str
    pod_uid: str


@dataclass(frozen=True, slots=True)
class Need:
    """Watts that a domain has to lose at its PDU: of what it draws, and of what its limits let it draw.

    `urgent`: an emergency, so cappers set limits at once. Infinite watts ask for all that caps can take.
    """

    draw_watts: float = 0.0
    limit_watts: float = 0.0
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """Watts that a domain may regain at its PDU: of what it draws, and of what its limits let it draw."""

    draw_watts: float = math.inf
    limit_watts: float = math.inf


@dataclass(frozen=True, slots=True)
class CapPlan:
    """All limits to ask for, node by node; a node in none of them gets its baselines back."""

    asks: tuple[CapAsk, ...] = ()
    lowered: frozenset[str] = field(default_factory=frozenset)
    """Pods, by uid, whose limit is lower than before."""
    raised: frozenset[str] = field(default_factory=frozenset)
    given_back: tuple[CapAsk, ...] = ()
    """What is asked for no more, since it has risen all the way: the last step, to the limit before the first cap."""

    def by_node(self) -> Mapping[str, Sequence[CapAsk]]:
        found: dict[str, list[CapAsk]] = defaultdict(list)
        for ask in self.asks:
            found[ask.node].append(ask)
        return found


def plan_caps(  # noqa: PLR0917  who there is, what was asked, what is needed and when
    fleet: Fleet,
    able: Sequence[Cappable],
    asked: Mapping[str, Asked],
    needs: Mapping[str, Need],
    rooms: Mapping[str, Room],
    now_at: float,
) -> CapPlan:
    """The limits to ask for at this moment.

    `able` may be capped, by their rank. `asked` has what each pod is asked for so far, by uid. `needs` and `rooms` are
    by domain; a domain that needs something regains nothing, and one without an entry in `rooms` regains all.
    """
    levels: dict[str, float] = {one.pod.uid: one.asked.watts for one in able if one.asked}
    lowered: dict[str, float] = {}
    for seen in (False, True):
        lowered.update(_trim([one for one in able if one.observed is seen], needs))
    raised = _restore([one for one in able if one.pod.uid not in lowered], needs, rooms, now_at)
    levels |= lowered | raised
    free = {uid for uid, watts in raised.items() if watts == math.inf}
    standing = [one for one in able if one.pod.uid in levels.keys() - free]
    asks = [ask for one in standing for ask in _asks(one, levels[one.pod.uid])]
    asks += _kept(fleet, asked, {one.pod.uid for one in able})
    back = [ask for one in able if one.pod.uid in free for ask in _asks(one, one.top_watts)]
    return CapPlan(_ordered(asks), frozenset(lowered), frozenset(raised), _ordered(back))


# -------------------------------------------------------------------------------------------------------------- lower


@dataclass
class _Left:
    """What each domain has yet to lose."""

    draw: dict[str, float]
    limits: dict[str, float]

    @classmethod
    def of(cls, needs: Mapping[str, Need], able: Iterable[Cappable]) -> _Left:
        """The needs, less what is asked for already and not in force yet."""
        left = cls(
            {name: need.draw_watts for name, need in needs.items()},
            {name: need.limit_watts for name, need in needs.items()},
        )
        for one in able:
            coming = sum(gpu.draw_watts for gpu in one.gpus) - sum(one.draws)
            freed = sum(gpu.limit_watts for gpu in one.gpus) - sum(one.limits)
            left.take(one, coming, freed)
        return left

    def take(self, one: Cappable, draw_watts: float, limit_watts: float) -> None:
        for name, factor in one.factors:
            if name in self.draw:
                self.draw[name] -= factor * draw_watts
                self.limits[name] -= factor * LIMIT_TOLERANCE * limit_watts

    def wanted(self, one: Cappable) -> tuple[float, float]:
        """What this replica's GPUs should draw less, and by how much less their limits should be together."""
        draw = [self.draw.get(name, 0.0) / factor for name, factor in one.factors]
        limits = [self.limits.get(name, 0.0) / (factor * LIMIT_TOLERANCE) for name, factor in one.factors]
        return max(draw, default=0.0), max(limits, default=0.0)


def _trim(able: Sequence[Cappable], needs: Mapping[str, Need]) -> dict[str, float]:
    """New, lower limits by pod uid."""
    left = _Left.of(needs, able)
    lowered: dict[str, float] = {}
    for one in able:
        draw, limits = left.wanted(one)
        if one.pod.terminating or (draw <= SAME_WATTS and limits <= SAME_WATTS):
            continue
        watts = _lower(one, draw, limits)
        if watts is None:
            continue
        lowered[one.pod.uid] = watts
        left.take(one, sum(_above(one.acting(one.draws), watts)), sum(_above(one.acting(one.limits), watts)))
    return lowered


def _lower(one: Cappable, draw_watts: float, limit_watts: float) -> float | None:
    """The highest limit that is low enough for both wants, as far down as it may go; None where it is there."""
    draws, limits = one.acting(one.draws), one.acting(one.limits)
    line = min(_line(draws, draw_watts, one.floor_watts), _line(limits, limit_watts, one.floor_watts))
    if line == math.inf:
        return None
    watts = max(one.floor_watts, STEP_WATTS * math.floor(line / STEP_WATTS))
    highest = min(one.asked.watts if one.asked else math.inf, max(limits))
    return watts if watts < highest - SAME_WATTS else None


def _line(figures: Sequence[float], excess: float, floor_watts: float) -> float:
    """As far down as it may go to take off the excess; infinite where that takes nothing off."""
    line = max(_waterline(figures, excess), floor_watts)
    return line if line < max(figures, default=0.0) else math.inf


def _waterline(figures: Iterable[float], excess: float) -> float:
    """The highest line above which the figures hold the excess; zero where they hold less altogether."""
    if excess <= 0:
        return math.inf
    above = 0.0
    highest_first = [*sorted(figures, reverse=True), 0.0]
    for count, (figure, following) in enumerate(pairwise(highest_first), start=1):
        above += figure
        if above - count * following >= excess:
            return (above - excess) / count
    return 0.0


# -------------------------------------------------------------------------------------------------------------- raise


def _restore(
    able: Sequence[Cappable], needs: Mapping[str, Need], rooms: Mapping[str, Room], now_at: float
) -> dict[str, float]:
    """New, higher limits by pod uid, the highest priority first; infinite where the cap ends.

    Whom one domain keeps down holds others back in that domain alone, not in those above it.
    """
    raised: dict[str, float] = {}
    first: dict[str, int] = {}
    left = dict(rooms)
    for one in sorted(able, key=lambda each: (-each.pod.priority, each.rank)):
        if one.asked is None:
            continue
        if one.asked.watts < one.floor_watts - SAME_WATTS:
            raised[one.pod.uid] = one.floor_watts
            continue
        if any(first.get(name, one.pod.priority) != one.pod.priority for name, _ in one.factors):
            continue
        watts = one.asked.watts + RAISE_SHARE * one.top_watts
        after = _room_after(one, watts - one.asked.watts, left)
        short = [name for name, room in after.items() if _is_short(room, needs.get(name, Need()))]
        for name in short or after:
            first[name] = one.pod.priority
        if not short and now_at - one.asked.asked_at >= RAISE_SECONDS:
            left |= after
            raised[one.pod.uid] = watts if watts < one.top_watts - SAME_WATTS else math.inf
    return raised


def _is_short(room: Room, need: Need) -> bool:
    return need.draw_watts > 0 or need.limit_watts > 0 or room.draw_watts < 0 or room.limit_watts < 0


def _room_after(one: Cappable, raised_watts: float, rooms: Mapping[str, Room]) -> dict[str, Room]:
    """What is left of every domain's room once its limit is so much higher: a GPU may draw all that it regains."""
    asked_watts = one.asked.watts if one.asked else one.top_watts
    regained = len(one.gpus) * min(raised_watts, one.top_watts - asked_watts)
    after = {}
    for name, factor in one.factors:
        room = rooms.get(name, Room())
        limit_watts = room.limit_watts - factor * LIMIT_TOLERANCE * regained
        after[name] = Room(room.draw_watts - factor * regained, limit_watts)
    return after


# --------------------------------------------------------------------------------------------------------------- asks


def _ordered(asks: Iterable[CapAsk]) -> tuple[CapAsk, ...]:
    return tuple(sorted(asks, key=lambda ask: (ask.node, ask.uuid)))


def _asks(one: Cappable, watts: float) -> Iterator[CapAsk]:
    pod = one.pod
    for gpu in one.gpus:
        yield CapAsk(one.node, gpu.uuid, watts, pod.namespace, pod.name, pod.uid)


def _kept(fleet: Fleet, asked: Mapping[str, Asked], judged: Collection[str]) -> Iterator[CapAsk]:
    """What a node is asked for on behalf of a pod that is still there, though nobody can judge it just now."""
    for row in fleet.rows:
        telemetry = row.view.telemetry
        if telemetry is None or not telemetry.caps:
            continue
        pods = {pod.uid: pod for pod in row.view.pods if pod.node and not pod.finished}
        blind = telemetry.pods is None or telemetry.capper is None
        for cap in telemetry.caps:
            pod = pods.get(cap.pod_uid)
            if pod is None or cap.pod_uid in judged:
                continue
            if blind or _opted_in(fleet, pod):
                watts = asked[pod.uid].watts if pod.uid in asked else cap.watts
                yield CapAsk(row.view.node.name, cap.uuid, watts, cap.namespace, cap.pod, cap.pod_uid)


def _opted_in(fleet: Fleet, pod: Pod) -> bool:
    rules = fleet.context.pools.rules.get(PoolKey(pod.namespace, pod.pool))
    return rules is not None and rules.min_cap_watts is not None and rules.mode is not Mode.ADVISE


def _above(figures: Iterable[float], line: float) -> list[float]:
    return [max(0.0, figure - line) for figure in figures]
