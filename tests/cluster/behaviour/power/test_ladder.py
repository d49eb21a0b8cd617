"""Behaviour of the ladder: a domain near its budget holds, sheds in priority order, and takes back what it shed."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet, is_gated
from meter import BUSY_WATTS, IDLE_WATTS, OVERHEAD, Meter
from rig.waiting import wait_for
from row import QUICK, ROW, cut, drawn, ladder, priorities, row_of_two, shed_told, short, wait_stage

REPLICA_WATTS = 2 * (BUSY_WATTS - IDLE_WATTS) * OVERHEAD
"""What the end of a replica of two GPUs saves."""


def test_a_domain_near_its_budget_holds_and_places_nothing_new(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 30_000)
    factory.pool("llama", replicas=4)
    factory.wait_running("llama", 4)
    draw = drawn(factory, meter)
    cut(factory, draw / 0.92)
    told = wait_stage(factory, "Hold")
    assert "W in force" in told["reason"]
    assert told["since"]
    factory.patch_pool("llama", {"replicas": 5})
    waiting = factory.wait_waiting("llama", "PowerHold")
    assert "PowerDomain/row-a" in waiting["message"]
    assert waiting["wouldFit"].startswith("wait until PowerDomain/row-a leaves hold")
    factory.patch_pool("llama", {"replicas": 3})
    factory.wait_running("llama", 3)


def test_what_a_domain_draws_too_much_is_shed_lowest_priority_first_and_comes_back(
    factory: Factory, meter: Meter
) -> None:
    priorities(factory)
    row_of_two(factory, 40_000)
    factory.pool("chat", replicas=3, pod={"priorityClassName": "high"})
    factory.pool("batch", replicas=3, pod={"priorityClassName": "low"}, disruption={"maxUnavailable": 3})
    keep = {pod["metadata"]["name"] for pod in factory.wait_running("chat", 3)}
    factory.wait_running("batch", 3)
    draw = drawn(factory, meter)
    cut(factory, draw / 0.97)
    factory.wait_running("batch", 2)
    waiting = factory.wait_waiting("batch", "ShedByPower")
    assert waiting["replicas"] == 1
    assert "PowerDomain/row-a" in waiting["wouldFit"], waiting
    told = wait_for("the eviction is told", lambda: ladder(factory).get("actions"), SOON_SECONDS)
    assert told[0]["action"] == "Evict"
    assert told[0]["subject"].startswith("default/batch-")
    assert abs(told[0]["watts"] - REPLICA_WATTS) < 0.1 * REPLICA_WATTS, "idle watts are a guess on a full node"
    wait_for("it left the count", lambda: factory.deployment("batch")["spec"]["replicas"] == 2, PATIENCE_SECONDS)
    wait_for("no gated pod is left", lambda: not any(map(is_gated, factory.pods("batch"))), PATIENCE_SECONDS)
    assert factory.status("batch")["replicas"] == 3, "an autoscaler must not learn the shed"
    assert {pod["metadata"]["name"] for pod in factory.running("chat")} == keep
    cut(factory, 40_000)
    factory.wait_running("batch", 3)
    wait_stage(factory, "Admit")
    wait_for("nobody is said to wait any more", lambda: not ladder(factory).get("shed"), SOON_SECONDS)


def test_a_budget_announced_to_fall_by_30_percent_is_kept_before_it_counts(factory: Factory, meter: Meter) -> None:
    priorities(factory)
    row_of_two(factory, 40_000)
    factory.pool("chat", replicas=4, pod={"priorityClassName": "high"})
    factory.pool("batch", replicas=4, pod={"priorityClassName": "low"}, disruption={"maxUnavailable": 4})
    keep = {pod["metadata"]["name"] for pod in factory.wait_running("chat", 4)}
    factory.wait_running("batch", 4)
    before = drawn(factory, meter) / 0.85
    cut(factory, before)
    wait_for("it counts", lambda: factory.domain_status("row-a")["budgetWatts"] == round(before), SOON_SECONDS)
    low = 0.7 * before
    cut(factory, low, in_seconds=45)
    counts_at = time.monotonic() + 44  # The API's times are whole seconds.
    wait_for("the draw is below what will be in force", lambda: meter.watts(ROW) < 0.88 * low, PATIENCE_SECONDS)
    assert time.monotonic() < counts_at, "what was announced was kept too late"
    status = factory.domain_status("row-a")
    assert status["budgetWatts"] == round(before), "it does not count yet"
    assert {pod["metadata"]["name"] for pod in factory.running("chat")} == keep
    wait_for(
        "all who were shed are told",
        lambda: shed_told(factory, "batch") == 4 - len(factory.running("batch")),
        SOON_SECONDS,
    )


def test_a_parent_over_its_budget_sheds_in_its_row_and_the_replica_moves_to_where_there_is_room(
    factory: Factory, meter: Meter
) -> None:
    priorities(factory)
    factory.add(fleet("DE", labels={**ROW, "site": "one"}))
    factory.domain("site", 40_000, {"site": "one"}, ladder=QUICK)
    factory.domain("row-a", 40_000, ROW, ladder=QUICK, parent="site")
    factory.pool("chat", gpus=4, pod={"priorityClassName": "high"})
    factory.pool("batch", gpus=4, pod={"priorityClassName": "low"})
    factory.wait_running("chat", 1)
    factory.wait_running("batch", 1)
    factory.add(fleet("FR"))
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    watts = round(meter.watts(ROW) / 0.97)
    factory.patch_domain("site", {"budget": {"watts": watts, "effectiveAt": moment}})
    wait_for("the replica has moved", lambda: factory.nodes_of("batch") == ["fr-0"], PATIENCE_SECONDS)
    assert factory.nodes_of("chat") == ["de-0"]
    assert ladder(factory)["stage"] == "Admit", "the row itself has room"
    told = wait_for("the eviction is told", lambda: ladder(factory, "site").get("actions"), SOON_SECONDS)
    assert told[0]["subject"].startswith("default/batch-"), told
    wait_for("nobody is said to wait", lambda: not ladder(factory, "site").get("shed"), SOON_SECONDS)


def test_what_was_shed_is_known_after_a_restart(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 40_000)
    factory.pool("batch", replicas=4)
    factory.wait_running("batch", 4)
    factory.patch_domain("row-a", {"ladder": {**QUICK, "hold": {**QUICK["hold"], "exitSeconds": 600}}})
    cut(factory, drawn(factory, meter) / 0.97)
    factory.wait_running("batch", 3)
    factory.wait_waiting("batch", "ShedByPower")
    before = wait_for("who was shed is written", lambda: ladder(factory).get("shed"), SOON_SECONDS)
    wait_stage(factory, "Hold")
    since = ladder(factory)["since"]
    factory.operator.stop()
    factory.operator.start()
    factory.operator.wait_ready()
    factory.stays("nobody more is shed", lambda: len(factory.running("batch")) == 3, 3)
    found = ladder(factory)
    assert (found["stage"], found["since"], found["shed"]) == ("Hold", since, before)
    assert factory.wait_waiting("batch", "ShedByPower")["replicas"] == 1
    cut(factory, 40_000)
    factory.patch_domain("row-a", {"ladder": QUICK})
    factory.wait_running("batch", 4)


def test_a_pool_that_is_never_shed_keeps_all_and_the_domain_says_that_it_cannot_comply(
    factory: Factory, meter: Meter
) -> None:
    row_of_two(factory, 40_000)
    factory.pool("chat", replicas=3, power={"shed": "Never"})
    factory.wait_running("chat", 3)
    cut(factory, drawn(factory, meter) / 1.05)
    told = wait_stage(factory, "Emergency")
    # After a restart, as in the test before, nobody is judged for a quarter of a minute.
    told = wait_for("it is told", lambda: short(factory), PATIENCE_SECONDS)
    assert "power.shed of its pools" in told["reason"]
    assert len(factory.running("chat")) == 3
