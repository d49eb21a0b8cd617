"""What ails a GPU: what makes it unplaceable, what ranks its node down, and which replicas have to leave it.

Every reason is a word that people can look up: it stands in explanations, verdicts and the node condition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from penstock.core.model import Gpu, GpuHealth, Pod, PodGpus, Telemetry

LEAST_THERMAL_MARGIN_CELSIUS = 5.0
"""From so near to slowing down on, a GPU is hot."""
TREND_MINUTES = 2.0
"""How far ahead a margin that shrinks is looked at: about as long as a model takes to load and warm its GPUs."""


class Ailment(StrEnum):
    """Why a GPU takes no replica. Part of the API: people alert on these words."""

    LOST = "Lost"
    FAILED = "Failed"
    NEEDS_RESET = "NeedsReset"
    UNRESPONSIVE = "Unresponsive"
    POWER_BRAKE = "PowerBrake"


_BY_HEALTH = {
    GpuHealth.LOST: Ailment.LOST,
    GpuHealth.FAILED: Ailment.FAILED,
    GpuHealth.NEEDS_RESET: Ailment.NEEDS_RESET,
    GpuHealth.UNRESPONSIVE: Ailment.UNRESPONSIVE,
}
BROKEN = frozenset({Ailment.LOST, Ailment.FAILED, Ailment.NEEDS_RESET})
"""What does not pass by itself, so that a replica is better off elsewhere. A driver that hangs, or a brake, may."""


def ailment(gpu: Gpu) -> Ailment | None:
    """Why nothing new is placed on this GPU; None where it may be."""
    return _BY_HEALTH.get(gpu.health) or (Ailment.POWER_BRAKE if gpu.power_braked else None)


def ailments(gpus: Iterable[Gpu]) -> Mapping[str, int]:
    """How many of these GPUs take nothing, by why."""
    return Counter(str(found) for gpu in gpus if (found := ailment(gpu)))


def is_hot(gpu: Gpu) -> bool:
    """Whether heat slows the GPU down, or will within minutes: by its margin to slowing down, never by degrees."""
    if gpu.thermally_throttled:
        return True
    if gpu.thermal_margin_celsius is None:
        return False
    coming_celsius = gpu.thermal_margin_celsius + TREND_MINUTES * gpu.thermal_trend_celsius
    return min(gpu.thermal_margin_celsius, coming_celsius) < LEAST_THERMAL_MARGIN_CELSIUS


def told(gpu: Gpu) -> str:
    """One GPU and its ailment, in words: `GPU 3 is Lost (XID 79: it fell off the bus)`."""
    return f"GPU {gpu.index} is {ailment(gpu)}" + (f" ({gpu.message})" if gpu.message else "")


# ------------------------------------------------------------------------------------------- who is on a broken GPU


@dataclass(frozen=True, slots=True)
class Broken:
    """A replica whose node has a broken GPU. `certain`: the kubelet says that this pod holds it."""

    pod: Pod
    what: str
    certain: bool


def on_broken_gpus(pods: Iterable[Pod], telemetry: Mapping[str, Telemetry]) -> tuple[Broken, ...]:
    """Which of these running pods hold a GPU that is broken, by the telemetry of their nodes.

    `telemetry` holds only nodes that are believed: what is stale or impossible moves nobody. Where the kubelet did
    not say which pod holds which GPU, every pod with GPUs on that node may, and none is certain.
    """
    found = []
    for pod in pods:
        heard = telemetry.get(pod.node)
        if heard is None or not (pod.gpus or pod.parts):
            continue
        broken = {gpu.uuid: gpu for gpu in heard.gpus if ailment(gpu) in BROKEN}
        if not broken:
            continue
        if heard.pods is None:
            found.append(Broken(pod, _sentence(pod.node, broken.values()), certain=False))
        elif mine := [broken[uuid] for uuid in _held(pod, heard.pods) if uuid in broken]:
            found.append(Broken(pod, _sentence(pod.node, mine), certain=True))
    return tuple(found)


def _held(pod: Pod, listed: Iterable[PodGpus]) -> tuple[str, ...]:
    return next((one.uuids for one in listed if (one.namespace, one.name) == (pod.namespace, pod.name)), ())


def _sentence(node: str, gpus: Iterable[Gpu]) -> str:
    return f"on node {node} " + ", ".join(told(gpu) for gpu in gpus)
