"""Replicas that hold GPUs and do nothing on them: who, once that has lasted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from penstock.core.model import Pod, PoolKey
from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.power.draw import idle_pods


@dataclass
class Idleness:
    """Since when each pool's replicas do nothing, on our monotonic clock; a restart begins to count anew.

    Whoever did nothing for `idle_seconds` is a candidate for consolidation; one between two requests is none.
    """

    idle_seconds: float
    _since_at: dict[PoolKey, dict[str, float]] = field(default_factory=dict)

    def look(self, pool: PoolKey, pods: Iterable[Pod], fleet: Fleet, now_at: float) -> tuple[Pod, ...]:
        """Those of a pool's bound pods that were idle at every look for so long."""
        before = self._since_at.get(pool, {})
        idle = tuple(_idle(pods, fleet))
        self._since_at[pool] = {pod.uid: before.get(pod.uid, now_at) for pod in idle}
        return tuple(pod for pod in idle if now_at - before.get(pod.uid, now_at) >= self.idle_seconds)

    def forget(self, pool: PoolKey) -> None:
        self._since_at.pop(pool, None)


def _idle(pods: Iterable[Pod], fleet: Fleet) -> Iterator[Pod]:
    looked: dict[str, frozenset[str]] = {}
    for pod in pods:
        at = fleet.position.get(pod.node)
        if at is None:
            continue
        if pod.node not in looked:
            row = fleet.rows[at]
            # What a silent agent said last is no sign of what happens now.
            looked[pod.node] = idle_pods(row.view) if row.evidence is Evidence.FRESH else frozenset()
        if pod.uid in looked[pod.node]:
            yield pod
