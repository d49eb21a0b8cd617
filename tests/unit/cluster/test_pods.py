"""What a pod takes of its node, where its place is, and which of its rules nobody can judge."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.api.names import DECISION_ANNOTATION, DELETION_COST_ANNOTATION, GATE, POOL_LABEL
from penstock.cluster.parse.pods import decode_pod, pod, template
from penstock.core.model import Owner, Phase, Pod
from penstock.core.placement.scheduling import (
    AntiAffinity,
    HardSpread,
    HostPort,
    LabelRule,
    Operator,
    Requirement,
    Toleration,
)
from penstock.errors import InvalidInput

Spec = dict[str, Any]


def container(
    requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    return {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def parsed(spec: Spec, status: Spec | None = None, **metadata: object) -> Pod:
    raw = {
        "metadata": {
            "name": "p",
            "namespace": "search",
            "uid": "u1",
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-20T00:00:00Z",
            "labels": {POOL_LABEL: "llama", "app": "llama"},
            **metadata,
        },
        "spec": {"containers": [container()], **spec},
        "status": status or {},
    }
    return pod(decode_pod(msgspec.json.encode(raw)))


# ------------------------------------------------------------------------------------------------------------ requests

SIDECAR: Spec = {"restartPolicy": "Always"}

REQUESTS: tuple[tuple[str, Spec, dict[str, int]], ...] = (
    (
        "containers add up",
        {"containers": [container({"cpu": "500m"}), container({"cpu": "1"})]},
        {"cpu": 1500},
    ),
    (
        "a limit without a request is the request",
        {"containers": [container({"cpu": "1"}, {"cpu": "2", "nvidia.com/gpu": "4"})]},
        {"cpu": 1000, "nvidia.com/gpu": 4},
    ),
    (
        "the largest init container counts where it is larger than all containers",
        {"containers": [container({"cpu": "1"})], "initContainers": [container({"cpu": "3"}), container({"cpu": "2"})]},
        {"cpu": 3000},
    ),
    (
        "a sidecar runs beside the containers",
        {"containers": [container({"cpu": "1"})], "initContainers": [container({"cpu": "2"}, **SIDECAR)]},
        {"cpu": 3000},
    ),
    (
        "an init container starts beside the sidecars before it, not after it",
        {
            "containers": [container({"cpu": "1"})],
            "initContainers": [
                container({"cpu": "2"}, **SIDECAR),
                container({"cpu": "4"}),
                container({"cpu": "3"}, **SIDECAR),
            ],
        },
        {"cpu": 6000},
    ),
    (
        "overhead is added",
        {"containers": [container({"memory": "1Gi"})], "overhead": {"memory": "128Mi", "cpu": "250m"}},
        {"memory": 1152 * 2**20, "cpu": 250},
    ),
    (
        "pod-level requests replace those of the containers",
        {"containers": [container({"cpu": "1", "nvidia.com/gpu": "1"})], "resources": {"requests": {"cpu": "4"}}},
        {"cpu": 4000, "nvidia.com/gpu": 1},
    ),
    ("fractions of bytes and millicores are rounded up", {"containers": [container({"cpu": "0.1m"})]}, {"cpu": 1}),
    ("an empty pod takes one pod slot", {"containers": [container()]}, {}),
)


@pytest.mark.parametrize(("spec", "expected"), [case[1:] for case in REQUESTS], ids=[case[0] for case in REQUESTS])
def test_requests_are_counted_as_kube_scheduler_counts_them(spec: Spec, expected: dict[str, int]) -> None:
    assert dict(parsed(spec).requests) == {**expected, "pods": 1}


# ------------------------------------------------------------------------------------------------------------- devices


def shown(**variable: object) -> Spec:
    return container(env=[{"name": "PORT", "value": "80"}, {"name": "NVIDIA_VISIBLE_DEVICES", **variable}])


DEVICES: tuple[tuple[str, Spec, bool], ...] = (
    ("a request says itself what it is for", {"containers": [container({}, {"nvidia.com/gpu": "1"})]}, False),
    ("a claim", {"resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}]}, True),
    ("every GPU by a variable", {"containers": [container(), shown(value="all")]}, True),
    ("in an init container", {"initContainers": [shown(value="0,1")]}, True),
    ("in a debug container", {"ephemeralContainers": [shown(value="all")]}, True),
    ("a variable that a ConfigMap fills", {"containers": [shown(valueFrom={"configMapKeyRef": {"name": "c"}})]}, True),
    ("a variable that says void", {"containers": [shown(value="void")]}, False),
    ("a variable that says none", {"containers": [shown(value="none")]}, False),
    ("a variable that says nothing", {"containers": [shown()]}, False),
    (
        "every GPU by a mount, however it is spelt",
        {"containers": [container(volumeMounts=[{"mountPath": "var/run//nvidia-container-devices/all"}])]},
        True,
    ),
    ("another mount", {"containers": [container(volumeMounts=[{"mountPath": "/models"}])]}, False),
)


@pytest.mark.parametrize(("spec", "reaches"), [case[1:] for case in DEVICES], ids=[case[0] for case in DEVICES])
def test_what_reaches_for_devices_beside_its_requests(spec: Spec, *, reaches: bool) -> None:
    assert parsed(spec).reaches_devices is reaches


ANNOTATIONS = {
    "NVIDIA's, as its NRI plugin reads it": ("nvidia.cdi.k8s.io/container.server", True),
    "the container runtime's own": ("cdi.k8s.io/gpu", True),
    "an injector of devices": ("devices.nri.io/container.server", True),
    "an injector of CDI devices": ("cdi-devices.noderesource.dev/pod", True),
    "CRI-O's older one": ("io.kubernetes.cri-o.Devices", True),
    "one that speaks of devices": ("example.com/devices", False),
    "one of another kind": ("prometheus.io/scrape", False),
}


@pytest.mark.parametrize(("name", "reaches"), ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_which_annotation_asks_the_runtime_for_devices(name: str, *, reaches: bool) -> None:
    seen = parsed({}, annotations={name: "management.nvidia.com/gpu=all", DECISION_ANNOTATION: "d"})
    assert (seen.reaches_devices, seen.decision) == (reaches, "d")
    assert not parsed({}, annotations={"note": name}).reaches_devices


# ---------------------------------------------------------------------------------------------------------------- pins


def field(*names: str, operator: str = "In", key: str = "metadata.name") -> dict[str, Any]:
    return {"matchFields": [{"key": key, "operator": operator, "values": list(names)}]}


ELSEWHERE = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}

PINS: tuple[tuple[str, list[Spec], str], ...] = (
    ("one term with one name", [field("n1")], "n1"),
    ("every term names the same node", [field("n1") | ELSEWHERE, field("n1")], "n1"),
    ("an empty term matches nothing and does not count", [{}, field("n1")], "n1"),
    ("only empty terms", [{}], ""),
    ("no terms", [], ""),
    ("two terms name two nodes", [field("n1"), field("n2")], ""),
    ("one term leaves the node open", [field("n1"), ELSEWHERE], ""),
    ("two names in one requirement", [field("n1", "n2")], ""),
    ("a node that it must not be", [field("n1", operator="NotIn")], ""),
)


@pytest.mark.parametrize(("terms", "expected"), [case[1:] for case in PINS], ids=[case[0] for case in PINS])
def test_a_pin_is_one_name_in_every_term(terms: list[Spec], expected: str) -> None:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert parsed({"affinity": {"nodeAffinity": required}}).pin == expected


# ------------------------------------------------------------------------------------------------------- not judgeable

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
ITSELF = {"labelSelector": {"matchLabels": {"app": "llama"}}, "topologyKey": "zone"}
OTHERS = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "zone"}


def repels(*terms: Spec) -> Spec:
    return {"affinity": {"podAntiAffinity": {REQUIRED: list(terms)}}}


def spread(**more: object) -> Spec:
    return {
        "topologySpreadConstraints": [{**ITSELF, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", **more}],
    }


UNJUDGED: tuple[tuple[str, Spec, str], ...] = (
    ("nothing special", {}, ""),
    ("another scheduler", {"schedulerName": "kai"}, "spec.schedulerName"),
    ("the default scheduler by name", {"schedulerName": "default-scheduler"}, ""),
    (
        "affinity to other pods",
        {"affinity": {"podAffinity": {REQUIRED: [OTHERS]}}},
        f"spec.affinity.podAffinity.{REQUIRED}",
    ),
    ("anti-affinity to itself", repels(ITSELF), ""),
    (
        "anti-affinity to others",
        repels(ITSELF, OTHERS),
        f"spec.affinity.podAntiAffinity.{REQUIRED}[1]",
    ),
    (
        "anti-affinity across namespaces",
        repels({**ITSELF, "namespaceSelector": {}}),
        f"spec.affinity.podAntiAffinity.{REQUIRED}[0]",
    ),
    (
        "anti-affinity in another namespace",
        repels({**ITSELF, "namespaces": ["other"]}),
        f"spec.affinity.podAntiAffinity.{REQUIRED}[0]",
    ),
    ("anti-affinity in its own namespace by name", repels({**ITSELF, "namespaces": ["search"]}), ""),
    ("hard spread over itself", spread(), ""),
    ("hard spread over others", spread(**OTHERS), "spec.topologySpreadConstraints[0]"),
    ("soft spread over others", spread(**OTHERS, whenUnsatisfiable="ScheduleAnyway"), ""),
    ("hard spread that honours taints", spread(nodeTaintsPolicy="Honor"), "spec.topologySpreadConstraints[0]"),
    (
        "a claimed volume",
        {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "w", "persistentVolumeClaim": {"claimName": "w"}}]},
        "spec.volumes[1].persistentVolumeClaim",
    ),
    ("a volume of its own", {"volumes": [{"name": "w", "ephemeral": {}}]}, "spec.volumes[0].ephemeral"),
    ("volumes that are anywhere", {"volumes": [{"name": "w", "configMap": {"name": "x"}}]}, ""),
    ("a device claim", {"resourceClaims": [{"name": "gpu"}]}, "spec.resourceClaims"),
)


@pytest.mark.parametrize(("spec", "expected"), [case[1:] for case in UNJUDGED], ids=[case[0] for case in UNJUDGED])
def test_what_the_planner_cannot_judge_is_named(spec: Spec, expected: str) -> None:
    assert parsed(spec).scheduling.unjudged == expected


# ----------------------------------------------------------------------------------------------------- the other rules


def test_rules_of_a_waiting_pod_become_values() -> None:
    own = LabelRule((Requirement("app", Operator.IN, ("llama",)),))
    keyed = LabelRule((*own.requirements, Requirement("pod-template-hash", Operator.IN, ("h1",))))
    seen = parsed(
        repels(ITSELF)
        | spread(matchLabelKeys=["pod-template-hash", "absent"], minDomains=3, maxSkew=2)
        | {
            "nodeSelector": {"tier": "a"},
            "tolerations": [{"operator": "Exists"}, {"key": "gpu", "value": "x", "effect": "NoSchedule"}],
        },
        labels={POOL_LABEL: "llama", "app": "llama", "pod-template-hash": "h1"},
    )
    assert dict(seen.scheduling.node_selector) == {"tier": "a"}
    assert seen.scheduling.tolerations == (
        Toleration(operator="Exists"),
        Toleration(key="gpu", value="x", effect="NoSchedule"),
    )
    assert seen.scheduling.anti_affinity == (AntiAffinity("zone", own),)
    assert seen.scheduling.hard_spread == (HardSpread("zone", 2, keyed, 3),)
    assert seen.template_hash == "h1"


@pytest.mark.parametrize(
    ("spec", "expected"),
    (
        ({"containers": [container(ports=[{"containerPort": 80, "hostPort": 8080}])]}, (HostPort(8080),)),
        ({"containers": [container(ports=[{"containerPort": 80}])]}, ()),
        ({"containers": [container(ports=[{"containerPort": 80}])], "hostNetwork": True}, (HostPort(80),)),
        (
            {"containers": [container(ports=[{"hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}])]},
            (HostPort(53, "UDP", "10.0.0.1"),),
        ),
    ),
)
def test_host_ports_are_taken_of_the_node(spec: Spec, expected: tuple[HostPort, ...]) -> None:
    assert parsed(spec).host_ports == expected


def test_a_bound_pod_keeps_only_the_rules_by_which_it_repels_others() -> None:
    bound = parsed(repels(ITSELF) | {"nodeName": "n1", "nodeSelector": {"tier": "a"}})
    assert bound.scheduling.anti_affinity
    assert not bound.scheduling.node_selector


def test_what_controllers_and_people_wrote_on_a_pod_is_read() -> None:
    seen = parsed(
        {"schedulingGates": [{"name": GATE}, {"name": "quota"}], "priority": 5},
        {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
        },
        annotations={DECISION_ANNOTATION: "{}", DELETION_COST_ANNOTATION: "-1000", "other": "x"},
        ownerReferences=[
            {"kind": "X", "name": "x", "uid": "0"},
            {"kind": "ReplicaSet", "name": "r", "uid": "1", "controller": True},
        ],
        deletionTimestamp="2026-11-20T00:00:10Z",
    )
    assert (seen.pool, seen.gated, seen.foreign_gates) == ("llama", True, ("quota",))
    assert (seen.priority, seen.deletion_cost, seen.annotated, seen.decision) == (5, -1000, True, "{}")
    assert (seen.owner, seen.terminating, seen.unschedulable) == (Owner("ReplicaSet", "r", "1"), True, True)
    assert seen.created_time == 1795132800.0


@pytest.mark.parametrize(
    ("status", "failure"),
    (
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, "UnexpectedAdmissionError"),
        ({"phase": "Running"}, ""),
    ),
)
def test_why_a_pod_failed_is_kept_only_of_failed_ones(status: Spec, failure: str) -> None:
    seen = parsed({}, status)
    assert (seen.phase, seen.failure) == (Phase(status["phase"]), failure)


def test_a_gate_that_is_scheduled_last_is_not_unschedulable() -> None:
    gated = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}
    assert not parsed({}, gated).unschedulable


# ------------------------------------------------------------------------------------------------------------ templates


def test_a_template_asks_for_what_its_pods_will_ask_for() -> None:
    raw = {
        "metadata": {"labels": {"app": "llama"}},
        "spec": {"containers": [container(limits={"nvidia.com/gpu": "4"})], "priorityClassName": "high", **spread()},
    }
    asked = template(raw, "search", "llama", {"": 1, "high": 1000})
    assert dict(asked.requests) == {"nvidia.com/gpu": 4, "pods": 1}
    assert dict(asked.labels) == {"app": "llama", POOL_LABEL: "llama"}
    assert (asked.priority, asked.scheduling.unjudged) == (1000, "")


@pytest.mark.parametrize(
    ("spec", "expected"),
    (({"nodeName": "n1"}, "spec.nodeName"), ({"runtimeClassName": "kata"}, "spec.runtimeClassName")),
)
def test_a_template_has_two_more_things_that_nobody_can_judge(spec: Spec, expected: str) -> None:
    asked = template({"spec": {"containers": [container()], **spec}}, "search", "llama", {})
    assert asked.scheduling.unjudged == expected


@pytest.mark.parametrize(
    "spec",
    ({"containers": "none"}, {"containers": [container({"cpu": "four"})]}),
)
def test_a_template_that_is_none_names_the_field(spec: Spec) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.template"):
        template({"spec": spec}, "search", "llama", {})


HASHES: dict[str, tuple[dict[str, str], str]] = {
    "a Deployment's": ({"pod-template-hash": "h1"}, "h1"),
    "a StatefulSet's": ({"controller-revision-hash": "web-7d9f"}, "web-7d9f"),
    "a Deployment's before any other": ({"pod-template-hash": "h1", "controller-revision-hash": "x"}, "h1"),
    "nobody's": ({}, ""),
}


@pytest.mark.parametrize(("labels", "want"), HASHES.values(), ids=HASHES.keys())
def test_which_template_a_pod_is_of(labels: dict[str, str], want: str) -> None:
    assert parsed({}, labels=labels).template_hash == want
