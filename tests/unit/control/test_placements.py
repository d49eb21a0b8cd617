"""What a status says of the decision on a replica that has a place."""

from __future__ import annotations

import pytest

import builders as a
from penstock.control.placements import placed_facts
from penstock.core.model import PlacementRules
from penstock.core.pool import Pool, RollCall

POOL = Pool(a.POOL, "uid-pool", generation=1, desired=1, rules=PlacementRules())
DECISIONS = {
    "its reason, whatever else the record holds": ('{"reason": "best of 5", "node": "gpu-1"}', "best of 5"),
    "that somebody else let it through, where it has no record": ("", "let through the gate by somebody else"),
    "that its record cannot be read, where somebody has spoiled it": ("{", "its decision record cannot be read"),
}


@pytest.mark.parametrize(("decision", "want"), DECISIONS.values(), ids=DECISIONS.keys())
def test_why_a_replica_is_where_it_is(decision: str, want: str) -> None:
    fleet = a.fleet(a.node("gpu-1"))
    pods = (a.pod("r-2", node="gpu-9", decision=decision), a.pod("r-1", node="gpu-1", decision=decision))
    first, second = placed_facts(POOL, RollCall(bound=pods), fleet, 0.0)
    assert (first.pod, first.node, first.reason) == ("r-1", "gpu-1", want)
    assert (second.node, second.country, second.lawful) == ("gpu-9", "", True), "nobody knows its node"
