"""Who leaves a broken GPU now, who waits for others to be back, and who is only told of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.api.names import GATE
from penstock.core.draining import Refusal, may_leave, off_broken_gpus
from penstock.core.health import Broken
from penstock.core.lifecycle import Ending
from penstock.core.model import Mode, Owner, Phase, PlacementRules, Pod, PoolKey
from penstock.core.pool import Pool, Template, roll_call
from penstock.core.telling.problem import Problem

KEY = PoolKey("search", "llama")
SET = Owner("ReplicaSet", "llama-1", "rs-1")
LOST = "on node n1 GPU 3 is Lost"


def pool(count: int | None = 3, most: int = 1, **changes: object) -> Pool:
    rules = PlacementRules(max_unavailable=most)
    base = Pool(KEY, "uid", 1, desired=3, rules=rules, template=Template(), count=count)
    return replace(base, replica_sets=frozenset({"rs-1"}), **changes)  # type: ignore[arg-type]


def pod(name: str, **changes: object) -> Pod:
    base = Pod(name, "search", name, pool="llama", node="n1", phase=Phase.RUNNING, ready=True, owner=SET)
    return replace(base, **changes)  # type: ignore[arg-type]


A, B, C = pod("a"), pod("b"), pod("c")
DOWN = pod("b", ready=False)
GOING = pod("b", terminating=True)
GATED = pod("b", node="", phase=Phase.PENDING, ready=False, gates=(GATE,))
ADOPTING = pool(None, template=None)

ROOM: dict[str, tuple[Pool, tuple[Pod, ...], tuple[str, ...], int]] = {
    "all serve, so maxUnavailable may go": (pool(), (A, B, C), (), 1),
    "with more allowed, more": (pool(most=2), (A, B, C), (), 2),
    "one that is not ready is away already": (pool(), (A, DOWN, C), (), 0),
    "one that is on its way out is away": (pool(), (A, GOING, C), (), 0),
    "one whose eviction was just asked for is away": (pool(), (A, B, C), ("b",), 0),
    "one whose replacement waits for a place is away": (pool(), (A, GATED, C), (), 0),
    "one that waited so long that it left the count is away all the same": (pool(count=2), (A, C), (), 0),
    "one too many while the pool is scaled down is no reserve": (pool(desired=2), (A, B, C), (), 1),
    "more away than allowed is no debt": (pool(), (A,), (), 0),
    "an adopted pool counts its own pods, those on their way out too": (ADOPTING, (A, GOING, C), (), 0),
    "and all of an adopted pool that serve": (ADOPTING, (A, B, C), (), 1),
}


@pytest.mark.parametrize(("asked", "pods", "leaving", "want"), ROOM.values(), ids=ROOM.keys())
def test_how_many_more_may_leave(asked: Pool, pods: tuple[Pod, ...], leaving: tuple[str, ...], want: int) -> None:
    assert may_leave(asked, roll_call(asked, pods), leaving) == want


def broken(one: Pod, *, certain: bool = True) -> Broken:
    return Broken(one, LOST, certain)


Found = tuple[Broken, ...]
ENDS: dict[str, tuple[Pool, tuple[Pod, ...], Found, dict[str, bool]]] = {
    "a replica on a broken GPU is evicted": (pool(), (A, B, C), (broken(A),), {"a": True}),
    "of two one goes now and one waits": (pool(), (A, B, C), (broken(A), broken(B)), {"a": True, "b": False}),
    "both go where two may be away": (pool(most=2), (A, B, C), (broken(A), broken(B)), {"a": True, "b": True}),
    "none goes while another is away": (pool(), (A, DOWN, C), (broken(A),), {"a": False}),
    "one that does not serve goes whoever is away": (pool(), (A, DOWN, C), (broken(DOWN),), {"b": True}),
    "and it goes before one that serves": (pool(), (A, DOWN, C), (broken(A), broken(DOWN)), {"b": True, "a": False}),
    "one that does not serve takes nobody's room": (
        pool(most=2),
        (A, DOWN, C),
        (broken(A), broken(DOWN)),
        {"b": True, "a": True},
    ),
    "who may hold it and may not is only told of": (pool(), (A, B, C), (broken(A, certain=False),), {"a": False}),
}


@pytest.mark.parametrize(("asked", "pods", "found", "want"), ENDS.values(), ids=ENDS.keys())
def test_who_leaves_a_broken_gpu(asked: Pool, pods: tuple[Pod, ...], found: Found, want: dict[str, bool]) -> None:
    verdicts = off_broken_gpus(asked, roll_call(asked, pods), found, (), {})
    assert {one.pod.name: one.delete for one in verdicts} == want
    assert all(one.ending is Ending.FAILED_GPU and one.message.startswith(LOST) for one in verdicts)


ALONE = pod("a", owner=None)
JOB = pod("a", owner=Owner("Job", "j", "j-1"))
ADVISED = replace(ADOPTING, rules=PlacementRules(mode=Mode.ADVISE))
WRONG = replace(ADOPTING, problems=(Problem("spec.engine", "Abacus", "write vLLM"),))
TOLD: dict[str, tuple[Pool, Pod, bool, str]] = {
    "a pod without a controller is never evicted": (ADOPTING, ALONE, True, "no controller"),
    "a Job's pod is never evicted": (ADOPTING, JOB, True, "backoffLimit"),
    "a pool that only takes advice is not touched": (ADVISED, A, True, "only takes advice"),
    "while a spec is wrong nobody is sent to wait for it": (WRONG, A, True, "until the pool's spec is mended"),
    "where the kubelet is silent it is said what would help": (ADOPTING, A, False, "let the agent read PodResources"),
}


@pytest.mark.parametrize(("asked", "one", "certain", "words"), TOLD.values(), ids=TOLD.keys())
def test_who_is_only_told_of(asked: Pool, one: Pod, certain: bool, words: str) -> None:
    (verdict,) = off_broken_gpus(asked, roll_call(asked, (one,)), (broken(one, certain=certain),), (), {})
    assert not verdict.delete
    assert words in verdict.message


def test_a_refused_eviction_is_told_in_the_same_words_until_it_is_tried_again_and_answered() -> None:
    roll = roll_call(pool(), (A, B, C))
    steps = (((), False, False), ((), True, True), (("a",), True, False))
    said = [
        off_broken_gpus(pool(), roll, (broken(A),), leaving, {"a": Refusal("budget keep-two refuses", is_over)})[0]
        for leaving, is_over, _ in steps
    ]
    assert [one.delete for one in said] == [evicted for *_, evicted in steps]
    assert len({one.message for one in said}) == 1
    assert "budget keep-two refuses" in said[0].message


def test_one_whose_eviction_is_under_way_is_not_evicted_twice() -> None:
    roll = roll_call(pool(), (A, B, C))
    first, second = off_broken_gpus(pool(), roll, (broken(A), broken(B)), ("a",), {})
    assert (first.delete, second.delete) == (False, False)
    assert "maxUnavailable is 1" in second.message
