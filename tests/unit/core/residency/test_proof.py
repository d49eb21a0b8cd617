"""How lately a place was proven, at the turn of the clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

import builders as a
from penstock.api.names import EVIDENCE_TIME_LABEL
from penstock.core.model import Residency
from penstock.core.placement.affinity import meets
from penstock.core.placement.choice import plan
from penstock.core.residency.aging import aging, by_place
from penstock.core.residency.proof import MOST_OUTDATED, lately_proven, not_outdated, proven_time

PROVEN_TIME = datetime(2026, 11, 20, 23, 41, 51, tzinfo=UTC).timestamp()
DAY = 86400.0
DAILY = Residency(restricted=True, evidence_max_age_seconds=DAY)
WRITTEN = "20261120T234151Z"

AGES: dict[str, tuple[str | None, float, bool]] = {
    "just now": (WRITTEN, 0, True),
    "an hour ago": (WRITTEN, 3600, True),
    "on the last second": (WRITTEN, DAY, True),
    "a second too long ago": (WRITTEN, DAY + 1, False),
    "in the future": (WRITTEN, -1, False),
    "never": (None, 0, False),
    "in words": ("yesterday", 0, False),
    "with colons, as no label can be": ("2026-11-20T23:41:51Z", 0, False),
    "on a day that does not exist": ("20261131T234151Z", 0, False),
    "at an hour that does not exist": ("20261120T244151Z", 0, False),
    "in another zone": ("20261120T234151+01", 0, False),
    "in figures of another script": ("٢٠261120T234151Z", 0, False),
}


@pytest.mark.parametrize(("label", "age_seconds", "young"), AGES.values(), ids=AGES.keys())
def test_evidence_is_young_or_it_is_none(label: str | None, age_seconds: float, young: bool) -> None:
    node = a.node(labels={} if label is None else {EVIDENCE_TIME_LABEL: label})
    now_time = PROVEN_TIME + age_seconds
    assert lately_proven(DAILY, node, now_time) is young
    told = aging(DAILY, by_place([node], now_time), now_time)
    assert told
    assert (told.nodes, told.expired) == (1, 0 if young else 1), "the warning counts the same"
    assert lately_proven(Residency(restricted=True), node, now_time), "where nobody asks for an age, there is none"
    found = not_outdated(DAILY, (label, None), now_time)
    assert found is not None
    assert all(meets(rule, label) for rule in found) is young, "and so is who chooses for an Advise pool"
    replica = a.replica(residency=DAILY)
    placed = plan(a.fleet(node), [replica], [], now_time).decisions
    assert bool(placed) is young, "the planner asks the same"


def test_where_more_is_outdated_than_can_be_listed_nobody_is_let_through() -> None:
    many = [str(number) for number in range(MOST_OUTDATED + 1)]
    assert not_outdated(DAILY, many, PROVEN_TIME) is None
    assert not_outdated(replace(DAILY, evidence_max_age_seconds=None), many, PROVEN_TIME) == ()


def test_the_time_of_a_label_is_utc() -> None:
    assert proven_time(WRITTEN) == PROVEN_TIME


def test_a_second_replica_of_one_plan_is_asked_for_the_age_too() -> None:
    node = a.node(labels={EVIDENCE_TIME_LABEL: WRITTEN})
    asked = [a.replica("first", residency=DAILY), a.replica("second", residency=DAILY)]
    assert len(plan(a.fleet(node), asked, [], PROVEN_TIME).decisions) == 2
    assert not plan(a.fleet(node), asked, [], PROVEN_TIME + DAY + 1).decisions
