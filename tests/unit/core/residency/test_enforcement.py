"""What counts of a verification: all layers, lately, and nothing of what cannot be read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.core.residency import enforcement
from penstock.core.residency.enforcement import LAYERS, OFF, Finding, Layer, Verification

NOW_TIME = 1_800_000_000.0
HOUR = 3600.0
WHOLE = Verification(tuple(Layer(name, True, NOW_TIME - HOUR) for name in LAYERS), "v1.36.4", NOW_TIME)
BINDING = Layer("binding", False, NOW_TIME, "a binding (scheduler) was not refused")
WITHOUT_BINDING = replace(WHOLE, layers=tuple(BINDING if one.name == BINDING.name else one for one in WHOLE.layers))

CASES = {
    "every layer held": (WHOLE, NOW_TIME, Finding.VERIFIED, "11 layers of API server v1.36.4"),
    "it is almost too old": (WHOLE, NOW_TIME + 3 * HOUR, Finding.VERIFIED, ""),
    "it is too old": (WHOLE, NOW_TIME + 3 * HOUR + 1, Finding.TOO_OLD, "tried last at 2027-01-15T08:00:00Z"),
    "its clock is a little ahead": (WHOLE, NOW_TIME - 60, Finding.VERIFIED, ""),
    "it is of the future": (WHOLE, NOW_TIME - HOUR, Finding.TOO_OLD, "tried last at 2027-01-15T08:00:00Z"),
    "one layer did not hold": (WITHOUT_BINDING, NOW_TIME, Finding.MISSING, f"layer binding: {BINDING.why}"),
    "a layer is not in it": (replace(WHOLE, layers=WHOLE.layers[1:]), NOW_TIME, Finding.MISSING, "was not tried"),
    "nobody ever tried": (None, NOW_TIME, Finding.NEVER, "nobody tried yet"),
}


@pytest.mark.parametrize(("found", "now_time", "finding", "says"), CASES.values(), ids=CASES)
def test_a_verification_where(found: Verification | None, now_time: float, finding: Finding, says: str) -> None:
    judged = enforcement.judge(found, now_time, 3 * HOUR)
    assert judged.finding is finding
    assert says in judged.message
    assert judged.holds == (finding is not Finding.VERIFIED)


def test_layers_that_were_tried_too_long_ago_count_as_not_verified() -> None:
    judged = enforcement.judge(WHOLE, NOW_TIME + 9 * HOUR, 3 * HOUR)
    assert {(one.verified, one.why) for one in judged.layers} == {(False, "tried too long ago")}


def test_where_nobody_verifies_nothing_waits_and_it_is_said_so() -> None:
    assert enforcement.judge(WHOLE, NOW_TIME, None) is OFF
    assert not OFF.holds
    assert "nobody tries" in OFF.message


def test_of_many_missing_layers_the_first_are_told() -> None:
    none = replace(WHOLE, layers=())
    assert enforcement.judge(none, NOW_TIME, HOUR).message.endswith("; and 8 more")


def test_a_report_is_read_as_it_was_written() -> None:
    assert enforcement.read(enforcement.write(WITHOUT_BINDING)) == WITHOUT_BINDING


SPOILED = {
    "nothing": {},
    "no JSON": {"report": "verified"},
    "a list": {"report": "[]"},
    "no layers": {"report": '{"time": "2027-01-15T08:00:00Z", "apiServerVersion": "v1"}'},
    "no time": {"report": '{"apiServerVersion": "v1", "layers": []}'},
    "a time that is none": {"report": '{"time": "now", "apiServerVersion": "v1", "layers": []}'},
    "a layer that is none": {"report": '{"time": "2027-01-15T08:00:00Z", "apiServerVersion": "v1", "layers": [1]}'},
}


@pytest.mark.parametrize("data", SPOILED.values(), ids=SPOILED)
def test_a_report_that_holds_what_nobody_wrote_says_nothing(data: dict[str, str]) -> None:
    assert enforcement.read(data) is None


def test_layers_that_only_a_newer_release_tries_crowd_out_none_of_ours() -> None:
    newer = tuple(Layer(f"newer-{number}", True, NOW_TIME) for number in range(3))
    assert enforcement.read(enforcement.write(replace(WHOLE, layers=(*newer, *WHOLE.layers)))) == WHOLE


def test_a_layer_is_verified_by_true_alone() -> None:
    text = enforcement.write(WHOLE)["report"].replace("true", '"yes"')
    found = enforcement.read({"report": text})
    assert found
    assert not any(one.verified for one in found.layers)


def test_a_layer_says_since_when_it_is_as_it_is() -> None:
    later = replace(BINDING, since_time=NOW_TIME + HOUR)
    places = Layer("places", False, NOW_TIME + HOUR, "moved")
    new = Layer("new", True, NOW_TIME + HOUR)
    found = enforcement.since((later, places, new), WITHOUT_BINDING)
    assert [one.since_time for one in found] == [NOW_TIME, NOW_TIME + HOUR, NOW_TIME + HOUR]
    assert enforcement.since((later,), None) == (later,)
