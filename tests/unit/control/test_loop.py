"""When the next turn begins: at once, after a few more reports, or when time is due; and whether it plans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from penstock.cluster.state import ClusterState
from penstock.control.loop import LONGEST_PLAN_REST_SECONDS, PLAN_REST_RATIO, Pace, rest

FAR_SECONDS = 1000.0


async def _ends(state: ClusterState, turned_at: float, due_seconds: float = FAR_SECONDS) -> bool:
    """Whether a rest is over though no time has passed."""
    resting = asyncio.create_task(rest(state, turned_at, due_seconds))
    for _ in range(10):
        await asyncio.sleep(0)
    ended = resting.done()
    resting.cancel()
    return ended


CASES: tuple[tuple[str, Callable[[ClusterState], object], float, bool], ...] = (
    ("a pod begins the next turn at once", lambda state: state.rouse(), FAR_SECONDS, True),
    ("a report waits for others right after a turn", lambda state: state.wake.set(), FAR_SECONDS, False),
    ("a report long after the last turn waits for none", lambda state: state.wake.set(), -FAR_SECONDS, True),
    ("nothing begins no turn", lambda state: state.take_dirty(), -FAR_SECONDS, False),
)


@pytest.mark.parametrize(("happens", "turned", "ends"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_what_begins_the_next_turn(happens: Callable[[ClusterState], object], turned: float, ends: bool) -> None:
    state = ClusterState()
    happens(state)
    assert await _ends(state, time.monotonic() + turned) is ends


async def test_a_status_that_is_due_begins_the_next_turn() -> None:
    assert await _ends(ClusterState(), time.monotonic() - FAR_SECONDS, due_seconds=0.0)


def _after(took_seconds: float, *, in_vain: bool) -> Pace:
    """The pace at second 100, when a plan was made that took so long."""
    pace = Pace()
    pace.planned(100.0, took_seconds, in_vain=in_vain)
    return pace


def test_a_plan_that_placed_nobody_rests_by_what_it_took() -> None:
    pace = _after(0.01, in_vain=True)
    assert not pace.plans(100.0 + 0.009 * PLAN_REST_RATIO, evicts=False)
    assert pace.plans(100.0 + 0.011 * PLAN_REST_RATIO, evicts=False)


def test_however_long_a_plan_takes_the_next_is_soon() -> None:
    assert _after(60.0, in_vain=True).plans(100.0 + LONGEST_PLAN_REST_SECONDS, evicts=False)


def test_a_plan_that_placed_somebody_or_had_nobody_to_place_does_not_rest() -> None:
    assert _after(60.0, in_vain=False).plans(100.0, evicts=False)


def test_a_turn_that_evicts_leaves_planning_to_the_next_but_never_twice() -> None:
    pace = Pace()
    assert [pace.plans(100.0, evicts=True) for _ in range(4)] == [False, True, False, True]


def test_a_plan_that_was_put_off_begins_a_turn_when_its_rest_is_over() -> None:
    pace = _after(60.0, in_vain=True)
    pace.plans(100.0, evicts=False)
    assert pace.due_seconds(100.0, FAR_SECONDS) == LONGEST_PLAN_REST_SECONDS


def test_a_report_that_is_due_waits_for_the_plan_that_it_would_tell_of() -> None:
    assert _after(60.0, in_vain=True).due_seconds(100.0, report_seconds=0.0) == LONGEST_PLAN_REST_SECONDS
    assert _after(60.0, in_vain=False).due_seconds(100.0, report_seconds=0.1) == 0.1
