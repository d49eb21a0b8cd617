"""The demo's own arithmetic, and that a step that did not happen is an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo import __main__ as demo
from demo.figures import Waits, percentile
from demo.stage import nodes
from demo.terminal import StoryBroken
from penstock.api.names import COUNTRY_LABEL, GATE, GPU_PRODUCT_LABEL, POOL_LABEL

RANKS = {
    "the middle of an odd number": ([1.0, 2.0, 3.0], 0.5, 2.0),
    "the lower middle of an even number": ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
    "the largest of few, for the 99th": ([1.0, 2.0, 3.0], 0.99, 3.0),
    "one value is every percentile": ([7.0], 0.01, 7.0),
}


@pytest.mark.parametrize(("values", "share", "want"), RANKS.values(), ids=RANKS.keys())
def test_percentile(values: list[float], share: float, want: float) -> None:
    assert percentile(values, share) == want


def pod(uid: str, *, gated: bool, pool: str = "llama") -> dict[str, Any]:
    gates = {"schedulingGates": [{"name": GATE}]} if gated else {}
    return {"metadata": {"uid": uid, "labels": {POOL_LABEL: pool}}, "spec": gates}


def test_a_pod_counts_from_the_gate_to_the_lift_and_never_without_having_been_seen_at_the_gate() -> None:
    waits = Waits()
    for seen in (pod("a", gated=True), pod("a", gated=True), pod("b", gated=False), pod("c", gated=True)):
        waits.see(seen)
    waits.see(pod("a", gated=False))
    assert set(waits.lifted_at) == {"a"}
    (milliseconds,) = waits.milliseconds(set())
    assert milliseconds >= 0
    assert waits.milliseconds({"llama"}) == []


def test_the_fleet_is_twelve_nodes_of_two_products_in_three_countries() -> None:
    labels = [node["metadata"]["labels"] for node in nodes()]
    assert len(labels) == 12
    assert len({one[GPU_PRODUCT_LABEL] for one in labels}) == 2
    assert len({one[COUNTRY_LABEL] for one in labels}) == 3


def test_a_step_that_did_not_happen_ends_the_demo_with_1_and_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "operator.log"
    log.write_text("last words")

    @contextmanager
    def stage() -> Iterator[object]:
        yield SimpleNamespace(operator=SimpleNamespace(log_path=log))

    class Broken:
        def __init__(self, _stage: object) -> None:
            pass

        def play(self) -> None:
            raise StoryBroken("the third pool: did not happen")

    monkeypatch.setattr(demo, "set_stage", stage)
    monkeypatch.setattr(demo, "Story", Broken)
    assert demo.main() == 1
    told = capsys.readouterr().err
    assert "the third pool: did not happen" in told
    assert "last words" in told
