"""Which kinds are watched, and how each feeds the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from penstock.api.names import GROUP, POOL_LABEL, VERIFICATION_NAME, VERSION
from penstock.cluster import wire
from penstock.cluster.client import KubeClient
from penstock.cluster.informer import QUIET_SECONDS, Informer, Kind
from penstock.cluster.parse.claims import decode_claim, resource_claim
from penstock.cluster.parse.namespaces import decode_namespace, namespace
from penstock.cluster.parse.nodes import decode_node, node
from penstock.cluster.parse.pods import decode_pod, pod
from penstock.cluster.parse.telemetry import decode_gpu_node
from penstock.cluster.parse.verification import decode_report, verification
from penstock.cluster.parse.workloads import (
    decode_priority_class,
    decode_workload,
    deployment,
    priority_class,
    replica_set,
    service,
)
from penstock.cluster.state import ClusterState
from penstock.core.model import PoolKey
from penstock.metrics import Metrics

REPORTS_REST_SECONDS = 0.1
"""Turns that only reports begin are further apart than this, so reports lose nothing by coming in lots."""

Seen = TypeVar("Seen")


def informers(
    client: KubeClient,
    state: ClusterState,
    metrics: Metrics,
    quiet_seconds: float = QUIET_SECONDS,
    *,
    verified_in: str = "",
) -> tuple[Informer[Any], ...]:
    """One informer for each watched kind; run each as a task of its own.

    `verified_in` is the namespace where `penstock verify` reports; without one that is not watched.
    """
    kinds = (*_kinds(state), *_workloads(state), *((_verification(state, verified_in),) if verified_in else ()))
    return tuple(Informer(client, kind, metrics, quiet_seconds=quiet_seconds) for kind in kinds)


def _kinds(state: ClusterState) -> Iterator[Kind[Any]]:
    yield Kind(
        resource="nodes",
        path="/api/v1/nodes",
        read=lambda raw: node(decode_node(raw)),
        key=_name,
        put=_untimed(state.put_node),
        delete=state.delete_node,
    )
    yield Kind(
        resource="namespaces",
        path="/api/v1/namespaces",
        read=lambda raw: namespace(decode_namespace(raw)),
        key=_name,
        put=_untimed(state.put_namespace),
        delete=state.delete_namespace,
    )
    yield Kind(
        resource="gpunodes",
        path=f"/apis/{GROUP}/{VERSION}/gpunodes",
        read=decode_gpu_node,
        key=_name,
        put=state.put_gpu_node,
        delete=state.delete_gpu_node,
        unread=lambda identity, why: state.doubt_gpu_node(identity.name, why),
        relist_after_gap=True,
        rest_seconds=REPORTS_REST_SECONDS,
    )
    yield Kind(
        resource="pods",
        path="/api/v1/pods",
        read=lambda raw: pod(decode_pod(raw)),
        key=_uid,
        put=_untimed(state.put_pod),
        delete=state.delete_pod,
    )
    yield Kind(
        resource="resourceclaims",
        path="/apis/resource.k8s.io/v1/resourceclaims",
        read=lambda raw: resource_claim(decode_claim(raw)),
        key=_path,
        put=_untimed(state.put_claim),
        delete=state.delete_claim,
        optional=True,
    )
    yield Kind(
        resource="priorityclasses",
        path="/apis/scheduling.k8s.io/v1/priorityclasses",
        read=lambda raw: priority_class(decode_priority_class(raw)),
        key=_name,
        put=_untimed(state.put_priority_class),
        delete=state.delete_priority_class,
    )


def _workloads(state: ClusterState) -> Iterator[Kind[Any]]:
    """What pools' controllers write, as far as it carries the pool label."""
    yield _workload("/apis/apps/v1", "deployments", deployment, state.put_deployment, state.delete_deployment)
    yield _workload("/apis/apps/v1", "replicasets", replica_set, state.put_replica_set, state.delete_replica_set)
    yield _workload("/api/v1", "services", service, state.put_service, state.delete_service)


def _workload(
    group: str,
    resource: str,
    read: Callable[[wire.Workload], Seen],
    put: Callable[[Seen], None],
    delete: Callable[[PoolKey], None],
) -> Kind[Seen]:
    return Kind(
        resource=resource,
        path=f"{group}/{resource}",
        query={"labelSelector": POOL_LABEL},
        read=lambda raw: read(decode_workload(raw)),
        key=_path,
        put=_untimed(put),
        delete=lambda path: delete(_key(path)),
    )


def _verification(state: ClusterState, namespace: str) -> Kind[Any]:
    """The one ConfigMap with what `penstock verify` found. One that cannot be read says nothing."""
    return Kind(
        resource="configmaps",
        path=f"/api/v1/namespaces/{namespace}/configmaps",
        query={"fieldSelector": f"metadata.name={VERIFICATION_NAME}"},
        read=lambda raw: verification(decode_report(raw)),
        key=_name,
        put=_untimed(state.put_verification),
        delete=lambda _: state.put_verification(None),
        unread=lambda _identity, _why: state.put_verification(None),
    )


def _untimed(put: Callable[[Seen], None]) -> Callable[[Seen, float | None], None]:
    """For a kind whose age does not matter."""
    return lambda seen, _server_time: put(seen)


def _name(identity: wire.Identity) -> str:
    return identity.name


def _uid(identity: wire.Identity) -> str:
    return identity.uid


def _path(identity: wire.Identity) -> str:
    return f"{identity.namespace}/{identity.name}"


def _key(path: str) -> PoolKey:
    namespace, _, name = path.partition("/")
    return PoolKey(namespace, name)
