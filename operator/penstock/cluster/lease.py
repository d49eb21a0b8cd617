"""Who leads: one Lease, one holder. Loss of it ends the process.

Expiry is judged by our own monotonic clock since the record last *changed*, so no clock of another machine matters;
`renewTime` is written for people and other tools. Every write carries the resourceVersion that was read, so of two
that try only one wins. `leaseTransitions` rises with each new process that takes the Lease, a restart included, so
that `<holder>/<transitions>` is a fence: an admission policy refuses a lift that carries any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp
import msgspec

from penstock.api.names import LEASE_NAME
from penstock.errors import ApiError, Conflict, LeaseLost, NotFound

log = logging.getLogger(__name__)


class Client(Protocol):
    """What of KubeClient an elector needs."""

    async def get(self, path: str) -> bytes: ...

    async def create(self, path: str, obj: Mapping[str, Any]) -> bytes: ...

    async def replace(self, path: str, obj: Mapping[str, Any]) -> bytes: ...


class _Metadata(msgspec.Struct):
    resourceVersion: str = ""


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None
    leaseDurationSeconds: int | None = None
    acquireTime: str | None = None
    renewTime: str | None = None
    leaseTransitions: int | None = None


class _Lease(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)


_decode = msgspec.json.Decoder(_Lease).decode


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: how long the Lease holds, how long a leader tries to renew it, and the pause between two tries."""

    lease_seconds: int = 15
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0


class Clock(Protocol):
    """Time as the elector sees it; a test brings its own."""

    def monotonic(self) -> float: ...

    def utc(self) -> datetime: ...

    async def sleep(self, seconds: float) -> None: ...


class WallClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def utc(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Elector:
    """`acquire()` waits until we lead; `keep()` renews until it raises LeaseLost; `release()` hands over at once."""

    def __init__(
        self, client: Client, namespace: str, identity: str, timing: Timing, *, clock: Clock | None = None
    ) -> None:
        self.identity = identity
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self._timing = timing
        self._clock = clock or WallClock()
        self._record: _Lease | None = None
        self._changed_at = 0.0
        self._leading = False
        self._renewed_at = 0.0

    @property
    def leading(self) -> bool:
        """Whether the Lease is ours and was renewed within `renew_seconds`: false for a leader that just thawed."""
        return self._leading and self._clock.monotonic() - self._renewed_at < self._timing.renew_seconds

    @property
    def fence(self) -> str:
        """`<holder>/<leaseTransitions>`; what each lift carries. Raises LeaseLost where we do not lead."""
        if not self.leading or self._record is None:
            raise LeaseLost(f"{self.identity} does not hold the Lease {self._namespace}/{LEASE_NAME}")
        return f"{self.identity}/{self._record.spec.leaseTransitions or 0}"

    async def acquire(self) -> str:
        """Wait until we lead; returns the fence."""
        while not await self._try_once():
            await self._clock.sleep(self._timing.retry_seconds)
        log.info("leading as %s", self.fence)
        return self.fence

    async def keep(self) -> None:
        """Renew until that fails for `renew_seconds`; then raise LeaseLost."""
        while True:
            await self._clock.sleep(self._timing.retry_seconds)
            await self._renew_in_time()

    async def release(self) -> None:
        """Give the Lease away, so that a standby need not wait for its end. Best effort."""
        if not self._leading or self._record is None:
            return
        self._leading = False
        spec = self._record.spec
        with contextlib.suppress(ApiError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(self._timing.retry_seconds):
                await self._write(self._spec("", spec.acquireTime, spec.leaseTransitions or 0, seconds=1))
                log.info("released the Lease")

    # ----------------------------------------------------------------------------------------------------- pieces

    async def _try_once(self) -> bool:
        try:
            async with asyncio.timeout(self._timing.renew_seconds):
                await self._observe()
                if self._is_held():
                    return False
                await self._take()
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("cannot take the Lease yet: %r", error)
            return False
        return True

    async def _observe(self) -> None:
        try:
            seen: _Lease | None = _decode(await self._client.get(f"{self._collection}/{LEASE_NAME}"))
        except NotFound:
            seen = None
        if seen != self._record:
            self._record, self._changed_at = seen, self._clock.monotonic()

    def _is_held(self) -> bool:
        if self._record is None or not self._record.spec.holderIdentity:
            return False
        lasts = self._record.spec.leaseDurationSeconds or self._timing.lease_seconds
        return self._clock.monotonic() - self._changed_at < lasts

    async def _take(self) -> None:
        transitions = (self._record.spec.leaseTransitions or 0) + 1 if self._record else 0
        # Asked before the write: a slow answer must not make the Lease look younger than it is.
        asked_at = self._clock.monotonic()
        await self._write(self._spec(self.identity, self._moment(), transitions, self._timing.lease_seconds))
        self._leading, self._renewed_at = True, asked_at

    async def _renew_in_time(self) -> None:
        while True:
            left_seconds = self._renewed_at + self._timing.renew_seconds - self._clock.monotonic()
            if left_seconds <= 0:
                self._leading = False
                raise LeaseLost(f"could not renew the Lease for {self._timing.renew_seconds:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_seconds):
                    if await self._renewed():
                        return
            await self._clock.sleep(min(self._timing.retry_seconds, left_seconds))

    async def _renewed(self) -> bool:
        asked_at = self._clock.monotonic()
        try:
            spec = self._record.spec if self._record else _Spec()
            await self._write(
                self._spec(self.identity, spec.acquireTime, spec.leaseTransitions or 0, self._timing.lease_seconds)
            )
        except (Conflict, NotFound):
            await self._look_again()
            return False
        except (ApiError, aiohttp.ClientError) as error:
            log.warning("cannot renew the Lease yet: %r", error)
            return False
        self._renewed_at = asked_at
        return True

    async def _look_again(self) -> None:
        """After a refused write: ours still (our own reply was lost), or somebody else's?"""
        mine = self._record.spec.leaseTransitions if self._record else None
        with contextlib.suppress(ApiError, aiohttp.ClientError):
            await self._observe()
        spec = self._record.spec if self._record else _Spec()
        if spec.holderIdentity != self.identity or spec.leaseTransitions != mine:
            self._leading = False
            raise LeaseLost(f"the Lease is now held by {spec.holderIdentity or 'nobody'!r}")

    def _spec(self, holder: str, acquired: str | None, transitions: int, seconds: int) -> _Spec:
        return _Spec(
            holderIdentity=holder,
            leaseDurationSeconds=seconds,
            acquireTime=acquired,
            renewTime=self._moment(),
            leaseTransitions=transitions,
        )

    def _moment(self) -> str:
        return self._clock.utc().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    async def _write(self, spec: _Spec) -> None:
        body: dict[str, Any] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE_NAME, "namespace": self._namespace},
            "spec": msgspec.to_builtins(spec),
        }
        if self._record is None:
            written = await self._client.create(self._collection, body)
        else:
            body["metadata"]["resourceVersion"] = self._record.metadata.resourceVersion
            written = await self._client.replace(f"{self._collection}/{LEASE_NAME}", body)
        self._record, self._changed_at = _decode(written), self._clock.monotonic()
