"""Who waits for what: those that no plan knows of too, and those that wait for the same thing together."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

import builders as a
from penstock.core.model import PlacementRules
from penstock.core.pool import Pool, RollCall, Template
from penstock.core.telling.problem import Problem
from penstock.core.telling.waits import WaitingFact, waiting_facts, waiting_groups

POOL = Pool(a.POOL, "uid-pool", generation=3, desired=2, rules=PlacementRules(), template=Template(), count=2)
UNKNOWN = Problem("spec.engine", "Abacus", "write vLLM")
BROKEN = Pool(a.POOL, "uid-pool", 3, 2, PlacementRules(), Template(), problems=(UNKNOWN,))


def waits(reason: str = "InsufficientPower", message: str = "0/1 nodes: 1 short", since: float = 50.0) -> WaitingFact:
    return WaitingFact(reason, message, "raise PowerDomain/row-a by 900 W", since, {"Watts": 1})


UNPLANNED = {
    "behind the gate of somebody else, which is named": (
        POOL,
        RollCall(held=(a.pod("w-1", node="", gates=("example.com/quota", "penstock.dev/placement")),)),
        ("ForeignGate", "whoever set example.com/quota lifts it"),
    ),
    "in a group that is placed as one or not at all": (
        POOL,
        RollCall(grouped=(a.pod("w-1", node=""),)),
        ("LeaderWorkerSetUnsupported", "take the gate out of the group's template"),
    ),
    "for a spec that somebody has to mend": (
        BROKEN,
        RollCall(waiting=(a.pod("w-1", node=""),)),
        ("InvalidSpec", "write vLLM"),
    ),
}


@pytest.mark.parametrize(("pool", "roll", "want"), UNPLANNED.values(), ids=UNPLANNED.keys())
def test_who_waits_without_being_asked_about_in_a_plan(pool: Pool, roll: RollCall, want: tuple[str, str]) -> None:
    (one,) = waiting_facts(pool, roll, ())
    assert one.reason == want[0]
    assert one.would_fit.endswith(want[1])


def test_those_that_wait_for_the_same_thing_are_told_together_longest_wait_first() -> None:
    groups = waiting_groups([waits(since=70), waits("NoLawfulPlace", "outside", since=60), waits(since=90)])
    assert [(one.reason, one.replicas) for one in groups] == [("NoLawfulPlace", 1), ("InsufficientPower", 2)]
    assert groups[1].since == datetime.fromtimestamp(70, UTC)
    assert groups[1].would_fit == "raise PowerDomain/row-a by 900 W"
