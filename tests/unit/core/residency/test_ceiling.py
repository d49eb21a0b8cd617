"""One law of many demands: the table, who made it, and who is at odds."""

from __future__ import annotations

from dataclasses import replace

import pytest

import builders as a
from laws import AXES, CEILINGS, EXCEPTIONS, GROUP_ROWS, GROUPS, LEVELS, PLACES, ROWS, Row
from penstock.api.inferencepool import Residency as PoolResidency
from penstock.api.residencyexception import Widened
from penstock.api.residencypolicy import Action, ResidencyPolicySpec
from penstock.core.model import Residency
from penstock.core.residency import law, reading
from penstock.core.residency.ceiling import Demand, Widening, effective, strictest, under
from penstock.core.residency.reading import NOWHERE


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_the_table_is_the_law(row: Row) -> None:
    node = a.node(country="", labels=row.labels)
    assert (law(row.law.residency, node) is not None) is row.lawful


def test_no_row_of_the_table_hides_another() -> None:
    assert len(ROWS) == sum(map(len, (PLACES, GROUP_ROWS, CEILINGS, AXES, EXCEPTIONS))) >= 60


def demand(source: str, allowed: str = "", denied: str = "") -> Demand:
    places = Residency(
        restricted=True,
        allowed_countries=frozenset(allowed.split()) if allowed else None,
        denied_countries=frozenset(denied.split()),
    )
    return Demand(source, places, policy=source)


GERMANY, FRANCE, NO_US = demand("germany", "DE"), demand("france", "FR"), demand("no-us", denied="US")

CONFLICTS: dict[str, tuple[tuple[Demand, ...], tuple[str, ...] | None]] = {
    "nobody": ((), None),
    "one": ((GERMANY,), None),
    "two that meet": ((GERMANY, NO_US), None),
    "two that do not": ((GERMANY, FRANCE), ("germany", "france")),
    "two of three: who could be spared is not named": ((GERMANY, NO_US, FRANCE), ("germany", "france")),
    "one that another empties by denying": ((demand("us", "US"), NO_US), ("us", "no-us")),
    "three that are empty only together": (
        (demand("a", "DE FR"), demand("b", "FR IE"), demand("c", "DE IE")),
        ("a", "b", "c"),
    ),
    "one that is empty by itself": ((GERMANY, Demand("typo", NOWHERE)), ("typo",)),
    "one in mode Audit is at odds with nobody": ((GERMANY, replace(FRANCE, enforced=False)), None),
}


@pytest.mark.parametrize(("demands", "sources"), CONFLICTS.values(), ids=CONFLICTS.keys())
def test_a_conflict_names_those_who_make_it(demands: tuple[Demand, ...], sources: tuple[str, ...] | None) -> None:
    found = effective(demands)
    assert (found.conflict.sources if found.conflict else None) == sources
    if found.conflict:
        assert " and ".join(found.conflict.sources) in str(found.conflict)


@pytest.mark.parametrize(
    ("said", "counts"),
    (
        ((), "Drain"),
        ((None,), "Drain"),
        (("Report",), "Report"),
        (("Report", "Isolate"), "Isolate"),
        (("Isolate", None), "Isolate"),
        (("Evict", "Drain"), "Evict"),
    ),
)
def test_of_several_answers_to_a_violation_the_strictest_counts(
    said: tuple[Action | None, ...], counts: Action
) -> None:
    assert strictest(said) == counts


def test_the_strictest_of_everything_else_counts_too() -> None:
    careful = replace(GERMANY, audit_required=True, on_violation="Evict")
    found = effective((careful, replace(NO_US, on_violation="Isolate")))
    assert (found.audit_required, found.on_violation) == (True, "Evict")


def test_a_policy_in_mode_audit_is_kept_apart() -> None:
    watching = replace(FRANCE, enforced=False, audit_required=True, on_violation="Report")
    found = effective((GERMANY, watching))
    assert (found.audited, found.sources, found.audit_required) == ((watching,), ("germany",), False)
    assert found.on_violation == "Drain"


def test_sources_and_groups_are_all_named_and_an_exception_only_where_it_widens() -> None:
    used = Widening("used", frozenset({"germany"}), countries=frozenset({"CH"}), groups=("efta@1",))
    idle = Widening("idle", frozenset({"france"}), groups=("other@1",))
    found = effective((replace(GERMANY, groups=("eu@1",)), replace(NO_US, groups=("eu@1", "eea@2"))), (used, idle))
    assert found.sources == ("germany", "no-us", "used")
    assert found.groups == ("eea@2", "efta@1", "eu@1")
    assert found.residency.allowed_countries == frozenset({"DE", "CH"})
    watching = effective((replace(GERMANY, groups=("eu@1",), enforced=False), NO_US), (used, idle))
    assert (watching.sources, watching.groups) == (("no-us", "used"), ("efta@1", "eu@1")), "of mode Audit too"


@pytest.mark.parametrize("own", (GERMANY, FRANCE, NO_US, Demand("spec", Residency())), ids=lambda one: one.source)
def test_a_pool_under_a_ceiling_is_all_of_them_together(own: Demand) -> None:
    ceiling = (replace(GERMANY, groups=("eu@1",)), replace(NO_US, enforced=False))
    own = replace(own, groups=("eea@1",), on_violation="Evict")
    assert under(effective(ceiling), own) == effective((*ceiling, own))


def test_the_youngest_evidence_of_all_is_asked_for() -> None:
    day = demand("day")
    aged = [replace(day, residency=replace(day.residency, evidence_max_age_seconds=age)) for age in (None, 90.0, 60.0)]
    assert effective(aged).residency.evidence_max_age_seconds == 60.0
    assert effective(aged[:1]).residency.evidence_max_age_seconds is None
    drains = replace(aged[1], drains_on_expiry=True)
    assert effective((drains, aged[2])).drains_after_seconds == 90.0, "the one of 60 s only holds placements"
    assert effective((drains, replace(aged[2], drains_on_expiry=True))).drains_after_seconds == 60.0
    assert effective(aged).drains_after_seconds is None


POLICY = {
    "namespaceSelector": {},
    "allowed": ["EEA", "CH"],
    "operator": {"allowed": ["EU"], "denied": ["IE"]},
    "clearance": "Confidential",
    "evidence": {"minimum": "TPM", "maxAge": "1h30m", "onExpiry": "Drain"},
    "onViolation": "Evict",
    "audit": "Required",
}


def test_every_field_of_a_policy_reaches_its_demand() -> None:
    read = reading.policy("eu-finance", "1841", ResidencyPolicySpec.model_validate(POLICY), GROUPS, LEVELS)
    assert (read.problems, read.notes) == ((), ())
    assert read.found == Demand(
        source="ResidencyPolicy/eu-finance@1841",
        policy="eu-finance",
        groups=("eea@2020-02-01", "eu@2020-02-01"),
        on_violation="Evict",
        audit_required=True,
        drains_on_expiry=True,
        waits_for_layers=True,
        residency=Residency(
            restricted=True,
            allowed_countries=frozenset({"DE", "FR", "IE", "GR", "NO", "CH"}),
            operators=frozenset({"DE", "FR", "IE", "GR"}),
            denied_operators=frozenset({"IE"}),
            clearances=frozenset({"Confidential", "Restricted"}),
            evidences=frozenset({"TPM", "ConfidentialGPU"}),
            evidence_max_age_seconds=5400.0,
        ),
    )


WRONG: dict[str, tuple[dict[str, object], str, str, str]] = {
    "a group that nobody made": ({"allowed": ["Benelux"]}, "spec.allowed[0]", "Benelux", "no JurisdictionGroup"),
    "a code that is no more": ({"denied": ["YU"]}, "spec.denied[0]", "YU", "withdrew YU (Yugoslavia"),
    "an operator of no country": ({"operator": {"denied": ["ZZ"]}}, "spec.operator.denied[0]", "ZZ", "no country ZZ"),
    "a part of a country as a nationality": (
        {"operator": {"allowed": ["Hanse"]}},
        "spec.operator.allowed",
        "hanse",
        "a whole country",
    ),
    "a clearance that the install does not know": (
        {"clearance": "Cosmic"},
        "spec.clearance",
        "Cosmic",
        "write one of Public, Internal, Confidential, Restricted",
    ),
    "a list that takes back all that it gives": (
        {"allowed": ["IE", "FR"], "denied": ["EU"]},
        "spec.allowed",
        "IE, FR",
        "take one out of denied",
    ),
    "nationalities that are all denied too": (
        {"operator": {"allowed": ["IE"], "denied": ["EU"]}},
        "spec.operator.allowed",
        "IE",
        "denied takes every allowed nationality",
    ),
}


@pytest.mark.parametrize(("spec", "field", "value", "remedy"), WRONG.values(), ids=WRONG.keys())
def test_what_no_schema_can_judge_is_told_with_field_value_and_remedy(
    spec: dict[str, object], field: str, value: str, remedy: str
) -> None:
    whole = ResidencyPolicySpec.model_validate({"namespaceSelector": {}, **spec})
    (problem,) = reading.policy("p", "1", whole, GROUPS, LEVELS).problems
    assert (problem.field, problem.value) == (field, value)
    assert remedy in problem.remedy


def test_what_a_policy_means_otherwise_than_it_says_is_said() -> None:
    whole = ResidencyPolicySpec.model_validate({"namespaceSelector": {}, "allowed": ["UK"]})
    assert reading.policy("p", "1", whole, GROUPS, LEVELS).notes == (
        "spec.allowed[0]: UK is read as GB: ISO 3166 has no UK",
    )


def test_an_exception_is_read_with_its_problems() -> None:
    widen = Widened.model_validate({"allowed": ["EU", "US-VA", "Mars"], "operator": ["Hanse"], "clearance": "Cosmic"})
    read = reading.exception("ResidencyException/a/b@1", ("p",), widen, GROUPS, LEVELS)
    assert [problem.field for problem in read.problems] == [
        "spec.widen.allowed[2]",
        "spec.widen.operator",
        "spec.widen.clearance",
    ]
    assert sorted(read.found.countries | read.found.subdivisions) == ["DE", "FR", "GR", "IE", "US-VA"]
    assert read.found.groups == ("eu@2020-02-01", "hanse@1356")


def test_a_pool_has_its_own_paths() -> None:
    spec = PoolResidency.model_validate({"allowed": ["DE"], "denied": ["DE-XX"], "operator": {"allowed": ["QQ"]}})
    fields = [problem.field for problem in reading.pool(spec, GROUPS).problems]
    assert fields == ["spec.residency.denied[0]", "spec.residency.operator.allowed[0]"]
