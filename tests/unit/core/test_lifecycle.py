"""What becomes of a replica beside being placed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.api.names import GATE
from penstock.core import lifecycle
from penstock.core.lifecycle import Count, Ending
from penstock.core.model import Node, Owner, Phase, PlacementRules, Pod, PoolKey, RightOfReturn
from penstock.core.pool import Pool, Template, replicas, roll_call

KEY = PoolKey("search", "llama")
SET = Owner("ReplicaSet", "llama-1", "rs-1")
NOW = 1_000.0
LIMIT = 60.0


def pool(**changes: object) -> Pool:
    base = Pool(KEY, "uid", 1, desired=4, rules=PlacementRules(), template=Template(), count=4)
    return replace(base, **{"replica_sets": frozenset({"rs-1"}), "current_hash": "h", **changes})  # type: ignore[arg-type]


def gated(uid: str, waited: float = 0.0) -> Pod:
    return Pod(uid, "search", uid, pool="llama", gates=(GATE,), created_time=NOW - waited, owner=SET, template_hash="h")


def bound(uid: str, node: str = "n1") -> Pod:
    return Pod(
        uid,
        "search",
        uid,
        pool="llama",
        node=node,
        pin=node,
        phase=Phase.RUNNING,
        ready=True,
        owner=SET,
        template_hash="h",
    )


def pinned(uid: str, node: str = "n1", *, unschedulable: bool = False) -> Pod:
    return Pod(uid, "search", uid, pool="llama", pin=node, unschedulable=unschedulable, created_time=NOW, owner=SET)


RUNNING = (bound("a"), bound("b"), bound("c"))

COUNTS = {
    "all replicas count while nobody waits too long": (pool(), (*RUNNING, gated("d", 59)), (), Count(4, 0, None)),
    "a replica that waits longer than the limit leaves the count": (
        pool(),
        (*RUNNING, gated("d", 61)),
        (),
        Count(3, 1, NOW - 61),
    ),
    "a replica that is being placed in this turn stays": (
        pool(),
        (*RUNNING, gated("d", 61)),
        ("d",),
        Count(4, 0, None),
    ),
    "one that left does not leave twice while its pod still goes": (
        pool(count=3, left=1, left_since_time=NOW - 70),
        (*RUNNING, gated("d", 70)),
        (),
        Count(3, 1, NOW - 70),
    ),
    "a replica that fits comes back into the count": (
        pool(count=3, left=1, left_since_time=NOW - 70),
        RUNNING,
        ("search/llama#0",),
        Count(4, 0, None),
    ),
    "between two steps of a rollout the free room is the rollout's": (
        pool(count=3, left=1, left_since_time=NOW - 70),
        RUNNING[:2],
        ("search/llama#0",),
        Count(3, 1, NOW - 70),
    ),
    "a rollout whose new pod finds no place takes no second replica down": (
        pool(floor=4, current_hash="new"),
        (*RUNNING, replace(gated("d", 61), template_hash="new")),
        (),
        Count(4, 0, None),
    ),
    "a rollout over replicas that never had a place may let these go": (
        pool(desired=5, count=5, floor=3, current_hash="new"),
        (*RUNNING, replace(gated("d", 61), template_hash="new"), replace(gated("e", 62), template_hash="new")),
        (),
        Count(3, 2, NOW - 62),
    ),
    "once a rollout is through the floor no longer matters": (
        pool(floor=4),
        (*(replace(pod, template_hash="h") for pod in RUNNING), gated("d", 61)),
        (),
        Count(3, 1, NOW - 61),
    ),
    "somebody else's pool key that starts alike brings nobody back": (
        pool(count=3, left=1, left_since_time=NOW - 70),
        RUNNING,
        ("search/llama-2#0",),
        Count(3, 1, NOW - 70),
    ),
    "a scale-down takes the waiting one first and leaves the running alone": (
        pool(desired=3, count=3, left=1, left_since_time=NOW - 70),
        RUNNING,
        (),
        Count(3, 0, None),
    ),
    "a scale-down beyond those that wait lowers the count": (
        pool(desired=1, count=3, left=1, left_since_time=NOW - 70),
        RUNNING,
        (),
        Count(1, 0, None),
    ),
    "a scale-up counts at once and keeps the waiting one out": (
        pool(desired=6, count=3, left=1, left_since_time=NOW - 70),
        RUNNING,
        (),
        Count(5, 1, NOW - 70),
    ),
    "scaled to zero, nothing is left to wait": (
        pool(desired=0, count=3, left=1, left_since_time=NOW - 70),
        RUNNING,
        (),
        Count(0, 0, None),
    ),
    "before the Deployment exists everything counts": (pool(count=None), (), (), Count(4, 0, None)),
}


SHEDS = {
    "the replacement of what was shed leaves as soon as it exists": (
        pool(),
        (*RUNNING, gated("d", 1)),
        (),
        Count(3, 1, NOW - 1, 1),
    ),
    "while it does not exist yet nobody leaves": (pool(), RUNNING, (), Count(4, 0, None)),
    "a place for it keeps it": (pool(), (*RUNNING, gated("d", 1)), ("d",), Count(4, 0, None)),
    "what left does not leave twice while its pod still goes": (
        pool(count=3, left=1, left_shed=1, left_since_time=NOW - 1),
        (*RUNNING, gated("d", 1)),
        (),
        Count(3, 1, NOW - 1, 1),
    ),
    "beside one that waited too long it leaves too": (
        pool(desired=5, count=5),
        (*RUNNING, gated("d", 61), gated("e", 1)),
        (),
        Count(3, 2, NOW - 61, 1),
    ),
    "one that left because it waited too long is another's": (
        pool(desired=5, count=4, left=1, left_since_time=NOW - 70),
        (*RUNNING, gated("e", 1)),
        (),
        Count(3, 2, NOW - 70, 1),
    ),
    "in a rollout it leaves as well, or the rollout would stand still": (
        pool(floor=4, current_hash="new"),
        (*RUNNING, gated("d", 1)),
        (),
        Count(3, 1, NOW - 1, 1),
    ),
    "the one that fits comes back into the count": (
        pool(count=3, left=1, left_shed=1, left_since_time=NOW - 70),
        RUNNING,
        ("search/llama#0",),
        Count(4, 0, None),
    ),
}


@pytest.mark.parametrize(("given", "pods", "placed", "want"), SHEDS.values(), ids=SHEDS.keys())
def test_deployment_count_of_a_pool_that_was_shed(
    given: Pool, pods: tuple[Pod, ...], placed: tuple[str, ...], want: Count
) -> None:
    assert lifecycle.deployment_count(given, roll_call(given, pods), placed, NOW, LIMIT, shed=1) == want


@pytest.mark.parametrize(("given", "pods", "placed", "want"), COUNTS.values(), ids=COUNTS.keys())
def test_deployment_count(given: Pool, pods: tuple[Pod, ...], placed: tuple[str, ...], want: Count) -> None:
    assert lifecycle.deployment_count(given, roll_call(given, pods), placed, NOW, LIMIT) == want


READY = {"n1": Node("n1")}
DARK = {"n1": Node("n1", ready=False, not_ready_since_time=NOW - 41)}
DIM = {"n1": Node("n1", ready=False, not_ready_since_time=NOW - 39)}

ENDINGS = {
    "a pin that kube-scheduler judged hopeless is dead": (
        pinned("p", unschedulable=True),
        READY,
        (Ending.DEAD_PIN, True),
    ),
    "a pin that nobody has judged yet is slow, not dead": (pinned("p"), READY, None),
    "a pin to a node that is gone is dead": (pinned("p", "gone"), READY, (Ending.DEAD_PIN, True)),
    "a running replica on a ready node stays": (bound("p"), READY, None),
    "a node that is NotReady for less than the limit may come back": (bound("p"), DIM, None),
    "a node that is NotReady for longer is lost": (bound("p"), DARK, (Ending.LOST_NODE, True)),
    "a node that is gone is lost": (bound("p", "gone"), READY, (Ending.LOST_NODE, True)),
    "a replica on its way out is not ended again": (replace(bound("p"), terminating=True), DARK, None),
    "a pod without a controller is only reported": (replace(bound("p"), owner=None), DARK, (Ending.LOST_NODE, False)),
    "a Job's pod is only reported": (
        replace(bound("p"), owner=Owner("Job", "j", "u")),
        DARK,
        (Ending.LOST_NODE, False),
    ),
    "a gated pod has no pin to die": (gated("p"), {}, None),
}


@pytest.mark.parametrize(("one", "nodes", "want"), ENDINGS.values(), ids=ENDINGS.keys())
def test_endings(one: Pod, nodes: dict[str, Node], want: tuple[Ending, bool] | None) -> None:
    found = lifecycle.endings([one], nodes, NOW, 40.0)
    assert [(verdict.ending, verdict.delete) for verdict in found] == ([want] if want else [])


COSTS = {
    "a better place has a higher rank": (-0.5, -500),
    "a place that was worse than any other keeps a rank above the troubled": (-250.0, -lifecycle.HIGHEST_COST),
    "the best place has a bound too": (9.0, lifecycle.HIGHEST_COST),
}


@pytest.mark.parametrize(("score", "want"), COSTS.values(), ids=COSTS.keys())
def test_deletion_cost(score: float, want: int) -> None:
    assert lifecycle.deletion_cost(score) == want
    troubled = lifecycle.rank_change(replace(bound("p"), deletion_cost=want), troubled=True)
    assert troubled is not None
    assert troubled < -lifecycle.HIGHEST_COST


RANKS = {
    "a good place keeps its rank": (500, False, None),
    "a place that went bad sinks below every good one": (500, True, 500 - lifecycle.TROUBLED_SHIFT),
    "a place that is still bad is not written again": (500 - lifecycle.TROUBLED_SHIFT, True, None),
    "a place that recovered gets its own rank back": (500 - lifecycle.TROUBLED_SHIFT, False, 500),
    "a pod that we never ranked is left alone": (None, True, None),
}


@pytest.mark.parametrize(("cost", "troubled", "want"), RANKS.values(), ids=RANKS.keys())
def test_rank_change(cost: int | None, troubled: bool, want: int | None) -> None:
    assert lifecycle.rank_change(replace(bound("p"), deletion_cost=cost), troubled=troubled) == want


def right(watts: float, until: float = NOW + 10) -> RightOfReturn:
    return RightOfReturn("row-a", KEY, watts, until)


STANDING = {
    "a right stands while its pool misses a replica": ([right(700)], 1, [700]),
    "a right that is over is dropped": ([right(700, NOW - 1)], 1, []),
    "a pool that was scaled down holds nothing back": ([right(700)], 0, []),
    "not more rights than missing replicas, the youngest kept": ([right(700), right(800, NOW + 20)], 1, [800]),
}


@pytest.mark.parametrize(("given", "missing", "want"), STANDING.values(), ids=STANDING.keys())
def test_standing_rights(given: list[RightOfReturn], missing: int, want: list[float]) -> None:
    kept = lifecycle.standing_rights(given, {str(KEY): missing}, NOW)
    assert [one.watts for one in kept] == want


def test_what_left_the_count_is_judged_on_as_virtual_replicas() -> None:
    given = pool(count=2, left=2, left_since_time=NOW - 70)
    found = replicas(given, roll_call(given, (*RUNNING[:2], gated("d"))), frozenset({"n9"}))
    assert [one.key for one in found] == ["d", "search/llama#0", "search/llama#1"]
    assert [one.pod_uid for one in found] == ["d", "", ""]
    assert found[1].since_time == NOW - 70
    assert found[1].avoid == {"n9"}


def test_what_was_shed_is_told_apart_by_those_that_left_for_it_then_by_the_youngest_pods() -> None:
    given = pool(desired=5, count=3, left=2, left_shed=1, left_since_time=NOW - 70)
    roll = roll_call(given, (*RUNNING[:1], gated("d", 30), gated("e", 1)))
    found = replicas(given, roll, frozenset(), shed=2)
    assert [one.key for one in found if one.shed] == ["e", "search/llama#0"]


def test_pods_that_borrow_the_label_are_foreign() -> None:
    borrowed = replace(bound("x"), owner=Owner("ReplicaSet", "other", "rs-9"))
    roll = roll_call(pool(), (borrowed, *RUNNING))
    assert [pod.uid for pod in roll.foreign] == ["x"]
    assert [pod.uid for pod in roll.bound] == ["a", "b", "c"]


SLOW: dict[str, tuple[Pod, bool]] = {
    "pinned and unanswered for longer than the limit": (replace(pinned("p"), created_time=NOW - 61), True),
    "unanswered, but not for long": (replace(pinned("p"), created_time=NOW - 59), False),
    "answered: there is no room, so the pin is dead and not slow": (
        replace(pinned("p", unschedulable=True), created_time=NOW - 61),
        False,
    ),
    "bound is an answer": (replace(bound("p"), created_time=NOW - 61), False),
    "without a pin it is not ours to watch": (replace(pinned("p", node=""), created_time=NOW - 61), False),
}


@pytest.mark.parametrize(("pod", "want"), SLOW.values(), ids=SLOW.keys())
def test_slow_scheduler(pod: Pod, want: bool) -> None:
    assert bool(lifecycle.slow_scheduler((pod,), NOW, LIMIT)) is want
