"""GPUNode reports, heard with distrust: what cannot be true is named, and makes the report count as stale.

An agent's word can only make its node worse. So a sequence that falls is not forgotten, a heartbeat that would keep
a dead agent fresh for hours is refused, and energy is held against watts from report to report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
from msgspec import structs

from penstock.api.names import CAPPER_MANAGER, DOUBT_MANAGER, LONGEST_HEARTBEAT_SECONDS
from penstock.cluster import wire_gpunode as wire
from penstock.cluster.parse.capper import capper, caps
from penstock.cluster.parse.pods import moment, unix_time
from penstock.core.mig import slices_of_gpu
from penstock.core.model import Gpu, GpuHealth, Platform, PodGpus, Telemetry
from penstock.core.telemetry import PlaceMark

IDLE_SHARE_OF_MAXIMUM = 0.25
"""Watts above this share of a GPU's maximum are load: no product of `reference/power` idles there."""
TRANSIENT_RATIO = 2.0
"""Sampled power may pass the maximum limit for a moment; twice the limit no GPU ever draws."""
LIMIT_RATIO = 1.25
"""Mean power over seconds may pass the enforced limit by control error only."""
SLACK_WATTS = 50.0
LONGEST_SAMPLE_HEARTBEATS = 3.0

MINUTE_SECONDS = 60.0
LONGEST_TREND_SECONDS = 5 * MINUTE_SECONDS
"""What was between two readings further apart is no trend."""

LONGEST_SHOWN = 64

_POWER_BRAKE = "HwPowerBrake"
_SLOWED_BY_HEAT = frozenset({"HwSlowdown", "HwThermalSlowdown", "SwThermalSlowdown"})

_OTHERS = frozenset({CAPPER_MANAGER, DOUBT_MANAGER})
_READ = "Read"

_HEALTH = {health.value: health for health in GpuHealth}

decode_gpu_node = msgspec.json.Decoder(wire.GpuNode).decode


@dataclass(frozen=True, slots=True)
class Heard:
    """The last report of one agent that we keep for comparison. `sample_at` is our clock when its sample last moved."""

    telemetry: Telemetry
    sampled_time: float
    sample_at: float


def hear(seen: wire.GpuNode, before: Heard | None, now: float, age_seconds: float | None) -> Heard:
    """Judge a report that arrived at `now` (monotonic).

    `age_seconds` is the API server's own age of the last write, where the report came in a list: then nothing says
    that it was written just now; infinite where the API server does not know it. Without a list it was.
    """
    status = seen.status or wire.GpuNodeStatus()
    read = moment(status.sampledAt)
    sampled = _sampled_time(status, read, before)
    gpus = _gpus(status, before, sampled)
    current = Telemetry(
        node=seen.metadata.name,
        sequence=max(status.sequence, before.telemetry.sequence if before else 0),
        heartbeat_seconds=min(max(status.heartbeatSeconds, 1.0), LONGEST_HEARTBEAT_SECONDS),
        heard_at=_heard_at(status.sequence, before, now, age_seconds),
        gpus=gpus,
        platform=_platform(status.platform),
        pods=tuple(_pods(status)) if status.podResources == _READ else None,
        unallocated_in_use=tuple(sorted(status.unallocatedInUse or ())),
        caps=caps(seen.spec),
        capper=capper(status.capper, before.telemetry.capper if before else None, now),
        place_marks=tuple(_place_marks(status.place)),
    )
    moved = before is None or sampled != before.sampled_time
    heard = Heard(current, sampled, now if moved or before is None else before.sample_at)
    never = "its agent has never reported" if seen.status is None else ""
    timeless = status.sampledAt and read is None
    told = f"sampledAt is {status.sampledAt[:LONGEST_SHOWN]!r}, which is no time" if timeless else ""
    contradiction = never or told or next(_contradictions(status, heard, before, now), "")
    return replace(heard, telemetry=replace(current, contradiction=contradiction)) if contradiction else heard


def _sampled_time(status: wire.GpuNodeStatus, read: datetime | None, before: Heard | None) -> float:
    """What is no time does not move the clock that later reports are held against."""
    if read is not None:
        return read.timestamp()
    return before.sampled_time if before and status.sampledAt else 0.0


def _heard_at(sequence: int, before: Heard | None, now: float, age_seconds: float | None) -> float:
    if before is not None and sequence <= before.telemetry.sequence:
        return before.telemetry.heard_at
    written_at = now - max(age_seconds or 0.0, 0.0)
    return max(written_at, before.telemetry.heard_at) if before else written_at


def last_status_write(seen: wire.GpuNode) -> float | None:
    """Unix time, by the API server's clock, of the agent's last write of the status; others write there too."""
    writers = seen.metadata.managedFields or ()
    times = [unix_time(one.time) for one in writers if one.subresource == "status" and one.manager not in _OTHERS]
    return max((one for one in times if one is not None), default=None)


def age_seconds(seen: wire.GpuNode, server_time: float | None) -> float | None:
    """The API server's own age of the last write, from its clock when it listed; None where a watch brought it."""
    if server_time is None:
        return None
    written = last_status_write(seen)
    # An object that was created with nothing but a name has no record of its writers (tried): then nobody knows.
    return float("inf") if written is None else server_time - written


# ----------------------------------------------------------------------------------------------- what cannot be true


def _contradictions(status: wire.GpuNodeStatus, heard: Heard, before: Heard | None, now: float) -> Iterator[str]:
    if not 0 < status.heartbeatSeconds <= LONGEST_HEARTBEAT_SECONDS:
        yield f"heartbeatSeconds is {status.heartbeatSeconds:g}, not in 1 to {LONGEST_HEARTBEAT_SECONDS:g}"
    yield from _impossible_set(heard.telemetry.gpus)
    yield from filter(None, map(_impossible_gpu, heard.telemetry.gpus))
    if before is not None:
        yield from _impossible_since(status, heard, before, now)


def _impossible_set(gpus: tuple[Gpu, ...]) -> Iterator[str]:
    for what, values in (("uuid", [gpu.uuid for gpu in gpus]), ("index", [str(gpu.index) for gpu in gpus])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            yield f"two GPUs say that their {what} is {twice[0]!r}"


def _impossible_gpu(gpu: Gpu) -> str:
    figures = _figures(gpu)
    if min(filter(None, figures), default=0) < 0:
        told = zip(_FIGURES, figures, strict=True)
        what, value = next((what, value) for what, value in told if value is not None and value < 0)
        return f"GPU {gpu.index}: {what} is {value:g}, below zero"
    if gpu.activity_percent is not None and gpu.activity_percent > 100:
        return f"GPU {gpu.index}: activity is {gpu.activity_percent:g} percent"
    if gpu.memory_used_bytes > gpu.memory_total_bytes:
        return f"GPU {gpu.index}: uses {gpu.memory_used_bytes} bytes of {gpu.memory_total_bytes}"
    return _impossible_watts(gpu)


def _impossible_watts(gpu: Gpu) -> str:
    maximum = gpu.maximum_watts
    if gpu.limit_watts == 0 or maximum == 0:
        return f"GPU {gpu.index}: a power limit of 0 W"
    if maximum is None:
        return ""
    if gpu.limit_watts is not None and gpu.limit_watts > maximum + 1:
        return f"GPU {gpu.index}: enforced limit {gpu.limit_watts:g} W above its maximum {maximum:g} W"
    for what, watts in (("power", gpu.power_watts), ("p95 power", gpu.planned_watts)):
        if watts is not None and watts > TRANSIENT_RATIO * maximum + SLACK_WATTS:
            return f"GPU {gpu.index}: {what} {watts:g} W, its maximum is {maximum:g} W"
    return ""


_FIGURES = (
    "power",
    "p95 power",
    "enforced limit",
    "age of the enforced limit",
    "maximum limit",
    "energy",
    "activity",
    "total memory",
    "used memory",
)


def _figures(gpu: Gpu) -> tuple[float | None, ...]:
    return (
        gpu.power_watts,
        gpu.planned_watts,
        gpu.limit_watts,
        gpu.limit_age_seconds,
        gpu.maximum_watts,
        gpu.energy_joules,
        gpu.activity_percent,
        gpu.memory_total_bytes,
        gpu.memory_used_bytes,
    )


def _impossible_since(status: wire.GpuNodeStatus, heard: Heard, before: Heard, now: float) -> Iterator[str]:
    known = before.telemetry
    if status.sequence < known.sequence:
        yield f"sequence fell from {known.sequence} to {status.sequence}; delete the GPUNode once its agent is right"
    if status.sequence == known.sequence:
        # The same report again keeps its verdict, a different one under the same number is no report.
        yield from _same_again(heard, before)
        return
    if heard.sampled_time < before.sampled_time:
        yield f"sampledAt went back by {before.sampled_time - heard.sampled_time:.1f} s"
    quiet_seconds = now - heard.sample_at
    if quiet_seconds > LONGEST_SAMPLE_HEARTBEATS * heard.telemetry.heartbeat_seconds:
        yield f"sampledAt stands still for {quiet_seconds:.0f} s while reports arrive"
    yield from _impossible_energy(heard, before)


def _same_again(heard: Heard, before: Heard) -> Iterator[str]:
    if before.telemetry.contradiction:
        yield before.telemetry.contradiction
    elif heard.telemetry.gpus != before.telemetry.gpus:
        yield f"two different reports carry the sequence {heard.telemetry.sequence}"


def _impossible_energy(heard: Heard, before: Heard) -> Iterator[str]:
    seconds = heard.sampled_time - before.sampled_time
    if seconds < 1.0:
        return
    earlier = {gpu.uuid: gpu for gpu in before.telemetry.gpus}
    for gpu in heard.telemetry.gpus:
        known = earlier.get(gpu.uuid)
        if known is not None and (told := _impossible_energy_of(gpu, known, seconds)):
            yield told


def _impossible_energy_of(gpu: Gpu, known: Gpu, seconds: float) -> str:
    if gpu.energy_joules is None or known.energy_joules is None:
        return ""
    # Times may be written in whole seconds, so the interval may be a second longer than it looks.
    mean_watts = (gpu.energy_joules - known.energy_joules) / (seconds + 1.0)
    if mean_watts == 0 and _draws(gpu) and _draws(known):
        return f"GPU {gpu.index}: energy stands still while it draws {gpu.power_watts:g} W"
    same_limit = gpu.limit_watts is not None and gpu.limit_watts == known.limit_watts
    if same_limit and mean_watts > (gpu.limit_watts or 0.0) * LIMIT_RATIO + SLACK_WATTS:
        return f"GPU {gpu.index}: energy rose by {mean_watts:.0f} W, its enforced limit is {gpu.limit_watts:g} W"
    told = (gpu.power_watts, gpu.planned_watts, known.power_watts, known.planned_watts)
    highest = max((watts for watts in told if watts is not None), default=None)
    if highest is not None and mean_watts > TRANSIENT_RATIO * highest + SLACK_WATTS:
        return f"GPU {gpu.index}: energy rose by {mean_watts:.0f} W, it reports at most {highest:g} W"
    return ""


def _draws(gpu: Gpu) -> bool:
    if gpu.power_watts is None or gpu.maximum_watts is None:
        return False
    return gpu.power_watts > IDLE_SHARE_OF_MAXIMUM * gpu.maximum_watts


def _gpus(status: wire.GpuNodeStatus, before: Heard | None, sampled_time: float) -> tuple[Gpu, ...]:
    gpus = tuple(_gpu(one) for one in status.gpus or ())
    if before is None:
        return gpus
    known = {gpu.uuid: gpu for gpu in before.telemetry.gpus}
    seconds = sampled_time - before.sampled_time
    return tuple(_with_trend(gpu, known.get(gpu.uuid), seconds) for gpu in gpus)


def _gpu(seen: wire.Gpu) -> Gpu:
    slowed = seen.throttleReasons or ()
    return Gpu(
        uuid=seen.uuid,
        index=seen.index,
        product=seen.product,
        memory_total_bytes=seen.memoryTotalBytes,
        memory_used_bytes=seen.memoryUsedBytes,
        power_watts=seen.powerWatts,
        planned_watts=seen.powerP95Watts,
        accounted_watts=seen.accountedWatts,
        limit_watts=seen.enforcedLimitWatts,
        # A limit without an age was never read back, as far as anyone can tell.
        limit_age_seconds=float("inf") if seen.enforcedLimitAgeSeconds is None else seen.enforcedLimitAgeSeconds,
        maximum_watts=seen.maximumLimitWatts,
        energy_joules=seen.energyJoules,
        activity_percent=seen.activityPercent,
        temperature_celsius=seen.temperatureCelsius,
        throttled=bool(slowed),
        health=_HEALTH.get(seen.health, GpuHealth.UNRESPONSIVE),
        requested_limit_watts=seen.requestedLimitWatts,
        minimum_watts=seen.minimumLimitWatts,
        default_watts=seen.defaultLimitWatts,
        thermal_margin_celsius=seen.thermalMarginCelsius,
        thermally_throttled=not _SLOWED_BY_HEAT.isdisjoint(slowed),
        power_braked=_POWER_BRAKE in slowed,
        mig=bool(seen.migMode),
        message=seen.message,
    )


def _pods(status: wire.GpuNodeStatus) -> Iterator[PodGpus]:
    """Who holds what, as the kubelet lists it, with the parents of MIG devices in their place."""
    share = {gpu.uuid: (gpu.uuid, 1.0) for gpu in status.gpus or ()}
    for gpu in status.gpus or ():
        for part in gpu.migInstances or ():
            slices = slices_of_gpu(part.profile)
            share[part.uuid] = (gpu.uuid, min((part.slices or slices) / slices, 1.0))
    for pod in status.pods or ():
        held: dict[str, float] = {}
        # A device that is in no reading of the same report belongs to no GPU that anybody knows.
        for parent, size in (share[device] for device in pod.devices or () if device in share):
            held[parent] = min(held.get(parent, 0.0) + size, 1.0)
        yield PodGpus(
            namespace=pod.namespace,
            name=pod.name,
            uuids=tuple(held),
            shares=tuple(held.values()),
            shared=pod.shared,
            watts=pod.watts,
            activity_percent=pod.activityPercent,
            attribution=pod.attribution,
            claims=tuple(pod.claims or ()),
        )


def _platform(seen: wire.Platform | None) -> Platform:
    if seen is None:
        return Platform()
    return Platform(seen.chassisSerial, seen.slot, seen.tray, seen.hostID, seen.fabricCluster, seen.fabricClique)


def _place_marks(seen: wire.PlaceStatus | None) -> Iterator[PlaceMark]:
    for one in (seen.conditions if seen else None) or ():
        yield PlaceMark(one.type, one.message, unix_time(one.lastTransitionTime) or 0.0)


def _with_trend(gpu: Gpu, known: Gpu | None, seconds: float) -> Gpu:
    """The GPU with how its margin moved, smoothed over a minute: sensors know whole degrees only."""
    if known is None or gpu.thermal_margin_celsius is None or known.thermal_margin_celsius is None:
        return gpu
    if seconds <= 0:
        return structs.replace(gpu, thermal_trend_celsius=known.thermal_trend_celsius)
    if seconds > LONGEST_TREND_SECONDS:
        return gpu
    moved = (gpu.thermal_margin_celsius - known.thermal_margin_celsius) * MINUTE_SECONDS / seconds
    weight, trend = min(seconds / MINUTE_SECONDS, 1.0), known.thermal_trend_celsius
    return structs.replace(gpu, thermal_trend_celsius=trend + weight * (moved - trend))
