"""Which GPUs the pods of a node hold: the kubelet's list, joined with the pods that the API server knows.

The list has no UIDs and may hold pods that have finished, so an entry counts only for a pod that is bound to this very
node and has not finished. A pod that is not listed with all that it asks for holds GPUs that nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from penstock.api.names import GPU_REPLICAS_LABEL, GPU_RESOURCE
from penstock.core.model import MOST_GPUS, Node, Pod, PodGpus, Telemetry


@dataclass(frozen=True, slots=True)
class Holding:
    """One pod and the GPUs that it holds."""

    pod: Pod
    gpus: PodGpus


@dataclass(frozen=True, slots=True)
class Holdings:
    """`known` by GPU UUID, with how much of it each holds: 1 for all of it. `unknown` are the other pods with GPUs."""

    known: Mapping[str, tuple[tuple[Pod, float], ...]] = field(default_factory=dict)
    unknown: tuple[Pod, ...] = ()


def join(node: Node, telemetry: Telemetry | None, pods: Iterable[Pod]) -> tuple[Holding, ...]:
    """The pods of a node that the kubelet lists; none where it did not say. `pods` are the unfinished ones here."""
    if telemetry is None or telemetry.pods is None:
        return ()
    listed = {(one.namespace, one.name): one for one in telemetry.pods}
    slices = replicas(node)
    found = ((pod, listed.get((pod.namespace, pod.name))) for pod in pods if pod.node == node.name)
    return tuple(Holding(pod, gpus) for pod, gpus in found if gpus and _is_all(pod, gpus, slices))


def holdings(node: Node, telemetry: Telemetry | None, pods: Iterable[Pod]) -> Holdings:
    """Who holds which GPU."""
    pods = tuple(pods)
    joined = join(node, telemetry, pods)
    known: dict[str, tuple[tuple[Pod, float], ...]] = {}
    for one in joined:
        for uuid, share in zip(one.gpus.uuids, one.gpus.shares or (1.0,) * len(one.gpus.uuids), strict=True):
            known[uuid] = (*known.get(uuid, ()), (one.pod, share))
    named = {one.pod.uid for one in joined}
    holding = (pod for pod in pods if pod.gpus or pod.claimed or pod.parts)
    return Holdings(known, tuple(pod for pod in holding if pod.uid not in named))


def counted(pods: Iterable[Pod]) -> Iterator[tuple[Pod, int]]:
    """The pods that hold GPUs, each with how many; what several claim together the first of them holds."""
    seen: set[str] = set()
    for pod in pods:
        gpus = pod.gpus + len(pod.claimed - seen)
        seen |= pod.claimed
        if gpus:
            yield pod, gpus


def claimed_gpus(node: Node, telemetry: Telemetry | None, pods: Iterable[Pod], placeable: frozenset[str]) -> int:
    """How many GPUs claims hold that could be placed on otherwise: those of `placeable`, and those that nobody knows.

    By the ResourceClaims and by the kubelet's word alike: who has either of them has its GPU.
    """
    pods = tuple(pods)
    joined = join(node, telemetry, pods)
    seen: set[str] = set()
    held = 0
    for one in joined:
        if one.pod.claimed or one.gpus.claims:
            own = placeable.intersection(one.gpus.uuids) - seen
            seen |= own
            held += max(0, len(own) - one.pod.gpus)
    named = {one.pod.uid for one in joined}
    return held + len({gpu for pod in pods if pod.uid not in named for gpu in pod.claimed})


def held_beside(node: Node, telemetry: Telemetry | None, pods: Iterable[Pod], placeable: frozenset[str]) -> int:
    """How many of the GPUs (time slices, where GPUs are shared) that pods asked for lie on GPUs not `placeable`.

    Only what is certain counts: who is not listed may hold any GPU, and of slices on several GPUs one on each is sure.
    """
    beside = 0
    for one in join(node, telemetry, pods):
        inside = sum(uuid in placeable for uuid in one.gpus.uuids)
        outside, asked = len(one.gpus.uuids) - inside, one.pod.gpus
        beside += min(outside, max(0, asked - inside)) if inside else asked
    return beside


def replicas(node: Node) -> int:
    """How many pods may share each of the node's GPUs in time, by GPU Feature Discovery's label."""
    value = node.labels.get(GPU_REPLICAS_LABEL, "1")
    return max(int(value), 1) if value.isdecimal() else 1


def physical_gpus(node: Node) -> int:
    """The allocatable GPUs as devices, however many may share one."""
    return min(-(-node.allocatable.get(GPU_RESOURCE, 0) // replicas(node)), MOST_GPUS)


def _is_all(pod: Pod, gpus: PodGpus, slices: int) -> bool:
    return bool(gpus.uuids) and (slices > 1 or len(gpus.uuids) >= pod.gpus + len(pod.claimed))
