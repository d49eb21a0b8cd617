"""Objects with a pod template, read for the off-ramp: which of them would still make gated pods."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import msgspec

from penstock.api.names import GATE
from penstock.cluster.client import KubeClient
from penstock.cluster.listing import Unread, readable
from penstock.core.offramp import Holder

KINDS = {
    "Deployment": ("/apis/apps/v1", "deployments"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "Job": ("/apis/batch/v1", "jobs"),
}
"""The built-in kinds whose templates can carry a scheduling gate."""


class _Reference(msgspec.Struct, gc=False):
    uid: str
    kind: str
    controller: bool = False


class _Metadata(msgspec.Struct, gc=False):
    name: str
    namespace: str
    uid: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    ownerReferences: list[_Reference] = []


class _Spec(msgspec.Struct, gc=False):
    template: dict[str, Any]
    replicas: int = 0
    paused: bool = False


class _Status(msgspec.Struct, gc=False):
    replicas: int = 0


class _Object(msgspec.Struct, gc=False):
    metadata: _Metadata
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)


_decode = msgspec.json.Decoder(_Object).decode


async def list_holders(client: KubeClient, aside: list[Unread]) -> AsyncIterator[Holder]:
    """Every object of the built-in kinds that has a pod template, in all namespaces; what cannot be read goes aside."""
    for kind, (group, plural) in KINDS.items():
        async for page in client.list_pages(f"{group}/{plural}"):
            for holder in readable(kind.lower(), page, partial(_holder, kind, group, plural), aside):
                yield holder


def _holder(kind: str, group: str, plural: str, raw: msgspec.Raw) -> Holder:
    obj = _decode(raw)
    metadata, spec = obj.metadata, obj.spec
    owner = next((one for one in metadata.ownerReferences if one.controller), None)
    return Holder(
        kind=kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        path=f"{group}/namespaces/{metadata.namespace}/{plural}/{metadata.name}",
        gates=tuple(_gates(spec.template)),
        owner_uid=owner.uid if owner else "",
        owner_kind=owner.kind if owner else "",
        replicas=spec.replicas,
        made=obj.status.replicas,
        paused=spec.paused,
        annotations=frozenset(metadata.annotations),
        fingerprint=fingerprint(spec.template),
    )


def _gates(template: dict[str, Any]) -> Iterator[str]:
    for gate in template.get("spec", {}).get("schedulingGates") or ():
        yield gate["name"]


def fingerprint(template: dict[str, Any]) -> str:
    """Equal for two templates that differ in nothing but our gate and the pod-template-hash."""
    metadata, spec = dict(template.get("metadata") or {}), dict(template.get("spec") or {})
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key != "pod-template-hash"}
    gates = [gate for gate in spec.pop("schedulingGates", None) or () if gate["name"] != GATE]
    plain = {**template, "metadata": {**metadata, "labels": labels}, "spec": {**spec, "schedulingGates": gates}}
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()
