"""What Prometheus holds of the GPUs that DCGM exporters read, turned into the reports that agents would make.

Two times lie: an answer's own is that of its evaluation, and a sample's goes on rising while the exporter hangs. Only
a figure that moved proves that somebody read the GPU, and the energy counter of a powered GPU always moves. So a
reading is as old as the last move of its energy counter (of its watts, where energy is not exported), and a frozen
exporter ages like an agent that fell silent, across our restarts too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from penstock.cluster import wire_gpunode as wire
from penstock.cluster.parse.dcgm_fields import FRESH_INTERVALS, GAUGES, INSTANCE_LABEL, METERS, Gauge, Meter
from penstock.cluster.parse.pods import whole
from penstock.cluster.parse.prometheus import Series

MEBIBYTE = 2**20
DISAGREE_RATIO = 0.15
DISAGREE_WATTS = 25.0
"""Two exporters read one GPU at different moments; beyond both of these they read different things."""
ENERGY_GAP_RATIO = 1.15
"""Energy over time above watts by more than this: then the watts are wrong, and the larger figure is planned with."""

_NODE_LABELS = ("Hostname", "hostname", "node", "kubernetes_node")

APPLICATION_XIDS = frozenset({0, 13, 31, 43, 45, 68, 109})
"""Errors of the program that ran, by the list of NVIDIA's device plugin: the GPU itself is sound."""
CONTAINED_XIDS = frozenset({63, 92, 94})
"""Memory errors that the GPU dealt with itself; a reset that it waits for is told by `ROW_REMAP_PENDING`."""
LOST_XID = 79

_PER_INSTANCE = frozenset({Gauge.MEMORY_USED, Gauge.MEMORY_FREE, Gauge.MEMORY_RESERVED, Gauge.MEMORY_TOTAL})
"""What a MIG device has of its own, so that the GPU's is the sum."""

_REASONS = {
    0x4: "SwPowerCap",
    0x8: "HwSlowdown",
    0x20: "SwThermalSlowdown",
    0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrake",
}


# ----------------------------------------------------------------------------------------------------------- reports


class Answers(NamedTuple):
    """What the four queries gave, evaluated at one moment."""

    meters: list[Series]
    gauges: list[Series]
    planned: list[Series]
    accounted: list[Series]


@dataclass(frozen=True, slots=True)
class Report:
    """One node's GPUs. `sampled_time` is Prometheus' clock when the slowest of them last moved."""

    seen: wire.GpuNode
    sampled_time: float
    contradiction: str = ""


Line = list[tuple[float, str]]
"""The samples of one series, oldest first: Prometheus' time and the value as it was written. Most are never read."""


@dataclass(slots=True)
class _Tap:
    """One exporter's word on one GPU."""

    exporter: str
    node: str
    index: int
    product: str
    lines: dict[Meter, Line] = field(default_factory=dict)

    def take(self, meter: Meter, line: Line) -> None:
        # A shared GPU has a series for each of its pods, and one that changed hands has an ended one too.
        known = self.lines.get(meter)
        if line:
            self.lines[meter] = _merged(known, line) if known else line

    @property
    def witness(self) -> Line:
        return self.lines.get(Meter.ENERGY) or self.lines.get(Meter.WATTS) or []

    def last(self, meter: Meter) -> float | None:
        line = self.lines.get(meter)
        return float(line[-1][1]) if line else None

    def rises(self, meter: Meter) -> bool:
        line = self.lines.get(meter)
        return line is not None and float(line[-1][1]) > float(line[0][1])

    @property
    def mean_watts(self) -> float:
        line = self.lines.get(Meter.WATTS, [])
        return sum(float(text) for _, text in line) / len(line) if line else 0.0


def _merged(one: Line, other: Line) -> Line:
    """Both in order of time; where they speak at once, the larger figure."""
    found = dict(one)
    for time, text in other:
        found[time] = max(text, found.get(time, text), key=float)
    return sorted(found.items())


@dataclass(frozen=True, slots=True)
class _Now:
    """What the other three queries say, by UUID."""

    gauges: Mapping[str, Mapping[Gauge, float]]
    planned: Mapping[str, float]
    accounted: Mapping[str, float]


def reports(answers: Answers, nodes: Iterable[str], interval_seconds: float) -> list[Report]:
    """One report for each of `nodes` of which Prometheus holds a GPU that was ever seen to move."""
    taps = _taps(answers.meters, frozenset(nodes))
    now = _Now(_gauges(answers.gauges), _by_uuid(answers.planned, 1.0), _by_uuid(answers.accounted, 1e-3))
    readings: dict[str, list[_Reading]] = {}
    for uuid, spoken in sorted(taps.items()):
        current = _current(spoken, interval_seconds)
        for node in sorted({tap.node for tap in current}):
            readings.setdefault(node, []).append(_reading(uuid, node, current, now))
    return [_report(node, found, interval_seconds) for node, found in readings.items()]


def _taps(series: Iterable[Series], nodes: frozenset[str]) -> dict[str, list[_Tap]]:
    found: dict[str, dict[tuple[str, str], _Tap]] = {}
    for one in series:
        labels = one.metric
        node, uuid = _node(labels, nodes), labels.get("UUID", "")
        meter = METERS.get(labels.get("__name__", ""))
        if not node or not uuid or meter is None:
            continue
        exporter = f"{labels.get('job', '')} {labels.get('instance', '')}".strip()
        taps = found.setdefault(uuid, {})
        tap = taps.get((exporter, node))
        if tap is None:
            tap = taps[exporter, node] = _Tap(exporter, node, _index(labels), _product(labels))
        tap.take(meter, one.finite)
    return {uuid: [tap for tap in taps.values() if tap.witness] for uuid, taps in found.items()}


def _node(labels: Mapping[str, str], nodes: frozenset[str]) -> str:
    return next((labels[name] for name in _NODE_LABELS if labels.get(name) in nodes), "")


def _index(labels: Mapping[str, str]) -> int:
    return max(whole(labels.get("gpu", "")) or 0, 0)


def _product(labels: Mapping[str, str]) -> str:
    return labels.get("modelName", "").replace(" ", "-")


def _current(taps: list[_Tap], interval_seconds: float) -> list[_Tap]:
    """The exporters that speak for a GPU now. One that ended before another began was only replaced by it."""
    if not taps:
        return []
    newest = max(taps, key=lambda tap: tap.witness[-1][0])
    began, ended = newest.witness[0][0], newest.witness[-1][0]
    earliest = max(began, ended - interval_seconds)
    return [tap for tap in taps if tap is newest or tap.witness[-1][0] >= earliest]


# ---------------------------------------------------------------------------------------------------------- readings


@dataclass(frozen=True, slots=True)
class _Reading:
    gpu: wire.Gpu
    moved_time: float
    limit_time: float
    contradiction: str


def _reading(uuid: str, node: str, taps: list[_Tap], now: _Now) -> _Reading:
    own = next(tap for tap in taps if tap.node == node)
    limits = [line[-1] for tap in taps if (line := tap.lines.get(Meter.LIMIT))]
    gauges = now.gauges.get(uuid, {})
    watts = max((said for tap in taps if (said := tap.last(Meter.WATTS)) is not None), default=None)
    health, message = _health(gauges)
    gpu = wire.Gpu(
        uuid=uuid,
        index=own.index,
        product=own.product,
        memoryTotalBytes=_memory(gauges),
        memoryUsedBytes=round(gauges.get(Gauge.MEMORY_USED, 0.0) * MEBIBYTE),
        powerWatts=watts,
        powerP95Watts=_planned(watts, now.planned.get(uuid), now.accounted.get(uuid)),
        accountedWatts=now.accounted.get(uuid),
        enforcedLimitWatts=max((float(text) for _, text in limits), default=None),
        requestedLimitWatts=gauges.get(Gauge.REQUESTED),
        minimumLimitWatts=gauges.get(Gauge.MINIMUM),
        defaultLimitWatts=gauges.get(Gauge.DEFAULT),
        maximumLimitWatts=gauges.get(Gauge.MAXIMUM),
        activityPercent=_activity(gauges),
        temperatureCelsius=gauges.get(Gauge.TEMPERATURE),
        thermalMarginCelsius=gauges.get(Gauge.MARGIN),
        throttleReasons=_throttle_reasons(gauges, taps),
        health=health,
        message=message,
    )
    moved = min(_moved_time(tap.witness) for tap in taps)
    return _Reading(gpu, moved, min((time for time, _ in limits), default=moved), _disagreement(own, taps))


def _moved_time(line: Line) -> float:
    """When the newest value was first seen."""
    moved, last = line[-1]
    for time, text in reversed(line):
        if text != last:
            break
        moved = time
    return moved


def _planned(watts: float | None, planned: float | None, accounted: float | None) -> float | None:
    if planned is None:
        return watts
    larger = max(planned, watts or 0.0)
    return accounted if accounted is not None and accounted > ENERGY_GAP_RATIO * larger else larger


def _memory(gauges: Mapping[Gauge, float]) -> int:
    parts = (Gauge.MEMORY_USED, Gauge.MEMORY_FREE, Gauge.MEMORY_RESERVED)
    total = max(gauges.get(Gauge.MEMORY_TOTAL, 0.0), sum(gauges.get(part, 0.0) for part in parts))
    return round(total * MEBIBYTE)


def _activity(gauges: Mapping[Gauge, float]) -> float | None:
    for gauge in (Gauge.SM_ACTIVE, Gauge.ENGINE_ACTIVE, Gauge.UTILIZATION):
        value = gauges.get(gauge)
        if value is not None:
            # Under either of its names the utilization is a ratio in some releases and a percentage in others; what
            # could be both is taken for the busier.
            return 100 * value if value <= 1 else value
    return None


def _throttle_reasons(gauges: Mapping[Gauge, float], taps: list[_Tap]) -> list[str]:
    mask = int(gauges.get(Gauge.REASONS, 0.0))
    reasons = {name for bit, name in _REASONS.items() if mask & bit}
    for meter in (Meter.POWER_CAPPED, Meter.HEAT_CAPPED):
        if any(tap.rises(meter) for tap in taps):
            reasons.add(meter.value)
    return sorted(reasons)


def _health(gauges: Mapping[Gauge, float]) -> tuple[str, str]:
    xid = int(gauges.get(Gauge.XID, 0.0))
    if xid == LOST_XID:
        return "Lost", f"XID {xid}: the GPU fell off the bus"
    if gauges.get(Gauge.REMAP_FAILED, 0.0) > 0:
        return "Failed", "no spare memory row is left: exchange the GPU"
    if gauges.get(Gauge.REMAP_PENDING, 0.0) > 0:
        return "NeedsReset", "a memory row waits for a reset to be remapped"
    if xid not in APPLICATION_XIDS | CONTAINED_XIDS:
        return "NeedsReset", f"XID {xid} is the last error: reset the GPU and restart its exporter"
    return "Healthy", ""


def _disagreement(own: _Tap, taps: list[_Tap]) -> str:
    name = f"GPU {own.index}"
    for other in taps:
        if other is own:
            continue
        if other.node != own.node:
            return f"{name} is also reported of node {other.node}, by {other.exporter}: one of the two mislabels it"
        one_watts, other_watts = own.mean_watts, other.mean_watts
        if abs(one_watts - other_watts) > DISAGREE_RATIO * max(one_watts, other_watts) + DISAGREE_WATTS:
            told = f"{own.exporter} says {one_watts:.0f} W and {other.exporter} {other_watts:.0f} W"
            return f"{name}: {told}: scrape one exporter for each GPU"
    return ""


def _report(node: str, readings: list[_Reading], interval_seconds: float) -> Report:
    newest = max(reading.moved_time for reading in readings)
    patience = FRESH_INTERVALS * interval_seconds
    awake = [reading.moved_time for reading in readings if newest - reading.moved_time <= patience]
    sampled = min(awake)
    gpus = [_aged(reading, sampled, patience=patience, newest=newest) for reading in readings]
    status = wire.GpuNodeStatus(
        heartbeatSeconds=interval_seconds,
        sequence=round(1000 * sampled),
        sampledAt=datetime.fromtimestamp(sampled, UTC).isoformat(),
        gpus=gpus,
    )
    seen = wire.GpuNode(metadata=wire.WrittenMetadata(name=node), status=status)
    return Report(seen, sampled, next((one.contradiction for one in readings if one.contradiction), ""))


def _aged(reading: _Reading, sampled: float, *, patience: float, newest: float) -> wire.Gpu:
    """The reading with the age of its limit; a GPU that alone stands still is one that does not answer."""
    gpu = reading.gpu
    gpu.enforcedLimitAgeSeconds = max(0.0, sampled - reading.limit_time)
    if newest - reading.moved_time > patience and gpu.health == "Healthy":
        gpu.health, gpu.message = "Unresponsive", f"its figures stand still for {newest - reading.moved_time:.0f} s"
    return gpu


# ------------------------------------------------------------------------------------------------------------ tables


def _gauges(series: Iterable[Series]) -> dict[str, dict[Gauge, float]]:
    whole: dict[str, dict[Gauge, float]] = {}
    parts: dict[tuple[str, Gauge], list[float]] = {}
    for one in series:
        labels, value = one.metric, one.number
        gauge, uuid = GAUGES.get(labels.get("__name__", "")), labels.get("UUID", "")
        if gauge is None or not math.isfinite(value):
            continue
        if labels.get(INSTANCE_LABEL):
            parts.setdefault((uuid, gauge), []).append(value)
        else:
            _keep_worst(whole.setdefault(uuid, {}), gauge, [value])
    for (uuid, gauge), values in parts.items():
        found = whole.setdefault(uuid, {})
        if gauge not in _PER_INSTANCE:
            _keep_worst(found, gauge, values)
        elif gauge not in found:
            found[gauge] = sum(values)
    return whole


def _keep_worst(found: dict[Gauge, float], gauge: Gauge, values: list[float]) -> None:
    known = found.get(gauge)
    worst = min if gauge is Gauge.MARGIN else max
    found[gauge] = worst(values) if known is None else worst(*values, known)


def _by_uuid(series: Iterable[Series], scale: float) -> dict[str, float]:
    found = {one.metric.get("UUID", ""): scale * one.number for one in series}
    return {uuid: value for uuid, value in found.items() if math.isfinite(value)}
