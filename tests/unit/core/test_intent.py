"""What people wrote, in the core's words; and what of it no schema can judge."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.powerdomain import PowerDomainSpec
from penstock.core import intent
from penstock.core.model import Domain, Guarantee, Mode, PlacementRules, SoftSpread
from penstock.core.placement.scheduling import LabelRule, Operator, Requirement


def pool(**spec: Any) -> InferencePoolSpec:
    return InferencePoolSpec.model_validate(spec)


def codes(*written: str) -> frozenset[str]:
    return frozenset(written)


def test_every_wish_of_a_pool_reaches_the_planner() -> None:
    spec = pool(
        gpu={"products": ["NVIDIA-H200"], "minMemory": "80.5Gi"},
        power={"wattsPerReplica": 2400},
        placement={"mode": "Advise", "spread": [{"topologyKey": "zone", "maxSkew": 2}]},
    )
    assert intent.rules(spec) == PlacementRules(
        gpu_products=frozenset({"NVIDIA-H200"}),
        gpu_memory_bytes=86_436_216_832,
        declared_watts=2400,
        spread=(SoftSpread("zone", 2),),
        mode=Mode.ADVISE,
    )


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
