"""The law as CEL reads it: what is written for each axis, and which terms hold it."""

from __future__ import annotations

import pytest

from laws import ROWS, Row
from lift_rule import term_is_lawful
from penstock.api.names import COUNTRY_LABEL, OPERATOR_LABEL, SUBDIVISION_LABEL
from penstock.core.model import Residency
from penstock.core.placement.scheduling import Operator, Requirement
from penstock.core.residency import alternatives
from penstock.core.residency.annotations import AXES, annotation, of_pool, read, written

IN, NOT_IN, EXISTS = Operator.IN, Operator.NOT_IN, Operator.EXISTS
FREE = dict.fromkeys(AXES, "*")
KNOWN = {**FREE, "country": "!"}


def codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


TEXTS: dict[str, tuple[Residency, dict[str, str]]] = {
    "no law is any": (Residency(), {}),
    "what is allowed": (Residency(True, codes("FR DE")), {"country": "DE,FR"}),
    "what is denied is taken off what is allowed": (Residency(True, codes("FR DE"), denied_countries=codes("FR")), {
        "country": "DE"
    }),
    "only denied": (Residency(True, denied_countries=codes("US IE")), {"country": "!IE,!US"}),
    "a part is lawful by itself": (Residency(True, codes("FR"), codes("DE-HE")), {
        "country": "FR",
        "subdivision": "DE-HE",
    }),
    "only parts": (Residency(True, codes(""), codes("DE-HE")), {"country": "", "subdivision": "DE-HE"}),
    "a denied part of a lawful country": (Residency(True, codes("US"), denied_subdivisions=codes("US-VA")), {
        "country": "US",
        "subdivision": "!US-VA",
    }),
    "a denied part of a country that is not lawful says nothing": (
        Residency(True, codes("DE"), denied_subdivisions=codes("US-VA")),
        {"country": "DE"},
    ),
    "a denied part of anywhere": (
        Residency(True, denied_countries=codes("RU"), denied_subdivisions=codes("US-VA RU-MOW")),
        {"country": "!RU", "subdivision": "!US-VA"},
    ),
    "nationalities": (Residency(True, operators=codes("DE FR"), denied_operators=codes("FR")), {
        "country": "!",
        "operator": "DE",
    }),
    "denied nationalities": (Residency(True, denied_operators=codes("US")), {"country": "!", "operator": "!US"}),
    "levels and kinds": (Residency(True, clearances=codes("B A"), evidences=codes("TPM")), {
        "country": "!",
        "clearance": "A,B",
        "evidence": "TPM",
    }),
    "nothing at all": (Residency(True, codes("")), {"country": ""}),
}  # fmt: skip


@pytest.mark.parametrize(("law", "texts"), TEXTS.values(), ids=TEXTS.keys())
def test_an_axis_is_a_text(law: Residency, texts: dict[str, str]) -> None:
    assert written(law) == {**FREE, **texts}
    assert written(read(written(law))) == {**FREE, **texts}, "what is read back says the same"


def test_a_pool_goes_by_its_own_annotations_where_it_has_some_and_a_missing_law_allows_nothing() -> None:
    texts = {annotation(axis): text for axis, text in {**FREE, "country": "DE"}.items()}
    own = {annotation(axis, "traders"): text for axis, text in {**FREE, "country": "CH"}.items()}
    assert of_pool({**texts, **own}, "traders").allowed_countries == frozenset({"CH"})
    assert of_pool({**texts, **own}, "llama").allowed_countries == frozenset({"DE"})
    assert alternatives(of_pool({}, "llama")) == ()


def test_a_pool_under_an_exception_has_annotations_of_its_own() -> None:
    assert annotation("country") == "law.penstock.dev/country"
    assert annotation("country", "llama") == "country.law.penstock.dev/llama"


def country(operator: Operator, values: str = "") -> Requirement:
    return Requirement(COUNTRY_LABEL, operator, tuple(values.split()))


def part(operator: Operator, values: str = "") -> Requirement:
    return Requirement(SUBDIVISION_LABEL, operator, tuple(values.split()))


GERMANY = {**FREE, "country": "DE,FR"}
NO_US = {**FREE, "country": "!US"}
NO_VIRGINIA = {**FREE, "country": "US,DE", "subdivision": "!US-VA"}
HESSE = {**FREE, "country": "FR", "subdivision": "DE-HE"}
ANYWHERE_BUT_VIRGINIA = {**KNOWN, "subdivision": "!US-VA"}

TERMS: dict[str, tuple[bool, dict[str, str], tuple[Requirement, ...]]] = {
    "no law holds of every term": (True, FREE, ()),
    "a missing law of none": (False, {}, (country(IN, "DE"),)),
    "an empty law of none": (False, dict.fromkeys(AXES, ""), (country(IN, "DE"),)),
    "one missing axis of none": (False, {"country": "DE", "subdivision": "*", "operator": "*", "clearance": "*"},
                                 (country(IN, "DE"),)),
    "a missing subdivision of none": (False, {**GERMANY, "subdivision": ""}, (country(IN, "DE"),)),
    "a country of the list": (True, GERMANY, (country(IN, "DE"),)),
    "one more than the list": (False, GERMANY, (country(IN, "DE US"),)),
    "no country": (False, GERMANY, ()),
    "a known country": (False, GERMANY, (country(EXISTS),)),
    "every country but one": (False, GERMANY, (country(EXISTS), country(NOT_IN, "US"))),
    "two rules of which one is inside": (True, GERMANY, (country(IN, "DE US"), country(IN, "DE"))),
    "a country that is not denied": (True, NO_US, (country(IN, "DE"),)),
    "a denied one among others": (False, NO_US, (country(IN, "DE US"),)),
    "known and not the denied one": (True, NO_US, (country(EXISTS), country(NOT_IN, "US RU"))),
    "not the denied one, and perhaps unknown": (False, NO_US, (country(NOT_IN, "US"),)),
    "known and not another one": (False, NO_US, (country(EXISTS), country(NOT_IN, "RU"))),
    "any known country": (True, KNOWN, (country(EXISTS),)),
    "any country that is named": (True, KNOWN, (country(IN, "DE US"),)),
    "any known country but one": (True, KNOWN, (country(EXISTS), country(NOT_IN, "US"))),
    "a country that nobody knows": (False, KNOWN, ()),
    "not this one, and perhaps unknown": (False, KNOWN, (country(NOT_IN, "US"),)),
    "a country of which no part is denied": (True, NO_VIRGINIA, (country(IN, "DE"),)),
    "a country of which a part is": (False, NO_VIRGINIA, (country(IN, "US"),)),
    "its other parts, known": (True, NO_VIRGINIA, (country(IN, "US"), part(EXISTS), part(NOT_IN, "US-VA"))),
    "its other parts, perhaps unknown": (False, NO_VIRGINIA, (country(IN, "US"), part(NOT_IN, "US-VA"))),
    "another part by name": (True, NO_VIRGINIA, (country(IN, "US"), part(IN, "US-TX"))),
    "the denied part by name": (False, NO_VIRGINIA, (country(IN, "US"), part(IN, "US-VA US-TX"))),
    "a part that is lawful by itself": (True, HESSE, (country(IN, "DE"), part(IN, "DE-HE"))),
    "that part without its country": (False, HESSE, (part(IN, "DE-HE"),)),
    "that part with one more country": (False, HESSE, (country(IN, "DE US"), part(IN, "DE-HE"))),
    "that part and another": (False, HESSE, (country(IN, "DE"), part(IN, "DE-HE DE-BY"))),
    "a whole country beside": (True, HESSE, (country(IN, "FR"),)),
    "a whole country and a part in one term": (False, HESSE, (country(IN, "DE FR"), part(IN, "DE-HE FR-IDF"))),
    "anywhere but a part, elsewhere": (True, ANYWHERE_BUT_VIRGINIA, (country(EXISTS), country(NOT_IN, "US"))),
    "anywhere but a part, unproven": (False, ANYWHERE_BUT_VIRGINIA, ()),
    "an axis beside the place": (False, {**FREE, "operator": "DE"}, (country(IN, "DE"),)),
    "an axis without a law of place": (True, {**FREE, "operator": "DE"}, (Requirement(OPERATOR_LABEL, IN, ("DE",)),)),
}  # fmt: skip


@pytest.mark.parametrize(("lawful", "texts", "term"), TERMS.values(), ids=TERMS.keys())
def test_a_term_holds_the_law_or_it_does_not(
    lawful: bool, texts: dict[str, str], term: tuple[Requirement, ...]
) -> None:
    assert term_is_lawful(term, texts) is lawful


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_what_the_core_compiles_of_the_table_holds_what_it_writes(row: Row) -> None:
    texts = written(row.law.residency)
    assert [way for way in alternatives(row.law.residency) if not term_is_lawful(way, texts)] == []
