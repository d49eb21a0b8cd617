"""The self-test on a real control plane: what it finds missing is missing, and pools wait until that is mended."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet, open_factory
from penstock.api.names import API_VERSION, PROBE_NAMESPACE, VERIFICATION_NAME
from penstock.control.commands.session import Target
from penstock.control.commands.verify import Findings, run
from penstock.core.residency.enforcement import LAYERS
from penstock.core.residency.trying import Prober, policy_of
from rig.api import Api, ApiError
from rig.controlplane import ControlPlane
from rig.install import NAMESPACE, VERIFIED
from rig.waiting import wait_for

Object = dict[str, Any]
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
POLICY = f"/apis/{API_VERSION}/residencypolicies/home"
REPORT = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{VERIFICATION_NAME}"


@pytest.fixture(scope="module")
def plant() -> Iterator[Factory]:
    """A factory whose operator waits for a verification, and a policy under which it waits."""
    with ControlPlane.start() as plane:
        opened = open_factory(plane, VERIFIED, {"residency.verification.enabled": True})
        selector = {"matchLabels": {"kubernetes.io/metadata.name": opened.namespace}}
        opened.apply("ResidencyPolicy", "home", {"namespaceSelector": selector, "allowed": ["DE"]})
        try:
            yield opened
        finally:
            opened.telemetry.stop()
        plane.check()


def command(plane: ControlPlane, *flags: str) -> tuple[int, Object]:
    """`penstock verify` as the CronJob's ServiceAccount: its exit code and what it found."""
    env = {**os.environ, "KUBECONFIG": str(plane.service_account(NAMESPACE, "penstock-verifier"))}
    words = (sys.executable, "-m", "penstock", "verify", "-o", "json", *flags)
    answer = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert answer.stdout, answer.stderr
    found: Object = json.loads(answer.stdout)
    return answer.returncode, found


def finds(plane: ControlPlane, *layers: str, report: bool = False) -> Findings:
    """Wait until exactly these layers are missing: the API server takes a moment to compile and to forget."""
    target = Target(plane.service_account(NAMESPACE, "penstock-verifier"))

    def probe() -> Findings:
        found = asyncio.run(run(target, NAMESPACE, ["nvidia.com/"], report=report))
        why = {one.name: one.why for one in found.verification.layers if not one.verified}
        assert (found.exit_code, {*why}) == (1 if layers else 0, {*layers}), why
        return found

    return wait_for(f"missing: {' '.join(layers) or 'nothing'}", probe, PATIENCE_SECONDS)


@contextmanager
def without(plane: ControlPlane, layer: str) -> Iterator[None]:
    """The binding of a layer's policy is away for a while."""
    path = f"{BINDINGS}/penstock-{policy_of(layer)}"
    found = plane.api.get(path)
    plane.api.delete(path)
    try:
        yield
    finally:
        metadata = {"name": found["metadata"]["name"], "labels": found["metadata"]["labels"]}
        plane.api.create(BINDINGS, {**found, "metadata": metadata})


def condition(plant: Factory, reason: str, says: str = "") -> None:
    """Wait until the policy says so."""

    def probe() -> bool:
        found = plant.plane.api.get(POLICY).get("status", {}).get("conditions", [])
        told = {one["type"]: (one["reason"], one["message"]) for one in found}["EnforcementVerified"]
        return told[0] == reason and says in told[1]

    wait_for(f"the policy says {reason}: {says}", probe, SOON_SECONDS)


def test_pools_wait_for_the_first_verification_and_again_while_a_layer_is_missing(plant: Factory) -> None:
    plant.add(fleet("DE"))
    plant.pool("llama")
    waiting = plant.wait_waiting("llama", "EnforcementNotVerified")
    assert "nobody tried yet" in waiting["message"]
    assert "penstock verify" in waiting["wouldFit"]
    condition(plant, "NeverVerified")
    finds(plant.plane)
    code, found = command(plant.plane, "--report")
    version = found["apiServerVersion"]
    assert (code, found["verified"], found["reported"]) == (0, True, True)
    plant.wait_running("llama", 1)
    condition(plant, "LayersVerified", version)
    status = plant.plane.api.get(POLICY)["status"]
    assert [(one["name"], one["verified"], one["apiServerVersion"]) for one in status["layers"]] == [
        (name, True, version) for name in LAYERS
    ]

    with without(plant.plane, "binding"):
        finds(plant.plane, "binding")
        code, found = command(plant.plane, "--report")
        assert (code, [one["name"] for one in found["layers"] if not one["verified"]]) == (1, ["binding"])
        condition(plant, "LayerMissing", "layer binding: a binding (scheduler) was not refused; new placements wait")
        wait_for("it is counted", lambda: plant.operator.metrics()["penstock_layers_missing"] == 1, SOON_SECONDS)
        assert 0 <= plant.operator.metrics()["penstock_verification_age_seconds"] < 3 * PATIENCE_SECONDS
        plant.patch_pool("llama", {"replicas": 2})
        assert "layer binding" in plant.wait_waiting("llama", "EnforcementNotVerified")["message"]
        assert len(plant.running("llama")) == 1, "what runs goes on"

        plant.plane.api.patch(POLICY, {"spec": {"onMissingLayer": "Report"}})
        plant.wait_running("llama", 2)
        condition(plant, "LayerMissing", "nothing waits for it")
    finds(plant.plane, report=True)
    condition(plant, "LayersVerified")


def test_each_layer_that_is_taken_away_is_missed_and_no_other(plant: Factory) -> None:
    finds(plant.plane)
    for layer in LAYERS:
        with without(plant.plane, layer):
            why = {one.name: one.why for one in finds(plant.plane, layer).verification.layers}
            assert why[layer].endswith("was not refused")
    finds(plant.plane)


def test_nothing_of_it_is_left_behind(plant: Factory) -> None:
    finds(plant.plane)
    api = plant.plane.api
    assert not api.list(f"/api/v1/namespaces/{PROBE_NAMESPACE}/pods")
    assert not api.list(f"/apis/{API_VERSION}/residencyexceptions")
    assert [one["metadata"]["name"] for one in api.list(f"/apis/{API_VERSION}/residencypolicies")] == ["home"]
    assert PROBE_NAMESPACE not in {one["metadata"]["name"] for one in api.list("/api/v1/nodes")}


def refused(attempt: object) -> str:
    assert isinstance(attempt, ApiError), f"nobody refused it: {attempt}"
    assert attempt.status == 403, attempt
    return attempt.message


def tried(api: Api, method: str, path: str, body: Object, user: str = "") -> object:
    """What came of it: the answer, or the error."""
    if user:
        api._session().headers["Impersonate-User"] = user
    try:
        return api.request(method, path, body)
    except ApiError as error:
        return error
    finally:
        api._session().headers.pop("Impersonate-User", None)


def test_the_verifier_is_the_probes_and_nobody_else_and_they_only_ever_ask(plant: Factory) -> None:
    verifier = plant.plane.api_as(plant.plane.service_account(NAMESPACE, "penstock-verifier"))
    node = {"metadata": {"name": "forged"}}
    for user in (plant.operator_user, "rig-admin", "system:kube-scheduler", "penstock:verify:other"):
        assert "cannot impersonate" in refused(tried(verifier, "POST", "/api/v1/nodes", node, user))
    assert "must be dry-run" in refused(tried(verifier, "POST", "/api/v1/nodes", node, Prober.KUBELET))
    pods = f"/api/v1/namespaces/{PROBE_NAMESPACE}/pods"
    runs = {"metadata": {"name": "runs"}, "spec": {"containers": [{"name": "c", "image": "c"}]}}
    assert "never run" in refused(tried(verifier, "POST", pods, runs))
    anybody = plant.plane.api_as(plant.plane.user("anybody"))
    assert "cannot impersonate" in refused(tried(anybody, "POST", "/api/v1/nodes", node, Prober.KUBELET))


def test_nobody_but_the_verifier_and_governance_says_what_was_found(plant: Factory) -> None:
    finds(plant.plane, report=True)
    forger = plant.plane.user("forger")
    rights = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "forger", "namespace": NAMESPACE}}
    plant.plane.api.apply({**rbac, "kind": "Role", "rules": [rights]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "forger"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "forger"}
    plant.plane.api.apply({**rbac, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]})
    api = plant.plane.api_as(forger)
    wait_for("the forger may read it", lambda: api.get(REPORT), SOON_SECONDS)
    assert "is written only by" in refused(tried(api, "PUT", REPORT, {**api.get(REPORT), "data": {}}))
    plant.plane.api.delete(REPORT)
    condition(plant, "NeverVerified")
    finds(plant.plane, report=True)
    condition(plant, "LayersVerified")
