"""What the meters show, per node, pool and domain: the three figures, limits and how old the word is.

Measured watts are those of GPUs; a domain's include its overhead, as its budget does. Only what people and dashboards
read is here: what is decided on stands in `book`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from penstock.core.model import Gpu, GpuHealth, PodGpus, PoolKey, Telemetry
from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.row import Row
from penstock.core.power.draw import pool_watts
from penstock.core.power.node_watts import at_the_pdu

ESTIMATED = "Estimated"
LIMITS: Mapping[str, Callable[[Gpu], float | None]] = {
    "enforced": attrgetter("limit_watts"),
    "requested": attrgetter("requested_limit_watts"),
    "minimum": attrgetter("minimum_watts"),
    "default": attrgetter("default_watts"),
    "maximum": attrgetter("maximum_watts"),
}


@dataclass(slots=True)
class Watts:
    """The three figures together, in watts: measured now, planned with (p95 over 5 min), accounted (energy / time)."""

    now: float = 0.0
    planned: float = 0.0
    accounted: float = 0.0

    def add(self, gpu: Gpu, share: float = 1.0) -> None:
        """Add a share of a GPU's draw; what it does not report stands at what it does."""
        now = gpu.power_watts or 0.0
        self.now += share * now
        self.planned += share * (now if gpu.planned_watts is None else gpu.planned_watts)
        self.accounted += share * (now if gpu.accounted_watts is None else gpu.accounted_watts)


@dataclass(frozen=True, slots=True)
class NodeMeter:
    """One GPU node. `heard_at` is our monotonic time of its agent's last word, None before the first."""

    node: str
    watts: Watts
    limit_watts: Mapping[str, float]
    """Of its GPUs together, by the names in `LIMITS`; one that no GPU reports is left out."""
    idle_watts: float
    """Of the GPUs that nobody holds."""
    host_watts: float
    """What its innermost domain adds for the host: an estimate, no measurement."""
    committed_watts: float
    """Charged to its innermost domain, overhead included."""
    heard_at: float | None
    fresh: bool
    gpus: Mapping[str, int]
    """GPUs by what is wrong with them; `Healthy` where nothing is."""
    caps: Mapping[str, int]
    """Power limits by what its capper says became of them; empty without a capper."""
    thermal_margin_celsius: float | None
    """Of the GPU that is nearest to slowing down."""


@dataclass(slots=True)
class PoolMeter:
    """One pool's running replicas, without overhead."""

    pool: PoolKey
    watts: Watts = field(default_factory=Watts)
    by_attribution: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Watts now, by how it is known whose they are: `Exact`, `Proportional` or `Estimated`."""
    reserved_watts: float = 0.0
    limit_watts: float = 0.0
    """Enforced limits of the GPUs that its pods are known to hold."""
    heard_at: float = math.inf
    """The oldest last word among the agents of its nodes, by our monotonic clock."""


@dataclass(slots=True)
class DomainMeter:
    """What the nodes of one domain add up to beside its account in the book."""

    domain: str
    planned_watts: float
    accounted_watts: float
    limit_watts: float = 0.0
    """Enforced limits of its GPUs, without overhead."""
    heard_at: float = math.inf


@dataclass(frozen=True, slots=True)
class _Totals:
    """What a node's GPUs add up to."""

    watts: Watts
    limits: Mapping[str, float]


class Meters:
    """Every meter of a fleet. The GPUs of each node are added up once for all of them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._rows = [(row, _totals(row)) for row in fleet.rows]

    def nodes(self) -> Iterator[NodeMeter]:
        """Every node that has GPUs or a report of some."""
        for row, totals in self._rows:
            if row.power.planned_watts or row.view.telemetry:
                yield _node(row, totals)

    def pools(self) -> Mapping[PoolKey, PoolMeter]:
        """Every pool that has something running or reserved."""
        meters: dict[PoolKey, PoolMeter] = {}
        for row, totals in self._rows:
            if not row.view.pods:
                continue
            for key, watts in _reserved(row):
                meters.setdefault(key, PoolMeter(key)).reserved_watts += watts
            if row.view.telemetry is not None:
                _meter_pools(row, totals, row.view.telemetry, meters)
        return meters

    def domains(self) -> Mapping[str, DomainMeter]:
        """Every domain, with what the domains below it add up to."""
        domains = self._fleet.domains
        static = self._fleet.context.tree.totals([one.static_watts for one in domains])
        meters = [DomainMeter(one.name, watts, watts) for one, watts in zip(domains, static, strict=True)]
        for row, totals in self._rows:
            if not row.domains or not row.power.planned_watts:
                continue
            for at, rule in zip(row.domains, row.rules, strict=True):
                meter = meters[at]
                meter.planned_watts += at_the_pdu(rule, totals.watts.planned)
                meter.accounted_watts += at_the_pdu(rule, totals.watts.accounted)
                meter.limit_watts += totals.limits.get("enforced", 0.0)
                if row.view.telemetry:
                    meter.heard_at = min(meter.heard_at, row.view.telemetry.heard_at)
        return {meter.domain: meter for meter in meters}


# --------------------------------------------------------------------------------------------------------------- nodes


def _node(row: Row, totals: _Totals) -> NodeMeter:
    telemetry, watts = row.view.telemetry, totals.watts
    margins = [gpu.thermal_margin_celsius for gpu in _gpus(row) if gpu.thermal_margin_celsius is not None]
    return NodeMeter(
        node=row.view.node.name,
        watts=watts,
        limit_watts=totals.limits,
        idle_watts=sum(gpu.power_watts or 0.0 for gpu in _unheld(row)),
        host_watts=at_the_pdu(row.rules[0], watts.now) - watts.now if row.rules else 0.0,
        committed_watts=row.charges[0] if row.charges else 0.0,
        heard_at=telemetry.heard_at if telemetry and math.isfinite(telemetry.heard_at) else None,
        fresh=row.evidence is Evidence.FRESH,
        gpus=_states(row),
        caps=Counter(one.outcome for one in telemetry.capper.gpus) if telemetry and telemetry.capper else {},
        thermal_margin_celsius=min(margins, default=None),
    )


def _totals(row: Row) -> _Totals:
    gpus, watts = _gpus(row), Watts()
    for gpu in gpus:
        watts.add(gpu)
    told = {name: [one for one in map(read, gpus) if one is not None] for name, read in LIMITS.items()}
    return _Totals(watts, {name: sum(figures) for name, figures in told.items() if figures})


def _states(row: Row) -> Mapping[str, int]:
    states: dict[str, int] = defaultdict(int)
    for gpu in _gpus(row):
        throttled = "Throttled" if gpu.thermally_throttled else GpuHealth.HEALTHY.value
        states[throttled if gpu.health is GpuHealth.HEALTHY else gpu.health.value] += 1
    return states


def _unheld(row: Row) -> Iterable[Gpu]:
    telemetry = row.view.telemetry
    if telemetry is not None and telemetry.pods is not None:
        held = {uuid for one in telemetry.pods for uuid in one.uuids}
        return (gpu for gpu in telemetry.gpus if gpu.uuid not in held)
    # Who holds which is not known: then the coolest are taken for those that nobody holds, as in the book.
    coolest = sorted(_gpus(row), key=lambda gpu: gpu.power_watts or 0.0)
    return coolest[: max(0, len(coolest) - len(row.power.running))]


def _gpus(row: Row) -> tuple[Gpu, ...]:
    return row.view.telemetry.gpus if row.view.telemetry else ()


# --------------------------------------------------------------------------------------------------------------- pools


def _reserved(row: Row) -> Iterator[tuple[PoolKey, float]]:
    for (kind, name), watts in row.held_watts[0].items() if row.held_watts else ():
        if kind == "Pool":
            yield PoolKey(*name.split("/", 1)), watts


def _meter_pools(row: Row, totals: _Totals, telemetry: Telemetry, meters: dict[PoolKey, PoolMeter]) -> None:
    if telemetry.pods is None:
        _estimate_pools(row, totals.watts, meters, telemetry.heard_at)
        return
    pools = {(pod.namespace, pod.name): PoolKey(pod.namespace, pod.pool) for pod in row.view.pods if pod.pool}
    gpus = {gpu.uuid: gpu for gpu in telemetry.gpus}
    for one in telemetry.pods:
        known = pools.get((one.namespace, one.name))
        if known is not None:
            meter = meters.setdefault(known, PoolMeter(known))
            _meter_pod(meter, one, [gpus[uuid] for uuid in one.uuids if uuid in gpus])
            meter.heard_at = min(meter.heard_at, telemetry.heard_at)


def _estimate_pools(row: Row, node: Watts, meters: dict[PoolKey, PoolMeter], heard_at: float) -> None:
    for key, watts in pool_watts((row.view,)).items():
        meter = meters.setdefault(key, PoolMeter(key))
        share = watts / node.now if node.now else 0.0
        meter.watts.now += watts
        meter.watts.planned += share * node.planned
        meter.watts.accounted += share * node.accounted
        meter.by_attribution[ESTIMATED] += watts
        meter.heard_at = min(meter.heard_at, heard_at)


def _meter_pod(meter: PoolMeter, pod: PodGpus, gpus: list[Gpu]) -> None:
    drawn = Watts()
    for gpu in gpus:
        drawn.add(gpu)
    # Of a shared GPU the pod's own part, as the agent divided the draw.
    now = drawn.now if pod.watts is None else pod.watts
    share = now / drawn.now if drawn.now and pod.shared else 1.0
    meter.watts.now += now
    meter.watts.planned += share * drawn.planned
    meter.watts.accounted += share * drawn.accounted
    meter.limit_watts += share * sum(gpu.limit_watts or 0.0 for gpu in gpus)
    meter.by_attribution[pod.attribution or ESTIMATED] += now
