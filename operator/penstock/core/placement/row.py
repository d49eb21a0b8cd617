"""One node with everything on it, worked out once: what is free, what it costs, how far to believe it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from penstock.api.names import GPU_PRODUCT_LABEL, GPU_RESOURCE
from penstock.core.health import ailments, is_hot
from penstock.core.model import Amounts, Domain, Doubt, Gpu, Guarantee, Node, PlacementRules, Pod, PoolKey, Telemetry
from penstock.core.placement.affinity import CORDON
from penstock.core.placement.evidence import Evidence, fresh_until_at, judge, limit_until_at
from penstock.core.placement.scheduling import HostPort, Taint
from penstock.core.power.holding import claimed_gpus, counted, held_beside, holdings, replicas
from penstock.core.power.node_watts import (
    HolderKind,
    NodePower,
    Pools,
    ProductMaxima,
    at_the_pdu,
    held_watts,
    is_placeable,
    measured_above_declared,
    node_power,
    started,
)
from penstock.core.power.tree import Tree

Result = TypeVar("Result")

BUSY_ACTIVITY_PERCENT = 5.0
ROUNDING = 1e-6
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
    doubts: tuple[Doubt, ...] = ()
    """What is to be doubted of where it stands."""

    @property
    def place_held(self) -> bool:
        """Whether its place counts for no new placement."""
        return any(doubt.holds for doubt in self.doubts)


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
    claimed_gpus: int
    """GPUs that pods hold through ResourceClaims, of those that could be placed on otherwise."""
    held_unplaceable_gpus: int
    """GPUs that take no replica and that pods hold, by the kubelet's word: not free, and no pod's end frees them."""
    products: frozenset[str]
    gpu_memory_bytes: int
    taken_ports: frozenset[HostPort]
    taints: tuple[Taint, ...]
    activity: float
    """Mean activity of its GPUs, 0 to 1; unknown counts as 1."""
    shared_activity: float
    """The busiest GPU that is shared in turns and has one left, 0 to 1; unknown counts as 1, none as 0."""
    parted_activity: float
    """The same of GPUs that are divided by MIG."""
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

    @property
    def busiest(self) -> float:
        """Of all GPUs here that are shared and have room left."""
        return max(self.shared_activity, self.parted_activity)


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
    held = _once_each(charging, _guarantee, lambda rule: held_watts(power, rule))
    free = _free(view)
    gpus = telemetry.gpus if telemetry else ()
    placeable = frozenset(gpu.uuid for gpu in gpus if is_placeable(gpu))
    busy, busy_uuids = _busy_unallocated(view, placeable)
    claimed = _claimed(view, evidence, placeable)
    shared, parted = _shared_activity(view)
    unplaceable = 0
    if evidence is Evidence.FRESH and len(placeable) < len(gpus):
        unplaceable = held_beside(node, telemetry, view.pods, placeable)
    return Row(
        view=view,
        evidence=evidence,
        expires_at=_expires_at(telemetry, evidence, now_at),
        free=free,
        free_gpus=_free_gpus(view, free, power, busy + claimed, unplaceable),
        allocatable_gpus=node.allocatable.get(GPU_RESOURCE, 0),
        busy_unallocated_gpus=busy,
        busy_uuids=busy_uuids,
        claimed_gpus=claimed,
        held_unplaceable_gpus=unplaceable,
        products=frozenset(gpu.product for gpu in gpus) or frozenset((node.labels.get(GPU_PRODUCT_LABEL, ""),)),
        gpu_memory_bytes=min((gpu.memory_total_bytes for gpu in gpus), default=0),
        taken_ports=frozenset(port for pod in view.pods for port in pod.host_ports),
        taints=(*((CORDON,) if node.cordoned else ()), *node.taints),
        activity=_mean([_activity(gpu) for gpu in gpus], 1.0),
        shared_activity=shared,
        parted_activity=parted,
        throttled=_mean([float(gpu.throttled) for gpu in gpus], 0.0),
        hot=_mean([float(is_hot(gpu)) for gpu in gpus], 0.0),
        ailments=ailments(gpus),
        power=power,
        domains=domains,
        rules=charging,
        charges=tuple(map(_charge, charging, held)),
        repelling=frozenset(
            (pod.namespace, rule.topology_key) for pod in view.pods for rule in pod.scheduling.anti_affinity
        ),
        held_watts=held,
        measured=measured(view, context.pools.rules, context.maxima),
    )


def measured(
    view: NodeView, pools: Mapping[PoolKey, PlacementRules], maxima: ProductMaxima
) -> tuple[PoolKey, float] | None:
    return measured_above_declared(view.node, view.telemetry, view.pods, pools, maxima)


def _guarantee(rule: Domain) -> Guarantee:
    return rule.guarantee


def _charge(rule: Domain, held: Mapping[tuple[HolderKind, str], float]) -> float:
    """What `power.charge_watts` says, from what is held: a node without GPUs costs nothing."""
    return at_the_pdu(rule, sum(held.values())) if held else 0.0


def _once_each(
    rules: Sequence[Domain], like: Callable[[Domain], object], work_out: Callable[[Domain], Result]
) -> tuple[Result, ...]:
    """A figure per rule, worked out once for rules that are alike: those of a branch mostly are."""
    known = {like(rule): rule for rule in rules}
    found = {key: work_out(rule) for key, rule in known.items()}
    return tuple(found[like(rule)] for rule in rules)


def _shared_activity(view: NodeView) -> tuple[float, float]:
    """The busiest GPU that one more pod could share: in turns, or as a part of its own."""
    gpus, turns = view.telemetry.gpus if view.telemetry else (), replicas(view.node)
    if turns == 1 and not any(gpu.mig for gpu in gpus):
        return 0.0, 0.0
    known = holdings(view.node, view.telemetry, view.pods).known
    open_to_more = [gpu for gpu in gpus if sum(share for _, share in known.get(gpu.uuid, ())) < turns - ROUNDING]
    return (
        max((_activity(gpu) for gpu in open_to_more if turns > 1 or all(one.mig for one in gpus)), default=0.0),
        max((_activity(gpu) for gpu in open_to_more if gpu.mig), default=0.0),
    )


def _activity(gpu: Gpu) -> float:
    return 1.0 if gpu.activity_percent is None else gpu.activity_percent / 100


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


def _busy_unallocated(view: NodeView, placeable: frozenset[str]) -> tuple[int, tuple[str, ...]]:
    """GPUs that work or hold memory beyond those of the pods that run here: somebody else's process is on them.

    Where the kubelet said who holds the others, those that take nothing anyway are left out.
    """
    if view.telemetry is None:
        return 0, ()
    if view.telemetry.pods is not None:
        named = tuple(uuid for uuid in view.telemetry.unallocated_in_use if uuid in placeable)
        # A pod that started after the kubelet was last asked may be what works there.
        unlisted = holdings(view.node, view.telemetry, view.pods).unknown
        busy = max(0, len(named) - _started_gpus(unlisted))
        return busy, named if busy else ()
    busy = sum(
        (gpu.activity_percent or 0.0) >= BUSY_ACTIVITY_PERCENT or gpu.memory_used_bytes >= BUSY_MEMORY_BYTES
        for gpu in view.telemetry.gpus
    )
    return max(0, busy - _started_gpus(view.pods)), ()


def _started_gpus(pods: Iterable[Pod]) -> int:
    return sum(gpus for pod, gpus in counted(pods) if started(pod))


def _claimed(view: NodeView, evidence: Evidence, placeable: frozenset[str]) -> int:
    telemetry = view.telemetry if evidence is Evidence.FRESH else None
    told = telemetry.pods if telemetry else None
    if any(pod.claimed for pod in view.pods) or any(one.claims for one in told or ()):
        return claimed_gpus(view.node, telemetry, view.pods, placeable)
    return 0


def _free_gpus(view: NodeView, free: Amounts, power: NodePower, taken: int, held_unplaceable: int) -> int:
    """What is allocatable and not allocated, less what is unhealthy or unmeasured, and what is `taken` otherwise.

    What is both allocated and unhealthy is taken off once. Whether the device plugin offers a GPU that is taken is not
    known, so it counts as offered.
    """
    allocatable = view.node.allocatable.get(GPU_RESOURCE, 0)
    sharing = replicas(view.node)
    unusable = max(0, allocatable - power.placeable_gpus * sharing - held_unplaceable)
    return free.get(GPU_RESOURCE, 0) - unusable - taken * sharing
