"""What each domain draws by the last word of its nodes, and what the end of a pod would take off it.

A node that fell silent goes on counting with what it drew last, as far as its GPUs are still held: so silence neither
raises the draw, nor keeps it up when the replicas there have ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from penstock.core.evidence import Evidence
from penstock.core.fleet import Fleet
from penstock.core.model import Pod
from penstock.core.power import started
from penstock.core.row import Row

IDLE_SHARE = 0.15
"""A GPU that nobody holds draws about a tenth of its maximum, so one that draws more than this is not idle."""

Watts = Mapping[str, float]
"""Domain → watts at its PDU, overhead included."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Watts by domain at one moment, and which of them have a GPU whose hardware slows itself down."""

    watts: Watts
    braked: frozenset[str]


def draw(fleet: Fleet) -> Draw:
    """What every domain draws: its static load and that of those below it, and its nodes' overhead and GPUs."""
    columns, names = fleet.columns, [domain.name for domain in fleet.domains]
    gpu_watts = np.array([_gpu_watts(row) for row in fleet.rows])
    charged = columns.overhead + columns.factor * gpu_watts[:, None]
    sums = np.bincount(columns.domain.ravel(), weights=charged.ravel(), minlength=len(names) + 1)
    static = fleet.context.tree.totals([domain.static_watts for domain in fleet.domains])
    watts = {name: float(sums[at]) + static[at] for at, name in enumerate(names)}
    # One hot GPU is an emergency of its row at most, not of the whole site.
    braked = (row.domains[0] for row in fleet.rows if row.domains and row.evidence is Evidence.FRESH and _braked(row))
    return Draw(watts, frozenset(names[at] for at in braked))


def saved_watts(fleet: Fleet, pod: Pod) -> Watts:
    """What the end of a pod takes off each domain of its node: what its GPUs draw above idle, with their overhead."""
    return next(savings(fleet, (pod,)))


def savings(fleet: Fleet, pods: Iterable[Pod]) -> Iterator[Watts]:
    """The same for many pods, one after the other."""
    known: dict[int, _Node] = {}
    for pod in pods:
        at = fleet.position.get(pod.node)
        if at is None or not pod.gpus or not started(pod):
            yield {}
            continue
        row = fleet.rows[at]
        node = known.get(at) or known.setdefault(at, _node(row))
        told = node.told_watts.get((pod.namespace, pod.name), node.watts_per_held_gpu * pod.gpus)
        above_idle = max(0.0, told - pod.gpus * node.idle_watts)
        yield {rule.name: (1.0 + rule.per_gpu_watt) * above_idle for rule in row.rules}


@dataclass(frozen=True, slots=True)
class _Node:
    """What a node's report says of its pods: by the kubelet's word where it gave one, else as a share."""

    idle_watts: float
    watts_per_held_gpu: float
    told_watts: Mapping[tuple[str, str], float]


def _node(row: Row) -> _Node:
    pods = (row.view.telemetry and row.view.telemetry.pods) or ()
    told = {(one.namespace, one.name): one.watts for one in pods if one.watts is not None}
    held = _held(row)
    return _Node(_idle_watts(row), sum(_hottest_first(row)[:held]) / held if held else 0.0, told)


def _gpu_watts(row: Row) -> float:
    if row.evidence is Evidence.FRESH or row.view.telemetry is None:
        return row.power.now_watts
    watts = _hottest_first(row)
    held = _held(row)
    return sum(watts[:held]) + (len(watts) - held) * _idle_watts(row) if held < len(watts) else sum(watts)


def _idle_watts(row: Row) -> float:
    """Per GPU."""
    gpus = row.view.telemetry.gpus if row.view.telemetry else ()
    coolest = min((gpu.power_watts or 0.0 for gpu in gpus), default=0.0)
    return min(coolest, min((IDLE_SHARE * gpu.maximum_watts for gpu in gpus if gpu.maximum_watts), default=coolest))


def _hottest_first(row: Row) -> list[float]:
    gpus = row.view.telemetry.gpus if row.view.telemetry else ()
    return sorted((gpu.power_watts or 0.0 for gpu in gpus), reverse=True)


def _held(row: Row) -> int:
    return sum(pod.gpus for pod in row.view.pods if started(pod))


def _braked(row: Row) -> bool:
    return row.view.telemetry is not None and any(gpu.thermally_throttled for gpu in row.view.telemetry.gpus)
