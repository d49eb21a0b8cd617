"""What the status says of pods: joined from the kubelet's list and one round of readings, twice per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

from penstock.agent.attribution import EnergyMeter, IdleDraw, MeasuredGpu, MigPart, PodShare, attribute
from penstock.agent.podresources import Allocation, PodName
from penstock.agent.processes import HostPods
from penstock.agent.report import GpuStatus, PodStatus

UNEXPLAINED_SECONDS = 5.0
"""A GPU that works for so long though no pod holds it is in use by somebody else: longer than activity lags behind."""

MOST_CLAIMS = 64
"""As many as the status holds."""

Processes = Mapping[str, tuple[tuple[int, float], ...]]
"""By the UUID of a GPU: process id on the host, percent of its SMs."""
OwnedBy = Callable[[Mapping[str, frozenset[PodName]], float], None]


class HeldDevices(Protocol):
    """The kubelet's word."""

    @property
    def listed_at(self) -> float: ...

    def allocations(self, now: float) -> tuple[Allocation, ...] | None: ...

    def look_again(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PodsReport:
    """The fields of the status that are about pods: empty where nobody is asked, or the kubelet did not answer."""

    pod_resources: Literal["Read", "Unavailable"] | None = None
    pods: tuple[PodStatus, ...] = ()
    idle_watts: float | None = None
    unallocated_in_use: tuple[str, ...] = ()


class Holders:
    """Keeps what is summed up over time: joules of each pod, the lowest draw of each GPU. `resources` None: off.

    `owned_by` is told who holds which GPU (by UUID) whenever the kubelet was heard. `host_pods` knows the pods of
    processes; without it who shares a GPU in turns is taken for equal.
    """

    def __init__(
        self,
        resources: HeldDevices | None,
        owned_by: OwnedBy = lambda _owners, _now: None,
        host_pods: HostPods | None = None,
    ) -> None:
        self._resources = resources
        self._host_pods = host_pods
        self._owned_by = owned_by
        self._energy = EnergyMeter()
        self._idle = IdleDraw()
        self._in_use: set[str] = set()
        self._unexplained_since: dict[str, float] = {}

    def report(
        self,
        gpus: Sequence[GpuStatus],
        now: float,
        processes: Processes = MappingProxyType({}),
        minors: Mapping[str, int] = MappingProxyType({}),
    ) -> PodsReport:
        """At `now` in monotonic seconds; `processes` and `minors` by the UUID of their GPU.

        A GPU that does not tell its minor number is taken for the one of its index, unless another tells that one.
        """
        told = frozenset(minors.values())
        assumed = {gpu.uuid: gpu.index for gpu in gpus if gpu.index not in told}
        measured = [
            self._measured(gpu, processes.get(gpu.uuid, ()), {**assumed, **minors}.get(gpu.uuid)) for gpu in gpus
        ]
        if self._host_pods:
            self._host_pods.keep(pid for each in processes.values() for pid, _ in each)
        if self._resources is None:
            return PodsReport()
        in_use = {gpu.uuid for gpu in measured if gpu.in_use}
        if in_use != self._in_use:
            # Somebody came or left.
            self._resources.look_again()
        self._in_use = in_use
        held = self._resources.allocations(now)
        if held is None:
            return PodsReport("Unavailable")
        found = attribute(measured, held)
        self._owned_by(found.owners, now)
        joules = self._energy.add(measured, found, now)
        unexplained = self._unexplained(found.unallocated_in_use, self._resources.listed_at, now)
        claims = {one.pod: one.claims for one in held}
        pods = tuple(_pod_status(pod, shares, joules[pod], claims[pod]) for pod, shares in found.pods.items())
        return PodsReport("Read", pods, round(found.idle_watts, 1), unexplained)

    def _measured(self, gpu: GpuStatus, processes: Sequence[tuple[int, float]], minor: int | None) -> MeasuredGpu:
        # Whose they are matters only where there are several.
        told = self._host_pods if len(processes) > 1 else None
        return MeasuredGpu(
            uuid=gpu.uuid,
            minor=minor,
            watts=gpu.power_watts,
            idle_watts=self._idle.watts(gpu.uuid, gpu.power_watts, gpu.maximum_limit_watts),
            energy_joules=gpu.energy_joules,
            activity_percent=gpu.activity_percent,
            memory_used_bytes=gpu.memory_used_bytes,
            process_percent=told.sm_percent(processes) if told else {},
            parts=tuple(
                MigPart(device.uuid, device.slices or 1, device.activity_percent) for device in gpu.mig_instances
            ),
        )

    def _unexplained(self, uuids: tuple[str, ...], listed_at: float, now: float) -> tuple[str, ...]:
        """GPUs that have worked without a pod for longer than both activity and the kubelet's list may lag behind."""
        self._unexplained_since = {uuid: self._unexplained_since.get(uuid, now) for uuid in uuids}
        return tuple(
            uuid
            for uuid, since in self._unexplained_since.items()
            if since < listed_at and now - since >= UNEXPLAINED_SECONDS
        )


def _pod_status(pod: PodName, shares: Sequence[PodShare], joules: float, claims: tuple[str, ...]) -> PodStatus:
    watts = _known([share.watts for share in shares])
    activity = _known([share.activity_percent for share in shares])
    return PodStatus(
        namespace=pod.namespace,
        name=pod.name,
        devices=tuple(sorted({share.device for share in shares})),
        claims=claims[:MOST_CLAIMS],
        shared=any(share.shared for share in shares),
        watts=None if watts is None else round(sum(watts), 1),
        energy_joules=round(joules, 1),
        activity_percent=None if activity is None else round(sum(activity) / len(activity), 1),
        attribution=max(share.certainty for share in shares).word,
    )


def _known(figures: Sequence[float | None]) -> list[float] | None:
    """All of them, or None: a sum that lacks one would be too low."""
    known = [figure for figure in figures if figure is not None]
    return known if len(known) == len(figures) else None
