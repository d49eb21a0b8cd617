"""What comes over the wire of a pod's scheduling rules."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct, UnsetType


class Expression(Struct, gc=False):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class LabelSelector(Struct, gc=False):
    matchLabels: dict[str, str] | None = None
    matchExpressions: list[Expression] | None = None


class NodeSelectorTerm(Struct, gc=False):
    matchExpressions: list[Expression] | None = None
    matchFields: list[Expression] | None = None


class NodeSelector(Struct, gc=False):
    nodeSelectorTerms: list[NodeSelectorTerm] | None = None


class NodeAffinity(Struct, gc=False):
    requiredDuringSchedulingIgnoredDuringExecution: NodeSelector | None = None


class PodAffinityTerm(Struct, gc=False):
    topologyKey: str = ""
    labelSelector: LabelSelector | None = None
    namespaces: list[str] | None = None
    namespaceSelector: LabelSelector | None = None
    matchLabelKeys: list[str] | None = None
    mismatchLabelKeys: list[str] | None = None


class PodAffinity(Struct, gc=False):
    requiredDuringSchedulingIgnoredDuringExecution: list[PodAffinityTerm] | None = None


class Affinity(Struct, gc=False):
    nodeAffinity: NodeAffinity | None = None
    podAffinity: PodAffinity | None = None
    podAntiAffinity: PodAffinity | None = None


class SpreadConstraint(Struct, gc=False):
    topologyKey: str = ""
    maxSkew: int = 1
    whenUnsatisfiable: str = "DoNotSchedule"
    labelSelector: LabelSelector | None = None
    minDomains: int | None = None
    nodeAffinityPolicy: str = "Honor"
    nodeTaintsPolicy: str = "Ignore"
    matchLabelKeys: list[str] | None = None


class Toleration(Struct, gc=False):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Name(Struct, gc=False):
    name: str = ""


class Volume(Struct, gc=False):
    """Only the sources that tie a pod to some nodes; what is in them does not matter."""

    name: str = ""
    persistentVolumeClaim: msgspec.Raw | UnsetType = UNSET
    ephemeral: msgspec.Raw | UnsetType = UNSET
    awsElasticBlockStore: msgspec.Raw | UnsetType = UNSET
    azureDisk: msgspec.Raw | UnsetType = UNSET
    cinder: msgspec.Raw | UnsetType = UNSET
    gcePersistentDisk: msgspec.Raw | UnsetType = UNSET
    iscsi: msgspec.Raw | UnsetType = UNSET
    rbd: msgspec.Raw | UnsetType = UNSET
