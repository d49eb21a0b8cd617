"""What becomes of a replica beside being placed: leaving the Deployment's count, dead pins, lost nodes, its rank.

Pure rules over what the API server shows now. Nothing here remembers: the count that replicas left is on the
Deployment, the pin is on the pod.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from penstock.core.model import Node, Pod, RightOfReturn
from penstock.core.pool import Pool, RollCall


@dataclass(frozen=True, slots=True)
class Count:
    """How many replicas the Deployment is asked for, how many left it, and since when the longest of them waits."""

    count: int
    left: int
    left_since_time: float | None
    left_shed: int = 0
    """How many of them were shed by a power domain."""


def deployment_count(
    pool: Pool, roll: RollCall, placed: Collection[str], now_time: float, limit_seconds: float, *, shed: int = 0
) -> Count:
    """The Deployment's next replica count.

    A replica that waited longer than `limit_seconds` leaves it, because an unready gated pod blocks a rollout and
    makes a PodDisruptionBudget refuse every eviction; it comes back the moment it fits. `placed` are the keys of the
    replicas that this turn's plan found a place for, pods and virtual ones alike. `shed` of the pool's replicas wait
    because a power domain shed them; such a one leaves as soon as its gated pod exists, so that the next can be
    evicted, and not before, or a running one would go in its stead.
    """
    left, since = _left_after_scaling(pool), pool.left_since_time
    left = max(left - _returning(pool, roll, placed), 0)
    count = pool.desired - left
    unplaced = [pod.created_time for pod in roll.waiting if pod.uid not in placed]
    left_shed = min(pool.left_shed, left, shed)
    shed_now = min(shed - left_shed, len(unplaced))
    overdue = [time for time in unplaced[: len(unplaced) - shed_now] if now_time - time > limit_seconds]
    # Roll calls are oldest first, so the last ones took the place of what was shed.
    overdue += unplaced[len(unplaced) - shed_now :]
    # The ReplicaSet has yet to delete what an earlier turn took out of the count; those pods left already.
    surplus = max(roll.active - count, 0)
    leaving = min(max(len(overdue) - surplus, 0), max(count - max(_rollout_floor(pool, roll) - shed, 0), 0))
    if leaving:
        since = min([*overdue, *([since] if since is not None and left else [])])
    return Count(count - leaving, left + leaving, since if left + leaving else None, left_shed + min(shed_now, leaving))


def _rollout_floor(pool: Pool, roll: RollCall) -> int:
    """How far the count may sink. In a rollout: not below what ran when it began, or the Deployment would take down
    one old replica after the other for new ones that find no place.
    """
    rolling = any(pod.template_hash != pool.current_hash for pod in (*roll.pinned, *roll.bound))
    return pool.floor if rolling else 0


def _returning(pool: Pool, roll: RollCall, placed: Collection[str]) -> int:
    """How many replicas come back into the count: none while its own pods are still to come, as in a rollout, for
    the room that is free between two of its steps is theirs.
    """
    if pool.count is not None and roll.active < pool.count:
        return 0
    return sum(key.startswith(f"{pool.key}#") for key in placed)


def _left_after_scaling(pool: Pool) -> int:
    """When somebody scales a pool down, the replicas that wait outside the count are the first to go."""
    if pool.count is None:
        return 0
    removed = max(pool.count + pool.left - pool.desired, 0)
    return max(pool.left - removed, 0)


class Ending(StrEnum):
    """Why a pod has to go, or would have to."""

    DEAD_PIN = "DeadPin"
    LOST_NODE = "LostNode"
    FAILED_GPU = "FailedGPU"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A pod that cannot live where it is. `delete` is False where deleting would lose or harm it: then it is only
    reported, with `message` saying what a person can do. From a failed GPU it is evicted, from anywhere else deleted.
    """

    pod: Pod
    ending: Ending
    node: str
    message: str
    delete: bool


def endings(
    pods: Iterable[Pod], nodes: Mapping[str, Node], now_time: float, lost_seconds: float
) -> tuple[Verdict, ...]:
    """Dead pins and replicas on lost nodes among `pods` (replicas of pools, past the gate)."""
    found = []
    for pod in pods:
        if pod.terminating or pod.finished or pod.gates:
            continue
        verdict = _dead_pin(pod, nodes) if not pod.node else _lost_node(pod, nodes, now_time, lost_seconds)
        if verdict:
            found.append(verdict)
    return tuple(found)


def _dead_pin(pod: Pod, nodes: Mapping[str, Node]) -> Verdict | None:
    if not pod.pin:
        return None
    if pod.pin not in nodes:
        return _verdict(pod, Ending.DEAD_PIN, pod.pin, f"pinned to node {pod.pin}, which is gone")
    if pod.unschedulable:
        return _verdict(pod, Ending.DEAD_PIN, pod.pin, f"kube-scheduler finds no room on node {pod.pin}, its pin")
    return None


def _lost_node(pod: Pod, nodes: Mapping[str, Node], now_time: float, lost_seconds: float) -> Verdict | None:
    node = nodes.get(pod.node)
    if node is None:
        return _verdict(pod, Ending.LOST_NODE, pod.node, f"node {pod.node} is gone")
    if node.ready or node.not_ready_since_time is None:
        return None
    age_seconds = now_time - node.not_ready_since_time
    if age_seconds <= lost_seconds:
        return None
    return _verdict(pod, Ending.LOST_NODE, pod.node, f"node {pod.node} is NotReady for {age_seconds:.0f} s")


def _verdict(pod: Pod, ending: Ending, node: str, message: str) -> Verdict:
    if pod.owner is None:
        return Verdict(pod, ending, node, f"{message}; it has no controller, so delete it yourself to move it", False)
    if pod.owner.kind == "Job":
        advice = "deleting it would count against its Job's backoffLimit, so delete it yourself to move it"
        return Verdict(pod, ending, node, f"{message}; {advice}", False)
    return Verdict(pod, ending, node, message, True)


def slow_scheduler(pods: Iterable[Pod], now_time: float, limit_seconds: float) -> tuple[Pod, ...]:
    """Pods past our gate that kube-scheduler has said nothing of for too long. A reason to report, never to delete."""
    return tuple(
        pod
        for pod in pods
        if pod.pin and not pod.node and not pod.unschedulable and now_time - pod.created_time > limit_seconds
    )


# ------------------------------------------------------------------------------------------------- which goes first

HIGHEST_COST = 4_000
"""Bound of a first rank, either way: scores of places that do differ by less than this."""
TROUBLED_SHIFT = 10_000
"""How far the pod-deletion-cost of a replica sinks while its place is bad: below every good one, its own rank kept."""


def deletion_cost(score: float) -> int:
    """The first rank of a replica, from its score: the worse the place, the sooner a scale-down takes it."""
    return max(-HIGHEST_COST, min(HIGHEST_COST, round(1000 * score)))


def rank_change(pod: Pod, *, troubled: bool) -> int | None:
    """The pod-deletion-cost to write, or None: only a place that went bad, or recovered, is worth a write."""
    if pod.deletion_cost is None:
        return None
    shifted = pod.deletion_cost <= -TROUBLED_SHIFT // 2
    if troubled == shifted:
        return None
    return pod.deletion_cost + (-TROUBLED_SHIFT if troubled else TROUBLED_SHIFT)


# --------------------------------------------------------------------------------------------------- right of return


def standing_rights(
    rights: Iterable[RightOfReturn], missing: Mapping[str, int], now_time: float
) -> tuple[RightOfReturn, ...]:
    """The rights that still stand: not over, and of a pool that has that many replicas to bring back.

    `missing` counts each pool's replicas without a place, by `namespace/name`. A pool scaled down on purpose
    holds no watts back.
    """
    kept: list[RightOfReturn] = []
    held: dict[str, int] = {}
    for right in sorted(rights, key=lambda one: (-one.until_time, one.domain, str(one.pool), one.watts)):
        name = str(right.pool)
        taken = held.get(name + "@" + right.domain, 0)
        if right.until_time > now_time and taken < missing.get(name, 0):
            held[name + "@" + right.domain] = taken + 1
            kept.append(right)
    return tuple(kept)
