"""What a newer release added to a status of ours makes none of the rest unread."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.inferencepool import InferencePoolStatus
from penstock.api.powerdomain import PowerDomainStatus
from penstock.api.residencypolicy import ResidencyPolicyStatus
from penstock.api.stored import stored

SINCE = "2026-11-21T02:00:00Z"
SPEC = {"namespaceSelector": {}, "allowed": ["DE"]}
IN_FORCE = {"generation": 3, "resourceVersion": "1841", "spec": SPEC, "groups": []}
GROUP = {"name": "eu", "version": "1", "codes": ["DE", "FR"]}
POD = {"namespace": "bank", "pod": "a", "since": SINCE}
SHED = {"namespace": "bank", "pool": "llama", "replicas": 1, "watts": 700.0, "since": SINCE}
BUDGET = {"watts": 9000.0, "judged": "a"}
NEW = {"ofAReleaseToCome": {"deep": [1]}}

CASES: tuple[tuple[str, Any, dict[str, Any], dict[str, Any]], ...] = (
    (
        "a field that this release does not know is passed over, however deep",
        ResidencyPolicyStatus,
        {
            "confirmed": [5],
            "inForce": {**IN_FORCE, "groups": [{**GROUP, **NEW}], **NEW},
            "violations": [{**POD, **NEW}],
            **NEW,
        },
        {"confirmed": [5], "inForce": {**IN_FORCE, "groups": [GROUP]}, "violations": [POD]},
    ),
    (
        "not so in a law in force: without a term of its selector it would be for every namespace",
        ResidencyPolicyStatus,
        {"inForce": {**IN_FORCE, "spec": {**SPEC, "namespaceSelector": NEW}, **NEW}, "confirmed": [5], **NEW},
        {"confirmed": [5]},
    ),
    (
        "nor in the last valid spec",
        PowerDomainStatus,
        {"lastValid": {"budget": {"watts": 9000.0}, **NEW}, "usableWatts": 100.0, "budgetMemory": BUDGET},
        {"usableWatts": 100.0, "budgetMemory": BUDGET},
    ),
    (
        "nor in what is remembered of a budget",
        PowerDomainStatus,
        {"budgetMemory": {**BUDGET, **NEW}, "usableWatts": 100.0, "ladder": {"stage": "Hold", **NEW}},
        {"usableWatts": 100.0, "ladder": {"stage": "Hold"}},
    ),
    (
        "of a list only the entry is left out that cannot be read",
        ResidencyPolicyStatus,
        {"violations": [{**POD, "action": "Freeze"}, POD], "confirmed": [5, "all", 7]},
        {"violations": [POD], "confirmed": [5, 7]},
    ),
    (
        "of a list in a field too, so that the rest of that field stays",
        PowerDomainStatus,
        {"ladder": {"stage": "Emergency", "shed": [SHED, {**SHED, "replicas": "some"}]}},
        {"ladder": {"stage": "Emergency", "shed": [SHED]}},
    ),
    (
        "of a list that is longer than this release may write the first entries stay",
        ResidencyPolicyStatus,
        {"confirmed": list(range(70))},
        {"confirmed": list(range(64))},
    ),
    (
        "a value that cannot be read takes its whole field with it, and no other",
        PowerDomainStatus,
        {"ladder": {"stage": "Doze", "shed": [SHED]}, "usableWatts": 100.0, "budgetMemory": BUDGET},
        {"usableWatts": 100.0, "budgetMemory": BUDGET},
    ),
    (
        "of a law in force nothing is left out: part of it would be a law that nobody wrote",
        ResidencyPolicyStatus,
        {"inForce": {**IN_FORCE, "spec": {**SPEC, "denied": ["FR", 7]}}, "unconfirmedReplicas": 4},
        {"unconfirmedReplicas": 4},
    ),
    (
        "nor of one that a rule of this release refuses",
        ResidencyPolicyStatus,
        {"inForce": {**IN_FORCE, "spec": {"namespaceSelector": {}, "zones": ["a"]}}, "unconfirmedReplicas": 4},
        {"unconfirmedReplicas": 4},
    ),
    (
        "what was found unreadable only once the rest was read is left out as well",
        ResidencyPolicyStatus,
        {"confirmed": [*range(64), "all", *range(64, 70)], "violations": [{**POD, "since": "soon"}]},
        {"confirmed": list(range(64))},
    ),
    ("nothing says nothing", InferencePoolStatus, {}, {}),
)


@pytest.mark.parametrize(("kind", "raw", "says"), [pytest.param(*row[1:], id=row[0]) for row in CASES])
def test_of_a_stored_status(kind: Any, raw: dict[str, Any], says: dict[str, Any]) -> None:
    assert stored(kind, raw) == kind.model_validate(says)


def test_what_is_no_status_at_all_says_nothing() -> None:
    spoiled: Any = ["a list"]
    assert stored(PowerDomainStatus, spoiled) == PowerDomainStatus()
