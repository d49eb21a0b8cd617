"""Writes to Nodes: only on a change, after it stood for a while, at a pace, and never twice at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import builders as a
from penstock.control.nodelabels import MOST_AT_ONCE, ROWS_AT_ONCE, WRITE_PAUSE_SECONDS, NodeLabels
from penstock.core.model import GpuHealth, Mark, Node

LIMITED = a.gpu(0, minimum_watts=200.0, default_watts=700.0)
LABELS = {f"penstock.dev/gpu.power.limit.{name}": "700" for name in ("max", "default", "enforced")}
LABELLED = {**LABELS, "penstock.dev/gpu.power.limit.min": "200"}
LOST = a.gpu(0, minimum_watts=200.0, default_watts=700.0, health=GpuHealth.LOST)


@dataclass
class Desk:
    """A writer whose requests are noted; `answers` lets them go through."""

    writes: list[tuple[str, Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    acts: list[Coroutine[Any, Any, None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        desk: Any = self
        self.labels = NodeLabels(desk, desk, self.acts.append, hold_seconds=10.0, lost_seconds=300.0)

    async def patch(self, path: str, body: bytes, *_: object) -> None:
        self.writes.append((path, json.loads(body)))

    def post(self, subject: Any, severity: str, reason: str, _: str) -> None:
        self.told.append(f"{severity} {reason} {subject.name}")

    def turn(self, now_at: float, *nodes: Node, gpu: Any = LIMITED, answered: bool = True) -> list[str]:
        """One turn; the paths that were written to."""
        before = len(self.writes)
        reports = [a.telemetry(one.name, [gpu], heard_at=now_at) for one in nodes]
        self.labels.keep(a.fleet(*nodes, telemetries=reports, now_at=now_at), now_at, now_at)
        if answered:
            while self.acts:
                asyncio.run(self.acts.pop(0))
        return [path for path, _ in self.writes[before:]]

    def close(self) -> None:
        for one in self.acts:
            one.close()


NODE = a.node("n1", gpus=1)
SETTLED = a.node("n1", gpus=1, labels=LABELLED)


def test_labels_are_one_patch_and_none_once_they_are_there() -> None:
    desk = Desk()
    assert desk.turn(1000.0, NODE) == ["/api/v1/nodes/n1"]
    assert desk.writes[0][1]["metadata"]["labels"] == LABELLED
    assert desk.turn(1100.0, SETTLED) == []


def test_two_writes_to_one_node_keep_their_distance() -> None:
    desk = Desk()
    desk.turn(1000.0, NODE)
    assert desk.turn(1000.0 + WRITE_PAUSE_SECONDS - 1.0, NODE) == []
    assert desk.turn(1000.0 + WRITE_PAUSE_SECONDS, NODE) == ["/api/v1/nodes/n1"]


def test_a_new_fleet_is_labelled_a_few_nodes_at_a_time() -> None:
    desk = Desk()
    nodes = [a.node(f"n{at}", gpus=1) for at in range(MOST_AT_ONCE + 3)]
    desk.turn(1000.0, *nodes, answered=False)
    assert len(desk.acts) == MOST_AT_ONCE
    desk.turn(1001.0, *nodes, answered=False)
    assert len(desk.acts) == MOST_AT_ONCE, "none is begun while so many are under way"
    desk.close()


def test_a_large_fleet_is_looked_at_in_parts_and_nobody_is_left_out() -> None:
    desk = Desk()
    settled = [a.node(f"n{at:04d}", gpus=1, labels=LABELLED) for at in range(ROWS_AT_ONCE)]
    last = a.node("n9999", gpus=1)
    assert desk.turn(1000.0, *settled, last) == []
    assert desk.turn(1001.0, *settled, last) == ["/api/v1/nodes/n9999"]


def test_a_condition_has_to_stand_for_a_while_before_it_is_written() -> None:
    desk = Desk()
    assert desk.turn(1000.0, SETTLED, gpu=LOST) == []
    assert desk.turn(1009.0, SETTLED, gpu=LOST) == []
    assert desk.turn(1010.0, SETTLED, gpu=LOST) == ["/api/v1/nodes/n1/status"]
    assert desk.told == ["Warning GPULost n1"]


def test_one_that_goes_by_in_between_is_never_written() -> None:
    desk = Desk()
    desk.turn(1000.0, SETTLED, gpu=LOST)
    desk.turn(1005.0, SETTLED)
    assert desk.turn(1010.0, SETTLED, gpu=LOST) == []


def test_another_trouble_has_to_stand_for_a_while_too() -> None:
    desk = Desk()
    held = a.gpu(0, minimum_watts=200.0, default_watts=700.0, requested_limit_watts=900.0)
    desk.turn(1000.0, SETTLED, gpu=LOST)
    desk.turn(1009.0, SETTLED, gpu=held)
    assert desk.turn(1011.0, SETTLED, gpu=held) == []
    assert desk.turn(1019.0, SETTLED, gpu=held) == ["/api/v1/nodes/n1/status"]
    assert desk.told == ["Warning CappedElsewhere n1"]


def test_a_node_that_says_what_is_so_is_not_written_to() -> None:
    desk = Desk()
    marked = a.node("n1", gpus=1, labels=LABELLED, power_degraded=Mark(True, "GPULost", "GPU 0 is Lost"))
    for now_at in (1000.0, 1010.0, 1100.0):
        assert desk.turn(now_at, marked, gpu=LOST) == []


def test_a_silent_agent_becomes_a_condition_though_nothing_arrives() -> None:
    desk = Desk()
    report = a.telemetry("n1", [LIMITED], heard_at=1000.0)
    for now_at in (1000.0, 1299.0, 1301.0, 1312.0):
        desk.labels.keep(a.fleet(SETTLED, telemetries=[report], now_at=now_at), now_at, now_at)
        while desk.acts:
            asyncio.run(desk.acts.pop(0))
    assert [path for path, _ in desk.writes] == ["/api/v1/nodes/n1/status"]
    assert desk.told == ["Warning TelemetryLost n1"]
