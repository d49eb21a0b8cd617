"""Whose draw is it: by the kubelet's word which GPUs a pod holds; where it is not known, an estimate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from penstock.core.model import PoolKey
from penstock.core.placement.row import NodeView
from penstock.core.power.holding import counted, join
from penstock.core.power.node_watts import started

IDLE_ACTIVITY_PERCENT = 5.0
"""Health checks and metrics are no work."""


def pool_watts(views: Iterable[NodeView]) -> Mapping[PoolKey, float]:
    """What each pool's running replicas draw now, in watts of their GPUs.

    Pods whose GPUs are not known hold the busiest of those that nobody else is known to hold; what those draw is
    shared by the number of GPUs each pod asked for.
    """
    drawn: Counter[PoolKey] = Counter()
    for view in views:
        for pool, watts in _node_watts(view).items():
            drawn[pool] += watts  # type: ignore[assignment]  # Counter is typed for whole numbers
    return drawn


def pod_watts(view: NodeView) -> Mapping[str, float]:
    """By pod uid, what each pod draws now whose GPUs are known."""
    joined = join(view.node, view.telemetry, view.pods)
    return {one.pod.uid: one.gpus.watts for one in joined if one.gpus.watts is not None}


def idle_pods(view: NodeView) -> frozenset[str]:
    """By uid, the pods that hold GPUs on which they are seen to do nothing."""
    joined = join(view.node, view.telemetry, view.pods)
    return frozenset(
        one.pod.uid
        for one in joined
        if one.gpus.activity_percent is not None and one.gpus.activity_percent <= IDLE_ACTIVITY_PERCENT
    )


def _node_watts(view: NodeView) -> Mapping[PoolKey, float]:
    if view.telemetry is None:
        return {}
    known = pod_watts(view)
    named = {uuid for one in join(view.node, view.telemetry, view.pods) for uuid in one.gpus.uuids}
    others = sorted((gpu.power_watts or 0.0 for gpu in view.telemetry.gpus if gpu.uuid not in named), reverse=True)
    unknown = {pod.uid: gpus for pod, gpus in counted(view.pods) if started(pod) and pod.uid not in known}
    held = sum(unknown.values())
    per_gpu = sum(others[:held]) / held if held else 0.0
    shares: dict[PoolKey, float] = {}
    for pod in view.pods:
        watts = known.get(pod.uid, per_gpu * unknown[pod.uid] if pod.uid in unknown else None)
        if pod.pool and watts is not None:
            key = PoolKey(pod.namespace, pod.pool)
            shares[key] = shares.get(key, 0.0) + watts
    return shares
