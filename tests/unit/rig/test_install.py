"""Values for the chart may be dotted or nested."""

import pytest

from rig.install import nested


@pytest.mark.parametrize(
    ("values", "tree"),
    (
        ({"a": 1}, {"a": 1}),
        ({"a.b.c": 1, "a.b.d": 2}, {"a": {"b": {"c": 1, "d": 2}}}),
        ({"a.b": 1, "a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b.c": 1}}, {"a": {"b": {"c": 1}}}),
        ({"operator.replicas": 0, "operator": {"replicas": 2}}, {"operator": {"replicas": 2}}),
    ),
)
def test_values_become_a_tree(values: dict[str, object], tree: dict[str, object]) -> None:
    assert nested(values) == tree
