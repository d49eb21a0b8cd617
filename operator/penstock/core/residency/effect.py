"""What an edit of the law would do: who leaves, who goes where, who has nowhere to go, and who waits because of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.core.model import Node, Pod, PoolKey, Replica
from penstock.core.placement.verdicts import Decision, Plan
from penstock.core.pool import Pool
from penstock.core.residency import isolation
from penstock.core.residency.ceiling import Effective
from penstock.core.telling import explanation
from penstock.core.telling.outcomes import Outcome
from penstock.core.telling.waits import WaitingFact, waiting_fact

NOWHERE = ""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A replica that the edit puts outside the law, and what would be made in its place."""

    pool: Pool
    pod: Pod
    node: Node
    replacement: Replica


@dataclass(frozen=True, slots=True)
class Move:
    """One replica that would leave its place. `to` is empty where it had nowhere to go; `reason` says why there."""

    pool: str
    pod: str
    node: str
    place: str
    action: str
    why: str
    to: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Replicas of a pool that would wait for one thing; `running` of them run today."""

    pool: str
    replicas: int
    running: int
    reason: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Effect:
    """The whole of it. `freed` are replicas that wait today and would have a place, by pool."""

    moves: tuple[Move, ...] = ()
    waits: tuple[Wait, ...] = ()
    freed: Mapping[str, int] | None = None

    @property
    def stranded(self) -> int:
        return sum(move.to == NOWHERE for move in self.moves)


def effect(
    pools: Mapping[PoolKey, Pool], leaving: Sequence[Leaving], before: Plan, after: Plan, ended: Iterable[Move] = ()
) -> Effect:
    """Put together of the plan as things are, and of that under the edit for those who wait and those who leave.

    `ended` are pods of no pool that the edit ends.
    """
    decisions = {one.replica.key: one for one in after.decisions}
    facts = {one.replica.key: waiting_fact(pools[one.replica.pool], one) for one in after.waiting}
    facts |= {one.replacement.key: _unasked(one.pool) for one in leaving if one.pool.problems}
    asked = {one.replica.key: one.replica.pool for one in before.decisions}
    asked |= {one.replica.key: one.replica.pool for one in before.waiting}
    held = {key: asked[key] for key in before.nodes if key in facts}
    stranded = {one.replacement.key: one.pool.key for one in leaving if one.replacement.key in facts}
    return Effect(
        moves=(*(_move(one, decisions, facts) for one in leaving), *ended),
        waits=_waits(facts, stranded, held),
        freed=Counter(str(asked[key]) for key in decisions if key in asked and key not in before.nodes),
    )


def of_no_pool(pod: Pod, node: Node, law: Effective) -> Move:
    """A pod that nobody replaces: it is ended where it is."""
    return Move(
        pool=f"{pod.namespace} (no pool)",
        pod=pod.name,
        node=node.name,
        place=node.subdivision or node.country,
        action=law.on_violation,
        why=isolation.sentence(node, law),
        to=NOWHERE,
        reason="it is in no pool, so nobody replaces it",
    )


def _move(one: Leaving, decisions: Mapping[str, Decision], facts: Mapping[str, WaitingFact]) -> Move:
    decision = decisions.get(one.replacement.key)
    return Move(
        pool=str(one.pool.key),
        pod=one.pod.name,
        node=one.node.name,
        place=one.node.subdivision or one.node.country,
        action=one.pool.standing_law.on_violation,
        why=isolation.sentence(one.node, one.pool.standing_law),
        to=decision.node if decision else NOWHERE,
        reason=explanation.sentence(decision) if decision else facts[one.replacement.key].message,
    )


def _waits(
    facts: Mapping[str, WaitingFact], stranded: Mapping[str, PoolKey], held: Mapping[str, PoolKey]
) -> tuple[Wait, ...]:
    """Those who wait for the same thing together, the largest group of a pool first."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    running: Counter[tuple[str, str, str, str]] = Counter()
    for key, pool in {**stranded, **held}.items():
        fact = facts[key]
        group = (str(pool), fact.reason, fact.message, fact.would_fit)
        found[group] += 1
        running[group] += key in stranded
    ordered = sorted(found, key=lambda group: (group[0], -found[group], group))
    return tuple(Wait(group[0], found[group], running[group], *group[1:]) for group in ordered)


def _unasked(pool: Pool) -> WaitingFact:
    """Of a pool whose spec cannot be read nothing new is placed."""
    told = "; ".join(map(str, pool.problems))
    return WaitingFact(Outcome.INVALID_SPEC, told, pool.problems[0].remedy, 0.0, {})
