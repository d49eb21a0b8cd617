"""`penstock release --caps`: nothing is asked of the cappers any more, and each gives back what was there before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from penstock.api.meta import rfc3339
from penstock.api.names import GROUP, VERSION
from penstock.cluster import wire_gpunode as wire
from penstock.cluster.client import MERGE_PATCH, KubeClient
from penstock.cluster.listing import Unread, readable
from penstock.cluster.parse.telemetry import decode_gpu_node
from penstock.control.commands.release import Answer, Line, refuse_while_led, set_aside
from penstock.control.commands.session import Target, connect
from penstock.errors import ApiError, Forbidden, NotFound

GPU_NODES = f"/apis/{GROUP}/{VERSION}/gpunodes"
AFTERWARDS = "An operator that starts again asks for limits again; set capper.enabled to false to keep it from that."
LOOK_SECONDS = 1.0
SPEAK_AGAIN_SECONDS = 30.0
"""A capper takes us for silent after 120 s, and raises nothing then."""


@dataclass
class _Release:
    """One node that we have spoken to. `sequence` is its capper's when we did: only a later word is an answer."""

    name: str
    sequence: int
    spoken_at: float


async def release_caps(target: Target, namespace: str, *, wait_seconds: float, force: bool) -> Answer:
    """Take every ask back and wait until each capper says that nothing of its own is left.

    Exit code 1 when something is. Raises PenstockError while an operator leads, unless forced: it would ask again.
    """
    lines: dict[str, list[Line]] = {}
    waiting: dict[str, _Release] = {}
    async with connect(target) as client:
        if not force:
            await refuse_while_led(client, namespace)
        until = time.monotonic() + wait_seconds
        while True:
            aside: list[Unread] = []
            async for node in _gpu_nodes(client, aside):
                await _look_at(client, node, waiting, lines)
            if not waiting or time.monotonic() >= until:
                break
            await asyncio.sleep(LOOK_SECONDS)
    told = [line for _, each in sorted(lines.items()) for line in each] + set_aside(aside)
    return Answer(tuple(told), 1 if any(not line.done for line in told) else 0)


async def _gpu_nodes(client: KubeClient, aside: list[Unread]) -> AsyncIterator[wire.GpuNode]:
    async for page in client.list_pages(GPU_NODES):
        for node in readable("gpunode", page, decode_gpu_node, aside):
            yield node


async def _look_at(
    client: KubeClient, node: wire.GpuNode, waiting: dict[str, _Release], lines: dict[str, list[Line]]
) -> None:
    name, now = node.metadata.name, time.monotonic()
    known = waiting.get(name)
    if known is None and not is_capped(node):
        return
    if known is None or now - known.spoken_at > SPEAK_AGAIN_SECONDS:
        refused = await _take_back(client, name)
        if refused:
            lines[name] = [Line(f"gpunode/{name}", refused, done=False)]
            return
        known = waiting[name] = _Release(name, known.sequence if known else _sequence(node), now)
    lines[name] = _told(node, answered=_sequence(node) > known.sequence)
    if all(line.done for line in lines[name]):
        del waiting[name]


async def _take_back(client: KubeClient, name: str) -> str:
    """Empty when nothing is asked of the node any more, else why not."""
    spec = {"caps": [], "capsFence": "", "capsAt": rfc3339(datetime.now(UTC)), "capsUrgent": False}
    try:
        await client.patch(f"{GPU_NODES}/{name}", msgspec.json.encode({"spec": spec}), MERGE_PATCH)
    except NotFound:
        return ""
    except Forbidden as refused:
        return f"refused: {refused.message}; are you a member of the break-glass group?"
    except ApiError as refused:
        return str(refused)
    return ""


def _told(node: wire.GpuNode, *, answered: bool) -> list[Line]:
    title = f"gpunode/{node.metadata.name}"
    capper = node.status.capper if node.status else None
    if capper is None:
        return [Line(title, "nothing is asked of it any more; no capper has ever spoken there", done=True)]
    if not answered:
        remedy = "start it again (capper.enabled), or set each limit with nvidia-smi -pl"
        return [Line(title, f"its capper does not answer: {remedy}", done=False)]
    left = [one for one in capper.gpus or () if one.baselineWatts is not None]
    if not left:
        return [Line(title, "every limit is what it was before the first cap", done=True)]
    return [
        Line(f"{title} {one.uuid}", f"{one.baselineWatts:g} W to be given back: {one.outcome} {one.reason}", done=False)
        for one in left
    ]


def is_capped(node: wire.GpuNode) -> bool:
    """Whether power limits are asked for on a node, or not given back yet."""
    capper = node.status.capper if node.status else None
    standing = any(one.baselineWatts is not None for one in (capper.gpus if capper and capper.gpus else ()))
    return standing or bool(node.spec and node.spec.caps)


def _sequence(node: wire.GpuNode) -> int:
    capper = node.status.capper if node.status else None
    return capper.sequence if capper else 0
