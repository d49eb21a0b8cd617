"""One node with everything on it, worked out once: what is free, what it costs, how far to believe it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from penstock.api.names import GPU_PRODUCT_LABEL, GPU_RESOURCE
from penstock.core.affinity import CORDON
from penstock.core.evidence import Evidence, fresh_until_at, judge, limit_until_at
from penstock.core.health import ailments, is_hot
from penstock.core.holding import holdings, replicas
from penstock.core.model import Amounts, Domain, Guarantee, Node, PlacementRules, Pod, PoolKey, Telemetry
from penstock.core.power import (
    HolderKind,
    NodePower,
    Pools,
    ProductMaxima,
    charge_watts,
    held_watts,
    measured_above_declared,
    node_power,
    started,
)
from penstock.core.scheduling import HostPort, Taint
from penstock.core.tree import Tree

Result = TypeVar("Result")

BUSY_ACTIVITY_PERCENT = 5.0
BUSY_MEMORY_BYTES = 256 * 1024**2
"""An idle GPU shows a few MiB; a process that holds a CUDA context shows hundreds."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """What is known of one node: the node, its telemetry, and every unfinished pod whose place it is.

    Ours or foreign, bound or only pinned, terminating ones too: each takes room.
    """

    node: Node
    telemetry: Telemetry | None = None
    pods: tuple[Pod, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What every row depends on beside its own node."""

    domains: tuple[Domain, ...]
    """Sorted by name."""
    tree: Tree
    pools: Pools
    maxima: ProductMaxima


@dataclass(frozen=True, slots=True)
class Row:
    """One node's line in the fleet. `domains` are positions in the context's domains: the node's own, then each above.

    `charges` are their watts, `rules` how each of them charges this node.
    """

    view: NodeView
    evidence: Evidence
    expires_at: float
    """From then on some figure of the telemetry no longer counts."""
    free: Amounts
    free_gpus: int
    allocatable_gpus: int
    busy_unallocated_gpus: int
    busy_uuids: tuple[str, ...]
    """The UUIDs of those, where the kubelet said who holds the others."""
    products: frozenset[str]
    gpu_memory_bytes: int
    taken_ports: frozenset[HostPort]
    taints: tuple[Taint, ...]
    activity: float
    """Mean activity of its GPUs, 0 to 1; unknown counts as 1."""
    throttled: float
    """Share of its GPUs that are throttled."""
    hot: float
    """Share of its GPUs that heat slows down, or will within minutes."""
    ailments: Mapping[str, int]
    """Its GPUs that take nothing, by why."""
    power: NodePower
    domains: tuple[int, ...]
    rules: tuple[Domain, ...]
    charges: tuple[float, ...]
    repelling: frozenset[tuple[str, str]]
    """Namespace and topology key of each anti-affinity rule of a pod here."""
    held_watts: tuple[Mapping[tuple[HolderKind, str], float], ...]
    """Per domain, GPU watts by kind and name of the holder."""
    measured: tuple[PoolKey, float] | None
    """A pool whose replicas here draw more than it declares, and the watts per GPU."""


def build_row(view: NodeView, context: Context, now_at: float) -> Row:
    node, telemetry = view.node, view.telemetry
    evidence = judge(telemetry, now_at)
    power = node_power(
        node,
        telemetry,
        view.pods,
        evidence=evidence,
        pools=context.pools,
        maxima=context.maxima,
        now_at=now_at,
    )
    domains = context.tree.chain(node)
    charging = context.tree.rules(domains)
    free = _free(view)
    busy, busy_uuids = _busy_unallocated(view)
    gpus = telemetry.gpus if telemetry else ()
    return Row(
        view=view,
        evidence=evidence,
        expires_at=_expires_at(telemetry, evidence, now_at),
        free=free,
        free_gpus=_free_gpus(view, free, power, busy),
        allocatable_gpus=node.allocatable.get(GPU_RESOURCE, 0),
        busy_unallocated_gpus=busy,
        busy_uuids=busy_uuids,
        products=frozenset(gpu.product for gpu in gpus) or frozenset((node.labels.get(GPU_PRODUCT_LABEL, ""),)),
        gpu_memory_bytes=min((gpu.memory_total_bytes for gpu in gpus), default=0),
        taken_ports=frozenset(port for pod in view.pods for port in pod.host_ports),
        taints=(*((CORDON,) if node.cordoned else ()), *node.taints),
        activity=_mean([1.0 if gpu.activity_percent is None else gpu.activity_percent / 100 for gpu in gpus], 1.0),
        throttled=_mean([float(gpu.throttled) for gpu in gpus], 0.0),
        hot=_mean([float(is_hot(gpu)) for gpu in gpus], 0.0),
        ailments=ailments(gpus),
        power=power,
        domains=domains,
        rules=charging,
        charges=_once_each(charging, _figures, lambda rule: charge_watts(power, rule)),
        repelling=frozenset(
            (pod.namespace, rule.topology_key) for pod in view.pods for rule in pod.scheduling.anti_affinity
        ),
        held_watts=_once_each(charging, _guarantee, lambda rule: held_watts(power, rule)),
        measured=measured(view, context.pools.rules, context.maxima),
    )


def measured(
    view: NodeView, pools: Mapping[PoolKey, PlacementRules], maxima: ProductMaxima
) -> tuple[PoolKey, float] | None:
    return measured_above_declared(view.node, view.telemetry, view.pods, pools, maxima)


def _guarantee(rule: Domain) -> Guarantee:
    return rule.guarantee


def _figures(rule: Domain) -> tuple[Guarantee, float, float]:
    return rule.guarantee, rule.overhead_watts, rule.per_gpu_watt


def _once_each(
    rules: Sequence[Domain], like: Callable[[Domain], object], work_out: Callable[[Domain], Result]
) -> tuple[Result, ...]:
    """A figure per rule, worked out once for rules that are alike: those of a branch mostly are."""
    known = {like(rule): rule for rule in rules}
    found = {key: work_out(rule) for key, rule in known.items()}
    return tuple(found[like(rule)] for rule in rules)


def _mean(figures: list[float], without: float) -> float:
    return sum(figures) / len(figures) if figures else without


def _expires_at(telemetry: Telemetry | None, evidence: Evidence, now_at: float) -> float:
    if telemetry is None or evidence is not Evidence.FRESH:
        return math.inf
    moments = [fresh_until_at(telemetry), *(limit_until_at(telemetry, gpu) for gpu in telemetry.gpus)]
    return min(at for at in moments if at >= now_at)


def _free(view: NodeView) -> Amounts:
    taken: Counter[str] = Counter()
    for pod in view.pods:
        taken.update(pod.requests)
    free = {name: amount - taken.get(name, 0) for name, amount in view.node.allocatable.items()}
    free.update((name, -amount) for name, amount in taken.items() if name not in free)
    return free


def _busy_unallocated(view: NodeView) -> tuple[int, tuple[str, ...]]:
    """GPUs that work or hold memory beyond those of the pods that run here: somebody else's process is on them."""
    if view.telemetry is None:
        return 0, ()
    if view.telemetry.pods is not None:
        named = view.telemetry.unallocated_in_use
        # A pod that started after the kubelet was last asked may be what works there.
        unlisted = holdings(view.node, view.telemetry, view.pods).unknown
        busy = max(0, len(named) - sum(pod.gpus for pod in unlisted if started(pod)))
        return busy, named if busy else ()
    busy = sum(
        (gpu.activity_percent or 0.0) >= BUSY_ACTIVITY_PERCENT or gpu.memory_used_bytes >= BUSY_MEMORY_BYTES
        for gpu in view.telemetry.gpus
    )
    return max(0, busy - sum(pod.gpus for pod in view.pods if started(pod))), ()


def _free_gpus(view: NodeView, free: Amounts, power: NodePower, busy_unallocated: int) -> int:
    """What is allocatable and not allocated, less what is unhealthy, unmeasured or busy with something else."""
    allocatable = view.node.allocatable.get(GPU_RESOURCE, 0)
    sharing = replicas(view.node)
    unusable = max(0, allocatable - power.placeable_gpus * sharing)
    return free.get(GPU_RESOURCE, 0) - unusable - busy_unallocated * sharing
