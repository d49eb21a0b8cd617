"""How many replicas run under each policy, and how many of them outside: counted again where something changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.control.picture import Picture
from penstock.control.residency.exceptions import Widenings
from penstock.control.residency.laws import is_lawful
from penstock.core.model import Node, PoolKey
from penstock.core.pool import Pool, RollCall
from penstock.core.residency.standing import Ceiling, Standing

RECOUNT_SECONDS = 10.0
"""From count to count where nothing changed and evidence may have run out."""


class Count(NamedTuple):
    """Pools under a policy, their replicas with a place, and how many run where the policy does not allow it."""

    pools: int = 0
    replicas: int = 0
    outside: int = 0


def count(picture: Picture, one: Standing, pools: Iterable[Pool], now_time: float) -> Count:
    """Count these pools, which the policy covers."""
    found = replicas = outside = 0
    for pool in pools:
        found += 1
        law = picture.laws.of_policy(one, pool.key)
        roll = picture.rolls[pool.key]
        replicas += len(roll.bound)
        # Whoever ends, or is out of traffic, runs until it is gone.
        for pod in (*roll.bound, *roll.terminating, *picture.state.isolated.get(pool.key, {}).values()):
            node = picture.state.nodes.get(pod.node)
            outside += node is not None and not is_lawful(law, node, now_time)
    return Count(found, replicas, outside)


@dataclass(frozen=True, slots=True)
class _Counted:
    ceiling: Ceiling | None
    widenings: Mapping[str, Widenings]
    count: Count


@dataclass
class Headcount:
    """The counts of each policy in each namespace."""

    _rolls: dict[PoolKey, RollCall] = field(default_factory=dict)
    _nodes: dict[str, Node] = field(default_factory=dict)
    _counted: dict[str, dict[str, _Counted]] = field(default_factory=dict)
    """By namespace and policy; none where it must be counted again."""
    _recounted_at: float = float("-inf")

    def look(self, picture: Picture, now_at: float) -> None:
        """Take in where something changed since the last look."""
        rolls, nodes = picture.rolls, picture.state.nodes
        changed = {key.namespace for key, roll in rolls.items() if self._rolls.get(key) is not roll}
        changed |= {key.namespace for key in self._rolls if key not in rolls}
        moved = [name for name, node in nodes.items() if self._nodes.get(name) is not node]
        moved += [name for name in self._nodes if name not in nodes]
        changed |= {pod.namespace for name in moved for pod in picture.state.pods_by_node.get(name, {}).values()}
        self._rolls, self._nodes = dict(rolls), dict(nodes)
        for namespace in changed:
            self._counted.pop(namespace, None)
        if now_at - self._recounted_at >= RECOUNT_SECONDS:
            self._recounted_at = now_at
            self._drop_aging(picture)

    def of(
        self,
        picture: Picture,
        one: Standing,
        namespaces: Sequence[str],
        pools: Mapping[str, Sequence[Pool]],
        now_time: float,
    ) -> Count:
        """What a policy comes to in these namespaces; `pools` are all that there are, by namespace."""
        counts = (self._within(picture, one, name, pools.get(name, ()), now_time) for name in namespaces)
        columns = tuple(zip(*counts, strict=True))
        return Count(*map(sum, columns)) if columns else Count()

    def _within(self, picture: Picture, one: Standing, namespace: str, pools: Sequence[Pool], now_time: float) -> Count:
        here, widenings = self._counted.setdefault(namespace, {}), picture.laws.widenings_in(namespace)
        known = here.get(one.name)
        if known is None or known.ceiling is not one.counts or known.widenings != widenings:
            known = here[one.name] = _Counted(one.counts, widenings, count(picture, one, pools, now_time))
        return known.count

    def _drop_aging(self, picture: Picture) -> None:
        aging = {name for name, one in picture.laws.standings.items() if _ages(one)}
        kept = picture.laws.standings.keys() - aging
        self._counted = {
            namespace: {name: found for name, found in here.items() if name in kept}
            for namespace, here in self._counted.items()
            if namespace in picture.state.namespaces
        }


def _ages(one: Standing) -> bool:
    """Whether time alone may put somebody outside."""
    return one.counts is not None and one.counts.demand.drains_on_expiry
