"""Where the pods are that a replica must keep away from, or be spread among: counts per topology value.

The counts take in pods that are only pinned, and grow with each decision of the plan.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from penstock.core.model import Pod, Replica, SoftSpread
from penstock.core.placement.affinity import selects
from penstock.core.placement.columns import Bools, Column, Floats
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scheduling import HardSpread, LabelRule


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


def constraints(fleet: Fleet, replica: Replica, repelling_keys: Sequence[str], eligible: Bools) -> list[Constraint]:
    """Every topology rule that this replica's node must satisfy.

    `repelling_keys`: topology keys by which others of its namespace may keep it away; `eligible`: the rows that its
    node affinity admits.
    """
    namespace = replica.pool.namespace
    everywhere = np.ones(len(fleet.rows), dtype=np.bool_)
    rules = [
        Constraint(
            Peers(fleet, rule.topology_key, _matching(rule.selector, namespace), everywhere),
            _asking(rule.selector, namespace),
            _none_there,
        )
        for rule in replica.scheduling.anti_affinity
    ]
    rules += [
        Constraint(
            Peers(fleet, rule.topology_key, _staying(rule.selector, namespace), eligible),
            _asking(rule.selector, namespace),
            _within_skew(rule),
        )
        for rule in replica.scheduling.hard_spread
    ]
    return rules + [_repelled_by(fleet, key, replica, everywhere) for key in repelling_keys]


def repelling_keys(fleet: Fleet, asked: Iterable[Replica]) -> Mapping[str, Sequence[str]]:
    """Per namespace, the topology keys by which pods keep others away: those there, and those about to be placed."""
    found = {rule for rules in fleet.columns.repelling.values for rule in rules}
    for replica in asked:
        found.update((replica.pool.namespace, rule.topology_key) for rule in replica.scheduling.anti_affinity)
    keys: dict[str, list[str]] = defaultdict(list)
    for namespace, key in sorted(found):
        keys[namespace].append(key)
    return keys


def _matching(selector: LabelRule, namespace: str) -> Callable[[Pod], bool]:
    return lambda pod: pod.namespace == namespace and selects(selector, pod.labels)


def _staying(selector: LabelRule, namespace: str) -> Callable[[Pod], bool]:
    # kube-scheduler leaves terminating pods out of a spread, though not out of an anti-affinity.
    matches = _matching(selector, namespace)
    return lambda pod: not pod.terminating and matches(pod)


def _asking(selector: LabelRule, namespace: str) -> Callable[[Replica], bool]:
    return lambda other: other.pool.namespace == namespace and selects(selector, other.labels)


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
