"""The capper's process: NVML in threads, two watches that say what holds, one PATCH for each change of what is."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec

from penstock.agent.access import find_access
from penstock.agent.client import GPU_NODES
from penstock.agent.pause import pause_reason
from penstock.agent.process import boot_id
from penstock.capper import orders as words
from penstock.capper.client import NODES, CapperClient, Seen
from penstock.capper.decision import Mode, Outcome
from penstock.capper.hand import Desk, Finding, Pace
from penstock.capper.node import NodeLimits
from penstock.capper.notebook import Notebook
from penstock.capper.report import CapperStatus, Reporter, changed, event
from penstock.errors import ApiError, InvalidInput
from penstock.settings import CapperSettings

logger = logging.getLogger(__name__)

LEAST_PAUSE_SECONDS = 1.0
LOOKS_SECONDS = 0.25
FAILURES = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


async def run(settings: CapperSettings) -> None:
    """Cap and report until SIGTERM or SIGINT; limits stay as they are then, for pods may still run under them.

    Raises InvalidInput for a kubeconfig or a state directory that cannot be used.
    """
    access = find_access(settings.kubeconfig, settings.context)
    leave = asyncio.Event()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stop_signal, leave.set)
    try:
        notebook = Notebook(Path(settings.state_directory))
    except OSError as error:
        remedy = f"give a directory of the node that the capper may write: {error}"
        raise InvalidInput("PENSTOCK_STATE_DIRECTORY", settings.state_directory, remedy) from error
    desk = Desk(notebook, Pace(settings.gpus_per_minute), boot_id(), settings.look_seconds)
    limits = NodeLimits(desk)
    try:
        async with CapperClient(access, settings.node_name) as client:
            await Capper(client, limits, desk, settings).run(leave)
    finally:
        limits.stop()
        logger.info("capper stopped; limits stay as they are")


class Capper:
    """Keeps the orders on the desk up to date, and publishes what the hands found."""

    def __init__(self, client: CapperClient, limits: NodeLimits, desk: Desk, settings: CapperSettings) -> None:
        self._client = client
        self._limits = limits
        self._desk = desk
        self._settings = settings
        self._gpu_node: words.GPUNode | None = None
        self._node: words.Node | None = None
        self._seen: set[str] = set()
        self._ear = words.Ear()
        self._reporter = Reporter(int(datetime.now(UTC).timestamp()), settings.heartbeat_seconds)
        self._found: tuple[Finding, ...] = ()
        self._told: tuple[Finding, ...] = ()

    async def run(self, leave: asyncio.Event) -> None:
        """Until `leave` is set. A watch or the publisher that ends otherwise ends the process."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in (self._follow_gpu_node(), self._follow_node())]
            await self._publish_changes(leave)
            for task in tasks:
                task.cancel()

    # ---------------------------------------------------------------------------------------------------- what holds

    async def _follow_gpu_node(self) -> None:
        async for seen in self._client.follow(GPU_NODES):
            self._gpu_node = msgspec.json.decode(seen.raw, type=words.GPUNode) if seen.raw else None
            self._hear(seen)
            self._give_orders("GPUNode")

    async def _follow_node(self) -> None:
        async for seen in self._client.follow(NODES):
            self._node = msgspec.json.decode(seen.raw, type=words.Node) if seen.raw else None
            self._give_orders("Node")

    def _hear(self, seen: Seen) -> None:
        spec = self._gpu_node.spec if self._gpu_node else None
        self._ear.hear(spec.caps_at if spec else None, time.monotonic(), seen.server_time)

    def _give_orders(self, news: str) -> None:
        """Nothing is touched before both objects were seen: the kill switch is on one, the caps are in the other."""
        self._seen.add(news)
        if len(self._seen) == 1:
            return
        heard = self._ear.hears(time.monotonic())
        self._desk.orders = words.orders(self._gpu_node, self._node, Mode(self._settings.mode), heard=heard)
        self._limits.pause(pause_reason(self._node.metadata.labels) if self._node else "")
        if self._limits.ident is None:
            self._limits.start()

    # ----------------------------------------------------------------------------------------------- what became of it

    async def _publish_changes(self, leave: asyncio.Event) -> None:
        last: CapperStatus | None = None
        sent_at = 0.0
        while not leave.is_set():
            now = time.monotonic()
            if self._desk.orders is not None and self._gpu_node is not None:
                self._give_orders("time")  # That the operator fell silent is no news that anything would bring.
                status = self._compose(now)
                quiet_seconds = now - sent_at
                due = quiet_seconds >= self._settings.heartbeat_seconds
                if quiet_seconds >= LEAST_PAUSE_SECONDS and (due or not _same(last, status)):
                    last = await self._publish(status) or last
                    sent_at = now
            await _pause(leave, LOOKS_SECONDS)

    def _compose(self, now: float) -> CapperStatus:
        orders = self._desk.orders
        mode = orders.otherwise.mode if orders else Mode(self._settings.mode)
        found = self._limits.findings(now)
        here = {one.uuid for one in found}
        absent = (
            Finding(
                uuid, now, Outcome.REFUSED, "NoSuchGPU", "NVML finds no such GPU on this node",
                order.ask.watts if order.ask else None,
            )
            for uuid, order in (orders.by_uuid.items() if orders and not self._limits.fault else ())
            if uuid not in here
        )  # fmt: skip
        self._found = (*found, *absent)
        return self._reporter.compose(mode, self._found, self._message(mode), datetime.now(UTC))

    def _message(self, mode: Mode) -> str:
        if self._limits.fault:
            return self._limits.fault
        if mode is Mode.OFF:
            return "the node's label penstock.dev/capper is off: nothing is set, and what was set is given back once"
        if mode is Mode.OBSERVE:
            return "capper.mode is Observe: nothing is set"
        if not self._ear.hears(time.monotonic()):
            return f"no word of the operator for {words.SILENT_SECONDS:g} s: limits stay, and none is raised"
        return ""

    async def _publish(self, status: CapperStatus) -> CapperStatus | None:
        """One PATCH and its Events; None where it failed and is tried again with the next look."""
        self._reporter.sequence += 1
        found = self._found
        try:
            await self._client.publish(msgspec.structs.replace(status, sequence=self._reporter.sequence))
            await self._post_events(found)
        except FAILURES as error:
            logger.warning("publishing failed; trying again", extra={"why": f"{type(error).__name__}: {error}"})
            return None
        return status

    async def _post_events(self, found: tuple[Finding, ...]) -> None:
        news, self._told = changed(self._told, found), found
        for finding in news:
            if self._gpu_node is not None:
                document = event(finding, self._gpu_node.metadata, datetime.now(UTC), self._settings.node_name)
                await self._client.post_event(document)


def _same(last: CapperStatus | None, now: CapperStatus) -> bool:
    return last is not None and msgspec.structs.replace(last, sequence=now.sequence) == now


async def _pause(leave: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(leave.wait(), seconds)
