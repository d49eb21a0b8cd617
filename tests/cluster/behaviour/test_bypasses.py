"""What no request shows, or came before the law, the operator finds: drained, or reported where that cannot be."""

from __future__ import annotations

import json

import pytest

from bank import left, policy_status, ready
from bypasses_detected import DETECTED, LISTED, Detected, End, attacker
from factory import SOON_SECONDS, Factory, fleet
from penstock.api.names import GPU_RESOURCES
from rig.waiting import wait_for

SETTINGS = {"PENSTOCK_GPU_RESOURCES": json.dumps([*GPU_RESOURCES, LISTED])}
WITHIN_SECONDS = 50.0
"""Ten times the 5 s within which the place is to be empty."""


@pytest.mark.parametrize("row", DETECTED, ids=lambda row: f"{row.who} {row.tries}")
def test_what_is_not_refused_is_detected(bank: Factory, row: Detected) -> None:
    bank.add(fleet("DE", "US"))
    found = row.attempt(bank, attacker(bank, row.who))
    if row.end is End.DRAINED:
        wait_for(f"{row.tries}: the place is empty", lambda: not left(bank, found), WITHIN_SECONDS)
    else:
        told = wait_for("it is reported", lambda: policy_status(bank, "ours").get("violations"), WITHIN_SECONDS)
        assert [(one["pod"], one["node"], one["action"]) for one in told] == [("stranger", "us-1", "Report")]
        assert told[0]["remedy"] == "a static pod, which no request ends: take its manifest off node us-1"
        assert row.says in ready(bank, "ours", "UnlawfulPlace", "ResidencyCompliant")["message"]
    wait_for("an Event says it", lambda: notes(bank, row.says), SOON_SECONDS)


def notes(bank: Factory, says: str) -> list[str]:
    """What Events say so of this bank: those about a node are in the namespace `default`."""
    path = "/apis/events.k8s.io/v1/namespaces"
    here = [one["note"] for one in bank.plane.api.list(f"{path}/{bank.namespace}/events")]
    of_nodes = [one["note"] for one in bank.plane.api.list(f"{path}/default/events")]
    told = [*here, *(note for note in of_nodes if note.startswith(f"{bank.namespace}/"))]
    return [note for note in told if says in note]
