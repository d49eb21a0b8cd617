"""Which places are doubted as nodes change and time passes; and how often that is written and told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import builders as a
from penstock.api.names import COUNTRY_LABEL, EVIDENCE_TIME_LABEL, REGION_LABEL
from penstock.cluster.state import ClusterState
from penstock.control.residency.doubt_report import WRITE_PAUSE_SECONDS, DoubtReporter
from penstock.control.residency.doubting import Doubting, table_of
from penstock.core.model import Node
from penstock.core.residency.doubts import Rules
from penstock.core.telemetry import PlaceMark
from penstock.errors import InvalidInput
from penstock.metrics import Metrics

STEADY_SECONDS = 60.0
TABLE = table_of({"kwok/eu": "DE"}, (), 0.0)
LOST = a.node(country="")


def doubting() -> Doubting:
    return Doubting(ClusterState(), Rules(TABLE, (), STEADY_SECONDS))


def see(one: Doubting, node: Node | None, now_time: float) -> bool:
    """The cluster shows the node so, at this time; whether something else holds now."""
    if node is None:
        one.state.nodes.pop("gpu-1", None)
    else:
        one.state.nodes["gpu-1"] = node
    return bool(one.look({"gpu-1"}, now_time))


def kinds(one: Doubting) -> list[str]:
    return [doubt.kind for doubt in one.of("gpu-1")]


def test_a_place_that_changed_counts_again_by_time_alone() -> None:
    one = doubting()
    assert not see(one, a.node(), 0.0)
    assert see(one, a.node(country="FR"), 10.0)
    assert kinds(one) == ["PlaceUnsteady"]
    assert one.look((), 10.0 + STEADY_SECONDS - 1.0) == frozenset()
    assert one.look((), 10.0 + STEADY_SECONDS) == {"gpu-1"}
    assert kinds(one) == []
    assert one.look((), 1e9) == frozenset()


def test_a_heartbeat_of_the_same_node_is_not_judged_anew() -> None:
    one = doubting()
    see(one, a.node(), 0.0)
    see(one, LOST, 1.0)
    before = one.of("gpu-1")
    assert not one.look({"gpu-1"}, 2.0)
    assert one.of("gpu-1") is before


def test_what_is_written_on_the_gpu_node_outlives_a_restart() -> None:
    one = doubting()
    mark = PlaceMark("PlaceUnsteady", "node gpu-1 has been steady since then", 100.0)
    one.state.telemetry["gpu-1"] = a.telemetry(place_marks=(mark,))
    assert see(one, a.node(), 110.0)
    assert kinds(one) == ["PlaceUnsteady"]
    assert one.look((), 100.0 + STEADY_SECONDS) == {"gpu-1"}


def test_evidence_from_the_future_is_doubted_until_its_time_has_come() -> None:
    one = doubting()
    assert see(one, a.node(labels={EVIDENCE_TIME_LABEL: "19700101T000200Z"}), 100.0)
    assert kinds(one) == ["PlaceUnreadable"]
    assert not one.look((), 119.0)
    assert one.look((), 120.0) == {"gpu-1"}
    assert kinds(one) == []


def test_a_node_that_is_gone_is_forgotten() -> None:
    one = doubting()
    see(one, a.node(), 0.0)
    see(one, LOST, 1.0)
    assert see(one, None, 2.0)
    assert not see(one, replace(a.node(), uid="another"), 3.0)


def test_a_wrong_table_ends_the_operator_with_the_row_and_the_remedy() -> None:
    with pytest.raises(InvalidInput, match=r"residency\.regions\.aws/eu-central-1\.country.*write DE"):
        table_of({"aws/eu-central-1": "Germany"}, (), 0.0)


# ------------------------------------------------------------------------------------------------------------- telling


@dataclass
class Desk:
    """A reporter whose requests and Events are noted; each request is answered at once."""

    one: Doubting = field(default_factory=doubting)
    writes: list[tuple[str, Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    hears: bool = True

    def __post_init__(self) -> None:
        desk: Any = self
        self.reporter = DoubtReporter(desk, desk, self.metrics, self._answer, self.hears)
        self.one.state.telemetry["gpu-1"] = a.telemetry()

    def _answer(self, act: Coroutine[Any, Any, None]) -> Any:
        asyncio.run(act)

    async def patch(self, path: str, body: bytes, *_: object) -> None:
        assert path.endswith("/gpunodes/gpu-1/status")
        place = json.loads(body)["status"]["place"]
        self.writes.append((path, place))
        marks = tuple(PlaceMark(one["type"], one["message"], 0.0) for one in (place or {}).get("conditions", ()))
        marks = tuple(replace(one, since_time=self.since(one.kind)) for one in marks)
        self.one.state.telemetry["gpu-1"] = a.telemetry(place_marks=marks)

    def since(self, kind: str) -> float:
        found = next(doubt for doubt in self.one.of("gpu-1") if doubt.kind == kind)
        return 0.0 if found.since_time is None else found.since_time

    def post(self, subject: Any, _: str, reason: str, __: str) -> None:
        self.told.append(f"{reason} {subject.kind}/{subject.name}")

    def turn(self, node: Node | None, now: float) -> int:
        """One turn at this time; how often it wrote."""
        before = len(self.writes)
        see(self.one, node, now)
        self.reporter.report(self.one, now, now)
        return len(self.writes) - before

    def count(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("penstock_doubted_places", {"doubt": kind})


def test_a_doubt_is_written_and_told_once_and_taken_away_when_it_is_over() -> None:
    desk = Desk()
    assert desk.turn(a.node(), 0.0) == 0
    assert desk.turn(LOST, 10.0) == 1
    (condition,) = desk.writes[0][1]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("PlaceUnsteady", "True", "PlaceLost")
    assert condition["lastTransitionTime"] == "1970-01-01T00:00:10Z"
    assert [desk.turn(LOST, 10.0 + second) for second in (6.0, 12.0, 18.0)] == [0, 0, 0]
    assert desk.told == ["PlaceUnsteady Node/gpu-1"]
    assert desk.count("PlaceUnsteady") == 1.0
    assert desk.turn(a.node(), 40.0) == 1, "since when it has to hold is another time"
    assert desk.turn(a.node(), 40.0 + STEADY_SECONDS) == 1
    assert desk.writes[-1][1] is None
    assert desk.told == ["PlaceUnsteady Node/gpu-1"]
    assert desk.count("PlaceUnsteady") == 0.0


def test_a_label_that_flaps_is_written_at_a_pace_and_told_once() -> None:
    desk = Desk()
    desk.turn(a.node(), 0.0)
    flaps = [desk.turn(a.node() if second % 2 else LOST, 100.0 + second) for second in range(20)]
    assert sum(flaps) <= 20.0 / WRITE_PAUSE_SECONDS
    assert desk.told == ["PlaceUnsteady Node/gpu-1"]


def test_a_node_without_a_gpu_node_is_told_of_and_written_to_once_it_has_one() -> None:
    desk = Desk()
    desk.turn(a.node(), 0.0)
    del desk.one.state.telemetry["gpu-1"]
    assert [desk.turn(LOST, 10.0 + 6 * turn) for turn in range(3)] == [0, 0, 0]
    assert desk.told == ["PlaceUnsteady Node/gpu-1"]
    desk.one.state.telemetry["gpu-1"] = a.telemetry()
    assert desk.turn(LOST, 40.0) == 1


def test_what_does_not_come_back_is_not_written_again_and_again() -> None:
    desk = Desk()
    desk.turn(a.node(), 0.0)
    written = 0
    for second in range(0, 60, 6):
        desk.one.state.telemetry["gpu-1"] = a.telemetry()  # An older CRD has dropped it.
        written += desk.turn(LOST, 10.0 + second)
    assert written == 2


def test_where_gpu_nodes_are_not_heard_nothing_is_written_to_them() -> None:
    desk = Desk(hears=False)
    desk.turn(a.node(), 0.0)
    assert desk.turn(LOST, 10.0) == 0
    assert desk.told == ["PlaceUnsteady Node/gpu-1"]
    assert desk.count("PlaceUnsteady") == 1.0


def test_a_dispute_that_is_written_already_is_not_told_again_by_the_next_leader() -> None:
    desk, disputed = Desk(), replace(a.node(country="FR", labels={REGION_LABEL: "eu"}), provider="kwok")
    desk.turn(disputed, 0.0)
    assert desk.told == ["PlaceDisputed Node/gpu-1"]
    following = Desk()
    following.one.state.telemetry = desk.one.state.telemetry
    assert following.turn(disputed, 10.0) == 0
    assert following.told == []
    settled = replace(disputed, labels={**disputed.labels, COUNTRY_LABEL: "DE"})
    following.turn(settled, 20.0)
    assert kinds(following.one) == ["PlaceUnsteady"]
