"""What is to be doubted of a node's place: by its region, by how long it has said so, and by what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.api.names import (
    CLEARANCE_LABEL,
    COUNTRY_LABEL,
    EVIDENCE_TIME_LABEL,
    OPERATOR_LABEL,
    PLACE_LABELS,
    REGION_LABEL,
)
from penstock.core.model import Doubt, Node, Residency
from penstock.core.placement import choice as placement
from penstock.core.placement.row import NodeView
from penstock.core.residency import doubts, law, places
from penstock.core.residency.doubts import Kind, Rules, Said
from penstock.core.telemetry import PlaceMark

NOW_TIME = 1_795_219_200.0
STEADY_SECONDS = 900.0
LABELS = {places.short(label): label for label in PLACE_LABELS}
ROWS = {"aws/eu-north-1": "SE", "aws/us-east-1": "US-VA", "aws/eu-west-3": "FR-IDF", "hall-7": "DE"}
RULES = Rules(places.read_table(ROWS, ("Public",), NOW_TIME)[0], ("Public",), STEADY_SECONDS)


def node(region: str = "", **labels: str) -> Node:
    said = {place: code for place, code in labels.items() if code}
    found = {LABELS[name]: code for name, code in said.items()}
    return a.node(country="", labels={**found, **({REGION_LABEL: region} if region else {})}, provider="aws")


def kinds(one: Node, said: Said | None = None, now_time: float = NOW_TIME) -> list[str]:
    heard = said or doubts.hear(one, None, (), now_time)
    return [doubt.kind for doubt in doubts.doubts(one, heard, RULES, now_time)]


# ------------------------------------------------------------------------------------------------------------ disputes

DISPUTES: dict[str, tuple[Node, bool]] = {
    "a region in the same country": (node("eu-north-1", country="SE"), False),
    "a region in another country": (node("eu-north-1", country="DK"), True),
    "a part where the region is known by its country alone": (
        node("eu-north-1", country="SE", subdivision="SE-AB"),
        False,
    ),
    "a country where the region is known more closely": (node("us-east-1", country="US"), False),
    "another part of the region's country": (node("us-east-1", country="US", subdivision="US-OR"), True),
    "a part inside the region's part": (node("eu-west-3", country="FR", subdivision="FR-75C"), False),
    "a row without a provider": (node("hall-7", country="FR"), True),
    "a region that the table does not know": (node("eu-south-9", country="FR"), False),
    "no region": (node(country="FR"), False),
    "a node that says no place has nothing to be disputed": (node("eu-north-1"), False),
    "what is no code is another matter": (node("eu-north-1", country="denmark"), False),
    "settled by a place writer": (replace(node("eu-north-1", country="DK"), settled="DK@eu-north-1"), False),
    "settled when it stood elsewhere": (replace(node("eu-north-1", country="DK"), settled="NO@eu-north-1"), True),
    "settled for another region": (replace(node("eu-north-1", country="DK"), settled="DK@eu-west-3"), True),
}


@pytest.mark.parametrize(("one", "disputed"), DISPUTES.values(), ids=DISPUTES.keys())
def test_a_region_disputes_a_place_that_it_does_not_touch(one: Node, disputed: bool) -> None:
    assert (Kind.DISPUTED in kinds(one)) is disputed


def test_a_dispute_names_both_sides_and_both_ways_out() -> None:
    one = node("us-east-1", country="US", subdivision="US-OR")
    (found,) = doubts.doubts(one, doubts.hear(one, None, (), NOW_TIME), RULES, NOW_TIME)
    assert found.holds
    assert "stands in US-OR" in found.message
    assert "region aws/us-east-1 in US-VA" in found.message
    assert "annotate node gpu-1 --overwrite penstock.dev/place-settled=US-OR@us-east-1`" in found.remedy
    assert "label-nodes --nodes gpu-1 --country US --subdivision US-VA --overwrite --apply`" in found.remedy


# ----------------------------------------------------------------------------------------------------------- steadiness

DE, FR, NOTHING = {COUNTRY_LABEL: "DE"}, {COUNTRY_LABEL: "FR"}, dict[str, str]()
CLEARED = {**DE, CLEARANCE_LABEL: "Public"}
LATER = {**DE, EVIDENCE_TIME_LABEL: "20261120T234151Z"}
HISTORIES: dict[str, tuple[Sequence[dict[str, str]], float | None]] = {
    "what a node says from the start": ([DE], None),
    "what it says for the first time": ([NOTHING, DE], None),
    "a label that is added to others": ([NOTHING, DE, CLEARED], None),
    "evidence that is renewed": ([DE, LATER], None),
    "another country": ([DE, FR], 1.0),
    "a place that was lost": ([DE, NOTHING], 1.0),
    "a place that is back": ([DE, NOTHING, DE], 2.0),
    "another place and back": ([DE, FR, DE], 2.0),
    "a flap begins the time anew": ([DE, NOTHING, DE, NOTHING, DE], 4.0),
    "what is added after a change does not begin it anew": ([DE, FR, FR | {OPERATOR_LABEL: "FR"}], 1.0),
    "a label that was taken away": ([CLEARED, DE], 1.0),
    "a label that is back": ([CLEARED, DE, CLEARED], 2.0),
}


def history(steps: Sequence[dict[str, str]]) -> Said:
    said: Said | None = None
    for second, labels in enumerate(steps):
        said = doubts.hear(a.node(country="", labels=labels), said, (), NOW_TIME + second)
    assert said
    return said


@pytest.mark.parametrize(("steps", "changed"), HISTORIES.values(), ids=HISTORIES.keys())
def test_only_what_a_node_says_anew_or_otherwise_has_to_hold(
    steps: Sequence[dict[str, str]], changed: float | None
) -> None:
    assert history(steps).changed_time == (None if changed is None else NOW_TIME + changed)


def test_a_place_counts_again_once_it_was_steady_and_says_from_when() -> None:
    said, one = history([DE, FR, DE]), a.node()
    since = NOW_TIME + 2
    (found,) = doubts.doubts(one, said, RULES, since + STEADY_SECONDS - 1)
    assert (found.kind, found.holds, found.since_time) == (Kind.UNSTEADY, True, since)
    assert "steady since 2026-11-21T00:00:02Z (country=DE), and counts from 2026-11-21T00:15:02Z" in found.message
    assert doubts.steady_time(said, STEADY_SECONDS) == since + STEADY_SECONDS
    assert doubts.doubts(one, said, RULES, since + STEADY_SECONDS) == ()


def test_a_place_that_is_lost_stays_doubted_however_long() -> None:
    said, one = history([DE, NOTHING]), a.node(country="")
    (found,) = doubts.doubts(one, said, RULES, NOW_TIME + 100 * STEADY_SECONDS)
    assert found.reason == "PlaceLost"
    assert doubts.steady_time(said, STEADY_SECONDS) is None


def test_a_restart_recalls_since_when_a_place_has_to_hold_and_that_it_was_lost() -> None:
    mark = PlaceMark(Kind.UNSTEADY, "steady since", NOW_TIME - 60)
    assert doubts.hear(a.node(), None, (mark,), NOW_TIME).changed_time == NOW_TIME - 60
    assert doubts.hear(a.node(), None, (PlaceMark(Kind.DISPUTED, "", 1.0),), NOW_TIME).changed_time is None
    lost = doubts.hear(a.node(country=""), None, (mark,), NOW_TIME)
    assert doubts.hear(a.node(), lost, (), NOW_TIME + 7).changed_time == NOW_TIME + 7


def test_who_saw_nothing_change_goes_by_what_a_leader_wrote_down() -> None:
    said, one = history([DE, FR]), a.node(country="FR")
    (found,) = doubts.doubts(one, said, RULES, NOW_TIME + 2)
    (read,) = doubts.written((PlaceMark(found.kind, doubts.sentence(found), NOW_TIME + 1),))
    assert read == replace(found, reason=found.kind)
    assert [doubt.holds for doubt in doubts.written((PlaceMark(Kind.UNREADABLE, "a; b", 0.0),))] == [False]


def test_a_node_that_is_made_anew_under_the_same_name_is_another_one() -> None:
    before = history([DE])
    assert doubts.hear(replace(a.node(country="FR"), uid="another"), before, (), NOW_TIME).changed_time is None


# ---------------------------------------------------------------------------------------------------------- readability

UNREADABLE: dict[str, tuple[dict[str, str], str]] = {
    "a country by its name": ({"country": "germany"}, "country: germany: a label takes the code: write DE"),
    "a country in small letters": ({"country": "de"}, "country: de: a label takes the code: write DE"),
    "a code that means another": ({"country": "UK"}, "country: UK: write GB"),
    "a part that there is not": ({"country": "DE", "subdivision": "DE-XX"}, "subdivision: DE-XX: ISO 3166-2 has no"),
    "a part of another country": ({"country": "DE", "subdivision": "FR-IDF"}, "subdivision: FR-IDF: is no part of DE"),
    "an operator that is no code": (
        {"country": "DE", "operator": "usa"},
        "operator: usa: a label takes the code: write US",
    ),
    "a clearance of another install": ({"country": "DE", "clearance": "Cosmic"}, "clearance: Cosmic: is no clearance"),
    "a time in the future": (
        {"country": "DE", "evidence-time": "29991231T235959Z"},
        "evidence-time: 29991231T235959Z: is in the future: write when the place was found",
    ),
    "a time that is none": ({"country": "DE", "evidence-time": "yesterday"}, "evidence-time: yesterday: write a time"),
}


@pytest.mark.parametrize(("labels", "told"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_told_with_its_field_its_value_and_what_to_write(
    labels: dict[str, str], told: str
) -> None:
    one = node(**labels)
    (found,) = doubts.doubts(one, doubts.hear(one, None, (), NOW_TIME), RULES, NOW_TIME)
    assert found.kind == Kind.UNREADABLE
    assert told in found.message


DENYING: dict[str, tuple[Residency, dict[str, str], bool]] = {
    "a code that is not denied": (
        Residency(restricted=True, denied_countries=frozenset({"US"})),
        {"country": "DE"},
        True,
    ),
    "a denied country by its name": (
        Residency(restricted=True, denied_countries=frozenset({"US"})),
        {"country": "usa"},
        False,
    ),
    "a denied country in small letters": (
        Residency(restricted=True, denied_countries=frozenset({"US"})),
        {"country": "us"},
        False,
    ),
    "a denied country by the code that it has not": (
        Residency(restricted=True, denied_countries=frozenset({"GB"})),
        {"country": "UK"},
        False,
    ),
    "a denied part in small letters": (
        Residency(restricted=True, allowed_countries=frozenset({"US"}), denied_subdivisions=frozenset({"US-VA"})),
        {"country": "US", "subdivision": "US-va"},
        False,
    ),
    "a denied operator by its name": (
        Residency(restricted=True, denied_operators=frozenset({"US"})),
        {"country": "DE", "operator": "usa"},
        False,
    ),
}


@pytest.mark.parametrize(("residency", "labels", "lawful"), DENYING.values(), ids=DENYING.keys())
def test_no_denial_is_walked_around_by_writing_what_is_no_code(
    residency: Residency,
    labels: dict[str, str],
    lawful: bool,
) -> None:
    one = node(**labels)
    assert (law(residency, one) is not None) is lawful
    plan = placement.plan(a.fleet(one), (a.replica(residency=residency),), (), 0.0)
    assert bool(plan.decisions) is lawful


# ----------------------------------------------------------------------------------------------------------- placements

HELD = Doubt("PlaceUnsteady", "ChangedLately", "node gpu-1 has been steady since then, and counts from soon", "wait")
GERMAN = Residency(restricted=True, allowed_countries=frozenset({"DE"}))


def plan(law: Residency, *found: Doubt, **changed: Any) -> Any:
    fleet = a.fleet(a.node(**changed))
    fleet = fleet.with_nodes({"gpu-1": NodeView(a.node(**changed), a.telemetry(), (), found)}, a.NOW_AT)
    return placement.plan(fleet, (a.replica(residency=law),), (), 0.0)


def test_a_doubted_place_takes_nothing_new_under_a_law_and_says_why() -> None:
    assert plan(GERMAN).decisions
    found = plan(GERMAN, HELD)
    assert not found.decisions
    (waiting,) = found.waiting
    assert waiting.message == f"0/1 nodes: 1 outside the law ({HELD.message})"
    assert waiting.would_fit == "wait"


def test_a_pool_without_a_law_is_not_concerned_by_doubts() -> None:
    assert plan(Residency(), HELD).decisions


def test_a_doubted_place_that_the_law_would_not_have_anyway_is_not_told() -> None:
    (waiting,) = plan(GERMAN, HELD, country="FR").waiting
    assert waiting.message == "0/1 nodes: 1 outside the law (1 by country)"


def test_a_cluster_that_is_not_labelled_yet_says_what_to_run() -> None:
    (waiting,) = plan(GERMAN, country="").waiting
    assert (
        waiting.message == f"0/1 nodes: 1 outside the law, since no node says where it stands: run {places.LABEL_NODES}"
    )
    assert waiting.would_fit == f"run {places.LABEL_NODES}"
