"""An edit of the law, tried on the world as it is: the operator's own laws, re-check and planner, and nothing written.

What is confirmed afterwards is shown as confirmed, and an exception as approved: people ask what would follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.api.jurisdictiongroup import JurisdictionGroupStatus
from penstock.api.meta import Condition
from penstock.api.residencyexception import Approval, ResidencyExceptionStatus
from penstock.api.residencypolicy import ResidencyPolicyStatus
from penstock.cluster.objects import ExceptionObject, LawObject
from penstock.cluster.state import ClusterState
from penstock.control.learning import Learning
from penstock.control.picture import Picture
from penstock.control.power.ladder import said
from penstock.control.power.returning import Rights
from penstock.control.residency import isolating
from penstock.control.residency.law_report import by_namespace, covered, exception_facts, group_facts, policy_facts
from penstock.control.residency.laws import is_lawful
from penstock.core.model import Node, Pod, PoolKey, Replica
from penstock.core.placement import choice
from penstock.core.placement.choice import Plan
from penstock.core.pool import Pool, replacement, replicas
from penstock.core.power.ladder import Stage
from penstock.core.residency import law_status
from penstock.core.residency.ceiling import Effective
from penstock.core.residency.effect import Effect, Leaving, effect, of_no_pool
from penstock.core.residency.standing import Standing
from penstock.core.telling.problem import Problem

ANYBODY = "whoever approves it"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the status of one part of the law would say. `confirm` is the number that lets it count for what runs."""

    object: str
    holds: bool
    reason: str
    message: str
    confirm: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes of an edit. With `problems` it changes nothing for the better, and nothing more is told.

    `running` counts the replicas with a place in the namespaces that it is about.
    """

    rulings: tuple[Ruling, ...] = ()
    problems: tuple[tuple[str, Problem], ...] = ()
    effect: Effect = field(default_factory=Effect)
    running: int = 0


@dataclass
class Rehearsal:
    """The world as `state` has it at this monotonic and this Unix time."""

    state: ClusterState
    picture: Picture
    now_at: float
    now_time: float

    def run(self, edits: Sequence[LawObject[Any]]) -> Outcome:
        """Try these edits together."""
        self._look()
        Learning(self.state, 0.0).observe(self.picture, self.now_at, self.now_time)
        self._look()
        asked = self._waiting()
        before, outside = self._plan(asked), {pod.uid for _, pod, _ in (*self._outside(), *self._strangers())}
        for edit in edits:
            self._put(edit)
        self._look()
        problems = tuple((_name(edit), one) for edit in edits for one in self._problems(edit))
        if problems:
            return Outcome(problems=problems)
        touched = self._touched(edits)
        rulings = tuple(self._rulings(edits, touched))
        self.picture.confirm(touched)
        leaving = [
            Leaving(pool, pod, node, replacement(pool, pod, self.now_time))
            for pool, pod, node in self._outside()
            if pod.uid not in outside
        ]
        asks = [one.replacement for one in leaving if not one.pool.problems]
        ended = [of_no_pool(pod, node, law) for law, pod, node in self._strangers() if pod.uid not in outside]
        found = effect(self.picture.pools, leaving, before, self._plan([*self._waiting(), *asks]), ended)
        left = {one.pool.key for one in leaving}
        return Outcome(rulings, effect=found, running=self._running(edits, touched, left))

    # ------------------------------------------------------------------------------------------------------ the world

    def _look(self) -> None:
        self.picture.look(self.now_at, self.now_time)

    def _waiting(self) -> list[Replica]:
        pools, rolls = self.picture.pools, self.picture.rolls
        return [one for key, pool in pools.items() for one in replicas(pool, rolls[key], frozenset())]

    def _plan(self, asked: Sequence[Replica]) -> Plan:
        rights = Rights(0.0)
        rights.recall(self.state.domains.values())
        rights.keep_standing(self.picture, self.now_time)
        return choice.plan(self.picture.fleet, asked, rights.standing, self.now_time, self._held())

    def _held(self) -> frozenset[str]:
        """The domains in which nothing new is placed, as their statuses say."""
        written = {name: said(found) for name, found in self.state.domains.items()}
        return frozenset(name for name, one in written.items() if one and Stage(one.stage).holds)

    def _outside(self) -> Iterable[tuple[Pool, Pod, Node]]:
        for key, pool in self.picture.pools.items():
            for pod, node in isolating.outside(pool, self.picture.rolls[key].bound, self.state.nodes, self.now_time):
                yield pool, pod, node

    def _strangers(self) -> Iterable[tuple[Effective, Pod, Node]]:
        """Pods of no pool that run where the law of their namespace does not allow it."""
        for pod in self.picture.strangers(self.state.namespaces):
            law, node = self.picture.laws.settled(pod.namespace).running, self.state.nodes.get(pod.node)
            if law is not None and node is not None and not is_lawful(law, node, self.now_time):
                yield law, pod, node

    # ------------------------------------------------------------------------------------------------------- the edit

    def _put(self, edit: LawObject[Any]) -> None:
        if edit.kind == "ResidencyPolicy":
            self.state.policies.put(edit)
        elif edit.kind == "JurisdictionGroup":
            self.state.groups.put(edit)
        else:
            self.state.exceptions.put(_approved(edit))

    def _problems(self, edit: LawObject[Any]) -> Sequence[Problem]:
        """What nobody can read of it, though the API server takes it."""
        if edit.kind == "ResidencyPolicy":
            return self.picture.laws.standings[edit.name].problems
        if edit.kind == "JurisdictionGroup":
            return group_facts(self.picture.laws, edit, self.now_time).problems
        return exception_facts(self.state, self.picture.laws, edit, self.now_time).problems

    def _touched(self, edits: Sequence[LawObject[Any]]) -> tuple[str, ...]:
        """The policies that are edited, or read a group that is."""
        names = {edit.name for edit in edits if edit.kind == "ResidencyPolicy"}
        groups = {edit.name for edit in edits if edit.kind == "JurisdictionGroup"}
        return tuple(sorted(names.union(self.picture.laws.citing(groups))))

    def _rulings(self, edits: Sequence[LawObject[Any]], touched: Sequence[str]) -> Iterable[Ruling]:
        for edit in edits:
            if edit.kind == "JurisdictionGroup":
                group = law_status.group_status(
                    group_facts(self.picture.laws, edit, self.now_time), JurisdictionGroupStatus()
                )
                yield _ruling(_name(edit), group.conditions[0])
            elif edit.kind == "ResidencyException":
                facts = exception_facts(self.state, self.picture.laws, edit, self.now_time)
                yield _ruling(_name(edit), law_status.exception_status(facts, ResidencyExceptionStatus()).conditions[0])
        for name in touched:
            one = self.picture.laws.standings[name]
            facts_of = policy_facts(self.picture, one, *self._covered(one), self.now_time)
            policy = law_status.policy_status(facts_of, ResidencyPolicyStatus())
            ready = next(said for said in policy.conditions if said.type == "Ready")
            yield _ruling(f"ResidencyPolicy/{name}", ready, one.unconfirmed)

    def _covered(self, one: Standing) -> tuple[Sequence[str], Sequence[Pool]]:
        """The namespaces that a policy covers, and the pools in them."""
        names, here = covered(self.picture, one), by_namespace(self.picture.pools.values())
        return names, [pool for name in names for pool in here.get(name, ())]

    def _running(self, edits: Sequence[LawObject[Any]], touched: Sequence[str], left: set[PoolKey]) -> int:
        """How many replicas have a place under what is edited, pods of no pool included.

        Of pools that only cite a group themselves, or by an exception, those count that somebody leaves.
        """
        under = [self._covered(self.picture.laws.standings[name]) for name in touched]
        pools = left | {pool.key for _, here in under for pool in here}
        pools |= {
            PoolKey(edit.namespace, edit.spec.pool)
            for edit in edits
            if edit.kind == "ResidencyException" and edit.spec is not None
        }
        beside = sum(1 for _ in self.picture.strangers({name for names, _ in under for name in names}))
        return beside + sum(len(self.picture.rolls[key].bound) for key in pools if key in self.picture.rolls)


def _name(edit: LawObject[Any]) -> str:
    return f"{edit.kind}/{edit.namespace}/{edit.name}" if edit.namespace else f"{edit.kind}/{edit.name}"


def _ruling(name: str, said: Condition, confirm: int | None = None) -> Ruling:
    return Ruling(name, said.status == "True", said.reason, said.message, confirm)


def _approved(edit: ExceptionObject) -> ExceptionObject:
    if edit.spec is None or edit.spec.approval is not None:
        return edit
    return replace(edit, spec=edit.spec.model_copy(update={"approval": Approval(by=ANYBODY)}))
