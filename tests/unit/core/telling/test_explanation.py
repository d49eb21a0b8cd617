"""What people read of a decision and of a wait."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

import builders as a
from penstock.core.model import Node, Pod, Replica, Residency, Telemetry
from penstock.core.placement import choice as placement
from penstock.core.placement.choice import Decision
from penstock.core.telling import explanation

MOST_BYTES = 1500


def decided(*nodes: Node, pods: Sequence[Pod] = (), gpus: int = 2) -> Decision:
    fleet = a.fleet(*nodes, pods=pods, domains=[a.domain(f"row-{number}") for number in range(3)])
    return placement.plan(fleet, [a.replica(gpus=gpus)], (), 0.0).decisions[0]


SENTENCES: dict[str, tuple[Decision, str]] = {
    "the only node": (
        decided(a.node("gpu-1")),
        "the only node that would do: 641 W per GPU, leaves 6 GPUs free on gpu-1",
    ),
    "a node that is filled": (
        decided(a.node("gpu-1", gpus=2)),
        "the only node that would do: 641 W per GPU, fills gpu-1",
    ),
    "one GPU left": (
        decided(a.node("gpu-1", gpus=3)),
        "the only node that would do: 641 W per GPU, leaves 1 GPU free on gpu-1",
    ),
    "the term that decided": (
        decided(a.node("gpu-1"), a.node("gpu-2"), pods=[a.pod(node="gpu-2", gpus=6)]),
        "best of 2: 641 W per GPU, fills gpu-2; ahead of gpu-1 by fragmentation",
    ),
    "a tie": (
        decided(a.node("gpu-1"), a.node("gpu-2")),
        "best of 2: 641 W per GPU, leaves 6 GPUs free on gpu-1; ahead of gpu-2 by name",
    ),
}


@pytest.mark.parametrize(("decision", "want"), SENTENCES.values(), ids=SENTENCES.keys())
def test_sentence(decision: Decision, want: str) -> None:
    assert explanation.sentence(decision) == want


def test_the_record_holds_the_terms_the_runner_up_and_the_counts_in_little_room() -> None:
    name = "gpu-node-with-a-name-that-is-as-long-as-a-cloud-makes-them"
    nodes = [a.node(f"{name}-{number}") for number in range(3)]
    decision = decided(*nodes, replace(nodes[0], name=f"{name}-9", cordoned=True))
    record = json.loads(explanation.decision_text(decision))
    assert record["node"] == f"{name}-0"
    assert record["runnerUp"]["node"] == f"{name}-1"
    assert record["score"]["total"] == pytest.approx(
        sum(value for term, value in record["score"].items() if term != "total"), abs=1e-3
    )
    assert record["refused"] == {"Taints": 1}
    assert record["candidates"] == 3
    assert record["watts"] == {"row-0": 1282.0, "row-1": 1282.0, "row-2": 1282.0}
    assert len(explanation.decision_text(decision)) <= MOST_BYTES


def test_advice_says_that_it_is_advice() -> None:
    assert json.loads(explanation.advice_text(None))["reason"] == "advice only: no node would have been chosen"
    advised = json.loads(explanation.advice_text(decided(a.node())))
    assert (advised["mode"], advised["node"]) == ("Advise", "gpu-1")
    assert advised["reason"].startswith("advice only: gpu-1, the only node that would do")


GERMANY = Residency(restricted=True, allowed_countries=frozenset({"DE"}))


def test_a_wait_counts_the_nodes_by_the_filter_that_refused_them() -> None:
    nodes = [
        a.node("fr-1", country="FR"),
        a.node("fr-2", country="FR"),
        a.node("de-1", ready=False),
        a.node("de-2"),
        a.node("de-3", cordoned=True),
        a.node("de-4", gpus=2),
        a.node("de-5", labels={"row": "a"}),
        a.node("de-6", allocatable={"cpu": 1}),
    ]
    heard = [a.telemetry(one.name) for one in nodes if one.name not in ("de-2", "de-4")]
    broken = a.telemetry("de-4", (a.gpu(0), a.gpu(1, activity_percent=50.0)))
    told = waiting(nodes, [*heard, broken], a.replica(gpus=4, residency=GERMANY))
    assert told == (
        "0/8 nodes: 2 outside the law (2 by country), 1 not ready, 1 whose agent never spoke, 1 cordoned, 1 lacks cpu, "
        "1 has fewer than 4 free GPUs (BusyUnallocatedGPU: 1 busy without a pod), "
        "1 would pass the budget of PowerDomain/row-a by 2466 W"
    )


@pytest.mark.parametrize(
    ("busy", "named"),
    (
        (1, "1 busy without a pod: GPU-0 on gpu-1)"),
        (5, "5 busy without a pod: GPU-0 on gpu-1, GPU-1 on gpu-1, GPU-2 on gpu-1, …)"),
    ),
)
def test_a_gpu_in_use_without_a_pod_is_named_where_the_kubelet_said_who_holds_the_others(busy: int, named: str) -> None:
    in_use = tuple(f"GPU-{index}" for index in range(busy))
    told = waiting([a.node()], [a.telemetry(pods=(), unallocated_in_use=in_use)], a.replica(gpus=8))
    assert told == f"0/1 nodes: 1 has fewer than 8 free GPUs (BusyUnallocatedGPU: {named}"


def test_gpus_that_claims_hold_are_told() -> None:
    claimer = a.pod("trainer", gpus=0, pool="", claimed=frozenset({"gpu-3"}))
    fleet = a.fleet(a.node(gpus=2), pods=[claimer])
    (one,) = placement.plan(fleet, [a.replica(gpus=2)], (), 0.0).waiting
    assert one.message == "0/1 nodes: 1 has fewer than 2 free GPUs (ClaimedGPU: 1 held through ResourceClaims)"
    assert one.would_fit == "free 1 GPU on gpu-1"


def test_the_ceiling_on_shared_gpus_is_told() -> None:
    sliced = a.node(gpus=4, labels={"nvidia.com/gpu.replicas": "2"})
    told = waiting([sliced], [a.telemetry(gpus=(a.gpu(0), a.gpu(1, activity_percent=97.0)), pods=())], a.replica())
    assert told == "0/1 nodes: 1 shares GPUs that are more than 90% busy"


def waiting(nodes: Sequence[Node], heard: Sequence[Telemetry], asked: Replica) -> str:
    domain = a.domain(budget_watts=8 * 80 + 99, selector=a.labelled("row", "a"))
    fleet = a.fleet(*nodes, telemetries=heard, domains=[domain])
    return placement.plan(fleet, [asked], (), 0.0).waiting[0].message


def test_the_message_and_the_remedy_name_the_same_watts() -> None:
    domain = a.domain(budget_watts=8 * 80, margin=0.2)
    (one,) = placement.plan(a.fleet(a.node(), domains=[domain]), [a.replica()], (), 0.0).waiting
    watts = one.message.rsplit(" by ", 1)[1]
    assert one.would_fit == f"raise PowerDomain/row-a by {watts}"
