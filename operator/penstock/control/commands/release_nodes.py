"""`penstock release --nodes`: labels, the condition and the GPUNodes come off; `--check`: what is left, wherever."""

from __future__ import annotations

import contextlib

from penstock.cluster import wire_gpunode as wire
from penstock.cluster.client import KubeClient
from penstock.cluster.listing import Unread, list_nodes, readable
from penstock.cluster.parse.telemetry import age_seconds, decode_gpu_node
from penstock.control.commands.release import (
    Answer,
    Line,
    at_once,
    observe,
    of_others,
    refuse_while_led,
    set_aside,
    to_do,
)
from penstock.control.commands.release_caps import GPU_NODES, is_capped
from penstock.control.commands.session import Target, connect
from penstock.core.offramp import Errand, plan
from penstock.core.offramp_nodes import Report, clear_nodes, summary
from penstock.core.placement.evidence import HEARTBEATS_UNTIL_STALE
from penstock.errors import NotFound

AFTERWARDS = "An operator that starts again writes labels and condition again, and an agent its GPUNode."


async def check(target: Target) -> Answer:
    """What still waits, what still carries the gate, and what is left on nodes. Exit code 1 when there is anything."""
    async with connect(target) as client:
        aside: list[Unread] = []
        left = plan(await observe(client, aside))
        on_nodes = [Line("nodes", told, done=False) for told in summary(await observe_nodes(client, aside))]
    lines = (*to_do(left.errands), *of_others(left), *on_nodes, *set_aside(aside))
    return Answer(lines, 1 if lines else 0)


async def release_nodes(target: Target, namespace: str, *, force: bool) -> Answer:
    """Take labels, the condition and the GPUNodes off. Exit code 1 when something of ours is left.

    Raises PenstockError while an operator leads, unless forced: it would write them again.
    """
    async with connect(target) as client:
        if not force:
            await refuse_while_led(client, namespace)
        done = await at_once(client, await observe_nodes(client, []))
        aside: list[Unread] = []
        left = await observe_nodes(client, aside)
    failed = {line.object for line in done if not line.done}
    lines = (*done, *to_do([errand for errand in left if errand.title not in failed]), *set_aside(aside))
    return Answer(lines, 1 if left or aside else 0)


async def observe_nodes(client: KubeClient, aside: list[Unread]) -> tuple[Errand, ...]:
    """Read the nodes and their GPUNodes, and plan what takes everything of ours off; what cannot be read goes aside."""
    nodes = await list_nodes(client, aside)
    reports: list[Report] = []
    # Without the kind there are none: `crds.keep: false` took them along.
    with contextlib.suppress(NotFound):
        async for page in client.list_pages(GPU_NODES):
            found = readable("gpunode", page, decode_gpu_node, aside)
            reports += [_report(one, page.server_time) for one in found]
    return clear_nodes(nodes, reports)


def _report(seen: wire.GpuNode, server_time: float) -> Report:
    quiet_seconds = age_seconds(seen, server_time)
    heartbeat_seconds = seen.status.heartbeatSeconds if seen.status else 0.0
    speaks = quiet_seconds is not None and quiet_seconds <= HEARTBEATS_UNTIL_STALE * heartbeat_seconds
    return Report(seen.metadata.name, seen.metadata.uid, capped=is_capped(seen), speaks=speaks)
