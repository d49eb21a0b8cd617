"""What each domain draws by the last word of its nodes, and what the end of a pod would take off it.

A node that fell silent, or says what cannot be, goes on counting with what it drew last, as far as its GPUs are still
held: so silence neither moves the draw, nor keeps it up when the replicas there have ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from penstock.core.evidence import Evidence
from penstock.core.fleet import Fleet
from penstock.core.model import Gpu, Pod, Telemetry
from penstock.core.power import started
from penstock.core.row import Row

IDLE_SHARE = 0.15
"""A GPU that nobody holds draws about a tenth of its maximum, so one that draws more than this is not idle."""
LEAST_MARGIN_CELSIUS = 5.0
"""A GPU that is nearer than this to slowing down is not given hotter neighbours."""

Watts = Mapping[str, float]
"""Domain → watts at its PDU, overhead included."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Watts by domain at one moment; which have a GPU whose hardware slows itself down, or is about to."""

    watts: Watts
    braked: frozenset[str]
    hot: frozenset[str]


@dataclass(frozen=True, slots=True)
class Believed:
    """A node's last believable report, and what each of its GPUs drew when it last said so."""

    telemetry: Telemetry
    watts: Mapping[str, float]
    sum_watts: float
    braked: bool
    hot: bool


Last = Mapping[str, Believed]
"""By node."""
NOTHING_KNOWN: Last = MappingProxyType({})


def remembered(fleet: Fleet, last: Last) -> Last:
    """With what the fleet's nodes say now, as far as it can be believed."""
    found: dict[str, Believed] = {}
    for row in fleet.rows:
        name, telemetry = row.view.node.name, row.view.telemetry
        before = last.get(name)
        if telemetry is None or row.evidence is not Evidence.FRESH or (before and before.telemetry is telemetry):
            if before:
                found[name] = before
            continue
        known = before.watts if before else {}
        watts = {
            gpu.uuid: known.get(gpu.uuid) if gpu.power_watts is None else gpu.power_watts for gpu in telemetry.gpus
        }
        told = {uuid: one for uuid, one in watts.items() if one is not None}
        found[name] = Believed(telemetry, told, sum(told.values()), _braked(telemetry), _hot(telemetry))
    return found


def draw(fleet: Fleet, last: Last) -> Draw:
    """What every domain draws: its static load and that of those below it, and its nodes' overhead and GPUs.

    `last` is what is remembered with this fleet.
    """
    columns, names = fleet.columns, [domain.name for domain in fleet.domains]
    gpu_watts = np.array([_gpu_watts(row, last) for row in fleet.rows])
    charged = columns.overhead + columns.factor * gpu_watts[:, None]
    sums = np.bincount(columns.domain.ravel(), weights=charged.ravel(), minlength=len(names) + 1)
    static = fleet.context.tree.totals([domain.static_watts for domain in fleet.domains])
    watts = {name: float(sums[at]) + static[at] for at, name in enumerate(names)}
    # One hot GPU is an emergency of its row at most, not of the whole site.
    fresh = [
        (names[row.domains[0]], last[row.view.node.name])
        for row in fleet.rows
        if row.domains and row.evidence is Evidence.FRESH
    ]
    braked = frozenset(name for name, said in fresh if said.braked)
    return Draw(watts, braked, frozenset(name for name, said in fresh if said.hot))


def saved_watts(fleet: Fleet, pod: Pod, last: Last = NOTHING_KNOWN) -> Watts:
    """What the end of a pod takes off each domain of its node: what its GPUs draw above idle, with their overhead."""
    return next(savings(fleet, (pod,), last))


def savings(fleet: Fleet, pods: Iterable[Pod], last: Last = NOTHING_KNOWN) -> Iterator[Watts]:
    """The same for many pods, one after the other."""
    known: dict[int, _Node] = {}
    for pod in pods:
        at = fleet.position.get(pod.node)
        if at is None or not pod.gpus or not started(pod):
            yield {}
            continue
        row = fleet.rows[at]
        node = known.get(at) or known.setdefault(at, _node(row, last))
        told = node.told_watts.get((pod.namespace, pod.name), node.watts_per_held_gpu * pod.gpus)
        above_idle = max(0.0, told - pod.gpus * node.idle_watts)
        yield {rule.name: (1.0 + rule.per_gpu_watt) * above_idle for rule in row.rules}


@dataclass(frozen=True, slots=True)
class _Node:
    """What a node's report says of its pods: by the kubelet's word where it gave one, else as a share."""

    idle_watts: float
    watts_per_held_gpu: float
    told_watts: Mapping[tuple[str, str], float]


def _node(row: Row, last: Last) -> _Node:
    fresh = row.evidence is Evidence.FRESH
    pods = (row.view.telemetry.pods if row.view.telemetry and fresh else None) or ()
    told = {(one.namespace, one.name): one.watts for one in pods if one.watts is not None}
    held, watts = _held(row), _hottest_first(row, last)
    return _Node(_idle_watts(row, watts), sum(watts[:held]) / held if held else 0.0, told)


def _gpu_watts(row: Row, last: Last) -> float:
    if row.evidence is Evidence.FRESH:
        return last[row.view.node.name].sum_watts
    watts, held = _hottest_first(row, last), _held(row)
    if held >= len(watts):
        return sum(watts)
    return sum(watts[:held]) + (len(watts) - held) * _idle_watts(row, watts)


def _idle_watts(row: Row, hottest_first: Sequence[float]) -> float:
    """Per GPU."""
    gpus = row.view.telemetry.gpus if row.view.telemetry else ()
    coolest = hottest_first[-1] if hottest_first else 0.0
    return min(coolest, min((IDLE_SHARE * gpu.maximum_watts for gpu in gpus if gpu.maximum_watts), default=coolest))


def _hottest_first(row: Row, last: Last) -> list[float]:
    """What each GPU draws now, or drew when its node last said so."""
    gpus: tuple[Gpu, ...] = row.view.telemetry.gpus if row.view.telemetry else ()
    before = last.get(row.view.node.name)
    if row.evidence is not Evidence.FRESH and before:
        return sorted(before.watts.values(), reverse=True)
    known = before.watts if before else {}
    return sorted(
        (known.get(gpu.uuid, 0.0) if gpu.power_watts is None else max(0.0, gpu.power_watts) for gpu in gpus),
        reverse=True,
    )


def _held(row: Row) -> int:
    return sum(pod.gpus for pod in row.view.pods if started(pod))


def _hot(telemetry: Telemetry) -> bool:
    margins = (gpu.thermal_margin_celsius for gpu in telemetry.gpus)
    return any(margin is not None and margin < LEAST_MARGIN_CELSIUS for margin in margins)


def _braked(telemetry: Telemetry) -> bool:
    return any(gpu.thermally_throttled for gpu in telemetry.gpus)
