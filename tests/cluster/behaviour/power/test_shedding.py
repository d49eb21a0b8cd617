"""Who is shed and who may not be: disruption budgets, StatefulSets, rollouts and drains in a domain that is over."""

from __future__ import annotations

from typing import Any

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from meter import BUSY_WATTS, OVERHEAD, Meter
from rig.waiting import wait_for
from row import (
    QUICK,
    ROW,
    cut,
    disruption_budget,
    drawn,
    images,
    priorities,
    refused,
    roll_out,
    row_budget,
    row_of_two,
    short,
    stateful_set,
    wait_stage,
)

Object = dict[str, Any]


@pytest.mark.usefixtures("budgets")
def test_a_disruption_budget_that_allows_none_is_named_and_the_next_candidate_goes(
    factory: Factory, meter: Meter
) -> None:
    priorities(factory)
    row_of_two(factory, 40_000)
    factory.pool("chat", replicas=2, pod={"priorityClassName": "high"})
    factory.pool("batch", replicas=2, pod={"priorityClassName": "low"})
    factory.wait_running("chat", 2)
    factory.wait_running("batch", 2)
    disruption_budget(factory, "batch", minAvailable=2)
    cut(factory, drawn(factory, meter) / 0.97)
    factory.wait_running("chat", 1)
    told = wait_for("the refusal is told", lambda: refused(factory), SOON_SECONDS)
    assert told["subject"].startswith("default/batch-")
    assert "batch-budget" in told["message"], told
    assert len(factory.running("batch")) == 2


@pytest.mark.usefixtures("budgets")
def test_a_disruption_budget_of_one_lets_them_go_one_after_the_other(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 40_000)
    factory.pool("batch", replicas=6, disruption={"maxUnavailable": 3})
    factory.wait_running("batch", 6)
    # Of a pool whose replicas are not all ready fewer go at once, and then the budget has nothing to refuse.
    wait_for("all are ready", lambda: factory.status("batch")["readyReplicas"] == 6, PATIENCE_SECONDS)
    disruption_budget(factory, "batch", maxUnavailable=1)
    cut(factory, drawn(factory, meter) / 1.25)
    wait_for("the draw complies", lambda: meter.watts(ROW) < row_budget(factory), PATIENCE_SECONDS)
    told = wait_for("the refusal is told", lambda: refused(factory), PATIENCE_SECONDS)
    assert "batch-budget" in told["message"], told
    assert factory.status("batch")["replicas"] == 6


def test_a_replica_of_a_stateful_set_is_shed_and_waits_under_its_own_name(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 40_000)
    stateful_set(factory, "embedder", 4)
    names = {pod["metadata"]["name"] for pod in factory.wait_running("embedder", 4)}
    cut(factory, drawn(factory, meter) / 0.97)
    factory.wait_running("embedder", 3)
    waiting = factory.wait_waiting("embedder", "ShedByPower")
    assert waiting["replicas"] == 1
    assert {pod["metadata"]["name"] for pod in factory.pods("embedder")} == names
    cut(factory, 40_000)
    factory.wait_running("embedder", 4)


def test_a_rollout_with_a_replica_that_waits_goes_on_while_others_are_shed(factory: Factory, meter: Meter) -> None:
    factory.add(fleet("DE", "DE", labels=ROW, gpus=4))
    factory.domain("row-a", 40_000, ROW, ladder=QUICK)
    factory.pool("batch", replicas=5, disruption={"maxUnavailable": 1})
    factory.wait_running("batch", 4)
    factory.wait_waiting("batch", "InsufficientGPUs", PATIENCE_SECONDS)
    roll_out(factory, "batch")
    cut(factory, drawn(factory, meter) / 1.02)
    three = ["server:2"] * 3
    wait_for("three of the new template run", lambda: images(factory, "batch") == three, 2 * PATIENCE_SECONDS)
    status = wait_for("two wait", lambda: two_wait(factory), PATIENCE_SECONDS)
    assert status["replicas"] == 5
    wait_for("the draw complies", lambda: meter.watts(ROW) < row_budget(factory), PATIENCE_SECONDS)
    # Where the rollout itself took away whom the ladder was about to shed, that one may return, and then one is shed.
    freed = "what the rollout freed is not filled"
    factory.settles(freed, lambda: len(factory.running("batch")) == 3, 5, PATIENCE_SECONDS)


def two_wait(factory: Factory) -> Object | None:
    status = factory.status("batch")
    return status if status["waitingReplicas"] == 2 else None


def test_a_domain_over_its_budget_through_foreign_load_rolls_out_and_takes_nothing_new(
    factory: Factory, meter: Meter
) -> None:
    row_of_two(factory, 30_000)
    factory.pool("chat", replicas=3, power={"shed": "Never"})
    factory.wait_running("chat", 3)
    for node in ("de-0", "de-1"):
        server = {"name": "job", "image": "job:1", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
        factory.plane.api.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"foreign-{node}", "namespace": factory.namespace},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [server]},
            }
        )
    wait_for("the foreign load draws", lambda: meter.watts(ROW) > OVERHEAD * 10 * 0.99 * BUSY_WATTS, PATIENCE_SECONDS)
    cut(factory, drawn(factory, meter) / 1.1)
    told = wait_stage(factory, "Emergency")
    told = wait_for("it is told who holds what", lambda: holder_named(factory), PATIENCE_SECONDS)
    assert "default/foreign-" in told["reason"], told
    roll_out(factory, "chat")
    wait_for("the rollout", lambda: images(factory, "chat") == ["server:2"] * 3, 2 * PATIENCE_SECONDS)
    factory.patch_pool("chat", {"replicas": 4})
    factory.wait_waiting("chat", "PowerHold", PATIENCE_SECONDS)
    assert len(factory.running("chat")) == 3


def holder_named(factory: Factory) -> Object | None:
    found = short(factory)
    return found if found and "foreign" in found["reason"] else None


def test_a_drain_in_a_domain_over_its_budget_through_foreign_load_completes_and_its_replicas_return(
    factory: Factory, meter: Meter
) -> None:
    row_of_two(factory, 40_000)
    factory.pool("chat", replicas=2, power={"shed": "Never"}, disruption={"maxUnavailable": 2})
    drained = factory.wait_running("chat", 2)[0]["spec"]["nodeName"]
    (other,) = {"de-0", "de-1"} - {drained}
    job = {"name": "job", "image": "job:1", "resources": {"limits": {"nvidia.com/gpu": "4"}}}
    factory.plane.api.create(
        f"/api/v1/namespaces/{factory.namespace}/pods",
        {"metadata": {"name": "foreign"}, "spec": {"nodeName": other, "containers": [job]}},
    )
    wait_for("the foreign load draws", lambda: meter.watts(ROW) > OVERHEAD * 8 * BUSY_WATTS, PATIENCE_SECONDS)
    cut(factory, drawn(factory, meter) / 1.1)
    wait_stage(factory, "Emergency")
    factory.plane.kubectl("drain", drained, "--ignore-daemonsets", "--timeout=60s")
    factory.wait_running("chat", 2)
    assert factory.nodes_of("chat") == [other, other], "back by the right of return"
    factory.plane.kubectl("uncordon", drained)
    factory.patch_pool("chat", {"replicas": 3})
    factory.wait_waiting("chat", "PowerHold", PATIENCE_SECONDS)
    assert len(factory.running("chat")) == 2, "and nothing new comes in"
