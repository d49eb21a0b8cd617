"""A law is narrowed under what runs: shown first, confirmed by its number, and then carried out to the last replica."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bank import KINDS, endpoints, left, places, policy, policy_document, policy_status, ready, served
from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from rig.fleet import gpu_node
from rig.waiting import wait_for

Object = dict[str, Any]
NOTHING, SOMETHING, UNTOLD = 0, 1, 2
RBAC = "rbac.authorization.k8s.io"
MANY, ROOM = 50, 10
TRAFFIC_CEILING_SECONDS = 20.0
"""Ten times the 2 s within which the traffic of all has to be cut."""


@dataclass(frozen=True)
class Governance:
    """Who writes the law, and looks before they do."""

    bank: Factory
    path: Path

    def plan(self, *documents: Object, output: str = "json", user: str = "grace") -> subprocess.CompletedProcess[str]:
        self.path.write_text(yaml.safe_dump_all(documents))
        groups = ("system:masters",) if user == "grace" else ()
        env = {**os.environ, "KUBECONFIG": str(self.bank.plane.user(user, groups))}
        command = (sys.executable, "-m", "penstock", "plan", "--policy", str(self.path), "-o", output)
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def told(self, exit_code: int, *documents: Object) -> Object:
        """What `penstock plan` says, which must end so."""
        answer = self.plan(*documents)
        assert answer.returncode == exit_code, answer
        found: Object = json.loads(answer.stdout)
        return found


@pytest.fixture
def governance(bank: Factory, tmp_path: Path) -> Governance:
    return Governance(bank, tmp_path / "policy.yaml")


def test_a_policy_narrowed_under_fifty_replicas_is_shown_confirmed_by_its_number_and_carried_out(
    bank: Factory, governance: Governance
) -> None:
    bank.add(fleet(*["DE"] * 7))
    policy(bank, "ours", allowed=["DE", "FR"])
    ready(bank, "ours", "Accepted")
    before = {pod["metadata"]["name"] for pod in served(bank, MANY, gpus=1)}
    bank.add([gpu_node("fr-new", country="FR", gpus=ROOM)])
    wait_for("the new node speaks", lambda: bank.plane.api.get(f"{KINDS}/gpunodes/fr-new"), PATIENCE_SECONDS)
    narrower = policy_document(bank, "ours", allowed=["FR"])

    shown = governance.plan(narrower, output="table")
    told = governance.told(SOMETHING, narrower)
    assert (told["running"], told["leaving"], told["stranded"]) == (MANY, MANY, MANY - ROOM)
    assert [move["to"] for move in told["moves"] if move["to"]] == ["fr-new"] * ROOM
    assert {move["action"] for move in told["moves"]} == {"Drain"}
    (number,) = [edit["confirm"] for edit in told["edits"]]
    assert number == MANY
    (wait,) = told["waits"]
    assert (wait["replicas"], wait["running"], wait["reason"]) == (MANY - ROOM, MANY - ROOM, "InsufficientGPUs")
    assert f"confirm: {number}" in shown.stdout
    assert policy_status(bank, "ours").get("unconfirmedReplicas") is None, "nothing is written by a plan"

    bank.plane.api.apply(narrower)
    told_then = ready(bank, "ours", "NeedsConfirmation")
    assert f"spec.confirm to {number}" in told_then["message"]
    bank.stays("what runs is left alone", lambda: endpoints(bank, "llama") == before, 2.0)
    bank.plane.api.apply(policy_document(bank, "ours", allowed=["FR"], confirm=number))
    wait_for("traffic is cut for all fifty", lambda: not endpoints(bank, "llama") & before, TRAFFIC_CEILING_SECONDS)
    wait_for("ten are replaced", lambda: places(bank, "llama") == ["fr"] * ROOM, PATIENCE_SECONDS)
    wait_for("nothing is outside", lambda: not left(bank, before), PATIENCE_SECONDS)
    waiting = wait_for("forty wait", lambda: _waiting(bank, MANY - ROOM), PATIENCE_SECONDS)
    assert {one["reason"] for one in waiting} == {wait["reason"]}
    assert all("outside the law" in one["message"] for one in waiting)
    wait_for("nothing is told any more", lambda: not bank.status("llama")["residency"].get("violations"), SOON_SECONDS)


def test_what_the_api_server_would_refuse_is_said_in_its_own_words(bank: Factory, governance: Governance) -> None:
    api = bank.plane.api
    europe = api.get(f"{KINDS}/jurisdictiongroups/eu")
    shrunk = {"apiVersion": europe["apiVersion"], "kind": europe["kind"], "metadata": {"name": "eu"}}
    same_version = governance.plan({**shrunk, "spec": {**europe["spec"], "members": ["DE"]}})
    assert same_version.returncode == UNTOLD
    assert "the members changed, so the version does too" in same_version.stderr
    unknown = governance.told(UNTOLD, policy_document(bank, "ours", allowed=["XX"]))
    assert [one["field"] for one in unknown["wrong"]] == ["spec.allowed[0]"]
    document = policy_document(bank, "ours", allowed=["DE"])
    rights = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]}
    api.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "auditor"}, **rights})
    subject = {"kind": "User", "apiGroup": RBAC, "name": "anna"}
    role = {"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "auditor"}, "subjects": [subject]}
    api.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "auditor"}, **role})
    anna = bank.plane.api_as(bank.plane.user("anna"))
    wait_for("anna may look", lambda: anna.get(f"{KINDS}/residencypolicies"), SOON_SECONDS)
    answer = governance.plan(document, user="anna")
    assert answer.returncode == NOTHING, answer
    looked = json.loads(answer.stdout)
    assert "the API server refuses this edit from you" in looked["refused"][0]
    assert governance.plan(document, user="otto").returncode == UNTOLD, "who may not look is told nothing"


def _waiting(bank: Factory, number: int) -> list[Object] | None:
    found: list[Object] = bank.status("llama").get("waiting", [])
    return found if sum(one["replicas"] for one in found) == number else None
