"""Whom to shed: priority first, then the fewest, each within its pool's disruption."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders as a
from penstock.core.model import Mode, Owner, PlacementRules, Pod, PoolKey
from penstock.core.pool import Pool, RollCall
from penstock.core.power import shedding
from penstock.core.power.shedding import Allowance, Candidate, Cut, Shed

LOW, HIGH = PoolKey("search", "batch"), PoolKey("search", "chat")


def one(name: str, watts: float, pool: PoolKey = LOW, *, ready: bool = True) -> Candidate:
    priority = 0 if pool == LOW else 100
    return Candidate(a.pod(name, pool=pool.name, priority=priority, ready=ready), pool, {"row-a": watts, "site": watts})


@dataclass(frozen=True)
class Case:
    watts: float
    able: tuple[Candidate, ...]
    want: tuple[str, ...]
    low: int = 9
    high: int = 9
    most: int = 9
    emergency: bool = False
    domain: str = field(default="row-a")


CASES = {
    "nothing to lose, nobody goes": Case(0, (one("a", 900),), ()),
    "the smallest that covers it alone goes": Case(800, (one("a", 2_000), one("b", 900), one("c", 700)), ("b",)),
    "of two that are needed the largest go first, the last no larger than it must be": Case(
        2_500, (one("a", 2_000), one("b", 900), one("c", 600)), ("a", "c")
    ),
    "a higher priority is spared while a lower one suffices": Case(
        1_500, (one("a", 900), one("b", 900), one("big", 5_000, HIGH)), ("a", "b")
    ),
    "a higher priority is touched when everything lower is gone": Case(
        2_000, (one("a", 900), one("big", 5_000, HIGH), one("small", 1_200, HIGH)), ("a", "small")
    ),
    "no more of a pool than its disruption allows": Case(2_500, (one("a", 900), one("b", 900)), ("a",), low=1),
    "where disruption stops the lower, the higher goes": Case(
        1_500, (one("a", 900), one("b", 900), one("big", 5_000, HIGH)), ("a", "big"), low=1
    ),
    "one that is not ready is no disruption": Case(
        1_500, (one("a", 900), one("b", 900, ready=False)), ("a", "b"), low=1
    ),
    "an emergency passes disruption over only for what is left": Case(
        2_500, (one("a", 900), one("b", 900), one("c", 900)), ("a", "b", "c"), low=1, emergency=True
    ),
    "an emergency keeps to disruption where that suffices": Case(
        800, (one("a", 900), one("b", 2_000)), ("a",), low=1, emergency=True
    ),
    "no more moves than the hour has left": Case(2_500, (one("a", 900), one("b", 900)), ("a",), most=1),
    "what saves nothing there is not asked": Case(500, (one("a", 0.5),), ()),
    "a domain that a replica is not in gains nothing by it": Case(500, (one("a", 900),), (), domain="row-b"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_choose(case: Case) -> None:
    allowed = Allowance({LOW: case.low, HIGH: case.high})
    found = shedding.choose(Cut(case.domain, case.watts, case.most, case.emergency), case.able, allowed)
    assert tuple(each.pod.name for each in found) == case.want


@given(
    st.lists(st.tuples(st.integers(100, 5_000), st.booleans()), max_size=12),
    st.integers(0, 20_000),
    st.integers(0, 4),
)
def test_who_is_chosen_covers_the_cut_or_nobody_is_left_and_none_is_too_many(
    sizes: list[tuple[int, bool]], watts: int, low: int
) -> None:
    able = [one(f"p{at}", size, HIGH if high else LOW) for at, (size, high) in enumerate(sizes)]
    found = shedding.choose(Cut("row-a", watts, 99), able, Allowance({LOW: low, HIGH: 99}))
    saved = sum(each.watts["row-a"] for each in found)
    assert sum(each.pool == LOW for each in found) <= low
    if saved < watts - 1:
        assert len(found) == min(low, sum(not high for _, high in sizes)) + sum(high for _, high in sizes)
    if any(each.pool == HIGH for each in found):
        assert sum(each.pool == LOW for each in found) == min(low, sum(not high for _, high in sizes))
    if found:
        top = max(each.pod.priority for each in found)
        least = min(each.watts["row-a"] for each in found if each.pod.priority == top)
        assert saved - least < watts, "without its smallest it would not suffice"


def pool(key: PoolKey = LOW, **rules: object) -> Pool:
    return Pool(key, "u", 1, 2, PlacementRules(**rules))  # type: ignore[arg-type]


OWNED = Owner("ReplicaSet", "rs", "u")
WHO: dict[str, tuple[Pool, Pod, bool]] = {
    "a running replica may be shed": (pool(), a.pod(owner=OWNED), True),
    "a pool that is never shed keeps all": (pool(may_be_shed=False), a.pod(owner=OWNED), False),
    "a pool that takes advice is not touched": (pool(mode=Mode.ADVISE), a.pod(owner=OWNED), False),
    "a pod that nobody would make again stays": (pool(), a.pod(), False),
    "a Job's pod stays": (pool(), a.pod(owner=Owner("Job", "j", "u")), False),
    "a StatefulSet's pod may be shed": (pool(), a.pod(owner=Owner("StatefulSet", "s", "u")), True),
}


@pytest.mark.parametrize(("given_pool", "pod", "want"), WHO.values(), ids=WHO.keys())
def test_candidates(given_pool: Pool, pod: Pod, want: bool) -> None:
    hot = [a.gpu(at, power_watts=600.0) if at < 2 else a.gpu(at) for at in range(8)]
    fleet = a.fleet(a.node(), telemetries=[a.telemetry("gpu-1", hot)], pods=[pod], domains=[a.domain()])
    found = shedding.candidates(fleet, {LOW: given_pool}, {LOW: RollCall(bound=(pod,))})
    assert [each.watts for each in found] == ([{"row-a": 2 * (600.0 - 75.0)}] if want else [])


READY = tuple(a.pod(f"r{at}", ready=True) for at in range(3))
ALLOWANCES = {
    "a quiet pool has its whole disruption": (RollCall(bound=READY), (), 2),
    "one on its way out takes a turn": (RollCall(bound=READY[1:], terminating=READY[:1]), (), 1),
    "one that is asked to leave takes a turn": (RollCall(bound=READY), ("uid-r0",), 1),
    "one that starts takes a turn": (RollCall(bound=READY, pinned=(a.pod("s", node=""),)), (), 1),
    "one that waits at the gate takes none": (RollCall(bound=READY, waiting=(a.pod("w", node=""),)), (), 2),
    "it is never less than nothing": (RollCall(terminating=READY), (), 0),
}


@pytest.mark.parametrize(("roll", "leaving", "want"), ALLOWANCES.values(), ids=ALLOWANCES.keys())
def test_allowance(roll: RollCall, leaving: tuple[str, ...], want: int) -> None:
    assert shedding.allowance({LOW: pool(max_unavailable=2)}, {LOW: roll}, leaving).left == {LOW: want}


OLD, YOUNG = Shed(LOW, "row-a", 900, 0.0, "old"), Shed(LOW, "row-a", 900, 950.0, "young")
STILL = {
    "as many wait as are missing": ([OLD, YOUNG], {LOW: 2}, ["old", "young"]),
    "scaled down, the longest waiting are given up": ([OLD, YOUNG], {LOW: 1}, ["young"]),
    "what was shed just now waits though its pod still ends": ([YOUNG], {LOW: 0}, ["young"]),
    "a pool that is gone waits for nothing": ([OLD, YOUNG], {}, []),
}


@pytest.mark.parametrize(("found", "missing", "want"), STILL.values(), ids=STILL.keys())
def test_still_waiting(found: list[Shed], missing: dict[PoolKey, int], want: list[str]) -> None:
    assert [each.uid for each in shedding.still_waiting(found, missing, 1_000.0)] == want


def test_one_that_is_placed_again_is_the_longest_waiting_of_its_pool() -> None:
    other = Shed(HIGH, "row-a", 900, 1.0, "other")
    assert shedding.returned([YOUNG, other, OLD], [LOW]) == (other, YOUNG)
    assert shedding.returned([YOUNG], [HIGH]) == (YOUNG,)
