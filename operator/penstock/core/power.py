"""What one node draws and reserves, GPU by GPU. The sum over a domain is in `book`.

Every GPU has a *planned* draw (the p95 over five minutes that its agent measured) and, while a replica holds it, a
*reservation*; a domain is charged the larger of the two. Where evidence is missing the planned draw becomes the
*ceiling*, the device's maximum limit with 3 % on top, so that knowing less never costs fewer watts.

Which GPU a pod holds is not known: running pods are booked on the busiest GPUs, pending ones on the coolest others.
Where reservations differ, the highest goes to the coolest GPU of its group: no other pairing charges more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.api.names import GPU_PRODUCT_LABEL, GPU_RESOURCE, OUT_OF_SERVICE_TAINT
from penstock.core.evidence import Evidence, limit_until_at
from penstock.core.health import ailment
from penstock.core.model import (
    Domain,
    Gpu,
    GpuHealth,
    Guarantee,
    Mode,
    Node,
    Phase,
    PlacementRules,
    Pod,
    PoolKey,
    Telemetry,
)

LIMIT_TOLERANCE = 1.03
"""A GPU may pass its limit by this much before it is throttled (NVML's limit is a target, not a fuse)."""

ROUNDING_WATTS = 1e-6
"""More than what floating point loses on a budget, so that a raise which is said to be enough is."""

MEASURED_STEP_WATTS = 25.0
"""What is measured above what a pool declares counts in such steps, so that it does not move with every sample."""

FOREIGN = None
"""The holder of a GPU whose pod belongs to no pool of ours."""

HolderKind = Literal["Pool", "Foreign", "Idle", "Overhead", "Static"]

ProductMaxima = Mapping[str, float]
"""GPU product → the highest maximum limit that the fleet reports for it, in watts; under `""` that of any product."""


@dataclass(frozen=True, slots=True)
class Pools:
    """What pools ask for, and by which measured watts per GPU some of them are raised above what they declare."""

    rules: Mapping[PoolKey, PlacementRules]
    measured_watts: Mapping[PoolKey, float]


@dataclass(frozen=True, slots=True)
class Hold:
    """One GPU that a pod holds: whose it is, and the watts per GPU declared for it (`None`: reserve the limit)."""

    holder: PoolKey | None
    declared_watts: float | None = None
    foreign: str = ""
    """`namespace/name` of the pod where no pool of ours is the holder."""


@dataclass(frozen=True, slots=True)
class NodePower:
    """The GPUs of one node as the power book sees them. Watts, without any overhead.

    `planned_watts` has one entry per GPU, hottest first: those that the agent reports and those that are only
    allocatable or held. `running` are booked on its head, `pending` on its tail.
    """

    planned_watts: tuple[float, ...] = ()
    hard_watts: float = 0.0
    """Per GPU: the highest enforced limit of the node × 1.03, since which GPU a pod holds is not known."""
    running: tuple[Hold, ...] = ()
    pending: tuple[Hold, ...] = ()
    now_watts: float = 0.0
    """The last measured draw."""
    placeable_gpus: int = 0
    """GPUs that are healthy and whose maximum is known."""
    unmeasured: bool = False
    """No maximum is known for some GPU here, nor for its product in the fleet: its charge is too low."""

    @property
    def unheld_watts(self) -> tuple[float, ...]:
        """Planned draw of the GPUs that nobody holds, coolest first."""
        first, last = len(self.running), len(self.planned_watts) - len(self.pending)
        return self.planned_watts[first:last][::-1]

    @property
    def unstarted_watts(self) -> tuple[float, ...]:
        """Planned draw of the GPUs that no running pod holds, coolest first."""
        return self.planned_watts[len(self.running) :][::-1]


def node_power(
    node: Node,
    telemetry: Telemetry | None,
    pods: Iterable[Pod],
    *,
    evidence: Evidence,
    pools: Pools,
    maxima: ProductMaxima,
    now_at: float,
) -> NodePower:
    """Book one node. `pods` are all unfinished ones whose place is this node.

    A node that somebody vouches is off (the out-of-service taint) draws nothing, whatever is still booked there.
    """
    if any(taint.key == OUT_OF_SERVICE_TAINT for taint in node.taints):
        return NodePower()
    running, pending = _holds(pods, pools)
    gpus = telemetry.gpus if telemetry else ()
    fresh = evidence is Evidence.FRESH
    ceilings = [_ceiling(gpu, maxima) for gpu in gpus]
    planned = [_planned(gpu, ceiling, fresh=fresh) for gpu, ceiling in zip(gpus, ceilings, strict=True)]
    limits = [_limit(telemetry, gpu, ceiling, now_at) for gpu, ceiling in zip(gpus, ceilings, strict=True) if telemetry]
    silent = max(node.allocatable.get(GPU_RESOURCE, 0), len(running) + len(pending)) - len(gpus)
    unheard = _unheard_ceiling(node, gpus, maxima)
    if silent > 0:
        planned += [unheard] * silent
        limits.append(unheard)
    return NodePower(
        planned_watts=tuple(sorted(planned, reverse=True)),
        hard_watts=max(limits, default=0.0),
        running=running,
        pending=pending,
        now_watts=sum(gpu.power_watts or 0.0 for gpu in gpus),
        placeable_gpus=sum(_placeable(gpu) for gpu in gpus) if fresh else 0,
        unmeasured=0.0 in planned,
    )


def reservation_watts_per_gpu(hold: Hold, power: NodePower, domain: Domain) -> float:
    """What one held GPU reserves in a domain: its enforced limit, or under Statistical what is declared for it."""
    if domain.guarantee is Guarantee.HARD or hold.declared_watts is None:
        return power.hard_watts
    return hold.declared_watts


def budget_watts(usable_watts: float, domain: Domain) -> int:
    """Whole watts of budget that give so many usable ones after the margin: what to raise a budget by."""
    return math.ceil(usable_watts / (1.0 - domain.margin) + ROUNDING_WATTS)


def charge_watts(power: NodePower, domain: Domain) -> float:
    """What a node costs a domain: `overhead + Σ GPU (1 + perGPUWatt) × max(reserved, planned)`."""
    if not power.planned_watts:
        return 0.0
    gpu_watts = sum(watts for _, watts in booked(power, domain))
    return domain.overhead_watts + (1.0 + domain.per_gpu_watt) * gpu_watts


def booked(power: NodePower, domain: Domain) -> list[tuple[Hold | None, float]]:
    """The node's GPUs as `(who holds it, watts charged)`; `None` for those that nobody holds."""
    running = _pair(power.running, power.planned_watts[: len(power.running)][::-1], power, domain)
    pending = _pair(power.pending, power.unstarted_watts[: len(power.pending)], power, domain)
    return [*running, *pending, *((None, watts) for watts in power.unheld_watts)]


def _pair(
    holds: Sequence[Hold], coolest_first: Sequence[float], power: NodePower, domain: Domain
) -> list[tuple[Hold | None, float]]:
    priced = ((reservation_watts_per_gpu(hold, power, domain), hold) for hold in holds)
    reserved = sorted(priced, key=_by_watts, reverse=True)
    return [(hold, max(watts, planned)) for (watts, hold), planned in zip(reserved, coolest_first, strict=True)]


def _by_watts(entry: tuple[float, Hold]) -> tuple[float, str]:
    return entry[0], f"{entry[1].holder} {entry[1].foreign}"


def held_watts(power: NodePower, domain: Domain) -> Mapping[tuple[HolderKind, str], float]:
    """The node's GPU watts by holder: `(Pool, namespace/name)`, `(Foreign, namespace/name)` or `(Idle, "")`."""
    watts: dict[tuple[HolderKind, str], float] = {}
    for hold, charged in booked(power, domain):
        key = _holder(hold)
        watts[key] = watts.get(key, 0.0) + charged
    return watts


def _holder(hold: Hold | None) -> tuple[HolderKind, str]:
    if hold is None:
        return "Idle", ""
    return ("Pool", str(hold.holder)) if hold.holder else ("Foreign", hold.foreign)


def measured_above_declared(
    telemetry: Telemetry | None,
    pods: Iterable[Pod],
    pools: Mapping[PoolKey, PlacementRules],
    maxima: ProductMaxima,
) -> tuple[PoolKey, float] | None:
    """A pool whose replicas here draw more per GPU than it declares, and how much, rounded up to whole steps.

    Told only where one pool alone runs on the node: among several it is not known whose GPU is the hot one. The last
    report counts however old it is, since to forget a high draw would charge fewer watts.
    """
    running = [pod for pod in pods if pod.gpus and started(pod)]
    keys = {PoolKey(pod.namespace, pod.pool) for pod in running}
    rules = pools.get(next(iter(keys))) if len(keys) == 1 else None
    if telemetry is None or rules is None or rules.declared_watts is None:
        return None
    held = sum(pod.gpus for pod in running)
    hottest = sorted((gpu.planned_watts or _ceiling(gpu, maxima) for gpu in telemetry.gpus), reverse=True)[:held]
    measured = sum(hottest) / held
    declared = min(rules.declared_watts / pod.gpus for pod in running)
    if not declared < measured < math.inf:
        return None
    return next(iter(keys)), MEASURED_STEP_WATTS * math.ceil(measured / MEASURED_STEP_WATTS)


def pod_hold(pools: Pools, pod: Pod) -> Hold:
    """How a pod holds each of its GPUs. Foreign pods and Advise pools reserve the limit."""
    pool = PoolKey(pod.namespace, pod.pool)
    rules = pools.rules.get(pool) if pod.pool else None
    if rules is None:
        return Hold(FOREIGN, foreign=f"{pod.namespace}/{pod.name}")
    return replica_hold(pools, pool, rules, pod.gpus, pod.template_hash)


def replica_hold(pools: Pools, pool: PoolKey, rules: PlacementRules, gpus: int, template_hash: str) -> Hold:
    """The same under rules of its own, which a waiting replica brings with it.

    The larger of the declared and the learned watts; with neither it reserves the limit.
    """
    learned = next((one for one in rules.learned if one.template_hash == template_hash), None)
    declared = rules.declared_watts
    if rules.mode is Mode.ADVISE or gpus <= 0 or (declared is None and not (learned and learned.everywhere)):
        return Hold(pool)
    known = (declared or 0.0) / gpus, learned.watts if learned else 0.0, pools.measured_watts.get(pool, 0.0)
    return Hold(pool, max(known))


def started(pod: Pod) -> bool:
    """Whether it may be drawing already: bound and past Pending, terminating or not."""
    return bool(pod.node) and pod.phase is not Phase.PENDING


def _holds(pods: Iterable[Pod], pools: Pools) -> tuple[tuple[Hold, ...], tuple[Hold, ...]]:
    running: Counter[Hold] = Counter()
    pending: Counter[Hold] = Counter()
    for pod in pods:
        if pod.gpus:
            (running if started(pod) else pending)[pod_hold(pools, pod)] += pod.gpus
    return tuple(running.elements()), tuple(pending.elements())


def _ceiling(gpu: Gpu, maxima: ProductMaxima) -> float:
    maximum = gpu.maximum_watts or maxima.get(gpu.product) or maxima.get("", 0.0)
    known = (maximum, gpu.limit_watts or 0.0)
    return max(LIMIT_TOLERANCE * max(known), gpu.planned_watts or 0.0)


def _planned(gpu: Gpu, ceiling: float, *, fresh: bool) -> float:
    if not fresh or gpu.health is not GpuHealth.HEALTHY or gpu.planned_watts is None:
        return ceiling
    return gpu.planned_watts


def _limit(telemetry: Telemetry, gpu: Gpu, ceiling: float, now_at: float) -> float:
    if gpu.limit_watts is None or now_at > limit_until_at(telemetry, gpu):
        return ceiling
    return LIMIT_TOLERANCE * gpu.limit_watts


def _unheard_ceiling(node: Node, gpus: Sequence[Gpu], maxima: ProductMaxima) -> float:
    own = max((gpu.maximum_watts or 0.0 for gpu in gpus), default=0.0)
    product = node.labels.get(GPU_PRODUCT_LABEL, "")
    return LIMIT_TOLERANCE * (own or maxima.get(product) or maxima.get("", 0.0))


def _placeable(gpu: Gpu) -> bool:
    return ailment(gpu) is None and gpu.maximum_watts is not None
