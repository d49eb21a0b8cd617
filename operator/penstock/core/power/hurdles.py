"""Why a replica whose pool lets it be capped cannot be: field, value and remedy for whoever reads the pool's status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from penstock.core.model import Capper, CapperMode, Gpu, Pod, Telemetry
from penstock.core.placement.fleet import Fleet


class HurdleReason(StrEnum):
    """Reasons of the condition `Trimmable`. People alert on these words: they are API."""

    OUT_OF_RANGE = "CapOutOfRange"
    MIG = "MIG"
    SHARED = "SharedGPU"
    REFUSED = "CapRefused"
    NO_CAPPER = "NoCapper"
    UNKNOWN_GPUS = "UnknownGPUs"
    SWITCHED_OFF = "CapperOff"
    NOT_ENFORCED = "CapperObserves"


@dataclass(frozen=True, slots=True)
class Hurdle:
    """What keeps one replica from being capped, and what would mend it."""

    reason: HurdleReason
    message: str


def hurdles(fleet: Fleet, pods: Iterable[Pod], min_cap_watts: float, now_at: float) -> tuple[Hurdle, ...]:
    """One for each running pod that cannot be capped down to `min_cap_watts`, those of wrong input first."""
    order = list(HurdleReason)
    found = [hurdle for pod in pods if (hurdle := _hurdle(fleet, pod, min_cap_watts, now_at))]
    return tuple(sorted(found, key=lambda one: (order.index(one.reason), one.message)))


def _hurdle(fleet: Fleet, pod: Pod, min_cap_watts: float, now_at: float) -> Hurdle | None:
    at = fleet.position.get(pod.node)
    telemetry = fleet.rows[at].view.telemetry if at is not None else None
    if telemetry is None:
        return None  # That it is silent, another condition says.
    gpus = _own_gpus(telemetry, pod)
    found = (
        *_of_range(pod, gpus or telemetry.gpus, min_cap_watts),
        *_of_gpus(pod, telemetry, gpus, min_cap_watts),
        *_of_capper(pod, telemetry.capper, now_at),
    )
    return next(iter(found), None)


def _own_gpus(telemetry: Telemetry, pod: Pod) -> tuple[Gpu, ...]:
    own = {
        uuid
        for told in telemetry.pods or ()
        if (told.namespace, told.name) == (pod.namespace, pod.name)
        for uuid in told.uuids
    }
    return tuple(gpu for gpu in telemetry.gpus if gpu.uuid in own)


def _of_range(pod: Pod, gpus: Iterable[Gpu], min_cap_watts: float) -> Iterator[Hurdle]:
    for gpu in gpus:
        lowest, highest = gpu.minimum_watts, gpu.maximum_watts
        if lowest is None or highest is None or lowest <= min_cap_watts < highest:
            continue
        told = (
            f"spec.power.minCapWatts: {min_cap_watts:g}: a {gpu.product or 'GPU'} on {pod.node} takes {lowest:g} to "
            f"{highest:g} W: set at least {lowest:g} and less than {highest:g}"
        )
        yield Hurdle(HurdleReason.OUT_OF_RANGE, told)


def _of_capper(pod: Pod, capper: Capper | None, now_at: float) -> Iterator[Hurdle]:
    if capper is None or not capper.alive(now_at):
        told = f"no capper speaks on {pod.node}: set capper.enabled in the chart, or see why its pod does not run"
        yield Hurdle(HurdleReason.NO_CAPPER, told)
    elif capper.mode is CapperMode.OBSERVE:
        told = f"the capper on {pod.node} only says what it would set: set capper.mode to Enforce in the chart"
        yield Hurdle(HurdleReason.NOT_ENFORCED, told)
    elif capper.mode is CapperMode.OFF:
        told = f"node {pod.node} has the label penstock.dev/capper=off: remove it to let its GPUs be capped"
        yield Hurdle(HurdleReason.SWITCHED_OFF, told)
    else:
        yield from _of_refusal(pod, capper)


def _of_refusal(pod: Pod, capper: Capper) -> Iterator[Hurdle]:
    for one in capper.gpus:
        if one.pod_uid == pod.uid and capper.refuses(one.uuid, pod.uid):
            told = f"{one.reason} for {one.uuid}: see status.capper of gpunode/{pod.node}"
            yield Hurdle(HurdleReason.REFUSED, told)


def _of_gpus(pod: Pod, telemetry: Telemetry, gpus: tuple[Gpu, ...], min_cap_watts: float) -> Iterator[Hurdle]:
    written = f"spec.power.minCapWatts: {min_cap_watts:g}"
    if any(gpu.mig for gpu in gpus):
        told = (
            f"{written}: its GPU on {pod.node} is divided by MIG, and a limit would meet every pod on it: use whole"
            " GPUs, or leave minCapWatts out"
        )
        yield Hurdle(HurdleReason.MIG, told)
    elif telemetry.pods is None or not gpus:
        told = f"the kubelet on {pod.node} does not say which GPUs are its own: see agent.podResourcesSocket"
        yield Hurdle(HurdleReason.UNKNOWN_GPUS, told)
    elif any(one.shared for one in telemetry.pods if (one.namespace, one.name) == (pod.namespace, pod.name)):
        told = (
            f"{written}: it shares its GPU on {pod.node} with other pods, and a limit would meet them too: use whole"
            " GPUs, or leave minCapWatts out"
        )
        yield Hurdle(HurdleReason.SHARED, told)
