"""Whose a pod is, how far it has come, and what of a pool waits for a place."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

import builders as a
from penstock.api.names import GATE
from penstock.core.model import Owner, Phase, PlacementRules, Pod
from penstock.core.pool import LEADER_WORKER_SET_LABEL, Pool, RollCall, Template, replicas, roll_call
from penstock.core.telling.problem import Problem

SET = Owner("ReplicaSet", "llama-1", "rs-1")
POOL = Pool(
    a.POOL,
    "uid-pool",
    1,
    desired=3,
    rules=PlacementRules(),
    template=Template(requests=a.requests(4), priority=7),
    count=3,
    current_hash="new",
    replica_sets=frozenset({"rs-1"}),
)
ADOPTING = replace(POOL, template=None, replica_sets=frozenset())
GATED = a.pod("g", node="", gates=(GATE,), owner=SET)
BOUND = a.pod("b", owner=SET)
PINNED = a.pod("p", node="", pin="gpu-1", owner=SET)

GROUPS: dict[str, tuple[Pool, Pod, str]] = {
    "gated by us alone it waits for us": (POOL, GATED, "waiting"),
    "gated by somebody else too it is held": (POOL, replace(GATED, gates=("theirs", GATE)), "held"),
    "whatever the order of the gates": (POOL, replace(GATED, gates=(GATE, "theirs")), "held"),
    "part of a LeaderWorkerSet group": (POOL, replace(GATED, labels={LEADER_WORKER_SET_LABEL: "g"}), "grouped"),
    "past the gate and pinned": (POOL, PINNED, "pinned"),
    "past our gate, though another's is left": (POOL, replace(PINNED, gates=("theirs",)), "pinned"),
    "bound": (POOL, BOUND, "bound"),
    "on its way out, gated": (POOL, replace(GATED, terminating=True), "terminating"),
    "on its way out, bound": (POOL, replace(BOUND, terminating=True), "terminating"),
    "failed by its kubelet": (
        POOL,
        replace(BOUND, phase=Phase.FAILED, failure="UnexpectedAdmissionError"),
        "failed",
    ),
    "failed without a word": (POOL, replace(BOUND, phase=Phase.FAILED), "failed"),
    "done is in no group": (POOL, replace(BOUND, phase=Phase.SUCCEEDED), ""),
    "without a controller it only borrows the label": (POOL, replace(BOUND, owner=None), "foreign"),
    "of another controller too": (POOL, replace(GATED, owner=Owner("ReplicaSet", "other", "rs-9")), "foreign"),
    "a pool without a template adopts whatever carries its label": (ADOPTING, replace(GATED, owner=None), "waiting"),
    "with any controller": (ADOPTING, replace(BOUND, owner=Owner("StatefulSet", "s", "s-1")), "bound"),
}


@pytest.mark.parametrize(("pool", "pod", "want"), GROUPS.values(), ids=GROUPS.keys())
def test_a_pod_is_in_one_group(pool: Pool, pod: Pod, want: str) -> None:
    found = roll_call(pool, [pod])
    assert [group.name for group in fields(RollCall) if getattr(found, group.name)] == ([want] if want else [])


def test_a_group_is_in_order_of_age_whatever_order_its_pods_were_heard_of() -> None:
    pods = [replace(GATED, uid=uid, created_time=time) for uid, time in (("c", 2.0), ("a", 3.0), ("b", 2.0))]
    for heard in (pods, pods[::-1]):
        assert [pod.uid for pod in roll_call(POOL, heard).waiting] == ["b", "c", "a"]


def test_the_owner_counts_what_is_neither_done_nor_on_its_way_out() -> None:
    ending, stray = replace(BOUND, uid="t", terminating=True), replace(BOUND, uid="s", owner=None)
    held = replace(GATED, uid="h", gates=("theirs", GATE))
    found = roll_call(POOL, [GATED, held, PINNED, BOUND, ending, stray])
    assert found.active == 4


def test_only_a_bound_pod_that_says_so_is_ready() -> None:
    ready = replace(BOUND, uid="r", ready=True)
    assert roll_call(POOL, [BOUND, ready, GATED]).ready == (ready,)


AWAY = frozenset({"gpu-9"})


def test_a_gated_pod_waits_with_what_it_asks_for_itself() -> None:
    pod = replace(GATED, requests=a.requests(8), priority=3, created_time=50.0, template_hash="new")
    (found,) = replicas(POOL, roll_call(POOL, [pod]), AWAY)
    assert (found.key, found.pod_uid, found.gpus) == (pod.uid, pod.uid, 8)
    assert (found.priority, found.since_time, found.avoid, found.newest) == (3, 50.0, AWAY, True)


def test_those_that_left_the_count_wait_with_what_the_template_asks_for() -> None:
    pool = replace(POOL, left=2, left_since_time=40.0)
    found = replicas(pool, RollCall(), AWAY)
    assert [one.key for one in found] == ["search/llama#0", "search/llama#1"]
    for one in found:
        assert (one.pod_uid, one.gpus, one.priority, one.since_time) == ("", 4, 7, 40.0)
        assert one.avoid == AWAY
        assert not one.newest, "a rollout frees room for its own next pod"


NEWEST: dict[str, tuple[Pool, str, bool]] = {
    "of the newest ReplicaSet": (POOL, "new", True),
    "of an older one": (POOL, "old", False),
    "an adopted pod has no ReplicaSet of ours": (ADOPTING, "old", True),
}


@pytest.mark.parametrize(("pool", "template_hash", "want"), NEWEST.values(), ids=NEWEST.keys())
def test_the_pods_of_a_rollout_go_first(pool: Pool, template_hash: str, want: bool) -> None:
    (found,) = replicas(pool, roll_call(pool, [replace(GATED, template_hash=template_hash)]), frozenset())
    assert found.newest is want


def test_a_pool_with_a_problem_asks_for_nothing() -> None:
    broken = replace(POOL, left=1, problems=(Problem("spec.residency.allowed[0]", "UK", "write GB"),))
    assert replicas(broken, roll_call(broken, [GATED]), frozenset()) == ()


def test_who_is_held_or_grouped_is_not_asked_for() -> None:
    held = replace(GATED, gates=("theirs", GATE))
    grouped = replace(GATED, uid="w", labels={LEADER_WORKER_SET_LABEL: "g"})
    assert replicas(POOL, roll_call(POOL, [held, grouped, PINNED, BOUND]), frozenset()) == ()
