"""A place stops being lawful under what runs, by time or by an edit: who goes, who is held, and who is never asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from auditor import Auditor, now, recorded
from bank import endpoints, group, left, policy, policy_status, ready, served, written
from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from outside import (
    excepted,
    exception_path,
    held,
    in_full,
    moment,
    names,
    notes,
    penstock,
    proof,
    proven,
    runs,
    said,
    told_outside,
    wait_counted,
    wait_gone,
    with_gpu,
)
from penstock.api.names import EVIDENCE_TIME_LABEL, LAW_LABEL, LAW_PREFIX, LAW_REQUIRED
from penstock.core.residency.places import LABEL_NODES
from rig.api import ApiError
from rig.fleet import gpu_node
from rig.waiting import wait_for
from row import disruption_budget

Object = dict[str, Any]
HOUR_SECONDS = 3600
SOON_OUTDATED_SECONDS = 3
EXCEPTED_SECONDS = 30
"""Within it the exception is approved and heard, and two replicas run and are held."""


@pytest.fixture(scope="module")
def plant(directory: Path) -> Iterator[Factory]:
    with recorded(directory) as opened:
        yield opened


def test_who_ran_by_an_exception_goes_when_that_expires_and_is_replaced_where_a_lawful_place_fits(
    bank: Factory, auditor: Auditor
) -> None:
    bank.add(fleet("CH"))
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    begin, expires = now(), excepted(bank, "llama", "ours", EXCEPTED_SECONDS, allowed=["CH"])
    with held(bank, served(bank, 2, gpus=4)) as before:
        bank.add([gpu_node("de-new", country="DE", gpus=4)])
        for one in told_outside(bank, before):
            assert one["since"] >= expires
            assert re.fullmatch(r"node ch-0 \(CH\) is outside ResidencyPolicy/ours@\d+", one["message"])
        wait_for("traffic is cut", lambda: not endpoints(bank, "llama") & before, PATIENCE_SECONDS)
        wait_for("one is replaced", lambda: bank.nodes_of("llama") == ["de-new"], PATIENCE_SECONDS)
        assert "1 outside the law (1 by country)" in bank.wait_waiting("llama", "InsufficientGPUs")["message"]
    wait_gone(bank, before)
    assert f"country.{LAW_PREFIX}/llama" not in written(bank), "the API server goes by it no more"
    exception = bank.plane.api.get(exception_path(bank))
    assert [one["reason"] for one in exception["status"]["conditions"]] == ["Expired"]

    page, source = proven(auditor, before, begin), f"ResidencyException/{bank.namespace}/move@2"
    (named,) = page["exceptions"]
    assert (named["exception"], named["expires"], named["approvedBy"]) == (source, expires, "otto")
    assert (named["to"] >= expires, set(named["usedBy"])) == (True, in_full(bank, before))
    by_it = [one["law"] for one in page["places"] if "CH" in one["place"].values() and not one["outside"]]
    assert [source in law for law in by_it] == [True, True]


def test_a_group_that_shrinks_holds_placements_and_moves_nobody_before_the_number_that_plan_printed_stands_in_it(
    bank: Factory, auditor: Auditor, tmp_path: Path
) -> None:
    bank.add(fleet("FR"))
    bank.plane.api.apply(group("home", "DE", "FR"))
    policy(bank, "ours", allowed=["HOME"])
    ready(bank, "ours", "Accepted")
    begin = now()
    before = names(served(bank, 3))
    bank.add([gpu_node("de-new", country="DE")])
    shrunk = group("home", "DE", version="2")
    file = tmp_path / "group.yaml"
    file.write_text(yaml.safe_dump(shrunk))
    wait_counted(bank, 3)
    plan = json.loads(penstock(bank, "plan", "--policy", str(file), "-o", "json"))
    (number,) = [edit["confirm"] for edit in plan["edits"] if edit["confirm"] is not None]
    assert (number, plan["leaving"], plan["stranded"]) == (3, 3, 0)

    bank.plane.api.apply(shrunk)
    assert f"set spec.confirm to {number}" in ready(bank, "ours", "NeedsConfirmation")["message"]
    assert policy_status(bank, "ours")["unconfirmedReplicas"] == number
    bank.patch_pool("llama", {"replicas": 4})
    bank.wait_running("llama", 4)
    assert bank.nodes_of("llama") == ["de-new", *["fr-0"] * 3], "the new one goes by the group as it is now"
    bank.plane.api.apply({**shrunk, "spec": {**shrunk["spec"], "confirm": number - 1}})
    bank.stays("another number moves nobody", lambda: before <= endpoints(bank, "llama"), 2.0)
    bank.plane.api.apply({**shrunk, "spec": {**shrunk["spec"], "confirm": number}})
    wait_for("traffic is cut", lambda: not endpoints(bank, "llama") & before, PATIENCE_SECONDS)
    wait_for("all are replaced", lambda: bank.nodes_of("llama") == ["de-new"] * 4, PATIENCE_SECONDS)
    wait_for("they are gone", lambda: not left(bank, before), PATIENCE_SECONDS)
    ready(bank, "ours", "Accepted")
    page = proven(auditor, before, begin)
    assert [one["inForce"]["groups"] for one in page["inForce"]] == [["home@1"], ["home@1"], ["home@2"]]
    assert [one["unconfirmedReplicas"] for one in page["inForce"]] == [None, number, None]


def test_where_evidence_is_to_drain_a_place_that_was_proven_too_long_ago_is_emptied(
    bank: Factory, auditor: Auditor
) -> None:
    bank.add(fleet("DE", labels=proof()))
    policy(bank, "ours", allowed=["DE"], evidence={"maxAge": "1h", "onExpiry": "Drain"})
    ready(bank, "ours", "Fresh", "EvidenceFresh")
    begin = now()
    with held(bank, served(bank, 2, gpus=4)) as before:
        bank.add([gpu_node("de-new", country="DE", gpus=4, labels=proof())])
        outdated, labels = moment(SOON_OUTDATED_SECONDS), proof(HOUR_SECONDS - SOON_OUTDATED_SECONDS)
        bank.plane.api.patch("/api/v1/nodes/de-0", {"metadata": {"labels": labels}})
        for one in told_outside(bank, before):
            assert (one["since"] >= outdated, one["country"]) == (True, "DE")
            assert re.fullmatch(
                r"node de-0 \(DE\) is outside ResidencyPolicy/ours@\d+ by evidence-time", one["message"]
            )
        wait_for("traffic is cut", lambda: not endpoints(bank, "llama") & before, PATIENCE_SECONDS)
        wait_for("one is replaced", lambda: bank.nodes_of("llama") == ["de-new"], PATIENCE_SECONDS)
        assert "1 outside the law (1 by evidence-time)" in bank.wait_waiting("llama", "InsufficientGPUs")["message"]
        assert "2 replicas" in ready(bank, "ours", "UnlawfulPlace", "ResidencyCompliant")["message"]
        wait_for("its age is told", lambda: said(bank, "EvidenceFresh") == "EvidenceExpired", PATIENCE_SECONDS)
        bank.stays("out of traffic is outside too", lambda: said(bank, "ResidencyCompliant") == "UnlawfulPlace", 2.0)
    wait_gone(bank, before)
    ready(bank, "ours", "Compliant", "ResidencyCompliant")
    proven(auditor, before, begin)


def test_by_default_evidence_warns_at_each_step_of_its_age_then_holds_placements_and_leaves_what_runs(
    bank: Factory, auditor: Auditor
) -> None:
    bank.add(fleet("DE", labels=proof(HOUR_SECONDS)))
    policy(bank, "ours", allowed=["DE"], evidence={"maxAge": "24h"})
    ready(bank, "ours", "Fresh", "EvidenceFresh")
    begin = now()
    before = names(served(bank, 1))
    # The younger it has to be, the more of its age is used up.
    policy(bank, "ours", allowed=["DE"], evidence={"maxAge": "119m"})
    is_warned(bank, "EvidenceAging", "has used up 50% of maxAge; the next is too old after 20")
    policy(bank, "ours", allowed=["DE"], evidence={"maxAge": "74m"})
    is_warned(bank, "EvidenceAlmostSpent", "has used up 80% of maxAge; the next is too old after 20")
    bank.plane.api.patch("/api/v1/nodes/de-0", {"metadata": {"labels": proof(2 * HOUR_SECONDS)}})
    is_warned(bank, "EvidenceExpired", "is older than maxAge, so nothing new is placed there")
    bank.patch_pool("llama", {"replicas": 2})
    waiting = bank.wait_waiting("llama", "NoLawfulPlace")
    assert "1 outside the law (1 by evidence-time)" in waiting["message"]
    assert waiting["wouldFit"].startswith("prove the place of node de-0 anew: `penstock label-nodes")
    bank.stays("what runs goes on, and takes traffic", lambda: endpoints(bank, "llama") == before, 2.0)
    assert bank.condition("llama", "ResidencyCompliant")["status"] == "True"
    assert auditor.prove("ours", begin)["code"] == 0

    anew = proof()[EVIDENCE_TIME_LABEL]
    penstock(bank, "label-nodes", "--nodes", "de-0", "--evidence-time", anew, "--apply")
    bank.wait_running("llama", 2)
    assert before < names(bank.running("llama"))


def is_warned(bank: Factory, reason: str, says: str) -> None:
    """The policy says this of the evidence of the one node, and what would help; an Event says it too."""
    wait_for(f"the policy says {reason}", lambda: said(bank, "EvidenceFresh") == reason, PATIENCE_SECONDS)
    message = ready(bank, "ours", reason, "EvidenceFresh")["message"]
    assert message.startswith(f"the evidence of 1 of 1 nodes that it allows {says}")
    assert message.endswith(f"prove their places anew: {LABEL_NODES}")
    wait_for("an Event says it", lambda: message in notes(bank, reason), SOON_SECONDS)


@pytest.mark.parametrize("action", ("Drain", "Evict"))
def test_a_disruption_budget_keeps_nobody_where_the_law_does_not(bank: Factory, action: str) -> None:
    bank.add(fleet("DE"))
    policy(bank, "ours", allowed=["DE", "FR"], onViolation=action)
    ready(bank, "ours", "Accepted")
    before = names(served(bank, 3))
    # All pods of the namespace, so that nobody leaves it with a label.
    disruption_budget(bank, "llama", 0, selector={}, minAvailable=3)
    asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": min(before)}}
    with pytest.raises(ApiError, match="disruption budget"):
        bank.plane.api.create(f"/api/v1/namespaces/{bank.namespace}/pods/{min(before)}/eviction", asked)
    bank.add([gpu_node("fr-new", country="FR", gpus=2)])
    wait_counted(bank, 3)
    policy(bank, "ours", allowed=["FR"], onViolation=action, confirm=3)
    wait_for("the place is empty", lambda: not left(bank, before), PATIENCE_SECONDS)
    wait_for("one is replaced", lambda: bank.nodes_of("llama") == ["fr-new"], PATIENCE_SECONDS)
    assert bank.wait_waiting("llama", "InsufficientGPUs")["replicas"] == 2


@pytest.mark.parametrize("namespace", ("kube-system", "gpu-operator"))
def test_in_an_exempt_namespace_the_kit_is_in_nobodys_way_whatever_its_labels_say(
    bank: Factory, namespace: str
) -> None:
    bank.add(fleet("US"))
    exempt = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    bank.plane.api.apply(exempt)
    wait_for(f"{namespace} takes pods", lambda: with_gpu(bank, namespace, "before"), PATIENCE_SECONDS)
    with_gpu(bank, bank.namespace, "stranger")
    try:
        labels = {LAW_LABEL: LAW_REQUIRED, "sector": bank.namespace}
        bank.plane.api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})
        # By its selector alone it would isolate two.
        policy(bank, "ours", allowed=["DE"], confirm=1)
        wait_for("the one under the law ends", lambda: not left(bank, {"stranger"}), PATIENCE_SECONDS)
        with pytest.raises(ApiError, match="penstock-residency-creation"):
            with_gpu(bank, bank.namespace, "stranger")
        with_gpu(bank, namespace, "after")
        spared = ("before", "after")
        wait_for("they run", lambda: all(runs(bank, namespace, name) for name in spared), PATIENCE_SECONDS)
        bank.stays("and go on", lambda: all(runs(bank, namespace, name) for name in spared), 2.0)
        ready(bank, "ours", "Compliant", "ResidencyCompliant")
        assert policy_status(bank, "ours")["namespaces"] == [bank.namespace]
    finally:
        bank.plane.api.patch(
            f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {LAW_LABEL: None, "sector": None}}}
        )
        for pod in bank.plane.api.list(f"/api/v1/namespaces/{namespace}/pods"):
            bank.plane.api.delete(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")
