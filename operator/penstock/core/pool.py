"""A pool and its pods: which of them are its replicas, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from penstock.api.names import NODE_NAME_FIELD, PLACE_LABELS
from penstock.core.model import Amounts, PlacementRules, Pod, PoolKey, Replica, Residency
from penstock.core.placement.scheduling import Labels, NodeTerm, Scheduling
from penstock.core.residency.ceiling import NO_LAW, SPEC, Demand, Effective
from penstock.core.residency.reading import NOWHERE
from penstock.core.telling.problem import Problem

LEADER_WORKER_SET_LABEL = "leaderworkerset.sigs.k8s.io/name"


@dataclass(frozen=True, slots=True)
class Template:
    """What the pod template of a pool asks for, as the planner needs it."""

    requests: Amounts = field(default_factory=dict)
    scheduling: Scheduling = Scheduling()
    labels: Labels = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Why a pool takes no place at all, and what would end that."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Pool:
    """An InferencePool as the control loop judges it.

    Without a `template` it adopts pods that others make. `count` and `left` are what its Deployment says today:
    its replica count, and how many replicas left that count because they waited too long (`left_since_time`).
    `current_hash` is the pod-template-hash of the newest ReplicaSet.
    """

    key: PoolKey
    uid: str
    generation: int
    desired: int
    rules: PlacementRules
    template: Template | None = None
    problems: tuple[Problem, ...] = ()
    count: int | None = None
    left: int = 0
    left_since_time: float | None = None
    left_shed: int = 0
    """How many of those that left were shed by a power domain."""
    floor: int = 0
    """How many replicas had a place when the template last changed."""
    intent: str = ""
    """Our own mark on the Deployment of what we last wanted of it."""
    current_hash: str = ""
    own: Demand = Demand(SPEC, Residency())
    """What its spec demands of a place."""
    notes: tuple[str, ...] = ()
    """What of that is read otherwise than it is written."""
    law: Effective = NO_LAW
    """That, and what every policy demands of its namespace: new placements go by it."""
    held: Held | None = None
    """What keeps it from taking any place, whatever room there is."""
    standing_law: Effective = NO_LAW
    """The same for what runs: an edit that looks like a mistake does not count here before it is confirmed."""
    replica_sets: frozenset[str] = frozenset()
    """The uids of the ReplicaSets that the pool's own Deployment controls."""

    @property
    def adopts(self) -> bool:
        return self.template is None

    @property
    def residency(self) -> Residency:
        """Where its new replicas may be."""
        return NOWHERE if self.held else self.law.residency

    @property
    def demands(self) -> tuple[tuple[str, Residency], ...]:
        """Who demands what of that: each source by its name."""
        return tuple((one.source, one.residency) for one in self.law.demands)

    def owns(self, pod: Pod) -> bool:
        """Whether the pod is a replica of this pool, and not one that only borrows its label."""
        if self.adopts:
            return True
        return pod.owner is not None and pod.owner.uid in self.replica_sets


@dataclass(frozen=True, slots=True)
class RollCall:
    """The pods that carry a pool's label, each in one group, oldest first."""

    waiting: tuple[Pod, ...] = ()
    """Gated by us alone: ours to place."""
    held: tuple[Pod, ...] = ()
    """Gated by somebody else too: we wait for them."""
    grouped: tuple[Pod, ...] = ()
    """Part of a LeaderWorkerSet group: refused until groups are placed as one."""
    pinned: tuple[Pod, ...] = ()
    """Past the gate, not bound yet."""
    bound: tuple[Pod, ...] = ()
    terminating: tuple[Pod, ...] = ()
    failed: tuple[Pod, ...] = ()
    foreign: tuple[Pod, ...] = ()

    @property
    def active(self) -> int:
        """How many pods the pool's owner counts."""
        return len(self.waiting) + len(self.held) + len(self.grouped) + len(self.pinned) + len(self.bound)

    @property
    def ready(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.bound if pod.ready)


def roll_call(pool: Pool, pods: Iterable[Pod]) -> RollCall:
    """Sort the pods that carry the pool's label into groups."""
    groups: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=lambda one: (one.created_time, one.uid)):
        groups.setdefault(_group(pool, pod), []).append(pod)
    return RollCall(**{name: tuple(members) for name, members in groups.items() if name != "done"})


def _group(pool: Pool, pod: Pod) -> str:
    if not pool.owns(pod):
        return "foreign"
    if pod.finished:
        return "failed" if pod.failure or pod.phase == "Failed" else "done"
    if pod.terminating:
        return "terminating"
    if pod.gated:
        return _gated_group(pod)
    return "bound" if pod.node else "pinned"


def _gated_group(pod: Pod) -> str:
    if LEADER_WORKER_SET_LABEL in pod.labels:
        return "grouped"
    return "held" if pod.foreign_gates else "waiting"


def replicas(pool: Pool, roll: RollCall, avoid: frozenset[str], shed: int = 0) -> tuple[Replica, ...]:
    """What of this pool waits for a place: its gated pods, and those that left the Deployment's count.

    `shed` of its replicas wait because power domains shed them: those that left the count for it, then the youngest
    pods.
    """
    if pool.problems:
        return ()
    left_shed = min(pool.left_shed, pool.left, shed) if pool.template else 0
    older = len(roll.waiting) - (shed - left_shed)
    gated = tuple(_from_pod(pool, pod, avoid, shed=at >= older) for at, pod in enumerate(roll.waiting))
    if pool.template is None:
        return gated
    return gated + tuple(
        _virtual(pool, pool.template, ordinal, avoid, shed=ordinal < left_shed) for ordinal in range(pool.left)
    )


def replacement(pool: Pool, pod: Pod, now_time: float) -> Replica:
    """What would be made in place of a running replica: gated, and asked for last."""
    born = pool.template or Template(pod.requests, _as_born(pod.scheduling), pod.labels, pod.priority)
    return Replica(
        key=pod.uid,
        pool=pool.key,
        rules=pool.rules,
        requests=born.requests,
        residency=pool.residency,
        demands=pool.demands,
        scheduling=born.scheduling,
        labels=born.labels,
        priority=born.priority,
        since_time=now_time,
        template_hash=pool.current_hash,
    )


def _as_born(scheduling: Scheduling) -> Scheduling:
    """What a pod asked for before its gate was lifted: without the pin and the law that the lift added."""
    terms = tuple(
        NodeTerm(
            tuple(rule for rule in term.expressions if rule.key not in PLACE_LABELS),
            tuple(rule for rule in term.fields if rule.key != NODE_NAME_FIELD),
        )
        for term in scheduling.node_terms
    )
    # A pod that had no term of its own got one of the lift's alone.
    asked = all(term.expressions or term.fields for term in terms)
    return replace(scheduling, node_terms=terms if asked else ())


def _from_pod(pool: Pool, pod: Pod, avoid: frozenset[str], *, shed: bool) -> Replica:
    return Replica(
        key=pod.uid,
        pool=pool.key,
        rules=pool.rules,
        requests=pod.requests,
        residency=pool.residency,
        demands=pool.demands,
        scheduling=pod.scheduling,
        labels=pod.labels,
        priority=pod.priority,
        since_time=pod.created_time,
        pod_uid=pod.uid,
        template_hash=pod.template_hash,
        newest=pool.adopts or pod.template_hash == pool.current_hash,
        avoid=avoid,
        shed=shed,
    )


def _virtual(pool: Pool, template: Template, ordinal: int, avoid: frozenset[str], *, shed: bool) -> Replica:
    return Replica(
        key=f"{pool.key}#{ordinal}",
        pool=pool.key,
        rules=pool.rules,
        requests=template.requests,
        residency=pool.residency,
        demands=pool.demands,
        scheduling=template.scheduling,
        labels=template.labels,
        priority=template.priority,
        since_time=pool.left_since_time or 0.0,
        template_hash=pool.current_hash,
        # A rollout frees room for its own next pod: one that waits outside the count must not take it away.
        newest=False,
        avoid=avoid,
        shed=shed,
    )
