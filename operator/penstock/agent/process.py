"""The agent's process: NVML in threads, one loop that decides when to publish, one PATCH per publish."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, RetryError, retry_if_exception_type, wait_exponential, wait_random

from penstock.agent.access import find_access
from penstock.agent.client import GPUNodeClient
from penstock.agent.events import XidLog
from penstock.agent.health import Xid
from penstock.agent.holders import Holders
from penstock.agent.node import NodeGpus
from penstock.agent.pause import PauseWatch
from penstock.agent.podresources import PodResources
from penstock.agent.processes import HostPods
from penstock.agent.publish import heartbeat_due_seconds, publish_reason
from penstock.agent.report import GPUNodeStatus, encode
from penstock.agent.reporter import Reporter
from penstock.errors import ApiError, TooManyRequests
from penstock.settings import AgentSettings

logger = logging.getLogger(__name__)

_FAILURES = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


async def run(settings: AgentSettings) -> None:
    """Sample and publish until SIGTERM or SIGINT. Raises InvalidInput for a kubeconfig that cannot be used."""
    access = find_access(settings.kubeconfig, settings.context)
    leave = asyncio.Event()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stop_signal, leave.set)
    alarm = asyncio.Event()
    gpus = NodeGpus(settings.sample_seconds, _from_threads(alarm))
    resources = PodResources(settings.pod_resources) if settings.pod_resources else None
    holders = Holders(resources, gpus.owned_by, HostPods(settings.host) if settings.host else None)
    reporter = Reporter(gpus, settings.heartbeat_seconds, boot_id(), datetime.now(UTC), holders)
    try:
        async with GPUNodeClient(access, settings.node_name) as client:
            pause = PauseWatch(client, gpus, settings.heartbeat_seconds, lambda: _recall(client, gpus.xids))
            async with _beside(pause.run(), *([resources.run()] if resources else [])):
                await Publisher(client, reporter, settings).run(leave, alarm)
    finally:
        gpus.stop()
        logger.info("agent stopped")


async def _recall(client: GPUNodeClient, xids: XidLog) -> None:
    """An error counts until its GPU is reset, not until the agent is restarted. A boot resets every GPU.

    The energy counter alone would not tell: of a GPU that was lost the last report has none.
    """
    for gpu in await client.reported_gpus(boot_id()):
        xids.recall(gpu.uuid, [Xid(xid.code, xid.at) for xid in gpu.xid_errors or ()], gpu.energy_joules)


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do this for as long as the block lasts; an error in it ends the process as any other does."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        yield
        for task in tasks:
            task.cancel()


def _from_threads(event: asyncio.Event) -> Callable[[], None]:
    """Sets the event from any thread; does nothing once the loop is closed."""
    loop = asyncio.get_running_loop()

    def stir() -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)

    return stir


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Publisher:
    """Looks at the latest report once per sample, and when alarmed; publishes it when there is a reason to.

    A publish that fails is tried again after `first_pause_seconds`, then twice as long up to a heartbeat, or after what
    the server asks for.
    """

    def __init__(
        self, client: GPUNodeClient, reporter: Reporter, settings: AgentSettings, first_pause_seconds: float = 1.0
    ) -> None:
        self._client = client
        self._reporter = reporter
        self._settings = settings
        self.look_seconds = settings.sample_seconds
        self._backoff = wait_exponential(first_pause_seconds, max=settings.heartbeat_seconds) + wait_random(
            0, first_pause_seconds
        )

    async def run(self, leave: asyncio.Event, alarm: asyncio.Event) -> None:
        """Until told to leave."""
        last: GPUNodeStatus | None = None
        sent_at, due_seconds = 0.0, 0.0
        while not leave.is_set():
            alarm.clear()
            status = self._reporter.compose(datetime.now(UTC), time.monotonic())
            if status and publish_reason(last, status, time.monotonic() - sent_at, due_seconds):
                last = await self._publish(leave) or last
                sent_at = time.monotonic()
                due_seconds = heartbeat_due_seconds(self._settings.heartbeat_seconds, random.random())  # noqa: S311
            await _pause(self.look_seconds, leave, alarm)

    async def _publish(self, leave: asyncio.Event) -> GPUNodeStatus | None:
        """One PATCH, tried until it is accepted, each time with the newest report; None when told to leave first."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_FAILURES),
            wait=self._wait,
            stop=lambda _: leave.is_set(),
            sleep=lambda seconds: _pause(seconds, leave),
            before_sleep=_tell,
        )
        with suppress(RetryError):
            return await retrying(self._send_newest)
        return None

    async def _send_newest(self) -> GPUNodeStatus | None:
        status = self._reporter.next(datetime.now(UTC), time.monotonic())
        if status is not None:
            await self._client.publish(encode(status))
        return status

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_seconds = error.retry_after_seconds if isinstance(error, TooManyRequests) else 0.0
        return max(asked_seconds, self._backoff(state))


async def _pause(seconds: float, *events: asyncio.Event) -> None:
    """Sleep, but wake at once when one of the events comes."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning(
        "publishing failed; trying again",
        extra={
            "why": f"{type(error).__name__}: {error}",
            "attempt": state.attempt_number,
            "in_s": state.upcoming_sleep,
        },
    )
