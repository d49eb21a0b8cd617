"""The words of the domain: what the core sees. Frozen values only; units are in the names.

Times are seconds on two clocks, never mixed: `*_at` is the operator's own monotonic clock (ages, deadlines),
`*_time` is Unix time as the API server wrote it (shown to people, used to order pods).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from penstock.api.names import COUNTRY_LABEL, GATE, GPU_RESOURCE, SUBDIVISION_LABEL
from penstock.core import mig
from penstock.core.placement.scheduling import NO_LABELS, HostPort, LabelRule, Labels, Scheduling, Taint
from penstock.core.power.budget import Schedule
from penstock.core.telemetry import (
    Cap,
    CappedGpu,
    Capper,
    CapperMode,
    Gpu,
    GpuHealth,
    Platform,
    PodGpus,
    Telemetry,
)

__all__ = ["Cap", "CappedGpu", "Capper", "CapperMode", "Gpu", "GpuHealth", "Platform", "PodGpus", "Telemetry"]
"""The words that have a file of their own."""

Amounts = Mapping[str, int]
"""Resource name → whole amount: `cpu` in millicores, `memory` and `ephemeral-storage` in bytes, others as counted."""

NOTHING: Mapping[str, int] = MappingProxyType({})

MOST_GPUS = 1024
"""More than any machine has: who asks for more fits nowhere anyway, and must cost nobody the time to count them."""


def _nothing() -> Amounts:
    return NOTHING


def _no_labels() -> Labels:
    return NO_LABELS


class AsksForGpus:
    """GPUs and MIG devices among what is requested of a node."""

    __slots__ = ()
    requests: Amounts

    @property
    def gpus(self) -> int:
        return min(self.requests.get(GPU_RESOURCE, 0), MOST_GPUS)

    @property
    def parts(self) -> float:
        """What it asks for as MIG devices, in whole GPUs: in no way part of `gpus`."""
        return min(mig.parts_of_gpus(self.requests), MOST_GPUS)

    @property
    def mig_devices(self) -> int:
        return min(mig.devices(self.requests), MOST_GPUS)


# ------------------------------------------------------------------------------------------------ nodes and telemetry


@dataclass(frozen=True, slots=True)
class Mark:
    """A condition on a Node, without its times."""

    holds: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a node's place does not count as it stands, for people: `kind` is a condition on its GPUNode.

    While one `holds`, nothing new is placed there under any law; what runs there stays.
    """

    kind: str
    reason: str
    message: str
    remedy: str
    holds: bool = True
    since_time: float | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A Kubernetes node. `country` and `subdivision` come from the guarded labels; empty means unknown."""

    name: str
    uid: str = ""
    labels: Labels = field(default_factory=_no_labels)
    taints: tuple[Taint, ...] = ()
    cordoned: bool = False
    ready: bool = True
    not_ready_since_time: float | None = None
    allocatable: Amounts = field(default_factory=_nothing)
    power_degraded: Mark | None = None
    """Our own node condition, as it is written there now."""
    provider: str = ""
    """Whose machine it is, by the scheme of its provider ID: `aws`, `gce`, `azure`; empty where it has none."""
    settled: str = ""
    """What a place writer settled of its place and its region: `DK@eu-north-1`."""

    @property
    def country(self) -> str:
        return self.labels.get(COUNTRY_LABEL, "")

    @property
    def subdivision(self) -> str:
        return self.labels.get(SUBDIVISION_LABEL, "")


# -------------------------------------------------------------------------------------------------------------- pods


@dataclass(frozen=True, slots=True)
class Owner:
    """The controlling ownerReference."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Isolated:
    """What is written on a replica that was taken out of traffic because its place is not lawful."""

    pool: str
    since_time: float
    drains: bool
    """Whether it is to end, within its grace; else somebody looks at it first."""
    message: str


class Phase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Pod(AsksForGpus):
    """Any pod of the cluster; what only a gated one needs is in `scheduling`.

    `pin` is the node that our own affinity names (one `metadata.name` value in every term), empty without one.
    `pool` is the pool label. `requests` follows kube-scheduler: the larger of the sum of containers (with sidecars)
    and any init container, plus overhead, and `pods: 1`.
    """

    uid: str
    namespace: str
    name: str
    pool: str = ""
    node: str = ""
    pin: str = ""
    gates: tuple[str, ...] = ()
    phase: Phase = Phase.PENDING
    created_time: float = 0.0
    terminating: bool = False
    ready: bool = False
    unschedulable: bool = False
    """`PodScheduled=False` with reason `Unschedulable`: kube-scheduler gave up on it for now."""
    requests: Amounts = field(default_factory=_nothing)
    claimed: frozenset[str] = field(default_factory=frozenset)
    """Whole GPUs that its ResourceClaims gave it, by their driver's names on its node: they are in no request."""
    reaches_devices: bool = False
    """It names ResourceClaims, or shows a container GPUs that nobody gave it: what no request says."""
    priority: int = 0
    owner: Owner | None = None
    template_hash: str = ""
    labels: Labels = field(default_factory=_no_labels)
    scheduling: Scheduling = Scheduling()
    host_ports: tuple[HostPort, ...] = ()
    decision: str = ""
    fence: str = ""
    deletion_cost: int | None = None
    annotated: bool = False
    """Whether `metadata.annotations` exists: a JSON Patch cannot add a key to a map that is not there."""
    grace_seconds: float = 30.0
    """How long it may take to end."""
    failure: str = ""
    """`status.reason` of a Failed pod, such as `UnexpectedAdmissionError`."""
    isolated: Isolated | None = None
    """It was a replica of a pool, and was taken out of traffic for its place."""
    resource_version: str = ""

    @property
    def place(self) -> str:
        """The node whose room it takes: where it is bound, else where it is pinned."""
        return self.node or self.pin

    @property
    def gated(self) -> bool:
        return GATE in self.gates

    @property
    def foreign_gates(self) -> tuple[str, ...]:
        return tuple(gate for gate in self.gates if gate != GATE)

    @property
    def finished(self) -> bool:
        return self.phase in (Phase.SUCCEEDED, Phase.FAILED)


# ------------------------------------------------------------------------------------------------ what people ask for


@dataclass(frozen=True, slots=True)
class Residency:
    """Where a pool may be, as ISO 3166 codes: country codes and subdivision codes apart; and what else a place must be.

    `restricted` is False where nobody set a rule: then a node of unknown place will do. Subdivisions stand beside all
    that lie in them (`core.residency.iso`). An axis that nobody demands is None.
    """

    restricted: bool = False
    allowed_countries: frozenset[str] | None = None
    """None: every country that is not denied."""
    allowed_subdivisions: frozenset[str] = frozenset()
    denied_countries: frozenset[str] = frozenset()
    denied_subdivisions: frozenset[str] = frozenset()
    operators: frozenset[str] | None = None
    """Nationalities of legal control that are allowed. None: every one that is not denied."""
    denied_operators: frozenset[str] = frozenset()
    clearances: frozenset[str] | None = None
    """The levels that suffice."""
    evidences: frozenset[str] | None = None
    """The kinds of evidence that suffice."""
    evidence_max_age_seconds: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether it lists where a replica may be, and not only where it may not."""
        return self.allowed_countries is not None or bool(self.allowed_subdivisions)


@dataclass(frozen=True, slots=True)
class SoftSpread:
    """`placement.spread`: a wish that weighs in the score, by how far a node would pass `max_skew`."""

    topology_key: str
    max_skew: int = 1


class Mode(StrEnum):
    ENFORCE = "Enforce"
    ADVISE = "Advise"


class Guarantee(StrEnum):
    HARD = "Hard"
    STATISTICAL = "Statistical"


class PoolKey(NamedTuple):
    """A tuple, since every index has it for its key: a dataclass takes five times as long to hash."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class LearnedWatts:
    """What a GPU draws at its peak under one pod template: the 99th percentile, in watts."""

    template_hash: str
    watts: float
    everywhere: bool = True
    """Whether it was learned on every product that the pool may get; else it only raises what is declared."""


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """What a pool asks of the place of each replica, beside its pod template and the law."""

    gpu_products: frozenset[str] = frozenset()
    gpu_memory_bytes: int = 0
    declared_watts: float | None = None
    """`power.wattsPerReplica`; used where the domain's guarantee is Statistical."""
    learned: tuple[LearnedWatts, ...] = ()
    """What was learned of its templates; used where the domain's guarantee is Statistical."""
    min_cap_watts: float | None = None
    """How far down a GPU of the pool may be capped; None: not at all."""
    may_be_shed: bool = True
    shared_activity_ceiling: float = 0.9
    """It comes onto no GPU shared with others that is busier, as a ratio; 1: onto any."""
    max_unavailable: int = 1
    """`disruption.maxUnavailable`: how many replicas we may take out at once."""
    spread: tuple[SoftSpread, ...] = ()
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class Domain:
    """A PowerDomain in watts. `margin` and `per_gpu_watt` are ratios (0.1 is ten percent).

    It holds the nodes of `nodes` and those that `selector` selects (`None`: none), and every node of the domains that
    name it as `parent`.
    """

    name: str
    selector: LabelRule | None = LabelRule()
    budget_watts: float = 0.0
    """What admission goes by: the lowest budget of the next 15 minutes."""
    guarantee: Guarantee = Guarantee.HARD
    margin: float = 0.10
    static_watts: float = 0.0
    """Without that of the domains below it."""
    overhead_watts: float = 0.0
    per_gpu_watt: float = 0.55
    nodes: frozenset[str] = frozenset()
    parent: str = ""
    schedule: Schedule | None = None
    """The budget at every moment, which the ladder goes by; None: `budget_watts` at all of them."""
    unconfirmed: bool = False
    """Its last edit looks like a mistake: until that is confirmed, the ladder goes no further than hold."""

    @property
    def usable_watts(self) -> float:
        return self.budget_watts * (1.0 - self.margin)

    @property
    def budget(self) -> Schedule:
        """The budget at every moment."""
        return self.schedule or Schedule(self.budget_watts)


@dataclass(frozen=True, slots=True)
class RightOfReturn:
    """Watts that a pool's replica left behind otherwise than by shedding, and may come back to until `until_time`."""

    domain: str
    pool: PoolKey
    watts: float
    until_time: float


@dataclass(frozen=True, slots=True)
class Replica(AsksForGpus):
    """One replica that waits for a place: a gated pod, or a virtual replica of a pool (then `pod_uid` is empty)."""

    key: str
    """Unique and stable: the pod's uid, or `namespace/pool#ordinal`."""
    pool: PoolKey
    rules: PlacementRules
    requests: Amounts
    residency: Residency = Residency()
    """Where the law lets it be."""
    demands: tuple[tuple[str, Residency], ...] = field(default=(), compare=False)
    """Who demands what of that: each source by its name."""
    scheduling: Scheduling = Scheduling()
    labels: Labels = field(default_factory=_no_labels)
    priority: int = 0
    since_time: float = 0.0
    pod_uid: str = ""
    template_hash: str = ""
    newest: bool = True
    """Of the newest ReplicaSet: such replicas go before the old ones of the same pool."""
    avoid: frozenset[str] = field(default_factory=frozenset)
    """Nodes under back-off for this pool: a pin there died lately."""
    shed: bool = False
    """It waits because a power domain shed it."""
