"""What is handed over to be written: a status when it changed, and the whole of it for an object that is new."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import builders as a
from builders import spawns_nothing
from penstock.cluster.events import Subject
from penstock.cluster.objects import DomainObject, PoolObject
from penstock.cluster.parse.written import pool_object
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts
from penstock.control.picture import Picture
from penstock.control.power.capping import Capping
from penstock.control.power.deeds import Deeds
from penstock.control.power.ladder import Ladders
from penstock.control.power.shedding import Shedder
from penstock.control.report import Reporter, Scene
from penstock.core.model import PodGpus, PoolKey
from penstock.core.placement.verdicts import Plan
from penstock.core.telling.problem import Problem
from penstock.metrics import Metrics
from penstock.settings import Settings

KEY = PoolKey("search", "llama")
UNKNOWN = (Problem("spec.engine", "Abacus", "write vLLM"),)
Told = list[tuple[str, str]]


def pool(uid: str) -> PoolObject:
    return PoolObject(KEY, uid, 1, "7", spec=None, problems=UNKNOWN)


def domain(uid: str) -> DomainObject:
    return DomainObject("row-a", uid, 1, "7", spec=None, problems=UNKNOWN)


@dataclass
class Listener:
    """Stands where statuses and Events go, and notes whose they are."""

    told: Told = field(default_factory=list)

    def put(self, subject: Subject, status: Any) -> None:
        assert status["conditions"][0]["reason"] == "InvalidSpec"
        self.told.append((subject.kind, subject.uid))

    def post(self, *_: object) -> None:
        pass


class Desk:
    """A reporter over a cluster state that a test fills."""

    def __init__(self) -> None:
        self.state, self.listener, metrics = ClusterState(), Listener(), Metrics()
        self.picture = Picture(self.state)
        writer: Any = self.listener
        nothing: Any = None  # No act is tried here, so there is no API server.
        acts = Acts(nothing, self.state, metrics, lambda: None)
        deeds, capping = Deeds(self.state, writer, metrics), Capping(self.state, acts, spawns_nothing, lambda: "")
        self.ladders = Ladders(self.state, deeds, Shedder(self.state, acts, spawns_nothing, deeds), capping)
        self.reporter = Reporter(self.state, writer, writer, acts, metrics, Settings())

    def turn(self, now: float) -> Told:
        """What one turn hands over."""
        self.listener.told.clear()
        touched = self.picture.look(now, now)
        self.reporter.report(Scene(self.picture, Plan(), {}, (), self.ladders, touched, now, now))
        return list(self.listener.told)


def test_a_status_is_handed_over_once_and_again_only_when_it_changed() -> None:
    desk = Desk()
    desk.state.written_pools.put(pool("uid-1"))
    desk.state.written_domains.put(domain("uid-1"))
    assert desk.turn(100.0) == [("PowerDomain", "uid-1"), ("InferencePool", "uid-1")]
    assert desk.turn(110.0) == []


def test_an_object_that_was_deleted_and_made_anew_between_two_turns_has_its_status_too() -> None:
    desk = Desk()
    desk.state.written_pools.put(pool("uid-1"))
    desk.state.written_domains.put(domain("uid-1"))
    desk.turn(100.0)
    desk.state.written_pools.delete(KEY, "uid-1")
    desk.state.written_domains.delete("row-a", "uid-1")
    desk.state.written_pools.put(pool("uid-2"))
    desk.state.written_domains.put(domain("uid-2"))
    assert desk.turn(110.0) == [("PowerDomain", "uid-2"), ("InferencePool", "uid-2")]


def test_after_a_change_of_leader_a_status_is_handed_over_again_only_where_it_was_not_read_wholly() -> None:
    first, keeper = Desk(), Keeper()
    writer: Any = keeper
    first.reporter.writer = writer
    first.state.written_pools.put(pool("uid-1"))
    first.state.written_domains.put(domain("uid-1"))
    first.turn(100.0)
    ours, newer = keeper.statuses, [{"type": "OfAReleaseToCome"}]
    theirs = {kind: {**one, "conditions": one["conditions"] + newer} for kind, one in ours.items()}
    for statuses, told in ((ours, []), (theirs, [("PowerDomain", "uid-1"), ("InferencePool", "uid-1")])):
        desk = Desk()
        desk.state.written_pools.put(replace(pool("uid-1"), status=statuses["InferencePool"]))
        desk.state.written_domains.put(replace(domain("uid-1"), status=statuses["PowerDomain"]))
        assert desk.turn(100.0) == told
        assert desk.turn(110.0) == []


class Keeper:
    """Keeps the last status of each kind."""

    def __init__(self) -> None:
        self.statuses: dict[str, Any] = {}

    def put(self, subject: Subject, status: Any) -> None:
        self.statuses[subject.kind] = status


def test_a_replica_that_long_did_nothing_is_named_and_counted_and_so_is_a_node_without_a_budget() -> None:
    desk, keeper = Desk(), Keeper()
    writer: Any = keeper
    desk.reporter.writer = writer
    metadata = {"name": KEY.name, "namespace": KEY.namespace, "uid": "u", "resourceVersion": "1"}
    desk.state.written_pools.put(pool_object({"metadata": metadata, "spec": {}}))
    desk.state.put_node(a.node(gpus=2))
    desk.state.put_pod(a.pod("r-1", gpus=2))
    held = PodGpus(KEY.namespace, "r-1", ("GPU-0", "GPU-1"), activity_percent=0.0)
    for now in (0.0, desk.reporter.settings.idle_seconds):
        desk.state.telemetry["gpu-1"] = a.telemetry(gpus=2, pods=(held,), heard_at=now)
        desk.state.dirty_nodes.add("gpu-1")
        desk.turn(now)
    told = {one["type"]: one for one in keeper.statuses["InferencePool"]["conditions"]}
    assert told["Utilized"]["reason"] == "IdleReplicas"
    assert "r-1 on gpu-1 (2 GPUs)" in told["Utilized"]["message"]
    assert told["WithinPowerBudget"]["message"].startswith("no PowerDomain selects gpu-1")
    sample = desk.reporter.metrics.registry.get_sample_value
    assert sample("penstock_pool_idle_replicas", {"namespace": KEY.namespace, "pool": KEY.name}) == 1
    assert sample("penstock_gpu_nodes_without_domain") == 1


def test_a_status_that_cannot_be_made_keeps_no_other_from_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.state.written_pools.put(pool("uid-1"))
    desk.state.written_domains.put(domain("uid-1"))

    def spoiled(*_: object) -> None:
        raise ValueError("spoiled")

    monkeypatch.setattr("penstock.core.power.domain_status.domain_status", spoiled)
    assert desk.turn(100.0) == [("InferencePool", "uid-1")]
    monkeypatch.undo()
    monkeypatch.setattr("penstock.core.telling.status.pool_status", spoiled)
    desk.state.dirty_pools.add(KEY)
    assert desk.turn(110.0) == [("PowerDomain", "uid-1")]
