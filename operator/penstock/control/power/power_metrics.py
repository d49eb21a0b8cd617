"""Every gauge of watts, with its labels: per domain, node and pool.

They are worked out when somebody asks, from the snapshot of the last report: a fleet that nobody scrapes costs
nothing, and what is gone has no series. A standby has no snapshot and so no series. Labels name domains, nodes and
pools, never pods.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.power.book import Statement
from penstock.core.power.ladder import Stage
from penstock.core.power.meter import DomainMeter, Meters, NodeMeter, PoolMeter
from penstock.metrics import Described

Source = TypeVar("Source")
Sample = tuple[tuple[str, ...], float]
"""Values of the labels after those of the object itself, and the figure."""
Sources = Sequence[tuple[tuple[str, ...], Source]]
"""Objects of one kind, each with the values of its own labels."""


@dataclass(frozen=True)
class Snapshot:
    """What the last report looked at."""

    fleet: Fleet
    statements: tuple[Statement, ...] = ()
    stages: Mapping[str, str] = field(default_factory=dict)
    """Stage of the ladder by domain; one that is not named admits."""


@dataclass(frozen=True)
class DomainFacts:
    statement: Statement
    meter: DomainMeter
    stage: str


@dataclass(frozen=True)
class Family(Generic[Source]):
    """One gauge: `of` gives its samples for one object."""

    name: str
    told: str
    labels: tuple[str, ...]
    of: Callable[[Source], Iterable[Sample]]


def _one(name: str, told: str, read: Callable[[Source], float | None]) -> Family[Source]:
    """A gauge with no label but its object's; None: no series."""

    def of(source: Source) -> Iterable[Sample]:
        value = read(source)
        return () if value is None else (((), value),)

    return Family(name, told, (), of)


def _each(name: str, told: str, label: str, read: Callable[[Source], Mapping[str, float]]) -> Family[Source]:
    """A gauge with one more label, whose values are the keys of a mapping."""
    return Family(name, told, (label,), lambda source: (((key,), value) for key, value in sorted(read(source).items())))


def _age(heard_at: float | None) -> float | None:
    """Seconds since an agent's word, at this very moment; None where none was heard."""
    return time.monotonic() - heard_at if heard_at is not None and math.isfinite(heard_at) else None


def _held(facts: DomainFacts) -> Iterator[Sample]:
    """By kind of holder, pools each by name: foreign pods are added up, since their number is not bounded by us."""
    held: dict[tuple[str, str, str], float] = defaultdict(float)
    for one in facts.statement.holders:
        namespace, _, pool = one.name.partition("/") if one.kind == "Pool" else ("", "", "")
        held[one.kind, namespace, pool] += one.watts
    yield from sorted(held.items())


_DOMAIN = "penstock_power_domain_"
DOMAINS: tuple[Family[DomainFacts], ...] = (
    _one(f"{_DOMAIN}budget_watts", "Budget in force, in watts.", lambda one: one.statement.budget_watts),
    _one(
        f"{_DOMAIN}usable_watts",
        "What decisions may fill, in watts: the lowest budget of the next 15 minutes, less margin.",
        lambda one: one.statement.usable_watts,
    ),
    _one(
        f"{_DOMAIN}committed_watts",
        "Watts promised: the larger of reserved and planned of each GPU, with overhead and static load.",
        lambda one: one.statement.committed_watts,
    ),
    Family(
        f"{_DOMAIN}held_watts",
        "Committed watts by kind of holder, for pools by pool; they add up to the committed watts.",
        ("kind", "namespace", "pool"),
        _held,
    ),
    _one(
        f"{_DOMAIN}headroom_watts",
        "Usable less committed watts; below zero where the domain is over.",
        lambda one: one.statement.headroom_watts,
    ),
    _one(
        f"{_DOMAIN}floor_watts", "Watts that it is charged with nothing placed.", lambda one: one.statement.floor_watts
    ),
    _one(
        f"{_DOMAIN}measured_watts",
        "Watts drawn now, with overhead and static load; the last known draw of nodes that went silent.",
        lambda one: one.statement.draw_watts,
    ),
    _one(
        f"{_DOMAIN}planned_watts",
        "Watts planned with: the 95th percentile over five minutes of each GPU, with overhead and static load.",
        lambda one: one.meter.planned_watts,
    ),
    _one(
        f"{_DOMAIN}accounted_watts",
        "Watts for billing: energy over time, with overhead and static load.",
        lambda one: one.meter.accounted_watts,
    ),
    _one(
        f"{_DOMAIN}limit_watts",
        "Enforced power limits of its GPUs together, in watts, without overhead.",
        lambda one: one.meter.limit_watts,
    ),
    _each(
        f"{_DOMAIN}stage",
        "1 for the stage of the ladder that the domain is at, 0 for the others.",
        "stage",
        lambda one: {stage.value: float(stage == one.stage) for stage in Stage},
    ),
    Family(
        f"{_DOMAIN}info",
        "1 for each domain, with the domain above it and its guarantee.",
        ("parent", "guarantee"),
        lambda one: (((one.statement.parent, one.statement.guarantee), 1.0),),
    ),
    _one(f"{_DOMAIN}nodes", "Nodes in it and below.", lambda one: one.statement.nodes),
    _one(
        f"{_DOMAIN}stale_nodes",
        "GPU nodes in it whose telemetry is not fresh.",
        lambda one: len(one.statement.stale_nodes),
    ),
    _one(
        f"{_DOMAIN}telemetry_age_seconds",
        "Seconds since the agent in it that has been silent longest last spoke.",
        lambda one: _age(one.meter.heard_at),
    ),
)

_NODE = "penstock_gpu_node_"
NODES: tuple[Family[NodeMeter], ...] = (
    _one(f"{_NODE}measured_watts", "Watts that its GPUs draw now.", lambda one: one.watts.now),
    _one(
        f"{_NODE}planned_watts",
        "Watts planned with: the 95th percentile over five minutes of each GPU.",
        lambda one: one.watts.planned,
    ),
    _one(
        f"{_NODE}accounted_watts", "Watts of its GPUs for billing: energy over time.", lambda one: one.watts.accounted
    ),
    _one(f"{_NODE}idle_watts", "Watts of its GPUs that nobody holds, now.", lambda one: one.idle_watts),
    _one(
        f"{_NODE}host_watts",
        "Watts beside its GPUs, by the overhead of its innermost domain: an estimate, not measured.",
        lambda one: one.host_watts,
    ),
    _one(
        f"{_NODE}committed_watts",
        "Watts that it is charged with in its innermost domain, with overhead.",
        lambda one: one.committed_watts,
    ),
    _each(
        f"{_NODE}limit_watts",
        "Power limits of its GPUs together, in watts; enforced below requested: somebody else caps too.",
        "limit",
        lambda one: one.limit_watts,
    ),
    _each(
        f"{_NODE}gpus",
        "Reported GPUs by health, with Throttled for those that heat slows down.",
        "health",
        lambda one: one.gpus,
    ),
    _each(
        f"{_NODE}caps",
        "Power limits by what its capper says became of them: Applied, Restored, Refused, HandsOff or Observed.",
        "outcome",
        lambda one: one.caps,
    ),
    _one(
        f"{_NODE}thermal_margin_celsius",
        "Degrees Celsius that the GPU nearest to slowing down is from it.",
        lambda one: one.thermal_margin_celsius,
    ),
    _one(
        f"{_NODE}telemetry_age_seconds",
        "Seconds since its agent last spoke.",
        lambda one: _age(one.heard_at),
    ),
    _one(
        f"{_NODE}telemetry_fresh",
        "1 while its telemetry is fresh: it spoke within three heartbeats and nothing contradicts it.",
        lambda one: float(one.fresh),
    ),
)

_POOL = "penstock_pool_"
POOLS: tuple[Family[PoolMeter], ...] = (
    _each(
        f"{_POOL}measured_watts",
        "Watts that the GPUs of its replicas draw now, by how it is known whose they are.",
        "attribution",
        lambda one: one.by_attribution,
    ),
    _one(
        f"{_POOL}planned_watts",
        "Watts planned with for its running replicas: the 95th percentile over five minutes of each GPU.",
        lambda one: one.watts.planned,
    ),
    _one(
        f"{_POOL}accounted_watts",
        "Watts of its replicas for billing: energy over time.",
        lambda one: one.watts.accounted,
    ),
    _one(
        f"{_POOL}reserved_watts",
        "Watts that its replicas are booked with, without overhead.",
        lambda one: one.reserved_watts,
    ),
    _one(
        f"{_POOL}limit_watts",
        "Enforced power limits of the GPUs that its replicas are known to hold, in watts.",
        lambda one: one.limit_watts,
    ),
    _one(
        f"{_POOL}telemetry_age_seconds",
        "Seconds since the agent of its nodes that has been silent longest last spoke.",
        lambda one: _age(one.heard_at),
    ),
)

STALE_NODES = ("penstock_stale_gpu_nodes", "GPU nodes whose telemetry is not fresh.")
DOMAIN_LABELS, NODE_LABELS, POOL_LABELS = ("domain",), ("node",), ("namespace", "pool")


def described() -> Mapping[str, Iterable[Described]]:
    """Every gauge by the kind of object that it is of, for the table in `docs/`."""
    stale = Described(STALE_NODES[0], "gauge", (), STALE_NODES[1])
    return {
        "power domain": _described(DOMAINS, DOMAIN_LABELS),
        "node": [*_described(NODES, NODE_LABELS), stale],
        "pool": _described(POOLS, POOL_LABELS),
    }


def _described(families: Iterable[Family[Source]], names: tuple[str, ...]) -> list[Described]:
    return [Described(one.name, "gauge", (*names, *one.labels), one.told) for one in families]


class PowerMetrics(Collector):
    """Hands the figures of the last snapshot to whoever scrapes, in a thread of its own if need be."""

    def __init__(self) -> None:
        self._shown: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """From now on scrapes are answered from this."""
        self._shown = snapshot

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The same families without a sample."""
        return _families(None)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Every family, with a sample for each object of the snapshot."""
        return _families(self._shown)


def _families(shown: Snapshot | None) -> Iterator[GaugeMetricFamily]:
    domains, nodes, pools = _sources(shown) if shown else ((), (), ())
    yield from _gauges(DOMAINS, DOMAIN_LABELS, domains)
    yield from _gauges(NODES, NODE_LABELS, nodes)
    yield from _gauges(POOLS, POOL_LABELS, pools)
    yield _stale(shown)


def _sources(shown: Snapshot) -> tuple[Sources[DomainFacts], Sources[NodeMeter], Sources[PoolMeter]]:
    meters = Meters(shown.fleet)
    drawn, stages = meters.domains(), shown.stages
    return (
        [
            ((one.name,), DomainFacts(one, drawn[one.name], stages.get(one.name, Stage.ADMIT)))
            for one in shown.statements
        ],
        [((one.node,), one) for one in meters.nodes()],
        [((key.namespace, key.name), one) for key, one in meters.pools().items()],
    )


def _gauges(
    families: Iterable[Family[Source]], names: tuple[str, ...], sources: Sources[Source]
) -> Iterator[GaugeMetricFamily]:
    for family in families:
        gauge = GaugeMetricFamily(family.name, family.told, labels=(*names, *family.labels))
        for name, source in sources:
            for labels, value in family.of(source):
                gauge.add_metric((*name, *labels), value)
        yield gauge


def _stale(shown: Snapshot | None) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(*STALE_NODES)
    if shown is not None:
        powered = (row for row in shown.fleet.rows if row.power.planned_watts)
        gauge.add_metric((), sum(row.evidence is not Evidence.FRESH for row in powered))
    return gauge
