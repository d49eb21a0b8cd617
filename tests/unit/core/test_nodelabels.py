"""What a Node says of its GPUs: which labels change, and when the condition stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.core import nodelabels
from penstock.core.manifests import node_condition_patch, node_labels_patch
from penstock.core.model import Gpu, GpuHealth, Mark, Node, Platform, Telemetry
from penstock.core.nodelabels import LABELS, label_changes, power_degraded
from penstock.core.placement.evidence import Evidence

LIMITED: dict[str, Any] = {"minimum_watts": 200.0, "maximum_watts": 700.0, "default_watts": 700.0, "limit_watts": 650.0}
WRITTEN = {
    "penstock.dev/gpu.power.limit.min": "200",
    "penstock.dev/gpu.power.limit.max": "700",
    "penstock.dev/gpu.power.limit.default": "700",
    "penstock.dev/gpu.power.limit.enforced": "650",
}
RACKED = Platform("1821325190344", slot=3, tray=0, host_id=1, fabric_cluster="b7c2", fabric_clique=32766)
PLACED = {
    "penstock.dev/rack.chassis": "1821325190344",
    "penstock.dev/rack.slot": "3",
    "penstock.dev/rack.tray": "0",
    "penstock.dev/rack.host": "1",
    "penstock.dev/fabric.cluster": "b7c2",
    "penstock.dev/fabric.clique": "32766",
}


def heard(*gpus: Gpu, **changed: Any) -> Telemetry:
    return a.telemetry(gpus=gpus or (a.gpu(**LIMITED),), **changed)


Wanted = dict[str, str | None]
CHANGES: dict[str, tuple[dict[str, str], Telemetry | None, Evidence, Wanted]] = {
    "a new node gets the limits of its GPUs in whole watts": ({}, heard(), Evidence.FRESH, {**WRITTEN}),
    "what is so already is not written": (WRITTEN, heard(), Evidence.FRESH, {}),
    "only what changed is written": (
        WRITTEN,
        heard(a.gpu(**{**LIMITED, "limit_watts": 500.4})),
        Evidence.FRESH,
        {"penstock.dev/gpu.power.limit.enforced": "500"},
    ),
    "of different GPUs the range that suits each of them": (
        {},
        heard(
            a.gpu(**LIMITED), a.gpu(1, minimum_watts=300.0, maximum_watts=500.0, default_watts=400.0, limit_watts=400.0)
        ),
        Evidence.FRESH,
        {
            "penstock.dev/gpu.power.limit.min": "300",
            "penstock.dev/gpu.power.limit.max": "500",
            "penstock.dev/gpu.power.limit.default": "400",
            "penstock.dev/gpu.power.limit.enforced": "400",
        },
    ),
    "a lost GPU says nothing of limits and takes no label away": (
        WRITTEN,
        heard(a.gpu(**LIMITED), a.gpu(1, health=GpuHealth.LOST, maximum_watts=None, limit_watts=None)),
        Evidence.FRESH,
        {},
    ),
    "and the others of its node are told of all the same": (
        {},
        heard(a.gpu(**LIMITED), a.gpu(1, health=GpuHealth.LOST, maximum_watts=None, limit_watts=None)),
        Evidence.FRESH,
        {**WRITTEN},
    ),
    "where one GPU does not tell a limit, none is said of all": (
        {},
        heard(a.gpu(**LIMITED), a.gpu(1, **{**LIMITED, "minimum_watts": None})),
        Evidence.FRESH,
        {key: value for key, value in WRITTEN.items() if not key.endswith(".min")},
    ),
    "the place in the rack is told": (WRITTEN, heard(platform=RACKED), Evidence.FRESH, {**PLACED}),
    "a serial number that no label can hold is left out": (
        WRITTEN,
        heard(platform=Platform(chassis_serial="N/A (none)")),
        Evidence.FRESH,
        {},
    ),
    "a stale report changes nothing": (WRITTEN, heard(a.gpu(limit_watts=100.0)), Evidence.STALE, {}),
    "a contradictory report changes nothing": ({}, heard(), Evidence.CONTRADICTED, {}),
    "without an agent ours go, and those of others stay": (
        {**WRITTEN, "penstock.dev/mine": "x", "nvidia.com/gpu.product": "H200"},
        None,
        Evidence.SILENT,
        dict.fromkeys(sorted(WRITTEN)),
    ),
    "a node that never had an agent is left alone": ({}, None, Evidence.SILENT, {}),
}


@pytest.mark.parametrize(("labels", "report", "evidence", "want"), CHANGES.values(), ids=CHANGES.keys())
def test_label_changes(labels: dict[str, str], report: Telemetry | None, evidence: Evidence, want: Wanted) -> None:
    assert label_changes(a.node(labels=labels), report, evidence) == want


def test_no_label_of_ours_lies_where_a_law_is_read() -> None:
    assert not any("node-restriction" in key for key in LABELS)
    assert all(key.startswith("penstock.dev/") for key in LABELS)


def test_the_labels_patch_touches_nothing_else_and_no_newer_node() -> None:
    patch = node_labels_patch(a.node(), {"penstock.dev/rack.slot": None})
    assert patch == {"metadata": {"uid": "uid-gpu-1", "labels": {"penstock.dev/rack.slot": None}}}


BAD = Mark(True, "GPULost", "GPU 0 is Lost")
GOOD = Mark(False, "GPUsSound", "every GPU answers and may draw what its limit asks for")
LOST = heard(a.gpu(health=GpuHealth.LOST))
HELD = heard(a.gpu(requested_limit_watts=700.0, limit_watts=400.0))
MARKS: dict[str, tuple[Mark | None, Telemetry | None, Evidence, float, str]] = {
    "a node without trouble gets no condition": (None, heard(), Evidence.FRESH, 0, ""),
    "a lost GPU is told": (None, LOST, Evidence.FRESH, 0, "True GPULost"),
    "the power brake is told": (None, heard(a.gpu(power_braked=True)), Evidence.FRESH, 0, "True GPUPowerBrake"),
    "a limit that somebody else holds down is told": (None, HELD, Evidence.FRESH, 0, "True CappedElsewhere"),
    "a cap that was asked for is no trouble": (
        None,
        heard(a.gpu(requested_limit_watts=400.0, limit_watts=400.0)),
        Evidence.FRESH,
        0,
        "",
    ),
    "heat alone is none either": (None, heard(a.gpu(thermally_throttled=True)), Evidence.FRESH, 0, ""),
    "once it is over the condition says so": (BAD, heard(), Evidence.FRESH, 0, "False GPUsSound"),
    "and goes on saying so": (GOOD, heard(), Evidence.FRESH, 0, "False GPUsSound"),
    "silence is told after long": (None, heard(), Evidence.STALE, 301, "True TelemetryLost"),
    "but not before": (None, heard(), Evidence.STALE, 300, ""),
    "until then what stood there stays": (BAD, heard(), Evidence.STALE, 60, "True GPULost"),
    "a report that is not believed changes nothing": (BAD, heard(), Evidence.CONTRADICTED, 0, "True GPULost"),
    "without an agent there is no condition": (BAD, None, Evidence.SILENT, 0, ""),
}


@pytest.mark.parametrize(("now", "report", "evidence", "silent", "want"), MARKS.values(), ids=MARKS.keys())
def test_power_degraded(
    now: Mark | None, report: Telemetry | None, evidence: Evidence, silent: float, want: str
) -> None:
    node = a.node(power_degraded=now)
    mark = power_degraded(node, report, evidence, silent_seconds=silent, lost_seconds=300)
    assert (f"{mark.holds} {mark.reason}" if mark else "") == want


def test_the_condition_names_every_gpu_what_ails_it_before_who_holds_it_down() -> None:
    report = heard(
        a.gpu(0, requested_limit_watts=700.0, limit_watts=400.0), a.gpu(1, health=GpuHealth.FAILED, message="XID 95")
    )
    mark = power_degraded(a.node(), report, Evidence.FRESH, silent_seconds=0, lost_seconds=300)
    held = "GPU 0 is held at 400 W by somebody else, 700 W are asked for"
    assert mark == Mark(True, "GPUFailed", f"GPU 1 is Failed (XID 95); {held}")


def test_a_message_fits_a_condition() -> None:
    gpus = [a.gpu(at, health=GpuHealth.LOST, message="x" * 500) for at in range(8)]
    mark = power_degraded(a.node(), heard(*gpus), Evidence.FRESH, silent_seconds=0, lost_seconds=300)
    assert mark is not None
    assert len(mark.message) <= nodelabels.MAX_MESSAGE


TIMES: dict[str, tuple[Mark | None, Mark, bool]] = {
    "a new condition has turned": (None, BAD, True),
    "another reason is no turn": (Mark(True, "GPUFailed", ""), BAD, False),
    "the end of it is one": (BAD, GOOD, True),
}


@pytest.mark.parametrize(("before", "mark", "flips"), TIMES.values(), ids=TIMES.keys())
def test_the_transition_time_moves_only_when_it_flips(before: Mark | None, mark: Mark, flips: bool) -> None:
    node: Node = replace(a.node(), power_degraded=before)
    (condition,) = node_condition_patch(node, "GPUPowerDegraded", mark, "2026-11-21T12:00:00Z")["status"]["conditions"]
    assert ("lastTransitionTime" in condition) == flips
    assert (condition["status"], condition["reason"]) == (str(mark.holds), mark.reason)


def test_a_condition_that_is_to_go_is_deleted_by_its_type() -> None:
    patch = node_condition_patch(a.node(), "GPUPowerDegraded", None, "")
    assert patch["status"] == {"conditions": [{"type": "GPUPowerDegraded", "$patch": "delete"}]}
