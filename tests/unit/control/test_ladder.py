"""What a PowerDomain's status says of its ladder is in force again after a start."""

from __future__ import annotations

from typing import Any

from penstock.cluster.objects import DomainObject
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts, Spawn
from penstock.control.capping import Capping
from penstock.control.deeds import Deeds
from penstock.control.ladder import Ladders
from penstock.control.shedding import Shedder
from penstock.core.model import Pod, PoolKey
from penstock.metrics import Metrics

BATCH = PoolKey("search", "batch")
SHED = {"namespace": "search", "pool": "batch", "replicas": 2, "watts": 3_000, "since": "1970-01-01T00:10:00Z"}
EVICTED = {"at": "1970-01-01T00:10:00Z", "action": "Evict", "subject": "search/batch-1", "watts": 1_500}
WRITTEN = {
    "stage": "Shed",
    "since": "1970-01-01T00:10:00Z",
    "reason": "why",
    "actions": [EVICTED],
    "shed": [SHED],
    "evictedInHour": 2,
}


def ladders(status: dict[str, Any]) -> Ladders:
    nothing: Any = None  # No act is tried and no Event posted here.
    spawn: Spawn = lambda _: None  # noqa: E731  nothing is spawned here
    state = ClusterState()
    acts, deeds = Acts(nothing, state, Metrics(), lambda: None), Deeds(state, nothing, Metrics())
    found = Ladders(state, deeds, Shedder(state, acts, spawn, deeds), Capping(state, acts, spawn, lambda: ""))
    found.recall([DomainObject("row-a", "uid-row-a", 1, "7", spec=None, status=status)], 50.0, 1_000.0)
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
    assert shedder.was_shed(Pod("u-1", "search", "batch-1", created_time=599.0))
    assert not shedder.was_shed(Pod("u-2", "search", "batch-1", created_time=601.0)), "a later one of the same name"
    assert not shedder.was_shed(Pod("u-3", "search", "batch-2", created_time=599.0))


def test_what_the_meters_may_not_show_yet_is_waited_for() -> None:
    assert ladders({"ladder": WRITTEN}).shedder.may_shed(50.0), "that was long ago"
    just_now = {**EVICTED, "at": "1970-01-01T00:16:30Z"}
    shedder = ladders({"ladder": {**WRITTEN, "actions": [just_now]}}).shedder
    assert not shedder.may_shed(60.0)
    assert shedder.may_shed(65.0)


def test_a_status_without_or_with_an_unreadable_ladder_keeps_nobody_from_starting() -> None:
    for status in ({}, {"ladder": {"stage": "Panic"}}):
        assert ladders(status).held == set()
        assert ladders(status).shedder.may_shed(50.0)
