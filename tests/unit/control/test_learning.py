"""Learning over a restart: what the status says is in force again, and a status is written at a pace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

import builders as a
from penstock.cluster.objects import PoolObject
from penstock.cluster.state import ClusterState
from penstock.control.learning import LOOK_SECONDS, ROWS_AT_ONCE, Learning
from penstock.control.picture import Picture
from penstock.core.model import LearnedWatts, PlacementRules, PodGpus
from penstock.core.pool import Pool
from penstock.core.power.learned_status import learned_watts
from penstock.core.power.learning import DAY_SECONDS, Day, Kind, Learned

FIRST = 20_000
NOON = FIRST * DAY_SECONDS + DAY_SECONDS // 2
LISTED = (PodGpus("search", "pod-1", ("GPU-0", "GPU-1")),)
WRITE_SECONDS = 3_600.0
Status = dict[str, Any]


@dataclass
class Desk:
    """A picture of one node and one pool, whose replica draws what a test says."""

    stored: Status = field(default_factory=dict)
    uid: str = "uid-1"
    now_at: float = a.NOW_AT
    now_time: float = NOON
    sequence: int = 1

    def __post_init__(self) -> None:
        self.state = ClusterState()
        self.picture = Picture(self.state)
        self.learning = Learning(self.state, WRITE_SECONDS)
        self.born(self.uid)

    def born(self, uid: str) -> None:
        self.state.pools[a.POOL] = PoolObject(a.POOL, uid, 1, "7", spec=None, status=self.stored)
        self.picture.pools[a.POOL] = Pool(a.POOL, uid, 1, desired=1, rules=PlacementRules())

    def draws(self, watts: float, times: int = 1, every_seconds: float = 10.0, template: str = "h1") -> None:
        for _ in range(times):
            self.now_at += every_seconds
            self.now_time += every_seconds
            self.sequence += 1
            gpus = [a.gpu(at, power_watts=watts, activity_percent=90.0) for at in range(2)]
            heard = a.telemetry(gpus=gpus, pods=LISTED, sequence=self.sequence, heard_at=self.now_at)
            self.picture.fleet = a.fleet(
                a.node(gpus=2), telemetries=[heard], pods=[a.pod(template_hash=template)], now_at=self.now_at
            )
            self.look()

    def look(self) -> None:
        self.learning.observe(self.picture, self.now_at, self.now_time)

    @property
    def written(self) -> list[tuple[str, float, int]]:
        return [(one.template_hash, one.p99_watts, one.samples) for one in self.learning.written(a.POOL)]

    @property
    def in_force(self) -> tuple[LearnedWatts, ...]:
        return self.picture.learned.get(a.POOL, ())


def status(number: int, *, busy: bool = True, template: str = "h1", watts: float = 500.0) -> Status:
    """A status that holds so many days, the last of them yesterday."""
    days = tuple(Day(FIRST - at, watts, 8_640, busy=busy) for at in range(number, 0, -1))
    written = learned_watts({Kind(a.H200, template): Learned(days)}, NOON - 2 * WRITE_SECONDS)
    return {"power": {"learned": [one.as_json() for one in written]}}


RESTARTS: dict[str, tuple[Status, tuple[LearnedWatts, ...]]] = {
    "a week that was written is in force after a restart": (status(7), (LearnedWatts("h1", 500.0),)),
    "a week without a busy peak is not": (status(7, busy=False), ()),
    "six days are not": (status(6), ()),
    "nothing was written": ({}, ()),
    "what cannot be read any more says nothing": ({"power": {"learned": [{"product": 7}]}}, ()),
}


@pytest.mark.parametrize(("stored", "want"), RESTARTS.values(), ids=RESTARTS.keys())
def test_a_restart(stored: Status, want: tuple[LearnedWatts, ...]) -> None:
    desk = Desk(stored)
    # A new template is what runs now, so that nothing more is learned of the old one.
    desk.draws(100.0, template="h2")
    assert desk.in_force == want


def test_what_is_learned_goes_on_where_the_status_left_it() -> None:
    desk = Desk(status(7))
    desk.draws(640.0)
    assert desk.in_force == (LearnedWatts("h1", 640.0),)
    assert a.POOL in desk.state.take_dirty().pools, "what counts now has to reach the planner"
    desk.draws(90.0, 10)
    assert desk.in_force == (LearnedWatts("h1", 640.0),)


def test_a_new_template_starts_anew_beside_the_old_one() -> None:
    desk = Desk(status(7))
    desk.draws(300.0, 400, template="h2")
    assert desk.in_force == (LearnedWatts("h1", 500.0),)
    assert {(template, watts) for template, watts, _ in desk.written} == {("h1", 500.0), ("h2", 300.0)}


def test_a_status_is_written_once_an_hour_and_not_with_every_sample() -> None:
    desk = Desk()
    desk.draws(500.0, 60)
    assert desk.written == [], "nothing in the first minutes: a quiet cluster is not written to"
    desk.draws(500.0, 1)
    assert desk.written == [("h1", 500.0, 122)], "the first figure is a rise"
    desk.draws(500.0, 300)
    assert desk.written == [("h1", 500.0, 122)]
    desk.draws(500.0, 60)
    ((_, _, samples),) = desk.written
    assert samples > 122


def test_a_rise_is_written_sooner() -> None:
    desk = Desk()
    desk.draws(500.0, 61)
    desk.draws(510.0, 100)
    assert desk.written[0][1] == 500.0, "a rise by two percent is no news"
    desk.draws(600.0, 2)
    assert desk.written[0][1] == 600.0


def test_the_same_report_seen_twice_is_one_sample() -> None:
    desk = Desk()
    desk.draws(500.0)
    for _ in range(720):
        desk.now_at += 10.0
        desk.now_time += 10.0
        desk.look()
    assert desk.written == [("h1", 500.0, 2)]


def test_a_pool_of_the_same_name_made_anew_inherits_nothing() -> None:
    desk = Desk(status(7))
    desk.draws(100.0, template="h2")
    desk.stored = {}
    desk.born("uid-2")
    desk.draws(100.0, template="h2")
    assert desk.in_force == ()


def test_a_node_that_is_not_believed_teaches_nothing() -> None:
    desk = Desk()
    desk.draws(-500.0, 61)
    assert desk.written == []


def test_a_pool_that_came_since_the_last_look_keeps_what_its_status_says() -> None:
    desk = Desk(status(7))
    assert desk.written == [("h1", 500.0, 7 * 8_640)]


def test_a_pool_that_is_gone_is_forgotten() -> None:
    desk = Desk(status(7))
    desk.draws(100.0)
    del desk.picture.pools[a.POOL], desk.state.pools[a.POOL]
    desk.draws(100.0)
    assert (desk.in_force, desk.written) == ((), [])


def test_of_many_nodes_a_few_are_heard_in_each_turn_and_each_report_once() -> None:
    desk, number = Desk(), 2 * ROWS_AT_ONCE + 20
    names = [f"n{at:03d}" for at in range(number)]
    reports = [
        a.telemetry(
            name, [a.gpu(uuid=f"GPU-{name}", power_watts=500.0)], pods=(PodGpus("search", name, (f"GPU-{name}",)),)
        )
        for name in names
    ]
    pods = [a.pod(name, name, gpus=1, template_hash="h1") for name in names]
    nodes = [a.node(name, gpus=1) for name in names]
    desk.picture.fleet = a.fleet(*nodes, telemetries=reports, pods=pods)
    seen = []
    for _ in range(5):
        desk.look()
        desk.now_at += LOOK_SECONDS
        seen.append(sum(one.samples for one in desk.learning._pools[a.POOL].current().values()))
    assert seen == [ROWS_AT_ONCE, 2 * ROWS_AT_ONCE, number, number, number]
