"""What the planner answers: where each replica goes, or why it waits and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property

from penstock.core.model import Replica, RightOfReturn
from penstock.core.placement.scheduling import Requirement


class Filter(IntEnum):
    """The filters, in the order in which a node is judged; a refused node counts for the first that refuses it."""

    LAWFUL_PLACE = 0
    HEALTHY = 1
    TAINTS = 2
    AFFINITY = 3
    RESOURCES = 4
    HOST_PORTS = 5
    GPU_MODEL = 6
    FREE_GPUS = 7
    SHARED_ACTIVITY = 8
    POWER_HOLD = 9
    WATTS = 10
    BACK_OFF = 11
    NONE = 12
    """No filter refuses: the node would do."""

    @cached_property
    def title(self) -> str:
        """The name as people read it: `LawfulPlace`."""
        return "".join(word.capitalize() for word in self.name.split("_")).replace("Gpu", "GPU")


class Reason(StrEnum):
    """Why a replica waits: the deepest filter that any node reached. Part of the API: people alert on these words."""

    NO_NODES = "NoNodes"
    UNJUDGED_CONSTRAINT = "UnjudgedConstraint"
    NO_LAWFUL_PLACE = "NoLawfulPlace"
    NODE_NOT_READY = "NodeNotReady"
    TELEMETRY_STALE = "TelemetryStale"
    TAINTED = "Tainted"
    AFFINITY_UNSATISFIED = "AffinityUnsatisfied"
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    HOST_PORT_TAKEN = "HostPortTaken"
    NO_MATCHING_GPU = "NoMatchingGPU"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    SHARED_GPUS_BUSY = "SharedGPUsBusy"
    POWER_HOLD = "PowerHold"
    SHED_BY_POWER = "ShedByPower"
    INSUFFICIENT_POWER = "InsufficientPower"
    BACK_OFF = "BackOff"


Terms = tuple[tuple[str, float], ...]
"""The weighed terms of a score, by name; they add up to it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node and its score, with the terms that make it."""

    node: str
    score: float
    terms: Terms


@dataclass(frozen=True, slots=True)
class Decision:
    """One replica goes onto one node.

    `law` is what the lift adds to every term, `watts` what the replica costs each of the node's domains (with
    overhead), `gpu_watts` the same without overhead, also for a node in no domain.
    """

    replica: Replica
    node: str
    country: str
    law: tuple[Requirement, ...]
    watts: tuple[tuple[str, float], ...]
    gpu_watts: float
    chosen: Candidate
    runner_up: Candidate | None
    candidates: int
    refused: tuple[tuple[Filter, int], ...]
    leaves_gpus: int
    """GPUs still free on the node afterwards."""
    returned_watts: tuple[tuple[str, float], ...] = ()
    """What of the pool's right of return this used, per domain."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One replica that no node can take now."""

    replica: Replica
    reason: Reason
    message: str
    would_fit: str = ""
    """The smallest changes that place it, each on its own: `raise PowerDomain/row-a by 900 W, or …`."""
    refused: tuple[tuple[Filter, int], ...] = ()
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One answer to one snapshot, in the order in which replicas were asked. `rights` is what is left of them."""

    decisions: tuple[Decision, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    rights: tuple[RightOfReturn, ...] = ()

    @property
    def nodes(self) -> Mapping[str, str]:
        """Replica key → node."""
        return {decision.replica.key: decision.node for decision in self.decisions}
