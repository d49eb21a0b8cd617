"""How a problem reads."""

from __future__ import annotations

from penstock.core.telling.problem import Problem


def test_where_nothing_stands_no_value_is_told() -> None:
    assert str(Problem("spec.allowed", "XX", "write a code")) == "spec.allowed: XX: write a code"
    assert str(Problem("spec.namespaceSelector", "", "required")) == "spec.namespaceSelector: required"
