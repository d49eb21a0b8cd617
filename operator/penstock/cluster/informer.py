"""One kind kept in step with the API server: list in pages, watch, list again when history is gone.

What a library informer would lose is kept here: an object deleted while nobody watched is reported as deleted after
the next list, and a connection that died without a word is noticed by the bookmarks that no longer come. An object
that cannot be read is set aside and said; it never keeps the others from being heard.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import aiohttp
import msgspec

from penstock.cluster import wire
from penstock.cluster.answers import Status, error_of
from penstock.cluster.client import KubeClient, Query
from penstock.errors import UNREADABLE, ApiError, Gone, NotFound, StreamBroken, TooManyRequests
from penstock.metrics import Metrics

log = logging.getLogger(__name__)

QUIET_SECONDS = 70.0
"""The API server sends a bookmark about once a minute; longer silence is a dead connection."""
WATCH_SECONDS = 300
SHORTEST_WATCH_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 10.0
UNSERVED_SECONDS = 60.0
"""From look to look for a kind that may be absent: an upgrade may bring it."""

Seen = TypeVar("Seen")

_decode_event = msgspec.json.Decoder(wire.Event).decode
_decode_status = msgspec.json.Decoder(Status).decode
_decode_identified = msgspec.json.Decoder(wire.Identified).decode


def _leave_as_known(_identity: wire.Identity, _why: str) -> None:
    """What was last read of it stays true as far as we know."""


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[Seen]):
    """One watched kind: where it is, how to read one object, what to call it, and who is told.

    `read` may raise any of `errors.UNREADABLE`; then `unread` is told of which object, and why. `put` also gets the API
    server's clock (Unix seconds) when the object came in a list, None when a watch brought it, which means: it was
    written just now. `relist_after_gap`: after a broken watch list again instead of resuming, for a kind whose age
    matters more than its list costs. `optional`: an API server that does not serve the kind has none of it.
    `rest_seconds`: how long its watch may rest between two readings, for a kind of which nobody waits for each event.
    """

    resource: str
    path: str
    query: Query = field(default_factory=dict)
    read: Callable[[bytes | msgspec.Raw], Seen]
    key: Callable[[wire.Identity], str]
    put: Callable[[Seen, float | None], None]
    delete: Callable[[str], None]
    unread: Callable[[wire.Identity, str], None] = _leave_as_known
    relist_after_gap: bool = False
    optional: bool = False
    rest_seconds: float = 0.0


class Informer(Generic[Seen]):
    """Keeps one kind in step, for ever. `run()` ends only by cancellation or an error of ours."""

    def __init__(
        self,
        client: KubeClient,
        kind: Kind[Seen],
        metrics: Metrics,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        self._client = client
        self._metrics = metrics
        self._quiet_seconds = quiet_seconds
        self._now = now
        self._keys: set[str] = set()
        self._unread: dict[str, str] = {}
        """What could not be read when it was seen last, and why."""
        self._told_meanwhile: set[str] | None = None
        self._heard_at = now()
        self._failures = 0

    @property
    def age_seconds(self) -> float:
        """How long ago the API server last said anything about this kind, bookmarks included."""
        return self._now() - self._heard_at

    async def run(self) -> None:
        why = "start"
        while True:
            try:
                resource_version = await self._list(why)
                await self._watch_on(resource_version)
                why = "gap"
            except Gone:
                why = "gone"
            except NotFound as error:
                why = "error"
                await self._without(error)
            except (ApiError, StreamBroken, aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
                why = "error"
                log.warning("list of %s failed, trying again: %s", self.kind.resource, error)
                await self._back_off(error)

    async def caught_up(self) -> None:
        """Take in all that the API server has now, not waiting for the watch, which goes on beside it.

        Only what is there is taken in: what is gone the watch will say. What the watch tells meanwhile is newer.
        """
        self._told_meanwhile = told = set[str]()
        try:
            async for page in self._client.list_pages(self.kind.path, self.kind.query):
                for raw in page.items:
                    identity = _decode_identified(raw).metadata
                    if self.kind.key(identity) not in told:
                        self._keys.add(self._put(identity, raw, page.server_time))
        except NotFound:
            if not self.kind.optional:
                raise
        self._told_meanwhile = None

    # ------------------------------------------------------------------------------------------------------- list

    async def _list(self, why: str) -> str:
        self._metrics.relists.labels(self.kind.resource, why).inc()
        seen: set[str] = set()
        resource_version = ""
        async for page in self._client.list_pages(self.kind.path, self.kind.query):
            for raw in page.items:
                seen.add(self._put(_decode_identified(raw).metadata, raw, page.server_time))
            resource_version = page.resource_version
        self._keep(seen)
        return resource_version

    def _keep(self, seen: set[str]) -> None:
        for key in self._keys - seen:
            self._delete(key)
        self._keys = seen
        self._heard()
        self.synced.set()

    def _put(self, identity: wire.Identity, raw: msgspec.Raw, server_time: float | None) -> str:
        key = self.kind.key(identity)
        try:
            self.kind.put(self.kind.read(raw), server_time)
        except UNREADABLE as error:
            self._set_aside(key, identity, str(error) or repr(error))
        else:
            if self._unread.pop(key, None):
                log.info("%s %s can be read again", self.kind.resource, key)
        return key

    def _set_aside(self, key: str, identity: wire.Identity, why: str) -> None:
        if self._unread.get(key) != why:  # An object that is written over and over is told of once.
            log.warning("%s %s cannot be read and is set aside: %s", self.kind.resource, key, why)
        self._unread[key] = why
        self.kind.unread(identity, why)

    def _delete(self, key: str) -> None:
        self._unread.pop(key, None)
        self.kind.delete(key)

    # ------------------------------------------------------------------------------------------------------ watch

    async def _watch_on(self, resource_version: str) -> None:
        """Watch from `resource_version` on, across ended and broken streams. Raises Gone when only a list helps."""
        while True:
            started_at = self._now()
            try:
                async for line in self._lines(resource_version):
                    resource_version = self._take(line)
                self._check_lasted(started_at)
            except (StreamBroken, TooManyRequests) as error:
                log.info("watch of %s broke, going on: %s", self.kind.resource, error)
                await self._back_off(error)
                if self.kind.relist_after_gap:
                    return

    def _lines(self, resource_version: str) -> AsyncIterator[bytes]:
        return self._client.watch_lines(
            self.kind.path,
            resource_version,
            self.kind.query,
            quiet_seconds=self._quiet_seconds,
            # Spread, so that many watches do not all end in the same second.
            server_seconds=int(WATCH_SECONDS * random.uniform(1.0, 1.5)),  # noqa: S311  jitter, no secret
            rest_seconds=self.kind.rest_seconds,
        )

    def _check_lasted(self, started_at: float) -> None:
        if self._now() - started_at < SHORTEST_WATCH_SECONDS:
            raise StreamBroken("it ended as soon as it began")

    def _take(self, line: bytes) -> str:
        """Take in one watch line; returns the resourceVersion to resume from."""
        event = _decode_event(line)
        if event.type == "ERROR":
            raise _in_stream(event.object)
        identity = _decode_identified(event.object).metadata
        self._metrics.watch_events.labels(self.kind.resource, event.type).inc()
        if event.type == "DELETED":
            key = self.kind.key(identity)
            self._keys.discard(key)
            self._delete(key)
            self._note(key)
        elif event.type != "BOOKMARK":
            key = self._put(identity, event.object, None)
            self._keys.add(key)
            self._note(key)
        self._heard()
        return identity.resourceVersion

    def _note(self, key: str) -> None:
        if self._told_meanwhile is not None:
            self._told_meanwhile.add(key)

    async def _without(self, error: NotFound) -> None:
        # What was served once is out for a moment, as in an upgrade of the cluster: what was heard last still holds.
        if not self.kind.optional or self._keys:
            log.warning("list of %s failed, trying again: %s", self.kind.resource, error)
            await self._back_off(error)
            return
        if not self.synced.is_set():
            log.info("the API server does not serve %s: asked again every %g s", self.kind.resource, UNSERVED_SECONDS)
        self._keep(set())
        await asyncio.sleep(UNSERVED_SECONDS)

    def _heard(self) -> None:
        self._heard_at = self._now()
        self._failures = 0
        self._metrics.objects.labels(self.kind.resource).set(len(self._keys))
        self._metrics.unreadable_objects.labels(self.kind.resource).set(len(self._unread))

    async def _back_off(self, error: Exception) -> None:
        self._failures += 1
        ceiling = min(0.1 * 2**self._failures, LONGEST_BACKOFF_SECONDS)
        floor = error.retry_after_seconds if isinstance(error, TooManyRequests) else 0.0
        await asyncio.sleep(min(floor, LONGEST_BACKOFF_SECONDS) + random.uniform(0, ceiling))  # noqa: S311  jitter


def _in_stream(raw: msgspec.Raw) -> Exception:
    status = _decode_status(raw)
    error = error_of(status.code, bytes(raw))
    return error if isinstance(error, (Gone, TooManyRequests)) else StreamBroken(str(error))
