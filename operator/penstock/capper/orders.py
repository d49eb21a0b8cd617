"""From what the API server shows of this node to what holds for each GPU."""

from __future__ import annotations

from datetime import datetime

import msgspec

from penstock.api.names import CAPPER_LABEL
from penstock.capper.decision import Ask, Mode, Order
from penstock.capper.hand import Orders

SILENT_SECONDS = 120.0
"""An operator that said nothing for so long is silent: limits stay, and none is raised."""
OFF = "off"


class Cap(msgspec.Struct, frozen=True, rename="camel"):
    """As `penstock.api.gpunode.Cap`."""

    uuid: str
    watts: float
    namespace: str = ""
    pod: str = ""
    pod_uid: str = msgspec.field(name="podUID", default="")


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    caps: tuple[Cap, ...] = ()
    caps_at: datetime | None = None
    caps_urgent: bool = False


class Pod(msgspec.Struct, frozen=True):
    namespace: str = ""
    name: str = ""
    devices: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, rename="camel"):
    pod_resources: str = ""
    pods: tuple[Pod, ...] = ()


class Metadata(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class GPUNode(msgspec.Struct, frozen=True):
    """What the capper reads of its own GPUNode."""

    metadata: Metadata
    spec: Spec | None = None
    status: Status | None = None


class Node(msgspec.Struct, frozen=True):
    """What the capper reads of its own Node."""

    metadata: Metadata


class Ear:
    """When the operator last spoke, by our own monotonic clock: whenever `capsAt` changes."""

    def __init__(self) -> None:
        self._said: datetime | None = None
        self._heard_at = float("-inf")

    def hear(self, caps_at: datetime | None, now: float, server_time: datetime | None) -> None:
        """`server_time` is the API server's own clock where the object came in a list: it may be an old word then."""
        if caps_at is None or caps_at == self._said:
            return
        first = self._said is None
        self._said = caps_at
        age_seconds = max(0.0, (server_time - caps_at).total_seconds()) if first and server_time else 0.0
        self._heard_at = now - age_seconds

    def hears(self, now: float) -> bool:
        return now - self._heard_at <= SILENT_SECONDS


def orders(gpu_node: GPUNode | None, node: Node | None, mode: Mode, *, heard: bool) -> Orders:
    """What holds for each GPU. A node that is not known yet has no kill switch, and a GPUNode without spec no order."""
    if node is not None and node.metadata.labels.get(CAPPER_LABEL) == OFF:
        mode = Mode.OFF
    spec = gpu_node.spec if gpu_node else None
    if gpu_node is None or spec is None or spec.caps_at is None:
        return Orders({}, Order(known=False, heard=False, mode=mode))
    holders = _holders(gpu_node.status)
    asked = {
        cap.uuid: Order(
            ask=Ask(cap.watts, cap.namespace, cap.pod, cap.pod_uid),
            heard=heard,
            mode=mode,
            urgent=spec.caps_urgent,
            holders=None if holders is None else holders.get(cap.uuid, frozenset()),
        )
        for cap in spec.caps
    }
    return Orders(asked, Order(heard=heard, mode=mode, urgent=spec.caps_urgent))


def _holders(status: Status | None) -> dict[str, frozenset[str]] | None:
    """The pods on each GPU by the kubelet's word; None where it did not say."""
    if status is None or status.pod_resources != "Read":
        return None
    held: dict[str, set[str]] = {}
    for pod in status.pods:
        for uuid in pod.devices:
            held.setdefault(uuid, set()).add(f"{pod.namespace}/{pod.name}")
    return {uuid: frozenset(pods) for uuid, pods in held.items()}
