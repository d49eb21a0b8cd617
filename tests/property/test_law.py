"""Over random policies, groups, labels and exceptions: more policies only narrow, deny wins, CEL agrees."""

from __future__ import annotations

from dataclasses import replace

import pytest

import builders as a
from lawful import COUNTRIES, NODES, NOW_TIME, PARTS, PROVEN, History, a_history, lawful, one_by_one
from lift_rule import term_is_lawful
from penstock.api.names import (
    CLEARANCE_LABEL,
    EVIDENCE_LABEL,
    EVIDENCE_TIME_LABEL,
    OPERATOR_LABEL,
)
from penstock.core.model import Residency
from penstock.core.placement.affinity import meets
from penstock.core.placement.choice import plan
from penstock.core.residency import alternatives, contradicts_itself, iso, law
from penstock.core.residency.annotations import written
from penstock.core.residency.ceiling import Demand, effective, under
from penstock.core.residency.groups import Group, Written, in_force, read
from penstock.core.residency.proof import lately_proven


@a_history
def test_the_effective_set_only_ever_narrows_with_more_policies(history: History) -> None:
    before, more, exceptions, node = history.demands(4), history.demand(), history.exceptions(), history.node()
    fewer, wider = effective((*before, more), exceptions), effective(before, exceptions)
    assert not lawful(fewer.residency, node) or lawful(wider.residency, node)
    each = all(lawful(demand.residency, node) for demand in fewer.demands)
    assert lawful(fewer.residency, node) is each, "inside all of them is inside the law, and nothing else is"
    assert (fewer.conflict is None) == bool(alternatives(fewer.residency))
    assert effective((more, *reversed(before)), exceptions).residency == fewer.residency, "in any order"
    if more.enforced and not exceptions:
        assert under(effective(before), more) == fewer, "and a step at a time"


@a_history
def test_a_node_is_lawful_by_its_terms_as_it_is_by_the_words_of_the_law(history: History) -> None:
    found = history.law()
    for node in (history.node(), history.node(), history.node()):
        assert (law(found, node) is not None) is one_by_one(found, node)


@a_history
def test_deny_wins(history: History) -> None:
    found, countries, parts = history.law(), history.some(COUNTRIES), history.some(PARTS)
    denying = replace(
        found,
        denied_countries=found.denied_countries | countries,
        denied_subdivisions=found.denied_subdivisions | iso.touching(parts),
    )
    for node in NODES:
        if node.country in countries or node.subdivision in parts:
            assert law(denying, node) is None


@a_history
def test_what_is_compiled_for_any_pool_under_a_ceiling_holds_what_cel_reads_of_it(history: History) -> None:
    ceiling = effective(history.demands(3), history.exceptions())
    texts = written(ceiling.residency)
    pool = ceiling
    for own in history.demands(2):
        pool = under(pool, replace(own, enforced=True))
    assert [way for way in alternatives(pool.residency) if not term_is_lawful(way, texts)] == []


@a_history
def test_a_term_that_cel_lets_pass_selects_no_node_outside_the_law(history: History) -> None:
    ceiling = history.law()
    ceiling, node = replace(ceiling, clearances=None, evidences=None), history.node()
    texts = written(ceiling)
    if not node.country or contradicts_itself(node.country, node.subdivision):
        return
    for way in alternatives(replace(history.law(), clearances=None, evidences=None)):
        selected = all(meets(rule, node.labels.get(rule.key)) for rule in way)
        if selected and term_is_lawful(way, texts):
            assert law(ceiling, node) is not None


@a_history
def test_an_exception_only_ever_widens_and_by_no_more_than_it_says(history: History) -> None:
    found, by, node = history.law(), history.widening(), history.node()
    wider = effective((Demand("p", found, policy="p"),), (replace(by, policies=frozenset({"p"})),)).residency
    assert lawful(wider, node) or not lawful(found, node)
    # Who says its country alone is out for the denied parts of it: were those all allowed, it would be in.
    parts_of = {iso.country_of(code) for code in by.subdivisions} if not node.subdivision else frozenset()
    named = node.country in by.countries | parts_of or node.subdivision in by.subdivisions
    axes = ((OPERATOR_LABEL, by.operators), (CLEARANCE_LABEL, by.clearances), (EVIDENCE_LABEL, by.evidences))
    if not named and not any(node.labels.get(label, "") in values for label, values in axes):
        assert lawful(wider, node) is lawful(found, node)


@a_history
def test_what_is_in_force_of_a_group_is_what_it_says_or_what_it_said_last(history: History) -> None:
    members = (*COUNTRIES, "UK", "ZZ", "DE-HE", "Alpha", "BETA", "gamma")
    names = history.some(("alpha", "beta", "gamma"))
    lists = {name: Written("now", tuple(sorted(history.some(members)))) for name in sorted(names)}
    recalled = {name: Group("before", history.some(COUNTRIES)) for name in sorted(history.some(("alpha", "beta")))}
    found = in_force(lists, recalled)
    assert found.groups.known.keys() | found.groups.broken == lists.keys()
    for name, group in found.groups.known.items():
        assert all(iso.exists(code) for code in group.codes)
        if name in found.problems:
            assert group == recalled[name]
        else:
            assert group == Group("now", read("", lists[name].members, found.groups).codes)


@a_history
def test_the_planner_places_nobody_outside_the_law(history: History) -> None:
    """Invariant 1. A plan is dear: every twentieth history has one."""
    if history.dice.random() > 0.05:
        return
    nodes = [replace(history.node(), name=f"m{number}") for number in range(3)]
    found = effective(history.demands(2)).residency
    asked = [a.replica(f"r{number}", residency=found) for number in range(3)]
    decided = plan(a.fleet(*nodes), asked, [], NOW_TIME)
    inside = {node.name for node in nodes if lawful(found, node)}
    assert {decision.node for decision in decided.decisions} <= inside
    assert bool(decided.decisions) is bool(inside)


@pytest.mark.parametrize("label", PROVEN.values())
def test_the_clock_of_these_histories_is_that_of_their_labels(label: str) -> None:
    node = a.node(labels={EVIDENCE_TIME_LABEL: label})
    assert lately_proven(Residency(True, evidence_max_age_seconds=60.0), node, NOW_TIME) is (
        label == PROVEN["just now"]
    )
