"""Whoever has a place is in the log: from when, under which law, until when; and what does not change is no news."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

import builders as a
from penstock.api.names import COUNTRY_LABEL, EVIDENCE_TIME_LABEL
from penstock.control.decisionlog.following import Following
from penstock.core.decisionlog import entries
from penstock.core.decisionlog.record import Entry
from penstock.core.model import Isolated, Node, Owner, Phase, PlacementRules, Pod, Residency
from penstock.core.pool import Pool, Template
from penstock.core.residency.ceiling import Demand, Effective, effective

NOW_TIME = 1_800_000_000.0
GATE = ("penstock.dev/placement",)


def law(*countries: str, revision: int = 1, enforced: bool = True) -> Effective:
    residency = Residency(restricted=True, allowed_countries=frozenset(countries))
    return effective((Demand(f"ResidencyPolicy/eu@{revision}", residency, "eu", enforced=enforced),))


GERMANY = law("DE")
POOL = Pool(
    a.POOL,
    "uid",
    7,
    desired=1,
    rules=PlacementRules(),
    template=Template(),
    replica_sets=frozenset({"set"}),
    law=GERMANY,
    standing_law=GERMANY,
)
RUNS = a.pod("llama-1", node="gpu-1", pool=a.POOL.name, owner=Owner("ReplicaSet", "llama", "set"), phase=Phase.RUNNING)
BERLIN = a.node("gpu-1", country="DE")


@dataclass
class Log:
    """A follower, what it looks at, and what it wrote in the last turn."""

    pool: Pool | None = POOL
    node: Node | None = BERLIN
    isolated: tuple[Pod, ...] = ()
    assumed: frozenset[str] = frozenset()
    ceiling: Effective | None = None
    """What policies demand of the namespace."""
    now_time: float = NOW_TIME
    written: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.following = Following(self.written.append)

    def turn(self, *pods: Pod, labelled: Iterable[Pod] | None = None) -> str:
        """What is written of these pods of the cluster; `labelled` of them carry the pool's label, else all."""
        self.written.clear()
        here = pods if labelled is None else tuple(labelled)
        state: Any = SimpleNamespace(
            pods={pod.uid: pod for pod in (*pods, *self.isolated)},
            pods_by_pool={a.POOL: {pod.uid: pod for pod in here}},
            isolated={a.POOL: {pod.uid: pod for pod in self.isolated}},
            nodes={self.node.name: self.node} if self.node else {},
            assumes=lambda uid: uid in self.assumed,
        )
        settled = SimpleNamespace(running=self.ceiling)
        laws = SimpleNamespace(version=1, settled=lambda _: settled)
        picture: Any = SimpleNamespace(laws=laws, pools={a.POOL: self.pool} if self.pool else {})
        self.following.look(picture, state, {a.POOL}, self.now_time)
        return " ".join(one.happening for one in self.written)

    def decide(self, pod: Pod = RUNS) -> Entry:
        placement = entries.placed(
            POOL, pod, self.node, None, fence="x/3", telemetry_age_seconds=None, now_time=NOW_TIME
        )
        self.following.decided(placement)
        return placement


def test_what_runs_when_a_leader_begins_is_written_down_at_once_and_whole() -> None:
    log = Log()
    assert log.turn(RUNS, replace(RUNS, uid="2", name="llama-2", node="", gates=GATE)) == "census"
    data = log.written[0].data
    assert [(one["pod"]["name"], one["node"], one["outside"]) for one in data["replicas"]] == [("llama-1", "gpu-1", [])]
    assert data["nodes"]["gpu-1"]["labels"] == {COUNTRY_LABEL: "DE"}
    assert data["replicas"][0]["law"]["sources"] == ["ResidencyPolicy/eu@1"]
    assert log.turn(RUNS) == ""


def test_a_placement_that_was_recorded_is_no_news_once_it_is_seen_and_its_end_is() -> None:
    log = Log()
    log.turn()
    log.decide()
    log.assumed = frozenset({RUNS.uid})
    assert log.turn(replace(RUNS, node="", pin="gpu-1")) == ""
    log.assumed = frozenset()
    assert log.turn(replace(RUNS, node="", pin="gpu-1")) == ""
    assert log.turn(RUNS) == ""
    assert log.turn() == "end"
    assert (log.written[0].data["node"], log.written[0].data["why"]) == ("gpu-1", "Deleted")
    assert log.turn() == ""


def test_a_replica_that_runs_elsewhere_than_recorded_or_without_any_record_is_written_down() -> None:
    log = Log(node=a.node("gpu-1", country="US"))
    log.turn()
    log.decide()
    log.node = BERLIN
    assert log.turn(RUNS) == "observe"
    assert log.written[0].data["place"]["labels"] == {COUNTRY_LABEL: "DE"}
    fresh = Log()
    fresh.turn()
    assert fresh.turn(RUNS) == "observe"


def test_a_place_that_says_otherwise_is_news_with_the_demands_that_it_does_not_meet() -> None:
    log = Log()
    log.turn(RUNS)
    log.node = a.node("gpu-1", country="US")
    assert log.turn(RUNS) == "observe"
    assert log.written[0].data["outside"] == ["ResidencyPolicy/eu@1"]
    assert log.turn(RUNS) == ""
    log.node = BERLIN
    assert log.turn(RUNS) == "observe"
    assert log.written[0].data["outside"] == []


def test_a_policy_that_only_audits_is_among_the_demands_that_are_not_met() -> None:
    log = Log(pool=replace(POOL, standing_law=law("FR", enforced=False)))
    log.turn()
    assert log.turn(RUNS) == "observe"
    assert log.written[0].data["outside"] == ["ResidencyPolicy/eu@1"]


def test_neither_another_revision_of_the_same_law_nor_newer_evidence_of_the_same_place_is_news() -> None:
    log = Log()
    log.turn(RUNS)
    log.pool = replace(POOL, standing_law=law("DE", revision=2))
    log.node = replace(BERLIN, labels={**BERLIN.labels, EVIDENCE_TIME_LABEL: "20261121T120000Z"})
    assert log.turn(RUNS) == ""
    log.pool = replace(POOL, standing_law=effective(()))
    assert log.turn(RUNS) == "observe"


def test_one_that_was_isolated_or_lost_its_label_is_followed_to_its_end() -> None:
    log = Log()
    log.turn(RUNS)
    log.isolated = (replace(RUNS, pool="", isolated=Isolated(a.POOL.name, NOW_TIME, True, "")),)
    assert log.turn() == ""
    log.isolated = ()
    stripped = replace(RUNS, pool="")
    assert log.turn(stripped, labelled=()) == ""
    assert log.turn(replace(stripped, phase=Phase.FAILED), labelled=()) == "end"
    assert log.written[0].data["why"] == "Failed"


def test_a_placement_that_was_taken_back_has_no_end_and_one_that_vanished_unseen_has() -> None:
    log = Log()
    log.turn()
    assert log.following.took_back(RUNS.uid) is None
    placement = log.decide()
    assert log.following.took_back(RUNS.uid) is placement
    assert log.turn() == ""
    log.decide()
    assert log.turn() == "end"
    assert log.written[0].data["node"] == "gpu-1"


def test_after_records_were_given_up_everybody_is_told_anew_and_who_was_only_decided_once_seen() -> None:
    log = Log()
    log.turn(RUNS)
    log.following.tell_anew()
    assert log.turn(RUNS) == "census"
    other = replace(RUNS, uid="2", name="llama-2")
    log.decide(other)
    log.following.tell_anew()
    assert log.turn(RUNS, replace(other, node="")) == "census"
    assert log.turn(RUNS, other) == "observe"
    log.decide(replace(other, uid="3"))
    log.following.tell_anew()
    assert (log.turn(RUNS, other), log.turn(RUNS, other)) == ("census", "end")


def test_a_pod_that_only_borrows_the_label_is_not_followed() -> None:
    log = Log()
    log.turn()
    assert log.turn(replace(RUNS, owner=None)) == ""


def test_the_replicas_of_a_pool_that_is_gone_are_followed_to_their_end_and_so_are_those_of_a_node_that_is_gone() -> (
    None
):
    log = Log()
    log.turn(RUNS)
    log.pool = log.node = None
    assert log.turn(RUNS) == ""
    assert log.turn() == "end"


@pytest.mark.parametrize(("ceiling", "outside"), ((law("FR"), ["ResidencyPolicy/eu@1"]), (law("DE"), []), (None, [])))
@pytest.mark.parametrize("isolated", (True, False))
def test_the_next_leader_finds_the_replicas_of_a_pool_that_is_gone_too(
    ceiling: Effective | None, outside: list[str], isolated: bool
) -> None:
    log = Log(pool=None, ceiling=ceiling)
    log.isolated = (replace(RUNS, pool="", isolated=Isolated(a.POOL.name, NOW_TIME, True, "")),) if isolated else ()
    assert log.turn(*(() if isolated else (RUNS,))) == "census"
    (found,) = log.written[0].data["replicas"]
    assert (found["pool"]["name"], found["outside"], found.get("isolated", False)) == (str(a.POOL), outside, isolated)
    log.isolated = ()
    assert log.turn() == "end"


def test_everybody_is_looked_at_again_now_and_then_though_nothing_touched_them() -> None:
    log = Log()
    log.turn(RUNS)
    looked = log.following

    def others() -> str:
        log.written.clear()
        state: Any = SimpleNamespace(pods={}, pods_by_pool={}, isolated={}, nodes={}, assumes=lambda _: False)
        picture: Any = SimpleNamespace(laws=SimpleNamespace(version=1), pools={})
        looked.look(picture, state, (), log.now_time)
        return " ".join(one.happening for one in log.written)

    assert others() == ""
    log.now_time += 10
    assert others() == "end"
