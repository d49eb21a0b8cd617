"""Pods of no pool that hold GPUs under a law: whom it concerns, and what can be done about one at an unlawful place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.api.names import DEVICE_CLASS_RESOURCE_PREFIX
from penstock.api.residencypolicy import Action, PodOutside, ResidencyPolicyStatus
from penstock.api.stored import stored
from penstock.core.model import Pod, PoolKey
from penstock.core.pool import Pool
from penstock.core.residency.ceiling import Effective
from penstock.core.telling.status import MAX_MESSAGE, utc


@dataclass(frozen=True, slots=True)
class Stranger:
    """A pod of no pool where the law of its namespace does not allow it."""

    namespace: str
    name: str
    node: str
    since_time: float
    law: Effective
    message: str
    pod: Pod | None = None
    """None where the API server shows none: its kubelet runs it from a file."""

    @property
    def action(self) -> Action:
        """What the law does about it."""
        return self.law.on_violation

    @property
    def can_be_ended(self) -> bool:
        """Whether a request ends it. A static pod's kubelet shows it to the API server, and does not listen to it."""
        return self.pod is not None and not is_static(self.pod)

    @property
    def is_ended(self) -> bool:
        """Whether it is to be ended: what is in no pool of ours nobody replaces, so it is not isolated before."""
        return self.can_be_ended and self.action != "Report"


def is_stranger(pod: Pod, pool: Pool | None, gpu_resources: Sequence[str]) -> bool:
    """Whether a bound pod concerns the law of its namespace and is no replica; `pool` is the one that it names.

    It concerns the law as the admission policy `residency-creation` has it: it asks for GPUs (resources whose names
    begin so), reaches for devices otherwise, or carries the label. Or it was given GPUs by a claim, which shows late:
    under a name that a DeviceClass made up nobody sees from a request that it is one for a GPU.
    """
    if pod.finished or (pool is not None and (pool.owns(pod) or pod.isolated is not None)):
        return False
    prefixes = (*gpu_resources, DEVICE_CLASS_RESOURCE_PREFIX)
    asks = any(asked and name.startswith(prefixes) for name, asked in pod.requests.items())
    return bool(pod.pool or pod.claimed) or pod.reaches_devices or asks


def is_static(pod: Pod) -> bool:
    """Whether a kubelet runs it from a file; what the API server shows of it may come anew while it runs on."""
    return pod.owner is not None and pod.owner.kind == "Node"


def since_time(pod: Pod, told_time: float | None, now_time: float) -> float:
    """Since when a pod is outside: as was told of its name, if it was, but none is before it was made."""
    if told_time is None:
        return now_time
    return min(told_time if is_static(pod) else max(told_time, pod.created_time), now_time)


def pool_of(pod: Pod) -> PoolKey:
    """The pool that a pod names, or named before it was isolated."""
    return PoolKey(pod.namespace, pod.pool or (pod.isolated.pool if pod.isolated else ""))


def told(one: Stranger) -> PodOutside:
    """What the statuses of policies say of it."""
    return PodOutside(
        namespace=one.namespace,
        pod=one.name,
        node=one.node,
        since=utc(one.since_time),
        action=one.action if one.can_be_ended else "Report",
        message=one.message[:MAX_MESSAGE],
        remedy=_remedy(one),
    )


def recalled(status: Mapping[str, object]) -> Sequence[PodOutside]:
    """Whom a policy's stored status tells, as far as it can be read."""
    return stored(ResidencyPolicyStatus, status).violations


def _remedy(one: Stranger) -> str:
    if not one.can_be_ended:
        return f"a static pod, which no request ends: take its manifest off node {one.node}"
    if one.pod is not None and one.pod.terminating:
        return "it is ending within its grace"
    if not one.is_ended:
        return "its policy reports and does nothing: delete it, or move it"
    return "it is being ended; create it behind the scheduling gate penstock.dev/placement"
