"""Which replicas are of one class, and what one table says for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import builders as a
from penstock.core.model import Guarantee, LearnedWatts, PlacementRules
from penstock.core.placement import choice as placement
from penstock.core.placement.planner import Planner
from penstock.core.power.ledger import Ledger


def test_each_replica_reserves_what_was_learned_of_its_own_template() -> None:
    rules = PlacementRules(learned=(LearnedWatts("known", 300.0, everywhere=True),))
    domain = a.domain(guarantee=Guarantee.STATISTICAL)
    fleet = a.fleet(a.node(), domains=[domain], pools={a.POOL: rules})
    known = a.replica("a", 1, rules=rules, template_hash="known")
    fresh = replace(known, key="b", template_hash="new")
    found = placement.plan(fleet, [known, fresh], (), 0.0)
    # The new template's replica holds its limit, 721 W, beside the known one's 300 W, on GPUs that draw 80 W idle.
    assert [dict(one.watts)["row-a"] for one in found.decisions] == pytest.approx([300 - 80, 721 - 80])


def test_templates_of_which_nothing_was_learned_share_a_class() -> None:
    planner = Planner(fleet := a.fleet(a.node()), Ledger(fleet, (), 0.0), ())
    one = a.replica("a", template_hash="old")
    assert planner.class_of(one) == planner.class_of(replace(one, key="b", template_hash="new"))


def test_a_class_is_never_that_of_a_replica_that_is_gone() -> None:
    planner = Planner(fleet := a.fleet(a.node()), Ledger(fleet, (), 0.0), ())
    asked = a.replica(gpus=1)
    for cpu in range(100):  # Each is forgotten before the next is made, in the same place of memory.
        found = planner.class_of(replace(asked, requests={"cpu": cpu}))
        assert found.requests == (("cpu", cpu),)
