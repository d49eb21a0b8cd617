"""What other people let through is on record too: the gate that break-glass lifted, the exception that one approved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditor import Auditor, now, recorded
from bank import policy, ready, wait_written
from bypasses_bank import country, lifting
from factory import PATIENCE_SECONDS, Factory, fleet, is_gated, is_staying
from outside import REASON, excepted, exception_path
from penstock.core.decisionlog.record import Happening
from rig.waiting import wait_for

Object = dict[str, Any]
TWO_DAYS_SECONDS = 2 * 86_400.0
BY_WHOM = "the API server's audit log has who did it"


@pytest.fixture(scope="module")
def plant(directory: Path) -> Iterator[Factory]:
    with recorded(directory) as opened:
        yield opened


def test_a_gate_that_break_glass_lifted_while_penstock_was_stopped_is_on_record_once_it_is_back(
    bank: Factory, auditor: Auditor
) -> None:
    bank.add(fleet("DE"))
    policy(bank, "ours", allowed=["DE"], audit="Required")
    wait_written(bank, "DE")
    bank.pool("llama")
    (died,), begin = bank.wait_running("llama", 1), now()
    bank.operator.stop()
    pods = f"/api/v1/namespaces/{bank.namespace}/pods"
    bank.plane.api.delete(f"{pods}/{died['metadata']['name']}")
    waits = wait_for("another one waits in its place", lambda: _gated(bank), PATIENCE_SECONDS)["metadata"]
    rescuer = bank.plane.api_as(bank.plane.user("ben", ("penstock:break-glass",)))
    rescuer.patch(f"{pods}/{waits['name']}", lifting("break-glass", [[country("DE")]]), "json")
    bank.wait_running("llama", 1)
    bank.operator.start()
    bank.operator.wait_ready()

    page = wait_for("it is told", lambda: _with(auditor.prove("ours", begin), "breakGlass"), PATIENCE_SECONDS)
    (told,) = page["breakGlass"]
    name = f"{bank.namespace}/{waits['name']}"
    assert (told["pod"], told["node"]) == (name, "de-0")
    assert page["unobserved"][0]["from"] <= told["time"], "somebody did it while nobody led"
    assert (page["verdict"], page["code"], page["violations"]) == ("Unobserved", 2, [])
    assert f"Let through by others\n  {name} on de-0, seen {told['time']}; {BY_WHOM}" in auditor.page("ours", begin)
    written, *_ = auditor.told(Happening.BREAK_GLASS)
    assert written["pod"]["uid"] == waits["uid"] not in auditor.placed()
    assert "ResidencyPolicy/ours" in {source.partition("@")[0] for source in written["law"]["sources"]}
    code, said = auditor.where(begin)
    assert (code, said.count(waits["name"])) == (0, 1), said


def _gated(bank: Factory) -> Object | None:
    return next((pod for pod in bank.pods("llama") if is_gated(pod) and is_staying(pod)), None)


def _with(page: Object, what: str) -> Object | None:
    return page if page[what] else None


def test_a_placement_under_an_exception_names_it_and_the_proof_who_asked_who_approved_and_who_used_it(
    bank: Factory, auditor: Auditor
) -> None:
    bank.add(fleet("CH"))
    policy(bank, "eu", allowed=["EU"], audit="Required")
    ready(bank, "eu", "Accepted")
    begin = now()
    excepted(bank, "traders", "eu", TWO_DAYS_SECONDS, allowed=["CH"])
    bank.pool("traders")
    (pod,) = bank.wait_running("traders", 1)
    name = f"{bank.namespace}/{pod['metadata']['name']}"

    record = auditor.placed()[pod["metadata"]["uid"]]
    sources = {source.partition("@")[0] for source in record["law"]["sources"]}
    assert sources == {"ResidencyPolicy/eu", "spec", f"ResidencyException/{bank.namespace}/move"}
    page = wait_for("its use is told", lambda: _used(auditor.prove("eu", begin)), PATIENCE_SECONDS)
    (told,) = page["exceptions"]
    assert told["exception"] in record["law"]["sources"]
    assert (told["requester"], told["approvedBy"], told["reason"]) == ("anna", "otto", REASON)
    assert (told["pool"], told["widen"], told["usedBy"]) == ("traders", {"allowed": ["CH"]}, [name])
    assert (page["verdict"], page["code"], page["violations"]) == ("Proven", 0, [])
    assert f"approved by otto, expires {told['expires']}; reason: {REASON}; used by {name}" in auditor.page("eu", begin)
    code, said = auditor.where(begin, "traders", "-o", "json")
    assert code == 0, said
    (place,) = json.loads(said)["places"]
    assert (place["node"], place["outside"]) == ("ch-0", [])
    assert told["exception"] in place["law"], "lawful by this"

    bank.plane.api.delete(exception_path(bank))
    page = wait_for("it is over, and told so", lambda: _over(auditor.prove("eu", begin)), PATIENCE_SECONDS)
    (outside,) = page["violations"]
    assert (outside["pod"], outside["node"], page["code"]) == (name, "ch-0", 1)
    assert [source.partition("@")[0] for source in outside["outside"]] == ["ResidencyPolicy/eu"]


def _used(page: Object) -> Object | None:
    return page if any(one["usedBy"] for one in page["exceptions"]) else None


def _over(page: Object) -> Object | None:
    """Once whoever stood by it stands outside."""
    return page if page["violations"] and all(one["to"] for one in page["exceptions"]) else None
