"""When a pool's Deployment and Service are applied: when they are not what was applied last, and at no other time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import pytest

import builders as a
from penstock.cluster.objects import Deployment, Service
from penstock.cluster.parse.written import pool_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.workloads import FOREIGN_LOOK_SECONDS, RETRY_SECONDS, UNSEEN_SECONDS, Workloads
from penstock.core import intent
from penstock.core.model import Owner, PoolKey

NOW = 1_000_000.0
PORTS = [{"name": "http", "containerPort": 8000}]
SERVER = {"name": "s", "image": "s", "ports": PORTS, "resources": {"limits": {"nvidia.com/gpu": "1"}}}
SPEC = {"template": {"spec": {"containers": [SERVER]}}}


@dataclass
class Api:
    """Stands where the acts are; `refuses` and `foreign` are what the API server makes of a Service."""

    applied: list[str] = field(default_factory=list)
    version: int = 10
    refuses: bool = False
    foreign: bool = False
    refusals: dict[PoolKey, str] = field(default_factory=dict)
    unrecorded: dict[PoolKey, str] = field(default_factory=dict)
    foreign_services: set[PoolKey] = field(default_factory=set)

    async def apply_deployment(self, _key: PoolKey, _manifest: Any) -> int | None:
        self.applied.append("Deployment")
        return 1

    async def apply_service(self, key: PoolKey, _uid: str, _manifest: Any) -> int | None:
        self.applied.append("Service")
        if self.foreign:
            self.foreign_services.add(key)
        self.version += 1
        return None if self.refuses or self.foreign else self.version

    def wake(self) -> None:
        pass


class Desk:
    """One pool, kept turn by turn; both objects are there and seen once the desk is settled."""

    def __init__(self, *, refuses: bool = False, foreign: bool = False) -> None:
        self.state, self.api = ClusterState(), Api(refuses=refuses, foreign=foreign)
        acts: Any = self.api
        metadata = {"name": a.POOL.name, "namespace": a.POOL.namespace, "uid": "u", "resourceVersion": "1"}
        self.state.written_pools.put(pool_object({"metadata": {**metadata, "generation": 1}, "spec": SPEC}))
        self.picture = Picture(self.state)
        self.workloads = Workloads(self.state, acts, self.spawn, waiting_seconds=60.0)

    @staticmethod
    def spawn(act: Coroutine[Any, Any, None]) -> None:
        asyncio.run(act)

    def turn(self, after: float = 0.0, times: int = 4) -> list[str]:
        """What is applied in the next turns."""
        self.api.applied.clear()
        for _ in range(times):
            self.picture.look(0.0, NOW)
            roll = self.picture.rolls[a.POOL]
            self.workloads.keep(self.picture.pools[a.POOL], roll, (), 0, NOW + after)
        return list(self.api.applied)

    def settle(self) -> None:
        assert self.turn() == ["Deployment", "Service"]
        self.see_deployment()
        self.see_service(self.api.version)
        assert self.turn() == []

    def see_deployment(self) -> None:
        self.state.put_deployment(Deployment(a.POOL, uid="d", generation=1, pool=a.POOL.name, replicas=1))

    def see_service(self, version: int) -> None:
        self.state.put_service(Service(a.POOL, a.POOL.name, str(version)))


@pytest.fixture
def desk() -> Desk:
    found = Desk()
    found.settle()
    return found


def test_both_are_applied_once(desk: Desk) -> None:
    assert desk.turn(after=3600.0) == []


def test_a_service_that_is_not_seen_yet_is_not_taken_for_deleted() -> None:
    desk = Desk()
    assert desk.turn() == ["Deployment", "Service"]
    assert desk.turn() == []


def test_what_was_deleted_before_the_watch_showed_it_is_made_again_after_a_while() -> None:
    desk = Desk()
    assert desk.turn() == ["Deployment", "Service"]
    assert desk.turn(after=UNSEEN_SECONDS) == []
    assert desk.turn(after=UNSEEN_SECONDS + 1.0, times=2) == ["Deployment", "Service"]


def test_a_deleted_service_is_made_again_and_once(desk: Desk) -> None:
    desk.state.delete_service(a.POOL)
    assert desk.turn() == ["Service"]
    desk.see_service(desk.api.version)
    assert desk.turn() == []


def test_an_edited_service_is_applied_again_and_once(desk: Desk) -> None:
    desk.api.version = 20
    desk.see_service(20)
    assert desk.turn() == ["Service"]
    desk.see_service(21)
    assert desk.turn() == []


def test_a_deleted_or_edited_deployment_is_applied_again(desk: Desk) -> None:
    seen = desk.state.deployments[a.POOL]
    desk.state.put_deployment(replace(seen, generation=2))
    assert desk.turn(times=1) == ["Deployment"]
    desk.state.put_deployment(seen)
    desk.turn()
    desk.state.delete_deployment(a.POOL)
    assert desk.turn() == ["Deployment"]


@pytest.mark.parametrize(
    ("desk", "pause_seconds"), ((Desk(refuses=True), RETRY_SECONDS), (Desk(foreign=True), FOREIGN_LOOK_SECONDS))
)
def test_a_service_that_is_refused_or_somebody_elses_is_tried_again_at_a_pace(desk: Desk, pause_seconds: float) -> None:
    assert desk.turn() == ["Deployment", "Service"]
    desk.see_deployment()
    assert desk.turn(after=pause_seconds - 0.1) == []
    assert desk.turn(after=pause_seconds) == ["Service"]


def test_what_is_known_of_a_pool_that_is_gone_is_dropped(desk: Desk) -> None:
    desk.workloads.forget([a.POOL])
    assert desk.turn() == ["Deployment", "Service"]


def test_an_annotation_of_ours_that_somebody_spoiled_says_nothing_and_stops_nobody(desk: Desk) -> None:
    for spoiled in ("three", '{"replicas": "some"}', '{"since": "2026-11-21T01:30:00+99:99"}'):
        owner = Owner("InferencePool", a.POOL.name, "u")
        own = Deployment(a.POOL, uid="d", generation=2, pool=a.POOL.name, replicas=1, owner=owner, left=spoiled)
        desk.state.put_deployment(own)
        desk.picture.look(0.0, NOW)
        pool = desk.picture.pools[a.POOL]
        assert (pool.count, pool.left, pool.left_since_time) == (1, 0, None)


def test_a_pool_at_which_our_own_code_raises_says_so_and_stops_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: object) -> NoReturn:
        raise OverflowError("date value out of range")

    monkeypatch.setattr(intent, "rules", overflow)
    known = desk.state.pools[a.POOL]
    desk.state.written_pools.put(replace(known, generation=2, resource_version="9"))
    desk.picture.look(0.0, NOW)
    (problem,) = desk.picture.pools[a.POOL].problems
    assert problem.value == "OverflowError: date value out of range"
    assert desk.picture.pools[a.POOL].desired == 1, "what was in force stays in force"
