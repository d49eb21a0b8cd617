"""Kopf as a guest in our process: standalone, silent, with our access, and without our signals."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import kopf

from penstock.api.names import GROUP
from penstock.cluster.access import Access
from penstock.cluster.state import ClusterState
from penstock.errors import StreamBroken
from penstock.handlers.written import register


async def watch_written_kinds(access: Access, state: ClusterState, take_signals: Callable[[], None]) -> None:
    """Feed `state` for ever. Raises StreamBroken when Kopf ends, as it does on an error inside a watch.

    Kopf takes SIGTERM and SIGINT for itself when it starts; `take_signals` takes them back. When it ends, it cancels
    every task that was born after it: it must be the last to start and the last to be stopped.
    """
    registry = kopf.OperatorRegistry()
    register(registry, state)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=access.url, aiohttp_session=access.session())

    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # it tells of every single event
    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(registry=registry, settings=_settings(), standalone=True, clusterwide=True)
    take_signals()
    await kopf.run_tasks(tasks, ignored=ours)
    raise StreamBroken("Kopf no longer watches the kinds that people write")


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    # Scanning stays on: a kind that is not served yet when Kopf looks would otherwise never be watched (tried).
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.networking.request_timeout = 15
    settings.process.ultimate_exiting_timeout = 20
    # Never written with `on.event` alone; named, so that a later handler cannot write under a foreign name.
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    return settings
