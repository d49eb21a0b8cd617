"""A fleet moved on by what changed equals one that is built anew, and costs only the rows that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

import builders as a
from penstock.core.model import Domain, Guarantee, PlacementRules, Pod, PoolKey
from penstock.core.placement.columns import SPARE
from penstock.core.placement.fleet import Fleet, NodeView

NODES = (a.node("gpu-1"), a.node("gpu-2"))
DOMAINS = (a.domain(guarantee=Guarantee.STATISTICAL),)
POOLS = {a.POOL: PlacementRules(declared_watts=400.0)}
RUNNING = a.pod(node="gpu-1", gpus=2)
PINNED = a.pod("pin", "", pin="gpu-1")


def view(name: str = "gpu-1", *pods: Pod, **changed: object) -> NodeView:
    node = replace(a.node(name), **changed)  # type: ignore[arg-type]
    return NodeView(node, a.telemetry(name), pods)


FIRST = {"gpu-1": view("gpu-1", RUNNING), "gpu-2": view("gpu-2")}
HOT = a.telemetry("gpu-1", [a.gpu(index, planned_watts=650.0) for index in range(8)])
STRONG = a.telemetry("gpu-2", [a.gpu(index, maximum_watts=1000.0) for index in range(8)])
LARGE = NodeView(a.node("gpu-2", gpus=16, allocatable={"example.com/nic": 2}), a.telemetry("gpu-2", 16))


@dataclass(frozen=True)
class Change:
    """What is different a moment later."""

    nodes: Mapping[str, NodeView | None] = field(default_factory=dict)
    now_at: float = a.NOW_AT
    domains: tuple[Domain, ...] = DOMAINS
    pools: Mapping[PoolKey, PlacementRules] = field(default_factory=lambda: POOLS)


CHANGES = {
    "nothing": Change(),
    "a pod more": Change({"gpu-2": view("gpu-2", a.pod("new", "gpu-2"))}),
    "a pod that finished": Change({"gpu-1": view("gpu-1", replace(RUNNING, phase="Succeeded"))}),  # type: ignore[arg-type]
    "a pod less": Change({"gpu-1": view("gpu-1")}),
    "a label": Change({"gpu-1": view("gpu-1", RUNNING, labels={"zone": "x"})}),
    "a node more": Change({"gpu-3": view("gpu-3")}),
    "a node less": Change({"gpu-2": None}),
    "a node that was never there": Change({"gpu-9": None}),
    "a node with more GPUs and another resource": Change({"gpu-2": LARGE}),
    "a draw above what is declared": Change({"gpu-1": NodeView(NODES[0], HOT, (RUNNING, PINNED))}),
    "a stronger GPU of a product": Change({"gpu-2": NodeView(NODES[1], STRONG)}),
    "telemetry that ran out in between": Change(now_at=a.NOW_AT + 31),
    "a clock that went back": Change(now_at=a.NOW_AT - 1),
    "another budget": Change(domains=(replace(DOMAINS[0], budget_watts=5.0),)),
    "a domain more": Change(domains=(*DOMAINS, a.domain("row-b"))),
    "other rules of a pool": Change(pools={a.POOL: PlacementRules(declared_watts=900.0)}),
}


def built(change: Change) -> Fleet:
    views = {name: one for name, one in {**FIRST, **change.nodes}.items() if one}
    return Fleet.build(
        [one.node for one in views.values()],
        {name: one.telemetry for name, one in views.items() if one.telemetry},
        [pod for one in views.values() for pod in one.pods],
        change.domains,
        change.pools,
        now_at=change.now_at,
    )


def test_a_column_holds_only_a_few_values_that_no_node_has_any_more() -> None:
    fleet = built(Change())
    for minute in range(1_000):
        view_now = NodeView(replace(NODES[0], labels={**NODES[0].labels, "time": str(minute)}), HOT, ())
        fleet.label("time")
        fleet = fleet.with_nodes({"gpu-1": view_now}, a.NOW_AT)
    column = fleet.label("time")
    assert len(column.values) <= 2 * len(fleet.rows) + SPARE
    assert set(column.present) == {"999", None}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_with_nodes_equals_build(change: Change) -> None:
    before = built(Change())
    before.label("zone")
    moved = before.with_nodes(change.nodes, change.now_at, change.domains, change.pools)
    anew = built(change)
    assert moved.rows == anew.rows
    assert moved.position == anew.position
    assert moved.committed_watts.tolist() == anew.committed_watts.tolist()
    assert moved.usable_watts.tolist() == anew.usable_watts.tolist()
    assert [moved.label("zone")[at] for at in range(len(moved.rows))] == [
        anew.label("zone")[at] for at in range(len(anew.rows))
    ]
    for name in ("free_gpus", "evidence", "hard_watts", "pending_gpus", "activity"):
        assert getattr(moved.columns, name).tolist() == getattr(anew.columns, name).tolist()


def test_only_the_rows_that_changed_are_worked_out_again() -> None:
    before = built(Change())
    after = before.with_nodes({"gpu-2": view("gpu-2", a.pod("new", "gpu-2"))}, a.NOW_AT)
    assert after.rows[0] is before.rows[0]
    assert after.rows[1] is not before.rows[1]
    assert before.rows[1].view.pods == ()


@pytest.mark.parametrize("name", ("a draw above what is declared", "other rules of a pool"))
def test_a_pool_that_is_charged_otherwise_moves_only_the_rows_where_it_runs(name: str) -> None:
    before, change = built(Change()), CHANGES[name]
    after = before.with_nodes(change.nodes, change.now_at, change.domains, change.pools)
    assert after.rows[0] is not before.rows[0]
    assert after.rows[1] is before.rows[1]


def test_a_draw_above_what_is_declared_raises_the_pool_on_every_node_where_it_runs() -> None:
    elsewhere = {"gpu-2": view("gpu-2", a.pod("pin-2", "", pin="gpu-2"))}
    before = built(Change(elsewhere))
    after = before.with_nodes({"gpu-1": NodeView(NODES[0], HOT, (RUNNING, PINNED))}, a.NOW_AT)
    assert sum(after.rows[1].charges) > sum(before.rows[1].charges)


def test_a_node_more_leaves_the_other_rows_as_they_are() -> None:
    before = built(Change())
    after = before.with_nodes({"gpu-0": view("gpu-0")}, a.NOW_AT)
    assert [row.view.node.name for row in after.rows] == ["gpu-0", "gpu-1", "gpu-2"]
    assert after.rows[1] is before.rows[0]


def test_a_node_more_while_the_clock_goes_back_judges_every_row_anew() -> None:
    late = built(Change(now_at=a.NOW_AT + 31))
    assert late.with_nodes({"gpu-3": view("gpu-3")}, a.NOW_AT).rows == built(Change({"gpu-3": view("gpu-3")})).rows


def test_pods_without_a_place_take_no_room() -> None:
    fleet = a.fleet(a.node(), pods=[a.pod(node="", gpus=4)])
    assert fleet.rows[0].free_gpus == 8
