"""Which replica goes where: observe → book → filter → score → choose → explain, over one frozen fleet.

Replicas are asked in order: priority, then the newest ReplicaSet of a pool, then how long they wait. One that fits
nowhere holds nobody else up: smaller or later replicas may take what it left. What protects a large one: it is asked
first whenever anything is freed, the fragmentation term keeps whole nodes whole, and nothing placed later is ever
placed *because* it is smaller. Nothing is preempted or held free for it; give it a higher priority and it wins every
race for freed room, no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from penstock.core import explanation
from penstock.core.fleet import Fleet
from penstock.core.ledger import Ledger
from penstock.core.model import PlacementRules, PoolKey, Replica, RightOfReturn, Scheduling
from penstock.core.residency import law
from penstock.core.scores import unusable_gpus
from penstock.core.table import Table
from penstock.core.topology import repelling_keys
from penstock.core.verdicts import Decision, Filter, Plan, Reason, Waiting

__all__ = ["Decision", "Filter", "Plan", "Reason", "Waiting", "in_asked_order", "plan"]


def plan(fleet: Fleet, waiting: Sequence[Replica], rights: Sequence[RightOfReturn], now_time: float) -> Plan:
    """Decide every waiting replica against one snapshot.

    After each decision no domain of the chosen node is over its usable watts, less the rights of return of other
    pools, unless the pool's own right covers what was added. `now_time` is Unix time, as `until_time` of a right is.
    """
    asked = in_asked_order(waiting)
    planner = Planner(fleet, Ledger(fleet, rights, now_time), asked)
    decisions, left = planner.place(asked)
    refusals = planner.refusals(left)
    return Plan(tuple(decisions), tuple(refusals), planner.ledger.rights.left())


def in_asked_order(waiting: Iterable[Replica]) -> list[Replica]:
    """Highest priority first, then the longest waiting; at a pool's turn its newest ReplicaSet goes first."""
    asked = sorted(waiting, key=lambda replica: (-replica.priority, replica.since_time, replica.key))
    turns: dict[tuple[int, PoolKey], list[int]] = defaultdict(list)
    for turn, replica in enumerate(asked):
        turns[replica.priority, replica.pool].append(turn)
    ordered = list(asked)
    for mine in turns.values():
        # Python's sort is stable, so that only the ReplicaSets change places.
        for turn, replica in zip(mine, sorted((asked[at] for at in mine), key=_older), strict=True):
            ordered[turn] = replica
    return ordered


def _older(replica: Replica) -> bool:
    return not replica.newest


class ReplicaClass(NamedTuple):
    """What makes two replicas the same to every node."""

    pool: PoolKey
    rules: PlacementRules
    requests: tuple[tuple[str, int], ...]
    scheduling: tuple[object, ...]
    labels: tuple[tuple[str, str], ...]
    avoid: frozenset[str]


class Planner:
    """One run over the waiting replicas: a ledger, and one table per class of replicas."""

    def __init__(self, fleet: Fleet, ledger: Ledger, asked: Sequence[Replica]) -> None:
        self.fleet = fleet
        self.ledger = ledger
        self._unusable = unusable_gpus(fleet, asked)
        self._tables: dict[ReplicaClass, Table] = {}
        self._classes: dict[tuple[int, ...], ReplicaClass] = {}
        self._topology: dict[str, bool] = {}

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
        returned = self.ledger.take(row, replica, watts)
        return Decision(
            replica=replica,
            node=chosen.node,
            country=line.view.node.country,
            law=law(replica.rules.residency, line.view.node) or (),
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
        key = self._class_of(replica)
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = Table(self.ledger, replica, self._unusable)
        table.catch_up()
        return table

    def refusals(self, left: Sequence[Replica]) -> list[Waiting]:
        """Why each of them waits, and what would help: once per class, at its first replica's turn."""
        verdicts: dict[ReplicaClass, Waiting] = {}
        answers = []
        for replica in left:
            key = self._class_of(replica)
            verdict = verdicts.get(key)
            if verdict is None:
                verdict = verdicts[key] = self._refusal(replica)
            answers.append(replace(verdict, replica=replica))
        return answers

    def _refusal(self, replica: Replica) -> Waiting:
        table = None if replica.scheduling.unjudged else self.table(replica)
        return explanation.waiting(replica, self.fleet, table)

    def _class_of(self, replica: Replica) -> ReplicaClass:
        # Replicas of one pool mostly share their objects; then their identities spare the hashing.
        parts = (replica.pool, replica.rules, replica.requests, replica.scheduling, replica.labels, replica.avoid)
        identity = tuple(map(id, parts))
        key = self._classes.get(identity)
        if key is None:
            key = self._classes[identity] = self._new_class(replica)
        return key

    def _new_class(self, replica: Replica) -> ReplicaClass:
        return ReplicaClass(
            replica.pool,
            replica.rules,
            tuple(sorted(replica.requests.items())),
            _comparable(replica.scheduling),
            tuple(sorted(replica.labels.items())) if self._labels_matter(replica) else (),
            replica.avoid,
        )

    def _labels_matter(self, replica: Replica) -> bool:
        """Only topology rules look at labels; a StatefulSet's differ from pod to pod."""
        namespace = replica.pool.namespace
        if namespace not in self._topology:
            self._topology[namespace] = bool(repelling_keys(self.fleet.pods(), namespace))
        return self._topology[namespace] or bool(replica.scheduling.anti_affinity or replica.scheduling.hard_spread)


def _comparable(scheduling: Scheduling) -> tuple[object, ...]:
    selector = tuple(sorted(scheduling.node_selector.items()))
    rest = (getattr(scheduling, name) for name in Scheduling.__dataclass_fields__ if name != "node_selector")
    return selector, *rest
