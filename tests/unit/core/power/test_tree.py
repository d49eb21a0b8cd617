"""Which domains charge a node, how, and what the branches of a tree add up to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.core.model import Domain, Guarantee, PlacementRules
from penstock.core.placement import choice as placement
from penstock.core.placement.fleet import Fleet
from penstock.core.power import book
from penstock.core.power.tree import Place, grow, same_shape, settle

IDLE, HARD = 80.0, 721.0


def row(name: str, parent: str = "", **changed: Any) -> Domain:
    return a.domain(name, parent=parent, selector=a.labelled("row", name), **changed)


def site(name: str = "site", **changed: Any) -> Domain:
    """A domain that only holds others."""
    return a.domain(name, selector=None, **changed)


def names(domains: list[Domain], labels: dict[str, str], node: str = "gpu-1") -> tuple[str, ...]:
    ordered = sorted(domains, key=lambda one: one.name)
    return tuple(ordered[at].name for at in grow(ordered).chain(a.node(node, labels=labels)))


CHAINS = {
    "a node that nothing selects has no budget": ([row("a")], {}, ()),
    "a node is charged by its own domain and each above it, the nearest first": (
        [row("a", "hall"), site("hall", parent="site"), site()], {"row": "a"}, ("a", "hall", "site")),
    "a node that an ancestor selects too is its deepest domain's": (
        [row("a", "site"), a.domain("site")], {"row": "a"}, ("a", "site")),
    "the ancestor keeps the nodes that no domain below it selects": (
        [row("a", "site"), a.domain("site")], {"row": "b"}, ("site",)),
    "two unrelated domains both charge it, and everything above either does once": (
        [row("a", "hall"), a.domain("b", selector=a.labelled("rack", "1"), parent="site"),
         site("hall", parent="site"), site()],
        {"row": "a", "rack": "1"}, ("a", "b", "hall", "site")),
    "a node may be named": ([site("a", nodes=frozenset({"gpu-1"}))], {}, ("a",)),
    "a node that is named and selected is charged once": ([row("a", nodes=frozenset({"gpu-1"}))], {"row": "a"}, ("a",)),
    "a parent that does not exist is none": ([row("a", "nowhere")], {"row": "a"}, ("a",)),
    "domains in a circle have nothing above them": (
        [row("a", "b"), row("b", "a")], {"row": "a"}, ("a",)),
    "a domain below a circle has nothing above it": (
        [row("a", "b"), site("b", parent="c"), site("c", parent="b")], {"row": "a"}, ("a",)),
    "a selector without a value to look up is searched": (
        [a.domain("a", selector=a.labelled("row", "a", "b"), parent="site"), site()], {"row": "b"}, ("a", "site")),
}  # fmt: skip


@pytest.mark.parametrize("told", CHAINS)
def test_which_domains_charge_a_node(told: str) -> None:
    domains, labels, want = CHAINS[told]
    assert names(domains, labels) == want


def two_rows(**budgets: float) -> list[Domain]:
    watts = {"a": 1e6, "b": 1e6, "site": 1e6} | budgets
    return [
        row("a", "site", budget_watts=watts["a"], overhead_watts=100.0, per_gpu_watt=0.5),
        row("b", "site", budget_watts=watts["b"], static_watts=40.0),
        site(budget_watts=watts["site"], overhead_watts=9999.0, per_gpu_watt=3.0, static_watts=2.0),
    ]


def fleet(domains: list[Domain], *pods: object, gpus: int = 4) -> Fleet:
    nodes = [a.node("gpu-a", gpus, labels={"row": "a"}), a.node("gpu-b", gpus, labels={"row": "b"})]
    telemetries = [a.telemetry(node.name, gpus) for node in nodes]
    return a.fleet(*nodes, telemetries=telemetries, pods=pods, domains=domains)  # type: ignore[arg-type]


def test_a_parent_is_charged_what_its_children_are_and_adds_its_own_static_load() -> None:
    a_watts, b_watts = 100 + 1.5 * 4 * IDLE, 40 + 4 * IDLE
    assert [one.committed_watts for one in book.statements(fleet(two_rows()), a.NOW_AT)] == [
        a_watts, b_watts, pytest.approx(a_watts + b_watts + 2),
    ]  # fmt: skip


def test_the_statement_of_a_parent_has_the_draw_floor_nodes_and_holders_of_its_children() -> None:
    held = fleet(two_rows(), a.pod(node="gpu-a", gpus=2))
    first, second, whole = book.statements(held, a.NOW_AT)
    assert whole.draw_watts == pytest.approx(first.draw_watts + second.draw_watts + 2)
    assert whole.floor_watts == pytest.approx(first.floor_watts + second.floor_watts + 2)
    assert (first.nodes, second.nodes, whole.nodes) == (1, 1, 2)
    assert (whole.children, first.parent) == (("a", "b"), "site")
    assert {(one.kind, one.name): one.watts for one in whole.holders} == pytest.approx(
        {
            ("Foreign", "search/pod-1"): 2 * HARD,
            ("Idle", ""): 6 * IDLE,
            ("Overhead", ""): 100 + 0.5 * (2 * HARD + 2 * IDLE),
            ("Static", ""): 42.0,
        }
    )
    assert sum(one.watts for one in whole.holders) == pytest.approx(whole.committed_watts)


def test_a_child_with_a_larger_budget_than_its_parent_is_named() -> None:
    whole = book.statements(fleet(two_rows(a=500.0, b=2000.0, site=1000.0)), a.NOW_AT)[2]
    assert whole.larger_children == (("b", 2000.0),)


def test_each_ancestor_keeps_its_own_guarantee() -> None:
    """The row promises declared watts only, the site above it promises the limit."""
    rules = {a.POOL: PlacementRules(declared_watts=800.0)}
    domains = [row("a", "site", guarantee=Guarantee.STATISTICAL), site()]
    node = a.node("gpu-a", 4, labels={"row": "a"})
    pod = a.pod(node="gpu-a", gpus=2)
    built = a.fleet(node, telemetries=[a.telemetry("gpu-a", 4)], pods=[pod], domains=domains, pools=rules)
    assert built.committed_watts[:2].tolist() == [pytest.approx(2 * 400 + 2 * IDLE), pytest.approx(2 * HARD + 2 * IDLE)]


def test_the_last_watts_of_a_parent_go_to_one_of_two_children_that_both_have_room() -> None:
    domains = two_rows()
    room = fleet(domains).committed_watts[2] + 1.5 * 2 * (HARD - IDLE) + 1.0
    tight = fleet([*domains[:2], replace(domains[2], budget_watts=room)])
    plan = placement.plan(tight, [a.replica(f"r-{at}", gpus=2, since_time=float(at)) for at in range(2)], (), a.NOW_AT)
    assert len(plan.decisions) == 1
    (waiting,) = plan.waiting
    assert "PowerDomain/site" in waiting.message
    assert waiting.would_fit.startswith("raise PowerDomain/site by ")


def test_a_raise_that_is_needed_at_several_ancestors_names_them_all() -> None:
    domains = [row("a", "hall", budget_watts=400.0), site("hall", parent="site", budget_watts=410.0), site()]
    node = a.node("gpu-a", 4, labels={"row": "a"})
    tight = a.fleet(node, telemetries=[a.telemetry("gpu-a", 4)], domains=domains)
    (waiting,) = placement.plan(tight, [a.replica(gpus=2)], (), a.NOW_AT).waiting
    more = int(4 * IDLE + 2 * (HARD - IDLE))
    assert (
        waiting.would_fit
        == f"raise PowerDomain/a by {more - 400 + 1} W and raise PowerDomain/hall by {more - 410 + 1} W"
    )


def test_a_fleet_with_other_budgets_keeps_its_rows() -> None:
    before = fleet(two_rows())
    after = before.with_nodes({}, before.now_at, two_rows(site=5.0))
    assert all(after.rows[at] is before.rows[at] for at in range(2))
    assert after.usable_watts.tolist() == fleet(two_rows(site=5.0)).usable_watts.tolist()
    assert after.committed_watts.tolist() == before.committed_watts.tolist()


def test_a_fleet_whose_tree_changes_charges_its_nodes_anew() -> None:
    loose = [replace(one, parent="") for one in two_rows()]
    moved = fleet(loose).with_nodes({}, a.NOW_AT, two_rows())
    assert moved.committed_watts.tolist() == fleet(two_rows()).committed_watts.tolist()


def test_domains_of_one_shape_differ_in_budgets_only() -> None:
    assert same_shape(two_rows(), two_rows(a=1.0))
    assert not same_shape(two_rows(), [replace(one, parent="") for one in two_rows()])
    assert not same_shape(two_rows(), two_rows()[:2])


PLACES: dict[str, tuple[dict[str, Place], dict[str, str], tuple[str, ...]]] = {
    "a parent that exists is taken": ({"a": Place("site"), "site": Place("")}, {"a": "site", "site": ""}, ()),
    "one that does not leaves the one before": (
        {"a": Place("sight", ("site",)), "site": Place("")}, {"a": "site", "site": ""}, ("a",)),
    "one that was deleted leaves the next above it": (
        {"a": Place("hall", ("hall", "site")), "site": Place("")}, {"a": "site", "site": ""}, ("a",)),
    "one that never existed leaves none": ({"a": Place("sight")}, {"a": ""}, ("a",)),
    "a circle keeps the shape before it, and both sides say so": (
        {"a": Place("b", ("b",)), "b": Place("a")}, {"a": "b", "b": ""}, ("a", "b")),
    "a domain below a circle stays below": (
        {"a": Place("b", ("b",)), "b": Place("a"), "c": Place("a")}, {"a": "b", "b": "", "c": "a"}, ("a", "b")),
    "a circle that was one before is cut": (
        {"a": Place("b", ("b",)), "b": Place("a", ("a",))}, {"a": "", "b": ""}, ("a", "b")),
}  # fmt: skip


@pytest.mark.parametrize("told", PLACES)
def test_where_a_domain_hangs(told: str) -> None:
    places, parents, wrong = PLACES[told]
    assert settle(places)[0] == parents
    assert tuple(settle(places)[1]) == wrong


def test_both_sides_of_a_circle_are_named() -> None:
    _, problems = settle({"a": Place("b"), "b": Place("c"), "c": Place("a")})
    told = "a circle, PowerDomain/b below PowerDomain/c below PowerDomain/a below PowerDomain/b: take the parent out"
    assert problems["b"].remedy.startswith(told)
