"""Replicas that a law stops allowing: how one comes to that, and what the pool, Events and the log tell of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from auditor import Auditor
from bank import KINDS, left, policy_status
from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, is_staying
from penstock.api.names import API_VERSION, EVIDENCE_LABEL, EVIDENCE_TIME_LABEL, GPU_RESOURCE
from rig.waiting import wait_for

Object = dict[str, Any]
REASON = "the German site is being rebuilt"
HELD = "test.dev/held"


def penstock(bank: Factory, *words: str) -> str:
    """What the command prints to the administrator."""
    env = {**os.environ, "KUBECONFIG": str(bank.plane.kubeconfig)}
    command = (sys.executable, "-m", "penstock", *words)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout


def excepted(bank: Factory, pool: str, named: str, seconds: float, **widen: Any) -> str:
    """An exception to the policy that is `named`, which anna asked for and otto approved; when it expires."""
    anna, otto = (bank.plane.api_as(bank.plane.user(name, ("system:masters",))) for name in ("anna", "otto"))
    expires = moment(seconds)
    asked = {"pool": pool, "policies": [named], "widen": widen, "reason": REASON}
    spec = {**asked, "expires": expires, "requester": "anna"}
    path = exception_path(bank)
    collection, _, name = path.rpartition("/")
    made = {"apiVersion": API_VERSION, "kind": "ResidencyException", "metadata": {"name": name}, "spec": spec}
    anna.create(collection, made)
    otto.patch(path, {"spec": {"approval": {"by": "otto"}}})
    return expires


def exception_path(bank: Factory) -> str:
    """Of the one exception that there is."""
    return f"{KINDS}/namespaces/{bank.namespace}/residencyexceptions/move"


def moment(seconds: float) -> str:
    """So many seconds from now, as the API writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def proof(age_seconds: float = 0.0) -> dict[str, str]:
    """What a node says whose place was proven so long ago."""
    proven_at = moment(-age_seconds).replace("-", "").replace(":", "")
    return {EVIDENCE_LABEL: "Declared", EVIDENCE_TIME_LABEL: proven_at}


def names(pods: list[Object]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


@contextmanager
def held(bank: Factory, pods: list[Object]) -> Iterator[set[str]]:
    """These pods, by name: none is gone before somebody has looked."""
    found = names(pods)
    _finalize(bank, found, HELD)
    try:
        yield found
    finally:
        _finalize(bank, found)


def wait_gone(bank: Factory, pods: set[str]) -> None:
    """They are no more, and nothing is told of them."""
    wait_for("they are gone", lambda: not left(bank, pods), PATIENCE_SECONDS)
    wait_for("nothing is told any more", lambda: not bank.status("llama")["residency"].get("violations"), SOON_SECONDS)


def _finalize(bank: Factory, pods: set[str], *finalizers: str) -> None:
    for name in pods:
        path = f"/api/v1/namespaces/{bank.namespace}/pods/{name}"
        bank.plane.api.patch(path, {"metadata": {"finalizers": list(finalizers)}})


def told_outside(bank: Factory, pods: set[str]) -> list[Object]:
    """What the pool tells of these replicas once it tells of all, in its status and by an Event of each."""

    def probe() -> list[Object] | None:
        found: list[Object] = bank.status("llama")["residency"].get("violations", [])
        return found if {one["pod"] for one in found} == pods else None

    told = wait_for("they are told to be outside", probe, PATIENCE_SECONDS)
    assert {one["action"] for one in told} == {"Drain"}
    assert all(one["remedy"] for one in told)
    said = {f"{one['pod']}: {one['message']}" for one in told}
    wait_for("Events say it", lambda: said <= set(notes(bank, "UnlawfulPlace", bank.namespace)), SOON_SECONDS)
    return told


def notes(bank: Factory, reason: str, namespace: str = "default") -> list[str]:
    """Events: those about what is in no namespace are in `default`."""
    found = bank.plane.api.list(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    return [one["note"] for one in found if one["reason"] == reason]


def wait_counted(bank: Factory, replicas: int) -> None:
    """The operator has seen so many at their places: an edit is judged by these."""
    wait_for("they are counted", lambda: policy_status(bank, "ours").get("replicaCount") == replicas, SOON_SECONDS)


def said(bank: Factory, kind: str) -> str:
    """The reason of a condition of the policy."""
    found = {one["type"]: str(one["reason"]) for one in policy_status(bank, "ours")["conditions"]}
    return found[kind]


def proven(auditor: Auditor, pods: set[str], begin: str) -> Object:
    """The page of the policy: these replicas and nobody else ran outside, out of traffic from then on, and ended."""

    def probe() -> Object | None:
        page = auditor.prove("ours", begin)
        ended = {one["pod"] for one in page["violations"] if one["to"]}
        return page if ended == in_full(auditor.factory, pods) else None

    page = wait_for("the page says it", probe, PATIENCE_SECONDS)
    assert (page["code"], page["verdict"], len(page["violations"])) == (1, "Violated", len(pods))
    for one in page["violations"]:
        assert one["from"] <= one["outOfTraffic"] <= one["to"], one
        assert [source.partition("@")[0] for source in one["outside"]] == ["ResidencyPolicy/ours"]
    return page


def in_full(bank: Factory, pods: set[str]) -> set[str]:
    return {f"{bank.namespace}/{name}" for name in pods}


def with_gpu(bank: Factory, namespace: str, name: str) -> Object:
    """A pod of no pool that any scheduler may place."""
    server = {"name": "server", "image": "server", "resources": {"limits": {GPU_RESOURCE: "1"}}}
    spec = {"containers": [server], "terminationGracePeriodSeconds": 1}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    found: Object = bank.plane.api.create(f"/api/v1/namespaces/{namespace}/pods", made)
    return found


def runs(bank: Factory, namespace: str, name: str) -> bool:
    """Whether it does, and is to go on."""
    pod = bank.plane.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
    return pod["status"].get("phase") == "Running" and is_staying(pod)
