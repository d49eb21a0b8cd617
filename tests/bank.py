"""A bank: a namespace of a factory of its own, whose law governance writes, and words to see what comes of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory
from penstock.api.names import API_VERSION, COUNTRY_LABEL, LAW_LABEL, LAW_PREFIX, LAW_REQUIRED
from rig.waiting import wait_for

Object = dict[str, Any]
NUMBERS = itertools.count()
KINDS = f"/apis/{API_VERSION}"
EU = (
    *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT"),
    *("LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
)


def open_bank(factory: Factory) -> Iterator[Factory]:
    """The factory in a namespace of its own, in which policies are tried; it and they are gone afterwards."""
    factory.namespace = name = f"bank-{next(NUMBERS)}"
    api = factory.plane.api
    api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": {"sector": name}}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_for(f"namespace {name}", lambda: api.get(account), PATIENCE_SECONDS, report=False)
    api.apply(group("eu", *EU))
    yield factory
    for kind in ("residencypolicies", "jurisdictiongroups"):
        for one in api.list(f"{KINDS}/{kind}"):
            api.delete(f"{KINDS}/{kind}/{one['metadata']['name']}")
    factory.reset()
    api.delete(f"/api/v1/namespaces/{name}")
    factory.namespace = "default"


def group(name: str, *members: str, version: str = "1") -> Object:
    """A JurisdictionGroup as governance writes it."""
    spec = {"version": version, "members": list(members), "source": "a treaty", "date": "2020-02-01"}
    return {"apiVersion": API_VERSION, "kind": "JurisdictionGroup", "metadata": {"name": name}, "spec": spec}


def policy_document(bank: Factory, name: str, **spec: Any) -> Object:
    """A ResidencyPolicy that selects the bank, as governance writes it."""
    selector = {"namespaceSelector": {"matchLabels": {"sector": bank.namespace}}}
    return {"apiVersion": API_VERSION, "kind": "ResidencyPolicy", "metadata": {"name": name}, "spec": selector | spec}


def policy(bank: Factory, name: str, **spec: Any) -> None:
    bank.plane.api.apply(policy_document(bank, name, **spec))


def policy_status(bank: Factory, name: str) -> Object:
    status: Object = bank.plane.api.get(f"{KINDS}/residencypolicies/{name}").get("status", {})
    return status


def ready(bank: Factory, name: str, reason: str, kind: str = "Ready") -> Object:
    """Wait until the policy's condition Ready, or another one, says so."""

    def probe() -> Object | None:
        found = policy_status(bank, name).get("conditions", [])
        return next((one for one in found if one["type"] == kind and one["reason"] == reason), None)

    return wait_for(f"{name} says {reason}", probe, SOON_SECONDS)


def written(bank: Factory) -> Object:
    found = bank.plane.api.get(f"/api/v1/namespaces/{bank.namespace}")["metadata"]
    return {"label": found["labels"].get(LAW_LABEL), **found.get("annotations", {})}


def wait_written(bank: Factory, country: str | None) -> Object:
    def probe() -> Object | None:
        found = written(bank)
        says = found.get(f"{LAW_PREFIX}/country") == country
        return found if says and found["label"] == LAW_REQUIRED else None

    return wait_for(f"the namespace says {country}", probe, SOON_SECONDS)


def places(bank: Factory, name: str) -> list[str]:
    return [node.partition("-")[0] for node in bank.nodes_of(name)]


def endpoints(bank: Factory, name: str) -> set[str]:
    """The pods that take traffic of a pool's Service."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{bank.namespace}/endpointslices"
    found = bank.plane.api.list(path, labelSelector=f"kubernetes.io/service-name={name}")
    ready = (one for part in found for one in part.get("endpoints") or [] if one["conditions"].get("ready"))
    return {one["targetRef"]["name"] for one in ready}


def served(bank: Factory, replicas: int, gpus: int = 2) -> list[Object]:
    """A pool with a Service, each of whose replicas takes traffic."""
    bank.pool("llama", replicas=replicas, gpus=gpus, container={"ports": [{"name": "http", "containerPort": 8000}]})
    running = bank.wait_running("llama", replicas)
    wait_for("they take traffic", lambda: len(endpoints(bank, "llama")) == replicas, PATIENCE_SECONDS)
    return running


def move(bank: Factory, node: str, country: str | None) -> None:
    bank.plane.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {COUNTRY_LABEL: country}}})


def left(bank: Factory, names: set[str]) -> set[str]:
    """Which of these pods are still there."""
    path = f"/api/v1/namespaces/{bank.namespace}/pods"
    return names & {pod["metadata"]["name"] for pod in bank.plane.api.list(path)}


def doubts(bank: Factory, node: str) -> dict[str, str]:
    """What is written of a node's place on its GPUNode: messages by condition."""
    status = bank.plane.api.get(f"{KINDS}/gpunodes/{node}").get("status", {})
    return {one["type"]: one["message"] for one in (status.get("place") or {}).get("conditions", [])}


def wait_doubted(bank: Factory, node: str, *kinds: str) -> dict[str, str]:
    def probe() -> dict[str, str] | None:
        found = doubts(bank, node)
        return found or {"": ""} if set(found) == set(kinds) else None

    return wait_for(f"{node} is doubted by {kinds or 'nothing'}", probe, SOON_SECONDS)
