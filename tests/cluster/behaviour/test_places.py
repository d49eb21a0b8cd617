"""Places that are doubted: a label that flaps, a region that says otherwise, and a cluster that says no place yet."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from bank import doubts, move, policy, ready, wait_doubted
from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from penstock.api.names import PLACE_SETTLED_ANNOTATION, REGION_LABEL
from rig.fleet import gpu_node
from rig.waiting import Waited, wait_for

Object = dict[str, Any]
STEADY_SECONDS = 10.0
FLAPS = 4
REGIONS = {"kwok/halle": "DE", "kwok/ashburn": {"country": "US", "subdivision": "US-VA"}}
SETTINGS = {"PENSTOCK_PLACE_STEADY_SECONDS": str(STEADY_SECONDS), "PENSTOCK_REGIONS": json.dumps(REGIONS)}


def events(bank: Factory, reason: str) -> list[str]:
    path = "/apis/events.k8s.io/v1/namespaces/default/events"
    return [one["note"] for one in bank.plane.api.list(path) if one["reason"] == reason]


def wait_told(bank: Factory, holds: Callable[[Object], bool]) -> Object:
    """Wait until the pool tells those who wait so."""

    def probe() -> Object | None:
        found = bank.status("llama").get("waiting", [])
        return next((one for one in found if holds(one)), None)

    try:
        return wait_for("those who wait are told", probe, SOON_SECONDS)
    except Waited as late:
        raise Waited(f"{late}; told: {bank.status('llama').get('waiting')}") from late


def test_a_place_that_flaps_loses_its_replica_once_and_gets_another_when_it_has_been_steady(bank: Factory) -> None:
    """A label that flaps every 10 s under the default of 15 minutes, at a smaller scale: each second, under 10 s.

    As there, it changes again long before the place would count, so only a clock that begins anew with each change
    holds the place back; and it lasts nearly as long as the place has to be steady, so one that began with the first
    change would have run out just afterwards.
    """
    bank.add(fleet("DE", "DE"))
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    bank.pool("llama", replicas=2, gpus=8)
    bank.wait_running("llama", 2)
    there = {pod["metadata"]["uid"] for pod in bank.running("llama") if pod["spec"]["nodeName"] == "de-1"}
    ever = set(there)

    def look() -> None:
        path = f"/api/v1/namespaces/{bank.namespace}/pods"
        found = bank.plane.api.list(path)
        ever.update(pod["metadata"]["uid"] for pod in found if pod["spec"].get("nodeName") == "de-1")

    flapped_at = time.monotonic()
    for _ in range(FLAPS):
        for country in (None, "DE"):
            flapped_at = time.monotonic()
            move(bank, "de-1", country)
            while time.monotonic() < flapped_at + 1.0:
                look()
                time.sleep(0.1)
    assert ever == there, "nobody else came while it flapped"
    told = wait_told(bank, lambda one: "node de-1 has been steady since" in one["message"])
    assert "counts from" in told["message"]
    assert "nothing to do: the place of node de-1 counts from" in told["wouldFit"]
    bank.wait_running("llama", 2)
    assert time.monotonic() - flapped_at >= STEADY_SECONDS
    assert bank.nodes_of("llama") == ["de-0", "de-1"]
    wait_doubted(bank, "de-1")
    assert len(events(bank, "PlaceUnsteady")) == 1


def test_a_region_that_says_otherwise_holds_placements_and_nothing_else_until_it_is_settled(bank: Factory) -> None:
    bank.add([gpu_node("halle-0", country="DE", labels={REGION_LABEL: "halle"})])
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    bank.pool("llama")
    (pod,) = bank.wait_running("llama", 1)
    path = "/api/v1/nodes/halle-0"
    bank.plane.api.patch(path, {"metadata": {"labels": {REGION_LABEL: "ashburn"}}})
    message = wait_doubted(bank, "halle-0", "PlaceDisputed")["PlaceDisputed"]
    assert "stands in DE, and residency.regions puts its region kwok/ashburn in US-VA" in message
    bank.patch_pool("llama", {"replicas": 2})
    told = wait_told(bank, lambda one: "kwok/ashburn" in one["message"])
    settle = f"{PLACE_SETTLED_ANNOTATION}=DE@ashburn"
    assert f"kubectl annotate node halle-0 --overwrite {settle}" in told["wouldFit"]
    assert bank.condition("llama", "ResidencyCompliant")["status"] == "True"
    assert [one["metadata"]["uid"] for one in bank.running("llama")] == [pod["metadata"]["uid"]], (
        "it is held, not moved"
    )
    metrics = bank.operator.metrics()
    assert metrics['penstock_doubted_places{doubt="PlaceDisputed"}'] == 1.0
    key, _, value = settle.partition("=")
    bank.plane.api.patch(path, {"metadata": {"annotations": {key: value}}})
    bank.wait_running("llama", 2)
    wait_doubted(bank, "halle-0")
    assert len(events(bank, "PlaceDisputed")) == 1


def test_a_cluster_that_is_not_labelled_yet_says_what_to_run_and_is_placed_on_once_it_is(bank: Factory) -> None:
    bank.add(fleet("-", "-"))
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "NodesSayNoPlace", "PlacesKnown")
    bank.pool("llama", replicas=2)
    told = wait_told(bank, lambda one: one["replicas"] == 2 and "no node says where it stands" in one["message"])
    assert "penstock label-nodes --table FILE" in told["message"]
    assert "penstock label-nodes --table FILE" in told["wouldFit"]
    path = f"/apis/events.k8s.io/v1/namespaces/{bank.namespace}/events"

    def notes() -> list[str]:
        found = bank.plane.api.list(path)
        return [one["note"] for one in found if one["reason"] == "NoLawfulPlace" and "label-nodes" in one["note"]]

    wait_for("an Event says it", notes, SOON_SECONDS)
    move(bank, "nowhere-0", "DE")
    bank.wait_running("llama", 2, PATIENCE_SECONDS)
    assert not doubts(bank, "nowhere-0"), "what a node says for the first time counts at once"
    assert len(notes()) == 1
