"""Pods by whose room they take, by their pool and namespace, and apart from the pool once they were isolated; and
ReplicaSets by their Deployments.
"""

from __future__ import annotations

from typing import TypeVar

from penstock.cluster.objects import ReplicaSet
from penstock.core.model import Pod, PoolKey

Key = TypeVar("Key")
Name = TypeVar("Name")
One = TypeVar("One")


class Filing:
    """Each pod under what it says of itself; whoever says another thing is unfiled first, as it was."""

    def __init__(self) -> None:
        self.by_node: dict[str, dict[str, Pod]] = {}
        """By the node whose room they take (bound or pinned), then by uid; finished pods take none."""
        self.by_pool: dict[PoolKey, dict[str, Pod]] = {}
        self.by_namespace: dict[str, dict[str, Pod]] = {}
        self.isolated: dict[PoolKey, dict[str, Pod]] = {}
        """Pods that were replicas of a pool and were taken out of traffic, by uid."""

    def file(self, pod: Pod) -> None:
        self.by_namespace.setdefault(pod.namespace, {})[pod.uid] = pod
        if pod.place and not pod.finished:
            self.by_node.setdefault(pod.place, {})[pod.uid] = pod
        if pod.pool:
            self.by_pool.setdefault(PoolKey(pod.namespace, pod.pool), {})[pod.uid] = pod
        if pod.isolated:
            self.isolated.setdefault(PoolKey(pod.namespace, pod.isolated.pool), {})[pod.uid] = pod

    def unfile(self, pod: Pod) -> None:
        _discard(self.by_namespace, pod.namespace, pod.uid)
        _discard(self.by_node, pod.place, pod.uid)
        _discard(self.by_pool, PoolKey(pod.namespace, pod.pool), pod.uid)
        if pod.isolated:
            _discard(self.isolated, PoolKey(pod.namespace, pod.isolated.pool), pod.uid)


class ReplicaSets:
    """By their own key, and by the uid of whoever controls them."""

    def __init__(self) -> None:
        self.by_key: dict[PoolKey, ReplicaSet] = {}
        self._by_owner: dict[str, dict[PoolKey, ReplicaSet]] = {}

    def of(self, uid: str) -> list[ReplicaSet]:
        """Those that this object controls."""
        return list(self._by_owner.get(uid, {}).values())

    def put(self, one: ReplicaSet) -> None:
        self.pop(one.key)
        self.by_key[one.key] = one
        if one.owner is not None:
            self._by_owner.setdefault(one.owner.uid, {})[one.key] = one

    def pop(self, key: PoolKey) -> ReplicaSet | None:
        gone = self.by_key.pop(key, None)
        if gone is not None and gone.owner is not None:
            _discard(self._by_owner, gone.owner.uid, key)
        return gone


def _discard(index: dict[Key, dict[Name, One]], key: Key, name: Name) -> None:
    members = index.get(key, {})
    members.pop(name, None)
    if not members:
        index.pop(key, None)
