"""Labels and the condition `GPUPowerDegraded` on Nodes: written when they change, at a pace, else left alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import msgspec

from penstock.api.names import FIELD_MANAGER, POWER_DEGRADED_CONDITION
from penstock.cluster.client import MERGE_PATCH, STRATEGIC_PATCH, KubeClient
from penstock.cluster.events import Events, Severity, Subject
from penstock.control.acts import Spawn
from penstock.core import manifests, nodelabels
from penstock.core.manifests import Manifest
from penstock.core.model import Mark, Node
from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.row import Row
from penstock.core.telling.figures import rfc3339
from penstock.errors import ApiError

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
ROWS_AT_ONCE = 200
"""Nodes that are looked at in one turn, so that a turn stays short however many there are."""
WRITE_PAUSE_SECONDS = 5.0
"""Between two writes to one node: a cap that is raised step by step is not worth a write each."""
MOST_AT_ONCE = 4
"""Nodes that are written to at the same time: a new fleet is labelled beside the work, not before it."""
NODE_MANAGER = f"{FIELD_MANAGER}-nodes"


@dataclass
class NodeLabels:
    """Keeps each Node in line with what its GPUs report.

    A condition has to be so for `hold_seconds` before it is written, either way. `lost_seconds` is how long an agent
    may be silent before that is a condition.
    """

    client: KubeClient
    events: Events
    spawn: Spawn
    hold_seconds: float
    lost_seconds: float
    _looked_at: float = float("-inf")
    _next_row: int = 0
    _settled: dict[str, Row] = field(default_factory=dict)
    _turning: dict[str, tuple[Mark | None, float]] = field(default_factory=dict)
    """The condition that a node ought to have and has not, and since when."""
    _busy: set[str] = field(default_factory=set)
    _next_at: dict[str, float] = field(default_factory=dict)

    def keep(self, fleet: Fleet, now_at: float, now_time: float) -> None:
        """Write what differs. Rows that are as they were when nothing differed are not looked at again."""
        if now_at - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now_at
        for memory in (self._settled, self._turning):
            for name in memory.keys() - fleet.position.keys():
                del memory[name]
        self._next_at = {name: at for name, at in self._next_at.items() if at > now_at}
        first = self._next_row if self._next_row < len(fleet.rows) else 0
        self._next_row = first + ROWS_AT_ONCE
        for row in fleet.rows[first : self._next_row]:
            name = row.view.node.name
            if len(self._busy) >= MOST_AT_ONCE:
                return
            if self._settled.get(name) is row or name in self._busy or name in self._next_at:
                continue
            self._keep_one(row, now_at, now_time)

    def _keep_one(self, row: Row, now_at: float, now_time: float) -> None:
        node, telemetry = row.view.node, row.view.telemetry
        labels = nodelabels.label_changes(node, telemetry, row.evidence)
        mark = nodelabels.power_degraded(
            node,
            telemetry,
            row.evidence,
            silent_seconds=now_at - telemetry.heard_at if telemetry else 0.0,
            lost_seconds=self.lost_seconds,
        )
        turned = self._has_turned(node, mark, now_at)
        if labels or turned:
            self._busy.add(node.name)
            self._next_at[node.name] = now_at + WRITE_PAUSE_SECONDS
            self.spawn(self._write(node, labels, (mark,) if turned else (), rfc3339(now_time)))
        elif mark == node.power_degraded and (telemetry is None or row.evidence is Evidence.FRESH):
            # Silence alone turns into a condition, so a silent node is looked at again.
            self._settled[node.name] = row

    def _has_turned(self, node: Node, mark: Mark | None, now_at: float) -> bool:
        if mark == node.power_degraded:
            self._turning.pop(node.name, None)
            return False
        wanted, since_at = self._turning.get(node.name, (mark, now_at))
        if wanted != mark:
            since_at = now_at
        self._turning[node.name] = (mark, since_at)
        return now_at - since_at >= self.hold_seconds

    async def _write(
        self, node: Node, labels: Mapping[str, str | None], mark: tuple[Mark | None, ...], now: str
    ) -> None:
        path = f"/api/v1/nodes/{node.name}"
        try:
            if labels:
                await self._patch(path, manifests.node_labels_patch(node, labels), MERGE_PATCH)
            for one in mark:
                body = manifests.node_condition_patch(node, POWER_DEGRADED_CONDITION, one, now)
                await self._patch(f"{path}/status", body, STRATEGIC_PATCH)
                self._tell(node, one)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("what node %s says of its GPUs is not written: %s", node.name, error)
        finally:
            self._busy.discard(node.name)

    async def _patch(self, path: str, body: Manifest, content_type: str) -> None:
        await self.client.patch(path, msgspec.json.encode(body), content_type, {"fieldManager": NODE_MANAGER})

    def _tell(self, node: Node, mark: Mark | None) -> None:
        if mark is not None:
            severity: Severity = "Warning" if mark.holds else "Normal"
            self.events.post(Subject("Node", "", node.name, node.uid, "v1"), severity, mark.reason, mark.message)
