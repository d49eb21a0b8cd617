"""What each domain draws by the last word of its nodes, and what the end of a pod would take off it.

A node that fell silent, or says what cannot be, goes on counting with what it drew last, less what those drew who have
left since: so silence neither moves the draw, nor keeps it up when the replicas there have ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from penstock.core.health import LEAST_THERMAL_MARGIN_CELSIUS
from penstock.core.model import Gpu, Pod, PodGpus, Telemetry
from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.row import Row
from penstock.core.power.holding import counted, holdings, physical_gpus
from penstock.core.power.node_watts import started

IDLE_SHARE = 0.15
"""A GPU that nobody holds draws about a tenth of its maximum, so one that draws more than this is not idle."""

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
    """What a node draws by its last believable report."""

    row: Row
    """Of which this was worked out: where the fleet's is the same, so is this."""
    watts: Mapping[str, float] | None
    """What each of its GPUs drew when it last said so; None before the first report that can be believed."""
    sum_watts: float
    """Of all its GPUs; where it fell silent, less what pods drew that have left since."""
    held: int | None = None
    """How many GPUs pods held when it last said so."""
    braked: bool = False
    hot: bool = False


Last = Mapping[str, Believed]
"""By node."""
NOTHING_KNOWN: Last = MappingProxyType({})


def remembered(fleet: Fleet, last: Last) -> Last:
    """With what the fleet's nodes say now, as far as it can be believed."""
    return {
        name: known if (known := last.get(name)) is not None and known.row is row else _believed(row, known)
        for name, row in zip(fleet.position, fleet.rows, strict=True)
    }


def _believed(row: Row, before: Believed | None) -> Believed:
    watts, held = (before.watts, before.held) if before else (None, None)
    telemetry = row.view.telemetry
    if _is_off(row):
        return Believed(row, None, 0.0)
    if telemetry is None or row.evidence is not Evidence.FRESH:
        return Believed(row, watts, _silent_watts(row, watts, held), held)
    told = _said(row, watts or {})
    if before is None or not _is_of_the_same_report(row, before.row):
        held = _held(row)  # Who left since then is in its figures still.
    return Believed(row, told, sum(told.values()), held, _braked(telemetry), _hot(telemetry))


def _is_off(row: Row) -> bool:
    """Whether it draws nothing: it has no GPUs, or somebody vouches that it is off."""
    return not row.power.planned_watts


def _said(row: Row, known: Mapping[str, float]) -> Mapping[str, float]:
    """What each GPU draws by its node's report; by the last one where this says nothing of it and a pod may hold it.

    Of GPUs that it leaves out as many are there still as the node has more than it tells of.
    """
    gpus = row.view.telemetry.gpus if row.view.telemetry else ()
    said = {gpu.uuid: gpu.power_watts for gpu in gpus if gpu.power_watts is not None}
    unsaid = known.keys() - said.keys()
    if not unsaid:
        return said
    free, idle_watts = _free(row, unsaid), _idle_watts(row, known.values())
    last = {uuid: min(known[uuid], idle_watts) if uuid in free else known[uuid] for uuid in unsaid}
    named = {uuid: last[uuid] for gpu in gpus if (uuid := gpu.uuid) in last}
    left_out = sorted(((watts, uuid) for uuid, watts in last.items() if uuid not in named), reverse=True)
    there = left_out[: max(0, physical_gpus(row.view.node) - len(gpus))]
    return said | named | {uuid: watts for watts, uuid in there}


def _free(row: Row, uuids: AbstractSet[str]) -> AbstractSet[str]:
    """Those of these GPUs that nobody holds by the kubelet's word: whoever worked there has ended."""
    telemetry = row.view.telemetry
    held = holdings(row.view.node, telemetry, row.view.pods)
    if telemetry is None or telemetry.pods is None or any(map(started, held.unknown)):
        return frozenset()
    return uuids - held.known.keys()


def _is_of_the_same_report(row: Row, other: Row) -> bool:
    one, another = row.view.telemetry, other.view.telemetry
    return one is not None and another is not None and one.sequence == another.sequence


def draw(fleet: Fleet, last: Last) -> Draw:
    """What every domain draws: its static load and that of those below it, and its nodes' overhead and GPUs.

    `last` is what is remembered with this fleet.
    """
    columns, names = fleet.columns, [domain.name for domain in fleet.domains]
    gpu_watts = np.fromiter((one.sum_watts for one in last.values()), dtype=np.float64, count=len(last))
    charged = columns.overhead + columns.factor * gpu_watts[:, None]
    sums = np.bincount(columns.domain.ravel(), weights=charged.ravel(), minlength=len(names) + 1)
    static = fleet.context.tree.totals([domain.static_watts for domain in fleet.domains])
    watts = {name: float(sums[at]) + static[at] for at, name in enumerate(names)}
    # One hot GPU is an emergency of its row at most, not of the whole site.
    braked = frozenset(names[one.row.domains[0]] for one in last.values() if one.braked and one.row.domains)
    hot = frozenset(names[one.row.domains[0]] for one in last.values() if one.hot and one.row.domains)
    return Draw(watts, braked, hot)


def saved_watts(fleet: Fleet, pod: Pod, last: Last = NOTHING_KNOWN) -> Watts:
    """What the end of a pod takes off each domain of its node: what its GPUs draw above idle, with their overhead."""
    return next(savings(fleet, (pod,), last))


def savings(fleet: Fleet, pods: Iterable[Pod], last: Last = NOTHING_KNOWN) -> Iterator[Watts]:
    """The same for many pods, one after the other."""
    known: dict[int, _Node] = {}
    for pod in pods:
        at = fleet.position.get(pod.node)
        gpus = pod.gpus + pod.parts
        if at is None or not gpus or not started(pod) or _is_off(fleet.rows[at]):
            yield {}
            continue
        row = fleet.rows[at]
        node = known.get(at) or known.setdefault(at, _node(row, last))
        told = node.told_watts.get((pod.namespace, pod.name), node.watts_per_held_gpu * gpus)
        above_idle = max(0.0, told - gpus * node.idle_watts)
        yield {rule.name: (1.0 + rule.per_gpu_watt) * above_idle for rule in row.rules}


def lingering_watts(fleet: Fleet, node: str, last: Last) -> Watts:
    """What a node's last report shows above idle on GPUs that nobody holds any more, per domain of the node.

    Where the kubelet did not say whose GPUs are whose, those who are still there hold the hottest.
    """
    at = fleet.position.get(node)
    # Of a silent node only what is still held counts as drawn, so there nothing lingers.
    if at is None or fleet.rows[at].evidence is not Evidence.FRESH or _is_off(fleet.rows[at]):
        return {}
    row, nameless = fleet.rows[at], _nameless(fleet.rows[at], last)
    idle = _idle_watts(row, _drawn(row, last).values())
    watts = sum(max(0.0, one - idle) for one in nameless.watts[nameless.held :])
    return {rule.name: (1.0 + rule.per_gpu_watt) * watts for rule in row.rules}


@dataclass(frozen=True, slots=True)
class _Node:
    """What a node's report says of its pods: by the kubelet's word where it gave one, else as a share."""

    idle_watts: float
    watts_per_held_gpu: float
    told_watts: Mapping[tuple[str, str], float]


def _node(row: Row, last: Last) -> _Node:
    drawn, nameless = _drawn(row, last), _nameless(row, last)
    told = {(one.namespace, one.name): watts for one in _listed(row) if (watts := _told_watts(one, drawn)) is not None}
    held = nameless.watts[: nameless.held]
    return _Node(_idle_watts(row, drawn.values()), sum(held) / len(held) if held else 0.0, told)


def _listed(row: Row) -> tuple[PodGpus, ...]:
    """What the kubelet says of the node's pods; nothing where its report counts no more."""
    fresh = row.view.telemetry and row.evidence is Evidence.FRESH
    return (row.view.telemetry.pods if row.view.telemetry and fresh else None) or ()


def _told_watts(one: PodGpus, drawn: Mapping[str, float]) -> float | None:
    if one.watts is not None or not one.uuids:
        return one.watts
    shares = one.shares or (1.0,) * len(one.uuids)
    return sum(drawn.get(uuid, 0.0) * share for uuid, share in zip(one.uuids, shares, strict=True))


@dataclass(frozen=True, slots=True)
class _Nameless:
    """What the GPUs draw, hottest first, that no pod here is known to hold; other pods hold the first `held`."""

    watts: Sequence[float]
    held: int


def _nameless(row: Row, last: Last) -> _Nameless:
    telemetry = row.view.telemetry if row.evidence is Evidence.FRESH else None
    held = holdings(row.view.node, telemetry, row.view.pods)
    watts = (watts for uuid, watts in _drawn(row, last).items() if uuid not in held.known)
    return _Nameless(sorted(watts, reverse=True), sum(gpus for pod, gpus in counted(held.unknown) if started(pod)))


def _silent_watts(row: Row, believed: Mapping[str, float] | None, held_before: int | None) -> float:
    """Who is left holds the hottest GPUs, those who left had the next; what drew without a pod goes on drawing.

    Where nobody knows how many were held, all of them were.
    """
    watts, held = sorted(_drawn_by(row, believed).values(), reverse=True), _held(row)
    left = max(0, min(len(watts) if held_before is None else held_before, len(watts)) - held)
    return sum(watts[:held]) + left * _idle_watts(row, watts) + sum(watts[held + left :])


def _idle_watts(row: Row, drawn: Iterable[float]) -> float:
    """Per GPU."""
    gpus = row.view.telemetry.gpus if row.view.telemetry else ()
    coolest = min(drawn, default=0.0)
    return min(coolest, min((IDLE_SHARE * gpu.maximum_watts for gpu in gpus if gpu.maximum_watts), default=coolest))


def _drawn(row: Row, last: Last) -> Mapping[str, float]:
    """What each GPU draws now, or drew when its node last said so."""
    before = last.get(row.view.node.name)
    return _drawn_by(row, before.watts if before else None)


def _drawn_by(row: Row, believed: Mapping[str, float] | None) -> Mapping[str, float]:
    if row.evidence is Evidence.FRESH:
        return _said(row, believed or {})
    if believed is not None:
        return believed
    gpus: tuple[Gpu, ...] = row.view.telemetry.gpus if row.view.telemetry else ()
    return {gpu.uuid: max(0.0, gpu.power_watts or 0.0) for gpu in gpus}


def _held(row: Row) -> int:
    whole = sum(gpus for pod, gpus in counted(row.view.pods) if started(pod))
    return whole + sum(bool(pod.parts) and started(pod) for pod in row.view.pods)


def _hot(telemetry: Telemetry) -> bool:
    margins = (gpu.thermal_margin_celsius for gpu in telemetry.gpus)
    return any(margin is not None and margin < LEAST_THERMAL_MARGIN_CELSIUS for margin in margins)


def _braked(telemetry: Telemetry) -> bool:
    return any(gpu.thermally_throttled or gpu.power_braked for gpu in telemetry.gpus)
