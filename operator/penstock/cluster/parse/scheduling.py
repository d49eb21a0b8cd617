"""A pod's scheduling rules: what the planner judges, and the first thing that it cannot.

The planner must be at least as strict as kube-scheduler, or a pin dies; so every hard rule either becomes a value
of `core.placement.scheduling` or is named in `Scheduling.unjudged`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from msgspec import UNSET
from msgspec.structs import fields

from penstock.api.names import NODE_NAME_FIELD
from penstock.cluster import wire_scheduling as wire
from penstock.cluster.wire import PodSpec
from penstock.core.placement.scheduling import (
    NO_LABELS,
    AntiAffinity,
    HardSpread,
    HostPort,
    LabelRule,
    Labels,
    NodeTerm,
    Operator,
    Requirement,
    Scheduling,
    Toleration,
)

DEFAULT_SCHEDULER = "default-scheduler"
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  Kubernetes' own spelling of "every address"
_EVERYWHERE = wire.LabelSelector()
_VOLUME_SOURCES = tuple(field.name for field in fields(wire.Volume) if field.name != "name")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

NO_RULES = Scheduling()


def scheduling(spec: PodSpec, namespace: str, labels: Labels) -> Scheduling:
    """The rules of a pod (or of a template's pods) in `namespace` with `labels`."""
    return Scheduling(
        node_selector=frozen_labels(spec.nodeSelector),
        node_terms=node_terms(spec),
        tolerations=tuple(
            Toleration(one.key, one.operator or "Equal", one.value, one.effect) for one in spec.tolerations or ()
        ),
        host_ports=host_ports(spec),
        anti_affinity=anti_affinity(spec, labels),
        hard_spread=tuple(_hard_spread(one, labels) for one in _hard_constraints(spec)),
        affinity_depth=_affinity_depth(spec.affinity),
        unjudged=next(_unjudged(spec, namespace, labels), ""),
    )


def frozen_labels(labels: dict[str, str] | None) -> Labels:
    return MappingProxyType(labels) if labels else NO_LABELS


def node_terms(spec: PodSpec) -> tuple[NodeTerm, ...]:
    """The required node affinity terms, ORed; an empty term stays, it matches nothing."""
    required = _required_node_affinity(spec.affinity)
    if required is None:
        return ()
    return tuple(
        NodeTerm(_requirements(term.matchExpressions), _requirements(term.matchFields))
        for term in required.nodeSelectorTerms or ()
    )


def pin(terms: Iterable[NodeTerm]) -> str:
    """The one node that every term that can match at all names by `metadata.name`; empty without one."""
    names: set[str] = set()
    for term in terms:
        if not term.expressions and not term.fields:
            continue
        named = [one.values[0] for one in term.fields if _names_one_node(one)]
        if not named:
            return ""
        names.update(named)
    return names.pop() if len(names) == 1 else ""


def host_ports(spec: PodSpec) -> tuple[HostPort, ...]:
    """Ports that the pod takes of its node; with `hostNetwork` every container port is one."""
    return tuple(
        HostPort(number, port.protocol or "TCP", port.hostIP or _EVERY_ADDRESS)
        for container in (*spec.containers, *(spec.initContainers or ()))
        for port in container.ports or ()
        if (number := port.hostPort or (port.containerPort if spec.hostNetwork else 0))
    )


def anti_affinity(spec: PodSpec, labels: Labels) -> tuple[AntiAffinity, ...]:
    """The required anti-affinity terms, judged or not."""
    return tuple(
        AntiAffinity(term.topologyKey, _own_rule(term.labelSelector, term.matchLabelKeys, labels))
        for term in _anti_affinity_terms(spec)
        if term.labelSelector is not None
    )


# ----------------------------------------------------------------------------------------------- what nobody can judge


def _unjudged(spec: PodSpec, namespace: str, labels: Labels) -> Iterator[str]:
    if spec.schedulerName not in ("", DEFAULT_SCHEDULER):
        yield "spec.schedulerName"
    yield from _unjudged_affinity(spec, namespace, labels)
    for index, constraint in enumerate(spec.topologySpreadConstraints or ()):
        if constraint.whenUnsatisfiable == "DoNotSchedule" and not _is_plain(constraint, labels):
            yield f"spec.topologySpreadConstraints[{index}]"
    yield from _placing_volumes(spec)
    if spec.resourceClaims:
        yield "spec.resourceClaims"


def _unjudged_affinity(spec: PodSpec, namespace: str, labels: Labels) -> Iterator[str]:
    if (
        spec.affinity
        and spec.affinity.podAffinity
        and spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution
    ):
        yield f"spec.affinity.podAffinity.{_REQUIRED}"
    for index, term in enumerate(_anti_affinity_terms(spec)):
        if not _is_about_itself(term, namespace, labels):
            yield f"spec.affinity.podAntiAffinity.{_REQUIRED}[{index}]"


def _placing_volumes(spec: PodSpec) -> Iterator[str]:
    for index, volume in enumerate(spec.volumes or ()):
        for source in _VOLUME_SOURCES:
            if getattr(volume, source) is not UNSET:
                yield f"spec.volumes[{index}].{source}"


def _is_about_itself(term: wire.PodAffinityTerm, namespace: str, labels: Labels) -> bool:
    if term.labelSelector is None:
        return True  # a selector that is not there matches no pod
    if term.mismatchLabelKeys or term.namespaceSelector is not None:
        return False
    if any(other != namespace for other in term.namespaces or ()):
        return False
    return matches(_own_rule(term.labelSelector, term.matchLabelKeys, labels), labels)


def _is_plain(constraint: wire.SpreadConstraint, labels: Labels) -> bool:
    if constraint.labelSelector is None:
        return False
    if constraint.nodeAffinityPolicy != "Honor" or constraint.nodeTaintsPolicy != "Ignore":
        return False
    return matches(_own_rule(constraint.labelSelector, constraint.matchLabelKeys, labels), labels)


# -------------------------------------------------------------------------------------------------------------- pieces


def matches(rule: LabelRule, labels: Labels) -> bool:
    """Whether a LabelSelector selects an object with these labels."""
    return all(_holds(requirement, labels) for requirement in rule.requirements)


def _holds(requirement: Requirement, labels: Labels) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case Operator.IN:
            return value in requirement.values
        case Operator.NOT_IN:
            return value not in requirement.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None
        case _:
            return False


def label_rule(match_labels: Mapping[str, str] | None, expressions: Iterable[wire.Expression] | None) -> LabelRule:
    """A LabelSelector as one list of requirements."""
    exact = (Requirement(key, Operator.IN, (value,)) for key, value in (match_labels or {}).items())
    return LabelRule((*exact, *_requirements(expressions)))


def _own_rule(selector: wire.LabelSelector | None, own_keys: list[str] | None, labels: Labels) -> LabelRule:
    selector = selector or _EVERYWHERE
    rule = label_rule(selector.matchLabels, selector.matchExpressions)
    # The API server and kube-scheduler add the pod's own value of these keys to the selector.
    own = (Requirement(key, Operator.IN, (labels[key],)) for key in own_keys or () if key in labels)
    return LabelRule((*rule.requirements, *own))


def _requirements(expressions: Iterable[wire.Expression] | None) -> tuple[Requirement, ...]:
    return tuple(Requirement(one.key, Operator(one.operator), tuple(one.values or ())) for one in expressions or ())


def _names_one_node(requirement: Requirement) -> bool:
    return requirement.key == NODE_NAME_FIELD and requirement.operator is Operator.IN and len(requirement.values) == 1


def _required_node_affinity(affinity: wire.Affinity | None) -> wire.NodeSelector | None:
    if affinity is None or affinity.nodeAffinity is None:
        return None
    return affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution


def _anti_affinity_terms(spec: PodSpec) -> list[wire.PodAffinityTerm]:
    if spec.affinity is None or spec.affinity.podAntiAffinity is None:
        return []
    return spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution or []


def _hard_constraints(spec: PodSpec) -> Iterator[wire.SpreadConstraint]:
    return (one for one in spec.topologySpreadConstraints or () if one.whenUnsatisfiable == "DoNotSchedule")


def _hard_spread(constraint: wire.SpreadConstraint, labels: Labels) -> HardSpread:
    return HardSpread(
        topology_key=constraint.topologyKey,
        max_skew=constraint.maxSkew,
        selector=_own_rule(constraint.labelSelector, constraint.matchLabelKeys, labels),
        min_domains=constraint.minDomains or 1,
    )


def _affinity_depth(affinity: wire.Affinity | None) -> int:
    if affinity is None:
        return 0
    return 1 if affinity.nodeAffinity is None else 2
