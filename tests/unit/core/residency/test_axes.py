"""Which axis keeps a node out is told: the first in the order of the labels, and what is missing as missing."""

from __future__ import annotations

import pytest

import builders as a
from laws import Row, Spec
from penstock.api.names import OPERATOR_LABEL
from penstock.core.placement import choice as placement
from penstock.core.residency import axes, isolation

ROWS: dict[str, tuple[str, str, Spec]] = {
    "another country": ("by country", "country=US", {"allowed": ["DE"]}),
    "a denied country": ("by country", "country=US", {"denied": ["US"]}),
    "no country at all": ("with no country", "operator=DE", {"allowed": ["DE"]}),
    "a denied part of an allowed country": (
        "by subdivision",
        "country=US part=US-VA",
        {"allowed": ["US"], "denied": ["US-VA"]},
    ),
    "a country whose part is not said": ("with no subdivision", "country=US", {"allowed": ["US"], "denied": ["US-VA"]}),
    "another part than the one allowed": ("by subdivision", "country=DE part=DE-BY", {"allowed": ["DE-HE"]}),
    "a part of another country": ("by subdivision", "country=FR part=DE-HE", {"allowed": ["FR"]}),
    "another operator": (
        "by operator",
        "country=DE operator=US",
        {"allowed": ["DE"], "operator": {"allowed": ["EU"]}},
    ),
    "an operator that nobody says": ("with no operator", "country=DE", {"operator": {"denied": ["US"]}}),
    "too low a clearance": ("by clearance", "country=DE clearance=Public", {"clearance": "Internal"}),
    "too weak an evidence": ("by evidence", "country=DE evidence=Declared", {"evidence": {"minimum": "TPM"}}),
    "the country first of all that is wrong": (
        "by country",
        "country=US clearance=Public",
        {"allowed": ["DE"], "clearance": "Internal"},
    ),
    "by every label it would do": ("by evidence-time", "country=DE", {"allowed": ["DE"]}),
}


@pytest.mark.parametrize(("told", "node", "policy"), ROWS.values(), ids=ROWS)
def test_the_first_axis_that_keeps_a_node_out_is_told(told: str, node: str, policy: Spec) -> None:
    row = Row(lawful=False, node=node, policies=(policy,))
    assert axes.told(row.law.residency, a.node(country="", labels=row.labels)) == told


def test_who_is_isolated_is_told_whose_law_it_was_and_by_what_beside_the_place() -> None:
    row = Row(
        lawful=False,
        node="country=DE operator=US",
        policies=({"allowed": ["DE"]}, {"operator": {"denied": ["US"]}}),
    )
    node = a.node("n1", country="", labels=row.labels)
    assert isolation.sentence(node, row.law) == "node n1 (DE) is outside ResidencyPolicy/p1@1 by operator"
    abroad = a.node("n2", country="FR", labels={OPERATOR_LABEL: "DE"})
    assert isolation.sentence(abroad, row.law) == "node n2 (FR) is outside ResidencyPolicy/p0@1"


def test_a_wait_counts_the_nodes_that_each_axis_keeps_out() -> None:
    row = Row(lawful=False, node="", policies=({"allowed": ["DE"], "operator": {"denied": ["US"]}},))
    nodes = [a.node(f"us-{at}", country="US") for at in range(3)]
    nodes += [a.node("by-us", labels={OPERATOR_LABEL: "US"}), a.node("unsaid"), a.node("nowhere", country="")]
    (wait,) = placement.plan(a.fleet(*nodes), [a.replica(residency=row.law.residency)], (), 0.0).waiting
    counted = "3 by country, 1 by operator, 1 with no operator, 1 with no country"
    assert wait.message == f"0/6 nodes: 6 outside the law ({counted})"


def test_who_is_isolated_since_its_evidence_is_too_old_is_told_who_demands_that_and_nobody_else() -> None:
    daily = {"minimum": "Declared", "maxAge": "24h"}
    row = Row(
        lawful=False,
        node="country=DE evidence=Declared",
        policies=(
            {"allowed": ["DE"], "evidence": {**daily, "onExpiry": "Drain"}},
            {"allowed": ["DE"], "evidence": {**daily, "maxAge": "1h"}},
            {"denied": ["US"]},
        ),
    )
    node = a.node("n1", country="", labels=row.labels)
    assert isolation.sentence(node, row.law) == "node n1 (DE) is outside ResidencyPolicy/p0@1 by evidence-time"
