"""The GPU Operator's pause: while it upgrades the driver or changes MIG, nobody may hold a device open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import aiohttp

from penstock.errors import ApiError, Forbidden, NotFound

logger = logging.getLogger(__name__)

LABEL_PREFIX = "nvidia.com/gpu.deploy."
PAUSED_PREFIX = "paused-for"
"""`paused-for-driver-upgrade` and `paused-for-mig-change` today."""
_UNANSWERED = (ApiError, aiohttp.ClientError, TimeoutError, OSError)
_FIRST_PAUSE_SECONDS = 1.0


class LabelledNode(Protocol):
    async def node_labels(self) -> Mapping[str, str]: ...


class PausableGpus(Protocol):
    def start(self) -> None: ...

    def pause(self, why: str) -> None: ...

    def resume(self) -> None: ...


def pause_reason(labels: Mapping[str, str]) -> str:
    """Which label asks for the devices; empty where none does."""
    for label, value in sorted(labels.items()):
        if label.startswith(LABEL_PREFIX) and value.startswith(PAUSED_PREFIX):
            return f"the GPU Operator asks for the devices ({label}={value})"
    return ""


class PauseWatch:
    """Looks at the node's labels at each heartbeat, and before the GPUs are opened for the first time.

    Without an answer the last one holds; without the right to ask, nothing is ever paused. `before_start` is done once,
    before the GPUs are started.
    """

    def __init__(
        self,
        node: LabelledNode,
        gpus: PausableGpus,
        heartbeat_seconds: float,
        before_start: Callable[[], Awaitable[None]],
    ) -> None:
        self._node = node
        self._gpus = gpus
        self._heartbeat_seconds = heartbeat_seconds
        self._before_start = before_start
        self._started = False
        self._allowed = True

    async def run(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            await self.look()
            await asyncio.sleep(self._heartbeat_seconds if self._started else pause_seconds)
            pause_seconds = min(2 * pause_seconds, self._heartbeat_seconds)

    async def look(self) -> None:
        """Ask once, and act on the answer."""
        labels = await self._labels()
        if labels is None:
            return
        why = pause_reason(labels)
        if why:
            self._gpus.pause(why)
        else:
            self._gpus.resume()
        if not self._started:
            await self._start()

    async def _start(self) -> None:
        try:
            await self._before_start()
        except _UNANSWERED as error:
            logger.warning("not started yet", extra={"why": f"{type(error).__name__}: {error}"})
            return
        self._gpus.start()
        self._started = True

    async def _labels(self) -> Mapping[str, str] | None:
        try:
            return await self._node.node_labels()
        except NotFound:
            return {}
        except Forbidden as error:
            self._tell_once(error)
            return {}
        except _UNANSWERED as error:
            logger.warning("the node's labels cannot be read", extra={"why": f"{type(error).__name__}: {error}"})
            return None

    def _tell_once(self, error: Forbidden) -> None:
        if self._allowed:
            logger.warning(
                "the node's labels may not be read, so a driver upgrade is not noticed; allow `get` on nodes",
                extra={"why": str(error)},
            )
        self._allowed = False
