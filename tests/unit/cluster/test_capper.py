"""What is read of a node's capper, and that its writes never make a silent agent look alive."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from penstock.cluster.parse.telemetry import Heard, decode_gpu_node, hear, last_status_write
from penstock.core.model import Cap, CapperMode


def gpu_node(capper: dict[str, Any] | None = None, managers: tuple[tuple[str, str], ...] = ()) -> bytes:
    spec = {"caps": [{"uuid": "GPU-0", "watts": 500, "namespace": "search", "pod": "llama-0", "podUID": "u"}]}
    status = {"sequence": 7, "heartbeatSeconds": 10, **({"capper": capper} if capper else {})}
    fields = [{"manager": name, "time": time, "subresource": "status"} for name, time in managers]
    return msgspec.json.encode({"metadata": {"name": "gpu-1", "managedFields": fields}, "spec": spec, "status": status})


def heard(capper: dict[str, Any] | None, before: Heard | None = None, now: float = 100.0) -> Heard:
    return hear(decode_gpu_node(gpu_node(capper)), before, now, None)


def told(sequence: int, **changed: Any) -> dict[str, Any]:
    gpus = [{"uuid": "GPU-0", "outcome": "Refused", "reason": "NoPermission", "podUID": "u", "baselineWatts": 700}]
    return {"mode": "Enforce", "sequence": sequence, "heartbeatSeconds": 30, "gpus": gpus, **changed}


def test_the_limits_asked_for_and_what_became_of_them_are_read() -> None:
    found = heard(told(1)).telemetry
    assert found.caps == (Cap("GPU-0", 500, "search", "llama-0", "u"),)
    assert found.capper is not None
    assert found.capper.mode is CapperMode.ENFORCE
    assert found.capper.refuses("GPU-0", "u")
    assert not found.capper.refuses("GPU-0", "of-another-pod")
    assert found.capper.baseline_watts("GPU-0") == 700
    assert heard(None).telemetry.capper is None


@pytest.mark.parametrize(
    ("second", "now", "alive"),
    (
        pytest.param(2, 191.0, True, id="its sequence rose"),
        pytest.param(1, 190.0, True, id="three heartbeats have not passed"),
        pytest.param(1, 191.0, False, id="its sequence stands still for longer"),
    ),
)
def test_a_capper_is_alive_while_its_own_sequence_rises(second: int, now: float, alive: bool) -> None:
    found = heard(told(second), before=heard(told(1)), now=now).telemetry.capper
    assert found is not None
    assert found.alive(now) is alive


def test_a_mode_that_nobody_knows_sets_nothing() -> None:
    found = heard(told(1, mode="Bold")).telemetry.capper
    assert found is not None
    assert found.mode is CapperMode.OFF


def test_the_age_of_a_report_is_that_of_the_agents_write_and_not_of_the_cappers() -> None:
    managers = (("penstock-agent", "2026-11-21T10:00:00Z"), ("penstock-capper", "2026-11-21T12:00:00Z"))
    written = last_status_write(decode_gpu_node(gpu_node(managers=managers)))
    assert written == datetime(2026, 11, 21, 10, tzinfo=UTC).timestamp()
