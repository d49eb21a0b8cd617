"""Naming replicas that policies in mode Audit would not have where they are: nothing is narrowed, nobody is moved."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.api.inferencepool import Violation
from penstock.cluster.events import Events, Subject
from penstock.cluster.state import ClusterState
from penstock.core.model import Node, Pod, PoolKey
from penstock.core.pool import Pool, RollCall
from penstock.core.residency import isolation, strangers, whereabouts
from penstock.core.residency.ceiling import Demand, effective
from penstock.core.residency.whereabouts import meets

Labels = tuple[tuple[str, str], ...]

REMEDY = "the policy only audits, so nothing is done: set its mode to Enforce, or narrow the pool's spec.residency"
"""For people."""


@dataclass(frozen=True, slots=True)
class Audited:
    """A replica that runs where these demands in mode Audit do not allow it."""

    pod: Pod
    node: Node
    demands: tuple[Demand, ...]
    since_time: float
    message: str


@dataclass
class Auditing:
    """Who is outside policies that only audit, and told of."""

    state: ClusterState
    events: Events
    _outside: dict[PoolKey, dict[str, Audited]] = field(default_factory=dict)
    """By pool and uid."""
    _clauses: dict[tuple[tuple[Demand, ...], Labels], str] = field(default_factory=dict)
    """In one look: what is said of each place under these demands. A revision says all of it anew."""

    def look_at(self, pool: Pool, roll: RollCall, elsewhere: Collection[str], now_time: float) -> None:
        """Find whom such policies would not have where they are. `elsewhere` are the uids that are named already."""
        known = self._outside.pop(pool.key, {})
        if not pool.standing_law.audited:
            return
        if not (broken := tuple(self._broken(pool, roll, elsewhere, now_time))):
            return
        told = {} if known else self._told(pool.key)
        found = self._outside[pool.key] = {
            pod.uid: self._audited(pod, node, demands, known.get(pod.uid), _since_time(pod, told, now_time))
            for pod, node, demands in broken
        }
        # The rate of Events is shared with those of a law in force that is broken: the status alone names later ones.
        if not known and not any(told.get((one.pod.name, one.pod.node)) == one.since_time for one in found.values()):
            self._tell(pool, tuple(found.values()))

    def forget_all_but(self, pools: Collection[PoolKey]) -> None:
        """The look is over, and only these pools are there still."""
        self._clauses.clear()
        for key in [key for key in self._outside if key not in pools]:
            del self._outside[key]

    def violations(self, key: PoolKey, most: int) -> tuple[Violation, ...]:
        """What the pool's status says of them: the longest first."""
        longest = sorted(self._outside.get(key, {}).values(), key=lambda one: one.since_time)[:most]
        return tuple(map(_violation, longest))

    def _broken(
        self, pool: Pool, roll: RollCall, elsewhere: Collection[str], now_time: float
    ) -> Iterable[tuple[Pod, Node, tuple[Demand, ...]]]:
        for pod in (*roll.bound, *roll.terminating):
            node = self.state.nodes.get(pod.node)
            if node is None or pod.uid in elsewhere:  # Of a node that is gone nobody knows a place.
                continue
            demands = tuple(one for one in pool.standing_law.audited if not meets(one, node, now_time))
            if demands:
                yield pod, node, demands

    def _told(self, key: PoolKey) -> Mapping[tuple[str, str], float]:
        """By pod and node: since when it is outside, as the leader before us told."""
        found = self.state.pools.get(key)
        return isolation.recalled(found.status, reports=True) if found else {}

    def _audited(
        self, pod: Pod, node: Node, demands: tuple[Demand, ...], known: Audited | None, since_time: float
    ) -> Audited:
        if known is None:
            return Audited(pod, node, demands, since_time, self._sentence(node, demands))
        if known.node is node and known.demands == demands:
            return known if known.pod is pod else replace(known, pod=pod)
        return replace(known, pod=pod, node=node, demands=demands, message=self._sentence(node, demands))

    def _sentence(self, node: Node, demands: tuple[Demand, ...]) -> str:
        _, labels = whereabouts.place(node.name, node.labels)
        found = self._clauses.get((demands, labels))
        if found is None:
            law = effective(replace(one, enforced=True) for one in demands)
            found = self._clauses[demands, labels] = isolation.clause(node, law)
        return f"node {node.name} {found}"

    def _tell(self, pool: Pool, new: Sequence[Audited]) -> None:
        """One Event for a pool, when the first of its replicas are outside: the status names each."""
        more = f"; and {len(new) - 1} more replicas" if len(new) > 1 else ""
        subject = Subject("InferencePool", pool.key.namespace, pool.key.name, pool.uid)
        self.events.post(subject, "Warning", "AuditViolation", f"{new[0].pod.name}: {new[0].message}{more}; {REMEDY}")


def _since_time(pod: Pod, told: Mapping[tuple[str, str], float], now_time: float) -> float:
    return strangers.since_time(pod, told.get((pod.name, pod.node)), now_time)


def _violation(one: Audited) -> Violation:
    remedy = "it is ending within its grace" if one.pod.terminating else REMEDY
    return isolation.told(one.pod, one.node, one.since_time, action="Report", message=one.message, remedy=remedy)
