"""What a pod demands of its node, as Kubernetes has it: frozen values without judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

Labels = Mapping[str, str]
NO_LABELS: Labels = MappingProxyType({})


def _no_labels() -> Labels:
    return NO_LABELS


class Operator(StrEnum):
    """Node selector and label selector operators."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One `matchExpressions` (or `matchFields`) entry."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """One nodeSelectorTerm: all of its requirements hold. A term without any matches nothing."""

    expressions: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelRule:
    """A LabelSelector with `matchLabels` folded into `In` requirements; empty matches everything."""

    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Toleration:
    """A pod's toleration; an empty key with `Exists` tolerates everything, an empty effect every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class HostPort:
    port: int
    protocol: str = "TCP"
    ip: str = "0.0.0.0"  # noqa: S104  Kubernetes' own spelling of "every address"


@dataclass(frozen=True, slots=True)
class AntiAffinity:
    """Required pod anti-affinity whose selector matches the pool itself: one per topology value."""

    topology_key: str
    selector: LabelRule


@dataclass(frozen=True, slots=True)
class HardSpread:
    """A `DoNotSchedule` topology spread constraint whose selector matches the pool itself."""

    topology_key: str
    max_skew: int
    selector: LabelRule
    min_domains: int = 1


@dataclass(frozen=True, slots=True)
class Scheduling:
    """What a pod template demands of its node, as far as the planner judges it."""

    node_selector: Labels = field(default_factory=_no_labels)
    node_terms: tuple[NodeTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    anti_affinity: tuple[AntiAffinity, ...] = ()
    hard_spread: tuple[HardSpread, ...] = ()
    affinity_depth: int = 0
    """How deep the pod's affinity goes: 0 no `affinity`, 1 no `nodeAffinity` in it, 2 `nodeAffinity` is there."""
    unjudged: str = ""
    """The first field that the planner cannot judge, as a path; then the pod is refused, naming it. Empty: none."""
