"""What comes over the wire, and of it only what we read: unknown JSON is skipped, never allocated.

Field names are Kubernetes' own. No cyclic references, so the garbage collector need not look (`gc=False`). Scheduling
rules, GPUNodes and ResourceClaims have files of their own beside this one.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, Struct, UnsetType

from penstock.api.names import (
    DECISION_ANNOTATION,
    DELETION_COST_ANNOTATION,
    FENCE_ANNOTATION,
    FLOOR_ANNOTATION,
    INTENT_ANNOTATION,
    ISOLATED_ANNOTATION,
    LEFT_ANNOTATION,
    PLACE_SETTLED_ANNOTATION,
    REVISION_ANNOTATION,
)
from penstock.cluster.wire_scheduling import Affinity, Name, SpreadConstraint, Toleration, Volume

Quantity = str | int | float
Quantities = dict[str, Quantity]

# -------------------------------------------------------------------------------------------------------- metadata


class Annotations(
    Struct,
    gc=False,
    rename={
        "decision": DECISION_ANNOTATION,
        "isolated": ISOLATED_ANNOTATION,
        "fence": FENCE_ANNOTATION,
        "deletion_cost": DELETION_COST_ANNOTATION,
        "intent": INTENT_ANNOTATION,
        "left": LEFT_ANNOTATION,
        "floor": FLOOR_ANNOTATION,
        "revision": REVISION_ANNOTATION,
        "settled": PLACE_SETTLED_ANNOTATION,
    },
):
    decision: str = ""
    isolated: str = ""
    fence: str = ""
    deletion_cost: str = ""
    intent: str = ""
    left: str = ""
    floor: str = ""
    revision: str = ""
    settled: str = ""


class OwnerReference(Struct, gc=False):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Unannotated(Struct, gc=False):
    """The metadata of any object, annotations left out."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    creationTimestamp: datetime | None = None
    deletionTimestamp: datetime | None = None
    ownerReferences: list[OwnerReference] | None = None


class Metadata(Unannotated, gc=False):
    annotations: Annotations | None = None


# -------------------------------------------------------------------------------------------------------------- pods


class ContainerPort(Struct, gc=False):
    hostPort: int = 0
    containerPort: int = 0
    protocol: str = "TCP"
    hostIP: str = ""


class Resources(Struct, gc=False):
    requests: Quantities | None = None
    limits: Quantities | None = None


class Source(Struct, gc=False):
    """Where a variable's value comes from: that it comes from somewhere is all that we read."""


class Variable(Struct, gc=False):
    name: str = ""
    value: str = ""
    valueFrom: Source | None = None


class VolumeMount(Struct, gc=False):
    mountPath: str = ""


class Container(Struct, gc=False):
    resources: Resources | None = None
    ports: list[ContainerPort] | None = None
    restartPolicy: str = ""
    env: list[Variable] | None = None
    volumeMounts: list[VolumeMount] | None = None


class PodSpec(Struct, gc=False):
    nodeName: str = ""
    terminationGracePeriodSeconds: float = 30.0
    schedulerName: str = ""
    hostNetwork: bool = False
    priority: int | None = None
    priorityClassName: str = ""
    runtimeClassName: str | None = None
    nodeSelector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None
    topologySpreadConstraints: list[SpreadConstraint] | None = None
    schedulingGates: list[Name] | None = None
    volumes: list[Volume] | None = None
    resourceClaims: list[Name] | None = None
    containers: list[Container] = []
    initContainers: list[Container] | None = None
    ephemeralContainers: list[Container] | None = None
    overhead: Quantities | None = None
    resources: Resources | None = None


class Condition(Struct, gc=False):
    type: str = ""
    status: str = ""
    reason: str = ""
    lastTransitionTime: datetime | None = None


class PodStatus(Struct, gc=False):
    phase: str = "Pending"
    reason: str = ""
    conditions: list[Condition] | None = None


class PodMetadata(Unannotated, gc=False):
    annotations: msgspec.Raw | UnsetType = UNSET
    """Undecoded: of some it is their very names that say something."""


class Pod(Struct, gc=False):
    metadata: PodMetadata
    spec: PodSpec
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class TemplateMetadata(Struct, gc=False):
    labels: dict[str, str] | None = None


class PodTemplate(Struct, gc=False):
    spec: PodSpec
    metadata: TemplateMetadata | None = None


# ------------------------------------------------------------------------------------------------------------- nodes


class Taint(Struct, gc=False):
    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Struct, gc=False):
    taints: list[Taint] | None = None
    unschedulable: bool = False
    providerID: str = ""


class NodeCondition(Condition, gc=False):
    message: str = ""


class NodeStatus(Struct, gc=False):
    allocatable: Quantities | None = None
    conditions: list[NodeCondition] | None = None


class Node(Struct, gc=False):
    metadata: Metadata
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


# --------------------------------------------------------------------------------------------------------- workloads


class WorkloadSpec(Struct, gc=False):
    replicas: int = 1
    paused: bool = False


class WorkloadStatus(Struct, gc=False):
    observedGeneration: int = 0
    replicas: int = 0
    updatedReplicas: int = 0
    readyReplicas: int = 0


class Workload(Struct, gc=False):
    """A Deployment or a ReplicaSet; of a Service no more than its metadata."""

    metadata: Metadata
    spec: WorkloadSpec = msgspec.field(default_factory=WorkloadSpec)
    status: WorkloadStatus = msgspec.field(default_factory=WorkloadStatus)


class PriorityClass(Struct, gc=False):
    metadata: Metadata
    value: int = 0
    globalDefault: bool = False


# ------------------------------------------------------------------------------------------------------------- watches


class Event(Struct, gc=False):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Identity(Struct, gc=False):
    """What tells an object from the others of its kind; a bookmark has no more than the resourceVersion."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""


class Identified(Struct, gc=False):
    """Any object, of which nothing has to be readable but whose it is."""

    metadata: Identity
