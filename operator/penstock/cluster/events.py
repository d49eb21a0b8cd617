"""Kubernetes Events, posted beside the work and never in its way.

The same thing about the same object is said once in ten minutes; what comes faster than the bucket allows, or piles up
while the API server is slow, is dropped and counted. A status is the truth, an Event only the story.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp

from penstock.api.names import API_VERSION, FIELD_MANAGER
from penstock.cluster.client import KubeClient
from penstock.errors import ApiError
from penstock.metrics import Metrics

log = logging.getLogger(__name__)

SAME_AGAIN_SECONDS = 600.0
BURST = 25
PER_SECOND = 5.0
LONGEST_QUEUE = 500
LONGEST_NOTE = 1024
NAMESPACE_OF_CLUSTER_KINDS = "default"
"""Where Kubernetes keeps Events about objects that have no namespace."""

Severity = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that an Event or a status is about; `namespace` is empty for a cluster-scoped kind."""

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str = API_VERSION


@dataclass(frozen=True, slots=True)
class _Event:
    subject: Subject
    severity: Severity
    reason: str
    note: str


class Events:
    """`post()` from anywhere, at any rate; `run()` sends."""

    def __init__(
        self, client: KubeClient, metrics: Metrics, instance: str, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._instance = instance
        self._now = now
        self._queue: asyncio.Queue[_Event] = asyncio.Queue(LONGEST_QUEUE)
        self._said_at: dict[_Event, float] = {}
        self._tokens = float(BURST)
        self._filled_at = now()

    def post(self, subject: Subject, severity: Severity, reason: str, note: str) -> None:
        """Queue an Event; returns at once, and says the same only once in ten minutes."""
        event = _Event(subject, severity, reason, note[:LONGEST_NOTE])
        if self._now() - self._said_at.get(event, float("-inf")) < SAME_AGAIN_SECONDS:
            return
        if not self._take_token() or self._queue.full():
            self._metrics.events_dropped.labels("rate").inc()
            return
        self._remember(event)
        self._queue.put_nowait(event)

    async def run(self) -> None:
        """Send what is queued, one after the other, for ever."""
        while True:
            event = await self._queue.get()
            try:
                await self._client.create(_path(event.subject), self._manifest(event))
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                self._metrics.events_dropped.labels("refused").inc()
                log.info("Event %s on %s was not posted: %r", event.reason, event.subject.name, error)
            else:
                self._metrics.events_posted.labels(event.reason).inc()

    def _take_token(self) -> bool:
        now = self._now()
        self._tokens = min(self._tokens + (now - self._filled_at) * PER_SECOND, float(BURST))
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _remember(self, event: _Event) -> None:
        now = self._now()
        # Insertion order is time order, so the oldest are at the front.
        while self._said_at and now - next(iter(self._said_at.values())) >= SAME_AGAIN_SECONDS:
            del self._said_at[next(iter(self._said_at))]
        self._said_at.pop(event, None)
        self._said_at[event] = now

    def _manifest(self, event: _Event) -> dict[str, Any]:
        subject = event.subject
        regarding = {"apiVersion": subject.api_version, "kind": subject.kind, "name": subject.name, "uid": subject.uid}
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{subject.name[:200]}.{secrets.token_hex(8)}", "namespace": _namespace(subject)},
            "regarding": regarding | ({"namespace": subject.namespace} if subject.namespace else {}),
            "type": event.severity,
            "reason": event.reason,
            "action": event.reason,
            "note": event.note,
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"{FIELD_MANAGER}.dev/operator",
            "reportingInstance": self._instance[:128],
        }


def _namespace(subject: Subject) -> str:
    return subject.namespace or NAMESPACE_OF_CLUSTER_KINDS


def _path(subject: Subject) -> str:
    return f"/apis/events.k8s.io/v1/namespaces/{_namespace(subject)}/events"
