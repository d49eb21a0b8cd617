"""What people wrote, in the core's words; and what of it no schema can judge."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.powerdomain import PowerDomainSpec
from penstock.core import intent
from penstock.core.model import Domain, Guarantee, Mode, PlacementRules, Residency, SoftSpread
from penstock.core.placement.scheduling import LabelRule, Operator, Requirement
from penstock.core.residency import reading
from penstock.core.residency.groups import NO_GROUPS, Group, Groups
from penstock.errors import InvalidInput


def pool(**spec: Any) -> InferencePoolSpec:
    return InferencePoolSpec.model_validate(spec)


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
    assert intent.rules(pool(residency=residency), HANSE).residency == expected


def test_what_is_read_otherwise_than_it_is_written_is_said() -> None:
    spec = pool(residency={"allowed": ["DE", "UK"], "operator": {"denied": ["EL"]}})
    assert reading.pool(spec.residency, NO_GROUPS).notes == (
        "spec.residency.allowed[1]: UK is read as GB: ISO 3166 has no UK",
        "spec.residency.operator.denied[0]: EL is read as GR: ISO 3166 has no EL",
    )


def test_every_wish_of_a_pool_reaches_the_planner() -> None:
    spec = pool(
        gpu={"products": ["NVIDIA-H200"], "minMemory": "80.5Gi"},
        power={"wattsPerReplica": 2400},
        residency={"operator": {"denied": ["US"]}, "onViolation": "Isolate"},
        placement={"mode": "Advise", "spread": [{"topologyKey": "zone", "maxSkew": 2}]},
    )
    assert intent.rules(spec) == PlacementRules(
        residency=Residency(True, denied_operators=codes("US")),
        on_violation="Isolate",
        gpu_products=codes("NVIDIA-H200"),
        gpu_memory_bytes=86_436_216_832,
        declared_watts=2400,
        spread=(SoftSpread("zone", 2),),
        mode=Mode.ADVISE,
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
    problems = intent.problems(pool(residency=residency), HANSE)
    assert [(one.field, one.value) for one in problems] == [(field, value) for field, value, _ in found]
    for problem, (_, _, remedy) in zip(problems, found, strict=True):
        assert remedy in problem.remedy


def test_a_law_that_leaves_nothing_is_a_problem_even_where_the_schema_of_its_day_let_it_pass() -> None:
    spec = pool()
    stored = spec.residency.model_copy(update={"allowed": ("DE", "FR"), "denied": ("FR", "DE")})
    (problem,) = intent.problems(spec.model_copy(update={"residency": stored}))
    assert (problem.field, problem.value) == ("spec.residency.allowed", "DE, FR")
    assert "take one out of denied" in problem.remedy


def test_rules_of_a_spec_with_problems_raise_the_first() -> None:
    with pytest.raises(InvalidInput, match=r"spec.residency.allowed\[0\]: 'AN': .*withdrew AN"):
        intent.rules(pool(residency={"allowed": ["AN"]}))


def test_a_domain_is_read_in_watts_and_ratios() -> None:
    spec = PowerDomainSpec.model_validate(
        {
            "nodeSelector": {
                "matchLabels": {"row": "a"},
                "matchExpressions": [{"key": "hall", "operator": "NotIn", "values": ["9"]}],
            },
            "budget": {"watts": 40_000},
            "guarantee": "Statistical",
            "marginPercent": 25,
            "staticWatts": 500,
            "overhead": {"watts": 800, "perGPUWatt": 0.4},
        }
    )
    selector = LabelRule((Requirement("row", Operator.IN, ("a",)), Requirement("hall", Operator.NOT_IN, ("9",))))
    assert intent.domain("row-a", spec) == Domain("row-a", selector, 40_000, Guarantee.STATISTICAL, 0.25, 500, 800, 0.4)


def test_a_domain_says_only_its_budget_and_gets_the_vendor_s_overhead() -> None:
    spec = PowerDomainSpec.model_validate({"nodeSelector": {}, "budget": {"watts": 10_000}})
    domain = intent.domain("all", spec)
    assert (domain.margin, domain.per_gpu_watt, domain.usable_watts) == (0.1, 0.55, 9_000)


def test_a_domain_may_name_its_nodes_and_its_parent() -> None:
    spec = PowerDomainSpec.model_validate({"nodes": ["gpu-1"], "parent": "site", "budget": {"watts": 1}})
    domain = intent.domain("row-a", spec)
    assert (domain.selector, domain.nodes, domain.parent) == (None, frozenset({"gpu-1"}), "site")


WINDOWS: dict[str, tuple[dict[str, str], str, tuple[str, ...]]] = {
    "a night in Berlin": ({}, "", ()),
    "without a time zone": ({"timeZone": "UTC"}, "", ()),
    "a leap day": ({"cron": "0 0 29 2 *"}, "", ()),
    "the last Friday of the month": ({"cron": "0 22 * * 5L"}, "", ()),
    "a day that no month has": ({"cron": "0 0 30 2 *"}, "cron", ("bad day-of-month",)),
    "an hour that no day has": ({"cron": "0 25 * * *"}, "cron", ("bad hour", "such as 0 22 * * *")),
    "words": ({"cron": "every night at ten please"}, "cron", ("bad",)),
    "a time zone of another planet": ({"timeZone": "Mars/Phobos"}, "timeZone", ("IANA", "Europe/Berlin")),
    "a path": ({"timeZone": "../etc/passwd"}, "timeZone", ("IANA",)),
    "a continent": ({"timeZone": "Europe"}, "timeZone", ("IANA",)),
}


@pytest.mark.parametrize("told", WINDOWS)
def test_a_window_that_never_opens_is_told_with_field_value_and_remedy(told: str) -> None:
    wrong, field, words = WINDOWS[told]
    window = {"cron": "0 22 * * *", "duration": "8h", "timeZone": "Europe/Berlin", "watts": 1, **wrong}
    spec = PowerDomainSpec.model_validate({"budget": {"watts": 2, "windows": [window]}})
    found = intent.domain_problems(spec)
    assert [one.field for one in found] == ([f"spec.budget.windows[0].{field}"] if field else [])
    for one in found:
        assert one.value == wrong[field]
        assert [word for word in words if word not in one.remedy] == []
