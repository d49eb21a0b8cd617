"""A node that failed a pool is left alone for a while, longer each time, and by that pool alone."""

from __future__ import annotations

import pytest

import builders as a
from penstock.core.model import PoolKey
from penstock.core.placement.backoff import BackOff

OTHER = PoolKey("search", "mistral")
AWAY = frozenset({"gpu-1"})
HERE: frozenset[str] = frozenset()


def after(*failures_at: float) -> BackOff:
    """A back-off of ten seconds after these failures of one pool on one node."""
    back_off = BackOff(10.0)
    for at in failures_at:
        back_off.fail(a.POOL, "gpu-1", at)
    return back_off


WAITS = {
    "nothing failed": (after(), 0.0, HERE),
    "away after a failure": (after(100), 109.9, AWAY),
    "back when it is over": (after(100), 110.0, HERE),
    "twice as long after the second": (after(100, 111), 130.9, AWAY),
    "and no longer": (after(100, 111), 131.0, HERE),
    "four times as long after the third": (after(100, 111, 132), 171.9, AWAY),
    "at most sixty-four times": (after(*[100.0] * 20), 100 + 640.0, HERE),
    "and not less": (after(*[100.0] * 20), 100 + 639.9, AWAY),
}


@pytest.mark.parametrize(("back_off", "now_at", "want"), WAITS.values(), ids=WAITS.keys())
def test_nodes(back_off: BackOff, now_at: float, want: frozenset[str]) -> None:
    assert back_off.nodes(a.POOL, now_at) == want


def test_another_pool_does_not_suffer() -> None:
    assert after(100).nodes(OTHER, 101) == HERE


def test_a_pod_that_is_seen_again_and_again_failed_once() -> None:
    back_off = BackOff(10.0)
    for at in (100.0, 105.0, 111.0):
        back_off.fail_once(a.POOL, "gpu-1", "uid-1", at)
    assert back_off.nodes(a.POOL, 109) == AWAY
    assert back_off.nodes(a.POOL, 112) == HERE
    back_off.fail_once(a.POOL, "gpu-1", "uid-2", 112)
    assert back_off.nodes(a.POOL, 131) == AWAY


def test_a_pod_that_failed_nowhere_keeps_nobody_away() -> None:
    back_off = BackOff(10.0)
    back_off.fail_once(a.POOL, "", "uid-1", 100)
    assert back_off.nodes(a.POOL, 101) == HERE


FORGETS = {
    "a failure that follows soon still doubles": (119.0, AWAY),
    "one that comes after twice the time starts anew": (121.0, HERE),
}


@pytest.mark.parametrize(("forget_at", "want"), FORGETS.values(), ids=FORGETS.keys())
def test_forget(forget_at: float, want: frozenset[str]) -> None:
    back_off = after(100)
    back_off.forget((), forget_at)
    back_off.fail(a.POOL, "gpu-1", forget_at)
    assert back_off.nodes(a.POOL, forget_at + 15) == want
