"""Which kinds are watched, and how each feeds the state."""

from __future__ import annotations

from typing import Any

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

_OURS = {"labelSelector": POOL_LABEL}

REPORTS_REST_SECONDS = 0.1
"""Turns that only reports begin are further apart than this, so reports lose nothing by coming in lots."""


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
    kinds: tuple[Kind[Any], ...] = (
        Kind(
            resource="nodes",
            path="/api/v1/nodes",
            read=lambda raw: node(decode_node(raw)),
            key=_name,
            put=lambda seen, _: state.put_node(seen),
            delete=state.delete_node,
        ),
        Kind(
            resource="namespaces",
            path="/api/v1/namespaces",
            read=lambda raw: namespace(decode_namespace(raw)),
            key=_name,
            put=lambda seen, _: state.put_namespace(seen),
            delete=state.delete_namespace,
        ),
        Kind(
            resource="gpunodes",
            path=f"/apis/{GROUP}/{VERSION}/gpunodes",
            read=decode_gpu_node,
            key=_name,
            put=state.put_gpu_node,
            delete=state.delete_gpu_node,
            unread=lambda identity, why: state.doubt_gpu_node(identity.name, why),
            relist_after_gap=True,
            rest_seconds=REPORTS_REST_SECONDS,
        ),
        Kind(
            resource="pods",
            path="/api/v1/pods",
            read=lambda raw: pod(decode_pod(raw)),
            key=_uid,
            put=lambda seen, _: state.put_pod(seen),
            delete=state.delete_pod,
        ),
        Kind(
            resource="resourceclaims",
            path="/apis/resource.k8s.io/v1/resourceclaims",
            read=lambda raw: resource_claim(decode_claim(raw)),
            key=_path,
            put=lambda seen, _: state.put_claim(seen),
            delete=state.delete_claim,
            optional=True,
        ),
        Kind(
            resource="deployments",
            path="/apis/apps/v1/deployments",
            query=_OURS,
            read=lambda raw: deployment(decode_workload(raw)),
            key=_path,
            put=lambda seen, _: state.put_deployment(seen),
            delete=lambda key: state.delete_deployment(_key(key)),
        ),
        Kind(
            resource="replicasets",
            path="/apis/apps/v1/replicasets",
            query=_OURS,
            read=lambda raw: replica_set(decode_workload(raw)),
            key=_path,
            put=lambda seen, _: state.put_replica_set(seen),
            delete=lambda key: state.delete_replica_set(_key(key)),
        ),
        Kind(
            resource="services",
            path="/api/v1/services",
            query=_OURS,
            read=lambda raw: service(decode_workload(raw)),
            key=_path,
            put=lambda seen, _: state.put_service(seen),
            delete=lambda key: state.delete_service(_key(key)),
        ),
        Kind(
            resource="priorityclasses",
            path="/apis/scheduling.k8s.io/v1/priorityclasses",
            read=lambda raw: priority_class(decode_priority_class(raw)),
            key=_name,
            put=lambda seen, _: state.put_priority_class(seen),
            delete=state.delete_priority_class,
        ),
        *((_reports(state, verified_in),) if verified_in else ()),
    )
    return tuple(Informer(client, kind, metrics, quiet_seconds=quiet_seconds) for kind in kinds)


def _reports(state: ClusterState, namespace: str) -> Kind[Any]:
    """The one ConfigMap with what `penstock verify` found. One that cannot be read says nothing."""
    return Kind(
        resource="configmaps",
        path=f"/api/v1/namespaces/{namespace}/configmaps",
        query={"fieldSelector": f"metadata.name={VERIFICATION_NAME}"},
        read=lambda raw: verification(decode_report(raw)),
        key=_name,
        put=lambda seen, _: state.put_verification(seen),
        delete=lambda _: state.put_verification(None),
        unread=lambda _identity, _why: state.put_verification(None),
    )


def _name(identity: wire.Identity) -> str:
    return identity.name


def _uid(identity: wire.Identity) -> str:
    return identity.uid


def _path(identity: wire.Identity) -> str:
    return f"{identity.namespace}/{identity.name}"


def _key(path: str) -> PoolKey:
    namespace, _, name = path.partition("/")
    return PoolKey(namespace, name)
