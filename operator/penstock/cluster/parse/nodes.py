"""Nodes."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

import msgspec

from penstock.api.names import POWER_DEGRADED_CONDITION
from penstock.cluster import wire
from penstock.cluster.parse.pods import unix_time
from penstock.cluster.parse.quantity import amounts
from penstock.cluster.parse.scheduling import frozen_labels
from penstock.core.model import Mark, Node
from penstock.core.placement.scheduling import Taint

_CORDON_TAINTS = frozenset({"node.kubernetes.io/unschedulable"})
_DARK_TAINTS = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})

decode_node = msgspec.json.Decoder(wire.Node).decode


def node(seen: wire.Node) -> Node:
    """A node of the cluster. One that never reported a Ready condition is not ready since it was created."""
    ready = next((one for one in seen.status.conditions or () if one.type == "Ready"), None)
    is_ready = ready is not None and ready.status == "True"
    since = ready.lastTransitionTime if ready else seen.metadata.creationTimestamp
    return Node(
        name=seen.metadata.name,
        uid=seen.metadata.uid,
        labels=frozen_labels(seen.metadata.labels),
        taints=tuple(
            Taint(one.key, one.value, one.effect)
            for one in seen.spec.taints or ()
            if one.key not in _implied(cordoned=seen.spec.unschedulable, ready=is_ready)
        ),
        cordoned=seen.spec.unschedulable,
        ready=is_ready,
        not_ready_since_time=None if is_ready else unix_time(since) or 0.0,
        allocatable=MappingProxyType(amounts(seen.status.allocatable)),
        power_degraded=_mark(seen.status.conditions or (), POWER_DEGRADED_CONDITION),
        provider=seen.spec.providerID.partition("://")[0] if "://" in seen.spec.providerID else "",
        settled=seen.metadata.annotations.settled if seen.metadata.annotations else "",
    )


def _mark(conditions: Iterable[wire.NodeCondition], kind: str) -> Mark | None:
    found = next((one for one in conditions if one.type == kind), None)
    return Mark(found.status == "True", found.reason, found.message) if found else None


def _implied(*, cordoned: bool, ready: bool) -> frozenset[str]:
    """Taints that the node controller derives from what is told already; they follow late, both ways."""
    return (_CORDON_TAINTS if cordoned else frozenset()) | (frozenset() if ready else _DARK_TAINTS)
