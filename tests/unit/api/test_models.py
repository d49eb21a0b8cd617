"""The models judge as the API server does: what it refuses they refuse, and an ordinary object passes untouched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from generate import KINDS, ROOT
from manifests import ORDINARY, ORDINARY_POOL, RICH_TEMPLATE, changed
from penstock.api.gpunode import GPUNode
from penstock.api.inferencepool import InferencePool, InferencePoolStatus, Waiting
from penstock.api.meta import Condition
from penstock.api.powerdomain import PowerDomainSpec
from refusals import REFUSALS, UNKNOWN_FIELDS, Refusal

BY_KIND = {kind.definition.kind: kind for kind in KINDS}
ENFORCED_BY_LIST_TYPE = {"a place allowed twice", "two spreads over one key"}
"""Duplicates in sets and list maps are the API server's own business: for us a place allowed twice is allowed."""


@pytest.mark.parametrize("refusal", [pytest.param(one, id=one.sentence) for one in (*REFUSALS, *UNKNOWN_FIELDS)])
def test_what_the_api_server_refuses_the_models_refuse(refusal: Refusal) -> None:
    model = BY_KIND[refusal.manifest["kind"]]
    if refusal.sentence in ENFORCED_BY_LIST_TYPE:
        model.model_validate(refusal.manifest)
        return
    with pytest.raises(ValidationError):
        model.model_validate(refusal.manifest)


@pytest.mark.parametrize("manifest", ORDINARY, ids=lambda one: one["kind"])
def test_the_ordinary_objects_that_refusals_are_made_from_are_fine(manifest: dict[str, Any]) -> None:
    BY_KIND[manifest["kind"]].model_validate(manifest)


def test_a_pod_template_comes_back_exactly_as_written() -> None:
    pool = InferencePool.model_validate(changed(ORDINARY_POOL, "spec.template", RICH_TEMPLATE))
    assert pool.spec.template is not None
    assert pool.spec.template.as_json() == RICH_TEMPLATE


def test_an_empty_spec_adopts_one_by_one() -> None:
    pool = InferencePool.model_validate(changed(ORDINARY_POOL, "spec", {}))
    assert (pool.spec.template, pool.spec.replicas, pool.spec.placement.mode) == (None, 1, "Enforce")
    assert (pool.spec.residency.allowed, pool.spec.disruption.max_unavailable) == (None, 1)


@pytest.mark.parametrize(
    ("guarantee", "margin_percent", "effective"),
    (("Hard", None, 10), ("Statistical", None, 20), ("Hard", 0, 0), ("Hard", 3, 3), ("Statistical", 20, 20)),
)
def test_a_margin_left_out_follows_the_guarantee(
    guarantee: str, margin_percent: float | None, effective: float
) -> None:
    spec = {"nodeSelector": {}, "budget": {"watts": 1}, "guarantee": guarantee, "marginPercent": margin_percent}
    assert PowerDomainSpec.model_validate(spec).effective_margin_percent == effective


def test_a_time_without_a_zone_is_utc_and_can_be_held_against_one_with_a_zone() -> None:
    mixed = {"watts": 1, "effectiveAt": "2026-11-21T02:00:00", "until": "2026-11-21T04:30:00+02:00"}
    budget = PowerDomainSpec.model_validate({"budget": mixed}).budget
    assert budget.as_json() == {
        "watts": 1.0,
        "effectiveAt": "2026-11-21T02:00:00Z",
        "until": "2026-11-21T02:30:00Z",
        "windows": [],
    }


def test_a_status_is_written_in_camel_case_with_whole_seconds_in_utc_and_nothing_unknown() -> None:
    half_past = datetime(2026, 11, 21, 3, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    condition = Condition(type="Ready", status="False", reason="ReplicasWaiting", last_transition_time=half_past)
    status = InferencePoolStatus(
        observed_generation=2,
        waiting=(Waiting(replicas=1, reason="InsufficientPower", since=half_past, would_fit="raise row-a by 900 W"),),
        conditions=(condition,),
    )
    written = status.as_json()
    assert written["waiting"][0]["wouldFit"] == "raise row-a by 900 W"
    assert written["waiting"][0]["since"] == "2026-11-21T01:30:00Z"
    assert written["conditions"][0]["lastTransitionTime"] == "2026-11-21T01:30:00Z"
    assert "power" not in written
    assert InferencePoolStatus.model_validate(written).waiting[0].since == half_past.replace(microsecond=0).astimezone(
        UTC
    )


def test_a_report_of_an_agent_without_some_figures_is_whole() -> None:
    status = {"sequence": 1_763_687_707, "heartbeatSeconds": 10, "gpus": [{"uuid": "GPU-1", "index": 0}]}
    node = GPUNode.model_validate({"metadata": {"name": "gpu-1"}, "spec": {}, "status": status})
    assert node.status is not None
    assert (node.status.gpus[0].power_watts, node.status.gpus[0].health) == (None, "Healthy")


def test_every_example_is_valid() -> None:
    models = {kind.definition.kind: kind for kind in KINDS}
    documents = [one for path in (ROOT / "examples").glob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    ours = [one for one in documents if one["kind"] in models]
    assert {one["kind"] for one in ours} == {"InferencePool", "PowerDomain"}
    for document in ours:
        models[document["kind"]].model_validate(document)
