"""What is written of a policy while evidence ages, the one Event at each step, and what a new leader writes anew."""

from __future__ import annotations

from typing import Any

import pytest

import builders as a
from penstock.api.names import EVIDENCE_LABEL, EVIDENCE_TIME_LABEL
from penstock.cluster.events import Subject
from penstock.cluster.objects import Namespace
from penstock.cluster.parse.written import policy_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.residency.evidence import MOST_AT_ONCE
from penstock.control.residency.headcount import RECOUNT_SECONDS
from penstock.control.residency.law_report import LawReporter
from penstock.core.residency.proof import proven_time

HOUR = 3600.0
PROVEN_TIME = proven_time("20261121T000000Z") or 0.0


class Desk:
    """Policies over a bank, one node, and where statuses are written and Events posted."""

    def __init__(self, *policies: str) -> None:
        self.state, self.written, self.posted = ClusterState(), list[dict[str, Any]](), list[tuple[str, str, str]]()
        self.state.put_namespace(Namespace("bank", "u", {"sector": "bank"}, {}))
        for name in policies:
            self.policy(name)
        self.prove("20261121T000000Z")
        self.picture = Picture(self.state)
        desk: Any = self
        self.reporter = LawReporter(self.state, desk, desk)

    def policy(
        self, name: str, max_age: str = "24h", generation: int = 1, status: dict[str, Any] | None = None
    ) -> None:
        selector = {"matchLabels": {"sector": "bank"}}
        spec = {"namespaceSelector": selector, "allowed": ["DE"], "evidence": {"maxAge": max_age}}
        metadata = {"name": name, "uid": f"uid-{name}", "generation": generation, "resourceVersion": str(generation)}
        metadata["creationTimestamp"] = "2026-11-21T00:00:00Z"
        self.state.policies.put(policy_object({"metadata": metadata, "spec": spec, "status": status or {}}))

    def prove(self, time: str) -> None:
        labels = {EVIDENCE_LABEL: "Declared", EVIDENCE_TIME_LABEL: time}
        self.state.put_node(a.node("n1", country="DE", labels=labels))

    def put(self, _subject: Subject, status: dict[str, Any]) -> None:
        self.written.append(status)

    def post(self, subject: Subject, severity: str, reason: str, _note: str) -> None:
        self.posted.append((subject.name, severity, reason))

    def at(self, hour: float, more_seconds: float = 0.0) -> str:
        """What the policy's status says of evidence then."""
        now = hour * HOUR + more_seconds
        self.picture.look(now, PROVEN_TIME + now)
        self.reporter.report(self.picture, now, PROVEN_TIME + now)
        conditions = {one["type"]: one for one in self.written[-1]["conditions"]}
        return str(conditions["EvidenceFresh"]["reason"])


def test_evidence_that_ages_is_said_by_its_policy_and_told_once_at_each_step() -> None:
    desk = Desk("eu")
    said = [desk.at(hour) for hour in (1, 12, 13, 20, 25)]
    assert said == ["Fresh", "EvidenceAging", "EvidenceAging", "EvidenceAlmostSpent", "EvidenceExpired"]
    steps = [("eu", "Warning", reason) for reason in ("EvidenceAging", "EvidenceAlmostSpent", "EvidenceExpired")]
    assert desk.posted == steps
    desk.prove("20261122T010000Z")
    assert desk.at(25, RECOUNT_SECONDS - 1) == "EvidenceExpired", "it is counted now and then"
    assert desk.at(25, RECOUNT_SECONDS) == "Fresh"
    assert desk.posted == steps
    written = len(desk.written)
    assert desk.at(26) == "Fresh"
    assert len(desk.written) == written, "and where nothing changed nothing is written"


def test_of_many_policies_a_few_are_counted_in_one_look_and_all_of_them_in_the_next_ones() -> None:
    names = [f"p{number}" for number in range(2 * MOST_AT_ONCE + 1)]
    desk, told = Desk(*names), list[int]()
    assert desk.at(1) == "Fresh", "new ones are counted at once"
    for second in range(3):
        desk.at(12, second)
        told.append(len(desk.posted))
    assert told == [MOST_AT_ONCE, 2 * MOST_AT_ONCE, 2 * MOST_AT_ONCE + 1]
    assert sorted(name for name, _, _ in desk.posted) == sorted(names)


def test_what_is_too_old_an_edit_and_a_new_policy_are_said_at_once() -> None:
    desk = Desk("eu")
    assert desk.at(24) == "EvidenceAlmostSpent"
    assert desk.at(24, 2) == "EvidenceExpired", "before anything is counted again"
    desk.policy("eu", "49h", generation=2)
    assert desk.at(24, 4) == "Fresh", "as the policy is written now"
    desk.prove("20261121T230000Z")
    desk.policy("other", "4h")
    assert desk.at(24, 6) == "Fresh", "by the places as they were proven before it was written"
    desk.prove("20261121T120000Z")
    desk.policy("eu", "23h", generation=3)
    desk.at(24, 8)
    assert ("eu", "Warning", "EvidenceAging") in desk.posted[-1:], "and before an edit"


def test_evidence_that_is_renewed_just_before_it_is_too_old_is_never_said_to_be() -> None:
    desk = Desk("eu")
    assert desk.at(24) == "EvidenceAlmostSpent"
    desk.prove("20261121T235959Z")
    assert desk.at(24, 2) == "Fresh"
    assert "EvidenceExpired" not in {reason for _, _, reason in desk.posted}


def test_of_many_policies_one_that_was_edited_is_counted_before_those_that_waited_longer() -> None:
    desk = Desk(*(f"p{number}" for number in range(2 * MOST_AT_ONCE + 1)))
    desk.at(1)
    desk.at(12)
    (edited, _, _), *_ = desk.posted
    desk.policy(edited, "13h", generation=2)
    desk.at(12, 1)
    assert (edited, "Warning", "EvidenceAlmostSpent") in desk.posted


@pytest.mark.parametrize(("more", "writes"), (([], 0), ([{"pod": "of a release to come"}], 1)), ids=("all", "not all"))
def test_after_a_change_of_leader_a_status_is_written_only_where_not_all_of_it_was_read(
    more: list[dict[str, Any]], writes: int
) -> None:
    before, desk = Desk("eu"), Desk()
    before.at(1)
    (status,) = before.written
    desk.policy("eu", status={**status, "violations": more})
    for hour in (1, 2):
        desk.picture.look(hour * HOUR, PROVEN_TIME + hour * HOUR)
        desk.reporter.report(desk.picture, hour * HOUR, PROVEN_TIME + hour * HOUR)
    assert desk.written == [status] * writes
