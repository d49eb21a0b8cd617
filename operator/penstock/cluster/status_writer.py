"""Statuses, written beside the work: the first at once, later ones at a bounded rate, always the latest.

Server-side apply with a field manager of its own: the status is whole each time, so what is left out disappears. The
object's uid goes along, so a status never lands on a newer object of the same name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp

from penstock.api import skew
from penstock.api.inferencepool import InferencePool
from penstock.api.jurisdictiongroup import JurisdictionGroup
from penstock.api.names import FIELD_MANAGER, GROUP, VERSION
from penstock.api.powerdomain import PowerDomain
from penstock.api.residencyexception import ResidencyException
from penstock.api.residencypolicy import ResidencyPolicy
from penstock.cluster.client import KubeClient
from penstock.cluster.events import Subject
from penstock.errors import ApiError, Conflict, NotFound, Undeclared
from penstock.metrics import Metrics

log = logging.getLogger(__name__)

STATUS_MANAGER = f"{FIELD_MANAGER}-status"
RETRY_SECONDS = 2.0
OLDER_SECONDS = 30.0
"""A status that the cluster's CRD does not know yet is tried again so often: somebody may apply a newer one."""

Status = Mapping[str, Any]
_KINDS = (InferencePool, PowerDomain, ResidencyPolicy, JurisdictionGroup, ResidencyException)
_PLURALS = {one.definition.kind: one.definition.plural for one in _KINDS}


class StatusWriter:
    """`put()` the latest status of an object as often as you like; `run()` writes."""

    def __init__(self, client: KubeClient, metrics: Metrics, writes_per_second: float) -> None:
        self._client = client
        self._metrics = metrics
        self._pause_seconds = 1.0 / writes_per_second
        self._pending: dict[Subject, Status] = {}
        self._busy: set[Subject] = set()
        self._undeclared: set[tuple[str, str]] = set()
        """What the cluster's CRD is too old for, by kind."""
        self._wake = asyncio.Event()

    def put(self, subject: Subject, status: Status) -> None:
        """Have `status` written as the object's whole status; one that still waits to be written is replaced."""
        self._pending[subject] = status
        self._wake.set()

    async def run(self) -> None:
        """Write what changes, each object in its own task, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for subject in self._pending.keys() - self._busy:
                    self._busy.add(subject)
                    group.create_task(self._write_all(subject))

    async def _write_all(self, subject: Subject) -> None:
        """Write an object's status until nothing newer came during the pause after the last write."""
        while subject in self._pending:
            pause_seconds = await self._write(subject, self._pending.pop(subject))
            await asyncio.sleep(pause_seconds)
        self._busy.discard(subject)

    async def _write(self, subject: Subject, status: Status) -> float:
        """One write; returns the pause before the next."""
        try:
            await self._client.apply(_path(subject), _manifest(subject, status), field_manager=STATUS_MANAGER)
        except (NotFound, Conflict):
            log.info("%s %s ended before its status was written", subject.kind, subject.name)
        except Undeclared as error:
            self._tell_older(subject.kind, error)
            self._pending.setdefault(subject, status)
            return max(OLDER_SECONDS, self._pause_seconds)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("status of %s %s/%s: %r", subject.kind, subject.namespace, subject.name, error)
            if not _is_final(error):
                self._pending.setdefault(subject, status)
                return max(RETRY_SECONDS, self._pause_seconds)
        else:
            self._metrics.status_writes.labels(subject.kind).inc()
        return self._pause_seconds

    def _tell_older(self, kind: str, error: Undeclared) -> None:
        """Of all statuses that are refused for a field, or a value of it, only the first says so."""
        news = [name for name in skew.undeclared(error.message) if (kind, name) not in self._undeclared]
        if news:
            self._undeclared.update((kind, name) for name in news)
            log.error("no status is written: %s", skew.told(_PLURALS[kind], news))


def _is_final(error: Exception) -> bool:
    """A status that the API server finds wrong stays wrong; anything else may pass."""
    return isinstance(error, ApiError) and error.status in {400, 422}


def _manifest(subject: Subject, status: Status) -> dict[str, Any]:
    metadata = {"name": subject.name, "uid": subject.uid}
    if subject.namespace:
        metadata["namespace"] = subject.namespace
    return {"apiVersion": subject.api_version, "kind": subject.kind, "metadata": metadata, "status": status}


def _path(subject: Subject) -> str:
    place = f"namespaces/{subject.namespace}/" if subject.namespace else ""
    return f"/apis/{GROUP}/{VERSION}/{place}{_PLURALS[subject.kind]}/{subject.name}/status"
