"""What people read of a power domain: each condition, what is promised to whom, and when nothing is worth a write."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

import builders as a
from penstock.api.powerdomain import BudgetMemory, NextBudget, PowerDomainSpec, PowerDomainStatus, ReturnRight
from penstock.core.model import RightOfReturn
from penstock.core.power.book import Holder, Statement
from penstock.core.power.budget import Change
from penstock.core.power.domain_status import MAX_HOLDERS, MAX_RIGHTS, DomainFacts, domain_status
from penstock.core.power.standing import Standing
from penstock.core.telling.problem import Problem

STATEMENT = Statement(
    "row-a",
    guarantee="Hard",
    budget_watts=10_000.0,
    usable_watts=9_000.0,
    committed_watts=7_000.4,
    floor_watts=2_000.0,
    draw_watts=4_000.0,
    nodes=2,
    holders=(Holder("Idle", "", 1_500.0), Holder("Pool", "search/llama", 5_500.4)),
)
OVER = replace(STATEMENT, committed_watts=9_900.0)
SHARED = replace(STATEMENT, shared_nodes=(("gpu-1", ("site",)),))
STALE = replace(STATEMENT, stale_nodes=("gpu-2",))
NONE = PowerDomainStatus()
SOON = replace(STATEMENT, admission_budget_watts=7_000.0, usable_watts=6_300.0, next_change=Change(7_000.0, 960.0))
"""A cut that counts in a while: nothing new fits under it any more."""
REFUSED = (Problem("spec.budget.watts", "-1", "write watts above zero"),)


def facts(statement: Statement | None = STATEMENT, **given: Any) -> DomainFacts:
    base = DomainFacts("row-a", 4, problems=(), statement=statement, rights=(), now_time=100.0)
    return replace(base, **given)


def standing(told: dict[str, Any] | None = None, **remembered: Any) -> Standing:
    spec = PowerDomainSpec.model_validate({"budget": {"watts": 400.0}, **(told or {})})
    return Standing("row-a", "uid", spec, BudgetMemory(watts=400.0, **remembered))


WAITING = standing(unconfirmed_watts=400.0, standing_watts=10_000.0)


JUDGED: dict[str, tuple[DomainFacts, str, str, str, tuple[str, ...]]] = {
    "all is well": (facts(), "Ready", "True", "Accepted", ("2 nodes", "2,000 W free")),
    "within its budget": (facts(), "WithinBudget", "True", "WithinBudget", ("Hard guarantee",)),
    "a Statistical guarantee is told to be none": (
        facts(replace(STATEMENT, guarantee="Statistical")),
        "WithinBudget",
        "True",
        "WithinBudget",
        ("no promise",),
    ),
    "over, and by how much": (
        facts(OVER),
        "WithinBudget",
        "False",
        "OverBudget",
        ("9,900 W committed of 9,000 W", "over by 900 W", "nothing running is touched"),
    ),
    "a domain that is over is not ready": (facts(OVER), "Ready", "False", "OverBudget", ("over by 900 W",)),
    "a selector that selects nothing": (
        facts(replace(STATEMENT, nodes=0)),
        "Ready",
        "False",
        "SelectsNothing",
        ("spec.nodeSelector",),
    ),
    "the selector that selects nothing is shown": (
        facts(
            replace(STATEMENT, nodes=0),
            standing=standing(
                {
                    "nodeSelector": {
                        "matchLabels": {"row": "z"},
                        "matchExpressions": [
                            {"key": "hall", "operator": "In", "values": ["1", "2"]},
                            {"key": "old", "operator": "DoesNotExist"},
                        ],
                    }
                }
            ),
        ),
        "Ready",
        "False",
        "SelectsNothing",
        ("spec.nodeSelector: row=z,hall in (1, 2),!old selects no node", "compare it with the nodes' labels"),
    ),
    "names of nodes that do not exist": (
        facts(replace(STATEMENT, nodes=0), standing=standing({"nodes": ["gpu-9"]})),
        "Ready",
        "False",
        "SelectsNothing",
        ("spec.nodes: gpu-9: no such node exists", "compare them with the nodes' names"),
    ),
    "a domain that holds neither nodes nor domains": (
        facts(replace(STATEMENT, nodes=0), standing=standing()),
        "Ready",
        "False",
        "SelectsNothing",
        ("no domain names it as its parent",),
    ),
    "a domain that only holds others": (
        facts(replace(STATEMENT, nodes=0, children=("row-b",)), standing=standing()),
        "Ready",
        "True",
        "Accepted",
        ("0 nodes",),
    ),
    "a child that may have more than its parent": (
        facts(replace(STATEMENT, children=("row-b",), larger_children=(("row-b", 12_000.0),))),
        "Ready",
        "True",
        "Accepted",
        ("PowerDomain/row-b (12,000 W) below may have more than the 10,000 W here, which bind first",),
    ),
    "nodes of a child that was deleted": (
        facts(standing=replace(standing(), inherited=frozenset({"gpu-2", "gpu-1"}))),
        "Ready",
        "False",
        "InheritedNodes",
        ("gpu-1, gpu-2 lost their own budget", "give them a domain"),
    ),
    "a cut ahead is told as what it is": (
        facts(SOON),
        "WithinBudget",
        "False",
        "OverBudget",
        ("6,300 W usable (budget 7,000 W within 15 minutes less margin)", "over by 700 W"),
    ),
    "no edit waits": (facts(standing=standing()), "Confirmed", "True", "Accepted", ()),
    "an edit waits for its author, who is told the number": (
        facts(standing=WAITING),
        "Confirmed",
        "False",
        "NeedsConfirmation",
        ("leaves 360 W for 7,000 W committed", "set spec.budget.confirm to 400 ", "the budget of 10,000 W before it"),
    ),
    "every agent speaks": (facts(), "TelemetryFresh", "True", "Fresh", ()),
    "an agent is silent": (
        facts(STALE),
        "TelemetryFresh",
        "False",
        "StaleTelemetry",
        ("gpu-2", "look at the agent"),
    ),
    "no node is in two domains": (facts(), "Exclusive", "True", "Exclusive", ()),
    "a node is in two domains": (
        facts(SHARED),
        "Exclusive",
        "False",
        "OverlappingDomains",
        ("gpu-1 (also in site)", "give each node one domain"),
    ),
    "and then neither is ready": (facts(SHARED), "Ready", "False", "OverlappingDomains", ("gpu-1",)),
    "an invalid edit leaves the last budget in force": (
        facts(problems=REFUSED),
        "Ready",
        "False",
        "InvalidSpec",
        ("spec.budget.watts", "-1", "write watts above zero", "the last valid budget stays in force"),
    ),
    "an invalid domain from the start guards nothing": (
        facts(None, problems=REFUSED),
        "Ready",
        "False",
        "InvalidSpec",
        ("no budget is in force",),
    ),
}


@pytest.mark.parametrize(("found", "kind", "status", "reason", "words"), JUDGED.values(), ids=JUDGED.keys())
def test_condition(found: DomainFacts, kind: str, status: str, reason: str, words: tuple[str, ...]) -> None:
    (one,) = (one for one in domain_status(found, NONE).conditions if one.type == kind)
    assert (one.status, one.reason, one.observed_generation) == (status, reason, 4)
    assert [word for word in words if word not in one.message] == []


def test_without_a_budget_in_force_no_figure_is_made_up() -> None:
    found = domain_status(facts(None, problems=REFUSED), NONE)
    assert (found.committed_watts, found.headroom_watts, found.holders) == (None, None, ())
    assert [one.type for one in found.conditions] == ["Ready"]


def test_the_figures_of_the_account_and_whose_they_are_most_first() -> None:
    found = domain_status(facts(), NONE)
    assert (found.budget_watts, found.usable_watts, found.committed_watts) == (10_000, 9_000, 7_000)
    assert (found.headroom_watts, found.floor_watts, found.draw_watts, found.nodes) == (2_000, 2_000, 4_000, 2)
    assert [(one.kind, one.name, one.watts) for one in found.holders] == [
        ("Pool", "search/llama", 5_500),
        ("Idle", "", 1_500),
    ]


def test_a_budget_that_moves_is_told_with_the_next_one() -> None:
    found = domain_status(facts(SOON), NONE)
    assert (found.budget_watts, found.admission_budget_watts, found.usable_watts) == (10_000, 7_000, 6_300)
    assert found.next_budget == NextBudget(watts=7_000, at=datetime.fromtimestamp(960, UTC))


def test_what_a_restart_must_not_forget_is_in_the_status() -> None:
    kept = replace(WAITING, ancestors=("hall", "site"), inherited=frozenset({"gpu-1"}))
    found = domain_status(facts(standing=kept), NONE)
    assert (found.ancestors, found.inherited_nodes) == (("hall", "site"), ("gpu-1",))
    assert (found.budget_memory, found.last_valid) == (WAITING.memory, None)
    spoilt = domain_status(facts(standing=replace(kept, problems=REFUSED), problems=REFUSED), NONE)
    assert spoilt.last_valid == WAITING.spec


def test_a_domain_that_is_over_has_less_than_no_headroom() -> None:
    assert domain_status(facts(OVER), NONE).headroom_watts == -900


def test_a_flicker_of_the_draw_changes_nothing_and_a_step_changes_all_it_concerns() -> None:
    first = domain_status(facts(), NONE)
    flicker = replace(STATEMENT, draw_watts=4_150.0, committed_watts=7_090.0)
    assert domain_status(facts(flicker, now_time=200.0), first) == first
    step = domain_status(facts(replace(STATEMENT, draw_watts=4_600.0), now_time=200.0), first)
    assert (step.draw_watts, step.committed_watts) == (4_600, 7_000)


def test_a_domain_that_is_over_by_a_little_says_so_though_its_sum_hardly_moved() -> None:
    first = domain_status(facts(replace(STATEMENT, committed_watts=8_990.0)), NONE)
    found = domain_status(facts(replace(STATEMENT, committed_watts=9_005.0)), first)
    assert (found.committed_watts, found.headroom_watts) == (9_005, -5)
    assert {one.type for one in found.conditions if one.status == "False"} == {"Ready", "WithinBudget"}


def test_a_condition_keeps_its_time_until_its_status_flips() -> None:
    first = domain_status(facts(), NONE)
    later = domain_status(facts(OVER, now_time=200.0), first)
    times = {one.type: one.last_transition_time for one in later.conditions}
    assert times["WithinBudget"] == datetime.fromtimestamp(200, UTC)
    assert times["TelemetryFresh"] == datetime.fromtimestamp(100, UTC)


def test_rights_of_return_are_written_so_that_a_restart_keeps_them() -> None:
    right = RightOfReturn("row-a", a.POOL, 2_235.4, 400.0)
    until = datetime.fromtimestamp(400, UTC)
    assert domain_status(facts(rights=(right,)), NONE).rights_of_return == (
        ReturnRight(namespace="search", pool="llama", watts=2_235, until=until),
    )


def test_a_status_stays_within_its_schema_however_much_there_is_to_tell() -> None:
    names = tuple(f"gpu-{number}" for number in range(5_000))
    crowd = replace(
        STATEMENT,
        stale_nodes=names,
        shared_nodes=tuple((name, ("site",)) for name in names),
        holders=tuple(Holder("Pool", f"search/p-{number}", 100.0) for number in range(500)),
    )
    rights = tuple(RightOfReturn("row-a", a.POOL, 100.0, 400.0) for _ in range(1_000))
    found = domain_status(facts(crowd, rights=rights), NONE)
    assert PowerDomainStatus.model_validate(found.model_dump()) == found
    assert (len(found.holders), len(found.rights_of_return), found.stale_nodes) == (MAX_HOLDERS, MAX_RIGHTS, 5_000)
