"""What moves a domain from rung to rung, and what each rung does: heat, the brake, long ends, moves by the hour."""

from __future__ import annotations

import time
from typing import Any

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from meter import BUSY_WATTS, IDLE_WATTS, OVERHEAD, Meter
from rig.waiting import wait_for
from row import QUICK, ROW, cut, drawn, ladder, priorities, row_of_two, short, wait_stage

Object = dict[str, Any]


def evicted(factory: Factory, name: str = "row-a") -> list[Object]:
    """The evictions that a domain's status tells of, the newest first."""
    return [one for one in ladder(factory, name).get("actions", []) if one["action"] == "Evict"]


def test_heat_holds_its_own_domain_and_the_power_brake_is_an_emergency_of_it_that_moves_nobody_in_vain(
    factory: Factory, meter: Meter
) -> None:
    factory.add([*fleet("DE", labels=ROW), *fleet("FR", labels={"row": "b"})])
    factory.domain("row-a", 40_000, ROW, ladder=QUICK)
    factory.domain("row-b", 40_000, {"row": "b"}, ladder=QUICK)
    factory.pool("llama", replicas=2, gpus=8)
    names = {pod["metadata"]["name"] for pod in factory.wait_running("llama", 2)}
    drawn(factory, meter)
    factory.telemetry.set("de-0", changes={"thermalMarginCelsius": 3})
    assert "a GPU in it is about to slow down because of heat" in wait_stage(factory, "Hold")["reason"]
    factory.telemetry.set("de-0", changes={"throttleReasons": ["HwPowerBrake"]})
    told = wait_stage(factory, "Emergency")
    assert "slows itself down because of heat or the power brake" in told["reason"]
    assert ladder(factory, "row-b")["stage"] == "Admit", "which has neither"
    factory.telemetry.set("de-0", changes={"throttleReasons": [], "thermalMarginCelsius": 30})
    wait_stage(factory, "Admit")
    assert not ladder(factory).get("actions"), "it was within its budget all the time"
    assert {pod["metadata"]["name"] for pod in factory.running("llama")} == names


def test_a_cut_is_shed_for_so_much_earlier_as_those_who_go_take_to_end(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 40_000)
    slow = {"terminationGracePeriodSeconds": 60}
    factory.pool("batch", replicas=4, pod=slow, disruption={"maxUnavailable": 4})
    factory.wait_running("batch", 4)
    cut(factory, drawn(factory, meter) / 1.2, in_seconds=110)
    counts_at = time.monotonic() + 109  # The API's times are whole seconds.
    wait_for("the first is evicted", lambda: evicted(factory), PATIENCE_SECONDS)
    ahead_seconds = counts_at - time.monotonic()
    assert ahead_seconds > 60, f"{ahead_seconds:.0f} s ahead it would end after the cut counts"
    assert "that will be in force by the time a replica has ended" in ladder(factory)["reason"]


def test_how_low_a_domain_can_get_is_said_before_the_cut_that_goes_lower(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 40_000)
    factory.pool("chat", replicas=4, power={"shed": "Never"})
    factory.pool("batch", replicas=3, disruption={"maxUnavailable": 3})
    factory.wait_running("chat", 4)
    factory.wait_running("batch", 3)
    drawn(factory, meter)
    lowest = OVERHEAD * (8 * BUSY_WATTS + 8 * IDLE_WATTS)
    cut(factory, lowest - 300, in_seconds=600, confirm=round(lowest - 300))

    def told() -> Object | None:
        found = ladder(factory)
        return found if "lowestReachableWatts" in found else None

    found = wait_for("it is said", told, PATIENCE_SECONDS)
    # What is shed saves is reckoned from what idle GPUs of a busy node draw, which nobody measures.
    assert abs(found["lowestReachableWatts"] - lowest) < 0.05 * lowest
    assert f"more than the {lowest - 300:,.0f} W that its budget comes down to" in found["reason"]
    assert found["stage"] == "Admit"
    assert factory.domain_status("row-a")["budgetWatts"] == 40_000, "which does not count yet"
    cut(factory, lowest + 600, in_seconds=600)
    wait_for("one that can be kept is no news", lambda: not said_unreachable(factory), PATIENCE_SECONDS)


def said_unreachable(factory: Factory) -> bool:
    return "at its lowest it draws" in ladder(factory)["reason"]


def test_no_more_replicas_go_in_an_hour_than_the_domain_says_and_the_status_names_the_field(
    factory: Factory, meter: Meter
) -> None:
    row_of_two(factory, 40_000)
    one_an_hour = {**QUICK, "movesPerHour": 1}
    factory.patch_domain("row-a", {"ladder": one_an_hour})
    factory.pool("batch", replicas=12, gpus=1, disruption={"maxUnavailable": 12})
    factory.wait_running("batch", 12)
    cut(factory, drawn(factory, meter) / 0.985)
    factory.wait_running("batch", 11)
    told = wait_for("it is told what keeps the other", lambda: short(factory), PATIENCE_SECONDS)
    assert "ladder.movesPerHour" in told["reason"]
    assert told["evictedInHour"] == 1
    factory.stays("one went", lambda: len(factory.running("batch")) == 11, 5)
    factory.patch_domain("row-a", {"ladder": {**one_an_hour, "movesPerHour": 2}})
    factory.wait_running("batch", 10)


def test_what_a_row_sheds_counts_for_its_site_when_both_are_over_at_once(factory: Factory, meter: Meter) -> None:
    factory.add(fleet("DE", labels={**ROW, "site": "one"}))
    factory.domain("site", 40_000, {"site": "one"}, ladder=QUICK)
    factory.domain("row-a", 40_000, ROW, ladder=QUICK, parent="site")
    factory.pool("batch", replicas=3, disruption={"maxUnavailable": 3})
    factory.wait_running("batch", 3)
    draw = drawn(factory, meter)
    for name in ("site", "row-a"):
        cut(factory, draw / 0.84, name=name)
    # Somebody's work on the two GPUs that nobody holds takes both over in the same report.
    meter.stray_watts["de-0"] = IDLE_WATTS + 0.14 * draw / 0.84 / (2 * OVERHEAD)
    factory.wait_running("batch", 2)
    factory.stays("one went for both", lambda: len(factory.running("batch")) == 2, 6)
    assert len(evicted(factory)) + len(evicted(factory, "site")) == 1


def test_what_the_ladder_does_is_said_in_events_and_counted(factory: Factory, meter: Meter) -> None:
    priorities(factory)
    row_of_two(factory, 40_000)
    factory.pool("batch", replicas=4, pod={"priorityClassName": "low"})
    factory.wait_running("batch", 4)
    before = actions_counted(factory)
    cut(factory, drawn(factory, meter) / 0.97)
    factory.wait_running("batch", 3)
    cut(factory, 40_000)
    wait_stage(factory, "Admit")
    reasons = wait_for("they are posted", lambda: {"PowerShed", "PowerAdmit"} <= events(factory).keys(), SOON_SECONDS)
    assert reasons
    assert events(factory)["PowerShed"].startswith("Warning ")
    assert events(factory)["PowerAdmit"].startswith("Normal ")
    assert actions_counted(factory) == before + 1


def actions_counted(factory: Factory) -> float:
    return factory.operator.metrics().get('penstock_ladder_actions_total{action="Evict",domain="row-a"}', 0.0)


def events(factory: Factory) -> dict[str, str]:
    """What docs/power.md says to ask for: severity and sentence by reason."""
    told = "jsonpath={range .items[*]}{.reason}|{.type} {.message}{'\\n'}{end}"
    by = "--field-selector=involvedObject.kind=PowerDomain"
    lines = factory.plane.kubectl("get", "events", "-A", by, "-o", told).stdout.splitlines()
    return dict(line.split("|", 1) for line in lines if "|" in line)


def test_a_budget_that_swings_every_twenty_seconds_moves_few_replicas_and_only_once(
    factory: Factory, meter: Meter
) -> None:
    """By the ladder of the docs, in its own seconds."""
    factory.add(fleet("DE", "DE", labels=ROW))
    factory.domain("row-a", 40_000, ROW)
    factory.pool("batch", replicas=6, disruption={"maxUnavailable": 6})
    factory.wait_running("batch", 6)
    low = drawn(factory, meter) / 1.1
    for watts in (low, 40_000, low):
        cut(factory, watts)
        time.sleep(20.0)
    # What the first cut takes is enough for the other, and nobody comes back between the two.
    assert 1 <= len(evicted(factory)) <= 3, evicted(factory)
    assert len(factory.running("batch")) == 6 - len(evicted(factory))
    assert meter.watts(ROW) <= low
