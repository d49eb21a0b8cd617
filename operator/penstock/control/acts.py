"""Carrying decisions out: each act is one request, repeated only where that is harmless; a refused one is unbooked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

import aiohttp
import msgspec
from prometheus_client import Counter

from penstock.api.names import GATE
from penstock.cluster.client import JSON_PATCH, STRATEGIC_PATCH, KubeClient
from penstock.cluster.state import ClusterState
from penstock.control.decisionlog.recording import Recorder
from penstock.core import manifests
from penstock.core.decisionlog.record import Entry
from penstock.core.lifecycle import Verdict
from penstock.core.manifests import Lift, Manifest
from penstock.core.model import Isolated, Pod, PoolKey
from penstock.errors import ApiError, Conflict, JournalUnavailable, NotFound
from penstock.metrics import Metrics

log = logging.getLogger(__name__)

Unanswered = (aiohttp.ClientError, TimeoutError)
"""No answer came: the request may or may not have been carried out."""

Spawn = Callable[[Coroutine[object, object, None]], object]
"""Starts a supervised task: if it raises, the process ends."""

REFUSED_PAUSE_SECONDS = 2.0
"""How long a refused placement keeps its room: who says no says so again at once."""


class Eviction(StrEnum):
    """What the Eviction API answered."""

    ACCEPTED = "Accepted"
    GONE = "Gone"
    REFUSED = "Refused"
    """By a PodDisruptionBudget, or because we may not."""
    UNANSWERED = "Unanswered"
    """It may have been carried out: look at the pod."""


@dataclass(frozen=True, slots=True)
class EvictionOutcome:
    """The answer, and for a refusal its words: they name the PodDisruptionBudget."""

    answer: Eviction
    message: str = ""

    @property
    def leaves(self) -> bool:
        """Whether the pod is on its way out, or gone already."""
        return self.answer in (Eviction.ACCEPTED, Eviction.GONE)


class _Gates(msgspec.Struct, gc=False, rename="camel"):
    scheduling_gates: list[dict[str, str]] = []


class _PodGates(msgspec.Struct, gc=False):
    spec: _Gates


@dataclass
class Acts:
    """The operator's writes to pods, Deployments and Services.

    `wake` asks the control loop for another turn, for when the world is not what the decision was made on.
    """

    client: KubeClient
    state: ClusterState
    metrics: Metrics
    wake: Callable[[], None]
    refusals: dict[PoolKey, str] = field(default_factory=dict)
    """What the API server last answered to a pool's Deployment or Service, while it refuses."""
    recorder: Recorder = field(default_factory=Recorder)
    unrecorded: dict[PoolKey, str] = field(default_factory=dict)
    """Why a pool's placements cannot be recorded, while its law demands that they are."""
    foreign_services: set[PoolKey] = field(default_factory=set)
    law_written: Callable[[str], Awaitable[None]] = lambda _: asyncio.sleep(0)
    """Returns once the API server shows the law of a namespace, and judges by it."""
    leaving: set[str] = field(default_factory=set)
    """Pods whose eviction was asked for and not refused, by uid: whoever asks next counts them as away."""

    # ------------------------------------------------------------------------------------------------------- pods

    async def lift(self, lift: Lift, seen_at: float, entry: Entry, *, audit_required: bool) -> None:
        """Send the one patch that places a pod. Its room was booked before; it is given back if the patch is refused.

        `seen_at` is our monotonic time when the pod first appeared. The law under which it was decided is written on
        its namespace first, since the API server judges the patch by what stands there. Where a record is required the
        patch is sent once `entry` is on disk, and never without.
        """
        await self.law_written(lift.pod.namespace)
        if not await self._on_record(lift, entry, required=audit_required):
            return
        patch = msgspec.json.encode(manifests.lift_patch(lift))
        try:
            await self.client.patch(_pod_path(lift.pod), patch, JSON_PATCH)
        except Conflict:
            await self._look_again(lift)
        except ApiError as refused:
            await self._refused(lift, refused)
        except Unanswered:
            await self._look_again(lift)
        else:
            self.refusals.pop(PoolKey(lift.pod.namespace, lift.pod.pool), None)
            self.metrics.decisions.labels("placed").inc()
            self.metrics.gate_seconds.observe(time.monotonic() - seen_at)

    async def _on_record(self, lift: Lift, entry: Entry, *, required: bool) -> bool:
        key = PoolKey(lift.pod.namespace, lift.pod.pool)
        try:
            await self.recorder.record(entry, required=required)
        except JournalUnavailable as error:
            log.error("%s/%s waits for its audit record: %s", *_name(lift.pod), error)
            self.unrecorded[key] = f"its law demands an audit record before a replica is placed, and {error}"
            await asyncio.sleep(REFUSED_PAUSE_SECONDS)
            self.state.forget(lift.pod.uid)
            self.metrics.decisions.labels("unrecorded").inc()
            self.wake()
            return False
        self.unrecorded.pop(key, None)
        return True

    async def _look_again(self, lift: Lift, outcome: str = "conflict") -> None:
        """After a conflict, an error of the server or no answer: was it our own try that went through?"""
        try:
            pod = msgspec.json.decode(await self.client.get(_pod_path(lift.pod)), type=_PodGates)
        except NotFound:
            self._give_back(lift, "gone")
        except (ApiError, *Unanswered):
            # Unknown is charged: the booking stays until the watch shows the pod or its end.
            log.warning("cannot tell whether %s/%s went through the gate; its room stays booked", *_name(lift.pod))
        else:
            if any(gate.get("name") == GATE for gate in pod.spec.scheduling_gates):
                self._give_back(lift, outcome)
            else:
                self.refusals.pop(PoolKey(lift.pod.namespace, lift.pod.pool), None)

    async def _refused(self, lift: Lift, refused: ApiError) -> None:
        """Tell it, and wait before the room is given back: a policy that says no says so again at once."""
        log.error("the API server refuses to let %s/%s through the gate: %s", *_name(lift.pod), refused)
        self.refusals[PoolKey(lift.pod.namespace, lift.pod.pool)] = (
            f"placing {lift.pod.name} refused: {refused.message}"
        )
        await asyncio.sleep(REFUSED_PAUSE_SECONDS)
        if refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            await self._look_again(lift, "refused")
        else:
            self._give_back(lift, "refused")

    def _give_back(self, lift: Lift, outcome: str) -> None:
        self.recorder.take_back(lift.pod, outcome, time.time())
        self.metrics.decisions.labels(outcome).inc()
        self.state.forget(lift.pod.uid)
        self.wake()

    async def end(self, verdict: Verdict) -> bool:
        """Delete a pod that cannot live where it is; its controller makes a gated one in its place.

        False where it should be tried again.
        """
        count = self.metrics.deleted_pods.labels(verdict.ending.value)
        return await self._delete(verdict.pod, "deleted", verdict.message, count)

    async def isolate(self, pod: Pod, pool_uid: str, one: Isolated) -> bool:
        """Take a replica out of traffic. False where it is not: gone, or to be tried again as it is now."""
        patch = msgspec.json.encode(manifests.isolation_patch(pod, pool_uid, one))
        try:
            await self.client.patch(_pod_path(pod), patch, STRATEGIC_PATCH)
        except (NotFound, Conflict):
            return False
        except (ApiError, *Unanswered) as error:
            log.warning("isolating %s/%s failed: %s", *_name(pod), error)
            return False
        log.info("isolated %s/%s: %s", *_name(pod), one.message)
        return True

    async def drain(self, pod: Pod, why: str) -> bool:
        """Delete a pod within its own grace, whatever its PodDisruptionBudgets say. False: try again."""
        return await self._delete(pod, "drained", why)

    async def _delete(self, pod: Pod, done: str, why: str, count: Counter | None = None) -> bool:
        try:
            await self.client.delete(_pod_path(pod), uid=pod.uid)
        except (NotFound, Conflict):
            return True
        except (ApiError, *Unanswered) as error:
            log.warning("%s/%s could not be %s: %s", *_name(pod), done, error)
            return False
        log.info("%s %s/%s: %s", done, *_name(pod), why)
        if count:
            count.inc()
        return True

    async def evict(self, pod: Pod) -> EvictionOutcome:
        """Ask for a pod's eviction, once: within its own grace, and only if every PodDisruptionBudget agrees."""
        try:
            await self.client.evict(pod.namespace, pod.name, uid=pod.uid)
        except (NotFound, Conflict):
            return EvictionOutcome(Eviction.GONE)
        except ApiError as refused:
            log.info("evicting %s/%s is refused: %s", *_name(pod), refused.message)
            return EvictionOutcome(Eviction.REFUSED, refused.message)
        except Unanswered as error:
            log.warning("evicting %s/%s got no answer: %s", *_name(pod), error)
            return EvictionOutcome(Eviction.UNANSWERED, repr(error))
        log.info("evicted %s/%s", *_name(pod))
        return EvictionOutcome(Eviction.ACCEPTED)

    async def rank(self, pod: Pod, cost: int) -> None:
        """Write a pod's new place in the order of a scale-down."""
        patch = msgspec.json.encode(manifests.deletion_cost_patch(pod, cost))
        try:
            await self.client.patch(_pod_path(pod), patch, JSON_PATCH)
        except (ApiError, *Unanswered) as error:
            log.info("ranking %s/%s waits for the next turn: %s", *_name(pod), error)

    # ------------------------------------------------------------------------------------------- Deployment, Service

    async def apply_deployment(self, key: PoolKey, manifest: Manifest) -> int | None:
        """Apply a pool's Deployment; its new generation, or None where the API server refused."""
        path = f"/apis/apps/v1/namespaces/{key.namespace}/deployments/{key.name}"
        answer = await self._apply(key, path, manifest)
        if answer is None:
            return None
        return msgspec.json.decode(answer, type=_Applied).metadata.generation

    async def apply_service(self, key: PoolKey, pool_uid: str, manifest: Manifest) -> int | None:
        """Apply a pool's Service unless somebody else's has that name, which `foreign_services` then says.

        Its new resourceVersion, or None where it should be tried again.
        """
        path = f"/api/v1/namespaces/{key.namespace}/services/{key.name}"
        try:
            found = msgspec.json.decode(await self.client.get(path), type=_Owned).metadata
        except NotFound:
            found = None
        except (ApiError, *Unanswered) as error:
            log.warning("reading Service %s failed: %s", key, error)
            return None
        if found and all(owner.get("uid") != pool_uid for owner in found.owner_references):
            self.foreign_services.add(key)
            return None
        self.foreign_services.discard(key)
        answer = await self._apply(key, path, manifest)
        if answer is None:
            return None
        return int(msgspec.json.decode(answer, type=_Applied).metadata.resource_version)

    async def _apply(self, key: PoolKey, path: str, manifest: Manifest) -> bytes | None:
        try:
            answer = await self.client.apply(path, manifest)
        except ApiError as refused:
            self.refusals[key] = f"{manifest['kind']} refused: {refused.message}"
            log.warning("applying %s %s failed: %s", manifest["kind"], key, refused)
        except Unanswered as error:
            log.warning("applying %s %s got no answer: %s", manifest["kind"], key, error)
        else:
            self.refusals.pop(key, None)
            return answer
        return None


class _Meta(msgspec.Struct, gc=False, rename="camel"):
    generation: int = 0
    resource_version: str = ""
    owner_references: list[dict[str, object]] = []


class _Applied(msgspec.Struct, gc=False):
    metadata: _Meta


class _Owned(msgspec.Struct, gc=False):
    metadata: _Meta


def _pod_path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


def _name(pod: Pod) -> tuple[str, str]:
    return pod.namespace, pod.name
