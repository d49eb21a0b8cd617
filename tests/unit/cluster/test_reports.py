"""Whose a GPU is that two nodes report, and what an unreadable report leaves of what was heard before."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import msgspec
import pytest

from penstock.cluster.parse.telemetry import decode_gpu_node
from penstock.cluster.reports import Reports


@pytest.fixture
def reports() -> Reports:
    return Reports(map(float, count(1000)).__next__)


def named(node: str, sequence: int, *uuids: str) -> Any:
    gpus = [{"uuid": uuid, "index": at} for at, uuid in enumerate(uuids)]
    status = {"heartbeatSeconds": 10, "sequence": sequence, "sampledAt": "2026-11-20T00:00:00Z", "gpus": gpus}
    return decode_gpu_node(msgspec.json.encode({"metadata": {"name": node}, "status": status}))


def doubted(reports: Reports) -> list[str]:
    return [name for name, heard in reports.telemetry.items() if "is node" in heard.contradiction]


def test_who_reports_another_node_s_gpu_is_not_believed_and_the_other_is(reports: Reports) -> None:
    reports.put(named("n1", 1, "GPU-a", "GPU-b"), None)
    reports.put(named("n2", 1, "GPU-c", "GPU-b"), None)
    reports.put(named("n1", 2, "GPU-a", "GPU-b"), None)
    assert doubted(reports) == ["n2"]
    assert reports.telemetry["n2"].contradiction.startswith("GPU 1: GPU-b is node n1's")


def test_a_gpu_that_moved_is_the_new_node_s_once_the_old_one_lets_go(reports: Reports) -> None:
    reports.put(named("n1", 1, "GPU-a", "GPU-b"), None)
    reports.put(named("n1", 2, "GPU-a"), None)
    reports.put(named("n2", 1, "GPU-b"), None)
    assert doubted(reports) == []
    reports.drop("n1")
    reports.put(named("n2", 2, "GPU-b", "GPU-a"), None)
    assert doubted(reports) == []


def test_a_report_that_cannot_be_read_makes_what_was_heard_before_contradicted_and_no_younger(reports: Reports) -> None:
    reports.put(named("n1", 1, "GPU-a"), None)
    heard = reports.telemetry["n1"]
    reports.doubt("n1", "its GPUNode cannot be read")
    reports.doubt("n2", "its GPUNode cannot be read")
    found = reports.telemetry
    assert (found["n1"].contradiction, found["n1"].gpus) == ("its GPUNode cannot be read", heard.gpus)
    assert found["n1"].heard_at == heard.heard_at
    assert (found["n2"].contradiction, found["n2"].heard_at) == ("its GPUNode cannot be read", -math.inf)
    assert reports.put(named("n1", 2, "GPU-a"), None), "that it can be read again is news"
    assert found["n1"].contradiction == ""
