"""Who is asked first, which node wins, and what a right of return is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

import builders as a
from penstock.core.model import (
    MOST_GPUS,
    Domain,
    Guarantee,
    Node,
    PlacementRules,
    Pod,
    PoolKey,
    Replica,
    RightOfReturn,
    SoftSpread,
    Telemetry,
)
from penstock.core.placement import choice as placement
from penstock.core.placement.choice import Plan
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scheduling import Scheduling
from penstock.core.placement.verdicts import Reason
from penstock.core.power.trimming import Owed

OTHER = PoolKey("chat", "small")
ADDED = 641.0
"""What one GPU adds to a domain without overhead: 721 W reserved less 80 W of idle draw."""


def plan(fleet: Fleet, *asked: Replica, rights: Sequence[RightOfReturn] = ()) -> Plan:
    return placement.plan(fleet, asked, rights, 0.0)


ORDERS: dict[str, tuple[list[Replica], str]] = {
    "the longest waiting first": ([a.replica("a", since_time=2), a.replica("b", since_time=1)], "b a"),
    "priority before waiting": ([a.replica("a", since_time=1), a.replica("b", since_time=2, priority=10)], "b a"),
    "the newest ReplicaSet of a pool takes its pool's first turn": (
        [a.replica("old", since_time=1, newest=False), a.replica("new", since_time=3)],
        "new old",
    ),
    "but no other pool's turn": (
        [
            a.replica("old", since_time=1, newest=False),
            a.replica("other", since_time=2, pool=OTHER),
            a.replica("new", since_time=3),
        ],
        "new other old",
    ),
    "among equals by key": ([a.replica("b"), a.replica("a")], "a b"),
}


@pytest.mark.parametrize(("asked", "want"), ORDERS.values(), ids=ORDERS.keys())
def test_asked_order(asked: list[Replica], want: str) -> None:
    assert [one.key for one in placement.in_asked_order(asked)] == want.split()
    assert [one.key for one in placement.in_asked_order(asked[::-1])] == want.split()


def two(**second: object) -> tuple[Telemetry, Telemetry]:
    """Two nodes of eight GPUs, all of the second's changed."""
    gpus = [a.gpu(index, **second) for index in range(8)]
    return a.telemetry("gpu-1"), a.telemetry("gpu-2", gpus)


CHOICES: dict[str, tuple[Sequence[Telemetry], Sequence[Pod], PlacementRules, str]] = {
    "the first by name among equals": (two(), [], PlacementRules(), "gpu-1"),
    "fewer watts per GPU": (two(limit_watts=400.0), [], PlacementRules(), "gpu-2"),
    "a part-filled node keeps the other whole": (two(), [a.pod(node="gpu-2", gpus=3)], PlacementRules(), "gpu-2"),
    "a throttled node ranks down": (
        (a.telemetry("gpu-1", [a.gpu(index, throttled=True) for index in range(8)]), a.telemetry("gpu-2")),
        [],
        PlacementRules(),
        "gpu-2",
    ),
    "a spread that would be passed outweighs everything else": (
        two(limit_watts=200.0),
        [a.pod(node="gpu-2", gpus=1)],
        PlacementRules(spread=(SoftSpread("kubernetes.io/hostname"),)),
        "gpu-1",
    ),
    "a missing limit makes a node no better": (
        (a.telemetry("gpu-1", [a.gpu(index, limit_watts=None) for index in range(8)]), two(limit_watts=600.0)[1]),
        [],
        PlacementRules(),
        "gpu-2",
    ),
    "an unmeasured GPU does not look cheap": (
        (
            a.telemetry("gpu-1", [a.gpu(index, planned_watts=None, limit_watts=690.0) for index in range(8)]),
            two(limit_watts=699.0)[1],
        ),
        [],
        PlacementRules(),
        "gpu-2",
    ),
}


@pytest.mark.parametrize(("heard", "pods", "rules", "want"), CHOICES.values(), ids=CHOICES.keys())
def test_chosen_node(heard: Sequence[Telemetry], pods: Sequence[Pod], rules: PlacementRules, want: str) -> None:
    fleet = a.fleet(a.node("gpu-1"), a.node("gpu-2"), telemetries=heard, pods=pods, pools={a.POOL: rules})
    decision = plan(fleet, a.replica(gpus=1, rules=rules)).decisions[0]
    assert decision.node == want
    assert decision.chosen.score == pytest.approx(sum(value for _, value in decision.chosen.terms))
    assert decision.runner_up is not None
    assert decision.runner_up.score <= decision.chosen.score


def budget(placed_gpus: int) -> Domain:
    """A domain for one node of eight idle GPUs, so many of which may be placed."""
    return a.domain(budget_watts=8 * 80 + placed_gpus * ADDED)


def test_a_decision_takes_its_watts_from_the_next_one() -> None:
    fleet = a.fleet(a.node(), domains=[budget(3)])
    found = plan(fleet, a.replica("a", 2), a.replica("b", 2), a.replica("c", 1))
    assert [one.replica.key for one in found.decisions] == ["a", "c"]
    assert [(one.replica.key, one.reason) for one in found.waiting] == [("b", Reason.INSUFFICIENT_POWER)]
    assert dict(found.decisions[0].watts) == pytest.approx({"row-a": 2 * ADDED})


def test_the_next_replica_on_a_node_gets_the_next_coolest_gpus() -> None:
    gpus = [a.gpu(index, planned_watts=watts) for index, watts in enumerate((80.0, 400.0, 80.0, 400.0))]
    fleet = a.fleet(a.node(gpus=4), telemetries=[a.telemetry(gpus=gpus)], domains=[a.domain()])
    found = plan(fleet, a.replica("a", 2), a.replica("b", 2))
    assert [round(dict(one.watts)["row-a"]) for one in found.decisions] == [2 * 641, 2 * 321]


def test_declared_watts_on_gpus_hotter_than_they_are_cost_what_the_dearest_pairing_costs() -> None:
    pinned = a.pod("pin", "", pin="gpu-1", gpus=1)
    gpus = [a.gpu(0, planned_watts=80.0), a.gpu(1, planned_watts=310.0)]
    rules = PlacementRules(declared_watts=600.0)
    fleet = a.fleet(
        a.node(gpus=2),
        telemetries=[a.telemetry(gpus=gpus)],
        pods=[pinned],
        domains=[a.domain(guarantee=Guarantee.STATISTICAL)],
        pools={a.POOL: PlacementRules(declared_watts=300.0), OTHER: rules},
    )
    # 300 W on the cool GPU become 600 W there and 310 W on the hot one.
    (decision,) = plan(fleet, a.replica(gpus=1, pool=OTHER, rules=rules)).decisions
    assert dict(decision.watts) == pytest.approx({"row-a": 300.0})


def test_a_budget_that_runs_out_is_seen_by_every_class_that_asks_next() -> None:
    nodes = [a.node(f"gpu-{number}", gpus=4) for number in range(4)]
    fleet = a.fleet(*nodes, domains=[a.domain(budget_watts=16 * 80 + 5 * ADDED)])
    asked = [a.replica(f"r-{turn}", 2, pool=pool, since_time=turn) for turn, pool in enumerate((a.POOL, OTHER) * 2)]
    found = plan(fleet, *asked)
    assert [one.replica.key for one in found.decisions] == ["r-0", "r-1"]
    assert {one.reason for one in found.waiting} == {Reason.INSUFFICIENT_POWER}


def right(watts: float, pool: PoolKey = a.POOL, until_time: float = 1.0) -> RightOfReturn:
    return RightOfReturn("row-a", pool, watts, until_time)


RIGHTS: dict[str, tuple[Domain, list[RightOfReturn], bool]] = {
    "room is for anybody": (budget(2), [], True),
    "what another pool may come back to is held back": (budget(2), [right(1.0, OTHER)], False),
    "a right that ended holds nothing back": (budget(2), [right(1.0, OTHER, until_time=0.0)], True),
    "a right in another domain holds nothing back": (
        budget(2),
        [RightOfReturn("row-b", OTHER, 1.0, 1.0)],
        True,
    ),
    "a domain that is over takes a pool back": (a.domain(budget_watts=1.0), [right(2 * ADDED)], True),
    "but no more than it left": (a.domain(budget_watts=1.0), [right(2 * ADDED - 1)], False),
    "and no other pool": (a.domain(budget_watts=1.0), [right(2 * ADDED, OTHER)], False),
    "two rights of a pool add up": (a.domain(budget_watts=1.0), [right(ADDED), right(ADDED)], True),
}


@pytest.mark.parametrize(("domain", "rights", "placed"), RIGHTS.values(), ids=RIGHTS.keys())
def test_right_of_return(domain: Domain, rights: list[RightOfReturn], placed: bool) -> None:
    found = plan(a.fleet(a.node(), domains=[domain]), a.replica(gpus=2), rights=rights)
    assert bool(found.decisions) is placed


def test_a_right_is_used_up_by_what_comes_back() -> None:
    fleet = a.fleet(a.node(), domains=[a.domain(budget_watts=1.0)])
    found = plan(fleet, a.replica("a", 2), a.replica("b", 2), rights=[right(3 * ADDED)])
    assert [one.replica.key for one in found.decisions] == ["a"]
    assert dict(found.decisions[0].returned_watts) == pytest.approx({"row-a": 2 * ADDED})
    assert {one.pool: one.watts for one in found.rights} == pytest.approx({a.POOL: ADDED})


def test_a_replica_that_fits_nowhere_holds_nobody_up() -> None:
    found = plan(a.fleet(a.node(gpus=4)), a.replica("large", 8, priority=10), a.replica("small", 1, pool=OTHER))
    assert [one.replica.key for one in found.decisions] == ["small"]
    assert [one.reason for one in found.waiting] == [Reason.INSUFFICIENT_GPUS]


def test_a_constraint_that_cannot_be_judged_is_named_and_no_node_is_tried() -> None:
    unjudged = a.replica(scheduling=Scheduling(unjudged="spec.affinity.podAffinity"))
    (one,) = plan(a.fleet(a.node()), unjudged).waiting
    assert one.reason is Reason.UNJUDGED_CONSTRAINT
    assert "spec.affinity.podAffinity" in one.message
    assert one.would_fit == "remove spec.affinity.podAffinity"


def test_a_cluster_without_nodes_says_so() -> None:
    assert [one.reason for one in plan(a.fleet(), a.replica()).waiting] == [Reason.NO_NODES]


def test_the_order_of_nodes_does_not_matter() -> None:
    nodes: list[Node] = [a.node(f"gpu-{number}") for number in range(4)]
    asked = [a.replica(key, 4) for key in "abcde"]
    assert plan(a.fleet(*nodes), *asked) == plan(a.fleet(*nodes[::-1]), *asked[::-1])


def test_replicas_that_differ_in_what_they_ask_share_no_verdict() -> None:
    asked = a.replica("a", 2)
    barred = replace(asked, key="b", avoid=frozenset({"gpu-1"}))
    found = plan(a.fleet(a.node()), asked, barred)
    assert [one.replica.key for one in found.decisions] == ["a"]
    assert [one.reason for one in found.waiting] == [Reason.BACK_OFF]


# -------------------------------------------------------------------------------------------------- domains on hold

ROW_A = frozenset({"row-a"})
HELD: dict[str, tuple[Replica, list[RightOfReturn], Reason | None]] = {
    "whoever has a right of return comes back": (a.replica(), [right(2 * ADDED)], None),
    "nobody else does, whatever room there is": (a.replica(), [right(2 * ADDED, OTHER)], Reason.POWER_HOLD),
    "a right that is smaller than what it takes is none": (a.replica(), [right(ADDED)], Reason.POWER_HOLD),
    "what was shed is told as that": (a.replica(shed=True), [], Reason.SHED_BY_POWER),
}


@pytest.mark.parametrize(("asked", "rights", "want"), HELD.values(), ids=HELD.keys())
def test_a_domain_on_hold(asked: Replica, rights: list[RightOfReturn], want: Reason | None) -> None:
    fleet = a.fleet(a.node(), domains=[a.domain()])
    found = placement.plan(fleet, [asked], rights, 0.0, ROW_A)
    assert [one.reason for one in found.waiting] == ([want] if want else [])


FITS = {
    "the end of the hold is enough": (1e6, "wait until PowerDomain/row-a leaves hold"),
    "the end of the hold and more watts": (
        8 * 80 + 2 * ADDED - 100,
        "wait until PowerDomain/row-a leaves hold and raise PowerDomain/row-a by 101 W",
    ),
}


@pytest.mark.parametrize(("budget_watts", "want"), FITS.values(), ids=FITS.keys())
def test_what_would_fit_in_a_domain_on_hold(budget_watts: float, want: str) -> None:
    fleet = a.fleet(a.node(), domains=[a.domain(budget_watts=budget_watts)])
    (one,) = placement.plan(fleet, [a.replica()], (), 0.0, ROW_A).waiting
    assert one.would_fit == want


def test_what_was_shed_goes_where_nothing_is_held() -> None:
    nodes = [a.node("gpu-1", labels={"row": "a"}), a.node("gpu-2", labels={"row": "b"})]
    fleet = a.fleet(*nodes, domains=[a.domain(selector=a.labelled("row", "a"))])
    (decision,) = placement.plan(fleet, [a.replica(shed=True)], (), 0.0, ROW_A).decisions
    assert decision.node == "gpu-2"


CAPPED = (Owed("row-a", 10, ADDED),)
"""A replica of priority 10 has given as much by its power limits as one GPU takes."""
ROOM_FOR_TWO = 8 * 80 + 2 * ADDED
OWED: dict[str, tuple[float, Replica, list[RightOfReturn], str]] = {
    "one that matters as much leaves the room to those that are capped": (
        ROOM_FOR_TWO,
        a.replica(priority=10),
        [],
        "1 would pass the budget of PowerDomain/row-a by 642 W (641 W of its room are kept for who is capped)",
    ),
    "one that matters less does too": (
        ROOM_FOR_TWO,
        a.replica(),
        [],
        "1 would pass the budget of PowerDomain/row-a by 642 W (641 W of its room are kept for who is capped)",
    ),
    "one that matters more comes first": (ROOM_FOR_TWO, a.replica(priority=11), [], ""),
    "what fits beside all of them is placed": (ROOM_FOR_TWO + ADDED, a.replica(priority=10), [], ""),
    "a right of return is kept": (ROOM_FOR_TWO, a.replica(), [right(2 * ADDED)], ""),
}


@pytest.mark.parametrize(("budget_watts", "asked", "rights", "want"), OWED.values(), ids=OWED.keys())
def test_what_is_owed_to_capped_replicas(
    budget_watts: float, asked: Replica, rights: list[RightOfReturn], want: str
) -> None:
    fleet = a.fleet(a.node(), domains=[a.domain(budget_watts=budget_watts), a.domain("site")])
    found = placement.plan(fleet, [asked], rights, 0.0, owed=CAPPED)
    assert [want in one.message for one in found.waiting] == ([True] if want else [])
    assert len(found.decisions) == (0 if want else 1)


def test_replicas_of_one_pool_that_differ_in_priority_are_judged_apart_while_somebody_is_capped() -> None:
    fleet = a.fleet(a.node(), domains=[a.domain(budget_watts=ROOM_FOR_TWO)])
    asked = [a.replica("urgent", priority=11, gpus=1), a.replica("other", gpus=1)]
    found = placement.plan(fleet, asked, (), 0.0, owed=CAPPED)
    assert [one.replica.key for one in found.decisions] == ["urgent"]


def test_what_would_fit_leaves_the_capped_ones_their_watts() -> None:
    fleet = a.fleet(a.node(), domains=[a.domain(budget_watts=ROOM_FOR_TWO)])
    (one,) = placement.plan(fleet, [a.replica()], (), 0.0, owed=CAPPED).waiting
    assert one.would_fit == "raise PowerDomain/row-a by 642 W"


def test_a_billion_gpus_are_asked_for_and_held_at_the_price_of_a_thousand() -> None:
    many = 10**9
    greedy = a.replica("greedy", gpus=many)
    foreign = a.pod("foreign", gpus=many, pool="", namespace="kube-system")
    found = placement.plan(a.fleet(a.node(), pods=[foreign]), (greedy,), (), 0.0)
    assert (greedy.gpus, foreign.gpus) == (MOST_GPUS, MOST_GPUS)
    assert [one.reason for one in found.waiting] == ["InsufficientGPUs"]
