"""The live picture: what a change marks, what an assumption survives, what a list drops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from penstock.api.names import GATE
from penstock.cluster.objects import Deployment, PriorityClass, ReplicaSet, ResourceClaim, Service
from penstock.cluster.parse.telemetry import decode_gpu_node
from penstock.cluster.parse.written import pool_object
from penstock.cluster.state import ClusterState
from penstock.core.model import Node, Owner, Phase, Pod, PoolKey

KEY = PoolKey("search", "llama")
GATED = Pod(uid="u", namespace="search", name="p", pool="llama", gates=(GATE,), resource_version="10")
PINNED = replace(GATED, pin="n1", gates=(), resource_version="12")
BOUND = replace(PINNED, node="n1", phase=Phase.RUNNING, resource_version="13")


@pytest.fixture
def state() -> ClusterState:
    return ClusterState(now=lambda: 1000.0)


def settled(state: ClusterState, pod: Pod) -> ClusterState:
    state.put_pod(pod)
    state.take_dirty()
    return state


# ---------------------------------------------------------------------------------------------------------------- pods


def test_a_pod_is_found_by_uid_by_node_and_by_pool(state: ClusterState) -> None:
    state.put_pod(BOUND)
    assert state.pods == {"u": BOUND}
    assert state.pods_by_node == {"n1": {"u": BOUND}}
    assert state.pods_by_pool == {KEY: {"u": BOUND}}
    assert state.wake.is_set()
    assert state.urgent.is_set()
    state.delete_pod("u")
    assert (state.pods, state.pods_by_node, state.pods_by_pool) == ({}, {}, {})


def test_a_finished_pod_takes_no_room(state: ClusterState) -> None:
    settled(state, BOUND).put_pod(replace(BOUND, phase=Phase.SUCCEEDED, resource_version="14"))
    assert state.pods_by_node == {}
    assert state.take_dirty().nodes == {"n1"}


CLAIM = ResourceClaim("search/gpu", frozenset({"gpu-3"}), frozenset({"u"}))


def test_a_claim_gives_its_gpus_to_the_pods_that_it_is_reserved_for_whoever_is_seen_first(state: ClusterState) -> None:
    state.put_claim(CLAIM)
    state.put_pod(BOUND)
    assert state.pods["u"].claimed == {"gpu-3"}
    state.put_claim(ResourceClaim("search/more", frozenset({"gpu-0"}), frozenset({"u", "not seen"})))
    assert state.pods_by_node["n1"]["u"].claimed == {"gpu-0", "gpu-3"}
    state.delete_claim("search/more")
    assert state.pods["u"].claimed == {"gpu-3"}


def test_a_claim_that_changes_marks_the_node_and_the_same_again_nothing(state: ClusterState) -> None:
    settled(state, BOUND).put_claim(CLAIM)
    assert state.take_dirty().nodes == {"n1"}
    state.put_claim(CLAIM)
    assert state.take_dirty().nodes == frozenset()
    state.put_claim(replace(CLAIM, pods=frozenset()))
    assert state.take_dirty().nodes == {"n1"}
    assert state.pods["u"].claimed == frozenset()


def test_a_pod_keeps_what_it_claims_when_it_is_seen_again(state: ClusterState) -> None:
    state.put_claim(CLAIM)
    settled(state, BOUND).put_pod(replace(BOUND, resource_version="99"))
    assert state.pods["u"].claimed == {"gpu-3"}
    assert state.take_dirty().nodes == frozenset()


MARKS: tuple[tuple[str, Pod, Pod, frozenset[str], frozenset[PoolKey]], ...] = (
    ("binding marks node and pool", PINNED, BOUND, frozenset({"n1"}), frozenset({KEY})),
    (
        "a new resourceVersion alone marks nothing",
        BOUND,
        replace(BOUND, resource_version="99"),
        frozenset(),
        frozenset(),
    ),
    (
        "a pod that changes its node marks both",
        PINNED,
        replace(BOUND, node="n2"),
        frozenset({"n1", "n2"}),
        frozenset({KEY}),
    ),
    (
        "a pod that leaves its pool marks the pool it left",
        BOUND,
        replace(BOUND, pool="", resource_version="14"),
        frozenset({"n1"}),
        frozenset({KEY}),
    ),
)


@pytest.mark.parametrize(
    ("before", "after", "nodes", "pools"), [case[1:] for case in MARKS], ids=[case[0] for case in MARKS]
)
def test_what_a_pod_marks(
    state: ClusterState, before: Pod, after: Pod, nodes: frozenset[str], pools: frozenset[PoolKey]
) -> None:
    settled(state, before).put_pod(after)
    assert state.wake.is_set() is bool(nodes or pools)
    dirty = state.take_dirty()
    assert (dirty.nodes, dirty.pools) == (nodes, pools)
    assert not state.wake.is_set()


def test_a_foreign_pod_without_a_place_wakes_nobody(state: ClusterState) -> None:
    state.put_pod(replace(GATED, pool="", gates=()))
    assert not state.wake.is_set()


# --------------------------------------------------------------------------------------------------------- assumptions


def test_an_assumption_books_the_room_at_once(state: ClusterState) -> None:
    settled(state, GATED).assume("u", "n1")
    assert state.pods["u"].place == "n1"
    assert not state.pods["u"].gated
    assert state.pods_by_node["n1"]["u"] is state.pods["u"]
    assert state.take_dirty().nodes == {"n1"}


SHOWN: tuple[tuple[str, Pod, str], ...] = (
    ("an older word does not undo it", replace(GATED, resource_version="9"), "n1"),
    ("a newer word without the pin does not undo it", replace(GATED, resource_version="11", priority=5), "n1"),
    ("the pin that we wrote confirms it", PINNED, "n1"),
    ("the API server's pin wins over ours", replace(PINNED, pin="n2"), "n2"),
    ("bound elsewhere by somebody wins", replace(BOUND, node="n3"), "n3"),
    ("let through by somebody without a pin wins", replace(PINNED, pin=""), ""),
)


@pytest.mark.parametrize(("shown", "place"), [case[1:] for case in SHOWN], ids=[case[0] for case in SHOWN])
def test_what_the_watch_shows_after_an_assumption(state: ClusterState, shown: Pod, place: str) -> None:
    settled(state, GATED).assume("u", "n1")
    state.put_pod(shown)
    assert state.pods["u"].place == place
    assert list(state.pods_by_node) == ([place] if place else [])


def test_a_confirmed_assumption_is_over_and_an_older_word_comes_too_late(state: ClusterState) -> None:
    settled(state, GATED).assume("u", "n1")
    state.put_pod(PINNED)
    state.put_pod(replace(GATED, resource_version="11"))
    assert state.pods["u"] == PINNED


def test_what_was_learnt_meanwhile_stays_when_an_assumption_is_forgotten(state: ClusterState) -> None:
    settled(state, GATED).assume("u", "n1")
    state.put_pod(replace(GATED, resource_version="11", priority=5))
    state.forget("u")
    assert state.pods["u"] == replace(GATED, resource_version="11", priority=5)
    assert state.pods_by_node == {}


def test_a_forgotten_assumption_marks_the_node_that_is_free_again(state: ClusterState) -> None:
    settled(state, GATED).assume("u", "n1")
    state.take_dirty()
    state.forget("u")
    assert state.take_dirty().nodes == {"n1"}


def test_an_assumed_pod_that_is_gone_leaves_nothing(state: ClusterState) -> None:
    settled(state, GATED).assume("u", "n1")
    state.delete_pod("u")
    state.assume("u", "n1")
    state.forget("u")
    assert (state.pods, state.pods_by_node, state.pods_by_pool) == ({}, {}, {})


def test_advice_takes_only_the_gate_away(state: ClusterState) -> None:
    settled(state, GATED).assume("u", "")
    assert (state.pods["u"].gated, state.pods["u"].place, state.pods_by_node) == (False, "", {})
    state.put_pod(replace(GATED, resource_version="11"))
    assert not state.pods["u"].gated


# ------------------------------------------------------------------------------------------------ nodes and telemetry


def test_a_node_heartbeat_wakes_nobody(state: ClusterState) -> None:
    state.put_node(Node("n1", uid="1"))
    state.take_dirty()
    state.put_node(Node("n1", uid="1"))
    assert not state.wake.is_set()
    state.put_node(Node("n1", uid="1", cordoned=True))
    assert state.take_dirty().nodes == {"n1"}


def report(sequence: int, **gpu: object) -> Any:
    figures = {"uuid": "g", "powerWatts": 400.0, "maximumLimitWatts": 700.0, "memoryTotalBytes": 10, **gpu}
    status = {"heartbeatSeconds": 10, "sequence": sequence, "gpus": [figures]}
    return decode_gpu_node(msgspec.json.encode({"metadata": {"name": "n1"}, "status": status}))


REPORTS: tuple[tuple[str, dict[str, object], bool], ...] = (
    ("energy and a fraction of a watt", {"energyJoules": 5.0, "powerWatts": 400.4}, False),
    ("a step of watts", {"powerWatts": 450.0}, True),
    ("a lower limit", {"enforcedLimitWatts": 500.0}, True),
    ("a lost GPU", {"health": "Lost"}, True),
    ("a contradiction", {"powerWatts": -400.4}, True),
)


@pytest.mark.parametrize(("gpu", "marks"), [case[1:] for case in REPORTS], ids=[case[0] for case in REPORTS])
def test_which_report_wakes_the_planner(gpu: dict[str, object], marks: bool) -> None:
    clock = [1000.0]
    state = ClusterState(now=lambda: clock[0])
    state.put_gpu_node(report(1), None)
    state.take_dirty()
    clock[0] = 1010.0
    state.put_gpu_node(report(2, **gpu), None)
    assert state.wake.is_set() is marks
    assert not state.urgent.is_set()
    assert state.telemetry["n1"].heard_at == 1010.0


def test_an_agent_that_speaks_again_wakes_the_planner() -> None:
    clock = [1000.0]
    state = ClusterState(now=lambda: clock[0])
    state.put_gpu_node(report(1), None)
    state.take_dirty()
    clock[0] = 1100.0
    state.put_gpu_node(report(2), None)
    assert state.take_dirty().nodes == {"n1"}


def test_a_deleted_gpu_node_is_forgotten_with_its_sequence(state: ClusterState) -> None:
    state.put_gpu_node(report(100), None)
    state.delete_gpu_node("n1")
    assert state.telemetry == {}
    state.put_gpu_node(report(1), None)
    assert state.telemetry["n1"].contradiction == ""


# ------------------------------------------------------------------------------------ what controllers and people write


def pool(version: str, uid: str = "1", **spec: object) -> Any:
    template = {"spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}}
    return pool_object(
        {
            "metadata": {"name": KEY.name, "namespace": KEY.namespace, "uid": uid, "resourceVersion": version},
            "spec": {"model": {"name": "m"}, "engine": "vLLM", "template": template, **spec},
        }
    )


def test_an_event_older_than_what_we_know_is_ignored(state: ClusterState) -> None:
    state.written_pools.put(pool("20", replicas=3))
    state.written_pools.put(pool("19", replicas=1))
    stored = state.pools[KEY].spec
    assert stored
    assert stored.replicas == 3


def test_a_status_write_of_ours_wakes_nobody(state: ClusterState) -> None:
    state.written_pools.put(pool("20"))
    state.take_dirty()
    state.written_pools.put(replace(pool("21"), status={"replicas": 1}))
    assert not state.wake.is_set()
    assert state.pools[KEY].status == {"replicas": 1}


def test_a_list_drops_ghosts_and_keeps_what_is_newer_than_itself(state: ClusterState) -> None:
    state.written_pools.put(pool("20"))
    state.written_pools.keep([], "15")
    assert KEY in state.pools
    state.written_pools.keep([], "25")
    assert state.pools == {}


def test_the_deletion_of_an_earlier_pool_leaves_its_successor(state: ClusterState) -> None:
    state.written_pools.put(pool("20", uid="2"))
    state.written_pools.delete(KEY, "1")
    assert KEY in state.pools


def test_a_stored_pool_that_todays_rules_refuse_becomes_its_problems(state: ClusterState) -> None:
    state.written_pools.put(pool("20", replicas=-1))
    assert state.pools[KEY].spec is None
    assert str(state.pools[KEY].problems[0]).startswith("spec.replicas: -1: ")


def test_workloads_mark_the_pool_whose_label_they_carry(state: ClusterState) -> None:
    deployment = Deployment(KEY, uid="d", generation=1, pool="llama", replicas=1)
    owned = ReplicaSet(PoolKey("search", "llama-h1"), "r", "llama", "h1", 1, owner=Owner("Deployment", "llama", "d"))
    state.put_deployment(deployment)
    state.put_replica_set(owned)
    state.put_replica_set(replace(owned, key=PoolKey("search", "other"), uid="o", owner=None))
    assert state.take_dirty().pools == {KEY}
    assert state.replica_sets_of(deployment) == [owned]
    state.put_deployment(replace(deployment, resource_version="5"))
    assert not state.wake.is_set()


def test_a_service_that_changes_or_goes_marks_its_pool(state: ClusterState) -> None:
    service = Service(KEY, "llama", "5")
    state.put_service(service)
    assert state.take_dirty().pools == {KEY}
    state.put_service(replace(service, resource_version="6"))
    assert state.take_dirty().pools == {KEY}
    state.delete_service(KEY)
    assert state.take_dirty().pools == {KEY}
    state.delete_service(KEY)
    assert not state.wake.is_set()


def test_the_highest_default_priority_is_the_clusters(state: ClusterState) -> None:
    for one in (PriorityClass("low", 1, is_default=True), PriorityClass("high", 9)):
        state.put_priority_class(one)
    assert state.priorities == {"low": 1, "high": 9, "": 1}
    state.delete_priority_class("low")
    assert state.priorities == {"high": 9, "": 0}
