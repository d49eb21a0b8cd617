"""One run over waiting replicas: who is asked, which node it gets, and what that leaves for the others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

from penstock.core.model import PlacementRules, PoolKey, Replica, Residency
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scheduling import Scheduling
from penstock.core.placement.scores import unusable_gpus
from penstock.core.placement.table import Table
from penstock.core.placement.topology import repelling_keys
from penstock.core.placement.verdicts import Decision
from penstock.core.power.ledger import Ledger
from penstock.core.residency import law


class ReplicaClass(NamedTuple):
    """What makes two replicas the same to every node."""

    pool: PoolKey
    rules: PlacementRules
    requests: tuple[tuple[str, int], ...]
    residency: Residency
    scheduling: tuple[object, ...]
    labels: tuple[tuple[str, str], ...]
    avoid: frozenset[str]
    template_hash: str
    """Where watts were learned of templates of the pool, so that each reserves its own."""
    priority: int
    """Where capped replicas take watts back: those of lower priority do not come before it."""


class Planner:
    """One run over the waiting replicas: a ledger, and one table per class of replicas."""

    def __init__(self, fleet: Fleet, ledger: Ledger, asked: Sequence[Replica]) -> None:
        self.fleet = fleet
        self.ledger = ledger
        self._unusable = unusable_gpus(fleet, asked)
        self._tables: dict[ReplicaClass, Table] = {}
        self._parent: Planner | None = None
        self._classes: dict[tuple[object, ...], tuple[ReplicaClass, Replica]] = {}
        self._repelling = repelling_keys(fleet, asked)

    def place(self, asked: Sequence[Replica]) -> tuple[list[Decision], list[Replica]]:
        """Decide in order; again for those left while a decision may have evened out a hard spread."""
        decisions: list[Decision] = []
        while True:
            left: list[Replica] = []
            before = len(decisions)
            for replica in asked:
                decision = self.choose(replica)
                if decision is None:
                    left.append(replica)
                else:
                    decisions.append(decision)
            if len(decisions) == before or not any(replica.scheduling.hard_spread for replica in left):
                return decisions, left
            asked = left

    def choose(self, replica: Replica) -> Decision | None:
        """The best node for one replica, booked at once; `None` where no node will do."""
        if replica.scheduling.unjudged:
            return None
        table = self.table(replica)
        row = table.best()
        return None if row is None else self._take(table, replica, row)

    def _take(self, table: Table, replica: Replica, row: int) -> Decision:
        second = table.runner_up(row)
        line = self.fleet.rows[row]
        chosen, runner_up = table.candidate(row), table.candidate(second) if second is not None else None
        refused, watts, gpu_watts = table.refused(), table.watts[row].tolist(), float(table.gpu_watts[row])
        returned = self.ledger.take(row, replica, table.hold, watts)
        return Decision(
            replica=replica,
            node=chosen.node,
            country=line.view.node.country,
            law=law(replica.residency, line.view.node) or (),
            watts=tuple((self.fleet.domains[at].name, added) for at, added in zip(line.domains, watts, strict=False)),
            gpu_watts=gpu_watts,
            chosen=chosen,
            runner_up=runner_up,
            candidates=len(self.fleet.rows) - sum(number for _, number in refused),
            refused=refused,
            leaves_gpus=int(self.ledger.free_gpus[row]),
            returned_watts=returned,
        )

    def table(self, replica: Replica) -> Table:
        """The table of the replica's class, as the decisions so far have left it."""
        key = self.class_of(replica)
        table = self._tables.get(key)
        if table is None:
            known = self._parent._tables.get(key) if self._parent else None  # noqa: SLF001  its own kind
            table = known.onto(self.ledger) if known else self._new_table(replica)
            self._tables[key] = table
        table.catch_up()
        return table

    def fork(self) -> Planner:
        """The same state, to try something out on."""
        twin = copy.copy(self)
        twin.ledger = self.ledger.copy()
        vars(twin).update(_tables={}, _parent=self)
        return twin

    def on(self, fleet: Fleet) -> Planner:
        """The same decisions on another fleet of the same nodes, to try that out."""
        twin = copy.copy(self)
        twin.fleet, twin.ledger = fleet, self.ledger.onto(fleet)
        vars(twin).update(_tables={}, _parent=None)
        return twin

    def class_of(self, replica: Replica) -> ReplicaClass:
        # Replicas of one pool mostly share their objects; then their identities spare the hashing.
        parts = (replica.pool, replica.rules, replica.requests, replica.residency)
        rest = (replica.scheduling, replica.labels, replica.avoid)
        identity = (*map(id, (*parts, *rest)), replica.template_hash, replica.priority)
        known = self._classes.get(identity)
        if known is None:
            # The replica is kept beside its class: an object that is gone leaves its identity to another.
            known = self._classes[identity] = (self._new_class(replica), replica)
        return known[0]

    def _new_class(self, replica: Replica) -> ReplicaClass:
        return ReplicaClass(
            replica.pool,
            replica.rules,
            tuple(sorted(replica.requests.items())),
            replica.residency,
            _comparable(replica.scheduling),
            tuple(sorted(replica.labels.items())) if self._labels_matter(replica) else (),
            replica.avoid,
            replica.template_hash if replica.rules.learned else "",
            replica.priority if self.ledger.owed else 0,
        )

    def _labels_matter(self, replica: Replica) -> bool:
        """Only topology rules look at labels; a StatefulSet's differ from pod to pod."""
        rules = replica.scheduling
        return bool(rules.anti_affinity or rules.hard_spread or self._repelling.get(replica.pool.namespace))

    def _new_table(self, replica: Replica) -> Table:
        return Table(self.ledger, replica, self._unusable, self._repelling.get(replica.pool.namespace, ()))


def _comparable(scheduling: Scheduling) -> tuple[object, ...]:
    selector = tuple(sorted(scheduling.node_selector.items()))
    rest = (getattr(scheduling, name) for name in Scheduling.__dataclass_fields__ if name != "node_selector")
    return selector, *rest
