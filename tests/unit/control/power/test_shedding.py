"""What was asked to go counts as gone, once: nobody is shed twice for the same watts, and a refusal is passed over."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import builders as a
from penstock.cluster.state import ClusterState
from penstock.control.acts import Eviction, EvictionOutcome
from penstock.control.picture import Picture
from penstock.control.power.deeds import Deeds
from penstock.control.power.shedding import LONGEST_UNHEARD_SECONDS, Shedder
from penstock.core.model import Owner, PlacementRules, Pod, PodGpus, Telemetry
from penstock.core.pool import Pool, RollCall
from penstock.core.power.shedding import Cut
from penstock.metrics import Metrics

EPOCH_TIME = 1_795_262_400.0
SAVED = 2 * (600.0 - 75.0)
POOL = Pool(a.POOL, "u", 1, 3, PlacementRules(max_unavailable=3))
PODS = {
    name: a.pod(name, gpus=2, ready=True, owner=Owner("ReplicaSet", "rs", "u"), uid=f"uid-{name}") for name in "abc"
}


SHARES = {name: (f"GPU-{2 * at}", f"GPU-{2 * at + 1}") for at, name in enumerate("abc")}


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
        self.shedder.observe(self.picture, now_at, EPOCH_TIME + now_at)

    def cut(self, watts: float, now_at: float = a.NOW_AT, most: int = 9) -> list[str]:
        """Whom a domain that has to lose so much, by the last word of its node, sheds after what is on its way off."""
        self.answers.asked.clear()
        left = watts - self.shedder.unheard_watts(self.picture.fleet).get("row-a", 0.0)
        left -= self.shedder.coming_watts(self.picture.fleet).get("row-a", 0.0)
        able, allowed = self.shedder.candidates(self.picture), self.shedder.allowance(self.picture)
        self.shedder.shed(Cut("row-a", left, most), able.get("row-a", ()), allowed, now_at, EPOCH_TIME + now_at)
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


def test_what_a_late_report_still_shows_of_a_pod_that_is_gone_is_shed_for_no_more() -> None:
    scene = Scene()
    assert scene.cut(SAVED) == ["a"]
    scene.gone("a", a.NOW_AT + 5)
    for late_seconds in (8, 11, 14):
        scene.look(replace(report(6), heard_at=a.NOW_AT + late_seconds), a.NOW_AT + late_seconds)
        assert scene.cut(SAVED) == [], "sampled before its end, and heard so much later"
    scene.look(replace(report(5), heard_at=a.NOW_AT + 15), a.NOW_AT + 15)
    assert scene.cut(SAVED / 2) == [], "half of it shows yet"
    scene.look(replace(report(4), heard_at=a.NOW_AT + 16), a.NOW_AT + 16)
    assert scene.cut(SAVED) == ["b"], "all of it has fallen, so this is more to lose"


def test_what_is_drawn_without_a_pod_counts_as_saved_for_15_seconds_after_the_first_word_since() -> None:
    scene = Scene()
    scene.cut(SAVED)
    scene.gone("a", a.NOW_AT + 5)
    for heard_seconds, look_seconds, want in ((8, 8, []), (20, 22, []), (20, 24, ["b"])):
        scene.look(replace(report(6), heard_at=a.NOW_AT + heard_seconds), a.NOW_AT + look_seconds)
        assert scene.cut(SAVED) == want, look_seconds


def test_what_a_node_said_before_a_pod_was_gone_is_no_draw_of_now() -> None:
    scene = Scene()
    scene.cut(SAVED)
    scene.gone("a", a.NOW_AT + 5)
    for look_seconds in (6, 29):
        scene.look(report(6), a.NOW_AT + look_seconds)
        assert scene.shedder.unheard_watts(scene.picture.fleet) == {"row-a": SAVED}
        assert scene.shedder.coming_watts(scene.picture.fleet) == {"row-a": 0.0}, "it counts once"
    scene.look(report(6), a.NOW_AT + 31)
    assert scene.shedder.unheard_watts(scene.picture.fleet) == {}, "it is stale: only what is held is drawn there"
    scene.look(replace(report(6), heard_at=a.NOW_AT + 32), a.NOW_AT + 32)
    assert scene.shedder.unheard_watts(scene.picture.fleet) == {}


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
    assert scene.shedder.moves_in_hour("row-a", a.NOW_AT) == 0, "nobody moved"
    (told,) = scene.shedder.deeds.of("row-a")
    assert (told.action, told.subject, told.message) == ("Refused", "search/a", "budget batch needs 3 and has 3")
    assert scene.cut(SAVED, a.NOW_AT + 4) == [], "its pool is passed over"
    assert scene.cut(SAVED, a.NOW_AT + 6) == ["a"], "and asked again"


def test_another_pool_of_the_same_name_is_not_passed_over_for_a_refusal_of_the_one_before() -> None:
    scene = Scene()
    scene.answers.outcome = EvictionOutcome(Eviction.REFUSED, "budget batch needs 3 and has 3")
    assert scene.cut(SAVED) == ["a"]
    scene.picture.pools = {}
    scene.shedder.observe(scene.picture, a.NOW_AT + 1, EPOCH_TIME + a.NOW_AT + 1)
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


@dataclass(frozen=True)
class Timing:
    """How slow the world is, in seconds: from the first report after its end all of it shows within a credit's time."""

    notice: float
    """From the eviction until the pod is seen to end."""
    grace: float
    """From there until it is gone."""
    fall_from: float
    """When its GPUs begin to draw less, counted from its end."""
    fall: float
    """How long that takes."""
    pause: float
    """Between two samples."""
    lag: float
    """From a sample until it is heard."""
    silence: float
    """From the first eviction on nothing is heard for so long."""
    list_age: float
    """How old the kubelet's list is in it."""


class ClosedLoop:
    """Three busy replicas, their real draw, the reports of it that arrive, and a ladder that keeps it to a limit."""

    def __init__(self, limit_watts: float, timing: Timing, *, listed: bool) -> None:
        self.scene, self.limit_watts, self.timing, self.listed = Scene(), limit_watts, timing, listed
        self.evicted_at: dict[str, float] = {}
        self.telemetry = self.sample(a.NOW_AT, a.NOW_AT)

    def run(self, seconds: float) -> None:
        steps = [a.NOW_AT + step / 2 for step in range(int(2 * seconds))]
        sampled_at = a.NOW_AT
        for now_at in steps:
            self.move(now_at)
            silent = self.evicted_at and now_at < min(self.evicted_at.values()) + self.timing.silence
            if now_at - self.timing.lag >= sampled_at and not silent:
                self.telemetry = self.sample(sampled_at, now_at)
                sampled_at += self.timing.pause
            self.scene.look(self.telemetry, now_at)
            drawn = sum(gpu.power_watts or 0.0 for gpu in self.telemetry.gpus)
            for name in self.scene.cut(drawn - self.limit_watts, now_at):
                self.evicted_at[name] = now_at

    def move(self, now_at: float) -> None:
        for name, evicted_at in self.evicted_at.items():
            if now_at >= evicted_at + self.timing.notice and name in self.scene.pods:
                self.scene.pods[name] = replace(self.scene.pods[name], terminating=True)
            if now_at >= self.gone_at(name) and name in self.scene.pods:
                self.scene.gone(name, now_at)

    def gone_at(self, name: str) -> float:
        evicted_at = self.evicted_at.get(name)
        return math.inf if evicted_at is None else evicted_at + self.timing.notice + self.timing.grace

    def sample(self, sampled_at: float, heard_at: float) -> Telemetry:
        drawn = {uuid: self.watts(name, sampled_at) for name, uuids in SHARES.items() for uuid in uuids}
        gpus = [a.gpu(at, power_watts=drawn.get(f"GPU-{at}", 75.0)) for at in range(8)]
        pods = tuple(
            PodGpus("search", name, uuids, watts=sum(drawn[uuid] for uuid in uuids))
            for name, uuids in SHARES.items()
            if sampled_at - self.timing.list_age < self.gone_at(name)
        )
        return a.telemetry("gpu-1", gpus, heard_at=heard_at, pods=pods if self.listed else None)

    def watts(self, name: str, at: float) -> float:
        """What each GPU of a replica really draws."""
        falling = at - self.gone_at(name) - self.timing.fall_from
        done = min(1.0, max(0.0, falling / self.timing.fall)) if falling > -math.inf else 0.0
        return 600.0 - done * (600.0 - 75.0)

    def draw_watts(self, at: float) -> float:
        return 2 * 75.0 + sum(2 * self.watts(name, at) for name in SHARES)


TIMINGS = st.builds(
    Timing,
    notice=st.floats(0.0, 3.0),
    grace=st.floats(0.5, 8.0),
    fall_from=st.floats(-3.0, 1.0),
    fall=st.floats(0.1, 2.0),
    pause=st.floats(0.5, 4.0),
    lag=st.floats(0.0, 6.0),
    silence=st.floats(0.0, 12.0),
    list_age=st.floats(0.0, 10.0),
)


@settings(max_examples=25, deadline=None)
@given(timing=TIMINGS, too_many=st.integers(1, 3), share=st.floats(0.05, 1.0), listed=st.booleans())
def test_however_late_and_partial_the_reports_are_nobody_is_shed_beyond_what_suffices(
    timing: Timing, too_many: int, share: float, listed: bool
) -> None:
    full = 2 * 75.0 + 6 * 600.0
    limit_watts = full - (too_many - 1 + share) * SAVED
    loop = ClosedLoop(limit_watts, timing, listed=listed)
    loop.run(30.0)
    assert len(loop.evicted_at) == too_many
    assert loop.draw_watts(a.NOW_AT + 30.0) <= limit_watts + 1.0


def test_a_node_that_seldom_speaks_holds_the_credit_for_no_longer_than_30_seconds() -> None:
    scene = Scene()
    seldom = replace(report(6), heartbeat_seconds=300.0)
    scene.look(seldom)
    assert scene.cut(SAVED) == ["a"]
    scene.gone("a", a.NOW_AT + 5)
    scene.look(seldom, a.NOW_AT + 5 + LONGEST_UNHEARD_SECONDS - 1)
    assert scene.cut(SAVED) == []
    scene.look(seldom, a.NOW_AT + 5 + LONGEST_UNHEARD_SECONDS + 1)
    assert scene.cut(SAVED) == ["b"]
