"""Behaviour of the tree of domains and of budgets that move: every ancestor binds, cuts wait, mistakes are caught."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from penstock.api.meta import rfc3339
from penstock.api.names import GATE, POOL_LABEL
from rig.api import ApiError
from rig.waiting import wait_for
from row import QUICK

Object = dict[str, Any]
ROW_A, ROW_B = {"row": "a"}, {"row": "b"}
PLENTY = 100_000
CUT_SECONDS = 30.0
ANY_ROW = {"key": "row", "operator": "Exists"}


def two_rows(factory: Factory, *, site_watts: float = PLENTY) -> None:
    """A node in each of two rows that have plenty, under a site that only holds them."""
    factory.add([*fleet("DE", labels=ROW_A), *fleet("FR", labels=ROW_B)])
    factory.apply("PowerDomain", "site", {"budget": {"watts": site_watts}})
    factory.domain("row-a", PLENTY, ROW_A, parent="site")
    factory.domain("row-b", PLENTY, ROW_B, parent="site")
    wait_for("the site's account", lambda: factory.domain_status("site").get("nodes") == 2, SOON_SECONDS)


def site_tight(factory: Factory) -> float:
    """Leave the site what it has committed and no watt more; that budget."""
    settled = wait_for("the idle draw is heard", lambda: _settled(factory), PATIENCE_SECONDS)
    watts = round(settled / 0.9)
    factory.patch_domain("site", {"budget": {"watts": watts}})
    wait_for("the budget counts", lambda: factory.domain_status("site")["admissionBudgetWatts"] == watts, SOON_SECONDS)
    return watts


def _settled(factory: Factory) -> float | None:
    status = factory.domain_status("site")
    committed: float = status.get("committedWatts", 0.0)
    return committed if status.get("nodes") == 2 and committed > 0 and not status.get("staleNodes") else None


def raise_for(waiting: Object, domain: str) -> int:
    """By how many watts the domain's budget is to be raised, as the remedy says it."""
    remedy = re.search(rf"raise PowerDomain/{domain} by (\d+) W", waiting["wouldFit"])
    assert remedy, waiting["wouldFit"]
    return int(remedy[1])


def soon(seconds: float) -> str:
    return rfc3339(datetime.now(UTC) + timedelta(seconds=seconds))


def when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_two_pools_race_for_the_last_watts_of_a_parent_whose_children_both_have_room(factory: Factory) -> None:
    two_rows(factory)
    tight = site_tight(factory)
    factory.pool("left", pod={"nodeSelector": ROW_A})
    factory.pool("right", pod={"nodeSelector": ROW_B})
    more = [raise_for(factory.wait_waiting(name, "InsufficientPower"), "site") for name in ("left", "right")]
    # Whoever asks second needs what the first takes too.
    factory.patch_domain("site", {"budget": {"watts": tight + min(more)}})

    def won() -> list[str]:
        return [name for name in ("left", "right") if factory.running(name)]

    (winner,) = wait_for("one of them wins", won, PATIENCE_SECONDS)
    loser = "left" if winner == "right" else "right"
    waiting = factory.wait_waiting(loser, "InsufficientPower")
    assert "PowerDomain/site" in waiting["message"]
    factory.stays("one wins", lambda: won() == [winner], 3)
    for name in ("site", "row-a", "row-b"):
        status = factory.domain_status(name)
        assert status["committedWatts"] <= status["usableWatts"], name
    assert factory.domain_status("row-a")["ancestors"] == ["site"]


def test_mig_devices_race_for_the_last_watts_like_whole_gpus_though_nobody_says_on_which_gpu_they_are(
    factory: Factory,
) -> None:
    part = "nvidia.com/mig-3g.71gb"
    (node,) = fleet("DE")
    node["status"]["allocatable"][part] = "16"
    factory.add([node])
    free = {"marginPercent": 0, "overhead": {"perGPUWatt": 0}}
    idle_watts, part_watts = 8 * 77, 3 / 7 * 1.03 * 700
    factory.domain("hall", round(idle_watts + 2.5 * part_watts), {}, **free)
    factory.wait_heard("de-0", 77.0)
    factory.apply("InferencePool", "adopted", {})
    server = {"name": "server", "image": "server:1", "resources": {"limits": {part: "1"}}}
    for name in "abc":
        metadata = {"name": name, "labels": {POOL_LABEL: "adopted"}}
        spec = {"schedulingGates": [{"name": GATE}], "containers": [server], "terminationGracePeriodSeconds": 1}
        factory.plane.api.create("/api/v1/namespaces/default/pods", {"metadata": metadata, "spec": spec})
    waiting = factory.wait_waiting("adopted", "InsufficientPower")
    factory.wait_running("adopted", 2)
    charged_watts = pytest.approx(idle_watts + 2 * part_watts, rel=0.05)
    wait_for("both are charged", lambda: factory.domain_status("hall")["committedWatts"] == charged_watts, SOON_SECONDS)
    status = factory.domain_status("hall")
    assert status["committedWatts"] <= status["usableWatts"]
    factory.patch_domain("hall", {"budget": {"watts": status["budgetWatts"] + raise_for(waiting, "hall")}})
    factory.wait_running("adopted", 3)


def test_a_circle_keeps_the_last_valid_shape_and_both_sides_say_so(factory: Factory) -> None:
    two_rows(factory)
    tight = site_tight(factory)
    factory.patch_domain("site", {"parent": "row-a", "budget": {"watts": PLENTY}})
    told = factory.wait_condition("site", "Ready", "InvalidSpec", domain=True)["message"]
    assert "PowerDomain/site" in told
    assert "PowerDomain/row-a" in told
    assert "the last valid budget stays in force" in told
    factory.wait_condition("row-a", "Ready", "InvalidSpec", domain=True)
    assert factory.domain_status("site")["admissionBudgetWatts"] == tight
    assert factory.domain_status("row-a")["ancestors"] == ["site"]
    assert factory.condition("row-b", "Ready", domain=True)["reason"] == "Accepted"
    factory.pool("left", pod={"nodeSelector": ROW_A})
    assert "PowerDomain/site" in factory.wait_waiting("left", "InsufficientPower")["message"]
    factory.patch_domain("site", {"parent": None})
    factory.wait_running("left", 1)


def test_an_unknown_time_zone_or_parent_leaves_the_rest_in_force(factory: Factory) -> None:
    two_rows(factory)
    night = {"cron": "0 0 30 2 *", "duration": "8h", "timeZone": "Mars/Phobos", "watts": 1}
    factory.patch_domain("row-a", {"budget": {"windows": [night]}})
    told = factory.wait_condition("row-a", "Ready", "InvalidSpec", domain=True)["message"]
    assert "spec.budget.windows[0].cron: 0 0 30 2 *" in told
    assert "spec.budget.windows[0].timeZone: Mars/Phobos" in told
    factory.patch_domain("row-b", {"parent": "sight"})
    assert "sight" in factory.wait_condition("row-b", "Ready", "InvalidSpec", domain=True)["message"]
    assert factory.domain_status("row-b")["ancestors"] == ["site"]
    factory.pool("left", pod={"nodeSelector": ROW_A})
    factory.wait_running("left", 1)


def _admission_watts(factory: Factory) -> float:
    watts: float = factory.domain_status("site")["admissionBudgetWatts"]
    return watts


def test_an_announced_budget_holds_admissions_a_quarter_of_an_hour_ahead(factory: Factory) -> None:
    two_rows(factory)
    settled = wait_for("the idle draw is heard", lambda: _settled(factory), PATIENCE_SECONDS)
    far, near = soon(20 * 60), soon(10 * 60)
    low = {"watts": round(settled / 0.9), "until": soon(3600)}
    factory.patch_domain("site", {"budget": {**low, "effectiveAt": far}})
    next_one = wait_for("it is announced", lambda: factory.domain_status("site").get("nextBudget"), SOON_SECONDS)
    assert next_one == {"watts": low["watts"], "at": far}
    factory.pool("early", pod={"nodeSelector": ROW_A})
    factory.wait_running("early", 1)
    factory.delete_pool("early")
    factory.patch_domain("site", {"budget": {**low, "effectiveAt": near}})
    wait_for("admission goes by it", lambda: _admission_watts(factory) == low["watts"], SOON_SECONDS)
    factory.pool("late", pod={"nodeSelector": ROW_A})
    waiting = factory.wait_waiting("late", "InsufficientPower")
    assert "PowerDomain/site" in waiting["message"]
    assert factory.domain_status("site")["budgetWatts"] == PLENTY


def test_a_cut_counts_half_a_minute_after_it_was_seen_and_survives_a_restart(factory: Factory) -> None:
    two_rows(factory)
    factory.patch_domain("site", {"budget": {"watts": 60_000}})
    announced = wait_for("the cut is timed", lambda: factory.domain_status("site").get("nextBudget"), SOON_SECONDS)
    assert announced["watts"] == 60_000
    factory.operator.kill()
    factory.operator.start()
    factory.operator.wait_ready()

    def counts() -> bool:
        status = factory.domain_status("site")
        early = time.time() < when(announced["at"]) - 1.0
        assert not early or status["budgetWatts"] == PLENTY
        assert status.get("nextBudget", announced) == announced
        return bool(status["budgetWatts"] == 60_000)

    wait_for("the cut counts", counts, CUT_SECONDS + 10 * SOON_SECONDS)
    assert time.time() >= when(announced["at"]) - 1.0


def test_an_edit_that_looks_like_a_mistake_stops_at_hold_until_it_is_confirmed(factory: Factory) -> None:
    two_rows(factory)
    factory.pool("left", pod={"nodeSelector": ROW_A})
    factory.wait_running("left", 1)
    wait_for("the replica is booked", lambda: factory.domain_status("row-a")["committedWatts"] > 1_500, SOON_SECONDS)
    with pytest.raises(ApiError, match=r"set spec.budget.confirm to the new watts"):
        factory.patch_domain("row-a", {"budget": {"watts": 10}})
    # What no schema sees: a margin that leaves next to nothing.
    factory.patch_domain("row-a", {"marginPercent": 99.9, "ladder": QUICK})
    told = factory.wait_condition("row-a", "Confirmed", "NeedsConfirmation", domain=True)["message"]
    assert f"set spec.budget.confirm to {PLENTY}" in told
    wait_for("it holds", lambda: factory.domain_status("row-a")["ladder"]["stage"] == "Hold", SOON_SECONDS)
    reason = factory.domain_status("row-a")["ladder"]["reason"]
    assert "its limit waits for spec.budget.confirm, so nothing that runs is touched" in reason
    factory.pool("late", pod={"nodeSelector": ROW_A})
    assert "PowerDomain/row-a" in factory.wait_waiting("late", "PowerHold")["message"]
    factory.stays("nothing running is touched", lambda: len(factory.running("left")) == 1, 3)
    assert factory.domain_status("row-a")["budgetWatts"] == PLENTY
    factory.patch_domain("row-a", {"budget": {"confirm": PLENTY}})
    factory.wait_condition("row-a", "Confirmed", "Accepted", domain=True)
    factory.wait_waiting("late", "InsufficientPower", PATIENCE_SECONDS)
    factory.patch_domain("row-a", {"marginPercent": 10})
    factory.wait_running("late", 1)
    assert len(factory.running("left")) == 1


def test_a_domain_of_nodes_by_name_binds_on_them_and_on_no_other(factory: Factory) -> None:
    factory.add(fleet("DE", "FR"))
    factory.apply("PowerDomain", "named", {"nodes": ["de-0"], "budget": {"watts": 3_000}})
    wait_for("it has its node", lambda: factory.domain_status("named").get("nodes") == 1, SOON_SECONDS)
    factory.pool("inside", gpus=8, residency={"allowed": ["DE"]})
    assert "PowerDomain/named" in factory.wait_waiting("inside", "InsufficientPower")["message"]
    factory.pool("outside", gpus=8)
    factory.wait_running("outside", 1)
    assert factory.nodes_of("outside") == ["fr-1"]
    factory.patch_domain("named", {"nodes": ["fr-1"]})
    factory.wait_running("inside", 1)
    assert factory.nodes_of("inside") == ["de-0"]


def test_the_nodes_of_a_deleted_domain_stay_charged_to_its_parent(factory: Factory) -> None:
    two_rows(factory)
    before = wait_for("the idle draw is heard", lambda: _settled(factory), PATIENCE_SECONDS)
    factory.plane.api.delete(factory.domain_path("row-a"))
    told = factory.wait_condition("site", "Ready", "InheritedNodes", domain=True)["message"]
    assert "de-0" in told
    assert factory.domain_status("site")["nodes"] == 2
    assert factory.domain_status("site")["committedWatts"] == pytest.approx(before, rel=0.05)
    factory.domain("row-a", PLENTY, ROW_A, parent="site")
    factory.wait_condition("site", "Ready", "Accepted", domain=True)


def test_the_nodes_of_a_domain_that_is_deleted_while_no_operator_runs_are_charged_to_its_parent_all_the_same(
    factory: Factory,
) -> None:
    two_rows(factory)
    before = wait_for("the idle draw is heard", lambda: _settled(factory), PATIENCE_SECONDS)
    wait_for("both rows are remembered", lambda: len(factory.domain_status("site").get("below", ())) == 2, SOON_SECONDS)
    factory.operator.kill()
    factory.plane.api.delete(factory.domain_path("row-a"))
    factory.operator.start()
    factory.operator.wait_ready()
    told = factory.wait_condition("site", "Ready", "InheritedNodes", domain=True)["message"]
    assert "de-0" in told
    assert factory.domain_status("site")["nodes"] == 2
    assert factory.domain_status("site")["committedWatts"] == pytest.approx(before, rel=0.05)
    # A second start has only the status of the first to go by, the domain is long gone.
    factory.operator.kill()
    factory.operator.start()
    factory.operator.wait_ready()
    factory.stays("it is charged", lambda: factory.domain_status("site")["nodes"] == 2, 3)
    factory.domain("row-a", PLENTY, ROW_A, parent="site")
    factory.wait_condition("site", "Ready", "Accepted", domain=True)


def test_an_edit_that_takes_the_nodes_of_another_domain_is_not_in_force_until_they_are_given_up(
    factory: Factory,
) -> None:
    two_rows(factory)
    factory.patch_domain("row-a", {"nodeSelector": {"matchLabels": None, "matchExpressions": [ANY_ROW]}})
    told = factory.wait_condition("row-a", "Ready", "InvalidSpec", domain=True)["message"]
    assert "selects fr-1" in told or "selects fr-0" in told
    assert "PowerDomain/row-b holds them too" in told
    assert factory.domain_status("row-a")["nodes"] == 1
    assert factory.condition("row-b", "Ready", domain=True)["reason"] == "Accepted"
    factory.plane.api.delete(factory.domain_path("row-b"))
    wait_for("the edit counts", lambda: factory.domain_status("row-a")["nodes"] == 2, SOON_SECONDS)


def test_a_window_that_is_open_lowers_the_budget_and_says_when_it_ends(factory: Factory) -> None:
    two_rows(factory)
    always = {"cron": "* * * * *", "duration": "2m", "timeZone": "Europe/Berlin", "watts": 60_000}
    opens = datetime.now(UTC) + timedelta(hours=1)
    later = {"cron": f"{opens.minute} {opens.hour} * * *", "duration": "1h", "watts": 50_000}
    factory.patch_domain("site", {"budget": {"windows": [always, later]}})
    wait_for("the window counts", lambda: factory.domain_status("site")["budgetWatts"] == 60_000, SOON_SECONDS)
    announced = factory.domain_status("site")["nextBudget"]
    assert (announced["watts"], announced["at"]) == (50_000, rfc3339(opens.replace(second=0)))
