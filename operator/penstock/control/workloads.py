"""Each pool's Deployment and Service, kept as the pool wants them: applied when the intent or the object changed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts, Spawn
from penstock.core import lifecycle, manifests
from penstock.core.lifecycle import Count
from penstock.core.manifests import Manifest, Workload
from penstock.core.model import PoolKey
from penstock.core.pool import Pool, RollCall
from penstock.core.telling.figures import rfc3339

RETRY_SECONDS = 5.0
"""Pause before an apply that was refused is tried again; a change of the pool tries at once."""
UNSEEN_SECONDS = 5.0
"""What our watch has not shown for so long since it was applied was deleted before it could."""
FOREIGN_LOOK_SECONDS = 10.0
"""How often we look whether somebody else's Service still has the name that ours would take."""


@dataclass(frozen=True, slots=True)
class _Applied:
    digest: str
    version: int
    """Of the object as our apply left it (a Deployment's generation, a Service's resourceVersion): a higher one is
    somebody else's edit."""
    applied_time: float
    seen: bool = False
    """Whether our watch has shown it since: if it is not there then, somebody deleted it."""


@dataclass
class Workloads:
    """Keeps every pool's Deployment and Service. One apply per pool is under way at a time; the latest intent wins."""

    state: ClusterState
    acts: Acts
    spawn: Spawn
    waiting_seconds: float
    _applied: dict[PoolKey, _Applied] = field(default_factory=dict)
    _services: dict[PoolKey, _Applied] = field(default_factory=dict)
    _service_next: dict[PoolKey, tuple[str, float]] = field(default_factory=dict)
    """The Service that was refused or found to be somebody else's, and when it is tried again."""
    _settled: dict[PoolKey, object] = field(default_factory=dict)
    """What was last found in order: nothing is made and hashed anew while it stays so."""
    _busy: set[PoolKey] = field(default_factory=set)
    _refused: dict[PoolKey, tuple[str, float]] = field(default_factory=dict)

    def keep(self, pool: Pool, roll: RollCall, placed: Collection[str], shed: int, now_time: float) -> None:
        """Apply what differs from the pool's intent. A pool with problems keeps what it has."""
        if pool.adopts or pool.problems or pool.key in self._busy:
            return
        count = lifecycle.deployment_count(pool, roll, placed, now_time, self.waiting_seconds, shed=shed)
        look = (pool.uid, pool.generation, pool.intent, count, self._generation(pool.key), self._version(pool.key))
        if self._settled.get(pool.key) == look:
            return
        self._settled.pop(pool.key, None)
        raw = self.state.pools[pool.key].raw_spec
        deployment = manifests.deployment(_workload(pool, roll, raw, count))
        service = manifests.service(pool.key, pool.uid, raw["template"])
        digest = manifests.digest(deployment)
        if self._due(pool.key, digest, now_time):
            self._busy.add(pool.key)
            self.spawn(self._apply(pool.key, deployment, digest, now_time))
        elif service and self._service_due(pool.key, manifests.digest(service), now_time):
            self._busy.add(pool.key)
            self.spawn(self._apply_service(pool, service, now_time))
        elif pool.key not in self._refused and pool.key not in self._service_next and self._shown(pool.key, service):
            self._settled[pool.key] = look

    def forget(self, ended: Collection[PoolKey]) -> None:
        """Drop what is known of pools that are gone."""
        for key in ended:
            for memory in (self._applied, self._services, self._service_next, self._refused, self._settled):
                memory.pop(key, None)
            self.acts.refusals.pop(key, None)
            self.acts.unrecorded.pop(key, None)
            self.acts.foreign_services.discard(key)

    def _shown(self, key: PoolKey, service: Manifest | None) -> bool:
        """Whether our watch shows what was applied: until then its end would go unnoticed."""
        return self._generation(key) is not None and (service is None or self._version(key) is not None)

    def _due(self, key: PoolKey, digest: str, now_time: float) -> bool:
        refused = self._refused.get(key)
        if refused and refused[0] == digest and now_time < refused[1] + RETRY_SECONDS:
            return False
        return _differs(self._applied, key, digest, self._generation(key), now_time)

    def _generation(self, key: PoolKey) -> int | None:
        seen = self.state.deployments.get(key)
        return seen.generation if seen else None

    def _version(self, key: PoolKey) -> int | None:
        seen = self.state.services.get(key)
        return int(seen.resource_version) if seen else None

    async def _apply(self, key: PoolKey, deployment: Manifest, digest: str, now_time: float) -> None:
        try:
            generation = await self.acts.apply_deployment(key, deployment)
            if generation is None:
                self._refused[key] = (digest, now_time)
            else:
                self._refused.pop(key, None)
                self._applied[key] = _Applied(digest, generation, now_time)
        finally:
            self._busy.discard(key)
            self.acts.wake()

    def _service_due(self, key: PoolKey, digest: str, now_time: float) -> bool:
        again = self._service_next.get(key)
        if again and again[0] == digest and now_time < again[1]:
            return False
        return _differs(self._services, key, digest, self._version(key), now_time)

    async def _apply_service(self, pool: Pool, service: Manifest, now_time: float) -> None:
        key, digest = pool.key, manifests.digest(service)
        try:
            version = await self.acts.apply_service(key, pool.uid, service)
            if version is not None:
                self._services[key] = _Applied(digest, version, now_time)
                self._service_next.pop(key, None)
            else:
                foreign = key in self.acts.foreign_services
                self._service_next[key] = (digest, now_time + (FOREIGN_LOOK_SECONDS if foreign else RETRY_SECONDS))
        finally:
            self._busy.discard(key)


def _differs(applied: dict[PoolKey, _Applied], key: PoolKey, digest: str, version: int | None, now_time: float) -> bool:
    """Whether the object is not what we last applied: not that intent, edited since, or deleted (`version` is None)."""
    known = applied.get(key)
    if known is None or known.digest != digest:
        return True
    if version is None:
        return known.seen or now_time - known.applied_time > UNSEEN_SECONDS
    applied[key] = replace(known, seen=True)
    return version > known.version


def _workload(pool: Pool, roll: RollCall, raw_spec: Any, count: Count) -> Workload:
    return Workload(
        key=pool.key,
        pool_uid=pool.uid,
        template=raw_spec["template"],
        count=count.count,
        left=count.left,
        left_shed=count.left_shed,
        left_since=rfc3339(count.left_since_time) if count.left_since_time is not None else "",
        max_unavailable=int((raw_spec.get("disruption") or {}).get("maxUnavailable", 1)),
        floor=len(roll.pinned) + len(roll.bound),
        last_intent=pool.intent,
        last_floor=pool.floor,
    )
