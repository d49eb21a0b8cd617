"""Which nodes a pool keeps away from for a while, because a pin there died or a kubelet refused its pod."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from penstock.core.model import PoolKey

LONGEST_DOUBLING = 6


@dataclass(frozen=True, slots=True)
class _Failure:
    until_at: float
    times: int


@dataclass
class BackOff:
    """Per pool and node: away for `seconds` after a failure, doubled with each one that follows before it is over
    twice. Held in memory alone: a restart may try a node once more, which costs one pod.
    """

    seconds: float
    _failures: dict[tuple[PoolKey, str], _Failure] = field(default_factory=dict)
    _counted: set[str] = field(default_factory=set)

    def fail(self, pool: PoolKey, node: str, now_at: float) -> None:
        known = self._failures.get((pool, node))
        times = min(known.times + 1, LONGEST_DOUBLING) if known else 0
        self._failures[pool, node] = _Failure(now_at + self.seconds * 2**times, times)

    def fail_once(self, pool: PoolKey, node: str, pod_uid: str, now_at: float) -> None:
        """Count a pod that failed on a node, however often it is seen."""
        if node and pod_uid not in self._counted:
            self._counted.add(pod_uid)
            self.fail(pool, node, now_at)

    def nodes(self, pool: PoolKey, now_at: float) -> frozenset[str]:
        """The nodes that this pool keeps away from now."""
        return frozenset(
            node for (key, node), failure in self._failures.items() if key == pool and failure.until_at > now_at
        )

    def forget(self, pods: Collection[str], now_at: float) -> None:
        """Drop what is long over, and the marks of pods that are gone."""
        self._counted &= set(pods) if len(self._counted) else set()
        over = [key for key, one in self._failures.items() if one.until_at + self.seconds * 2**one.times < now_at]
        for key in over:
            del self._failures[key]
