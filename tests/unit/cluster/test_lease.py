"""Who leads, on a clock that the test moves: two electors and one record, as the API server would keep it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from penstock.cluster.lease import Elector, Timing
from penstock.errors import ApiError, Conflict, LeaseLost, NotFound

TIMING = Timing(lease_seconds=15, renew_seconds=10, retry_seconds=2)


class Clock:
    """Time moves only when somebody sleeps."""

    def __init__(self, offset: timedelta = timedelta()) -> None:
        self.seconds = 1000.0
        self.offset = offset
        self._moved = asyncio.Event()

    def monotonic(self) -> float:
        return self.seconds

    def utc(self) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self.seconds) + self.offset

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self._moved.set()
        await asyncio.sleep(0)

    async def reaches(self, seconds: float) -> None:
        while self.seconds < seconds:
            self._moved.clear()
            await self._moved.wait()


class Record:
    """One Lease with optimistic locking; `broken` is raised instead of an answer, `lossy` loses replies."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.broken: Exception | None = None
        self.lossy = False

    async def get(self, path: str) -> bytes:
        self._answer()
        if self.lease is None:
            raise NotFound(404, "NotFound", path)
        return msgspec.json.encode(self.lease)

    async def create(self, path: str, obj: Mapping[str, Any]) -> bytes:
        self._answer()
        if self.lease is not None:
            raise Conflict(409, "AlreadyExists", path)
        return self._store(obj)

    async def replace(self, path: str, obj: Mapping[str, Any]) -> bytes:
        self._answer()
        if self.lease is None:
            raise NotFound(404, "NotFound", path)
        if obj["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict(409, "Conflict", path)
        return self._store(obj)

    def _answer(self) -> None:
        if self.broken:
            raise self.broken

    def _store(self, obj: Mapping[str, Any]) -> bytes:
        self.version += 1
        self.lease = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        if self.lossy:
            self.lossy = False
            raise ApiError(503, "ServiceUnavailable", "the reply was lost")
        return msgspec.json.encode(self.lease)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        spec: dict[str, Any] = self.lease["spec"]
        return spec


def elector(record: Record, name: str, clock: Clock) -> Elector:
    return Elector(record, "penstock-system", name, TIMING, clock=clock)


async def test_the_first_to_come_leads_with_transition_zero() -> None:
    record = Record()
    assert await elector(record, "a", Clock()).acquire() == "a/0"
    assert record.spec["holderIdentity"] == "a"
    assert record.spec["renewTime"] == "2026-11-20T00:16:40.000000Z"
    assert record.spec["leaseDurationSeconds"] == 15


async def test_a_standby_waits_for_the_end_by_its_own_clock_whatever_the_holder_wrote() -> None:
    record = Record()
    await elector(record, "a", Clock(offset=timedelta(days=400))).acquire()
    clock = Clock()
    assert await elector(record, "b", clock).acquire() == "b/1"
    assert 15 <= clock.seconds - 1000.0 <= 15 + TIMING.retry_seconds


async def test_a_standby_never_takes_a_lease_that_is_renewed() -> None:
    record, clock = Record(), Clock()
    leader, standby = elector(record, "a", clock), elector(record, "b", clock)
    await leader.acquire()
    waiting, keeping = asyncio.create_task(standby.acquire()), asyncio.create_task(leader.keep())
    await clock.reaches(1200.0)
    assert not waiting.done()
    assert leader.leading
    for task in (waiting, keeping):
        task.cancel()


async def test_a_released_lease_is_taken_at_once() -> None:
    record, clock = Record(), Clock()
    leader = elector(record, "a", clock)
    await leader.acquire()
    await leader.release()
    assert record.spec["holderIdentity"] == ""
    assert not leader.leading
    started = clock.seconds
    assert await elector(record, "b", clock).acquire() == "b/1"
    assert clock.seconds == started


async def test_a_restart_of_the_same_holder_is_a_new_epoch() -> None:
    record, clock = Record(), Clock()
    await elector(record, "a", clock).acquire()
    assert await elector(record, "a", clock).acquire() == "a/1"


async def test_of_two_that_try_together_one_leads() -> None:
    record, clock = Record(), Clock()
    electors = [elector(record, name, clock) for name in "abc"]
    tasks = [asyncio.create_task(one.acquire()) for one in electors]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert sum(one.leading for one in electors) == 1
    for task in waiting:
        task.cancel()


async def test_a_leader_that_slept_past_its_time_does_not_lead_when_it_wakes() -> None:
    record, clock = Record(), Clock()
    leader = elector(record, "a", clock)
    await leader.acquire()
    clock.seconds += TIMING.renew_seconds
    assert not leader.leading
    with pytest.raises(LeaseLost, match="could not renew the Lease for 10 s"):
        await leader.keep()


async def test_a_leader_whose_lease_was_taken_ends() -> None:
    record, clock = Record(), Clock()
    leader = elector(record, "a", clock)
    await leader.acquire()
    frozen_at, clock.seconds = clock.seconds, clock.seconds
    other = Clock()
    await elector(record, "b", other).acquire()
    clock.seconds = frozen_at
    with pytest.raises(LeaseLost, match="held by 'b'"):
        await leader.keep()
    with pytest.raises(LeaseLost, match="does not hold"):
        _ = leader.fence


@pytest.mark.parametrize(
    "error", (ApiError(500, "InternalError", "etcd"), NotFound(404, "NotFound", "deleted")), ids=lambda one: one.reason
)
async def test_a_leader_that_cannot_renew_ends_within_its_deadline(error: Exception) -> None:
    record, clock = Record(), Clock()
    leader = elector(record, "a", clock)
    await leader.acquire()
    record.broken = error
    with pytest.raises(LeaseLost):
        await leader.keep()
    assert clock.seconds - 1000.0 <= TIMING.renew_seconds + 2 * TIMING.retry_seconds


async def test_a_short_trouble_is_survived() -> None:
    record, clock = Record(), Clock()
    leader = elector(record, "a", clock)
    await leader.acquire()
    keeping = asyncio.create_task(leader.keep())
    record.broken = ApiError(500, "InternalError", "etcd")
    await clock.reaches(1005.0)
    record.broken = None
    await clock.reaches(1100.0)
    assert not keeping.done()
    assert leader.leading
    keeping.cancel()


async def test_a_renewal_whose_reply_was_lost_is_recognised_as_our_own() -> None:
    record, clock = Record(), Clock()
    leader = elector(record, "a", clock)
    await leader.acquire()
    keeping = asyncio.create_task(leader.keep())
    record.lossy = True
    await clock.reaches(1100.0)
    assert not keeping.done()
    assert leader.fence == "a/0"
    keeping.cancel()


async def test_nobody_waits_for_a_lease_that_trouble_hides() -> None:
    record, clock = Record(), Clock()
    record.broken = ApiError(500, "InternalError", "etcd")
    waiting = asyncio.create_task(elector(record, "a", clock).acquire())
    await clock.reaches(1010.0)
    assert not waiting.done()
    record.broken = None
    assert await waiting == "a/0"
