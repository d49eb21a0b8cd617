"""What a person says of where nodes stand: what is read of it, and what is written on which node."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import builders as a
from penstock.api.names import (
    CLEARANCE_LABEL,
    COUNTRY_LABEL,
    EVIDENCE_LABEL,
    EVIDENCE_TIME_LABEL,
    OPERATOR_LABEL,
    REGION_LABEL,
    SUBDIVISION_LABEL,
)
from penstock.core.model import Node
from penstock.core.residency import places
from penstock.core.residency.places import Claim, Labelling

LEVELS = ("Public", "Internal")
NOW_TIME = 1_795_219_200.0
EXAMPLE = Path(__file__).parents[4] / "examples" / "places" / "regions.yaml"


def row(written: object) -> Claim:
    return places.read_table({"r": written}, LEVELS, NOW_TIME)[0]["r"]


READ: dict[str, tuple[object, dict[str, str]]] = {
    "a country alone": ("DE", {COUNTRY_LABEL: "DE"}),
    "a part of a country alone names its country too": ("DE-HE", {COUNTRY_LABEL: "DE", SUBDIVISION_LABEL: "DE-HE"}),
    "UK is read as GB": ("UK", {COUNTRY_LABEL: "GB"}),
    "a part of the UK is read as one of GB": ("UK-SCT", {COUNTRY_LABEL: "GB", SUBDIVISION_LABEL: "GB-SCT"}),
    "a row says all that is known": (
        {
            "country": "US",
            "subdivision": "US-VA",
            "operator": "DE",
            "clearance": "Internal",
            "evidence": "TPM",
            "evidence-time": "20260101T000000Z",
        },
        {
            COUNTRY_LABEL: "US",
            SUBDIVISION_LABEL: "US-VA",
            OPERATOR_LABEL: "DE",
            CLEARANCE_LABEL: "Internal",
            EVIDENCE_LABEL: "TPM",
            EVIDENCE_TIME_LABEL: "20260101T000000Z",
        },
    ),
}


@pytest.mark.parametrize(("written", "labels"), READ.values(), ids=READ.keys())
def test_what_is_written_comes_to_labels(written: object, labels: dict[str, str]) -> None:
    found = row(written)
    assert found.problems == ()
    assert found.labels == labels


def test_a_code_that_is_read_as_another_is_said() -> None:
    assert row("UK").notes == ("regions.r.country: UK is read as GB: ISO 3166 has no UK",)


WRONG: dict[str, tuple[object, str, str]] = {
    "a country by its name": ("Germany", "regions.r.country", "write DE"),
    "a country whose name has a hyphen": ("Guinea-Bissau", "regions.r.country", "write GW"),
    "a country by its three letters": ({"country": "DEU"}, "regions.r.country", "write DE"),
    "a country in small letters": ("de", "regions.r.country", "write DE"),
    "a part in small letters": ({"country": "DE", "subdivision": "de-he"}, "regions.r.subdivision", "write DE-HE"),
    "a word that is no country": ("Bavaria!", "regions.r.country", "ISO 3166-1 alpha-2 code such as DE"),
    "a country that there is no more": ("YU", "regions.r.country", "withdrew YU"),
    "a country that there never was": ("XX", "regions.r.country", "no country XX"),
    "a part that there is not": ("DE-XX", "regions.r.subdivision", "no DE-XX"),
    "a part where a country belongs": ({"country": "DE-HE"}, "regions.r.country", "alpha-2"),
    "a country where a part belongs": ({"country": "DE", "subdivision": "DE"}, "regions.r.subdivision", "3166-2"),
    "a part of another country": ({"country": "DE", "subdivision": "US-VA"}, "regions.r.subdivision", "no part of DE"),
    "an operator that is a group": ({"country": "DE", "operator": "EU"}, "regions.r.operator", "no country EU"),
    "Norway without quotes": (False, "regions.r", 'such as "NO"'),
    "Norway without quotes in a row": ({"country": False}, "regions.r.country", "in quotes"),
    "a row that says no place": ({"operator": "DE"}, "regions.r", "at least country"),
    "a field that there is not": ({"country": "DE", "city": "Berlin"}, "regions.r.city", "is none of country"),
    "a level that this install has not": (
        {"country": "DE", "clearance": "Secret"},
        "regions.r.clearance",
        "one of Public, Internal",
    ),
    "evidence that there is not": ({"country": "DE", "evidence": "Trust"}, "regions.r.evidence", "one of Declared"),
    "a time with colons": (
        {"country": "DE", "evidence-time": "2026-01-01T00:00:00Z"},
        "regions.r.evidence-time",
        "takes no colons",
    ),
    "a day that there is not": (
        {"country": "DE", "evidence-time": "20260230T000000Z"},
        "regions.r.evidence-time",
        "20261120T234151Z",
    ),
    "a time in the future": (
        {"country": "DE", "evidence-time": "20990101T000000Z"},
        "regions.r.evidence-time",
        "in the future",
    ),
}


@pytest.mark.parametrize(("written", "field", "remedy"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_a_place_is_said_with_its_field_and_remedy(written: object, field: str, remedy: str) -> None:
    (problem,) = row(written).problems
    assert problem.field == field
    assert remedy in problem.remedy


def node(**labels: str) -> Node:
    """A node of region r that says nothing of its place but this."""
    known = {"country": COUNTRY_LABEL, "subdivision": SUBDIVISION_LABEL, "operator": OPERATOR_LABEL}
    known |= {"region": REGION_LABEL, "evidence_time": EVIDENCE_TIME_LABEL, "clearance": CLEARANCE_LABEL}
    return a.node("n", country="", labels={REGION_LABEL: "r"} | {known[key]: value for key, value in labels.items()})


COMES_TO: dict[str, tuple[Node, Any, bool, dict[str, str | None]]] = {
    "an unlabelled node gets what the row says": (node(), "DE", False, {COUNTRY_LABEL: "DE"}),
    "a node that says so already gets nothing": (node(country="DE"), "DE", False, {}),
    "what the row says more is added": (
        node(country="DE"),
        {"country": "DE", "operator": "FR"},
        False,
        {OPERATOR_LABEL: "FR"},
    ),
    "a node whose part is known keeps it": (node(country="DE", subdivision="DE-HE"), "DE", False, {}),
    "a node that is known more closely stays so": (
        node(country="FR", subdivision="FR-75C"),
        {"country": "FR", "subdivision": "FR-IDF"},
        False,
        {},
    ),
    "a node that moved moves": (node(country="DE"), "FR", True, {COUNTRY_LABEL: "FR"}),
    "a node that moved leaves its part behind": (
        node(country="DE", subdivision="DE-HE"),
        "FR",
        True,
        {COUNTRY_LABEL: "FR", SUBDIVISION_LABEL: None},
    ),
    "evidence is renewed in place": (
        node(country="DE", evidence_time="20250101T000000Z"),
        {"country": "DE", "evidence-time": "20260101T000000Z"},
        False,
        {EVIDENCE_TIME_LABEL: "20260101T000000Z"},
    ),
}


def labelled(one: Node, written: object, *, overwrite: bool = False) -> Labelling:
    (found,) = places.by_region([one], {"r": row(written)}, overwrite=overwrite)
    return found


@pytest.mark.parametrize(("one", "written", "overwrite", "writes"), COMES_TO.values(), ids=COMES_TO.keys())
def test_a_row_comes_to_what_is_written_on_a_node(
    one: Node, written: object, overwrite: bool, writes: dict[str, str | None]
) -> None:
    found = labelled(one, written, overwrite=overwrite)
    assert found.refused == ""
    assert found.writes == writes


REFUSED: dict[str, tuple[Node, object, str]] = {
    "a node that stands elsewhere": (node(country="US"), "DE", "country=US): say --overwrite"),
    "a node whose operator is another": (node(operator="US"), {"country": "DE", "operator": "DE"}, "operator=US"),
    "a node whose clearance is another": (
        node(clearance="Public"),
        {"country": "DE", "clearance": "Internal"},
        "clearance=Public",
    ),
    "a node whose part would go": (node(country="DE", subdivision="DE-HE"), "FR", "subdivision=DE-HE"),
    "a node whose region nobody wrote down": (node(region="elsewhere"), "DE", "does not know elsewhere"),
    "a node without a region": (node(region=""), "DE", "says no region"),
}


@pytest.mark.parametrize(("one", "written", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_row_cannot_say_of_a_node_is_refused(one: Node, written: object, why: str) -> None:
    found = labelled(one, written)
    assert found.writes == {}
    assert why in found.refused


def test_a_list_labels_the_nodes_that_it_names_and_no_others() -> None:
    claim = places.read({"country": "DE"}, "--", LEVELS, NOW_TIME)
    nodes = [a.node(name, country="") for name in ("c", "a", "b")]
    found = places.by_name(nodes, ("c", "a"), claim, overwrite=False)
    assert [(one.node.name, places.told(one.writes)) for one in found] == [("a", "country=DE"), ("c", "country=DE")]


def test_a_part_alone_needs_a_country_that_it_is_in() -> None:
    claim = places.read({"subdivision": "DE-HE"}, "--", LEVELS, NOW_TIME)
    assert places.labelling(node(country="DE"), claim, overwrite=False).writes == {SUBDIVISION_LABEL: "DE-HE"}
    assert "say its country too" in places.labelling(node(country="FR"), claim, overwrite=True).refused
    assert "say its country too" in places.labelling(node(), claim, overwrite=False).refused


def test_the_table_that_we_ship_holds_nothing_wrong_and_says_whose_each_region_is() -> None:
    rows = yaml.safe_load(EXAMPLE.read_text())["residency"]["regions"]
    _, problems = places.read_table(rows, LEVELS, NOW_TIME)
    assert problems == ()
    assert {region.partition("/")[0] for region in rows} == {"aws", "azure", "gce", "hcloud", "scaleway"}


ROWS: dict[str, tuple[dict[str, str], str, str]] = {
    "a region of its own provider": ({"aws/eu-west-1": "IE", "alicloud/eu-west-1": "GB"}, "aws", "IE"),
    "the same name at another provider": ({"aws/eu-west-1": "IE", "alicloud/eu-west-1": "GB"}, "alicloud", "GB"),
    "a provider's own row before that for all": ({"eu-west-1": "GB", "aws/eu-west-1": "IE"}, "aws", "IE"),
    "a row for all where its provider has none": ({"eu-west-1": "GB", "aws/eu-west-1": "IE"}, "", "GB"),
    "no row": ({"aws/eu-west-1": "IE"}, "gce", ""),
}


@pytest.mark.parametrize(("rows", "provider", "country"), ROWS.values(), ids=ROWS.keys())
def test_a_region_is_looked_up_as_its_provider_s_own(rows: dict[str, str], provider: str, country: str) -> None:
    table, _ = places.read_table(rows, LEVELS, NOW_TIME)
    one = a.node(country="", labels={REGION_LABEL: "eu-west-1"}, provider=provider)
    (found,) = places.by_region([one], table, overwrite=False)
    assert found.writes == ({COUNTRY_LABEL: country} if country else {})
    assert bool(found.refused) is not bool(country)
