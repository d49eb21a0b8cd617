"""Pods of no pool that hold GPUs under a law: whom it concerns, and what can be done about one at an unlawful place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.api.names import DEVICE_CLASS_RESOURCE_PREFIX, EVIDENCE_TIME_LABEL
from penstock.api.residencypolicy import Action, PodOutside, ResidencyPolicyStatus
from penstock.api.stored import stored
from penstock.core.model import Node, Pod, PoolKey
from penstock.core.pool import Pool
from penstock.core.residency.ceiling import Effective, effective
from penstock.core.residency.proof import proven_time
from penstock.core.residency.whereabouts import meets
from penstock.core.telling.conditions import MAX_MESSAGE
from penstock.core.telling.figures import utc


@dataclass(frozen=True, slots=True)
class Breach:
    """The law that a place is outside of, and the policies that would not have a pod there.

    Where they all only audit, it is a law of theirs alone, which does nothing about it.
    """

    law: Effective
    policies: frozenset[str]


def breach(ceiling: Effective, node: Node, now_time: float) -> Breach | None:
    """What a pod on this node breaks of the law of its namespace; None where it may be there."""
    against = tuple(one for one in (*ceiling.demands, *ceiling.audited) if not meets(one, node, now_time))
    if not against:
        return None
    law = ceiling
    if not any(one.enforced for one in against):
        law = effective(replace(one, enforced=True, on_violation="Report") for one in against)
    return Breach(law, frozenset(one.policy for one in against))


def due_time(ceiling: Effective, node: Node, now_time: float) -> float:
    """When time alone makes a breach of what is none, or ends one; infinite: never."""
    time = proven_time(node.labels.get(EVIDENCE_TIME_LABEL))
    if time is None:
        return math.inf
    ages = (one.drains_after_seconds for one in (*ceiling.demands, *ceiling.audited))
    times = (time + age for age in (0.0, *ages) if age is not None)
    return min((one for one in times if one >= now_time), default=math.inf)


@dataclass(frozen=True, slots=True)
class Stranger:
    """A pod of no pool where the law of its namespace does not allow it."""

    namespace: str
    name: str
    node: str
    since_time: float
    breach: Breach
    message: str
    pod: Pod | None = None
    """None where the API server shows none: its kubelet runs it from a file."""

    @property
    def action(self) -> Action:
        """What the law does about it."""
        return self.breach.law.on_violation

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
