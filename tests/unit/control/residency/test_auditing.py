"""Whoever a policy in mode Audit would not have where it is goes on running and is named, and nobody is moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.api.inferencepool import Violation
from penstock.api.names import EVIDENCE_TIME_LABEL, OPERATOR_LABEL
from penstock.cluster.events import Subject
from penstock.cluster.parse.written import pool_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.residency.auditing import REMEDY
from penstock.control.residency.isolating import MOST_TOLD, Isolating
from penstock.core.model import Node, Owner, PlacementRules, Residency
from penstock.core.pool import Pool, RollCall, Template
from penstock.core.residency import isolation
from penstock.core.residency.ceiling import Demand, Effective, effective

NOW_TIME = 1_795_262_400.0
CONTAINER = {"name": "server", "image": "s", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
SPEC = {"template": {"spec": {"containers": [CONTAINER]}}}
METADATA = {"namespace": a.POOL.namespace, "name": a.POOL.name, "uid": "u", "resourceVersion": "1"}


def only(*countries: str, enforced: bool = False, name: str = "ours") -> Demand:
    law = Residency(restricted=True, allowed_countries=frozenset(countries))
    return Demand(f"ResidencyPolicy/{name}@1", law, policy=name, enforced=enforced)


class Desk:
    """A pool under these demands, with as many replicas in the US, and whatever is done or told."""

    def __init__(self, *demands: Demand, replicas: int = 1, status: Any = None) -> None:
        desk: Any = self
        self.state, self.done, self.told = ClusterState(), list[str](), list[tuple[str, str]]()
        self.foreign_services, self.recorder = set[Any](), self
        self.isolating = Isolating(self.state, desk, desk, a.runs_to_its_first_pause)
        self.picture, self.demands = Picture(self.state), demands
        self.state.put_node(a.node("n1", country="US"))
        self.state.written_pools.put(pool_object({"metadata": METADATA, "spec": SPEC, "status": status or {}}))
        for number in range(replicas):
            self.state.put_pod(a.pod(f"p{number}", node="n1"))

    def look(self, at: float = 0.0) -> list[Violation]:
        """What the pool's status says after one look."""
        law = effective(self.demands)
        pool = Pool(a.POOL, "u", 1, 1, PlacementRules(), template=Template(), standing_law=law)
        pods = tuple(self.state.pods_by_pool.get(a.POOL, {}).values())
        bound, ending = (tuple(pod for pod in pods if pod.terminating is ends) for ends in (False, True))
        roll = RollCall(bound=bound, terminating=ending)
        self.picture.pools, self.picture.rolls = {a.POOL: pool}, {a.POOL: roll}
        self.isolating.look(self.picture, frozenset({a.POOL}), at, NOW_TIME + at)
        return [*self.isolating.violations(a.POOL)]

    def stored(self) -> dict[str, Any]:
        """The pool's status as it would be written now."""
        return {"residency": {"violations": [one.as_json() for one in self.isolating.violations(a.POOL)]}}

    async def isolate(self, pod: Any, *_: Any) -> bool:
        self.done.append(f"isolate {pod.name}")
        return True

    async def drain(self, pod: Any, *_: Any) -> bool:
        self.done.append(f"drain {pod.name}")
        return True

    def note(self, _entry: object) -> None:
        pass

    def post(self, _subject: Subject, _severity: str, reason: str, note: str) -> None:
        self.told.append((reason, note))

    def wake(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.control.residency.isolating.REFUSED_PAUSE_SECONDS", 0.0)


def test_it_is_named_with_the_policy_told_once_and_left_alone() -> None:
    desk = Desk(only("DE"))
    (told,) = desk.look()
    assert (told.pod, told.node, told.country, told.action, told.remedy) == ("p0", "n1", "US", "Report", REMEDY)
    assert told.message == "node n1 (US) is outside ResidencyPolicy/ours@1"
    assert desk.told == [("AuditViolation", f"p0: {told.message}; {REMEDY}")]
    (later,) = desk.look(60.0)
    assert (later.since, desk.done, len(desk.told)) == (told.since, [], 1)


def test_every_policy_that_would_not_have_it_there_is_named_and_no_other() -> None:
    desk = Desk(only("DE"), only("US", name="theirs"), only("CH", name="third"))
    (told,) = desk.look()
    assert told.message == "node n1 (US) is outside ResidencyPolicy/ours@1, ResidencyPolicy/third@1"
    desk.demands = (only("US"), only("US", name="theirs"), only("CH", name="third"))
    (told,) = desk.look(1.0)
    assert told.message == "node n1 (US) is outside ResidencyPolicy/third@1"
    assert told.since.timestamp() == NOW_TIME, "it was outside all the time"


@pytest.mark.parametrize("ends", ("the node moves", "the policy goes", "the replica goes", "the node goes"))
def test_it_is_named_until_it_is_inside_or_gone(ends: str) -> None:
    desk = Desk(only("DE"))
    desk.look()
    if ends == "the node moves":
        desk.state.put_node(a.node("n1", country="DE"))
    elif ends == "the policy goes":
        desk.demands = ()
    elif ends == "the replica goes":
        desk.state.delete_pod(next(iter(desk.state.pods)))
    else:
        desk.state.delete_node("n1")
    assert desk.look(1.0) == []


def test_one_that_ends_is_named_until_it_is_gone() -> None:
    desk = Desk(only("DE"))
    (before,) = desk.look()
    desk.state.put_pod(replace(a.pod("p0", node="n1"), terminating=True, resource_version="9"))
    (told,) = desk.look(1.0)
    assert (told.since, told.remedy) == (before.since, "it is ending within its grace")


def test_a_pool_that_goes_is_forgotten() -> None:
    desk = Desk(only("DE"))
    desk.look()
    desk.picture.pools, desk.picture.rolls = {}, {}
    desk.isolating.look(desk.picture, frozenset({a.POOL}), 1.0, NOW_TIME)
    assert desk.isolating.violations(a.POOL) == ()


def test_who_is_outside_a_law_that_counts_is_named_by_that_alone() -> None:
    desk = Desk(only("DE"), only("CH", enforced=True, name="theirs"))
    (told,) = desk.look()
    assert (told.action, told.message) == ("Drain", "node n1 (US) is outside ResidencyPolicy/theirs@1")
    assert (desk.done, [reason for reason, _ in desk.told]) == (["isolate p0"], ["UnlawfulPlace"])


def test_whoever_something_is_done_about_is_named_before_all_that_are_only_audited() -> None:
    desk = Desk(only("DE"), replicas=MOST_TOLD + 5)
    assert len(desk.look()) == MOST_TOLD
    desk.state.put_node(a.node("n2", country="CH"))
    desk.state.put_pod(a.pod("unlawful", node="n2"))
    desk.demands = (only("DE"), only("US", enforced=True, name="theirs"))
    named = desk.look(60.0)
    assert (len(named), named[0].pod) == (MOST_TOLD, "unlawful")


def test_of_many_at_once_one_event_tells_and_of_one_more_the_status_alone() -> None:
    desk = Desk(only("DE"), replicas=3)
    desk.look()
    desk.state.put_pod(a.pod("p3", node="n1"))
    assert [one.pod for one in desk.look(1.0)] == ["p0", "p1", "p2", "p3"]
    ((_, note),) = desk.told
    assert note.startswith("p0: node n1 (US) is outside ResidencyPolicy/ours@1; and 2 more replicas; the policy only")


def test_replicas_that_take_turns_outside_have_one_event_and_another_once_nobody_was() -> None:
    desk = Desk(only("DE"))
    desk.look()
    for number in range(1, 4):
        desk.state.put_pod(a.pod(f"p{number}", node="n1"))
        desk.state.delete_pod(f"uid-p{number - 1}")
        assert [one.pod for one in desk.look(float(number))] == [f"p{number}"]
    assert len(desk.told) == 1
    desk.state.delete_pod("uid-p3")
    assert desk.look(4.0) == []
    desk.state.put_pod(a.pod("p4", node="n1"))
    desk.look(5.0)
    assert [note.partition(":")[0] for _, note in desk.told] == ["p0", "p4"]


def test_who_leads_from_now_on_tells_nothing_anew_and_since_when_it_was_so() -> None:
    before = Desk(only("DE"), replicas=2)
    before.look()
    desk = Desk(only("DE"), replicas=3, status=before.stored())
    assert [one.since.timestamp() - NOW_TIME for one in desk.look(300.0)] == [0.0, 0.0, 300.0]
    assert desk.told == [], "the pool was outside before"


@pytest.mark.parametrize(
    ("created", "static", "since", "told"),
    (
        pytest.param(-60.0, False, 0.0, 0, id="the one that was told of"),
        pytest.param(0.0, False, 0.0, 0, id="told of in the second in which it was created"),
        pytest.param(100.0, False, 100.0, 1, id="made anew under the name of one that was told of"),
        pytest.param(100.0, True, 0.0, 0, id="static: what shows it is made anew, and it runs on"),
        pytest.param(900.0, False, 300.0, 1, id="made anew by a clock that is ahead of ours"),
    ),
)
def test_a_name_that_was_told_of_says_nothing_of_a_pod_that_is_made_later(
    created: float, static: bool, since: float, told: int
) -> None:
    before = Desk(only("DE"))
    before.look()
    desk = Desk(only("DE"), replicas=0, status=before.stored())
    owner = Owner("Node" if static else "StatefulSet", "n1", "o")
    desk.state.put_pod(a.pod("p0", node="n1", uid="another", owner=owner, created_time=NOW_TIME + created))
    assert [one.since.timestamp() - NOW_TIME for one in desk.look(300.0)] == [since]
    assert len(desk.told) == told


@pytest.mark.parametrize("status", ({"residency": {"violations": [{"pod": "of a release to come"}]}}, {"residency": 7}))
def test_a_status_that_cannot_be_read_says_nothing_of_before(status: Any) -> None:
    (told,) = Desk(only("DE"), status=status).look()
    assert told.since.timestamp() == NOW_TIME


def test_evidence_that_expires_is_told_where_the_policy_would_drain_for_it() -> None:
    lately = replace(only("US"), drains_on_expiry=True)
    lately = replace(lately, residency=replace(lately.residency, evidence_max_age_seconds=60.0))
    for demand, named in ((lately, 1), (replace(lately, drains_on_expiry=False), 0)):
        desk = Desk(demand)
        desk.state.put_node(a.node("n1", country="US", labels={EVIDENCE_TIME_LABEL: "20261121T120000Z"}))
        assert desk.look() == []
        assert len(desk.look(61.0)) == named


@pytest.fixture
def worked_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The country of every place of which it was worked out what is to be said."""
    countries, clause = list[str](), isolation.clause

    def count(node: Node, law: Effective) -> str:
        countries.append(node.country)
        return clause(node, law)

    monkeypatch.setattr(isolation, "clause", count)
    return countries


def test_what_is_said_of_one_is_worked_out_when_something_of_it_changes(worked_out: list[str]) -> None:
    desk = Desk(only("DE"))
    (told,) = desk.look()
    assert (desk.look(1.0), worked_out) == ([told], ["US"])
    desk.state.put_node(a.node("n1", country="FR"))
    assert [one.message for one in desk.look(2.0)] == ["node n1 (FR) is outside ResidencyPolicy/ours@1"]


def test_what_is_said_of_a_place_is_worked_out_once_for_all_who_are_there(worked_out: list[str]) -> None:
    desk = Desk(only("DE"), replicas=0)
    for number, country in enumerate(("US", "US", "FR")):
        desk.state.put_node(a.node(f"n{number}", country=country))
        desk.state.put_pod(a.pod(f"p{number}", node=f"n{number}"))
    for revision in ("1", "2"):
        desk.demands = tuple(replace(one, source=f"ResidencyPolicy/ours@{revision}") for one in desk.demands)
        outside = f"is outside ResidencyPolicy/ours@{revision}"
        said = [f"node n0 (US) {outside}", f"node n1 (US) {outside}", f"node n2 (FR) {outside}"]
        assert [one.message for one in desk.look(float(revision))] == said
    assert sorted(worked_out) == ["FR", "FR", "US", "US"], "two places, two revisions"


def test_two_nodes_of_one_country_that_differ_in_another_label_are_told_apart() -> None:
    law = Residency(restricted=True, allowed_countries=frozenset({"US"}), operators=frozenset({"DE"}))
    desk = Desk(replace(only("US"), residency=law), replicas=0)
    for name, labels in (("n1", {}), ("n2", {OPERATOR_LABEL: "FR"})):
        desk.state.put_node(a.node(name, country="US", labels=labels))
        desk.state.put_pod(a.pod(f"on-{name}", node=name))
    assert [one.message for one in desk.look()] == [
        "node n1 (US) is outside ResidencyPolicy/ours@1 with no operator",
        "node n2 (US) is outside ResidencyPolicy/ours@1 by operator",
    ]
