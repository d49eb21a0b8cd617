"""From ISO codes to the requirements that a lift adds, for each kind of node."""

from __future__ import annotations

import pytest

import builders as a
from penstock.api.names import COUNTRY_LABEL, SUBDIVISION_LABEL
from penstock.core import residency
from penstock.core.model import Node, Residency
from penstock.core.placement.scheduling import Operator, Requirement


def law(
    allowed: str | None = None,
    subdivisions: str = "",
    denied: str = "",
    denied_parts: str = "",
    restricted: bool = True,
) -> Residency:
    return Residency(
        restricted=restricted,
        allowed_countries=None if allowed is None else frozenset(allowed.split()),
        allowed_subdivisions=frozenset(subdivisions.split()),
        denied_countries=frozenset(denied.split()),
        denied_subdivisions=frozenset(denied_parts.split()),
    )


def country(operator: Operator, *codes: str) -> Requirement:
    return Requirement(COUNTRY_LABEL, operator, codes)


def part(operator: Operator, *codes: str) -> Requirement:
    return Requirement(SUBDIVISION_LABEL, operator, codes)


IN, NOT_IN, EXISTS = Operator.IN, Operator.NOT_IN, Operator.EXISTS
HESSE = a.node(country="DE", subdivision="DE-HE")
GERMANY = a.node(country="DE")
VIRGINIA = a.node(country="US", subdivision="US-VA")
TEXAS = a.node(country="US", subdivision="US-TX")
AMERICA = a.node(country="US")
NOWHERE = a.node(country="")
LIAR = a.node(country="FR", subdivision="DE-HE")
PART_ALONE = a.node(country="", subdivision="DE-HE")

CASES: dict[str, tuple[Residency, Node, tuple[Requirement, ...] | None]] = {
    "without a rule a node of unknown place will do": (law(restricted=False), NOWHERE, ()),
    "without a rule a place that contradicts itself is nobody's concern": (law(restricted=False), LIAR, ()),
    "an allowed country must be one of them": (law("DE FR"), GERMANY, (country(IN, "DE", "FR"),)),
    "another country is outside": (law("FR"), GERMANY, None),
    "unknown place is outside": (law("DE"), NOWHERE, None),
    "a place that contradicts itself is outside": (law("FR DE"), LIAR, None),
    "deny wins over allow": (law("DE FR", denied="DE"), GERMANY, None),
    "a denied country leaves the list": (law("DE FR", denied="FR"), GERMANY, (country(IN, "DE"),)),
    "a pool that only denies still needs a known place": (law(denied="US"), NOWHERE, None),
    "a pool that only denies takes every other known country": (
        law(denied="US"),
        GERMANY,
        (country(EXISTS), country(NOT_IN, "US")),
    ),
    "a rule that names nothing needs a known place": (law(), GERMANY, (country(EXISTS),)),
    "an allowed subdivision must be the node's": (
        law("", "DE-HE"),
        HESSE,
        (country(IN, "DE"), part(IN, "DE-HE")),
    ),
    "a node that knows only its country is in no subdivision": (law("", "US-VA"), AMERICA, None),
    "a subdivision alone does not prove its country": (law("", "DE-HE"), PART_ALONE, None),
    "a subdivision of a denied country is outside": (law("", "US-VA", denied="US"), VIRGINIA, None),
    "a denied subdivision leaves the rest of its country": (
        law("US DE", denied_parts="US-VA"),
        TEXAS,
        (country(IN, "US"), part(EXISTS), part(NOT_IN, "US-VA")),
    ),
    "a denied subdivision is outside": (law("US", denied_parts="US-VA"), VIRGINIA, None),
    "where a part is denied, not to know the part is outside": (law("US", denied_parts="US-VA"), AMERICA, None),
    "a country without denied parts needs no subdivision": (
        law("US DE", denied_parts="US-VA"),
        GERMANY,
        (country(IN, "DE"),),
    ),
    "only a denied part: other countries need none of theirs": (
        law(denied_parts="US-VA"),
        GERMANY,
        (country(EXISTS), country(NOT_IN, "US")),
    ),
    "allow and deny that leave nothing leave no place on earth": (law("DE", denied="DE"), HESSE, None),
}


@pytest.mark.parametrize(("rule", "node", "want"), CASES.values(), ids=CASES.keys())
def test_law(rule: Residency, node: Node, want: tuple[Requirement, ...] | None) -> None:
    assert residency.law(rule, node) == want


CODES: dict[str, tuple[Residency, tuple[str, ...]]] = {
    "what is denied leaves the list and is told": (law("DE FR", denied="FR"), ("DE", "!FR")),
    "subdivisions stand beside countries": (law("DE", "US-TX US-VA", denied_parts="US-VA"), ("DE", "US-TX", "!US-VA")),
    "only denials name no place to be": (law(denied="US"), ("!US",)),
    "no rule, no codes": (law("DE", restricted=False), ()),
}


@pytest.mark.parametrize(("rule", "want"), CODES.values(), ids=CODES.keys())
def test_codes(rule: Residency, want: tuple[str, ...]) -> None:
    assert residency.codes(rule) == want
