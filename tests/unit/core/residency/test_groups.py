"""Groups of places: taken apart, cited in any case, and never brought down by a typo in one of them."""

from __future__ import annotations

import pytest

from penstock.core.residency import iso
from penstock.core.residency.groups import Group, Groups, Reading, Written, in_force, read

EU = Written("2020-02-01", ("DE", "FR", "EL"))
EEA = Written("2020-02-01", ("EU", "NO"))


def codes(*written: str) -> frozenset[str]:
    return frozenset(written)


def known(found: Reading) -> dict[str, tuple[str, ...]]:
    return {name: tuple(sorted(group.codes)) for name, group in found.groups.known.items()}


GOOD: dict[str, tuple[dict[str, Written], dict[str, tuple[str, ...]]]] = {
    "codes are members": ({"eu": EU}, {"eu": ("DE", "FR", "GR")}),
    "a group is a member, in any case": (
        {"eea": EEA, "eu": EU, "more": Written("1", ("Eea", "CH"))},
        {
            "eu": ("DE", "FR", "GR"),
            "eea": ("DE", "FR", "GR", "NO"),
            "more": ("CH", "DE", "FR", "GR", "NO"),
        },
    ),
    "parts of countries are members": ({"hanse": Written("1", ("DE-HH", "SE"))}, {"hanse": ("DE-HH", "SE")}),
}


@pytest.mark.parametrize(("written", "found"), GOOD.values(), ids=GOOD.keys())
def test_a_group_is_its_codes(written: dict[str, Written], found: dict[str, tuple[str, ...]]) -> None:
    reading = in_force(written, {})
    assert reading.problems == {}
    assert known(reading) == found


BAD: dict[str, tuple[dict[str, Written], str, str, str, str]] = {
    "a country that does not exist": ({"x": Written("1", ("DE", "ZZ"))}, "x", "spec.members[1]", "ZZ", "no country ZZ"),
    "a country that is gone": ({"x": Written("1", ("CS",))}, "x", "spec.members[0]", "CS", "withdrew CS"),
    "a group that nobody made": (
        {"x": Written("1", ("Benelux",))},
        "x",
        "spec.members[0]",
        "Benelux",
        "no JurisdictionGroup benelux: create it",
    ),
    "a group of the chart that is not there yet": (
        {"x": Written("1", ("EEA",))},
        "x",
        "spec.members[0]",
        "EEA",
        "no JurisdictionGroup eea: the chart brings it",
    ),
    "a group that never had a valid list": (
        {"x": Written("1", ("broken",)), "broken": Written("1", ("ZZ",))},
        "x",
        "spec.members[0]",
        "broken",
        "JurisdictionGroup broken never had a valid list: mend it",
    ),
    "a group named as a country is": (
        {"fr": Written("1", ("DE",))},
        "fr",
        "metadata.name",
        "fr",
        "FR is a code of ISO",
    ),
    "a group named as a country is called": (
        {"uk": Written("1", ("DE",))},
        "uk",
        "metadata.name",
        "uk",
        "another name",
    ),
    "a group named as a part of a country is": (
        {"de-he": Written("1", ("DE",))},
        "de-he",
        "metadata.name",
        "de-he",
        "DE-HE is a code of ISO",
    ),
    "a group that is its own member": ({"x1": Written("1", ("X1",))}, "x1", "spec.members[0]", "X1", "take one out"),
    "the first of a circle": (
        {"one": Written("1", ("two",)), "two": Written("1", ("DE", "one"))},
        "one",
        "spec.members[0]",
        "two",
        "two has one among its own members: take one out",
    ),
    "the second of a circle": (
        {"one": Written("1", ("two",)), "two": Written("1", ("DE", "one"))},
        "two",
        "spec.members[1]",
        "one",
        "one has two among its own members: take one out",
    ),
}


@pytest.mark.parametrize(("written", "name", "field", "value", "remedy"), BAD.values(), ids=BAD.keys())
def test_a_group_that_cannot_be_read_says_why(
    written: dict[str, Written], name: str, field: str, value: str, remedy: str
) -> None:
    reading = in_force(written, {})
    (problem,) = reading.problems[name]
    assert (problem.field, problem.value) == (field, value)
    assert remedy in problem.remedy
    assert name not in reading.groups.known


def test_what_was_valid_last_stays_in_force_for_the_group_and_for_those_that_cite_it() -> None:
    recalled = {"eu": Group("2020-02-01", codes("DE", "FR"))}
    reading = in_force({"eea": EEA, "eu": Written("2026-11-21", ("DE", "FX"))}, recalled)
    assert list(reading.problems) == ["eu"]
    assert reading.groups.known["eu"] == recalled["eu"]
    assert reading.groups.known["eea"].codes == {"DE", "FR", "NO"}


def test_a_group_that_is_deleted_is_gone_and_who_cites_it_keeps_what_it_read() -> None:
    recalled = {"eu": Group("1", codes("DE")), "eea": Group("2", codes("DE", "NO"))}
    reading = in_force({"eea": EEA}, recalled)
    assert "eu" not in reading.groups.known
    assert reading.groups.known["eea"] == recalled["eea"]
    assert [problem.value for problem in reading.problems["eea"]] == ["EU"]


def test_a_group_whose_spec_nobody_can_read_is_what_it_was_last() -> None:
    reading = in_force({"eea": EEA, "eu": None, "new": None}, {"eu": Group("1", codes("DE"))})
    assert known(reading) == {"eu": ("DE",), "eea": ("DE", "NO")}
    assert reading.groups.broken == {"new"}


def test_a_circle_is_no_group_whoever_was_valid_before() -> None:
    written = {"one": Written("2", ("two",)), "two": Written("2", ("one", "DE"))}
    reading = in_force(written, {"two": Group("1", codes("DE"))})
    assert set(reading.problems) == {"one", "two"}
    assert known(reading) == {"two": ("DE",)}


def test_a_name_that_is_a_code_is_never_a_group_even_where_it_was_one() -> None:
    assert known(in_force({"fr": Written("1", ("DE",))}, {"fr": Group("1", codes("DE"))})) == {}


def test_what_is_read_otherwise_than_it_is_written_is_said_of_the_group_that_writes_it() -> None:
    reading = in_force({"eu": EU, "eea": EEA}, {})
    assert reading.notes == {"eu": ("spec.members[2]: EL is read as GR: ISO 3166 has no EL",)}


def test_a_code_wins_over_a_group_of_its_name() -> None:
    assert read("x", ("FR",), Groups({"fr": Group("1", codes("DE"))})).codes == {"FR"}


def test_the_digest_is_of_names_versions_and_codes_and_of_nothing_else() -> None:
    eu, eea = Group("1", codes("DE", "FR")), Group("1", codes("NO"))
    same = {Groups({"eu": eu, "eea": eea}).digest, Groups({"eea": eea, "eu": eu}, codes("broken")).digest}
    others = {
        Groups({"eu": eu}).digest,
        Groups({"eu": eu, "eeb": eea}).digest,
        Groups({"eu": Group("2", eu.codes), "eea": eea}).digest,
        Groups({"eu": Group("1", codes("DE")), "eea": eea}).digest,
    }
    assert (len(same), len(others), len(same | others)) == (1, 4, 5)


@pytest.mark.parametrize(
    ("code", "inside"),
    (("DE-HE", ()), ("FR-IDF", ("FR-75C", "FR-92")), ("GB-ENG", ("GB-LND",)), ("ES-EX", ("ES-BA", "ES-CC"))),
)
def test_what_lies_in_a_part_of_a_country_is_in_it(code: str, inside: tuple[str, ...]) -> None:
    assert {code, *inside} <= iso.within((code,))
    assert code in iso.touching(inside or (code,))


OUTERMOST: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a part beside its country says nothing": (("DE", "DE-HE"), ("DE",)),
    "a part beside all that it lies in says nothing": (("ES-EX", "ES-BA", "ES-CC"), ("ES-EX",)),
    "what stands there for a part of it is not told": (("ES-EX", "ES-CC"), ("ES-CC",)),
    "what stands there by itself is": (("ES-EX",), ("ES-EX",)),
}


@pytest.mark.parametrize(("given", "told"), OUTERMOST.values(), ids=OUTERMOST.keys())
def test_people_are_told_the_outermost(given: tuple[str, ...], told: tuple[str, ...]) -> None:
    assert iso.outermost(given) == frozenset(told)
