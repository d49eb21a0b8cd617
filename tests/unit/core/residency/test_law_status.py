"""What a policy's status says: whom it selects, whether nodes say where they stand, and who is outside of it."""

from dataclasses import replace

import pytest

from penstock.api.residencypolicy import ResidencyPolicyStatus
from penstock.core.model import Residency
from penstock.core.placement.scheduling import LabelRule
from penstock.core.residency.ceiling import Demand
from penstock.core.residency.law_status import LONGEST_SELECTOR, PolicyFacts, policy_status
from penstock.core.residency.standing import Ceiling, Standing

ENFORCED = Ceiling(LabelRule(), Demand("ResidencyPolicy/eu@1", Residency(restricted=True), policy="eu"))
AUDITED = replace(ENFORCED, demand=replace(ENFORCED.demand, enforced=False))


@pytest.mark.parametrize(
    ("unlabelled", "status", "reason", "says"),
    (
        (True, "False", "NodesSayNoPlace", "penstock label-nodes --table FILE"),
        (False, "True", "NodesSayPlaces", "nodes say where they stand"),
    ),
    ids=("no node says where it stands", "some node does"),
)
def test_a_policy_says_once_whether_the_nodes_say_where_they_stand(
    unlabelled: bool, status: str, reason: str, says: str
) -> None:
    standing = Standing("eu", "uid", 3, None)
    facts = PolicyFacts(standing, ["bank"], 1, 2, 0, unlabelled=unlabelled, now_time=0.0)
    found = policy_status(facts, ResidencyPolicyStatus()).conditions
    (known,) = [one for one in found if one.type == "PlacesKnown"]
    assert (known.status, known.reason) == (status, reason)
    assert says in known.message
    assert [one.type for one in found] == ["Ready", "PlacesKnown", "ResidencyCompliant", "EnforcementVerified"]


@pytest.mark.parametrize(
    ("says", "seen", "told"),
    (
        ((), (), "If that is meant, set spec.confirm to 7"),
        ((9,), (9,), "If that is meant, set spec.confirm to 7"),
        ((7,), (7,), "take spec.confirm away and set it to 7 again"),
    ),
    ids=("nothing", "another number", "the number of an earlier edit"),
)
def test_an_edit_that_looks_like_a_mistake_says_how_to_confirm_it(
    says: tuple[int, ...], seen: tuple[int, ...], told: str
) -> None:
    standing = Standing("eu", "uid", 3, None, confirms=frozenset(says), confirmed=frozenset(seen), unconfirmed=7)
    facts = PolicyFacts(standing, ["bank"], 1, 9, 0, unlabelled=False, now_time=0.0)
    ready = policy_status(facts, ResidencyPolicyStatus()).conditions[0]
    assert ready.reason == "NeedsConfirmation"
    assert told in ready.message


@pytest.mark.parametrize(
    ("asked", "in_force", "told"),
    (
        (ENFORCED, ENFORCED, "which their pools name"),
        (
            AUDITED,
            AUDITED,
            "which their pools name, and which go on running: it only audits, until spec.mode is Enforce",
        ),
        (
            ENFORCED,
            None,
            "which are left alone while it does not count for what runs: Ready says what that waits for",
        ),
    ),
    ids=("a policy that counts", "one that only audits", "one that waits for its confirmation"),
)
def test_of_replicas_that_are_outside_it_says_where_they_are_named_and_whether_anything_is_done(
    asked: Ceiling, in_force: Ceiling | None, told: str
) -> None:
    facts = PolicyFacts(Standing("eu", "uid", 3, asked, in_force), ["bank"], 1, 9, 2, unlabelled=False, now_time=0.0)
    found = policy_status(facts, ResidencyPolicyStatus())
    assert found.violation_count == 2
    assert [one.message for one in found.conditions if one.type == "ResidencyCompliant"] == [
        f"outside: 2 replicas, {told}"
    ]


@pytest.mark.parametrize(
    ("selector", "says"),
    (("sector=bank,!test", "sector=bank,!test"), ("x" * 5000, "x" * LONGEST_SELECTOR)),
    ids=("a selector", "a long one"),
)
def test_a_policy_that_selects_nothing_names_its_selector(selector: str, says: str) -> None:
    standing = Standing("eu", "uid", 3, ENFORCED, ENFORCED)
    facts = PolicyFacts(standing, [], 0, 0, 0, unlabelled=False, now_time=0.0, selector=selector)
    ready = policy_status(facts, ResidencyPolicyStatus()).conditions[0]
    assert (ready.status, ready.reason) == ("False", "SelectsNothing")
    told = "selects no namespace: label one so, or change the selector"
    assert ready.message == f"spec.namespaceSelector: {says}: {told}"
