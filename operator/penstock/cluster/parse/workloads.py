"""Deployments, ReplicaSets, Services and PriorityClasses."""

from __future__ import annotations

import msgspec

from penstock.api.names import POOL_LABEL, TEMPLATE_HASH_LABEL
from penstock.cluster import wire
from penstock.cluster.objects import Deployment, PriorityClass, ReplicaSet, Service
from penstock.cluster.parse.pods import controller, whole
from penstock.core.model import PoolKey

decode_workload = msgspec.json.Decoder(wire.Workload).decode
decode_priority_class = msgspec.json.Decoder(wire.PriorityClass).decode


def deployment(seen: wire.Workload) -> Deployment:
    """A Deployment that carries the pool label, ours or not."""
    metadata, status = seen.metadata, seen.status
    annotations = metadata.annotations or wire.Annotations()
    return Deployment(
        key=PoolKey(metadata.namespace, metadata.name),
        uid=metadata.uid,
        generation=metadata.generation,
        pool=(metadata.labels or {}).get(POOL_LABEL, ""),
        replicas=seen.spec.replicas,
        owner=controller(metadata.ownerReferences),
        paused=seen.spec.paused,
        intent=annotations.intent,
        left=annotations.left,
        floor=max(whole(annotations.floor) or 0, 0),
        observed_generation=status.observedGeneration,
        current_replicas=status.replicas,
        updated_replicas=status.updatedReplicas,
        ready_replicas=status.readyReplicas,
        terminating=metadata.deletionTimestamp is not None,
        resource_version=metadata.resourceVersion,
    )


def replica_set(seen: wire.Workload) -> ReplicaSet:
    """A ReplicaSet that carries the pool label, ours or not."""
    metadata = seen.metadata
    labels = metadata.labels or {}
    return ReplicaSet(
        key=PoolKey(metadata.namespace, metadata.name),
        uid=metadata.uid,
        pool=labels.get(POOL_LABEL, ""),
        template_hash=labels.get(TEMPLATE_HASH_LABEL, ""),
        replicas=seen.spec.replicas,
        revision=whole(metadata.annotations.revision if metadata.annotations else "") or 0,
        owner=controller(metadata.ownerReferences),
        terminating=metadata.deletionTimestamp is not None,
        resource_version=metadata.resourceVersion,
    )


def service(seen: wire.Workload) -> Service:
    """A Service that carries the pool label, ours or not."""
    metadata = seen.metadata
    pool = (metadata.labels or {}).get(POOL_LABEL, "")
    return Service(PoolKey(metadata.namespace, metadata.name), pool, metadata.resourceVersion)


def priority_class(seen: wire.PriorityClass) -> PriorityClass:
    return PriorityClass(seen.metadata.name, seen.value, seen.globalDefault)
