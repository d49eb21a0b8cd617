"""What is read of a Node, our own condition on it included."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.cluster.parse.nodes import decode_node, node
from penstock.core.model import Mark

READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "fine"}
LOST = {"type": "GPUPowerDegraded", "status": "True", "reason": "GPULost", "message": "GPU 3 is Lost"}
SOUND = {"type": "GPUPowerDegraded", "status": "False", "reason": "GPUsSound", "message": ""}

MARKS: dict[str, tuple[list[dict[str, Any]], Mark | None]] = {
    "a node without our condition": ([READY], None),
    "a node without any": ([], None),
    "one that is in trouble": ([READY, LOST], Mark(True, "GPULost", "GPU 3 is Lost")),
    "one whose trouble is over": ([SOUND, READY], Mark(False, "GPUsSound", "")),
}


@pytest.mark.parametrize(("conditions", "want"), MARKS.values(), ids=MARKS.keys())
def test_our_condition_as_it_is_written_there(conditions: list[dict[str, Any]], want: Mark | None) -> None:
    raw = {"metadata": {"name": "n1", "uid": "u1"}, "status": {"conditions": conditions}}
    seen = node(decode_node(msgspec.json.encode(raw)))
    assert seen.power_degraded == want
    assert seen.ready is (READY in conditions)
