"""Whose draw is it: by the kubelet's word which GPUs a pod holds; where it is not known, an estimate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from penstock.core.holding import join
from penstock.core.model import PoolKey
from penstock.core.power import started
from penstock.core.row import NodeView


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


def _node_watts(view: NodeView) -> Mapping[PoolKey, float]:
    if view.telemetry is None:
        return {}
    known = pod_watts(view)
    named = {uuid for one in join(view.node, view.telemetry, view.pods) for uuid in one.gpus.uuids}
    others = sorted((gpu.power_watts or 0.0 for gpu in view.telemetry.gpus if gpu.uuid not in named), reverse=True)
    unknown = [pod for pod in view.pods if started(pod) and pod.gpus and pod.uid not in known]
    held = sum(pod.gpus for pod in unknown)
    per_gpu = sum(others[:held]) / held if held else 0.0
    shares: dict[PoolKey, float] = {}
    for pod in view.pods:
        watts = known.get(pod.uid, per_gpu * pod.gpus if pod in unknown else None)
        if pod.pool and watts is not None:
            key = PoolKey(pod.namespace, pod.pool)
            shares[key] = shares.get(key, 0.0) + watts
    return shares
