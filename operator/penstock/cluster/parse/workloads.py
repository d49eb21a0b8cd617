"""Deployments, ReplicaSets and PriorityClasses."""

from __future__ import annotations

import msgspec

from penstock.api.names import POOL_LABEL
from penstock.cluster import wire
from penstock.cluster.objects import Deployment, PriorityClass, ReplicaSet
from penstock.cluster.parse.pods import TEMPLATE_HASH_LABEL, controller
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
        floor=_whole(annotations.floor),
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
        revision=_whole(metadata.annotations.revision if metadata.annotations else ""),
        owner=controller(metadata.ownerReferences),
        terminating=metadata.deletionTimestamp is not None,
        resource_version=metadata.resourceVersion,
    )


def priority_class(seen: wire.PriorityClass) -> PriorityClass:
    return PriorityClass(seen.metadata.name, seen.value, seen.globalDefault)


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0
