"""Which replicas of a pool wait: for what, since when, and what would help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.api.inferencepool import Waiting
from penstock.core.placement import verdicts
from penstock.core.pool import Pool, RollCall
from penstock.core.residency import asking
from penstock.core.telling.conditions import MAX_MESSAGE
from penstock.core.telling.figures import utc
from penstock.core.telling.outcomes import Outcome

MAX_WAITING_GROUPS = 16


@dataclass(frozen=True, slots=True)
class WaitingFact:
    """One replica without a place: why, since when, and what would help."""

    reason: str
    message: str
    would_fit: str
    since_time: float
    refusals: Mapping[str, int]


def waiting_facts(pool: Pool, roll: RollCall, planned: Iterable[verdicts.Waiting]) -> Iterator[WaitingFact]:
    """All of a pool that waits: what the plan found no place for, and what it never was asked about."""
    yield from (waiting_fact(pool, one) for one in planned)
    for pod in roll.held:
        gates = ", ".join(pod.foreign_gates)
        told = f"held by the scheduling gate {gates} of somebody else; ours is decided when it is the last one"
        yield WaitingFact(Outcome.FOREIGN_GATE, told, f"whoever set {gates} lifts it", pod.created_time, {})
    for pod in roll.grouped:
        told = "a LeaderWorkerSet group is one replica, which Penstock cannot place yet"
        remedy = "use a Deployment or a StatefulSet, or take the gate out of the group's template"
        yield WaitingFact(Outcome.LEADER_WORKER_SET, told, remedy, pod.created_time, {})
    if pool.problems:
        told = "; ".join(str(problem) for problem in pool.problems)
        for pod in roll.waiting:
            yield WaitingFact(Outcome.INVALID_SPEC, told, pool.problems[0].remedy, pod.created_time, {})


def waiting_fact(pool: Pool, one: verdicts.Waiting) -> WaitingFact:
    """Why a replica of the pool waits; where its laws leave no place between them, or it is held, that."""
    conflict = pool.law.conflict
    if pool.held and not conflict:
        told = f"new placements wait, whatever room there is: {pool.held.message}"
        return WaitingFact(Outcome.NOT_VERIFIED, told, pool.held.remedy, one.replica.since_time, {})
    return WaitingFact(
        reason=Outcome.CONFLICT if conflict else one.reason,
        message=str(conflict) if conflict else one.message,
        would_fit=asking.to_settle(conflict) if conflict else one.would_fit,
        since_time=one.replica.since_time,
        refusals={which.title: count for which, count in one.refused},
    )


def waiting_groups(waiting: Iterable[WaitingFact]) -> tuple[Waiting, ...]:
    """Replicas that wait for the same thing, together; the group that waits longest first."""
    groups: dict[tuple[str, str, str], list[WaitingFact]] = {}
    for one in waiting:
        groups.setdefault((one.reason, one.message, one.would_fit), []).append(one)
    ordered = sorted(groups.values(), key=lambda group: (min(one.since_time for one in group), group[0].message))
    return tuple(
        Waiting(
            replicas=len(group),
            reason=group[0].reason,
            since=utc(min(one.since_time for one in group)),
            message=group[0].message[:MAX_MESSAGE],
            would_fit=group[0].would_fit[:MAX_MESSAGE],
            counts=dict(group[0].refusals),
        )
        for group in ordered[:MAX_WAITING_GROUPS]
    )
