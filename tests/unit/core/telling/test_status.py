"""What people read of a pool: each condition, who is told about what, and when a status stays as it was."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

import builders as a
from penstock.api.inferencepool import InferencePoolStatus, Violation
from penstock.core.lifecycle import Ending, Verdict
from penstock.core.model import PlacementRules, Residency
from penstock.core.pool import Pool, RollCall, Template
from penstock.core.power.hurdles import Hurdle, HurdleReason
from penstock.core.residency.ceiling import NO_LAW, Effective
from penstock.core.telling.conditions import MAX_MESSAGE
from penstock.core.telling.problem import Problem
from penstock.core.telling.status import PlacedFact, PoolFacts, pool_status
from penstock.core.telling.waits import WaitingFact

GERMANY = Effective(Residency(restricted=True, allowed_countries=frozenset({"DE"})))
POOL = Pool(
    a.POOL, "uid-pool", generation=3, desired=2, rules=PlacementRules(), template=Template(), count=2, law=GERMANY
)
ADOPTING = replace(POOL, template=None, desired=1, count=None)
READY = tuple(a.pod(name, ready=True) for name in ("r-1", "r-2"))
BOTH = RollCall(bound=READY)
ONE = RollCall(bound=READY[:1], waiting=(a.pod("w-1", node=""),))


def placed(pod: str = "r-1", **given: Any) -> PlacedFact:
    return replace(PlacedFact(pod, "gpu-1", "DE", "DE-HE", 2, 1442.4, "best of 5"), **given)


def waits(reason: str = "InsufficientPower", message: str = "0/1 nodes: 1 short", since: float = 50.0) -> WaitingFact:
    return WaitingFact(reason, message, "raise PowerDomain/row-a by 900 W", since, {"Watts": 1})


def facts(**given: Any) -> PoolFacts:
    """Two replicas, both ready, where they belong."""
    base = PoolFacts(POOL, BOTH, placed=(placed("r-1"), placed("r-2")), effective_codes=("DE",), now_time=100.0)
    return replace(base, **given)


def condition(found: PoolFacts, type_: str) -> tuple[str, str]:
    (one,) = (one for one in pool_status(found, None).conditions if one.type == type_)
    return one.status, one.reason


PROBLEM = Problem("spec.residency.allowed[0]", "XX", "write an ISO 3166-1 code")
GONE = Verdict(READY[0], Ending.LOST_NODE, "gpu-1", "node gpu-1 is gone", delete=True)
SHORT = facts(roll=ONE, placed=(placed(),), waiting=(waits(),))
BROKEN = facts(pool=replace(POOL, problems=(PROBLEM,)))
REFUSED = facts(refusal="Deployment search/llama: 422 Invalid")
TRIMMABLE = facts(pool=replace(POOL, rules=replace(POOL.rules, min_cap_watts=300.0)))
DECLARING = facts(pool=replace(POOL, rules=replace(POOL.rules, declared_watts=600.0)))

AUDITED = Violation(pod="r-1", since=datetime.fromtimestamp(0, UTC), action="Report", message="outside eu")
UNRECORDED = facts(unrecorded="the law demands an audit record, and the disk is full")

JUDGED = {
    "a record is demanded and cannot be written": (
        replace(UNRECORDED, roll=RollCall(pinned=ONE.bound)),
        "Placed",
        ("False", "AuditUnavailable"),
    ),
    "a record could not be written, and nobody waits any more": (UNRECORDED, "Placed", ("True", "AllPlaced")),
    "all is well": (facts(), "Ready", ("True", "AllReplicasReady")),
    "its GPUs may be capped": (TRIMMABLE, "Trimmable", ("True", "Trimmable")),
    "a replica cannot be capped": (
        replace(TRIMMABLE, hurdles=(Hurdle(HurdleReason.NO_CAPPER, "no capper speaks on gpu-1"),)),
        "Trimmable",
        ("False", "NoCapper"),
    ),
    "all is placed": (facts(), "Placed", ("True", "AllPlaced")),
    "a replica waits": (SHORT, "Ready", ("False", "ReplicasWaiting")),
    "the reason of Placed is the reason of the wait": (SHORT, "Placed", ("False", "InsufficientPower")),
    "of several reasons the one that most wait for": (
        facts(roll=ONE, waiting=(waits("NoLawfulPlace"), waits(), waits("NoLawfulPlace"))),
        "Placed",
        ("False", "NoLawfulPlace"),
    ),
    "placed but not ready yet": (
        facts(roll=RollCall(bound=(READY[0], a.pod("r-2")))),
        "Ready",
        ("False", "ReplicasStarting"),
    ),
    "pods that nobody made yet are not placed": (
        facts(roll=RollCall(bound=READY[:1]), placed=(placed(),)),
        "Placed",
        ("False", "ReplicasStarting"),
    ),
    "nobody asks for replicas": (
        facts(pool=replace(POOL, desired=0, count=0), roll=RollCall(), placed=()),
        "Ready",
        ("True", "ScaledToZero"),
    ),
    "an adopting pool without pods is no failure": (
        facts(pool=ADOPTING, roll=RollCall(), placed=()),
        "Ready",
        ("True", "ScaledToZero"),
    ),
    "a spec that must be mended is not ready": (BROKEN, "Ready", ("False", "InvalidSpec")),
    "nor does it place": (BROKEN, "Placed", ("False", "InvalidSpec")),
    "what the API server refuses is told as such": (REFUSED, "Ready", ("False", "RefusedByApiServer")),
    "and holds placing too": (REFUSED, "Placed", ("False", "RefusedByApiServer")),
    "inside the law": (facts(), "ResidencyCompliant", ("True", "Compliant")),
    "one replica outside the law is enough": (
        facts(placed=(placed(), placed("r-2", country="US", lawful=False))),
        "ResidencyCompliant",
        ("False", "UnlawfulPlace"),
    ),
    "who is out of traffic already is outside all the same": (
        facts(violations=(AUDITED.model_copy(update={"action": "Isolate"}),)),
        "ResidencyCompliant",
        ("False", "UnlawfulPlace"),
    ),
    "a policy that only audits makes nobody unlawful": (
        facts(violations=(AUDITED,)),
        "ResidencyCompliant",
        ("True", "Compliant"),
    ),
    "without a rule there is no law": (
        facts(pool=replace(POOL, law=NO_LAW)),
        "ResidencyCompliant",
        ("True", "NoLaw"),
    ),
    "within every budget": (facts(), "WithinPowerBudget", ("True", "WithinBudget")),
    "a domain is over": (
        facts(over_budget=("PowerDomain/row-a is 900 W over",)),
        "WithinPowerBudget",
        ("False", "OverBudget"),
    ),
    "no budget is no budget kept": (facts(without_domain=("gpu-1",)), "WithinPowerBudget", ("True", "NoDomain")),
    "a silent agent": (facts(stale_nodes=("gpu-1",)), "TelemetryFresh", ("False", "StaleTelemetry")),
    "every agent speaks": (facts(), "TelemetryFresh", ("True", "Fresh")),
    "nobody holds GPUs for nothing": (facts(), "Utilized", ("True", "InUse")),
    "a replica that long did nothing": (facts(idle=READY[:1]), "Utilized", ("False", "IdleReplicas")),
    "watts that are declared and not passed": (DECLARING, "PowerDeclared", ("True", "Declared")),
    "more is measured than is declared": (
        replace(DECLARING, raised_watts=480.0),
        "PowerDeclared",
        ("False", "DeclaredTooLow"),
    ),
    "nothing is in the way": (facts(), "Undisturbed", ("True", "NothingToReport")),
    "a replica whose node is gone": (facts(verdicts=(GONE,)), "Undisturbed", ("False", "LostNode")),
    "pods that borrow our label": (
        facts(roll=replace(BOTH, foreign=(a.pod("thief"),))),
        "Undisturbed",
        ("False", "ForeignPods"),
    ),
    "a LeaderWorkerSet group": (
        facts(roll=replace(BOTH, grouped=(a.pod("lws-0"),))),
        "Undisturbed",
        ("False", "LeaderWorkerSetUnsupported"),
    ),
    "somebody else's Service": (facts(foreign_service=True), "Undisturbed", ("False", "ForeignService")),
    "a kube-scheduler that says nothing": (facts(slow_pods=("r-1",)), "Undisturbed", ("False", "SchedulerSlow")),
}


@pytest.mark.parametrize(("found", "type_", "want"), JUDGED.values(), ids=JUDGED.keys())
def test_condition(found: PoolFacts, type_: str, want: tuple[str, str]) -> None:
    assert condition(found, type_) == want


TOLD = {
    "an invalid spec names field, value and remedy": (
        BROKEN,
        "Ready",
        ("spec.residency.allowed[0]", "XX", "write an ISO 3166-1 code", "What runs already is left alone"),
    ),
    "a waiting pool says how many are ready and why": (SHORT, "Ready", ("1/2 ready", "0/1 nodes: 1 short")),
    "an unlawful replica is named with its node and place": (
        facts(placed=(placed("r-9", country="", lawful=False),)),
        "ResidencyCompliant",
        ("r-9 on gpu-1 (unknown place)",),
    ),
    "where a policy only audits, it says where to look whom that concerns": (
        facts(violations=(AUDITED,)),
        "ResidencyCompliant",
        ("2 replicas inside the law; status.residency.violations names replicas outside policies that only audit",),
    ),
    "where no law counts either": (
        facts(pool=replace(POOL, law=NO_LAW), violations=(AUDITED,)),
        "ResidencyCompliant",
        ("nobody set a rule of residency that counts; status.residency.violations names",),
    ),
    "a node of no domain is named": (facts(without_domain=("gpu-1",)), "WithinPowerBudget", ("selects gpu-1",)),
    "of many nodes that are silent the first are named, and the others counted": (
        facts(stale_nodes=[f"gpu-{number}" for number in range(20)]),
        "TelemetryFresh",
        ("from gpu-0, gpu-1,", "gpu-7 and 12 more: nothing new is placed there", "where Prometheus is the source"),
    ),
    "and so are many replicas outside the law": (
        facts(placed=[placed(f"r-{number:02}", lawful=False) for number in range(20)]),
        "ResidencyCompliant",
        ("r-07 on gpu-1 (DE) and 12 more",),
    ),
    "who declares too little reads the field, the value, what was measured and what to write": (
        replace(DECLARING, raised_watts=480.0),
        "PowerDeclared",
        ("spec.power.wattsPerReplica: 600:", "960 W (480 W per GPU)", "set it to 960 at least"),
    ),
    "a replica that long did nothing is named as a candidate": (
        facts(idle=READY[:1]),
        "Utilized",
        ("1 of 2 replicas", "r-1 on gpu-1", "candidates for consolidation"),
    ),
    "every disturbance is told, not only the first": (
        facts(verdicts=(GONE,), foreign_service=True),
        "Undisturbed",
        ("node gpu-1 is gone", "Service llama"),
    ),
}


@pytest.mark.parametrize(("found", "type_", "words"), TOLD.values(), ids=TOLD.keys())
def test_message(found: PoolFacts, type_: str, words: tuple[str, ...]) -> None:
    (one,) = (one for one in pool_status(found, None).conditions if one.type == type_)
    assert [word for word in words if word not in one.message] == []


def test_a_condition_keeps_its_time_until_its_status_flips() -> None:
    first = pool_status(facts(now_time=100.0), None)
    again = pool_status(facts(now_time=200.0), first)
    assert again == first
    flipped = pool_status(replace(SHORT, now_time=300.0), again)
    times = {one.type: one.last_transition_time for one in flipped.conditions}
    assert times["Ready"] == datetime.fromtimestamp(300, UTC)
    assert times["TelemetryFresh"] == datetime.fromtimestamp(100, UTC)


def test_every_condition_says_which_generation_it_judged() -> None:
    assert {one.observed_generation for one in pool_status(facts(), None).conditions} == {3}


COUNTED = {
    "pods of the Deployment": (facts(), 2),
    "and those that left its count, which an autoscaler must not forget": (
        facts(pool=replace(POOL, desired=5, count=2, left=3)),
        5,
    ),
    "but no pod that the Deployment is about to delete": (facts(pool=replace(POOL, desired=1, count=1)), 1),
    "an adopting pool counts what is there": (facts(pool=ADOPTING), 2),
    "before there is a Deployment": (facts(pool=replace(POOL, count=None), roll=RollCall(), placed=()), 0),
}


@pytest.mark.parametrize(("found", "want"), COUNTED.values(), ids=COUNTED.keys())
def test_replicas_as_an_autoscaler_sees_them(found: PoolFacts, want: int) -> None:
    assert pool_status(found, None).replicas == want


def test_the_first_status_has_the_selector_that_an_autoscaler_needs() -> None:
    assert pool_status(facts(), None).selector == "penstock.dev/pool=llama"


def test_where_a_pool_is_and_what_is_held_for_it() -> None:
    found = pool_status(facts(), None)
    assert found.residency is not None
    assert (found.residency.effective, found.residency.in_use) == (("DE",), ("DE-HE",))
    assert found.power is not None
    assert found.power.reserved_watts == 2885


def test_a_status_stays_within_its_schema_however_much_there_is_to_tell() -> None:
    crowd = facts(
        placed=tuple(placed(f"r-{number}", reason="x" * 5000) for number in range(500)),
        waiting=[waits(message=f"{number}" + "y" * 5000) for number in range(100)],
        verdicts=(GONE,) * 100,
    )
    found = pool_status(crowd, None)
    assert InferencePoolStatus.model_validate(found.model_dump()) == found
    assert found.placed_replicas == 500
    assert max(len(one.message) for one in found.conditions) <= MAX_MESSAGE


SCALED = {
    "every replica while all is well": (POOL, BOTH, 0, 2),
    "one that left the count": (replace(POOL, count=1, left=1), RollCall(bound=READY[:1]), 0, 2),
    "one that was shed, before another pod is made in its place": (POOL, RollCall(bound=READY[:1]), 1, 2),
    "one that was shed, while its pod waits at the gate": (POOL, ONE, 1, 2),
    "one that was shed and left the count": (
        replace(POOL, count=1, left=1, left_shed=1),
        RollCall(bound=READY[:1]),
        1,
        2,
    ),
    "what nobody made yet does not count": (POOL, RollCall(bound=READY[:1]), 0, 1),
}


@pytest.mark.parametrize(("pool", "roll", "shed", "want"), SCALED.values(), ids=SCALED.keys())
def test_what_an_autoscaler_is_told(pool: Pool, roll: RollCall, shed: int, want: int) -> None:
    assert pool_status(facts(pool=pool, roll=roll, shed=shed), None).replicas == want


def test_a_replica_shows_what_it_draws_where_that_is_known_and_moves_no_more_often_than_it_matters() -> None:
    def shown(watts: float | None, before: InferencePoolStatus | None = None) -> InferencePoolStatus:
        return pool_status(facts(placed=(placed("r-1", measured_watts=watts), placed("r-2"))), before)

    first = shown(800.4)
    assert [one.watts for one in first.placements] == [800, 1442]
    assert [one.watts for one in shown(812.0, first).placements] == [800, 1442]
    assert [one.watts for one in shown(900.0, first).placements] == [900, 1442]
    assert [one.watts for one in shown(None, first).placements] == [1442, 1442]
    assert first.power is not None
    assert first.power.reserved_watts == 2885
