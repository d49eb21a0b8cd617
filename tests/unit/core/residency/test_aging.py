"""Evidence is warned of at half of its age and at four fifths, once at each step, and by who is too old next."""

from __future__ import annotations

from dataclasses import replace

import pytest

import builders as a
from penstock.api.names import EVIDENCE_TIME_LABEL
from penstock.api.residencypolicy import ResidencyPolicyStatus
from penstock.core.model import Node, Residency
from penstock.core.residency.aging import Aging, aging, by_place
from penstock.core.residency.law_status import PolicyFacts, grown_older, policy_status
from penstock.core.residency.proof import proven_time
from penstock.core.residency.standing import Standing

HOUR = 3600.0
DAILY = Residency(restricted=True, allowed_countries=frozenset({"DE"}), evidence_max_age_seconds=24 * HOUR)
PROVEN_TIME = proven_time("20261121T000000Z") or 0.0
EXPIRES = "2026-11-22T00:00:00Z"


def _node(name: str, hour: int | None = 0, country: str = "DE") -> Node:
    """One whose place was proven at that hour of the 21st."""
    labels = {} if hour is None else {EVIDENCE_TIME_LABEL: f"20261121T{hour:02}0000Z"}
    return a.node(name, country=country, labels=labels)


def _status(nodes: tuple[Node, ...], hour: float, previous: ResidencyPolicyStatus) -> ResidencyPolicyStatus:
    now_time = PROVEN_TIME + hour * HOUR
    facts = PolicyFacts(Standing("eu", "uid", 3, None), ["bank"], 1, 2, 0, unlabelled=False, now_time=now_time)
    facts = replace(facts, evidence=aging(DAILY, by_place(nodes, now_time), now_time))
    return policy_status(facts, previous)


@pytest.mark.parametrize(
    ("nodes", "hour", "status", "reason", "says"),
    (
        ((_node("n1"),), 11.9, "True", "Fresh", "no evidence of the 1 nodes"),
        (
            (_node("n1"),),
            12,
            "False",
            "EvidenceAging",
            f"1 of 1 nodes that it allows has used up 50% of maxAge; the next is too old after {EXPIRES}, of n1",
        ),
        ((_node("n1"),), 19.1, "False", "EvidenceAging", "50%"),
        (
            (_node("n1"),),
            19.2,
            "False",
            "EvidenceAlmostSpent",
            f"80% of maxAge; the next is too old after {EXPIRES}, of n1",
        ),
        ((_node("n1"),), 24, "False", "EvidenceAlmostSpent", "80%"),
        (
            (_node("n1"),),
            24.1,
            "False",
            "EvidenceExpired",
            "1 of 1 nodes that it allows is older than maxAge, so nothing new is placed there; prove",
        ),
        (
            (_node("n1"), _node("n2", 10), _node("n3", 11)),
            24.1,
            "False",
            "EvidenceExpired",
            "so nothing new is placed there; the next is too old after 2026-11-22T10:00:00Z, of n2; prove",
        ),
        ((_node("n1", 9), _node("us", 0, "US")), 12, "True", "Fresh", "of the 1 nodes"),
        ((_node("n1", None),), 1, "False", "EvidenceExpired", "1 of 1"),
        ((_node("n1", 2),), 1, "False", "EvidenceExpired", "1 of 1"),
        ((), 1, "True", "Fresh", "of the 0 nodes"),
    ),
    ids=(
        "before half of its age",
        "at half of it",
        "before four fifths",
        "at four fifths",
        "on the last second",
        "a moment too long ago",
        "the worst step is told, and who is next",
        "a node that it does not allow is none of its matter",
        "no time at all is too old",
        "so is one in the future",
        "without a node nothing ages",
    ),
)
def test_a_policy_says_how_old_evidence_is(
    nodes: tuple[Node, ...], hour: float, status: str, reason: str, says: str
) -> None:
    found = _status(nodes, hour, ResidencyPolicyStatus()).conditions[-1]
    assert (found.type, found.status, found.reason) == ("EvidenceFresh", status, reason)
    assert says in found.message
    assert ("penstock label-nodes" in found.message) is (status == "False")


def test_a_policy_that_grants_any_age_says_nothing_of_it() -> None:
    assert aging(replace(DAILY, evidence_max_age_seconds=None), by_place([_node("n1")], 0.0), 0.0) is None


def test_nodes_of_one_place_and_of_others_are_counted_together() -> None:
    parts = [_node("b", 1), _node("a", 0), a.node("c", country="DE", subdivision="DE-HE", labels=_node("", 3).labels)]
    now_time = PROVEN_TIME + 14 * HOUR
    told = aging(DAILY, by_place(parts, now_time), now_time)
    assert told == Aging(nodes=3, half=2, most=0, expired=0, next_node="a", next_time=PROVEN_TIME + 24 * HOUR)


def test_each_step_is_told_once_and_again_after_it_was_renewed() -> None:
    old, renewed, before, told = (_node("n1"),), (_node("n1", 21),), ResidencyPolicyStatus(), list[str]()
    for nodes, hour in ((old, 1), (old, 12), (old, 13), (old, 20), (old, 25), (old, 26), (renewed, 27), (renewed, 34)):
        after = _status(nodes, hour, before)
        said = grown_older(before.conditions, after.conditions)
        told.append(said.reason if said else "")
        before = after
    assert told == ["", "EvidenceAging", "", "EvidenceAlmostSpent", "EvidenceExpired", "", "", "EvidenceAging"]
