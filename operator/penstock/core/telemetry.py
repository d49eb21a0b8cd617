"""What a node's agent and its capper say: GPUs, who holds them, and how far the report can be believed.

Part of the words of the domain: `core.model` has them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from penstock.api.names import LONGEST_HEARTBEAT_SECONDS

GONE_SECONDS = 3.0 * LONGEST_HEARTBEAT_SECONDS
"""No capper that still runs is silent for so long."""


class GpuHealth(StrEnum):
    """What the agent says of one GPU. Only `Healthy` is placeable."""

    HEALTHY = "Healthy"
    LOST = "Lost"
    UNRESPONSIVE = "Unresponsive"
    NEEDS_RESET = "NeedsReset"
    FAILED = "Failed"
    """To be exchanged: no spare memory row is left, or an error that no reset mends."""


class Gpu(Struct, frozen=True, gc=False):
    """One GPU as NVML reports it. `None` where NVML does not support the figure.

    No dataclass, since a thousand nodes make eight hundred of these a second, and this one is made in a third of the
    time.

    `planned_watts` is the p95 over five minutes; `limit_watts` the enforced limit that the agent read back,
    `limit_age_seconds` before it published; `maximum_watts` the device's own maximum limit.
    """

    uuid: str
    index: int
    product: str = ""
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    power_watts: float | None = None
    planned_watts: float | None = None
    accounted_watts: float | None = None
    """Energy over time, for billing."""
    limit_watts: float | None = None
    limit_age_seconds: float = 0.0
    maximum_watts: float | None = None
    energy_joules: float | None = None
    activity_percent: float | None = None
    temperature_celsius: float | None = None
    throttled: bool = False
    health: GpuHealth = GpuHealth.HEALTHY
    requested_limit_watts: float | None = None
    minimum_watts: float | None = None
    default_watts: float | None = None
    thermal_margin_celsius: float | None = None
    thermally_throttled: bool = False
    """The hardware slows itself down because of heat or the power brake."""
    power_braked: bool = False
    """The power brake is on: the node's own supply asks for less at once."""
    thermal_trend_celsius: float = 0.0
    """How the margin moved lately, per minute: below zero while the GPU heats up."""
    mig: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class PodGpus:
    """Which GPUs a pod holds, by the kubelet's word, and what they draw for it. Finished pods may still be listed."""

    namespace: str
    name: str
    uuids: tuple[str, ...] = ()
    """Whole GPUs, and the parents of MIG devices."""
    shares: tuple[float, ...] = ()
    """How much of each of them, by slices; empty: all of it. Who shares a GPU in time holds all of it."""
    shared: bool = False
    watts: float | None = None
    activity_percent: float | None = None
    attribution: str = ""
    claims: tuple[str, ...] = ()
    """Its ResourceClaims among which some of these GPUs are."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Where a node is in its rack, as NVML tells it. Empty and None where it does not."""

    chassis_serial: str = ""
    slot: int | None = None
    tray: int | None = None
    host_id: int | None = None
    fabric_cluster: str = ""
    fabric_clique: int | None = None


@dataclass(frozen=True, slots=True)
class Cap:
    """A power limit that stands in a GPUNode's spec; it ends with the pod."""

    uuid: str
    watts: float
    namespace: str
    pod: str
    pod_uid: str


class CapperMode(StrEnum):
    """Observe says what it would set; Off is the node's kill switch."""

    OBSERVE = "Observe"
    ENFORCE = "Enforce"
    OFF = "Off"


@dataclass(frozen=True, slots=True)
class CappedGpu:
    """What a capper says of one power limit. `baseline_watts` is the limit before its first, while that is its own."""

    uuid: str
    outcome: str
    reason: str = ""
    pod_uid: str = ""
    baseline_watts: float | None = None


@dataclass(frozen=True, slots=True)
class Capper:
    """A node's capper. `heard_at` is our monotonic time when its sequence last rose."""

    mode: CapperMode
    sequence: int
    heartbeat_seconds: float
    heard_at: float
    gpus: tuple[CappedGpu, ...] = ()

    def alive(self, now_at: float) -> bool:
        """Whether it spoke within three of its heartbeats."""
        return now_at - self.heard_at <= 3 * self.heartbeat_seconds

    def gone(self, now_at: float) -> bool:
        """Whether it has been silent for longer than any capper may be: what it holds down nobody gives back."""
        return now_at - self.heard_at > GONE_SECONDS

    def refuses(self, uuid: str, pod_uid: str) -> bool:
        """Whether it will not cap this GPU for this pod."""
        told = ("Refused", "HandsOff")
        return any(one.uuid == uuid and one.pod_uid == pod_uid and one.outcome in told for one in self.gpus)

    def baseline_watts(self, uuid: str) -> float | None:
        return next((one.baseline_watts for one in self.gpus if one.uuid == uuid), None)

    @property
    def has_caps(self) -> bool:
        """Whether some limit is still its own."""
        return any(one.baseline_watts is not None for one in self.gpus)


@dataclass(frozen=True, slots=True)
class PlaceMark:
    """A doubt of the node's place as it is written on its GPUNode, `PlaceDisputed` and so on; since a Unix time."""

    kind: str
    message: str
    since_time: float


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One GPUNode's status, and when we last heard it speak.

    `heard_at` is our monotonic time when `sequence` last rose (after a start: the API server's age of the last write,
    counted back from now). Fresh means `now - heard_at <= 3 × heartbeat_seconds`. `contradiction` names what in
    the report cannot be true (energy that stands still above idle, a sequence that fell, watts below zero); a
    contradicted report counts as stale.
    """

    node: str
    sequence: int = 0
    heartbeat_seconds: float = 10.0
    heard_at: float = 0.0
    gpus: tuple[Gpu, ...] = ()
    contradiction: str = ""
    pods: tuple[PodGpus, ...] | None = None
    """None: the kubelet did not say, so which GPU a pod holds is not known."""
    unallocated_in_use: tuple[str, ...] = ()
    caps: tuple[Cap, ...] = ()
    """The power limits that its spec asks for."""
    capper: Capper | None = None
    """None: no capper has ever spoken for this node."""
    platform: Platform = Platform()
    place_marks: tuple[PlaceMark, ...] = ()
    """Not the agent's: what the operator wrote there."""
