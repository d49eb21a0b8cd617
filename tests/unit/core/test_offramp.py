"""Leaving Penstock: the plan hands everything back, restarts nothing, and carried out it is empty."""

from dataclasses import replace
from typing import Any

import pytest

from penstock.api.names import COUNTRY_LABEL, GATE, LEFT_ANNOTATION, RELEASE_ANNOTATION
from penstock.core.model import Pod, PoolKey
from penstock.core.offramp import NO_LAW, Errand, Holder, OffRamp, Scene, Step, plan
from penstock.core.placement.scheduling import Operator, Requirement

POOL = PoolKey("search", "llama")
LAW = ((Requirement(COUNTRY_LABEL, Operator.IN, ("DE", "FR")),),)
FOREIGN = "example.com/quota"


def deployment(**given: Any) -> Holder:
    base = Holder(
        "Deployment", "search", "llama", "d1", "/deployments/llama",
        gates=(GATE,), owner_uid="p1", owner_kind="InferencePool", replicas=3, made=3, annotations=frozenset({"x"}),
    )  # fmt: skip
    return replace(base, **given)


def replica_set(name: str = "llama-1", **given: Any) -> Holder:
    base = Holder(
        "ReplicaSet", "search", name, f"u-{name}", f"/replicasets/{name}",
        gates=(GATE,), owner_uid="d1", owner_kind="Deployment", replicas=3, fingerprint="same",
    )  # fmt: skip
    return replace(base, **given)


def pod(name: str = "a", **given: Any) -> Pod:
    return replace(Pod(uid=f"u-{name}", namespace="search", name=name, pool="llama", gates=(GATE,)), **given)


def scene(*holders: Holder, pods: tuple[Pod, ...] = (), replicas: int = 3, law: Any = NO_LAW) -> Scene:
    return Scene(pods, holders, {POOL: replicas}, {POOL: law})


def said(found: OffRamp) -> list[str]:
    return [step.says for errand in found.errands for step in errand.steps]


CASES = {
    "the gate is taken out of the ReplicaSet's template before the Deployment's, under a pause of our own": (
        scene(deployment(), replica_set()),
        ["pause", "take the gate out of replicaset/llama-1 -n search", "take the gate out, resume"],
    ),
    "replicas that left the count come back first, while they are still born with the gate": (
        scene(deployment(replicas=1, annotations=frozenset({LEFT_ANNOTATION})), replica_set()),
        ["raise replicas from 1 to 3"],
    ),
    "the gate stays in the template until every replica has its pod, or the last would be born without the law": (
        scene(deployment(made=2), replica_set()),
        [],
    ),
    "a count above the pool's is somebody's wish and is not lowered": (
        scene(deployment(gates=(), replicas=5), replica_set(gates=())),
        [],
    ),
    "somebody else's pause outlives us": (
        scene(deployment(paused=True), replica_set()),
        ["take the gate out of replicaset/llama-1 -n search", "take the gate out"],
    ),
    "a run that was cut off while the Deployment was paused is finished": (
        scene(deployment(paused=True, annotations=frozenset({RELEASE_ANNOTATION})), replica_set(gates=())),
        ["take the gate out, resume"],
    ),
    "an old ReplicaSet that would make gated pods on a rollback loses its gate too": (
        scene(deployment(), replica_set(), replica_set("old", replicas=0, fingerprint="old")),
        [
            "pause",
            "take the gate out of replicaset/llama-1 -n search",
            "take the gate out of replicaset/old -n search",
            "take the gate out, resume",
        ],
    ),
    "an empty ReplicaSet that differs in the gate alone goes, or it would be taken for the current one": (
        scene(deployment(), replica_set(), replica_set("twin", gates=(), replicas=0)),
        [
            "pause",
            "delete replicaset/twin -n search, an empty twin",
            "take the gate out of replicaset/llama-1 -n search",
            "take the gate out, resume",
        ],
    ),
    "but never one that still has pods": (
        scene(deployment(), replica_set(), replica_set("twin", gates=(), replicas=1)),
        ["pause", "take the gate out of replicaset/llama-1 -n search", "take the gate out, resume"],
    ),
    "a gated pod is lifted with the law of its pool": (
        scene(pods=(pod(),), law=LAW),
        ["lift the gate, law kept"],
    ),
    "foreign gates stay": (
        scene(pods=(pod(gates=(FOREIGN, GATE)),)),
        [f"lift the gate, {FOREIGN} stays"],
    ),
    "a pod of no pool is lifted as well": (
        scene(pods=(pod(pool="", namespace="elsewhere"),), law=LAW),
        ["lift the gate"],
    ),
    "what ends anyway is left alone": (
        scene(pods=(pod(terminating=True),)),
        [],
    ),
}


@pytest.mark.parametrize(("seen", "want"), CASES.values(), ids=CASES.keys())
def test_the_off_ramp_does_this_and_no_more(seen: Scene, want: list[str]) -> None:
    assert said(plan(seen)) == want


@pytest.mark.parametrize("law", ((), None), ids=["no place is lawful", "the law cannot be read"])
def test_where_no_law_can_be_kept_the_gate_stays(law: Any) -> None:
    found = plan(scene(pods=(pod(),), law=law))
    assert found.unlawful == (pod(),)
    assert found.errands == ()


def test_templates_of_others_are_named_by_the_outermost_owner_and_not_touched() -> None:
    stateful = Holder("StatefulSet", "x", "web", "s1", "/statefulsets/web", gates=(GATE,))
    theirs = Holder("Deployment", "x", "web", "d9", "/deployments/web", gates=(GATE,))
    inner = Holder("ReplicaSet", "x", "web-1", "r9", "/replicasets/web-1", gates=(GATE,), owner_uid="d9")
    found = plan(Scene(holders=(stateful, theirs, inner, replica_set(gates=()), deployment(gates=()))))
    assert found.adopted == (stateful, theirs)
    assert found.errands == ()


def test_every_write_names_the_object_by_uid_so_that_it_never_hits_its_successor() -> None:
    found = plan(scene(deployment(), replica_set(), pods=(pod(), pod("b", gates=(GATE, FOREIGN))), law=LAW))
    for errand in found.errands:
        for step in errand.steps:
            assert step.operations is not None
            assert step.operations[0] == {"op": "test", "path": "/metadata/uid", "value": step.uid}


def test_the_law_is_in_the_affinity_of_a_lifted_pod_and_no_node_is_pinned() -> None:
    (errand,) = plan(scene(pods=(pod(),), law=LAW)).pods
    operations = only(errand).operations
    assert operations is not None
    required = operations[2]["value"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required == {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": COUNTRY_LABEL, "operator": "In", "values": ["DE", "FR"]}]}]
    }


def test_a_foreign_gate_beside_ours_is_tested_and_kept() -> None:
    operations = only(plan(scene(pods=(pod(gates=(FOREIGN, GATE)),))).pods[0]).operations
    assert operations is not None
    assert operations[1] == {
        "op": "test",
        "path": "/spec/schedulingGates",
        "value": [{"name": FOREIGN}, {"name": GATE}],
    }
    assert operations[-1] == {"op": "remove", "path": "/spec/schedulingGates/1"}


def only(errand: Errand) -> Step:
    (step,) = errand.steps
    return step
