"""What was heard last of each node's GPUs, and whose a GPU is that two nodes report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from penstock.cluster import wire_gpunode as wire
from penstock.cluster.parse.news import is_news
from penstock.cluster.parse.telemetry import Heard, hear
from penstock.core.model import Telemetry


class Reports:
    """The last report of each node, by its name, as `telemetry`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.telemetry: dict[str, Telemetry] = {}
        self._now = now
        self._heard: dict[str, Heard] = {}
        self._node_of: dict[str, str] = {}
        """GPU UUID → the node whose report had it first."""

    def put(self, seen: wire.GpuNode, age_seconds: float | None, doubt: str = "") -> bool:
        """Take in a report, `age_seconds` old; whether a decision may turn on it, which none does on a mere heartbeat.

        `doubt` says what in it cannot be true, if anything.
        """
        name = seen.metadata.name
        before = self._heard.get(name)
        heard = hear(seen, before, self._now(), age_seconds)
        if doubt := doubt or self._whose(name, before, heard):
            heard = _contradicted(heard, doubt)
        self._keep(name, heard)
        return before is None or is_news(before.telemetry, heard.telemetry)

    def doubt(self, name: str, why: str) -> None:
        """A report that cannot be read. What was heard before is no more than stale; nothing before is no report."""
        if known := self._heard.get(name):
            self._keep(name, _contradicted(known, why))
        else:
            self.put(wire.GpuNode(wire.WrittenMetadata(name)), math.inf, why)

    def drop(self, name: str) -> bool:
        """Forget what was heard of a node; whether anything was."""
        self._heard.pop(name, None)
        self._node_of = {uuid: node for uuid, node in self._node_of.items() if node != name}
        return self.telemetry.pop(name, None) is not None

    def _keep(self, name: str, heard: Heard) -> None:
        self._heard[name] = heard
        self.telemetry[name] = heard.telemetry

    def _whose(self, name: str, before: Heard | None, heard: Heard) -> str:
        """Whose GPUs a report speaks of; in words, if one of them is another node's.

        The node that had it first keeps it: who copies a report taints himself, not the one whose report it was.
        After a start that is the one listed first.
        """
        own = {gpu.uuid for gpu in heard.telemetry.gpus}
        for gpu in before.telemetry.gpus if before else ():
            if gpu.uuid not in own and self._node_of.get(gpu.uuid) == name:
                del self._node_of[gpu.uuid]
        for gpu in heard.telemetry.gpus:
            if (owner := self._node_of.setdefault(gpu.uuid, name)) != name:
                told = f"{gpu.uuid} is node {owner}'s; delete the GPUNode of the one that has it no more"
                return f"GPU {gpu.index}: {told}"
        return ""


def _contradicted(heard: Heard, why: str) -> Heard:
    return replace(heard, telemetry=replace(heard.telemetry, contradiction=why))
