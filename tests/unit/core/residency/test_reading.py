"""What pools wrote of their places, as demands; and what of it no schema can judge."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api import inferencepool
from penstock.core.model import Residency
from penstock.core.residency import reading
from penstock.core.residency.ceiling import Demand
from penstock.core.residency.groups import NO_GROUPS, Group, Groups


def read(residency: dict[str, Any]) -> reading.Reading[Demand]:
    return reading.pool(inferencepool.Residency.model_validate(residency), HANSE)


def codes(*written: str) -> frozenset[str]:
    return frozenset(written)


HANSE = Groups({"hanse": Group("1356", codes("DE-HB", "SE")), "eu": Group("2020-02-01", codes("DE", "FR", "IE"))})


@pytest.mark.parametrize(
    ("sentence", "residency", "expected"),
    (
        ("no rule is no law", {}, Residency()),
        ("an empty denied list is no law", {"denied": []}, Residency()),
        ("countries and subdivisions are told apart", {"allowed": ["DE", "US-VA"], "denied": ["DE-BE", "FR"]},
         Residency(True, codes("DE"), codes("US-VA"), codes("FR"), codes("DE-BE"))),
        ("only subdivisions allowed allows no whole country", {"allowed": ["DE-HE"]},
         Residency(True, codes(), codes("DE-HE"), codes(), codes())),
        ("only denied allows every other country", {"denied": ["RU"]},
         Residency(True, None, codes(), codes("RU"), codes())),
        ("the common name of a country is the country", {"allowed": ["UK"], "denied": ["EL-I", "EL"]},
         Residency(True, codes("GB"), codes(), codes("GR"), codes("GR-I"))),
        ("a group is its codes, in any case", {"allowed": ["EU", "Hanse"]},
         Residency(True, codes("DE", "FR", "IE", "SE"), codes("DE-HB"))),
        ("a part of a country is all that lies in it", {"allowed": ["ES-EX"]},
         Residency(True, codes(), codes("ES-EX", "ES-BA", "ES-CC"))),
        ("where a part is denied, who knows no more than the whole that it is in is out", {"denied": ["ES-CC"]},
         Residency(True, None, denied_subdivisions=codes("ES-EX", "ES-CC"))),
        ("the nationality of control is an axis of its own", {"operator": {"allowed": ["EU"], "denied": ["IE"]}},
         Residency(True, operators=codes("DE", "FR", "IE"), denied_operators=codes("IE"))),
        ("what is to be done about a violation is no law", {"onViolation": "Evict"}, Residency()),
    ),
)  # fmt: skip
def test_residency(sentence: str, residency: dict[str, Any], expected: Residency) -> None:
    assert read(residency).found.residency == expected


def test_what_is_read_otherwise_than_it_is_written_is_said() -> None:
    assert read({"allowed": ["DE", "UK"], "operator": {"denied": ["EL"]}}).notes == (
        "spec.residency.allowed[1]: UK is read as GB: ISO 3166 has no UK",
        "spec.residency.operator.denied[0]: EL is read as GR: ISO 3166 has no EL",
    )


@pytest.mark.parametrize(
    ("sentence", "residency", "found"),
    (
        ("the common name of the United Kingdom is no problem", {"allowed": ["DE", "UK"]}, []),
        ("a country that is gone", {"allowed": ["DE", "AN"]},
         [("spec.residency.allowed[1]", "AN", "withdrew AN (Netherlands Antilles) in 2010")]),
        ("a part of a country that is gone", {"denied": ["DD-X"]},
         [("spec.residency.denied[0]", "DD-X", "withdrew DD (German Democratic Republic) in 1990")]),
        ("a group that nobody made, named as a country is", {"allowed": ["EZ"]},
         [("spec.residency.allowed[0]", "EZ", "no JurisdictionGroup ez, and ISO 3166-1 has no country EZ")]),
        ("a group that nobody made", {"denied": ["Nordics"]},
         [("spec.residency.denied[0]", "Nordics", "no JurisdictionGroup nordics: create it")]),
        ("a nationality that does not exist", {"operator": {"denied": ["SU"]}},
         [("spec.residency.operator.denied[0]", "SU", "withdrew SU")]),
        ("a group with a part of a country in it as a nationality", {"operator": {"allowed": ["Hanse"]}},
         [("spec.residency.operator.allowed", "hanse", "it has DE-HB in it")]),
        ("a part that its country does not have", {"allowed": ["DE-XX"]},
         [("spec.residency.allowed[0]", "DE-XX", "write DE or a part of it such as DE-BB")]),
        ("all problems are found, not the first", {"allowed": ["AN", "DE", "ZZ"], "denied": ["QQ"]},
         [("spec.residency.allowed[0]", "AN", "withdrew"), ("spec.residency.allowed[2]", "ZZ", "alpha-2"),
          ("spec.residency.denied[0]", "QQ", "alpha-2")]),
        ("an existing part of an existing country is no problem", {"allowed": ["DE-HE"], "denied": ["GB-ENG"]}, []),
        ("a country with one part denied is no problem", {"allowed": ["DE"], "denied": ["DE-HE"]}, []),
    ),
)  # fmt: skip
def test_problems(sentence: str, residency: dict[str, Any], found: list[tuple[str, str, str]]) -> None:
    problems = read(residency).problems
    assert [(one.field, one.value) for one in problems] == [(field, value) for field, value, _ in found]
    for problem, (_, _, remedy) in zip(problems, found, strict=True):
        assert remedy in problem.remedy


def test_a_law_that_leaves_nothing_is_a_problem_even_where_the_schema_of_its_day_let_it_pass() -> None:
    stored = inferencepool.Residency().model_copy(update={"allowed": ("DE", "FR"), "denied": ("FR", "DE")})
    (problem,) = reading.pool(stored, NO_GROUPS).problems
    assert (problem.field, problem.value) == ("spec.residency.allowed", "DE, FR")
    assert "take one out of denied" in problem.remedy
