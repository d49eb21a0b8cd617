"""What was asked to go counts as gone, once: nobody is shed twice for the same watts, and a refusal is passed over."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import builders as a
from penstock.cluster.state import ClusterState
from penstock.control.acts import Eviction, EvictionOutcome
from penstock.control.deeds import Deeds
from penstock.control.picture import Picture
from penstock.control.shedding import Shedder
from penstock.core.model import Owner, PlacementRules, Pod, Telemetry
from penstock.core.pool import Pool, RollCall
from penstock.core.shedding import Cut
from penstock.metrics import Metrics

SAVED = 2 * (600.0 - 75.0)
POOL = Pool(a.POOL, "u", 1, 3, PlacementRules(max_unavailable=3))
PODS = {
    name: a.pod(name, gpus=2, ready=True, owner=Owner("ReplicaSet", "rs", "u"), uid=f"uid-{name}") for name in "abc"
}


def report(busy: int) -> Telemetry:
    gpus = [a.gpu(at, power_watts=600.0 if at < busy else 75.0) for at in range(8)]
    return a.telemetry("gpu-1", gpus)


class Answers:
    """Stands where the Eviction API is, and notes who was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.outcome = EvictionOutcome(Eviction.ACCEPTED)
        self.leaving: set[str] = set()

    async def evict(self, pod: Pod) -> EvictionOutcome:
        self.asked.append(pod.name)
        return self.outcome

    def wake(self) -> None:
        pass

    def post(self, *_: object) -> None:
        pass


class Scene:
    """Three busy replicas on one node; `cut` sheds for that much."""

    answers: Any

    def __init__(self) -> None:
        self.answers = Answers()
        self.state = ClusterState()
        self.pods = dict(PODS)
        self.picture = Picture(self.state)
        events: Any = self.answers
        deeds = Deeds(self.state, events, Metrics())
        acts: Any = self.answers
        self.shedder = Shedder(self.state, acts, self.run, deeds)
        self.look(report(6))

    @staticmethod
    def run(task: Coroutine[object, object, None]) -> None:
        try:
            task.send(None)
        except StopIteration:
            return

    def look(self, heard: Telemetry, now_at: float = a.NOW_AT) -> None:
        self.state.telemetry["gpu-1"] = heard
        self.state.pods = {pod.uid: pod for pod in self.pods.values()}
        bound = tuple(pod for pod in self.pods.values() if not pod.terminating)
        ending = tuple(pod for pod in self.pods.values() if pod.terminating)
        self.picture.pools, self.picture.rolls = {a.POOL: POOL}, {a.POOL: RollCall(bound=bound, terminating=ending)}
        self.picture.before = self.picture.fleet
        self.picture.fleet = a.fleet(
            a.node(), telemetries=[heard], pods=self.pods.values(), domains=[a.domain()], now_at=now_at
        )
        self.shedder.observe(self.picture, now_at, now_at)

    def cut(self, watts: float, now_at: float = a.NOW_AT, most: int = 9) -> list[str]:
        """Whom a domain that has to lose so much sheds, after what is on its way off."""
        self.answers.asked.clear()
        left = watts - self.shedder.coming_watts(self.picture.fleet).get("row-a", 0.0)
        able, allowed = self.shedder.candidates(self.picture), self.shedder.allowance(self.picture)
        self.shedder.shed(Cut("row-a", left, most), able.get("row-a", ()), allowed, now_at, now_at)
        return list(self.answers.asked)

    def gone(self, name: str, now_at: float) -> None:
        pod = self.pods.pop(name)
        self.picture.departed = ((POOL, pod),)
        self.look(self.state.telemetry["gpu-1"], now_at)
        self.picture.departed = ()


def test_the_same_watts_are_shed_once_from_the_request_to_the_next_report() -> None:
    scene = Scene()
    assert scene.cut(SAVED) == ["a"]
    assert scene.cut(SAVED) == [], "it was asked to go"
    scene.pods["a"] = replace(scene.pods["a"], terminating=True)
    scene.look(report(6))
    assert scene.cut(SAVED) == [], "it is ending"
    scene.gone("a", a.NOW_AT + 5)
    assert scene.cut(SAVED) == [], "it is gone, and the meter does not show it yet"
    scene.look(replace(report(4), heard_at=a.NOW_AT + 8), a.NOW_AT + 8)
    assert scene.cut(SAVED) == ["b"], "the meter shows it now, so this is more to lose"


def test_a_node_that_never_reports_again_holds_the_credit_for_15_seconds() -> None:
    scene = Scene()
    scene.cut(SAVED)
    scene.gone("a", a.NOW_AT + 5)
    scene.look(report(6), a.NOW_AT + 19)
    assert scene.cut(SAVED) == []
    scene.look(report(6), a.NOW_AT + 21)
    assert scene.cut(SAVED) == ["b"]


def test_an_eviction_that_shows_no_effect_is_asked_for_again() -> None:
    scene = Scene()
    scene.answers.outcome = EvictionOutcome(Eviction.UNANSWERED)
    assert scene.cut(SAVED) == ["a"]
    scene.look(report(6), a.NOW_AT + 14)
    assert scene.cut(SAVED) == []
    scene.look(report(6), a.NOW_AT + 16)
    assert scene.cut(SAVED) == ["a"]


def test_a_refusal_is_told_passed_over_and_forgotten() -> None:
    scene = Scene()
    scene.answers.outcome = EvictionOutcome(Eviction.REFUSED, "budget batch needs 3 and has 3")
    assert scene.cut(SAVED) == ["a"]
    assert scene.shedder.waiting == ()
    assert not scene.shedder.was_shed(PODS["a"])
    (told,) = scene.shedder.deeds.of("row-a")
    assert (told.action, told.subject, told.message) == ("Refused", "search/a", "budget batch needs 3 and has 3")
    assert scene.cut(SAVED, a.NOW_AT + 4) == [], "its pool is passed over"
    assert scene.cut(SAVED, a.NOW_AT + 6) == ["a"], "and asked again"


def test_another_pool_of_the_same_name_is_not_passed_over_for_a_refusal_of_the_one_before() -> None:
    scene = Scene()
    scene.answers.outcome = EvictionOutcome(Eviction.REFUSED, "budget batch needs 3 and has 3")
    assert scene.cut(SAVED) == ["a"]
    scene.picture.pools = {}
    scene.shedder.observe(scene.picture, a.NOW_AT + 1, a.NOW_AT + 1)
    scene.look(report(6), a.NOW_AT + 2)
    assert scene.cut(SAVED, a.NOW_AT + 2) == ["a"]


def test_who_was_shed_waits_has_no_right_of_return_and_counts_against_the_hour() -> None:
    scene = Scene()
    assert scene.cut(2 * SAVED) == ["a", "b"]
    assert scene.shedder.waiting_of(a.POOL) == 2
    assert scene.shedder.was_shed(PODS["a"])
    assert not scene.shedder.was_shed(PODS["c"])
    assert scene.shedder.moves_in_hour("row-a", a.NOW_AT + 3_600) == 2
    assert scene.shedder.moves_in_hour("row-a", a.NOW_AT + 3_601) == 0
    (written,) = scene.shedder.waiting_from("row-a")
    assert (written.pool, written.replicas, written.watts) == ("llama", 2, 2 * SAVED)
