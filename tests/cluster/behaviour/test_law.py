"""Governance writes a ceiling, and each pool under it is placed by it: on the whole operator, as both would see it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from bank import (
    EU,
    KINDS,
    endpoints,
    group,
    left,
    move,
    places,
    policy,
    policy_status,
    ready,
    served,
    wait_written,
    written,
)
from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, countries, fleet
from penstock.api.names import API_VERSION, COUNTRY_LABEL, GATE, LAW_PREFIX, OPERATOR_LABEL, POOL_LABEL
from rig.api import ApiError
from rig.fleet import gpu_node
from rig.waiting import wait_for

Object = dict[str, Any]


def test_a_policy_is_a_ceiling_for_every_pool_of_the_namespaces_that_it_selects(bank: Factory) -> None:
    bank.add(fleet("US", "FR", "DE"))
    policy(bank, "eu", allowed=["EU"], denied=["FR"])
    ready(bank, "eu", "Accepted")
    found = wait_written(bank, ",".join(code for code in EU if code != "FR"))
    assert found[f"{LAW_PREFIX}/operator"] == "*"
    bank.pool("llama", replicas=2, residency={"allowed": ["DE", "US", "UK"]})
    for pod in bank.wait_running("llama", 2):
        assert countries(pod) == {"DE"}
    assert places(bank, "llama") == ["de", "de"]
    residency = bank.status("llama")["residency"]
    assert residency["effective"] == ["DE", "!FR"]
    assert residency["notes"] == ["spec.residency.allowed[2]: UK is read as GB: ISO 3166 has no UK"]
    assert [source.partition("@")[0] for source in residency["sources"]] == ["ResidencyPolicy/eu", "spec"]
    status = wait_for("the replicas are counted", lambda: _counted(bank, "eu", 2), SOON_SECONDS)
    assert (status["poolCount"], status["namespaces"], status["violationCount"]) == (1, [bank.namespace], 0)


def _counted(bank: Factory, name: str, replicas: int) -> Object | None:
    status = policy_status(bank, name)
    return status if status.get("replicaCount") == replicas else None


def test_a_policy_that_only_audits_names_whoever_is_outside_and_narrows_nothing(bank: Factory) -> None:
    bank.add(fleet("US"))
    bank.pool("llama")
    (pod,) = bank.wait_running("llama", 1)
    policy(bank, "ours", allowed=["DE"], mode="Audit", onViolation="Report")
    told = wait_for("it is named", lambda: bank.status("llama")["residency"].get("violations"), SOON_SECONDS)
    named = [(one["pod"], one["node"], one["country"], one["action"]) for one in told]
    assert named == [(pod["metadata"]["name"], "us-0", "US", "Report")]
    assert told[0]["message"].startswith("node us-0 (US) is outside ResidencyPolicy/ours@")
    assert "the policy only audits, so nothing is done" in told[0]["remedy"]
    outside = ready(bank, "ours", "UnlawfulPlace", "ResidencyCompliant")["message"]
    assert outside.startswith("outside: 1 replicas, which their pools name, and which go on running: it only audits")
    assert policy_status(bank, "ours")["violationCount"] == 1
    wait_for("an Event says so", lambda: _noted(bank, "AuditViolation", "us-0 (US) is outside"), SOON_SECONDS)
    bank.patch_pool("llama", {"replicas": 2})
    assert pod["metadata"]["uid"] in {one["metadata"]["uid"] for one in bank.wait_running("llama", 2)}
    assert places(bank, "llama") == ["us", "us"], "and what is new goes there too"
    assert bank.condition("llama", "ResidencyCompliant")["status"] == "True"
    assert not _noted(bank, "UnlawfulPlace", "")


def _noted(bank: Factory, reason: str, part: str) -> list[str]:
    """What Events of this reason say."""
    found = bank.plane.api.list(f"/apis/events.k8s.io/v1/namespaces/{bank.namespace}/events")
    return [one["note"] for one in found if one["reason"] == reason and part in one["note"]]


def test_a_conflict_names_both_sides_and_nothing_is_placed(bank: Factory) -> None:
    bank.add(fleet("DE", "US"))
    policy(bank, "home", allowed=["DE"])
    bank.pool("llama", residency={"allowed": ["US"]})
    waiting = bank.wait_waiting("llama", "ResidencyConflict")
    assert "ResidencyPolicy/home@" in waiting["message"]
    assert "spec" in waiting["message"]
    assert bank.condition("llama", "ResidencyCompliant")["status"] == "False"
    bank.stays("nothing is placed", lambda: not bank.running("llama"), 2.0)


def test_a_policy_that_would_isolate_many_counts_for_placements_only_until_its_number_is_confirmed(
    bank: Factory,
) -> None:
    bank.add(fleet("DE", "FR"))
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    bank.pool("llama", replicas=3)
    bank.wait_running("llama", 3)
    policy(bank, "ours", allowed=["FR"])
    told = ready(bank, "ours", "NeedsConfirmation")
    assert "would isolate 3 of 3 replicas" in told["message"]
    assert "spec.confirm to 3" in told["message"]
    bank.pool("other")
    waiting = bank.wait_waiting("other", "ResidencyConflict")
    assert "ResidencyPolicy/ours" in waiting["message"]
    assert bank.condition("llama", "ResidencyCompliant")["status"] == "True", "what runs is left alone"
    bank.operator.stop()
    bank.operator.start()
    bank.operator.wait_ready()
    ready(bank, "ours", "NeedsConfirmation")
    policy(bank, "ours", allowed=["FR"], confirm=3)
    ready(bank, "ours", "Accepted")
    bank.wait_running("other", 1)
    assert places(bank, "other") == ["fr"]


def test_an_exception_widens_one_policy_for_one_pool_once_another_person_approves_it(bank: Factory) -> None:
    bank.add(fleet("US", "CH"))
    policy(bank, "eu", allowed=["EU"])
    bank.pool("traders")
    bank.wait_waiting("traders", "NoLawfulPlace")
    path = f"{KINDS}/namespaces/{bank.namespace}/residencyexceptions"
    spec = {
        "pool": "traders",
        "policies": ["eu"],
        "widen": {"allowed": ["CH"]},
        "reason": "the German site is being rebuilt",
        "expires": (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "requester": "kubernetes-admin",
    }
    asking = bank.plane.api_as(bank.plane.user("anna", ("system:masters",)))
    made = {"apiVersion": API_VERSION, "kind": "ResidencyException", "metadata": {"name": "move"}}
    asking.create(path, {**made, "spec": {**spec, "requester": "anna"}})
    wait_for("it waits for approval", lambda: _in_force(bank, "NotApproved"), SOON_SECONDS)
    assert not bank.running("traders")
    approving = bank.plane.api_as(bank.plane.user("otto", ("system:masters",)))
    refused = _refused_lifts(bank)
    approving.patch(f"{path}/move", {"spec": {"approval": {"by": "otto"}}})
    wait_for("it is in force", lambda: _in_force(bank, "Accepted"), SOON_SECONDS)
    bank.wait_running("traders", 1)
    assert places(bank, "traders") == ["ch"]
    assert _refused_lifts(bank) == refused, "its law was written on the namespace before"
    sources = bank.status("traders")["residency"]["sources"]
    assert any(source.startswith(f"ResidencyException/{bank.namespace}/move") for source in sources)


def _refused_lifts(bank: Factory) -> float:
    return bank.operator.metrics().get('penstock_decisions_total{outcome="refused"}', 0.0)


def _in_force(bank: Factory, reason: str) -> Object | None:
    found = bank.plane.api.get(f"{KINDS}/namespaces/{bank.namespace}/residencyexceptions/move")
    conditions = found.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["reason"] == reason), None)


def delete_the_policy(bank: Factory) -> None:
    # Somebody else applied an annotation too; it goes with the law all the same.
    metadata = {"name": bank.namespace, "annotations": {f"{LAW_PREFIX}/country": "DE"}}
    bank.plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    bank.plane.api.delete(f"{KINDS}/residencypolicies/ours")
    wait_written(bank, None)


def take_the_annotations_away(bank: Factory) -> None:
    """With the operator stopped: it would write them again."""
    bank.operator.stop()
    nothing = {name: None for name in written(bank) if name.startswith(LAW_PREFIX)}
    bank.plane.api.patch(f"/api/v1/namespaces/{bank.namespace}", {"metadata": {"annotations": nothing}})


def empty_the_group(bank: Factory) -> None:
    """As far as the API server lets anybody: down to a member that was not meant."""
    emptied = group("home", "LI", version="2")
    with pytest.raises(ApiError, match=r"spec\.members"):
        bank.plane.api.apply({**emptied, "spec": {**emptied["spec"], "members": []}})
    bank.plane.api.apply(emptied)
    assert "would isolate 2 of 2 replicas" in ready(bank, "ours", "NeedsConfirmation")["message"]


@pytest.mark.parametrize("goes", (delete_the_policy, take_the_annotations_away, empty_the_group))
def test_a_law_that_goes_away_frees_nobody_and_what_runs_goes_on_is_told_of_and_can_be_deleted(
    bank: Factory, goes: Callable[[Factory], None]
) -> None:
    bank.add(fleet("DE"))
    bank.plane.api.apply(group("home", "DE"))
    policy(bank, "ours", allowed=["HOME"])
    ready(bank, "ours", "Accepted")
    bank.pool("llama", replicas=2)
    running = {pod["metadata"]["uid"] for pod in bank.wait_running("llama", 2)}
    goes(bank)
    bank.patch_pool("llama", {"replicas": 3})
    bank.stays("what runs goes on, and nothing new is placed", lambda: uids(bank, "llama") == running, 3.0)
    path = f"/api/v1/namespaces/{bank.namespace}/pods/{bank.running('llama')[0]['metadata']['name']}"
    bank.plane.api.patch(f"{path}/status", {"status": {"message": "still told"}})
    bank.plane.api.patch(path, {"metadata": {"annotations": {"colour": "green"}, "finalizers": ["test.dev/held"]}})
    bank.plane.api.patch(path, {"metadata": {"finalizers": []}})
    bank.plane.api.delete(path)
    wait_for("a replica can be deleted", lambda: len(uids(bank, "llama")) == 1, PATIENCE_SECONDS)
    bank.stays("nobody takes its place", lambda: len(uids(bank, "llama")) == 1, 2.0)
    if bank.operator.exit_code is not None:
        bank.operator.start()
        bank.operator.wait_ready()
    bank.delete_pool("llama")


def uids(bank: Factory, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in bank.running(name)}


def test_a_law_that_is_widened_or_narrowed_rolls_nothing_out_and_restarts_nobody_who_is_lawful(bank: Factory) -> None:
    bank.add(fleet("DE"))
    policy(bank, "ours", allowed=["DE", "FR"])
    ready(bank, "ours", "Accepted")
    bank.pool("llama", replicas=2)
    bank.wait_running("llama", 2)
    before = uids(bank, "llama"), bank.deployment("llama")["metadata"]["generation"]
    for codes in (["DE"], ["DE", "FR", "CH"], ["DE", "CH"]):
        policy(bank, "ours", allowed=codes)
        wait_written(bank, ",".join(sorted(codes)))
        wait_for("the pool goes by it", partial(_goes_by, bank, sorted(codes)), SOON_SECONDS)
        bank.stays("nobody is touched", lambda: uids(bank, "llama") == before[0], 1.0)
    assert bank.deployment("llama")["metadata"]["generation"] == before[1]


def _goes_by(bank: Factory, codes: list[str]) -> bool:
    return bool(bank.status("llama")["residency"]["effective"] == codes)


def test_a_node_that_turns_out_to_stand_elsewhere_is_emptied_and_its_replicas_replaced(bank: Factory) -> None:
    bank.add(fleet("DE"))
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    before = {pod["metadata"]["name"] for pod in served(bank, 2)}
    bank.add([gpu_node("de-new", country="DE")])
    move(bank, "de-0", "US")
    wait_for("traffic is cut", lambda: not endpoints(bank, "llama") & before, 20)
    after = bank.wait_running("llama", 2)
    assert {pod["spec"]["nodeName"] for pod in after} == {"de-new"}
    wait_for("the old ones are gone", lambda: not left(bank, before), PATIENCE_SECONDS)
    wait_for("nothing is told any more", lambda: not bank.status("llama")["residency"].get("violations"), SOON_SECONDS)
    told = [one["note"] for one in bank.plane.api.list(f"/apis/events.k8s.io/v1/namespaces/{bank.namespace}/events")]
    assert any("node de-0 (US) is outside ResidencyPolicy/ours" in note for note in told), told


def test_without_room_elsewhere_the_place_is_emptied_all_the_same(bank: Factory) -> None:
    bank.add(fleet("DE"))
    policy(bank, "ours", allowed=["DE"])
    before = {pod["metadata"]["name"] for pod in served(bank, 2)}
    move(bank, "de-0", None)
    wait_for("the place is empty", lambda: not left(bank, before), PATIENCE_SECONDS)
    bank.wait_waiting("llama", "NoLawfulPlace")


def test_isolate_leaves_the_replica_to_be_looked_at_and_says_so_until_it_is_gone(bank: Factory) -> None:
    bank.add(fleet("DE"))
    policy(bank, "ours", allowed=["DE"], onViolation="Isolate")
    (pod,) = served(bank, 1)
    move(bank, "de-0", "FR")
    wait_for("traffic is cut", lambda: not endpoints(bank, "llama"), 20)

    def told_alone() -> list[dict[str, str]]:
        found: list[dict[str, str]] = bank.status("llama")["residency"].get("violations", [])
        return [one for one in found if one["remedy"] == "out of traffic; look at it, then delete it"]

    told = wait_for("it is told to stand alone", told_alone, SOON_SECONDS)
    assert [(one["pod"], one["action"]) for one in told] == [(pod["metadata"]["name"], "Isolate")]
    assert bank.condition("llama", "ResidencyCompliant")["reason"] == "UnlawfulPlace"
    path = f"/api/v1/namespaces/{bank.namespace}/pods/{pod['metadata']['name']}"
    standing = bank.plane.api.get(path)
    assert "deletionTimestamp" not in standing["metadata"]
    assert [one["kind"] for one in standing["metadata"]["ownerReferences"]] == ["InferencePool"]
    bank.plane.api.delete(path)
    wait_for("nothing is told any more", lambda: not bank.status("llama")["residency"].get("violations"), SOON_SECONDS)


def test_a_policy_that_is_confirmed_empties_what_it_does_not_allow_any_more(bank: Factory) -> None:
    bank.add(fleet("DE", "FR"))
    policy(bank, "ours", allowed=["DE", "FR"])
    # Two of them fill a node, so each node holds one at least.
    lawful = {pod["metadata"]["uid"] for pod in served(bank, 3, gpus=4) if pod["spec"]["nodeName"] == "de-0"}
    leaving = 3 - len(lawful)
    bank.add([gpu_node("de-new", country="DE")])
    policy(bank, "ours", allowed=["DE"])
    told = ready(bank, "ours", "NeedsConfirmation")
    assert f"would isolate {leaving} of 3 replicas" in told["message"]
    bank.stays("what runs is left alone", lambda: len(endpoints(bank, "llama")) == 3, 2.0)
    policy(bank, "ours", allowed=["DE"], confirm=leaving)
    wait_for("all are inside", lambda: places(bank, "llama") == ["de"] * 3, PATIENCE_SECONDS)
    assert lawful
    assert lawful <= uids(bank, "llama"), "nobody who was lawful is restarted"


def test_a_law_that_names_no_place_asks_for_a_known_one_all_the_same(bank: Factory) -> None:
    bank.add(fleet("DE", "-", labels={OPERATOR_LABEL: "DE"}))
    policy(bank, "ours", operator={"denied": ["US"]})
    wait_written(bank, "!")
    path = f"/api/v1/namespaces/{bank.namespace}/pods"
    container = {"name": "server", "image": "server", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {"schedulingGates": [{"name": GATE}], "containers": [container]}
    bank.plane.api.create(path, {"metadata": {"name": "alone"}, "spec": spec})
    rescuer = bank.plane.api_as(bank.plane.user("ben", ("penstock:break-glass",)))
    known_operator = [{"key": OPERATOR_LABEL, "operator": "In", "values": ["DE"]}]
    with pytest.raises(ApiError, match="holds the law of its namespace: country !,"):
        rescuer.patch(f"{path}/alone", lift(known_operator), "json")
    rescuer.patch(f"{path}/alone", lift([*known_operator, *ANY_COUNTRY]), "json")
    assert wait_for("it is bound", lambda: _bound(bank, "alone"), PATIENCE_SECONDS)["spec"]["nodeName"] == "de-0"
    bank.pool("llama", replicas=2)
    bank.wait_running("llama", 2)
    assert set(places(bank, "llama")) == {"de"}


def test_while_penstock_is_stopped_nobody_lifts_a_gate_but_break_glass_within_the_law(bank: Factory) -> None:
    bank.add(fleet("DE", "US"))
    policy(bank, "ours", allowed=["DE"])
    wait_written(bank, "DE")
    bank.operator.stop()
    path = f"/api/v1/namespaces/{bank.namespace}/pods"
    container = {"name": "server", "image": "server", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    metadata = {"name": "llama-0", "labels": {POOL_LABEL: "llama"}}
    spec = {"schedulingGates": [{"name": GATE}], "containers": [container]}
    bank.plane.api.create(path, {"metadata": metadata, "spec": spec})
    administrator, rescuer = (
        bank.plane.api_as(bank.plane.user(name, (group,)))
        for name, group in (("root", "system:masters"), ("ben", "penstock:break-glass"))
    )
    for who, rules in ((administrator, within("DE")), (rescuer, []), (rescuer, within("US")), (rescuer, ANY_COUNTRY)):
        with pytest.raises(ApiError) as refused:
            who.patch(f"{path}/llama-0", lift(rules), "json")
        assert refused.value.status == 403, refused.value
        assert "ValidatingAdmissionPolicy" in refused.value.message
    rescuer.patch(f"{path}/llama-0", lift(within("DE")), "json")
    bound = wait_for("it is bound", lambda: _bound(bank, "llama-0"), PATIENCE_SECONDS)
    assert bound["spec"]["nodeName"] == "de-0"
    bank.operator.start()
    bank.operator.wait_ready()


ANY_COUNTRY = [{"key": COUNTRY_LABEL, "operator": "Exists"}]


def within(country: str) -> list[Object]:
    return [{"key": COUNTRY_LABEL, "operator": "In", "values": [country]}]


def lift(rules: list[Object]) -> list[Object]:
    """The patch that takes the gate away; with one term of these rules, or with none."""
    wanted = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": rules}]}}
    affinity = [{"op": "add", "path": "/spec/affinity", "value": {"nodeAffinity": wanted}}] if rules else []
    return [{"op": "remove", "path": "/spec/schedulingGates/0"}, *affinity]


def test_break_glass_lifts_what_waits_with_the_law_of_its_namespace(bank: Factory) -> None:
    bank.add(fleet("DE"))
    policy(bank, "ours", allowed=["EU"])
    wait_written(bank, ",".join(EU))
    bank.operator.stop()
    gate = {"name": GATE}
    container = {"name": "server", "image": "server", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    path = f"/api/v1/namespaces/{bank.namespace}/pods"
    bank.apply("InferencePool", "llama", {"residency": {"denied": ["FR"]}})
    metadata = {"name": "llama-0", "labels": {POOL_LABEL: "llama"}}
    bank.plane.api.create(path, {"metadata": metadata, "spec": {"schedulingGates": [gate], "containers": [container]}})
    command = (sys.executable, "-m", "penstock", "release", "--all", "--force")
    env = {**os.environ, "KUBECONFIG": str(bank.plane.user("ben", ("penstock:break-glass",)))}
    answer = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "llama-0" in answer.stdout, answer
    lifted = wait_for("it is bound", lambda: _bound(bank, "llama-0"), PATIENCE_SECONDS)
    assert countries(lifted) == set(EU) - {"FR"}
    bank.operator.start()
    bank.operator.wait_ready()


def _bound(bank: Factory, name: str) -> Object | None:
    pod: Object = bank.plane.api.get(f"/api/v1/namespaces/{bank.namespace}/pods/{name}")
    return pod if pod["spec"].get("nodeName") else None


def test_a_cluster_whose_nodes_say_no_place_says_once_what_to_run(bank: Factory) -> None:
    bank.add(fleet("DE"))
    policy(bank, "eu", allowed=["EU"])
    ready(bank, "eu", "NodesSayPlaces", "PlacesKnown")
    move(bank, "de-0", None)
    assert "penstock label-nodes --table" in ready(bank, "eu", "NodesSayNoPlace", "PlacesKnown")["message"]
