"""Where the pods are that a replica must keep away from, or be spread among: counts per topology value.

The counts take in pods that are only pinned, and grow with each decision of the plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from penstock.core.affinity import selects
from penstock.core.columns import Bools, Column, Floats
from penstock.core.fleet import Fleet
from penstock.core.model import HardSpread, LabelRule, Labels, Pod, Replica, SoftSpread


class Peers:
    """How many pods that count stand at each value of one topology key."""

    def __init__(self, fleet: Fleet, topology_key: str, counts: Callable[[Pod], bool], where: Bools) -> None:
        self.values: Column[str | None] = fleet.label(topology_key)
        self.where = where
        self.numbers: Counter[str | None] = Counter()
        for at, row in enumerate(fleet.rows):
            if where[at]:
                self.numbers[self.values[at]] += sum(counts(pod) for pod in row.view.pods)

    def add(self, row: int) -> None:
        if self.where[row]:
            self.numbers[self.values[row]] += 1

    def per_row(self) -> Floats:
        """The count at each row's own value."""
        table = np.array([float(self.numbers[value]) for value in self.values.values])
        return table[self.values.codes] if len(table) else np.zeros(0)

    def least(self) -> int:
        """The smallest count over the values that stand on any row that counts."""
        seen = {self.values.values[code] for code in np.unique(self.values.codes[self.where])} - {None}
        return min((self.numbers[value] for value in seen), default=0)


class Constraint:
    """One rule over peers: which rows it allows now, and how a decision changes it."""

    def __init__(self, peers: Peers, counts: Callable[[Replica], bool], allows: Callable[[Peers], Bools]) -> None:
        self.peers = peers
        self._counts = counts
        self._allows = allows

    def allowed(self) -> Bools:
        return self._allows(self.peers)

    def saw(self, row: int, replica: Replica) -> bool:
        """Take a decision of this plan into account. Whether it counts here."""
        if counted := self._counts(replica):
            self.peers.add(row)
        return counted


def constraints(fleet: Fleet, replica: Replica, eligible: Bools) -> list[Constraint]:
    """Every topology rule that this replica's node must satisfy. `eligible`: rows its node affinity admits."""
    namespace = replica.pool.namespace
    everywhere = np.ones(len(fleet.rows), dtype=np.bool_)
    rules = [
        _matching(fleet, rule.topology_key, namespace, rule.selector, everywhere, _none_there)
        for rule in replica.scheduling.anti_affinity
    ]
    rules += [
        _matching(fleet, rule.topology_key, namespace, rule.selector, eligible, _within_skew(rule), terminating=False)
        for rule in replica.scheduling.hard_spread
    ]
    for key in repelling_keys(fleet.pods(), namespace):
        rules.append(_repelled_by(fleet, key, replica, everywhere))
    return rules


def repelling_keys(pods: Iterable[Pod], namespace: str) -> list[str]:
    """Topology keys by which pods of a namespace keep others away."""
    return sorted(
        {rule.topology_key for pod in pods if pod.namespace == namespace for rule in pod.scheduling.anti_affinity}
    )


def _matching(
    fleet: Fleet,
    key: str,
    namespace: str,
    selector: LabelRule,
    where: Bools,
    allows: Callable[[Peers], Bools],
    terminating: bool = True,
) -> Constraint:
    def pod_counts(pod: Pod) -> bool:
        return pod.namespace == namespace and (terminating or not pod.terminating) and selects(selector, pod.labels)

    def replica_counts(other: Replica) -> bool:
        return other.pool.namespace == namespace and selects(selector, other.labels)

    return Constraint(Peers(fleet, key, pod_counts, where), replica_counts, allows)


def _repelled_by(fleet: Fleet, key: str, replica: Replica, everywhere: Bools) -> Constraint:
    # Anti-affinity is symmetric: a pod that is there already keeps a newcomer away that its own rule selects.
    namespace = replica.pool.namespace

    def repels(owner: Pod | Replica) -> bool:
        rules = owner.scheduling.anti_affinity
        return any(rule.topology_key == key and selects(rule.selector, replica.labels) for rule in rules)

    peers = Peers(fleet, key, lambda pod: pod.namespace == namespace and repels(pod), everywhere)
    return Constraint(peers, lambda other: other.pool.namespace == namespace and repels(other), _none_there)


def _none_there(peers: Peers) -> Bools:
    # A node without the topology key shares its value with nobody.
    return peers.values.where(lambda value: value is None or peers.numbers[value] == 0)


def _within_skew(rule: HardSpread) -> Callable[[Peers], Bools]:
    def allows(peers: Peers) -> Bools:
        # The pin makes its own value the only eligible one, so with minDomains kube-scheduler's minimum is 0.
        least = 0 if rule.min_domains > 1 else peers.least()
        return peers.values.where(lambda value: value is not None and peers.numbers[value] + 1 - least <= rule.max_skew)

    return allows


def pool_peers(fleet: Fleet, replica: Replica, rule: SoftSpread, where: Bools) -> Peers:
    """The replica's own pool, for a wish to be spread."""
    pool = replica.pool

    def counts(pod: Pod) -> bool:
        return pod.pool == pool.name and pod.namespace == pool.namespace and not pod.terminating

    return Peers(fleet, rule.topology_key, counts, where)
