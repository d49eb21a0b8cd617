"""What we write into the cluster, as plain dicts: Deployment, Service, and the one patch that places a pod.

Deterministic: the same intent always gives the same object, so an unchanged intent is recognised by its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.api.names import (
    API_VERSION,
    DECISION_ANNOTATION,
    DELETION_COST_ANNOTATION,
    FENCE_ANNOTATION,
    FLOOR_ANNOTATION,
    GATE,
    INTENT_ANNOTATION,
    ISOLATED_ANNOTATION,
    LAW_LABEL,
    LAW_REQUIRED,
    LEFT_ANNOTATION,
    NODE_NAME_FIELD,
    POOL_LABEL,
    SERVING_LABEL,
    TEMPLATE_HASH_LABEL,
)
from penstock.core.model import Isolated, Mark, Node, Pod, PoolKey
from penstock.core.placement.scheduling import NodeTerm, Operator, Requirement
from penstock.core.residency import isolation
from penstock.core.telemetry import PlaceMark
from penstock.core.telling.figures import rfc3339

Manifest = dict[str, Any]
PatchOperations = list[dict[str, Any]]

NO_PROGRESS_DEADLINE = 2**31 - 1
"""The value that the Deployment controller reads as "no deadline": waiting for watts is never a failed rollout."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What a pool's Deployment shall be.

    `count` is the Deployment's own replica count, `left` how many of the pool's replicas are out of it because they
    waited too long or were shed (`left_shed` of them), `left_since` since when the longest of them waits (RFC 3339).
    """

    key: PoolKey
    pool_uid: str
    template: Mapping[str, Any]
    count: int
    left: int
    left_since: str
    max_unavailable: int
    floor: int = 0
    """How many replicas have a place, should this change the template."""
    last_intent: str = ""
    last_floor: int = 0
    left_shed: int = 0


def deployment(workload: Workload) -> Manifest:
    """The pool's Deployment: the user's template with both labels and the gate, and nothing of the law."""
    body: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(workload.key, workload.pool_uid),
        "spec": {
            "replicas": workload.count,
            "selector": {"matchLabels": {POOL_LABEL: workload.key.name}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0, "maxUnavailable": workload.max_unavailable},
            },
            "progressDeadlineSeconds": NO_PROGRESS_DEADLINE,
            "template": _gated_template(workload.key, workload.template),
        },
    }
    intent = digest({**body["spec"], "replicas": None})
    floor = workload.last_floor if intent == workload.last_intent else workload.floor
    annotations = {INTENT_ANNOTATION: intent, FLOOR_ANNOTATION: str(floor)}
    if workload.left:
        shed = {"shed": workload.left_shed} if workload.left_shed else {}
        annotations[LEFT_ANNOTATION] = json.dumps({"replicas": workload.left, "since": workload.left_since, **shed})
    body["metadata"]["annotations"] = annotations
    return body


def _gated_template(key: PoolKey, template: Mapping[str, Any]) -> Manifest:
    """A pod template as the pool's pods are born: labelled, serving, gated."""
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), POOL_LABEL: key.name, SERVING_LABEL: "true"}
    spec = dict(template.get("spec") or {})
    gates = [gate for gate in spec.get("schedulingGates") or () if gate.get("name") != GATE]
    spec["schedulingGates"] = [*gates, {"name": GATE}]
    return {**template, "metadata": metadata, "spec": spec}


def service(key: PoolKey, pool_uid: str, template: Mapping[str, Any]) -> Manifest | None:
    """A Service over the pool's serving pods, one port for each port that a container names; None if none is named."""
    containers = (template.get("spec") or {}).get("containers") or ()
    named = {
        port["name"]: port for container in containers for port in container.get("ports") or () if port.get("name")
    }
    if not named:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(key, pool_uid),
        "spec": {
            "selector": {POOL_LABEL: key.name, SERVING_LABEL: "true"},
            "ports": [
                {
                    "name": name,
                    "port": port["containerPort"],
                    "targetPort": name,
                    "protocol": port.get("protocol", "TCP"),
                }
                for name, port in sorted(named.items())
            ],
        },
    }


def digest(intent: object) -> str:
    """A short, stable name for a piece of intent."""
    canonical = json.dumps(intent, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _metadata(key: PoolKey, pool_uid: str) -> Manifest:
    return {
        "name": key.name,
        "namespace": key.namespace,
        "labels": {POOL_LABEL: key.name},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "InferencePool",
                "name": key.name,
                "uid": pool_uid,
                "controller": True,
                # A pool's deletion must not wait for us: the garbage collector does it alone.
                "blockOwnerDeletion": False,
            }
        ],
    }


# ------------------------------------------------------------------------------------------------ the patch that places


@dataclass(frozen=True, slots=True)
class Lift:
    """One pod's way through the gate.

    `law` are the residency requirements that every term gets; `node` the pin, empty where the pool only takes
    advice; `record` the decision as one JSON text; `fence` names the leader.
    """

    pod: Pod
    law: tuple[tuple[Requirement, ...], ...]
    node: str
    record: str
    fence: str
    deletion_cost: int | None = None


def lift_patch(lift: Lift) -> PatchOperations:
    """The one JSON Patch that places a pod: law and pin in every term, decision, fence, and our gate removed.

    It tests uid and gates first, so that it is carried out once or not at all, however often it is sent. Gates of
    others stay.
    `law` holds alternatives: with a pin exactly one, the one that the node satisfies.
    """
    path = "/spec/schedulingGates"
    gates = lift.pod.gates if lift.pod.foreign_gates else (GATE,)
    operations: PatchOperations = [
        {"op": "test", "path": "/metadata/uid", "value": lift.pod.uid},
        {"op": "test", "path": path, "value": [{"name": name} for name in gates]},
    ]
    terms = tightened_terms(lift.pod.scheduling.node_terms, lift.law, lift.node)
    if terms:
        operations.append(_affinity_operation(lift.pod, terms))
    operations += _annotation_operations(_lift_annotations(lift), annotated=lift.pod.annotated)
    if lift.pod.fence and not lift.fence:
        # Whoever made the pod wrote one: with it this lift would pass for a leader's.
        operations.append({"op": "remove", "path": annotation_path(FENCE_ANNOTATION)})
    operations.append({"op": "remove", "path": f"{path}/{gates.index(GATE)}" if len(gates) > 1 else path})
    return operations


def tightened_terms(
    terms: Sequence[NodeTerm], law: tuple[tuple[Requirement, ...], ...], node: str
) -> tuple[NodeTerm, ...]:
    """Every required term with the law and the pin added; a pod without terms gets one for each alternative.

    An empty term cannot be tightened and matches nothing, so it stays as it is (tried on 1.36.4).
    """
    alternatives = law or ((),)
    pin = (Requirement(NODE_NAME_FIELD, Operator.IN, (node,)),) if node else ()
    if not terms:
        return tuple(NodeTerm(alternative, pin) for alternative in alternatives if alternative or pin)
    # Once a pod has terms their number is frozen, so only one alternative can be added to them.
    first = alternatives[0]
    return tuple(
        NodeTerm(term.expressions + first, term.fields + pin) if term.expressions or term.fields else term
        for term in terms
    )


def _lift_annotations(lift: Lift) -> dict[str, str]:
    annotations = {DECISION_ANNOTATION: lift.record}
    if lift.fence:
        annotations[FENCE_ANNOTATION] = lift.fence
    if lift.deletion_cost is not None:
        annotations[DELETION_COST_ANNOTATION] = str(lift.deletion_cost)
    return annotations


def _annotation_operations(annotations: Mapping[str, str], *, annotated: bool) -> PatchOperations:
    if not annotated:
        return [{"op": "add", "path": "/metadata/annotations", "value": dict(annotations)}]
    return [{"op": "add", "path": annotation_path(key), "value": value} for key, value in annotations.items()]


def annotation_path(key: str) -> str:
    """Where a JSON Patch finds an annotation."""
    return "/metadata/annotations/" + key.replace("~", "~0").replace("/", "~1")


def deletion_cost_patch(pod: Pod, cost: int) -> PatchOperations:
    """Change which replica a scale-down takes first."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        *_annotation_operations({DELETION_COST_ANNOTATION: str(cost)}, annotated=pod.annotated),
    ]


def isolation_patch(pod: Pod, pool_uid: str, one: Isolated) -> Manifest:
    """A strategic merge patch that takes a replica out of traffic and out of its ReplicaSet's hands."""
    owner = {"apiVersion": API_VERSION, "kind": "InferencePool", "name": pod.pool, "uid": pool_uid}
    return {
        "metadata": {
            "uid": pod.uid,
            "labels": dict.fromkeys((SERVING_LABEL, POOL_LABEL, TEMPLATE_HASH_LABEL)),
            "annotations": {ISOLATED_ANNOTATION: isolation.text(one)},
            "ownerReferences": [owner],
        }
    }


def node_labels_patch(node: Node, labels: Mapping[str, str | None]) -> Manifest:
    """A merge patch that sets labels of a node, or takes them away, and touches no other."""
    return {"metadata": {"uid": node.uid, "labels": dict(labels)}}


def node_condition_patch(node: Node, kind: str, mark: Mark | None, now: str) -> Manifest:
    """A strategic merge patch of a node's status: one condition, whose transition time moves only when it flips."""
    if mark is None:
        return {"metadata": {"uid": node.uid}, "status": {"conditions": [{"type": kind, "$patch": "delete"}]}}
    condition = {
        "type": kind,
        "status": "True" if mark.holds else "False",
        "reason": mark.reason,
        "message": mark.message,
        "lastHeartbeatTime": now,
    }
    if node.power_degraded is None or node.power_degraded.holds != mark.holds:
        condition["lastTransitionTime"] = now
    return {"metadata": {"uid": node.uid}, "status": {"conditions": [condition]}}


def _affinity_operation(pod: Pod, terms: Sequence[NodeTerm]) -> dict[str, Any]:
    required: Any = {"nodeSelectorTerms": [term_manifest(term) for term in terms]}
    wrapped: Any = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    match pod.scheduling.affinity_depth:
        case 0:
            return {"op": "add", "path": "/spec/affinity", "value": {"nodeAffinity": wrapped}}
        case 1:
            return {"op": "add", "path": "/spec/affinity/nodeAffinity", "value": wrapped}
        case _:
            path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution"
            return {"op": "add", "path": path, "value": required}


def term_manifest(term: NodeTerm) -> Manifest:
    """A nodeSelectorTerm as the API writes it."""
    manifest: Manifest = {}
    if term.expressions:
        manifest["matchExpressions"] = [_requirement_manifest(one) for one in term.expressions]
    if term.fields:
        manifest["matchFields"] = [_requirement_manifest(one) for one in term.fields]
    return manifest


def _requirement_manifest(requirement: Requirement) -> Manifest:
    manifest: Manifest = {"key": requirement.key, "operator": requirement.operator.value}
    if requirement.values:
        manifest["values"] = list(requirement.values)
    return manifest


def place_patch(marks: Sequence[PlaceMark], reasons: Mapping[str, str]) -> Manifest:
    """A merge patch of a GPUNode's status: what is doubted of its place, or nothing any more."""
    conditions = [
        {
            "type": one.kind,
            "status": "True",
            "reason": reasons[one.kind],
            "message": one.message,
            "lastTransitionTime": rfc3339(one.since_time),
        }
        for one in marks
    ]
    return {"status": {"place": {"conditions": conditions} if conditions else None}}


def namespace_law_patch(uid: str, stands: Iterable[str], wanted: Mapping[str, str]) -> Manifest:
    """A merge patch after which a namespace says this law and no other.

    `stands` are the annotations of the law that are there, whoever wrote them: what a server-side apply leaves out
    stays where somebody else applied it too.
    """
    annotations = {**dict.fromkeys(stands), **wanted}
    return {"metadata": {"uid": uid, "labels": {LAW_LABEL: LAW_REQUIRED}, "annotations": annotations}}
