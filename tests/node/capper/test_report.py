"""What the capper tells: its own part of a status that the schema takes, and an Event for each change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from penstock.api.gpunode import CapperReading
from penstock.capper.decision import Mode, Outcome
from penstock.capper.hand import Finding
from penstock.capper.orders import Metadata
from penstock.capper.report import Reporter, changed, encode, event

WALL = datetime(2026, 11, 21, 12, tzinfo=UTC)
APPLIED = Finding("GPU-0", 0.0, Outcome.APPLIED, "", "", 500.0, 500.0, 700.0, "search/llama-0", "u")


@pytest.mark.parametrize("outcome", Outcome)
def test_a_status_is_what_the_schema_takes_and_touches_nothing_else(outcome: Outcome) -> None:
    finding = replace(APPLIED, outcome=outcome, reason="NoPermission", message="x" * 2000)
    patch = msgspec.json.decode(encode(Reporter(7, 30).compose(Mode.OFF, [finding], "y" * 2000, WALL)))
    assert list(patch) == ["status"]
    assert list(patch["status"]) == ["capper"]
    read = CapperReading.model_validate(patch["status"]["capper"])
    assert (read.mode, read.sequence, read.gpus[0].pod_uid) == ("Off", 7, "u")


def test_a_gpu_of_which_there_is_nothing_to_tell_is_left_out() -> None:
    assert Reporter(1, 30).compose(Mode.ENFORCE, [replace(APPLIED, outcome=None)], "", WALL).gpus == ()


def test_since_moves_with_the_outcome_and_not_with_each_look() -> None:
    reporter, later = Reporter(1, 30), WALL.replace(hour=13)
    reporter.compose(Mode.ENFORCE, [APPLIED], "", WALL)
    (same,) = reporter.compose(Mode.ENFORCE, [replace(APPLIED, taken_at=9.0)], "", later).gpus
    (other,) = reporter.compose(Mode.ENFORCE, [replace(APPLIED, outcome=Outcome.REFUSED)], "", later).gpus
    assert (same.since, other.since) == ("2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z")


@pytest.mark.parametrize(
    ("after", "tells"),
    (
        pytest.param(APPLIED, False, id="the same"),
        pytest.param(replace(APPLIED, taken_at=99.0), False, id="a later look"),
        pytest.param(replace(APPLIED, requested_watts=400.0, enforced_watts=400.0), True, id="another limit"),
        pytest.param(replace(APPLIED, outcome=Outcome.HANDS_OFF, reason="ForeignLimit"), True, id="hands off"),
        pytest.param(replace(APPLIED, outcome=Outcome.WAITING), False, id="waiting for its turn changes nothing"),
        pytest.param(replace(APPLIED, outcome=None), False, id="nothing to tell"),
    ),
)
def test_an_event_for_each_change(after: Finding, tells: bool) -> None:
    assert bool(changed((APPLIED,), (after,))) is tells


def test_an_event_says_who_what_and_why() -> None:
    refused = replace(APPLIED, outcome=Outcome.REFUSED, reason="NoPermission", message="it needs CAP_SYS_ADMIN")
    told = event(refused, Metadata(name="gpu-1", uid="uid"), WALL, "gpu-1")
    assert told["message"] == (
        "GPU-0: Refused for search/llama-0, asked for 500 W, in force 500 W: NoPermission: it needs CAP_SYS_ADMIN"
    )
    assert (told["type"], told["reason"]) == ("Warning", "PowerLimitRefused")
    assert told["involvedObject"]["uid"] == "uid"
