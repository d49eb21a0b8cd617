"""Who is outside the law is taken out once, and told until gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.api.names import EVIDENCE_TIME_LABEL
from penstock.api.residencypolicy import Action
from penstock.cluster.objects import Service
from penstock.cluster.parse.written import pool_object
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts as RealActs
from penstock.control.decisionlog.recording import Recorder
from penstock.control.picture import Picture
from penstock.control.residency.isolating import RECHECK_SECONDS, Isolating
from penstock.core.decisionlog.record import Entry
from penstock.core.model import Isolated, Owner, Phase, PlacementRules, Pod, PoolKey, Residency
from penstock.core.pool import Pool, Template, roll_call
from penstock.core.residency.ceiling import Demand, Effective, effective
from penstock.errors import ApiError, Conflict, NotFound
from penstock.metrics import Metrics

GERMAN = Residency(restricted=True, allowed_countries=frozenset({"DE"}))
NOW_TIME = 1_795_262_400.0
PORTLESS = {"template": {"spec": {"containers": [{"name": "server", "image": "s", "resources": {"limits": {}}}]}}}


class Notes(Recorder):
    """A recorder that keeps what it notes."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Entry] = []

    def note(self, entry: Entry) -> None:
        self.noted.append(entry)


class Acts:
    """Stands where the acts are, and notes who was asked what."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.isolated_since_time: list[float] = []
        self.foreign_services: set[PoolKey] = set()
        self.recorder = self

    async def isolate(self, pod: Pod, _uid: str, one: Isolated) -> bool:
        self.isolated_since_time.append(one.since_time)
        self.done.append(("isolate", pod.name))
        return True

    async def drain(self, pod: Pod, _why: str) -> bool:
        self.done.append(("drain", pod.name))
        return True

    def note(self, _entry: object) -> None:
        pass

    def post(self, _subject: object, _severity: str, reason: str, note: str) -> None:
        self.done.append((reason, note))

    def wake(self) -> None:
        pass


class Desk:
    """A pool with one replica, on a node of a country."""

    def __init__(self, country: str = "US", action: Action = "Drain") -> None:
        self.acts = Acts()
        acts: Any = self.acts
        self.state = ClusterState()
        self.isolating = Isolating(self.state, acts, acts, a.runs_to_its_first_pause)
        self.picture = Picture(self.state)
        self.law: Effective = effective([Demand("ResidencyPolicy/ours@1", GERMAN, policy="ours", on_violation=action)])
        self.state.put_node(a.node("n1", country=country))
        self.pod = a.pod("p1", node="n1", owner=Owner("ReplicaSet", "llama-1", "set"))
        self.state.put_pod(self.pod)
        self.template: Template | None = Template()

    def told_before(self, **residency: Any) -> None:
        """What the leader before us wrote into the pool's status."""
        metadata = {"namespace": a.POOL.namespace, "name": a.POOL.name, "uid": "u", "resourceVersion": "1"}
        status = {"residency": residency}
        self.state.written_pools.put(pool_object({"metadata": metadata, "spec": PORTLESS, "status": status}))

    def look(self, at: float = 0.0) -> list[tuple[str, str]]:
        """What one look does."""
        self.acts.done.clear()
        pool = Pool(a.POOL, "u", 1, 1, PlacementRules(), template=self.template, standing_law=self.law)
        pool = replace(pool, replica_sets=frozenset({"set"}))
        pods = self.state.pods_by_pool.get(a.POOL, {}).values()
        self.picture.pools, self.picture.rolls = {a.POOL: pool}, {a.POOL: roll_call(pool, pods)}
        self.isolating.look(self.picture, frozenset({a.POOL}), at, NOW_TIME + at)
        return [(what, told) for what, told in self.acts.done if what != "UnlawfulPlace"]


@pytest.fixture(autouse=True)
def _without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.control.residency.isolating.REFUSED_PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("action", "does"),
    (("Isolate", [("isolate", "p1")]), ("Drain", [("isolate", "p1")]), ("Evict", [("drain", "p1")])),
)
def test_what_is_done_is_what_the_law_says(action: Action, does: list[tuple[str, str]]) -> None:
    assert Desk(action=action).look() == does


def test_it_is_asked_once_told_once_and_said_until_it_is_gone() -> None:
    desk = Desk()
    desk.look()
    assert ("UnlawfulPlace", "p1: node n1 (US) is outside ResidencyPolicy/ours@1") in desk.acts.done
    assert desk.look(1.0) == []
    assert desk.acts.done == [], "and no second Event"
    (told,) = desk.isolating.violations(a.POOL)
    assert (told.pod, told.node, told.action) == ("p1", "n1", "Drain")
    desk.state.delete_pod(desk.pod.uid)
    desk.look(2.0)
    assert desk.isolating.violations(a.POOL) == ()


@pytest.mark.parametrize(
    ("told", "since"),
    (
        pytest.param({}, -600.0, id="the same replica"),
        pytest.param({"node": "n2"}, 0.0, id="one of its name that was elsewhere"),
        pytest.param({"action": "Report"}, 0.0, id="one that a policy only audited until now"),
        pytest.param({"since": "2026-11-21T11:30:00Z"}, -900.0, id="one that was made after that"),
        pytest.param({"since": "2026-11-22T12:00:00Z"}, 0.0, id="one of the future"),
    ),
)
def test_a_new_leader_goes_on_from_what_the_pool_says(told: dict[str, str], since: float) -> None:
    desk = Desk()
    desk.state.put_pod(replace(desk.pod, created_time=NOW_TIME - 900.0, resource_version="2"))
    desk.told_before(violations=[{"pod": "p1", "node": "n1", "since": "2026-11-21T11:50:00Z", **told}])
    assert desk.look() == [("isolate", "p1")]
    (violation,) = desk.isolating.violations(a.POOL)
    assert violation.since.timestamp() - NOW_TIME == since
    assert desk.acts.isolated_since_time == [NOW_TIME + since], "and so it is written on the replica"


def test_one_that_comes_outside_again_is_so_from_then_on() -> None:
    desk = Desk(country="DE")
    desk.told_before(violations=[{"pod": "p1", "node": "n1", "since": "2026-11-21T11:50:00Z"}])
    desk.look()
    desk.state.put_node(a.node("n1", country="US"))
    desk.look(5.0)
    (violation,) = desk.isolating.violations(a.POOL)
    assert violation.since.timestamp() == NOW_TIME + 5.0


def test_one_that_is_out_of_traffic_ends_only_where_the_law_says_so() -> None:
    ends, looked_at = "out of traffic; it ends within its grace", "out of traffic; look at it, then delete it"
    for drains, does, says in ((True, [("drain", "p1")], ("Drain", ends)), (False, [], ("Isolate", looked_at))):
        desk = Desk()
        alone = Isolated("llama", NOW_TIME, drains=drains, message="node n1 (US) is outside ours")
        desk.state.put_pod(replace(desk.pod, pool="", isolated=alone, resource_version="9"))
        assert desk.look() == does
        (told,) = desk.isolating.violations(a.POOL)
        assert told.message == "node n1 (US) is outside ours"
        assert (told.action, told.remedy) == says


@pytest.mark.parametrize(
    ("law", "traffic", "action", "says"),
    (
        ("Isolate", "ours", "Isolate", "taken out of traffic and replaced; then look at it"),
        ("Drain", "ours", "Drain", "it is being taken out of traffic and replaced"),
        ("Evict", "ours", "Evict", "deleted within its grace, and not taken out of traffic"),
        ("Drain", "adopted", "Evict", "its traffic is not ours to end"),
        ("Isolate", "another's", "Evict", "its traffic is not ours to end"),
    ),
)
def test_what_is_said_of_one_that_is_outside_is_what_is_done_about_it(
    law: Action, traffic: str, action: Action, says: str
) -> None:
    desk = Desk(action=law)
    if traffic == "adopted":
        desk.template = None
    if traffic == "another's":
        desk.acts.foreign_services.add(a.POOL)
    desk.look()
    (told,) = desk.isolating.violations(a.POOL)
    assert told.action == action
    assert says in told.remedy
    desk.state.put_pod(replace(desk.pod, terminating=True, resource_version="9"))
    desk.look(1.0)
    (told,) = desk.isolating.violations(a.POOL)
    assert told.action == action
    assert (says if "not ours" in says else "it is ending within its grace") in told.remedy


def test_what_is_not_ours_to_take_out_of_traffic_is_ended() -> None:
    adopted, foreign = Desk(), Desk()
    adopted.template = None
    foreign.acts.foreign_services.add(a.POOL)
    assert (adopted.look(), foreign.look()) == ([("drain", "p1")], [("drain", "p1")])


@pytest.mark.parametrize(("made", "does"), ((True, "isolate"), (False, "drain")))
def test_before_anybody_looked_whose_a_service_is_only_one_that_the_watch_shows_is_ours(made: bool, does: str) -> None:
    desk = Desk()
    container: dict[str, Any] = {"name": "server", "image": "s", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    container["ports"] = [{"name": "http", "containerPort": 8000}]
    metadata = {"namespace": a.POOL.namespace, "name": a.POOL.name, "uid": "u", "resourceVersion": "1"}
    spec = {"template": {"spec": {"containers": [container]}}}
    desk.state.written_pools.put(pool_object({"metadata": metadata, "spec": spec}))
    if made:
        desk.state.put_service(Service(a.POOL, a.POOL.name, "1"))
    assert desk.look() == [(does, "p1")]


@pytest.mark.parametrize("country", ("DE", "gone"))
def test_nobody_is_outside_on_a_lawful_node_or_on_one_that_is_gone(country: str) -> None:
    desk = Desk(country="DE")
    if country == "gone":
        desk.state.delete_node("n1")
    assert desk.look() == []


@pytest.mark.parametrize("action", ("Isolate", "Drain", "Evict"))
def test_one_that_is_pinned_there_and_not_bound_yet_is_deleted_before_it_runs(action: Action) -> None:
    desk = Desk(action=action)
    desk.state.put_pod(replace(desk.pod, node="", pin="n1", phase=Phase.PENDING, resource_version="2"))
    assert desk.look() == [("drain", "p1")]
    (told,) = desk.isolating.violations(a.POOL)
    assert (told.node, told.action, told.remedy) == (
        "n1",
        "Evict",
        "it does not run yet, and is deleted before it does",
    )


def test_one_whose_lift_is_on_its_way_is_left_to_the_answer_of_the_api_server() -> None:
    desk = Desk()
    desk.state.put_pod(replace(desk.pod, node="", gates=("penstock.dev/placement",), resource_version="2"))
    desk.state.assume(desk.pod.uid, "n1")
    assert desk.look() == []


def test_a_label_that_changes_touches_the_pools_on_its_node_and_time_alone_all_after_a_while() -> None:
    desk = Desk(country="DE")
    desk.state.take_dirty()
    desk.state.put_node(a.node("n1", country="US"))
    desk.state.put_node(a.node("n2", country="US"))
    assert desk.picture.look(1.0, NOW_TIME) == {a.POOL}, "and nobody else"
    aged = Desk(country="DE")
    aged.look()
    aged.law = replace(aged.law, residency=replace(GERMAN, allowed_countries=frozenset({"FR"})))
    pool = aged.picture.pools[a.POOL]
    aged.picture.pools = {a.POOL: replace(pool, standing_law=aged.law)}
    aged.isolating.look(aged.picture, frozenset(), RECHECK_SECONDS - 0.1, NOW_TIME)
    assert aged.acts.done == []
    aged.isolating.look(aged.picture, frozenset(), RECHECK_SECONDS, NOW_TIME)
    assert ("isolate", "p1") in aged.acts.done


def test_whose_evidence_becomes_too_old_is_isolated_then_and_not_at_the_next_look_at_everybody() -> None:
    desk = Desk(country="DE")
    desk.state.put_node(a.node("n1", country="DE", labels={EVIDENCE_TIME_LABEL: "20261121T120000Z"}))
    lately = replace(GERMAN, evidence_max_age_seconds=60.0)
    desk.law = effective([Demand("ResidencyPolicy/ours@1", lately, policy="ours", drains_on_expiry=True)])
    assert desk.look(59.0) == []
    for second, does in ((60.0, []), (60.5, [("isolate", "p1")])):
        desk.isolating.look(desk.picture, frozenset(), second, NOW_TIME + second)
        assert [one for one in desk.acts.done if one[0] == "isolate"] == does
    (told,) = desk.isolating.violations(a.POOL)
    assert (told.country, told.message) == ("DE", "node n1 (DE) is outside ResidencyPolicy/ours@1 by evidence-time")


@pytest.mark.parametrize("status", (404, 409, 500))
async def test_one_that_was_not_taken_out_of_traffic_is_not_recorded_as_if_it_was(status: int) -> None:
    class Server:
        async def patch(self, *_: object) -> bytes:
            raise {404: NotFound, 409: Conflict}.get(status, ApiError)(status, "No", "no")

    desk = Desk()
    client: Any = Server()
    recorder = Notes()
    acts: Any = RealActs(client, desk.state, Metrics(), lambda: None, recorder=recorder)
    desk.isolating.acts, begun = acts, list[Any]()
    desk.isolating.spawn = begun.append
    desk.look()
    for act in begun:
        await act
    assert recorder.noted == []
