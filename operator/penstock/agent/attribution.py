"""Whose watt is it: what each pod's GPUs draw for it, from one round of readings and the kubelet's word.

A GPU that one pod holds alone is its own (`Exact`). A GPU that several share by time-slicing or MPS: what it draws
idle is split evenly, the rest by their processes' share of its SMs, evenly where that is not told (`Proportional`).
MIG devices: the idle draw by slices, the rest by activity × slices (`Estimated`). What nobody holds is idle watts, so
that pods and idle watts add up to what the node's GPUs draw.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from penstock.agent.podresources import Allocation, Device, PodName

SLICES_OF_A_GPU = 7
_PROFILE = re.compile(r"-mig-([1-9])g\d")
IN_USE_ACTIVITY_PERCENT = 5.0
IN_USE_MEMORY_BYTES = 256 * 2**20
"""Less than any CUDA context takes."""
IDLE_SHARE_OF_LIMIT = 0.14
"""Of its highest limit a GPU draws at most so much without any context: 65-130 W of 700-1000 W, 45 W of 350 W."""


def _no_processes() -> Mapping[PodName, float]:
    return MappingProxyType({})


class Certainty(IntEnum):
    """How a pod's watts are known, the best first. A pod's is that of the worst of its GPUs."""

    EXACT = 0
    PROPORTIONAL = 1
    ESTIMATED = 2

    @property
    def word(self) -> str:
        return self.name.capitalize()


@dataclass(frozen=True, slots=True)
class MigPart:
    """A MIG device: its compute slices, of seven, and the share of its own SMs that were busy."""

    uuid: str
    slices: int = 1
    activity_percent: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class MeasuredGpu:
    """What one GPU draws and does. None: not known. `idle_watts` is what it draws with nothing to do."""

    uuid: str
    minor: int | None
    watts: float | None = None
    idle_watts: float = 0.0
    energy_joules: float | None = None
    activity_percent: float | None = None
    memory_used_bytes: int | None = None
    parts: tuple[MigPart, ...] = ()
    process_percent: Mapping[PodName, float] = field(default_factory=_no_processes)
    """SM utilization of each pod's processes, as far as told."""

    @property
    def in_use(self) -> bool:
        activity, memory = self.activity_percent or 0.0, self.memory_used_bytes or 0
        return activity >= IN_USE_ACTIVITY_PERCENT or memory >= IN_USE_MEMORY_BYTES


@dataclass(frozen=True, slots=True)
class PodShare:
    """What one pod has of one GPU: `portion` of its draw. `device` is the UUID of the GPU or of the MIG device."""

    device: str
    portion: float
    watts: float | None
    activity_percent: float | None
    certainty: Certainty
    shared: bool = False
    """Whether others hold the same GPU, or the same MIG device."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """All GPUs of a node."""

    pods: Mapping[PodName, tuple[PodShare, ...]]
    idle_watts: float
    unallocated_in_use: tuple[str, ...]
    owners: Mapping[str, frozenset[PodName]]
    """By the UUID of each GPU that anybody holds."""


@dataclass(frozen=True, slots=True)
class _Holding:
    pod: PodName
    device: Device


def attribute(gpus: Sequence[MeasuredGpu], allocations: Iterable[Allocation]) -> Attribution:
    """Share every GPU's draw out among the pods that hold it."""
    held = _by_gpu(gpus, allocations)
    shares: dict[PodName, list[PodShare]] = defaultdict(list)
    idle_watts = 0.0
    for gpu in gpus:
        left = 1.0
        for pod, share in _shares(gpu, held.get(gpu.uuid, ())):
            shares[pod].append(share)
            left -= share.portion
        idle_watts += max(left, 0.0) * (gpu.watts or 0.0)
    in_use = tuple(gpu.uuid for gpu in gpus if gpu.uuid not in held and gpu.in_use)
    owners = {uuid: frozenset(one.pod for one in holdings) for uuid, holdings in held.items()}
    return Attribution({pod: tuple(one) for pod, one in sorted(shares.items())}, idle_watts, in_use, owners)


def _by_gpu(gpus: Sequence[MeasuredGpu], allocations: Iterable[Allocation]) -> Mapping[str, list[_Holding]]:
    """By the UUID of the whole GPU. A device that NVML does not show explains no watts."""
    parents = {gpu.uuid: gpu.uuid for gpu in gpus} | {part.uuid: gpu.uuid for gpu in gpus for part in gpu.parts}
    by_minor = {gpu.minor: gpu.uuid for gpu in gpus if gpu.minor is not None}
    held: dict[str, list[_Holding]] = defaultdict(list)
    for allocation in allocations:
        for device in allocation.devices:
            parent = parents.get(device.uuid) if device.uuid else by_minor.get(device.minor)
            if parent is not None:
                held[parent].append(_Holding(allocation.pod, device))
    return held


def _shares(gpu: MeasuredGpu, held: Sequence[_Holding]) -> Iterator[tuple[PodName, PodShare]]:
    known = {part.uuid for part in gpu.parts}
    if any(one.device.mig or one.device.uuid in known for one in held):
        return _shares_of_parts(gpu, held)
    return _shares_of_whole(gpu, sorted({one.pod for one in held}))


def _shares_of_whole(gpu: MeasuredGpu, pods: Sequence[PodName]) -> Iterator[tuple[PodName, PodShare]]:
    shared = len(pods) > 1
    certainty = Certainty.PROPORTIONAL if shared else Certainty.EXACT
    busy = [gpu.process_percent.get(pod, 0.0) for pod in pods]
    for pod, portion in zip(pods, _portions(gpu, [1.0] * len(pods), busy, len(pods)), strict=True):
        activity = gpu.process_percent.get(pod) if shared and gpu.process_percent else gpu.activity_percent
        yield pod, PodShare(gpu.uuid, portion, _times(gpu.watts, portion), activity, certainty, shared)


def _shares_of_parts(gpu: MeasuredGpu, held: Sequence[_Holding]) -> Iterator[tuple[PodName, PodShare]]:
    """MIG devices. One that DRA gave out is known by its size alone, so then nothing is known of those left over."""
    holders: dict[MigPart, list[PodName]] = defaultdict(list)
    known = {part.uuid: part for part in gpu.parts}
    for one in held:
        part = known.get(one.device.uuid) or MigPart(gpu.uuid, _slices(one.device), name=one.device.mig)
        holders[part].append(one.pod)
    named = all(part.uuid in known for part in holders)
    parts = list(dict.fromkeys((*holders, *gpu.parts))) if named else list(holders)
    sizes = [float(part.slices) for part in parts]
    busy = [size * (part.activity_percent or 0.0) for size, part in zip(sizes, parts, strict=True)]
    whole = max(SLICES_OF_A_GPU, sum(sizes))
    for part, portion in zip(parts, _portions(gpu, sizes, busy, whole), strict=True):
        pods = sorted(set(holders.get(part, ())))
        for pod in pods:
            own = portion / len(pods)
            watts, shared = _times(gpu.watts, own), len(pods) > 1
            yield pod, PodShare(part.uuid, own, watts, part.activity_percent, Certainty.ESTIMATED, shared)


def _slices(device: Device) -> int:
    """From the driver's name: `gpu-<minor>-mig-<slices>g<memory>gb-<profile>-<start>`.

    Of older drivers `gpu-<minor>-mig-<profile>-<start>-<memory slices>`: the last, of eight.
    """
    if profile := _PROFILE.search(device.mig):
        return min(int(profile[1]), SLICES_OF_A_GPU)
    size = device.mig.rpartition("-")[2]
    return min(int(size), SLICES_OF_A_GPU) if size.isdecimal() and int(size) else 1


def _portions(gpu: MeasuredGpu, sizes: Sequence[float], busy: Sequence[float], whole: float) -> list[float]:
    """Of the GPU's draw: what it draws idle by `sizes` of `whole`, the rest by who is `busy`, by size where none is."""
    if not gpu.watts:
        return [size / whole for size in sizes]
    idle_watts = min(gpu.idle_watts, gpu.watts)
    weights = busy if sum(busy) > 0 else sizes
    active_watts = (gpu.watts - idle_watts) / sum(weights) if sizes else 0.0
    return [
        (idle_watts * size / whole + active_watts * weight) / gpu.watts
        for size, weight in zip(sizes, weights, strict=True)
    ]


def _times(watts: float | None, portion: float) -> float | None:
    return None if watts is None else watts * portion


class EnergyMeter:
    """Joules of each pod since it was first listed."""

    def __init__(self) -> None:
        self._joules: dict[PodName, float] = {}
        self._counters: dict[str, float | None] = {}
        self._owners: Mapping[str, frozenset[PodName]] = {}
        self._at = 0.0

    def add(self, gpus: Sequence[MeasuredGpu], attribution: Attribution, now: float) -> Mapping[PodName, float]:
        """Take one round at `now` (monotonic seconds); joules of the pods that are listed in it.

        By the GPUs' own counters; where one stands still, fell back or is not told, by watts and time.
        """
        drawn = {gpu.uuid: self._drawn_joules(gpu, now - self._at) for gpu in gpus}
        parents = {part.uuid: gpu.uuid for gpu in gpus for part in gpu.parts}
        joules = dict.fromkeys(attribution.pods, 0.0)
        for pod, shares in attribution.pods.items():
            if pod in self._joules:
                added = sum(share.portion * drawn[parents.get(share.device, share.device)] for share in shares)
                joules[pod] = self._joules[pod] + added
        self._counters = {gpu.uuid: self._counter(gpu, attribution.owners.get(gpu.uuid)) for gpu in gpus}
        self._owners, self._at, self._joules = attribution.owners, now, joules
        return joules

    def _counter(self, gpu: MeasuredGpu, owners: frozenset[PodName] | None) -> float | None:
        """Of a GPU that says nothing at all the last one: what it counts meanwhile is told when it speaks again.

        Not where others hold it by then: nobody knows whose energy that was.
        """
        if gpu.energy_joules is not None or gpu.watts is not None:
            return gpu.energy_joules
        return self._counters.get(gpu.uuid) if owners == self._owners.get(gpu.uuid) else None

    def _drawn_joules(self, gpu: MeasuredGpu, seconds: float) -> float:
        before = self._counters.get(gpu.uuid)
        if gpu.energy_joules is None or before is None or gpu.energy_joules < before:
            return (gpu.watts or 0.0) * seconds
        return gpu.energy_joules - before


class IdleDraw:
    """What a GPU draws with nothing to do: the lowest draw seen, never more than a GPU without a context draws."""

    def __init__(self) -> None:
        self._lowest: dict[str, float] = {}

    def watts(self, uuid: str, watts: float | None, maximum_limit_watts: float | None) -> float:
        """Take one reading; the idle watts as far as known."""
        if watts is not None:
            self._lowest[uuid] = min(watts, self._lowest.get(uuid, watts))
        lowest = self._lowest.get(uuid, 0.0)
        return lowest if maximum_limit_watts is None else min(lowest, IDLE_SHARE_OF_LIMIT * maximum_limit_watts)
