"""How long a GPU has to be broken, that nobody is evicted twice, and that a refusal is asked again at a pace."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import builders as a
from penstock.cluster.state import ClusterState
from penstock.control.acts import Eviction, EvictionOutcome
from penstock.control.draining import ASK_AGAIN_SECONDS, Draining
from penstock.control.picture import Picture
from penstock.core.lifecycle import Verdict
from penstock.core.model import GpuHealth, Owner, PlacementRules, Pod, PodGpus
from penstock.core.pool import Pool, Template, roll_call
from penstock.metrics import Metrics

SET = Owner("ReplicaSet", "llama-1", "rs-1")
LISTED = (PodGpus("search", "pod-1", ("GPU-0",)),)


ACCEPTED = EvictionOutcome(Eviction.ACCEPTED)


@dataclass
class Api:
    """Stands where the acts are, and answers each eviction as a test wants."""

    answer: EvictionOutcome = EvictionOutcome(Eviction.ACCEPTED)
    asked: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    state: ClusterState = field(default_factory=ClusterState)
    leaving: set[str] = field(default_factory=set)

    async def evict(self, pod: Any) -> EvictionOutcome:
        self.asked.append(pod.name)
        return self.answer


class Desk:
    def __init__(self, answer: EvictionOutcome = ACCEPTED) -> None:
        self.api = Api(answer)
        acts: Any = self.api
        self.draining = Draining(acts, hold_seconds=10.0)
        self.picture = Picture(ClusterState())
        rules, sets = PlacementRules(), frozenset({"rs-1"})
        self.pool = Pool(a.POOL, "uid", 1, desired=1, rules=rules, template=Template(), count=1, replica_sets=sets)

    def turn(self, now_at: float, *others: Pod, broken: bool = True, **heard: Any) -> list[Verdict]:
        """One turn: what is decided, and carried out."""
        health = GpuHealth.LOST if broken else GpuHealth.HEALTHY
        pod = a.pod(gpus=1, owner=SET, ready=True)
        self.api.state.pods = {one.uid: one for one in (pod, *others)}
        report = a.telemetry(gpus=[a.gpu(0, health=health)], pods=LISTED, **{"heard_at": now_at, **heard})
        self.picture.fleet = a.fleet(a.node(gpus=1), telemetries=[report], pods=[pod], now_at=now_at)
        self.picture.pools, self.picture.rolls = {a.POOL: self.pool}, {a.POOL: roll_call(self.pool, [pod, *others])}
        found = [one for members in self.draining.verdicts(self.picture, now_at).values() for one in members]
        for one in found:
            if one.delete:
                self.draining.begin(one)
                asyncio.run(self.draining.evict(one))
        return found


def test_a_gpu_has_to_be_broken_for_a_while() -> None:
    desk = Desk()
    assert desk.turn(1000.0) == []
    assert desk.turn(1009.9) == []
    assert [one.pod.name for one in desk.turn(1010.0)] == ["pod-1"]
    assert desk.api.asked == ["pod-1"]


def test_one_that_mends_in_between_begins_anew() -> None:
    desk = Desk()
    desk.turn(1000.0)
    desk.turn(1005.0, broken=False)
    assert desk.turn(1010.0) == desk.turn(1015.0) == []
    assert desk.api.asked == []


def test_nobody_is_evicted_twice() -> None:
    desk = Desk()
    for now_at in (1000.0, 1010.0, 1011.0, 1100.0):
        desk.turn(now_at)
    assert desk.api.asked == ["pod-1"]


def test_a_report_that_is_stale_or_contradicts_itself_moves_nobody() -> None:
    desk = Desk()
    for now_at in (1000.0, 1020.0, 1040.0):
        assert desk.turn(now_at, heard_at=now_at - 31.0) == []
        assert desk.turn(now_at, contradiction="energy stands still") == []
    assert desk.api.asked == []


def test_a_replica_that_is_being_shed_counts_as_away() -> None:
    desk = Desk()
    desk.pool = replace(desk.pool, desired=2)
    other = a.pod("pod-2", gpus=1, owner=SET, ready=True)
    desk.api.leaving.add(other.uid)
    desk.turn(1000.0, other)
    (told,) = desk.turn(1010.0, other)
    assert "as many are away" in told.message
    assert desk.api.asked == []


def test_a_refused_eviction_is_told_and_asked_again_later(monkeypatch: Any) -> None:
    desk = Desk(EvictionOutcome(Eviction.REFUSED, "The disruption budget keep-one needs 1 healthy pods"))
    clock = [1010.0]
    monkeypatch.setattr("penstock.control.draining.time.monotonic", lambda: clock[0])
    desk.turn(1000.0)
    desk.turn(1010.0)
    (told,) = desk.turn(1010.0 + ASK_AGAIN_SECONDS - 0.1)
    assert "keep-one" in told.message
    assert desk.api.asked == ["pod-1"]
    desk.turn(1010.0 + ASK_AGAIN_SECONDS)
    assert desk.api.asked == ["pod-1", "pod-1"]
