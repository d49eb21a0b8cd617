"""What a pool's status says, from what was found and decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.api.inferencepool import (
    InferencePoolStatus,
    LearnedWatts,
    PlacedReplica,
    PoolPower,
    PoolResidency,
    Violation,
)
from penstock.api.names import POOL_LABEL
from penstock.core.lifecycle import Verdict
from penstock.core.model import Pod
from penstock.core.pool import Pool, RollCall
from penstock.core.power.hurdles import Hurdle
from penstock.core.power.thrift import declared_enough, utilized
from penstock.core.telling.compliance import compliant
from penstock.core.telling.conditions import MAX_MESSAGE, Judgement, conditions
from penstock.core.telling.figures import listed, steady
from penstock.core.telling.outcomes import Outcome
from penstock.core.telling.waits import WaitingFact, waiting_groups

MAX_PLACEMENTS = 64
MAX_SOURCES = 64
MAX_NOTES = 16


@dataclass(frozen=True, slots=True)
class PlacedFact:
    """One replica on a node. `watts` is what it reserves there, `measured_watts` what it draws as far as known."""

    pod: str
    node: str
    country: str
    subdivision: str
    gpus: int
    watts: float
    reason: str
    lawful: bool = True
    measured_watts: float | None = None


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """Everything that a pool's status is made from."""

    pool: Pool
    roll: RollCall
    waiting: Sequence[WaitingFact] = ()
    placed: Sequence[PlacedFact] = ()
    measured_watts: float = 0.0
    effective_codes: Sequence[str] = ()
    stale_nodes: Sequence[str] = ()
    over_budget: Sequence[str] = ()
    """A sentence for each PowerDomain that is over its budget and holds replicas of this pool."""
    without_domain: Sequence[str] = ()
    """Nodes of its replicas that no PowerDomain selects."""
    raised_watts: float | None = None
    """Per GPU, what is reserved because it was measured, where the pool declares less."""
    idle: Sequence[Pod] = ()
    """Replicas that have long held GPUs on which they do nothing."""
    verdicts: Sequence[Verdict] = ()
    slow_pods: Sequence[str] = ()
    foreign_service: bool = False
    learned: Sequence[LearnedWatts] = ()
    violations: Sequence[Violation] = ()
    """Replicas that are outside the law, those that are out of traffic already included."""
    shed: int = 0
    """How many of its replicas wait because power domains shed them."""
    refusal: str = ""
    """What the API server answered to our Deployment or Service, if it refused."""
    unrecorded: str = ""
    """Why placements cannot be recorded, where the law demands that they are."""
    hurdles: Sequence[Hurdle] = ()
    """What keeps replicas from being capped, where the pool lets them be."""
    now_time: float = 0.0


def pool_status(facts: PoolFacts, previous: InferencePoolStatus | None) -> InferencePoolStatus:
    """The whole status of a pool; the times of conditions and measured figures move only when something changed."""
    pool, roll = facts.pool, facts.roll
    before = previous or InferencePoolStatus()
    return InferencePoolStatus(
        observed_generation=pool.generation,
        replicas=_counted(facts),
        placed_replicas=len(facts.placed),
        ready_replicas=len(roll.ready),
        waiting_replicas=len(facts.waiting),
        selector=f"{POOL_LABEL}={pool.key.name}",
        power=PoolPower(
            watts=steady(before.power.watts if before.power else None, facts.measured_watts),
            reserved_watts=round(sum(one.watts for one in facts.placed)),
            learned=tuple(facts.learned),
        ),
        residency=_residency(facts),
        waiting=waiting_groups(facts.waiting),
        placements=tuple(_placements(facts.placed[:MAX_PLACEMENTS], before)),
        conditions=conditions(_pool_judgements(facts), before.conditions, pool.generation, facts.now_time),
    )


def _counted(facts: PoolFacts) -> int:
    """What an autoscaler is told: pods, and those that wait without one, but not a pod that is on its way out.

    One that was shed counts before another pod is made in its place, too, or the shed would become the wish.
    """
    pool, roll = facts.pool, facts.roll
    if pool.adopts or pool.count is None:
        return roll.active
    return min(roll.active + max(0, facts.shed - pool.left_shed), pool.count) + pool.left


def _residency(facts: PoolFacts) -> PoolResidency:
    return PoolResidency(
        effective=tuple(facts.effective_codes) if facts.pool.residency.restricted else None,
        sources=facts.pool.law.sources[:MAX_SOURCES] if facts.pool.residency.restricted else (),
        in_use=tuple(sorted({one.subdivision or one.country for one in facts.placed if one.country})),
        notes=facts.pool.notes[:MAX_NOTES],
        violations=tuple(facts.violations),
    )


def _placements(placed: Iterable[PlacedFact], before: InferencePoolStatus) -> Iterator[PlacedReplica]:
    known = {one.pod: one.watts for one in before.placements}
    for one in placed:
        if one.measured_watts is None:
            yield _placement(one, round(one.watts))
        else:
            yield _placement(one, steady(known.get(one.pod), one.measured_watts))


def _placement(one: PlacedFact, watts: float) -> PlacedReplica:
    return PlacedReplica(
        pod=one.pod,
        node=one.node,
        country=one.country,
        subdivision=one.subdivision,
        gpus=one.gpus,
        watts=watts,
        reason=one.reason[:MAX_MESSAGE],
    )


# ------------------------------------------------------------------------------------------------------- conditions


def _pool_judgements(facts: PoolFacts) -> list[Judgement]:
    return [
        _ready(facts),
        _placed(facts),
        _compliant(facts),
        _within_budget(facts),
        _fresh(facts.stale_nodes),
        _undisturbed(facts),
        *_thrifty(facts),
        *_trimmable(facts),
    ]


def _ready(facts: PoolFacts) -> Judgement:
    pool, ready = facts.pool, len(facts.roll.ready)
    if pool.problems:
        told = "; ".join(str(problem) for problem in pool.problems)
        return Judgement("Ready", False, Outcome.INVALID_SPEC, f"{told}. What runs already is left alone")
    if hindered := _hindered("Ready", facts):
        return hindered
    wanted = facts.roll.active if pool.adopts else pool.desired
    if wanted == 0:
        return Judgement("Ready", True, Outcome.SCALED_TO_ZERO, "no replicas are asked for")
    if facts.waiting:
        first = waiting_groups(facts.waiting)[0]
        return Judgement("Ready", False, Outcome.WAITING, f"{ready}/{wanted} ready; {first.message}")
    if ready < wanted:
        coming = wanted - len(facts.placed)
        told = f"{coming} pods are still to be created" if coming > 0 else "every replica has its place"
        return Judgement("Ready", False, Outcome.STARTING, f"{ready}/{wanted} ready; {told}")
    return Judgement("Ready", True, Outcome.ALL_READY, f"{ready}/{wanted} ready")


def _placed(facts: PoolFacts) -> Judgement:
    if facts.pool.problems:
        return Judgement("Placed", False, Outcome.INVALID_SPEC, "nothing new is placed until the spec is mended")
    if hindered := _hindered("Placed", facts):
        return hindered
    if not facts.waiting:
        return _placed_or_coming(facts)
    counted = Counter(one.reason for one in facts.waiting)
    reason = min(counted, key=lambda name: (-counted[name], name))
    message = next(group.message for group in waiting_groups(facts.waiting) if group.reason == reason)
    return Judgement("Placed", False, reason, f"{len(facts.waiting)} waiting: {message}")


def _hindered(kind: str, facts: PoolFacts) -> Judgement | None:
    """What keeps us from carrying out what was decided."""
    if facts.refusal:
        return Judgement(kind, False, Outcome.REFUSED_BY_API, facts.refusal)
    if facts.unrecorded and facts.roll.active > len(facts.roll.bound):
        return Judgement(kind, False, Outcome.AUDIT_UNAVAILABLE, facts.unrecorded)
    return None


def _placed_or_coming(facts: PoolFacts) -> Judgement:
    placed, wanted = len(facts.placed), facts.roll.active if facts.pool.adopts else facts.pool.desired
    if placed < wanted:
        return Judgement("Placed", False, Outcome.STARTING, f"{placed}/{wanted} placed; the others are being created")
    return Judgement("Placed", True, Outcome.ALL_PLACED, f"{placed} placed, none waiting")


def _compliant(facts: PoolFacts) -> Judgement:
    astray = {one.pod: f"on {one.node} ({one.country or 'unknown place'})" for one in facts.placed if not one.lawful}
    return Judgement("ResidencyCompliant", *compliant(facts.pool, len(facts.placed), astray, facts.violations))


def _within_budget(facts: PoolFacts) -> Judgement:
    if facts.over_budget:
        return Judgement("WithinPowerBudget", False, Outcome.OVER_BUDGET, "; ".join(facts.over_budget))
    if facts.without_domain:
        told = f"no PowerDomain selects {listed(facts.without_domain)}: its replicas there have no budget"
        return Judgement("WithinPowerBudget", True, Outcome.NO_DOMAIN, told)
    return Judgement("WithinPowerBudget", True, Outcome.WITHIN_BUDGET, "every domain in use is within its budget")


def _fresh(stale_nodes: Sequence[str]) -> Judgement:
    if stale_nodes:
        remedy = "look at the agent there, or at the exporter where Prometheus is the source"
        told = f"no fresh telemetry from {listed(stale_nodes)}: nothing new is placed there; {remedy}"
        return Judgement("TelemetryFresh", False, Outcome.STALE, told)
    return Judgement("TelemetryFresh", True, Outcome.FRESH, "every node in use reported within three heartbeats")


def _thrifty(facts: PoolFacts) -> Iterable[Judgement]:
    yield Judgement("Utilized", *utilized(facts.idle, len(facts.placed)))
    declared = facts.pool.rules.declared_watts
    if declared is not None:
        gpus = max((one.gpus for one in facts.placed), default=1)
        yield Judgement("PowerDeclared", *declared_enough(declared, facts.raised_watts, gpus))


def _trimmable(facts: PoolFacts) -> Iterable[Judgement]:
    """Only of a pool that lets itself be capped."""
    watts = facts.pool.rules.min_cap_watts
    if watts is None:
        return
    if facts.hurdles:
        first = facts.hurdles[0]
        told = f"{len(facts.hurdles)} of {len(facts.placed)} replicas cannot be capped: {first.message}"
        yield Judgement("Trimmable", False, first.reason, told)
    else:
        yield Judgement("Trimmable", True, Outcome.TRIMMABLE, f"GPUs may be capped down to {watts:g} W before a shed")


def _undisturbed(facts: PoolFacts) -> Judgement:
    found = [*_disturbances(facts)]
    if not found:
        return Judgement("Undisturbed", True, Outcome.NOTHING_TO_REPORT, "nothing of others is in the way")
    return Judgement("Undisturbed", False, found[0][0], "; ".join(message for _, message in found))


def _disturbances(facts: PoolFacts) -> Iterable[tuple[str, str]]:
    for verdict in facts.verdicts:
        yield verdict.ending, f"{verdict.pod.name}: {verdict.message}"
    if facts.roll.foreign:
        names = listed([pod.name for pod in facts.roll.foreign])
        yield Outcome.FOREIGN_PODS, f"{names} carry this pool's label but are not its replicas: not placed, not counted"
    if facts.roll.grouped:
        names = listed([pod.name for pod in facts.roll.grouped])
        yield Outcome.LEADER_WORKER_SET, f"{names} belong to a LeaderWorkerSet group, which Penstock cannot place yet"
    if facts.foreign_service:
        name = facts.pool.key.name
        yield Outcome.FOREIGN_SERVICE, f"a Service {name} that is not ours exists and is left alone; rename one of both"
    if facts.slow_pods:
        names = listed(facts.slow_pods)
        yield Outcome.SCHEDULER_SLOW, f"kube-scheduler has not answered for {names}; look at kube-scheduler"
