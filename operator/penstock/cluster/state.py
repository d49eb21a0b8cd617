"""The live picture of the cluster that the control loop reads. No decisions here, and no I/O.

Everything runs in one event loop, so there are no locks: who reads without awaiting reads one moment. What changed is
kept as marks (`dirty_nodes`, `dirty_pools`, `domains_changed`) that `take_dirty()` hands over; `wake` is set with a
mark that a decision may turn on. A heartbeat marks its node and wakes nobody; a new resourceVersion marks nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from penstock.api.names import GATE
from penstock.cluster import wire
from penstock.cluster.objects import Deployment, DomainObject, PoolObject, PriorityClass, ReplicaSet
from penstock.cluster.parse.news import is_news
from penstock.cluster.parse.telemetry import Heard, age_seconds, hear
from penstock.core.model import Node, Pod, PoolKey, Telemetry

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Dirty:
    """What changed since the last `take_dirty()`."""

    nodes: frozenset[str]
    pools: frozenset[PoolKey]
    domains: bool


class ClusterState:
    """What is known of the cluster, by kind. Read the dicts freely; change them only through the methods.

    One install has one source of telemetry: with `hears_agents` false, what agents publish is left alone.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic, hears_agents: bool = True) -> None:
        self.nodes: dict[str, Node] = {}
        self.telemetry: dict[str, Telemetry] = {}
        self.pods: dict[str, Pod] = {}
        """By uid, with assumed placements filled in."""
        self.pods_by_node: dict[str, dict[str, Pod]] = {}
        """By the node whose room they take (bound or pinned), then by uid; finished pods take none."""
        self.pods_by_pool: dict[PoolKey, dict[str, Pod]] = {}
        self.deployments: dict[PoolKey, Deployment] = {}
        self.replica_sets: dict[PoolKey, ReplicaSet] = {}
        self.pools: dict[PoolKey, PoolObject] = {}
        self.domains: dict[str, DomainObject] = {}
        self.priority_classes: dict[str, PriorityClass] = {}

        self.dirty_nodes: set[str] = set()
        self.dirty_pools: set[PoolKey] = set()
        self.domains_changed = False
        self.wake = asyncio.Event()

        self._now = now
        self._hears_agents = hears_agents
        self._heard: dict[str, Heard] = {}
        self._claims: dict[str, str] = {}
        """GPU UUID → the node whose report had it first."""
        self._assumed: dict[str, tuple[str, Pod]] = {}
        self.first_seen_at: dict[str, float] = {}
        """When each pod (by uid) first appeared here, on our monotonic clock."""

    def take_dirty(self) -> Dirty:
        """Hand over the marks and clear them together with `wake`."""
        dirty = Dirty(frozenset(self.dirty_nodes), frozenset(self.dirty_pools), self.domains_changed)
        self.dirty_nodes.clear()
        self.dirty_pools.clear()
        self.domains_changed = False
        self.wake.clear()
        return dirty

    def replica_sets_of(self, deployment: Deployment) -> list[ReplicaSet]:
        """The ReplicaSets that a Deployment controls."""
        sets = self.replica_sets.values()
        return [one for one in sets if one.owner is not None and one.owner.uid == deployment.uid]

    @property
    def priorities(self) -> dict[str, int]:
        """PriorityClass name → value; "" is the cluster's default."""
        values = {one.name: one.value for one in self.priority_classes.values()}
        default = max((one.value for one in self.priority_classes.values() if one.is_default), default=0)
        return values | {"": default}

    # ------------------------------------------------------------------------------------------------------- pods

    def put_pod(self, pod: Pod) -> None:
        """The API server's word on a pod, from a watch, a list or the answer to a write; an older word is ignored."""
        known = self._seen(pod.uid)
        if known is not None and _is_older(pod.resource_version, known.resource_version):
            return
        self._store_pod(self._with_assumption(pod))

    def delete_pod(self, uid: str) -> None:
        self._assumed.pop(uid, None)
        gone = self.pods.pop(uid, None)
        self.first_seen_at.pop(uid, None)
        if gone is not None:
            self._unfile(gone)
            self._mark_pod(gone)

    def assume(self, uid: str, node: str) -> None:
        """Book a pod on a node before the API server shows it there: pinned, and without our gate.

        Stands until the API server shows the pod pinned, bound or without our gate (its word wins), the pod is gone,
        or `forget`. With an empty `node` only the gate is taken away.
        """
        pod = self.pods.get(uid)
        if pod is None:
            return
        seen = self._seen(uid) or pod
        self._assumed[uid] = (node, seen)
        self._store_pod(_assumed(seen, node))

    def forget(self, uid: str) -> None:
        """Take an assumption back: the write was refused. The pod is again as the API server last showed it."""
        assumption = self._assumed.pop(uid, None)
        if assumption is not None:
            self._store_pod(assumption[1])

    def _seen(self, uid: str) -> Pod | None:
        return self._assumed[uid][1] if uid in self._assumed else self.pods.get(uid)

    def _with_assumption(self, pod: Pod) -> Pod:
        if pod.uid not in self._assumed:
            return pod
        node, _ = self._assumed[pod.uid]
        if pod.place or not pod.gated:
            del self._assumed[pod.uid]
            return pod
        self._assumed[pod.uid] = (node, pod)
        return _assumed(pod, node)

    def _store_pod(self, pod: Pod) -> None:
        known = self.pods.get(pod.uid)
        self.pods[pod.uid] = pod
        if known is not None:
            self._unfile(known)
        self._file(pod)
        if known is None:
            self.first_seen_at[pod.uid] = self._now()
            self._mark_pod(pod)
        elif replace(known, resource_version=pod.resource_version) != pod:
            self._mark_pod(known)
            self._mark_pod(pod)

    def _file(self, pod: Pod) -> None:
        if pod.place and not pod.finished:
            self.pods_by_node.setdefault(pod.place, {})[pod.uid] = pod
        if pod.pool:
            self.pods_by_pool.setdefault(PoolKey(pod.namespace, pod.pool), {})[pod.uid] = pod

    def _unfile(self, pod: Pod) -> None:
        _discard(self.pods_by_node, pod.place, pod.uid)
        _discard(self.pods_by_pool, PoolKey(pod.namespace, pod.pool), pod.uid)

    def _mark_pod(self, pod: Pod) -> None:
        # A pod without a place and without a pool is nobody's concern here.
        if pod.place:
            self.dirty_nodes.add(pod.place)
        if pod.pool:
            self.dirty_pools.add(PoolKey(pod.namespace, pod.pool))
        if pod.place or pod.pool:
            self.wake.set()

    # ------------------------------------------------------------------------------------------ nodes and telemetry

    def put_node(self, node: Node) -> None:
        if self.nodes.get(node.name) != node:
            self.nodes[node.name] = node
            self._mark_node(node.name)

    def delete_node(self, name: str) -> None:
        if self.nodes.pop(name, None) is not None:
            self._mark_node(name)

    def put_gpu_node(self, seen: wire.GpuNode, server_time: float | None) -> None:
        """An agent's report. `server_time` as in `informer.Kind`: from it the age after a start or a gap."""
        if self._hears_agents:
            self.put_report(seen, age_seconds(seen, server_time))

    def put_report(self, seen: wire.GpuNode, age: float | None, doubt: str = "") -> None:
        """A report of one node's GPUs, `age` seconds old. `doubt` says what in it cannot be true, if anything."""
        name = seen.metadata.name
        before = self._heard.get(name)
        heard = hear(seen, before, self._now(), age)
        doubt = doubt or self._claim(name, before, heard)
        if doubt:
            heard = replace(heard, telemetry=replace(heard.telemetry, contradiction=doubt))
        self._heard[name] = heard
        self.telemetry[name] = heard.telemetry
        # A mere heartbeat waits for the next turn: it keeps the node fresh, but no decision turns on it.
        self.dirty_nodes.add(name)
        if before is None or is_news(before.telemetry, heard.telemetry):
            self._mark_node(name)

    def _claim(self, name: str, before: Heard | None, heard: Heard) -> str:
        """Whose GPUs a report speaks of; in words, if one of them is another node's.

        The node that had it first keeps it: who copies a report taints himself, not the one whose report it was.
        After a start that is the one listed first.
        """
        own = {gpu.uuid for gpu in heard.telemetry.gpus}
        for gpu in before.telemetry.gpus if before else ():
            if gpu.uuid not in own and self._claims.get(gpu.uuid) == name:
                del self._claims[gpu.uuid]
        for gpu in heard.telemetry.gpus:
            if (owner := self._claims.setdefault(gpu.uuid, name)) != name:
                told = f"{gpu.uuid} is node {owner}'s; delete the GPUNode of the one that has it no more"
                return f"GPU {gpu.index}: {told}"
        return ""

    def delete_gpu_node(self, name: str) -> None:
        if self._hears_agents:
            self.drop_report(name)

    def drop_report(self, name: str) -> None:
        """Forget what was heard of a node."""
        self._heard.pop(name, None)
        self._claims = {uuid: node for uuid, node in self._claims.items() if node != name}
        if self.telemetry.pop(name, None) is not None:
            self._mark_node(name)

    def _mark_node(self, name: str) -> None:
        self.dirty_nodes.add(name)
        self.wake.set()

    # ------------------------------------------------------------------------------------- what controllers write

    def put_deployment(self, deployment: Deployment) -> None:
        if self.deployments.get(deployment.key) != deployment:
            self._mark_pool(PoolKey(deployment.key.namespace, deployment.pool))
        self.deployments[deployment.key] = deployment

    def delete_deployment(self, key: PoolKey) -> None:
        gone = self.deployments.pop(key, None)
        if gone is not None:
            self._mark_pool(PoolKey(key.namespace, gone.pool))

    def put_replica_set(self, replica_set: ReplicaSet) -> None:
        if self.replica_sets.get(replica_set.key) != replica_set:
            self._mark_pool(PoolKey(replica_set.key.namespace, replica_set.pool))
        self.replica_sets[replica_set.key] = replica_set

    def delete_replica_set(self, key: PoolKey) -> None:
        gone = self.replica_sets.pop(key, None)
        if gone is not None:
            self._mark_pool(PoolKey(key.namespace, gone.pool))

    def put_priority_class(self, priority_class: PriorityClass) -> None:
        if self.priority_classes.get(priority_class.name) != priority_class:
            self.priority_classes[priority_class.name] = priority_class
            self._mark_every_pool()

    def delete_priority_class(self, name: str) -> None:
        if self.priority_classes.pop(name, None) is not None:
            self._mark_every_pool()

    # ------------------------------------------------------------------------------------------ what people write

    def put_pool(self, pool: PoolObject) -> None:
        known = self.pools.get(pool.key)
        if known is not None and _is_older(pool.resource_version, known.resource_version):
            return
        self.pools[pool.key] = pool
        if known != pool:
            self._mark_pool(pool.key)

    def delete_pool(self, key: PoolKey, uid: str) -> None:
        """Drop a pool; a newer one of the same name stays."""
        known = self.pools.get(key)
        if known is not None and known.uid == uid:
            del self.pools[key]
            self._mark_pool(key)

    def put_domain(self, domain: DomainObject) -> None:
        known = self.domains.get(domain.name)
        if known is not None and _is_older(domain.resource_version, known.resource_version):
            return
        self.domains[domain.name] = domain
        if known != domain:
            self._mark_domains()

    def delete_domain(self, name: str, uid: str) -> None:
        """Drop a domain; a newer one of the same name stays."""
        known = self.domains.get(name)
        if known is not None and known.uid == uid:
            del self.domains[name]
            self._mark_domains()

    def keep_pools(self, listed: Iterable[PoolObject], resource_version: str) -> None:
        """Make the pools those of a list: what it lacks is gone, unless it is newer than the list."""
        objects = {pool.key: pool for pool in listed}
        for ghost in [one for key, one in self.pools.items() if key not in objects]:
            if _is_older(ghost.resource_version, resource_version):
                self.delete_pool(ghost.key, ghost.uid)
        for pool in objects.values():
            self.put_pool(pool)

    def keep_domains(self, listed: Iterable[DomainObject], resource_version: str) -> None:
        """Make the domains those of a list: what it lacks is gone, unless it is newer than the list."""
        objects = {domain.name: domain for domain in listed}
        for ghost in [one for name, one in self.domains.items() if name not in objects]:
            if _is_older(ghost.resource_version, resource_version):
                self.delete_domain(ghost.name, ghost.uid)
        for domain in objects.values():
            self.put_domain(domain)

    def _mark_pool(self, key: PoolKey) -> None:
        self.dirty_pools.add(key)
        self.wake.set()

    def _mark_every_pool(self) -> None:
        self.dirty_pools.update(self.pools)
        self.wake.set()

    def _mark_domains(self) -> None:
        self.domains_changed = True
        self.wake.set()


def _assumed(pod: Pod, node: str) -> Pod:
    return replace(pod, pin=node, gates=tuple(gate for gate in pod.gates if gate != GATE))


def _discard(index: dict[Key, dict[str, Pod]], key: Key, uid: str) -> None:
    members = index.get(key, {})
    members.pop(uid, None)
    if not members:
        index.pop(key, None)


def _is_older(version: str, than: str) -> bool:
    # Comparable as numbers since Kubernetes 1.35 by contract, and in etcd-backed servers always.
    return version.isdigit() and than.isdigit() and int(version) < int(than)
