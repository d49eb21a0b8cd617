"""The live picture of the cluster that the control loop reads. No decisions here, and no I/O.

Everything runs in one event loop, so there are no locks: who reads without awaiting reads one moment. What changed is
kept as marks (`dirty_nodes`, `dirty_pools`, `domains_changed`, `laws_changed`) that `take_dirty()` hands over; `wake`
is set with a mark that a decision may turn on, and `urgent` too unless an agent's report brought it: of those there are
a hundred a second in a large fleet. A heartbeat marks its node and wakes nobody; a new resourceVersion marks nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from penstock.api.names import GATE, PLACE_LABELS
from penstock.cluster import wire_gpunode as wire
from penstock.cluster.claims import Claims
from penstock.cluster.filing import Filing, ReplicaSets
from penstock.cluster.objects import (
    Deployment,
    DomainObject,
    ExceptionObject,
    GroupObject,
    Namespace,
    PolicyObject,
    PoolObject,
    PriorityClass,
    ReplicaSet,
    ResourceClaim,
    Service,
)
from penstock.cluster.parse.telemetry import age_seconds
from penstock.cluster.reports import Reports
from penstock.cluster.shelf import Shelf, is_older
from penstock.core.model import Node, Pod, PoolKey
from penstock.core.residency.enforcement import Verification


@dataclass(frozen=True, slots=True)
class Dirty:
    """What changed since the last `take_dirty()`."""

    nodes: frozenset[str]
    pools: frozenset[PoolKey]
    domains: bool
    laws: bool = False
    """Policies, groups, exceptions, or what a namespace says of itself."""
    moved: frozenset[str] = frozenset()
    """The nodes that came, or say to stand elsewhere."""


class ClusterState:
    """What is known of the cluster, by kind. Read the dicts freely; change them only through the methods.

    One install has one source of telemetry: with `hears_agents` false, what agents publish is left alone.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic, hears_agents: bool = True) -> None:
        self.nodes: dict[str, Node] = {}
        self._reports = Reports(now)
        self.telemetry = self._reports.telemetry
        self.pods: dict[str, Pod] = {}
        """By uid, with assumed placements filled in."""
        self._filing = Filing()
        self.pods_by_node = self._filing.by_node
        self.pods_by_pool = self._filing.by_pool
        self.pods_by_namespace = self._filing.by_namespace
        self.isolated = self._filing.isolated
        self.deployments: dict[PoolKey, Deployment] = {}
        self._replica_sets = ReplicaSets()
        self.services: dict[PoolKey, Service] = {}
        self.written_pools: Shelf[PoolKey, PoolObject] = Shelf(lambda one: one.key, self._mark_pool)
        self.written_domains: Shelf[str, DomainObject] = Shelf(lambda one: one.name, self._mark_domains)
        self.policies: Shelf[str, PolicyObject] = Shelf(lambda one: one.name, self._mark_laws)
        self.groups: Shelf[str, GroupObject] = Shelf(lambda one: one.name, self._mark_laws)
        self.exceptions: Shelf[PoolKey, ExceptionObject] = Shelf(lambda one: one.key, self._mark_laws)
        self.namespaces: dict[str, Namespace] = {}
        self.namespace_changes = 0
        """Rises with every change of one."""
        self.priority_classes: dict[str, PriorityClass] = {}
        self.verification: Verification | None = None
        """What was found when somebody tried last whether the API server holds the law."""

        self.dirty_nodes: set[str] = set()
        self.dirty_pools: set[PoolKey] = set()
        self.domains_changed = self.laws_changed = False
        self._moved_nodes: set[str] = set()
        self.wake, self.urgent = asyncio.Event(), asyncio.Event()

        self._now = now
        self._hears_agents = hears_agents
        self._claims = Claims()
        self._assumed: dict[str, tuple[str, Pod]] = {}
        self.first_seen_at: dict[str, float] = {}
        """When each pod (by uid) first appeared here, on our monotonic clock."""

    def take_dirty(self) -> Dirty:
        """Hand over the marks and clear them together with `wake` and `urgent`."""
        nodes, pools, moved = frozenset(self.dirty_nodes), frozenset(self.dirty_pools), frozenset(self._moved_nodes)
        dirty = Dirty(nodes, pools, self.domains_changed, self.laws_changed, moved)
        self.dirty_nodes.clear()
        self.dirty_pools.clear()
        self._moved_nodes.clear()
        self.domains_changed = self.laws_changed = False
        self.wake.clear()
        self.urgent.clear()
        return dirty

    def rouse(self) -> None:
        """Ask for a turn at once."""
        self.wake.set()
        self.urgent.set()

    @property
    def replica_sets(self) -> dict[PoolKey, ReplicaSet]:
        return self._replica_sets.by_key

    def replica_sets_of(self, deployment: Deployment) -> list[ReplicaSet]:
        """The ReplicaSets that a Deployment controls."""
        return self._replica_sets.of(deployment.uid)

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
        if known is not None and is_older(pod.resource_version, known.resource_version):
            return
        self._store_pod(self._with_assumption(replace(pod, claimed=self._claims.of(pod.uid))))

    def delete_pod(self, uid: str) -> None:
        self._assumed.pop(uid, None)
        gone = self.pods.pop(uid, None)
        self.first_seen_at.pop(uid, None)
        if gone is not None:
            self._filing.unfile(gone)
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

    def assumes(self, uid: str) -> bool:
        """Whether a pod is shown as it was booked, and not as the API server last showed it."""
        return uid in self._assumed

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
            self._filing.unfile(known)
        self._filing.file(pod)
        if known is None:
            self.first_seen_at[pod.uid] = self._now()
            self._mark_pod(pod)
        elif replace(known, resource_version=pod.resource_version) != pod:
            self._mark_pod(known)
            self._mark_pod(pod)

    def _mark_pod(self, pod: Pod) -> None:
        # A pod without a place and without a pool is nobody's concern here.
        if pod.place:
            self.dirty_nodes.add(pod.place)
        if pod.pool:
            self.dirty_pools.add(PoolKey(pod.namespace, pod.pool))
        if pod.isolated:
            self.dirty_pools.add(PoolKey(pod.namespace, pod.isolated.pool))
        if pod.place or pod.pool:
            self.rouse()

    def put_claim(self, claim: ResourceClaim) -> None:
        self._hand_over(self._claims.put(claim))

    def delete_claim(self, key: str) -> None:
        self._hand_over(self._claims.delete(key))

    def _hand_over(self, uids: frozenset[str]) -> None:
        for uid in uids & self.pods.keys():
            self._store_pod(replace(self.pods[uid], claimed=self._claims.of(uid)))

    # ------------------------------------------------------------------------------------------ nodes and telemetry

    def put_node(self, node: Node) -> None:
        known = self.nodes.get(node.name)
        if known != node:
            if known is None or _place(known) != _place(node):
                self._moved_nodes.add(node.name)
            self.nodes[node.name] = node
            self._mark_node(node.name)

    def delete_node(self, name: str) -> None:
        if self.nodes.pop(name, None) is not None:
            self._mark_node(name)

    def put_gpu_node(self, seen: wire.GpuNode, server_time: float | None) -> None:
        """An agent's report. `server_time` as in `informer.Kind`: from it the age after a start or a gap."""
        if self._hears_agents:
            self.put_report(seen, age_seconds(seen, server_time))

    def doubt_gpu_node(self, name: str, why: str) -> None:
        """A GPUNode that cannot be read."""
        if self._hears_agents:
            self._reports.doubt(name, f"its GPUNode cannot be read: {why}")
            self._mark_node(name)

    def delete_gpu_node(self, name: str) -> None:
        if self._hears_agents:
            self.drop_report(name)

    def put_report(self, seen: wire.GpuNode, age: float | None, doubt: str = "") -> None:
        """A report of one node's GPUs, `age` seconds old. `doubt` says what in it cannot be true, if anything."""
        # A mere heartbeat waits for the next turn: it keeps the node fresh, but no decision turns on it.
        self.dirty_nodes.add(seen.metadata.name)
        if self._reports.put(seen, age, doubt):
            self.wake.set()

    def drop_report(self, name: str) -> None:
        """Forget what was heard of a node."""
        if self._reports.drop(name):
            self._mark_node(name)

    def _mark_node(self, name: str) -> None:
        self.dirty_nodes.add(name)
        self.rouse()

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
        self._replica_sets.put(replica_set)

    def delete_replica_set(self, key: PoolKey) -> None:
        gone = self._replica_sets.pop(key)
        if gone is not None:
            self._mark_pool(PoolKey(key.namespace, gone.pool))

    def put_service(self, service: Service) -> None:
        if self.services.get(service.key) != service:
            self._mark_pool(PoolKey(service.key.namespace, service.pool))
        self.services[service.key] = service

    def delete_service(self, key: PoolKey) -> None:
        gone = self.services.pop(key, None)
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

    @property
    def pools(self) -> dict[PoolKey, PoolObject]:
        return self.written_pools.objects

    @property
    def domains(self) -> dict[str, DomainObject]:
        return self.written_domains.objects

    def put_namespace(self, namespace: Namespace) -> None:
        known = self.namespaces.get(namespace.name)
        if known == namespace:
            return
        self.namespaces[namespace.name] = namespace
        self.namespace_changes += 1
        # What stands there of the law follows from it: our own words that come back move nobody.
        if known is None or known.labels != namespace.labels:
            self._mark_laws(namespace.name)
        self.rouse()

    def delete_namespace(self, name: str) -> None:
        if self.namespaces.pop(name, None) is not None:
            self._mark_laws(name)

    def put_verification(self, found: Verification | None) -> None:
        self.verification = found
        self.rouse()

    def _mark_pool(self, key: PoolKey) -> None:
        self.dirty_pools.add(key)
        self.rouse()

    def _mark_every_pool(self) -> None:
        self.dirty_pools.update(self.pools)
        self.rouse()

    def _mark_laws(self, _: object) -> None:
        self.laws_changed = True
        self.rouse()

    def _mark_domains(self, _: object) -> None:
        self.domains_changed = True
        self.rouse()


def _place(node: Node) -> dict[str, str]:
    """Where a node stands, and what that is known by."""
    return {key: node.labels[key] for key in PLACE_LABELS if key in node.labels}


def _assumed(pod: Pod, node: str) -> Pod:
    return replace(pod, pin=node, gates=tuple(gate for gate in pod.gates if gate != GATE))
