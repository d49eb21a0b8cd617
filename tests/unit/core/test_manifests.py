"""What is written into the cluster: the patch that places a pod, the Deployment, the Service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.api.names import COUNTRY_LABEL, GATE
from penstock.core.manifests import Lift, Workload, deletion_cost_patch, deployment, lift_patch, service
from penstock.core.model import Pod, PoolKey
from penstock.core.placement.scheduling import NodeTerm, Operator, Requirement, Scheduling

KEY = PoolKey("search", "llama")
GERMANY = (Requirement(COUNTRY_LABEL, Operator.IN, ("DE",)),)
FRANCE = (Requirement(COUNTRY_LABEL, Operator.IN, ("FR",)),)
FAST = Requirement("disk", Operator.EXISTS)
LARGE = Requirement("cpus", Operator.GT, ("64",))
BY_NAME = Requirement("metadata.name", Operator.IN, ("gpu-1", "gpu-2"))
POD = Pod("uid-1", "search", "llama-1", pool="llama", gates=(GATE,))
LIFT = Lift(pod=POD, law=(GERMANY,), node="gpu-1", record='{"node":"gpu-1"}', fence="me/3", deletion_cost=-120)

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
LAW = {"key": COUNTRY_LABEL, "operator": "In", "values": ["DE"]}
FRENCH_LAW = {"key": COUNTRY_LABEL, "operator": "In", "values": ["FR"]}
PIN = {"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}
DISK = {"key": "disk", "operator": "Exists"}
CPUS = {"key": "cpus", "operator": "Gt", "values": ["64"]}
NAMES = {"key": "metadata.name", "operator": "In", "values": ["gpu-1", "gpu-2"]}
LAWFUL_PIN = {"matchExpressions": [LAW], "matchFields": [PIN]}


def lift(*terms: NodeTerm, depth: int = 0, annotated: bool = False, **changes: Any) -> Lift:
    scheduling = Scheduling(node_terms=terms, affinity_depth=depth)
    return replace(LIFT, pod=replace(POD, scheduling=scheduling, annotated=annotated), **changes)


def value_at(lifted: Lift, path: str) -> Any:
    """What the patch adds at a path; None where it adds nothing there."""
    return next((one["value"] for one in lift_patch(lifted) if one["op"] == "add" and one["path"] == path), None)


TERMS: dict[str, tuple[Lift, list[dict[str, Any]]]] = {
    "a pod without terms takes one with the law and the pin": (lift(), [LAWFUL_PIN]),
    "every term takes the law and the pin": (
        lift(NodeTerm((FAST,)), NodeTerm((LARGE,)), depth=2),
        [
            {"matchExpressions": [DISK, LAW], "matchFields": [PIN]},
            {"matchExpressions": [CPUS, LAW], "matchFields": [PIN]},
        ],
    ),
    "a term of fields alone takes them too": (
        lift(NodeTerm(fields=(BY_NAME,)), depth=2),
        [{"matchExpressions": [LAW], "matchFields": [NAMES, PIN]}],
    ),
    "an empty term among others matches nothing and is left as it is": (
        lift(NodeTerm(), NodeTerm((FAST,)), depth=2),
        [{}, {"matchExpressions": [DISK, LAW], "matchFields": [PIN]}],
    ),
    "without a law the pin stands alone": (lift(law=()), [{"matchFields": [PIN]}]),
    "without a pin the law stands alone": (lift(node=""), [{"matchExpressions": [LAW]}]),
    "without a pin a bare pod may be anywhere lawful": (
        lift(law=(GERMANY, FRANCE), node=""),
        [{"matchExpressions": [LAW]}, {"matchExpressions": [FRENCH_LAW]}],
    ),
    "the number of terms is frozen, so of several alternatives each takes the first": (
        lift(NodeTerm((FAST,)), depth=2, law=(GERMANY, FRANCE), node=""),
        [{"matchExpressions": [DISK, LAW]}],
    ),
}


@pytest.mark.parametrize(("lifted", "want"), TERMS.values(), ids=TERMS.keys())
def test_the_terms_of_a_lift(lifted: Lift, want: list[dict[str, Any]]) -> None:
    (affinity,) = (one for one in lift_patch(lifted) if one["path"].startswith("/spec/affinity"))
    found = affinity["value"]
    for name in ("nodeAffinity", REQUIRED):
        found = found.get(name, found)
    assert found["nodeSelectorTerms"] == want


TERM = {"nodeSelectorTerms": [LAWFUL_PIN]}
DEPTHS = {
    "no affinity at all": (0, "/spec/affinity", {"nodeAffinity": {REQUIRED: TERM}}),
    "affinity to pods is kept": (1, "/spec/affinity/nodeAffinity", {REQUIRED: TERM}),
    "preferred terms are kept": (2, f"/spec/affinity/nodeAffinity/{REQUIRED}", TERM),
}


@pytest.mark.parametrize(("depth", "path", "want"), DEPTHS.values(), ids=DEPTHS.keys())
def test_only_the_required_node_affinity_is_written(depth: int, path: str, want: dict[str, Any]) -> None:
    assert value_at(lift(depth=depth), path) == want


def test_where_there_is_neither_law_nor_pin_no_affinity_is_written() -> None:
    assert not [one for one in lift_patch(lift(law=(), node="")) if "affinity" in one["path"]]


def test_a_lift_first_tests_that_it_is_this_pod_and_ours_the_only_gate_and_last_takes_it_away() -> None:
    first, second, *_, last = lift_patch(LIFT)
    assert first == {"op": "test", "path": "/metadata/uid", "value": "uid-1"}
    assert second == {"op": "test", "path": "/spec/schedulingGates", "value": [{"name": GATE}]}
    assert last == {"op": "remove", "path": "/spec/schedulingGates"}


WRITTEN = {
    "penstock.dev/decision": '{"node":"gpu-1"}',
    "penstock.dev/fence": "me/3",
    "controller.kubernetes.io/pod-deletion-cost": "-120",
}


def test_a_pod_without_annotations_gets_the_decision_the_fence_and_its_rank_at_once() -> None:
    assert value_at(lift(), "/metadata/annotations") == WRITTEN


def test_the_annotations_of_others_are_kept() -> None:
    added = {one["path"]: one["value"] for one in lift_patch(lift(annotated=True)) if "annotations" in one["path"]}
    assert added == {f"/metadata/annotations/{key.replace('/', '~1')}": value for key, value in WRITTEN.items()}


def test_a_lift_by_break_glass_carries_neither_fence_nor_rank() -> None:
    bare = lift(fence="", deletion_cost=None)
    assert value_at(bare, "/metadata/annotations") == {"penstock.dev/decision": '{"node":"gpu-1"}'}


RANKS = {
    "beside the annotations of others": (
        True,
        {"path": "/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost", "value": "-10000"},
    ),
    "where there are none": (
        False,
        {"path": "/metadata/annotations", "value": {"controller.kubernetes.io/pod-deletion-cost": "-10000"}},
    ),
}


@pytest.mark.parametrize(("annotated", "want"), RANKS.values(), ids=RANKS.keys())
def test_a_new_rank_is_written_on_this_very_pod(annotated: bool, want: dict[str, Any]) -> None:
    test, add = deletion_cost_patch(replace(POD, annotated=annotated), -10_000)
    assert test == {"op": "test", "path": "/metadata/uid", "value": "uid-1"}
    assert add == {"op": "add", **want}


# ------------------------------------------------------------------------------------------------ Deployment, Service

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "search", "penstock.dev/pool": "another"}, "annotations": {"note": "kept"}},
    "spec": {
        "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}, {"name": GATE}],
        "containers": [{"name": "server", "image": "server:1"}],
    },
}
WORKLOAD = Workload(KEY, "uid-pool", TEMPLATE, count=3, left=0, left_since="", max_unavailable=2, floor=3)


def test_the_template_is_the_user_s_with_both_labels_and_the_gate_once() -> None:
    template = deployment(WORKLOAD)["spec"]["template"]
    labels = {"team": "search", "penstock.dev/pool": "llama", "penstock.dev/serving": "true"}
    assert template["metadata"] == {"labels": labels, "annotations": {"note": "kept"}}
    assert template["spec"]["schedulingGates"] == [{"name": "kueue.x-k8s.io/admission"}, {"name": GATE}]
    assert template["spec"]["containers"] == TEMPLATE["spec"]["containers"]


def test_nothing_of_the_law_is_in_the_template() -> None:
    assert "affinity" not in deployment(WORKLOAD)["spec"]["template"]["spec"]


def test_the_user_s_own_template_is_not_changed() -> None:
    bare: dict[str, Any] = {"spec": {"containers": []}}
    deployment(replace(WORKLOAD, template=bare))
    assert bare == {"spec": {"containers": []}}


def test_a_rollout_frees_before_it_asks_and_waiting_is_never_a_failure() -> None:
    spec = deployment(WORKLOAD)["spec"]
    assert spec["replicas"] == 3
    assert spec["selector"] == {"matchLabels": {"penstock.dev/pool": "llama"}}
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 2}}
    assert spec["progressDeadlineSeconds"] == 2**31 - 1


def notes(workload: Workload) -> dict[str, str]:
    found: dict[str, str] = deployment(workload)["metadata"]["annotations"]
    return found


def test_those_that_left_the_count_are_written_on_the_deployment() -> None:
    assert "penstock.dev/left-count" not in notes(WORKLOAD)
    left = replace(WORKLOAD, left=2, left_since="2026-11-21T01:00:00Z")
    assert notes(left)["penstock.dev/left-count"] == '{"replicas": 2, "since": "2026-11-21T01:00:00Z"}'


def test_the_floor_of_a_rollout_stands_until_the_template_changes() -> None:
    first = notes(WORKLOAD)
    later = replace(WORKLOAD, count=1, floor=1, last_intent=first["penstock.dev/intent"], last_floor=3)
    assert notes(later) == first
    changed = replace(later, template={"spec": {"containers": [{"name": "server", "image": "server:2"}]}})
    assert notes(changed)["penstock.dev/rollout-floor"] == "1"


OWNED = {"serving": {"spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000}]}]}}}


def test_both_objects_go_with_the_pool_and_hold_its_deletion_up_for_nobody() -> None:
    for made in (deployment(WORKLOAD), service(KEY, "uid-pool", OWNED["serving"])):
        assert made
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("InferencePool", "llama", "uid-pool")
        assert owner["controller"] is True
        assert owner["blockOwnerDeletion"] is False


def port(number: int, name: str = "", **more: Any) -> dict[str, Any]:
    return {"containerPort": number, **({"name": name} if name else {}), **more}


PORTS: dict[str, tuple[list[list[dict[str, Any]]], list[tuple[str, int, str]]]] = {
    "no port at all": ([[]], []),
    "a port without a name is nobody's to reach": ([[port(8000)]], []),
    "a named port keeps its number": ([[port(8000, "http")]], [("http", 8000, "TCP")]),
    "named ports of every container, by name": (
        [[port(9000, "metrics"), port(1)], [port(53, "dns", protocol="UDP")]],
        [("dns", 53, "UDP"), ("metrics", 9000, "TCP")],
    ),
}


@pytest.mark.parametrize(("containers", "want"), PORTS.values(), ids=PORTS.keys())
def test_a_service_has_the_ports_that_containers_name(
    containers: list[list[dict[str, Any]]], want: list[tuple[str, int, str]]
) -> None:
    made = service(KEY, "uid-pool", {"spec": {"containers": [{"ports": ports} for ports in containers]}})
    ports = made["spec"]["ports"] if made else []
    assert [(one["name"], one["port"], one["protocol"]) for one in ports] == want
    assert [one["targetPort"] for one in ports] == [name for name, _, _ in want]


def test_a_service_takes_only_pods_that_serve() -> None:
    made = service(KEY, "uid-pool", OWNED["serving"])
    assert made
    assert made["spec"]["selector"] == {"penstock.dev/pool": "llama", "penstock.dev/serving": "true"}


@pytest.mark.parametrize(("fence", "removed"), (("", 1), ("penstock-0/3", 0)))
def test_a_fence_that_the_maker_of_a_pod_wrote_goes_where_no_leader_lifts(fence: str, removed: int) -> None:
    pod = replace(LIFT.pod, annotated=True, fence="somebody/7")
    path = "/metadata/annotations/penstock.dev~1fence"
    operations = lift_patch(replace(LIFT, pod=pod, fence=fence))
    assert operations.count({"op": "remove", "path": path}) == removed
    assert sum(one["path"] == path for one in operations) == 1
