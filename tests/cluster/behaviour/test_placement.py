"""Behaviours 1 to 3: replicas land where they may, every wait says why and what helps, and a budget is a budget."""

from __future__ import annotations

import re
import time

from factory import SOON_SECONDS, Factory, countries, fleet, is_gated, pins, record
from rig.waiting import wait_for

ROW = {"row": "a"}


def test_four_replicas_land_in_their_jurisdiction_with_one_patch_each(factory: Factory) -> None:
    factory.add(fleet("DE", "DE", "FR", "US", "-"))
    mark = factory.audit().mark()
    factory.pool("llama", replicas=4, gpus=2, residency={"allowed": ["DE", "FR"], "denied": ["FR-IDF"]})
    pods = factory.wait_running("llama", 4)
    for pod in pods:
        assert pins(pod) == {pod["spec"]["nodeName"]}
        assert pod["spec"]["nodeName"].startswith("de-"), (
            "FR has a denied part, so a node that knows only FR is outside"
        )
        assert countries(pod) == {"DE"}
        assert record(pod)["node"] == pod["spec"]["nodeName"]
    ours = factory.audit().since(mark, user=factory.operator_user)
    patched = [one.name for one in ours if one.verb == "patch" and one.resource == "pods"]
    assert sorted(patched) == sorted(pod["metadata"]["name"] for pod in pods)
    assert [one for one in ours if one.resource.startswith("pods") and one.writes and one.verb != "patch"] == []


def test_nothing_is_written_while_nothing_changes(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.domain("everything", 40_000, {})
    factory.pool("llama", replicas=2)
    factory.pool("stuck", replicas=1, residency={"allowed": ["JP"]})
    factory.wait_running("llama", 2)
    factory.wait_waiting("stuck", "NoLawfulPlace")
    # The waiting replica leaves its Deployment's count after four seconds; then nothing is left to do.
    wait_for("stuck leaves the count", lambda: factory.deployment("stuck")["spec"]["replicas"] == 0, 60)
    time.sleep(6)
    mark = factory.audit().mark()
    time.sleep(30)
    writes = [one for one in factory.audit().since(mark, user=factory.operator_user) if one.writes]
    assert {one.resource for one in writes} == {"leases"}


def test_no_room_says_so_and_the_remedy_places_it(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("first", replicas=1, gpus=6)
    factory.wait_running("first", 1)
    factory.pool("second", replicas=1, gpus=4)
    waiting = factory.wait_waiting("second", "InsufficientGPUs")
    assert waiting["counts"] == {"FreeGPUs": 1}
    assert "fewer than 4 free GPUs" in waiting["message"]
    assert "free 2 GPUs" in waiting["wouldFit"]
    factory.delete_pool("first")
    factory.wait_running("second", 1)


def test_no_watts_says_by_how_much_and_the_remedy_places_it_at_once(factory: Factory) -> None:
    factory.add(fleet("DE", labels=ROW))
    factory.domain("row-a", 9_000, ROW)
    factory.pool("llama", replicas=2, gpus=4)
    waiting = factory.wait_waiting("llama", "InsufficientPower")
    assert waiting["counts"] == {"Watts": 1}
    remedy = re.search(r"raise PowerDomain/row-a by ([\d,]+) W", waiting["wouldFit"])
    assert remedy, waiting["wouldFit"]
    more_watts = int(remedy[1].replace(",", ""))
    factory.patch_domain("row-a", {"budget": {"watts": 9_000 + more_watts - 2}})
    factory.stays("two watts less are not enough", lambda: len(factory.running("llama")) == 1, 3)
    factory.patch_domain("row-a", {"budget": {"watts": 9_000 + more_watts}})
    factory.wait_running("llama", 2, SOON_SECONDS)


def test_no_lawful_place_says_so_and_the_remedy_places_it(factory: Factory) -> None:
    factory.add(fleet("US", "-"))
    factory.pool("llama", residency={"allowed": ["DE"]})
    waiting = factory.wait_waiting("llama", "NoLawfulPlace")
    assert waiting["counts"] == {"LawfulPlace": 2}
    assert factory.condition("llama", "Placed")["reason"] == "NoLawfulPlace"
    assert is_gated(factory.pods("llama")[0])
    factory.add(fleet("DE"))
    assert factory.wait_running("llama", 1)[0]["spec"]["nodeName"] == "de-0"


def test_each_of_three_waits_has_its_own_reason_at_once(factory: Factory) -> None:
    factory.add(fleet("DE", labels=ROW))
    factory.domain("row-a", 9_000, ROW)
    factory.pool("large", gpus=16)
    factory.pool("hungry", replicas=2, gpus=4)
    factory.pool("abroad", residency={"allowed": ["BR"]})
    factory.wait_waiting("large", "InsufficientGPUs")
    factory.wait_waiting("hungry", "InsufficientPower")
    factory.wait_waiting("abroad", "NoLawfulPlace")
    shown = factory.plane.kubectl("get", "aipool").stdout
    for reason in ("InsufficientGPUs", "InsufficientPower", "NoLawfulPlace"):
        assert reason in shown


def test_a_budget_below_what_is_committed_touches_nothing_and_says_by_how_many_watts(factory: Factory) -> None:
    factory.add(fleet("DE", labels=ROW))
    factory.domain("row-a", 30_000, ROW)
    factory.pool("llama", replicas=2, gpus=2)
    names = {pod["metadata"]["name"] for pod in factory.wait_running("llama", 2)}
    factory.patch_domain("row-a", {"budget": {"watts": 5_000}})
    condition = factory.wait_condition("row-a", "WithinBudget", "OverBudget", domain=True)
    committed = factory.domain_status("row-a")["committedWatts"]
    over = re.search(r"over by ([\d,]+) W", condition["message"])
    assert over
    assert abs(int(over[1].replace(",", "")) - (committed - 4_500)) <= 1
    factory.wait_condition("llama", "WithinPowerBudget", "OverBudget")
    factory.patch_pool("llama", {"replicas": 3})
    factory.wait_waiting("llama", "InsufficientPower")
    factory.stays(
        "nothing running is touched",
        lambda: {pod["metadata"]["name"] for pod in factory.running("llama")} == names,
        5,
    )
