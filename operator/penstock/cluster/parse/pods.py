"""Pods and pod templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec

from penstock.api.names import POOL_LABEL, TEMPLATE_HASH_LABEL
from penstock.cluster import wire
from penstock.cluster.parse.devices import asks_by_annotation, reaches_devices
from penstock.cluster.parse.quantity import amounts
from penstock.cluster.parse.scheduling import (
    NO_RULES,
    anti_affinity,
    frozen_labels,
    host_ports,
    node_terms,
    pin,
    scheduling,
)
from penstock.core.model import Amounts, Owner, Phase, Pod
from penstock.core.placement.scheduling import Scheduling
from penstock.core.pool import Template
from penstock.core.residency import isolation
from penstock.errors import InvalidInput

REVISION_HASH_LABEL = "controller-revision-hash"
"""The same on the pods of a StatefulSet."""
_PHASES = {phase.value: phase for phase in Phase}
_POD_LEVEL = ("cpu", "memory", "hugepages-")

decode_pod = msgspec.json.Decoder(wire.Pod).decode
_decode_annotations = msgspec.json.Decoder(wire.Annotations | None).decode


def pod(seen: wire.Pod) -> Pod:
    """A pod of the cluster. Scheduling rules are kept for pods that wait; of bound ones only what repels others."""
    metadata, spec, status = seen.metadata, seen.spec, seen.status
    written = metadata.annotations
    annotations = _decode_annotations(written) if isinstance(written, msgspec.Raw) else None
    labels = frozen_labels(metadata.labels)
    conditions = {one.type: one for one in status.conditions or ()}
    return Pod(
        uid=metadata.uid,
        namespace=metadata.namespace,
        name=metadata.name,
        pool=labels.get(POOL_LABEL, ""),
        node=spec.nodeName,
        pin=pin(node_terms(spec)),
        gates=tuple(gate.name for gate in spec.schedulingGates or ()),
        phase=_PHASES.get(status.phase, Phase.UNKNOWN),
        created_time=unix_time(metadata.creationTimestamp) or 0.0,
        terminating=metadata.deletionTimestamp is not None,
        ready="Ready" in conditions and conditions["Ready"].status == "True",
        unschedulable=_is_unschedulable(conditions.get("PodScheduled")),
        requests=requests(spec),
        reaches_devices=reaches_devices(spec) or asks_by_annotation(written),
        priority=spec.priority or 0,
        owner=controller(metadata.ownerReferences),
        template_hash=labels.get(TEMPLATE_HASH_LABEL) or labels.get(REVISION_HASH_LABEL, ""),
        labels=labels,
        scheduling=_rules(spec, metadata.namespace, metadata.labels or {}),
        host_ports=host_ports(spec),
        decision=annotations.decision if annotations else "",
        fence=annotations.fence if annotations else "",
        deletion_cost=_deletion_cost(annotations),
        annotated=annotations is not None,
        grace_seconds=spec.terminationGracePeriodSeconds,
        isolated=isolation.read(annotations.isolated) if annotations else None,
        failure=status.reason if status.phase == Phase.FAILED else "",
        resource_version=metadata.resourceVersion,
    )


def template(raw: Mapping[str, Any], namespace: str, pool: str, priorities: Mapping[str, int]) -> Template:
    """What the pods of a pool's pod template will ask for.

    `priorities` maps a PriorityClass to its value, and "" to the cluster's default. Raises InvalidInput naming the
    field in the pool when the template is no pod template.
    """
    try:
        # By way of bytes, as a pod comes: some parts of it are kept undecoded.
        seen = msgspec.json.decode(msgspec.json.encode(raw), type=wire.PodTemplate, strict=False)
        labels = {**((seen.metadata and seen.metadata.labels) or {}), POOL_LABEL: pool}
        rules = scheduling(seen.spec, namespace, labels)
        asked = requests(seen.spec)
    except msgspec.ValidationError as error:
        raise InvalidInput("spec.template", str(error), "write a pod template that Kubernetes accepts") from error
    except InvalidInput as error:
        raise InvalidInput(f"spec.template: requests of {error.field}", error.value, error.remedy) from error
    unjudged = rules.unjudged or _unjudged_in_template(seen.spec)
    return Template(
        requests=asked,
        scheduling=replace(rules, unjudged=unjudged),
        labels=frozen_labels(labels),
        priority=priorities.get(seen.spec.priorityClassName, priorities.get("", 0)),
    )


def requests(spec: wire.PodSpec) -> Amounts:
    """What a pod takes of its node, as kube-scheduler counts it.

    The larger of (containers + sidecars) and each init container with the sidecars started before it; pod-level
    requests replace that for what they name; plus overhead; plus one pod slot.
    Source: k8s.io/component-helpers/resource, PodRequests.
    """
    running: dict[str, int] = {}
    for container in spec.containers:
        _add(running, _asked(container.resources))
    sidecars: dict[str, int] = {}
    starting: dict[str, int] = {}
    for container in spec.initContainers or ():
        asked = _asked(container.resources)
        if container.restartPolicy == "Always":
            _add(running, asked)
            _add(sidecars, asked)
            _raise_to(starting, sidecars)
        else:
            _raise_to(starting, _sum(asked, sidecars))
    _raise_to(running, starting)
    if spec.resources is not None:
        running |= {name: value for name, value in _asked(spec.resources).items() if name.startswith(_POD_LEVEL)}
    _add(running, amounts(spec.overhead))
    running["pods"] = 1
    return MappingProxyType({name: value for name, value in running.items() if value})


def controller(references: Iterable[wire.OwnerReference] | None) -> Owner | None:
    """The owner that controls an object."""
    for reference in references or ():
        if reference.controller:
            return Owner(reference.kind, reference.name, reference.uid)
    return None


def unix_time(time: datetime | None) -> float | None:
    return time.timestamp() if time else None


def moment(text: str) -> datetime | None:
    """A time as somebody wrote it, in UTC where it names no zone; None where it cannot be read as one."""
    try:
        found = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def whole(text: str) -> int | None:
    """A whole number as somebody wrote it into an annotation; None where it is none, or too long to be one."""
    try:
        return int(text)
    except ValueError:
        return None


def _rules(spec: wire.PodSpec, namespace: str, labels: dict[str, str]) -> Scheduling:
    if not spec.nodeName:
        return scheduling(spec, namespace, labels)
    repels = anti_affinity(spec, labels)
    return Scheduling(anti_affinity=repels) if repels else NO_RULES


def _unjudged_in_template(spec: wire.PodSpec) -> str:
    if spec.nodeName:
        return "spec.nodeName"
    # Its overhead and node selector are added when a pod is created, so a template does not show them.
    return "spec.runtimeClassName" if spec.runtimeClassName else ""


def _is_unschedulable(scheduled: wire.Condition | None) -> bool:
    return scheduled is not None and scheduled.status == "False" and scheduled.reason == "Unschedulable"


def _deletion_cost(annotations: wire.Annotations | None) -> int | None:
    return whole(annotations.deletion_cost) if annotations else None


def _asked(resources: wire.Resources | None) -> dict[str, int]:
    if resources is None:
        return {}
    # Where only a limit is written, the API server makes it the request.
    return amounts({**(resources.limits or {}), **(resources.requests or {})})


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _raise_to(total: dict[str, int], floor: Mapping[str, int]) -> None:
    for name, value in floor.items():
        total[name] = max(total.get(name, 0), value)


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    total = dict(one)
    _add(total, other)
    return total
