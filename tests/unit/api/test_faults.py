"""A refused object is explained by field, value and remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from penstock.api.faults import faults
from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.powerdomain import PowerDomainSpec
from penstock.api.residencypolicy import ResidencyPolicySpec

GPU = {"name": "server", "resources": {"limits": {"nvidia.com/gpu": 1}}}


@pytest.mark.parametrize(
    ("sentence", "model", "spec", "field", "value", "remedy"),
    (
        ("a scalar under its bound", InferencePoolSpec, {"power": {"wattsPerReplica": -5}},
         "spec.power.wattsPerReplica", "-5", "greater than 0"),
        ("an item of a list", InferencePoolSpec, {"residency": {"allowed": ["DE", "fr"]}},
         "spec.residency.allowed[1]", "fr", "in capitals"),
        ("an empty list", ResidencyPolicySpec, {"namespaceSelector": {}, "allowed": []},
         "spec.allowed", "[]", "write at least 1"),
        ("Norway without quotes", ResidencyPolicySpec, {"namespaceSelector": {}, "allowed": ["DE", False]},
         "spec.allowed[1]", "False", 'in quotes, as in "NO"'),
        ("a rule over the whole spec names the field below", InferencePoolSpec, {"replicas": 3},
         "spec.replicas", "3", "leave replicas at 1"),
        ("a rule deep in the template", InferencePoolSpec,
         {"template": {"spec": {"containers": [GPU], "nodeName": "gpu-1"}}},
         "spec.template.spec.nodeName", "gpu-1", "remove nodeName"),
        ("a product with spaces", InferencePoolSpec, {"gpu": {"products": ["NVIDIA H200"]}},
         "spec.gpu.products[0]", "NVIDIA H200", "without spaces"),
        ("an unknown field", InferencePoolSpec, {"replica": 2}, "spec.replica", "2", "correct its spelling"),
        ("a field that is missing", PowerDomainSpec, {"nodeSelector": {}}, "spec.budget", "", "required"),
        ("a rule whose field is left out has no value to show", PowerDomainSpec,
         {"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "budget": {"watts": 1}},
         "spec.nodeSelector.matchExpressions[0].values", "", "In and NotIn need values"),
    ),
)  # fmt: skip
def test_fault(sentence: str, model: Any, spec: dict[str, Any], field: str, value: str, remedy: str) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(spec)
    (fault,) = faults(refused.value)
    assert (fault.field, fault.value) == (field, value)
    assert remedy in fault.remedy


def test_a_value_that_fills_a_screen_is_cut_and_only_ten_faults_are_told() -> None:
    with pytest.raises(ValidationError) as refused:
        InferencePoolSpec.model_validate({"replicas": "x" * 500, **{f"unknown{number}": 1 for number in range(20)}})
    told = faults(refused.value)
    assert len(told) == 10
    assert len(told[0].value) == 121
