"""What one node draws and reserves, GPU by GPU. The sum over a domain is in `book`.

Every GPU has a *planned* draw (the p95 over five minutes that its agent measured) and, while a replica holds it, a
*reservation*; a domain is charged the larger of the two. Where evidence is missing the planned draw becomes the
*ceiling*, the device's maximum limit with 3 % on top, so that knowing less never costs fewer watts.

A pod is booked on the GPUs that the kubelet says it holds. Where that is not known, running pods are booked on the
busiest of the other GPUs; pending ones always on the coolest that are left. Where reservations differ, the highest goes
to the coolest GPU of its group: no other pairing charges more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from penstock.api.names import GPU_PRODUCT_LABEL, OUT_OF_SERVICE_TAINT
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
    Replica,
    Telemetry,
)
from penstock.core.placement.evidence import Evidence, limit_until_at
from penstock.core.power.holding import counted, holdings, physical_gpus, replicas

LIMIT_TOLERANCE = 1.03
"""A GPU may pass its limit by this much before it is throttled (NVML's limit is a target, not a fuse)."""

IDLE_SHARE_OF_MAXIMUM = 0.15
"""The most that a GPU draws with nothing to do: no product of ours idles higher."""

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
    parts: float = 0.0
    """What it holds as MIG devices, in whole GPUs."""
    mig_devices: int = 0

    @property
    def rest(self) -> float:
        """What its MIG devices leave of the GPUs that they are on, each on one of its own."""
        return self.mig_devices - self.parts


@dataclass(frozen=True, slots=True)
class OwnGpu:
    """A GPU whose holders are known: who, and how much of it each (1: all of it, alone or in turns with others).

    `hard_watts` is its own enforced limit × 1.03, `idle_watts` the most that it draws with nothing to do.
    """

    hard_watts: float
    idle_watts: float
    holds: tuple[tuple[Hold, float], ...]


@dataclass(frozen=True, slots=True)
class NodePower:
    """The GPUs of one node as the power book sees them. Watts, without any overhead.

    `planned_watts` has one entry per GPU: first those in `own`, in that order, then hottest first those whose holder
    is not known, and those that are only allocatable or held. `running` are booked on its head, one for each GPU that
    running pods hold, `pending` on its tail.
    """

    planned_watts: tuple[float, ...] = ()
    hard_watts: float = 0.0
    """Per GPU whose holder is not known: the highest enforced limit of those × 1.03, since it may be any of them."""
    idle_watts: float = 0.0
    """The most that any of its GPUs draws with nothing to do."""
    running: tuple[Hold, ...] = ()
    own: tuple[OwnGpu, ...] = ()
    pending: tuple[Hold, ...] = ()
    parted: tuple[Hold, ...] = ()
    """Pods with MIG devices on GPUs that nobody names, one entry for each pod."""
    placeable_gpus: int = 0
    """GPUs that are healthy and whose maximum is known."""

    @property
    def unheld_watts(self) -> tuple[float, ...]:
        """Planned draw of the GPUs that nobody holds, coolest first."""
        return self.unstarted_watts[len(self.pending) :]

    @property
    def unstarted_watts(self) -> tuple[float, ...]:
        """Planned draw of the GPUs that no running pod holds, coolest first."""
        return tuple(sorted(self.planned_watts[len(self.running) :]))


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
    gpus = telemetry.gpus if telemetry else ()
    fresh = evidence is Evidence.FRESH
    held = holdings(node, telemetry if fresh else None, pods)
    figures = [(gpu.uuid, _figures(telemetry, gpu, maxima, now_at, fresh=fresh)) for gpu in gpus if telemetry]
    own = [(uuid, one) for uuid, one in figures if uuid in held.known]
    others = [one for uuid, one in figures if uuid not in held.known]
    running, pending = _holds(held.unknown, pools, _others(node, len(gpus), len(own)))
    silent = max(physical_gpus(node), len(own) + len(running) + len(pending)) - len(gpus)
    if silent > 0:
        unheard = _unheard_ceiling(node, gpus, maxima)
        others += [_Figures(unheard, unheard, unheard)] * silent
    named = [one for _, one in own]
    known = tuple(_own(one, held.known[uuid], pools) for uuid, one in own)
    hottest_first = sorted((one.planned_watts for one in others), reverse=True)
    planned = (*(one.planned_watts for one in named), *hottest_first)
    return NodePower(
        planned_watts=planned,
        hard_watts=max((one.hard_watts for one in others or named), default=0.0),
        idle_watts=IDLE_SHARE_OF_MAXIMUM * max((one.ceiling_watts for one in (*named, *others)), default=0.0),
        running=(*(one.holds[0][0] for one in known), *running),
        own=known,
        pending=pending,
        parted=tuple(pod_hold(pools, pod) for pod in held.unknown if pod.parts),
        placeable_gpus=sum(is_placeable(gpu) for gpu in gpus) if fresh else 0,
    )


class _Figures(NamedTuple):
    """One GPU in the book."""

    planned_watts: float
    hard_watts: float
    ceiling_watts: float


def _figures(telemetry: Telemetry, gpu: Gpu, maxima: ProductMaxima, now_at: float, *, fresh: bool) -> _Figures:
    ceiling = _ceiling(gpu, maxima)
    return _Figures(_planned(gpu, ceiling, fresh=fresh), _limit(telemetry, gpu, ceiling, now_at), ceiling)


def _own(figures: _Figures, holders: Sequence[tuple[Pod, float]], pools: Pools) -> OwnGpu:
    holds = tuple((pod_hold(pools, pod), share) for pod, share in holders)
    return OwnGpu(figures.hard_watts, IDLE_SHARE_OF_MAXIMUM * figures.ceiling_watts, holds)


def _others(node: Node, heard: int, own: int) -> int | None:
    """How many GPUs time slices of unknown place can be on at most; None where every pod has GPUs of its own."""
    return max(physical_gpus(node), heard) - own if replicas(node) > 1 else None


def reservation_watts_per_gpu(hold: Hold, power: NodePower, domain: Domain) -> float:
    """What one held GPU reserves in a domain: its enforced limit, or under Statistical what is declared for it."""
    return _reserved_watts(hold, power.hard_watts, domain)


def _reserved_watts(hold: Hold, hard_watts: float, domain: Domain) -> float:
    if domain.guarantee is Guarantee.HARD or hold.declared_watts is None:
        return hard_watts
    return hold.declared_watts


def budget_watts(usable_watts: float, domain: Domain) -> int:
    """Whole watts of budget that give so many usable ones after the margin: what to raise a budget by."""
    return math.ceil(usable_watts / (1.0 - domain.margin) + ROUNDING_WATTS)


def charge_watts(power: NodePower, domain: Domain) -> float:
    """What a node costs a domain: `overhead + Σ GPU (1 + perGPUWatt) × max(reserved, planned)`."""
    if not power.planned_watts:
        return 0.0
    return at_the_pdu(domain, sum(watts for _, watts in booked(power, domain)))


def at_the_pdu(domain: Domain, gpu_watts: float) -> float:
    """What a node whose GPUs take so much takes with its overhead there."""
    return domain.overhead_watts + (1.0 + domain.per_gpu_watt) * gpu_watts


def booked(power: NodePower, domain: Domain) -> list[tuple[Hold | None, float]]:
    """The node's GPUs as `(who holds it, watts charged)`, an entry for each who shares one; `None`: nobody holds it."""
    held, known = len(power.running), min(len(power.own), len(power.running))
    own = zip(power.own[:known], power.planned_watts[:known], strict=True)
    shared = [tuple(_share(gpu, planned, domain)) for gpu, planned in own]
    running = _pair(power.running[known:], power.planned_watts[known:held][::-1], power, domain)
    unstarted, waiting = power.unstarted_watts, len(power.pending)
    pending = _pair(power.pending, unstarted[:waiting], power, domain)
    unheld = ((None, watts) for watts in unstarted[waiting:])
    gpus = [*shared, *((entry,) for entry in (*running, *pending, *unheld))]
    parted = _parted(power, [sum(watts for _, watts in gpu) for gpu in gpus]) if power.parted else ()
    return [*chain.from_iterable(gpus), *parted]


def _parted(power: NodePower, charged_watts: Sequence[float]) -> Iterable[tuple[Hold | None, float]]:
    """MIG devices of which nobody says on which GPU they are, each beside all that each GPU is charged already: its
    part of a limit, since it may be on the coolest, and the rest of that GPU's idle draw, once for each that nobody
    holds. Together no more than would bring every GPU to its limit.
    """
    unheld, hard_watts, rest = power.unheld_watts, hardest_watts(power), sum(hold.rest for hold in power.parted)
    waking = max(0.0, power.idle_watts - min(unheld, default=math.inf)) * min(1.0, len(unheld) / (rest or 1.0))
    asked = [hard_watts * hold.parts + waking * hold.rest for hold in power.parted]
    room = sum(max(0.0, hard_watts - watts) for watts in charged_watts)
    share = min(1.0, room / (sum(asked) or 1.0))
    return ((hold, watts * share) for hold, watts in zip(power.parted, asked, strict=True))


def hardest_watts(power: NodePower) -> float:
    """The highest enforced limit of the node's GPUs × 1.03."""
    return max([power.hard_watts, *(gpu.hard_watts for gpu in power.own)])


def _share(gpu: OwnGpu, planned_watts: float, domain: Domain) -> Iterable[tuple[Hold | None, float]]:
    """One GPU among those who hold it: in parts by their size, in turns as one whole GPU and evenly."""
    reserved = [_reserved_watts(hold, gpu.hard_watts, domain) for hold, _ in gpu.holds]
    shares = [share for _, share in gpu.holds]
    if all(share == 1.0 for share in shares):
        charged = max(*reserved, planned_watts)
    else:
        above_idle = (share * max(watts - gpu.idle_watts, 0.0) for share, watts in zip(shares, reserved, strict=True))
        charged = max(min(gpu.idle_watts + sum(above_idle), max(reserved)), planned_watts)
    for hold, share in gpu.holds:
        yield hold, charged * share / sum(shares)


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
    node: Node,
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
    drawn = [gpu.planned_watts or _ceiling(gpu, maxima) for gpu in _held_gpus(node, telemetry, running)]
    held = sum(pod.gpus for pod in running)
    measured = sum(sorted(drawn, reverse=True)[:held]) / held
    declared = min(rules.declared_watts / pod.gpus for pod in running)
    if not declared < measured < math.inf:
        return None
    return next(iter(keys)), MEASURED_STEP_WATTS * math.ceil(measured / MEASURED_STEP_WATTS)


def _held_gpus(node: Node, telemetry: Telemetry, running: Sequence[Pod]) -> Sequence[Gpu]:
    """The GPUs that may be theirs: all, unless the kubelet lists every one of these pods with its own."""
    held = holdings(node, telemetry, running)
    return telemetry.gpus if held.unknown else [gpu for gpu in telemetry.gpus if gpu.uuid in held.known]


def pod_hold(pools: Pools, pod: Pod) -> Hold:
    """How a pod holds each of its GPUs. Foreign pods and Advise pools reserve the limit."""
    pool = PoolKey(pod.namespace, pod.pool)
    rules = pools.rules.get(pool) if pod.pool else None
    if rules is None:
        return Hold(FOREIGN, foreign=f"{pod.namespace}/{pod.name}", parts=pod.parts, mig_devices=pod.mig_devices)
    return replica_hold(pools, pool, rules, pod)


def replica_hold(pools: Pools, pool: PoolKey, rules: PlacementRules, one: Pod | Replica) -> Hold:
    """The same under rules of its own, which a waiting replica brings with it.

    The larger of the declared and the learned watts; with neither, and of MIG devices, it reserves the limit.
    """
    gpus, template_hash = one.gpus, one.template_hash
    learned = next((one for one in rules.learned if one.template_hash == template_hash), None)
    declared = rules.declared_watts
    if rules.mode is Mode.ADVISE or gpus <= 0 or (declared is None and not (learned and learned.everywhere)):
        return Hold(pool, parts=one.parts, mig_devices=one.mig_devices)
    known = (declared or 0.0) / gpus, learned.watts if learned else 0.0, pools.measured_watts.get(pool, 0.0)
    return Hold(pool, max(known), parts=one.parts, mig_devices=one.mig_devices)


def started(pod: Pod) -> bool:
    """Whether it may be drawing already: bound and past Pending, terminating or not."""
    return bool(pod.node) and pod.phase is not Phase.PENDING


def _holds(pods: Iterable[Pod], pools: Pools, gpus: int | None) -> tuple[tuple[Hold, ...], tuple[Hold, ...]]:
    """Running and pending, one entry for each GPU; of time slices (`gpus` is given) no more than there are GPUs."""
    running: Counter[Hold] = Counter()
    pending: Counter[Hold] = Counter()
    for pod, held in counted(pods):
        (running if started(pod) else pending)[pod_hold(pools, pod)] += held
    if gpus is None:
        return tuple(running.elements()), tuple(pending.elements())
    on = sorted(running.elements(), key=_dearest_first)[:gpus]
    return tuple(on), tuple(sorted(pending.elements(), key=_dearest_first)[: gpus - len(on)])


def _dearest_first(hold: Hold) -> tuple[float, str]:
    return -math.inf if hold.declared_watts is None else -hold.declared_watts, f"{hold.holder} {hold.foreign}"


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


def is_placeable(gpu: Gpu) -> bool:
    """Whether it is sound and measured: what a replica may be placed on."""
    return ailment(gpu) is None and gpu.maximum_watts is not None
