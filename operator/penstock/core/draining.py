"""Who has to leave a broken GPU, and who may do so now: within the pool's disruption, the broken ones first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from penstock.core.health import Broken
from penstock.core.lifecycle import Ending, Verdict
from penstock.core.model import Mode, Pod
from penstock.core.pool import Pool, RollCall


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server's last word on an eviction. `is_over`: it may be asked again."""

    message: str
    is_over: bool


def may_leave(pool: Pool, roll: RollCall, leaving: Collection[str]) -> int:
    """How many more ready replicas may be taken out now: `maxUnavailable`, less those that are away already.

    Away is what is asked for and does not serve: waiting (in the Deployment's count or out of it), starting, on its
    way out, or about to be (`leaving`, by uid). So a replica that serves is not sent to wait behind another.
    """
    counted = roll.active + len(roll.terminating) if pool.adopts else pool.desired
    serving = sum(pod.uid not in leaving for pod in roll.ready)
    return max(pool.rules.max_unavailable - max(counted - serving, 0), 0)


def off_broken_gpus(
    pool: Pool, roll: RollCall, found: Iterable[Broken], leaving: Collection[str], refusals: Mapping[str, Refusal]
) -> tuple[Verdict, ...]:
    """What becomes of the pool's replicas on broken GPUs: `delete` says that this one is evicted now.

    One that does not serve goes at once, since nothing is lost by it. `refusals` are what the API server answered
    last, by the pod's uid.
    """
    room = may_leave(pool, roll, leaving)
    verdicts = []
    for one in sorted(found, key=_unready_first):
        told, evict = _judged(one, pool, refusals.get(one.pod.uid), has_room=room > 0 or one.pod.uid in leaving)
        evict &= one.pod.uid not in leaving
        if evict and one.pod.ready:
            room -= 1
        verdicts.append(Verdict(one.pod, Ending.FAILED_GPU, one.pod.node, f"{one.what}; {told}", evict))
    return tuple(verdicts)


def _unready_first(one: Broken) -> tuple[bool, float, str]:
    return one.pod.ready, one.pod.created_time, one.pod.uid


def _judged(one: Broken, pool: Pool, refusal: Refusal | None, *, has_room: bool) -> tuple[str, bool]:
    if held := _held(one.pod, pool):
        return held, False
    if not one.certain:
        told = "the kubelet did not say which pod holds it, so nothing is moved: let the agent read PodResources"
        return f"{told}, or delete the pod that fails", False
    if one.pod.ready and not has_room:
        return f"it waits, since disruption.maxUnavailable is {pool.rules.max_unavailable} and as many are away", False
    if refusal:
        return f"its eviction is refused and tried again: {refusal.message}", refusal.is_over
    return "it is evicted, and another is placed", True


def _held(pod: Pod, pool: Pool) -> str:
    """Why it is never ours to move, and what a person can do."""
    if pod.owner is None:
        return "it has no controller, so delete it yourself to move it"
    if pod.owner.kind == "Job":
        return "its end would count against its Job's backoffLimit, so delete it yourself to move it"
    if pool.rules.mode is Mode.ADVISE:
        return "the pool only takes advice, so delete it yourself to move it"
    if pool.problems:
        return "it stays, since nothing new is placed until the pool's spec is mended"
    return ""
