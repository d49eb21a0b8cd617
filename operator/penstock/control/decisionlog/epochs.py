"""Epochs of the decision log: a leader begins one, and publishes how far it is to the cluster.

The ConfigMap `penstock-decision-log` keeps the last published head of each epoch. Who holds only the log's volume
cannot change that, and who holds only the cluster cannot make a log that fits another one. An epoch is claimed there
before its first line is written; from then on whoever led before publishes nothing more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from penstock.api.names import DECISION_LOG_NAME
from penstock.cluster.client import KubeClient
from penstock.cluster.journal import Journal
from penstock.core.decisionlog import checkpoints, entries, record
from penstock.core.decisionlog.checkpoints import Checkpoints
from penstock.core.decisionlog.record import Head
from penstock.core.telling.figures import rfc3339
from penstock.errors import ApiError, JournalUnavailable, NotFound

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 10.0
RETRY_SECONDS = 2.0
END_SECONDS = 5.0
"""How long the last batch and the last checkpoint may take after we were told to stop."""
Unpublished = (ApiError, aiohttp.ClientError, TimeoutError)


class _ConfigMap(msgspec.Struct):
    metadata: dict[str, Any]
    data: dict[str, str] = {}


@dataclass
class Epochs:
    """`run` begins the leader's epoch and publishes for ever; `end` publishes for the last time.

    Epochs that were last heard of `retention_seconds` ago are dropped as soon as something is published. `clock` is
    Unix time.
    """

    client: KubeClient
    journal: Journal
    namespace: str
    cluster: Callable[[], str]
    """What tells this cluster from any other."""
    retention_seconds: float
    clock: Callable[[], float]
    _published: Head | None = None
    _claimed: int | None = None
    """The epoch that we wrote down before its first line was on disk."""
    _pruned_below: int = 0
    """Epochs below it were dropped, or that was tried."""

    async def run(self, fence: str) -> None:
        """Begin the epoch of this fence and publish how far it is, for ever."""
        await self.begin(fence)
        while True:
            await self._try_to_publish()
            await asyncio.sleep(PUBLISH_SECONDS)

    async def begin(self, fence: str) -> None:
        """Begin the epoch of this fence, `<holder>/<transitions>`, as soon as disk and cluster let us."""
        holder, _, transitions = fence.rpartition("/")
        while self.journal.head is None:
            try:
                await self._begin(holder, int(transitions))
            except (JournalUnavailable, *Unpublished) as error:
                why = str(error) or repr(error)
                log.warning("the decision log does not begin yet: %s", why)
                self.journal.hinder(why)
                await asyncio.sleep(RETRY_SECONDS)

    async def end(self, watched_time: float) -> None:
        """Write what is pending and until when we watched (Unix time), and publish it, within a few seconds."""
        try:
            async with asyncio.timeout(END_SECONDS):
                if self.journal.head is not None:
                    self.journal.note(entries.alive(self.journal.holder, watched_time))
                    await self.journal.settled()
                    await self._try_to_publish()
        except TimeoutError:
            log.warning("the last checkpoint of the decision log was not published in time")

    async def _begin(self, holder: str, transitions: int) -> None:
        now = self.clock()
        found = await self._read()
        known = _checkpoints(found)
        if self._claimed is not None:
            known = known.without_claim(self._claimed)
        on_disk = await self.journal.epochs()
        last = await self.journal.last_head()
        # A Lease that was deleted counts from 0 again; an epoch never comes twice.
        epoch = max([transitions, *(one + 1 for one in (*on_disk, *(head.epoch for head in known.heads)))])
        kept = known.without_epochs_before(rfc3339(now - self.retention_seconds))
        await self._write(found, kept.claimed(epoch, rfc3339(now)))
        self._claimed = epoch
        await self.journal.open(
            epoch,
            holder,
            record.source(self.cluster(), self.namespace),
            rfc3339(now),
            checkpoint=known.last,
            found=last,
            pruned_below=kept.pruned_below,
        )
        log.info("the decision log is at epoch %d, which cites %s", epoch, known.last or "no checkpoint")
        await self._drop(kept.pruned_below)

    async def _drop(self, below: int) -> None:
        try:
            await self.journal.drop_below(below)
        except JournalUnavailable as error:
            log.warning("old epochs of the decision log stay: %s", error)
        self._pruned_below = below

    async def _try_to_publish(self) -> None:
        head = self.journal.head
        if head is None or head == self._published:
            return
        try:
            await self._publish(head)
        except Unpublished as error:
            log.warning("the checkpoint of the decision log is not published: %r", error)
        else:
            self._published = head

    async def _publish(self, head: Head) -> None:
        found = await self._read()
        now = self.clock()
        known = _checkpoints(found)
        if known.is_over(head.epoch):
            log.warning("epoch %d of the decision log is over: its last lines are not published", head.epoch)
            return
        kept = known.with_head(head, rfc3339(now)).without_epochs_before(rfc3339(now - self.retention_seconds))
        await self._write(found, kept)
        if kept.pruned_below > self._pruned_below:
            await self._prune(kept.pruned_below, now)

    async def _prune(self, below: int, now_time: float) -> None:
        """Drop old epochs while we lead; the log says so first, so that nobody misses them."""
        try:
            await self.journal.write(entries.pruned(self.journal.holder, below, now_time))
        except JournalUnavailable as error:
            log.warning("old epochs of the decision log stay: %s", error)
        else:
            await self._drop(below)

    async def _read(self) -> _ConfigMap | None:
        try:
            return msgspec.json.decode(
                await self.client.get(f"{self._collection}/{DECISION_LOG_NAME}"), type=_ConfigMap
            )
        except NotFound:
            return None

    async def _write(self, found: _ConfigMap | None, kept: Checkpoints) -> None:
        metadata = {"name": DECISION_LOG_NAME, "namespace": self.namespace}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "data": checkpoints.write(kept)}
        if found is None:
            await self.client.create(self._collection, {**body, "metadata": metadata})
        else:
            # Somebody's other labels stay, and of two that write at once only one wins.
            await self.client.replace(
                f"{self._collection}/{DECISION_LOG_NAME}", {**body, "metadata": {**found.metadata, **metadata}}
            )

    @property
    def _collection(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps"


def _checkpoints(found: _ConfigMap | None) -> Checkpoints:
    """What was published; nothing where that cannot be read: the log goes on, and verification will show it."""
    if found is None:
        return Checkpoints()
    try:
        return checkpoints.parse(found.data)
    except ValueError:
        log.error("ConfigMap %s holds no checkpoints: they begin anew", DECISION_LOG_NAME)
        return Checkpoints()
