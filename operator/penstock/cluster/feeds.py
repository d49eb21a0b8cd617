"""Which kinds are watched, and how each feeds the state."""

from __future__ import annotations

from typing import Any

from penstock.api.names import GROUP, POOL_LABEL, VERSION
from penstock.cluster import wire
from penstock.cluster.client import KubeClient
from penstock.cluster.informer import QUIET_SECONDS, Informer, Kind
from penstock.cluster.parse.nodes import decode_node, node
from penstock.cluster.parse.pods import decode_pod, pod
from penstock.cluster.parse.telemetry import decode_gpu_node
from penstock.cluster.parse.workloads import (
    decode_priority_class,
    decode_workload,
    deployment,
    priority_class,
    replica_set,
)
from penstock.cluster.state import ClusterState
from penstock.core.model import PoolKey
from penstock.metrics import Metrics

_OURS = {"labelSelector": POOL_LABEL}


def informers(
    client: KubeClient, state: ClusterState, metrics: Metrics, quiet_seconds: float = QUIET_SECONDS
) -> tuple[Informer[Any], ...]:
    """One informer for each watched kind; run each as a task of its own."""
    kinds: tuple[Kind[Any], ...] = (
        Kind(
            resource="nodes",
            path="/api/v1/nodes",
            decode=decode_node,
            key=_name,
            put=lambda seen, _: state.put_node(node(seen)),
            delete=state.delete_node,
        ),
        Kind(
            resource="gpunodes",
            path=f"/apis/{GROUP}/{VERSION}/gpunodes",
            decode=decode_gpu_node,
            key=_name,
            put=state.put_gpu_node,
            delete=state.delete_gpu_node,
            relist_after_gap=True,
        ),
        Kind(
            resource="pods",
            path="/api/v1/pods",
            decode=decode_pod,
            key=_uid,
            put=lambda seen, _: state.put_pod(pod(seen)),
            delete=state.delete_pod,
        ),
        Kind(
            resource="deployments",
            path="/apis/apps/v1/deployments",
            query=_OURS,
            decode=decode_workload,
            key=_path,
            put=lambda seen, _: state.put_deployment(deployment(seen)),
            delete=lambda key: state.delete_deployment(_key(key)),
        ),
        Kind(
            resource="replicasets",
            path="/apis/apps/v1/replicasets",
            query=_OURS,
            decode=decode_workload,
            key=_path,
            put=lambda seen, _: state.put_replica_set(replica_set(seen)),
            delete=lambda key: state.delete_replica_set(_key(key)),
        ),
        Kind(
            resource="priorityclasses",
            path="/apis/scheduling.k8s.io/v1/priorityclasses",
            decode=decode_priority_class,
            key=_name,
            put=lambda seen, _: state.put_priority_class(priority_class(seen)),
            delete=state.delete_priority_class,
        ),
    )
    return tuple(Informer(client, kind, metrics, quiet_seconds=quiet_seconds) for kind in kinds)


def _name(seen: wire.Node | wire.GpuNode | wire.PriorityClass) -> str:
    return seen.metadata.name


def _uid(seen: wire.Pod) -> str:
    return seen.metadata.uid


def _path(seen: wire.Workload) -> str:
    return f"{seen.metadata.namespace}/{seen.metadata.name}"


def _key(path: str) -> PoolKey:
    namespace, _, name = path.partition("/")
    return PoolKey(namespace, name)
