"""Values for the chart may be dotted or nested; an operator that is kept running is one process at a time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rig import install
from rig.install import Operator, nested


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


class Slow:
    """A control plane, and its one child, which takes a while to start again."""

    running = True
    exit_code: int | None = None
    starts = 0

    def spawn(self, *_: object, **__: object) -> Slow:
        return self

    def restart_child(self, _: object) -> None:
        time.sleep(0.1)
        self.starts += 1
        self.exit_code = None

    def kill(self) -> int:
        self.exit_code = -9
        return -9


def test_who_starts_an_operator_again_is_not_joined_by_its_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "RESTART_PAUSE_SECONDS", 0.005)
    slow: Any = Slow()
    operator = Operator(slow, "operator", {}, keep_running=True)
    operator.kill()
    operator.start()
    time.sleep(0.05)
    slow.running = False
    assert (slow.starts, operator.restarts) == (1, 0)
