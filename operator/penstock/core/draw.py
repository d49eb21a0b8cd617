"""Whose draw is it, as far as the node's GPUs tell: an estimate, until it is known which GPU a pod holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from penstock.core.model import PoolKey
from penstock.core.power import started
from penstock.core.row import NodeView


def pool_watts(views: Iterable[NodeView]) -> Mapping[PoolKey, float]:
    """What each pool's running replicas draw now, in watts of their GPUs.

    A node's running pods hold its busiest GPUs; what those draw is shared by the number of GPUs each pod asked for.
    """
    drawn: Counter[PoolKey] = Counter()
    for view in views:
        for pool, watts in _node_watts(view).items():
            drawn[pool] += watts  # type: ignore[assignment]  # Counter is typed for whole numbers
    return drawn


def _node_watts(view: NodeView) -> Mapping[PoolKey, float]:
    running = [pod for pod in view.pods if started(pod) and pod.gpus]
    held = sum(pod.gpus for pod in running)
    if not held or view.telemetry is None:
        return {}
    watts = sorted((gpu.power_watts or 0.0 for gpu in view.telemetry.gpus), reverse=True)
    per_gpu = sum(watts[:held]) / held
    shares: dict[PoolKey, float] = {}
    for pod in running:
        if pod.pool:
            key = PoolKey(pod.namespace, pod.pool)
            shares[key] = shares.get(key, 0.0) + per_gpu * pod.gpus
    return shares
