"""What is wrong with a law is refused by the API server, or told with field, value and remedy; and it frees nobody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from bank import KINDS, Object, group, policy_document, ready, wait_doubted
from factory import SOON_SECONDS, Factory, fleet, is_gated
from penstock.api.names import API_VERSION, EVIDENCE_LABEL, EVIDENCE_TIME_LABEL
from rig.api import ApiError
from rig.waiting import wait_for


@dataclass(frozen=True)
class Told:
    """What a wrong object is told. `message` begins with its field and value and goes on with the remedy."""

    document: Object
    message: str


def exception(days: float) -> Object:
    expires = (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    spec = {"pool": "llama", "policies": ["ours"], "widen": {"allowed": ["CH"]}, "reason": "the hall is being rebuilt"}
    metadata = {"name": "move", "namespace": "default"}
    made = {"apiVersion": API_VERSION, "kind": "ResidencyException", "metadata": metadata}
    return {**made, "spec": {**spec, "expires": expires, "requester": "rig-admin"}}


def test_what_the_schema_can_see_the_api_server_refuses_in_words_that_help(bank: Factory) -> None:
    refused = {
        "an empty list of allowed places": Told(policy_document(bank, "empty", allowed=[]), "spec.allowed"),
        "a country by its name": Told(policy_document(bank, "named", allowed=["Germany!"]), "spec.allowed[0]"),
        "a group of itself": Told(group("inner", "INNER"), "a group is not its own member: take it out"),
        "a group of nobody": Told(group("nobody"), "spec.members"),
        "an exception that has expired": Told(exception(-1), "set spec.expires to a moment within the next 30 days"),
        "an exception for good": Told(exception(31), "set spec.expires to a moment within the next 30 days"),
    }
    for name, told in refused.items():
        with pytest.raises(ApiError) as answer:
            bank.plane.api.apply(told.document)
        assert told.message in answer.value.message, name


def test_what_only_the_operator_can_see_is_a_condition_with_field_value_and_remedy(bank: Factory) -> None:
    api = bank.plane.api
    wrong = {
        "unknown": Told(
            policy_document(bank, "unknown", allowed=["XX"]),
            "spec.allowed[0]: XX: no JurisdictionGroup xx, and ISO 3166-1 has",
        ),
        "withdrawn": Told(policy_document(bank, "withdrawn", denied=["YU"]), "and ISO 3166-1 withdrew YU"),
        "homeless": Told(policy_document(bank, "homeless", allowed=["ATLANTIS"]), "no JurisdictionGroup atlantis"),
        "cleared": Told(policy_document(bank, "cleared", clearance="Cosmic"), "spec.clearance: Cosmic: the install"),
        "nowhere": Told(
            policy_document(bank, "nowhere", allowed=["DE"], denied=["DE"]), "denied takes every allowed place"
        ),
    }
    for told in wrong.values():
        api.apply(told.document)
    lonely = policy_document(bank, "lonely", allowed=["DE"])
    lonely["spec"]["namespaceSelector"] = {"matchLabels": {"sector": "nobody-has-this"}}
    api.apply(lonely)
    for wheel in (group("wheel-a", "WHEEL-B"), group("wheel-b", "WHEEL-A"), group("vague", "DE", "XX", "ATLANTIS")):
        api.apply(wheel)
    for name, told in wrong.items():
        found = ready(bank, name, "InvalidSpec")["message"]
        assert told.message in found
        assert "nothing is allowed that it selects, and nothing new is placed" in found
    told_of_nobody = ready(bank, "lonely", "SelectsNothing")["message"]
    assert told_of_nobody.startswith("spec.namespaceSelector: sector=nobody-has-this: selects no namespace: label one")
    wait_told(bank, "wheel-a", "WHEEL-B has wheel-a among its own members: take one out")
    wait_told(bank, "vague", "spec.members[1]: XX: no JurisdictionGroup xx, and ISO 3166-1 has no")
    wait_told(bank, "vague", "spec.members[2]: ATLANTIS: no JurisdictionGroup atlantis: create it")


def wait_told(bank: Factory, name: str, words: str) -> None:
    """Wait until a group says this. What it says first may be of a group that was not created yet."""

    def probe() -> bool:
        found = bank.plane.api.get(f"{KINDS}/jurisdictiongroups/{name}").get("status", {}).get("conditions", [])
        return any(one["reason"] == "InvalidSpec" and words in one["message"] for one in found)

    wait_for(f"group {name} is told {words!r}", probe, SOON_SECONDS)


def test_a_new_policy_that_is_invalid_allows_nothing_and_an_invalid_edit_leaves_alone_what_runs(bank: Factory) -> None:
    bank.add(fleet("DE"))
    api = bank.plane.api
    api.apply(policy_document(bank, "ours", allowed=["DE"]))
    ready(bank, "ours", "Accepted")
    bank.pool("llama")
    (pod,) = bank.wait_running("llama", 1)
    api.apply(policy_document(bank, "ours", allowed=["DE", "XX"]))
    told = ready(bank, "ours", "InvalidSpec")["message"]
    assert "what was valid last counts for what runs, and nothing new is placed" in told
    bank.patch_pool("llama", {"replicas": 2})
    waiting = bank.wait_waiting("llama", "ResidencyConflict")
    assert "ask governance to widen ResidencyPolicy/ours" in waiting["wouldFit"]
    assert [one["metadata"]["uid"] for one in bank.running("llama")] == [pod["metadata"]["uid"]]
    api.apply(policy_document(bank, "ours", allowed=["DE"]))
    bank.wait_running("llama", 2)
    api.apply(policy_document(bank, "another", allowed=["XX"]))
    ready(bank, "another", "InvalidSpec")
    bank.patch_pool("llama", {"replicas": 3})
    assert "ResidencyPolicy/another" in bank.wait_waiting("llama", "ResidencyConflict")["message"]
    assert len(bank.running("llama")) == 2


def test_evidence_from_the_future_proves_nothing_and_the_wait_says_so(bank: Factory) -> None:
    bank.add(fleet("DE"))
    patch: Object = {"metadata": {"labels": {EVIDENCE_LABEL: "Declared", EVIDENCE_TIME_LABEL: "29991231T235959Z"}}}
    bank.plane.api.patch("/api/v1/nodes/de-0", patch)
    bank.plane.api.apply(policy_document(bank, "ours", allowed=["DE"], evidence={"maxAge": "24h"}))
    ready(bank, "ours", "Accepted")
    bank.pool("llama")
    told = bank.wait_waiting("llama", "NoLawfulPlace")["message"]
    assert "1 by evidence-time" in told
    assert "is in the future: write when the place was found" in told
    unreadable = wait_doubted(bank, "de-0", "PlaceUnreadable")["PlaceUnreadable"]
    assert "evidence-time: 29991231T235959Z: is in the future" in unreadable
    assert "a place writer mends it: `penstock label-nodes --nodes de-0" in unreadable
    bank.pool("advised", placement={"mode": "Advise"})
    lifted = wait_for("it is let through", lambda: [pod for pod in bank.pods("advised") if not is_gated(pod)], 10)
    bank.stays("kube-scheduler puts it nowhere either", lambda: not bank.running("advised"), 2.0)
    patch["metadata"]["labels"][EVIDENCE_TIME_LABEL] = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    bank.plane.api.patch("/api/v1/nodes/de-0", patch)
    (running,) = bank.wait_running("advised", 1)
    assert running["metadata"]["uid"] == lifted[0]["metadata"]["uid"]
