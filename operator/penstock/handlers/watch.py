"""Kopf as a guest in our process: standalone, silent, with our access, in a thread and an event loop of its own.

In our own loop it would take the process' signals, cancel every task that was born after it when it ends (writes under
way included), and kill the process some time after it was cancelled. It does none of that from a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import kopf

from penstock.api.names import GROUP
from penstock.cluster.access import Access
from penstock.cluster.informer import QUIET_SECONDS
from penstock.cluster.state import ClusterState
from penstock.errors import StreamBroken
from penstock.handlers.written import register


async def watch_written_kinds(access: Access, state: ClusterState, quiet_seconds: float = QUIET_SECONDS) -> None:
    """Feed `state` for ever; a watch that says nothing for `quiet_seconds` is begun anew.

    Raises StreamBroken when Kopf ends, as it does on an error inside a watch.
    """
    settings = _settings(quiet_seconds)
    registry = kopf.OperatorRegistry()
    register(registry, state, asyncio.get_running_loop().call_soon_threadsafe)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=access.url, aiohttp_session=access.session())

    host, stop = asyncio.get_running_loop(), threading.Event()
    ended: asyncio.Future[BaseException | None] = host.create_future()

    def tell(error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the host's loop may be closed by now
            host.call_soon_threadsafe(_settle, ended, error)

    # A daemon: Kopf may not heed its stop flag while it retries a request, and the process must end all the same.
    guest = threading.Thread(target=_live, args=(_run(registry, settings, stop, tell), tell), name="kopf", daemon=True)
    guest.start()
    try:
        error = await ended
    finally:
        stop.set()
    raise StreamBroken(f"Kopf no longer watches the kinds that people write: {error or 'it ended'}") from error


Tell = Callable[[BaseException | None], None]
"""Tells the host that Kopf has ended, and by what error."""


def _settle(ended: asyncio.Future[BaseException | None], error: BaseException | None) -> None:
    if not ended.done():
        ended.set_result(error)


def _live(work: Coroutine[Any, Any, None], tell: Tell) -> None:
    """Run Kopf in this thread."""
    try:
        asyncio.run(work)
    except BaseException as error:  # noqa: BLE001  whatever ended it, the host must hear of it
        tell(error)
    else:
        tell(None)


async def _run(
    registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, stop: threading.Event, tell: Tell
) -> None:
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # it tells of every single event
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it warns that the signals are ours
    tasks = await kopf.spawn_tasks(
        registry=registry, settings=settings, standalone=True, clusterwide=True, stop_flag=stop
    )
    # Its root tasks never end in health. Told before the others are ended, which may wait for an answer for ever.
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    tell(next((error for task in done if not task.cancelled() and (error := task.exception())), None))


def _settings(quiet_seconds: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    # Scanning stays on: a kind that is not served yet when Kopf looks would otherwise never be watched (tried).
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = quiet_seconds
    settings.watching.server_timeout = 300
    settings.networking.request_timeout = 15
    settings.process.ultimate_exiting_timeout = None
    # Never written with `on.event` alone; named, so that a later handler cannot write under a foreign name.
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    return settings
