"""What a PowerDomain's status says of its ladder is in force again after a start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import builders as a
from builders import spawns_nothing
from penstock.cluster.events import Events
from penstock.cluster.objects import DomainObject
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts
from penstock.control.picture import Picture
from penstock.control.power.capping import Capping
from penstock.control.power.deeds import Deeds
from penstock.control.power.ladder import Ladders
from penstock.control.power.shedding import Shedder
from penstock.core.model import Owner, PlacementRules, Pod, PoolKey, Telemetry
from penstock.core.pool import Pool
from penstock.core.power.trimming import Owed
from penstock.metrics import Metrics

NOON_TIME = 1_795_262_400.0
BATCH = PoolKey("search", "batch")
SHED = {"namespace": "search", "pool": "batch", "replicas": 2, "watts": 3_000, "since": "2026-11-21T12:10:00Z"}
EVICTED = {"at": "2026-11-21T12:10:00Z", "action": "Evict", "subject": "search/batch-1", "watts": 1_500}
WRITTEN = {
    "stage": "Shed",
    "since": "2026-11-21T12:10:00Z",
    "reason": "why",
    "actions": [EVICTED],
    "shed": [SHED],
    "evictedInHour": 2,
}


def ladders(status: dict[str, Any]) -> Ladders:
    nothing: Any = None  # No act is tried here.
    events = cast(Events, SimpleNamespace(post=lambda *_: None))
    state = ClusterState()
    acts, deeds = Acts(nothing, state, Metrics(), lambda: None), Deeds(state, events, Metrics())
    found = Ladders(
        state, deeds, Shedder(state, acts, spawns_nothing, deeds), Capping(state, acts, spawns_nothing, lambda: "")
    )
    found.recall([DomainObject("row-a", "uid-row-a", 1, "7", spec=None, status=status)], 50.0, NOON_TIME + 1_000.0)
    return found


def test_what_is_written_is_in_force_and_written_again() -> None:
    found = ladders({"ladder": WRITTEN})
    assert found.held == {"row-a"}
    assert found.stages == {"row-a": "Shed"}
    assert found.shedder.waiting_of(BATCH) == 2
    again = found.status("row-a", None, None, 50.0).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert again == WRITTEN


def test_a_pod_that_the_leader_before_us_evicted_leaves_no_right_of_return() -> None:
    shedder = ladders({"ladder": WRITTEN}).shedder
    assert shedder.was_shed(Pod("u-1", "search", "batch-1", created_time=NOON_TIME + 599.0))
    assert not shedder.was_shed(Pod("u-2", "search", "batch-1", created_time=NOON_TIME + 601.0)), (
        "a later one of the same name"
    )
    assert not shedder.was_shed(Pod("u-3", "search", "batch-2", created_time=NOON_TIME + 599.0))


def test_what_the_meters_may_not_show_yet_is_waited_for() -> None:
    assert ladders({"ladder": WRITTEN}).shedder.may_shed(50.0), "that was long ago"
    just_now = {**EVICTED, "at": "2026-11-21T12:16:30Z"}
    shedder = ladders({"ladder": {**WRITTEN, "actions": [just_now]}}).shedder
    assert not shedder.may_shed(60.0)
    assert shedder.may_shed(65.0)


def test_a_status_without_or_with_an_unreadable_ladder_keeps_nobody_from_starting() -> None:
    for status in ({}, {"ladder": {"stage": "Panic"}}):
        assert ladders(status).held == set()
        assert ladders(status).shedder.may_shed(50.0)


def test_a_domain_says_what_room_it_keeps_for_those_that_are_capped() -> None:
    found = ladders({"ladder": {"stage": "Admit", "reason": "why"}})
    assert found.status("row-a", None, None, 50.0).reason == "why"
    found.capping.owed = (Owed("row-a", 0, 900.0), Owed("row-a", 10, 310.0), Owed("row-b", 0, 5_000.0))
    want = "why; about 1,300 W of its room are kept for replicas that are capped, until their limits have risen again"
    assert found.status("row-a", None, None, 50.0).reason == want


def test_a_budget_that_falls_before_a_node_has_spoken_again_meets_no_draw_of_a_pod_that_is_gone() -> None:
    found = ladders({})
    picture = Picture(found.state)
    stays, goes = (a.pod(name, gpus=4, owner=Owner("ReplicaSet", "rs", "u")) for name in ("stays", "goes"))
    said = a.telemetry("gpu-1", [a.gpu(at, power_watts=600.0) for at in range(8)])

    def look(heard: Telemetry, pods: Sequence[Pod], budget_watts: float, now_at: float) -> str:
        domain = a.domain(budget_watts=budget_watts)
        found.state.telemetry["gpu-1"] = heard
        picture.before, picture.power.current = picture.fleet, {"row-a": domain}
        picture.fleet = a.fleet(a.node(), telemetries=[heard], pods=pods, domains=[domain], now_at=now_at)
        found.climb(picture, now_at, NOON_TIME + now_at)
        return found.stages["row-a"]

    assert look(said, [stays, goes], 10_000.0, a.NOW_AT) == "Admit"
    picture.departed = ((Pool(a.POOL, "u", 1, 2, PlacementRules()), goes),)
    assert look(said, [stays], 10_000.0, a.NOW_AT + 5) == "Admit"
    picture.departed = ()
    assert look(said, [stays], 4_000.0, a.NOW_AT + 10) == "Admit", "4,800 W by its last word, and half of it is gone"
    again = replace(said, heard_at=a.NOW_AT + 11)
    assert look(again, [stays], 4_000.0, a.NOW_AT + 11) == "Emergency", "it says that all of it is drawn"
