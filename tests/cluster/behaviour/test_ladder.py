"""Behaviour of the ladder: a domain near its budget holds, sheds in priority order, and takes back what it shed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet, is_gated, is_staying
from meter import BUSY_WATTS, IDLE_WATTS, OVERHEAD, Meter
from rig.waiting import wait_for

Object = dict[str, Any]
REPLICA_WATTS = 2 * (BUSY_WATTS - IDLE_WATTS) * OVERHEAD
"""What the end of a replica of two GPUs saves."""
QUICK = {
    "hold": {"enterPercent": 90, "exitPercent": 85, "enterSeconds": 1, "exitSeconds": 3},
    "trim": {"enterPercent": 95, "exitPercent": 88, "enterSeconds": 1, "exitSeconds": 4},
    "emergency": {"enterPercent": 100, "exitPercent": 95, "enterSeconds": 0, "exitSeconds": 4},
}
ROW = {"row": "a"}


@pytest.fixture
def meter(factory: Factory) -> Iterator[Meter]:
    found = Meter(factory)
    found.start()
    yield found
    found.stop()
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    for one in factory.plane.api.list(path):
        if one["metadata"]["name"] in ("low", "high"):
            factory.plane.api.delete(f"{path}/{one['metadata']['name']}")


def priorities(factory: Factory) -> None:
    for name, value in (("low", 10), ("high", 1000)):
        factory.plane.api.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
        )


def ladder(factory: Factory, name: str = "row-a") -> Object:
    found: Object = factory.domain_status(name).get("ladder", {})
    return found


def wait_stage(factory: Factory, *stages: str, name: str = "row-a", ceiling: float = PATIENCE_SECONDS) -> Object:
    def probe() -> Object | None:
        found = ladder(factory, name)
        return found if found.get("stage") in stages else None

    return wait_for(f"{name} is at {' or '.join(stages)}", probe, ceiling)


def cut(factory: Factory, watts: float, in_seconds: float = 0.0, **budget: Any) -> None:
    """Another budget for the row, in force after so many seconds."""
    moment = datetime.now(UTC) + timedelta(seconds=in_seconds)
    wanted = {"watts": round(watts), "effectiveAt": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), **budget}
    # A cut below half of what is committed is refused, and a status may still tell what was committed a second ago.
    wait_for("the cut is accepted", lambda: factory.patch_domain("row-a", {"budget": wanted}), SOON_SECONDS)


def drawn(factory: Factory, meter: Meter) -> float:
    """What the row draws, once the operator has seen it: else a cut meets a row that seems half idle."""

    def seen() -> float | None:
        watts, told = meter.watts(ROW), factory.domain_status("row-a").get("drawWatts", 0.0)
        return watts if abs(told - watts) < 0.03 * watts else None

    return wait_for("the draw is seen", seen, PATIENCE_SECONDS)


def row_of_two(factory: Factory, budget_watts: float, **domain: Any) -> None:
    """Two nodes of eight GPUs in one domain."""
    factory.add(fleet("DE", "DE", labels=ROW))
    factory.domain("row-a", budget_watts, ROW, ladder=QUICK, **domain)


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


def disruption_budget(factory: Factory, name: str, **spec: Any) -> None:
    factory.plane.api.apply(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": f"{name}-budget", "namespace": factory.namespace},
            "spec": {"selector": {"matchLabels": {"penstock.dev/pool": name}}, **spec},
        }
    )
    path = f"/apis/policy/v1/namespaces/{factory.namespace}/poddisruptionbudgets/{name}-budget"
    wait_for(
        "the disruption budget counts", lambda: factory.plane.api.get(path)["status"]["expectedPods"], SOON_SECONDS
    )


@pytest.fixture
def budgets(factory: Factory) -> Iterator[None]:
    yield
    path = f"/apis/policy/v1/namespaces/{factory.namespace}/poddisruptionbudgets"
    for one in factory.plane.api.list(path):
        factory.plane.api.delete(f"{path}/{one['metadata']['name']}")


def refused(factory: Factory) -> Object | None:
    return next((one for one in ladder(factory).get("actions", []) if one["action"] == "Refused"), None)


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
    disruption_budget(factory, "batch", maxUnavailable=1)
    cut(factory, drawn(factory, meter) / 1.25)
    wait_for("the draw complies", lambda: meter.watts(ROW) < ladder_budget(factory), PATIENCE_SECONDS)
    told = wait_for("the refusal is told", lambda: refused(factory), SOON_SECONDS)
    assert "batch-budget" in told["message"], told
    assert factory.status("batch")["replicas"] == 6


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


def shed_told(factory: Factory, pool: str) -> int:
    """How many replicas the pool's status says were shed."""
    waiting = factory.status(pool).get("waiting", [])
    return sum(one["replicas"] for one in waiting if one["reason"] == "ShedByPower")


def ladder_budget(factory: Factory) -> float:
    watts: float = factory.plane.api.get(factory.domain_path("row-a"))["spec"]["budget"]["watts"]
    return watts


def stateful_set(factory: Factory, name: str, replicas: int) -> None:
    """Somebody's StatefulSet whose pods carry our label and gate, and the pool that adopts them."""
    labels = {"penstock.dev/pool": name}
    server = {"name": "server", "image": "server:1", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    factory.apply("InferencePool", name, {"disruption": {"maxUnavailable": 2}})
    factory.plane.api.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": name, "namespace": factory.namespace},
            "spec": {
                "replicas": replicas,
                "serviceName": name,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "schedulingGates": [{"name": "penstock.dev/placement"}],
                        "containers": [server],
                    },
                },
            },
        }
    )


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


def short(factory: Factory) -> Object | None:
    found = ladder(factory)
    return found if "nobody is left who may be shed now" in found["reason"] else None


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
    server = {"name": "server", "image": "server:2", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    factory.patch_pool("chat", {"template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [server]}}})

    def rolled_out() -> bool:
        pods = [pod for pod in factory.pods("chat") if pod["status"].get("phase") == "Running" and is_staying(pod)]
        return [pod["spec"]["containers"][0]["image"] for pod in pods] == ["server:2"] * 3

    wait_for("the rollout", rolled_out, 2 * PATIENCE_SECONDS)
    factory.patch_pool("chat", {"replicas": 4})
    factory.wait_waiting("chat", "PowerHold", PATIENCE_SECONDS)
    assert len(factory.running("chat")) == 3


def holder_named(factory: Factory) -> Object | None:
    found = short(factory)
    return found if found and "foreign" in found["reason"] else None


def test_a_budget_that_swings_moves_few_replicas_and_only_once(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 40_000)
    slow = {name: {**step, "exitSeconds": 30} for name, step in QUICK.items()}
    factory.patch_domain("row-a", {"ladder": slow})
    factory.pool("batch", replicas=6, disruption={"maxUnavailable": 6})
    factory.wait_running("batch", 6)
    low = meter.watts(ROW) / 1.1
    for _ in range(4):
        cut(factory, low)
        time.sleep(2.0)
        cut(factory, 40_000)
        time.sleep(2.0)
    evicted = [one for one in ladder(factory)["actions"] if one["action"] == "Evict"]
    # What the first cut takes is enough for every other, and nobody comes back between two of them.
    assert 1 <= len(evicted) <= 3, evicted
    assert len(factory.running("batch")) == 6 - len(evicted)
    assert meter.watts(ROW) <= low


def test_a_rollout_with_a_replica_that_waits_goes_on_while_others_are_shed(factory: Factory, meter: Meter) -> None:
    factory.add(fleet("DE", "DE", labels=ROW, gpus=4))
    factory.domain("row-a", 40_000, ROW, ladder=QUICK)
    factory.pool("batch", replicas=5, disruption={"maxUnavailable": 1})
    factory.wait_running("batch", 4)
    factory.wait_waiting("batch", "InsufficientGPUs", PATIENCE_SECONDS)
    server = {"name": "server", "image": "server:2", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    factory.patch_pool("batch", {"template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [server]}}})
    cut(factory, drawn(factory, meter) / 1.02)

    def settled() -> bool:
        running = factory.running("batch")
        return len(running) == 3 and all(pod["spec"]["containers"][0]["image"] == "server:2" for pod in running)

    wait_for("three of the new template run", settled, 2 * PATIENCE_SECONDS)
    status = wait_for("two wait", lambda: two_wait(factory), PATIENCE_SECONDS)
    assert status["replicas"] == 5
    wait_for("the draw complies", lambda: meter.watts(ROW) < ladder_budget(factory), PATIENCE_SECONDS)
    factory.stays("what the rollout freed is not filled", lambda: len(factory.running("batch")) == 3, 5)


def two_wait(factory: Factory) -> Object | None:
    status = factory.status("batch")
    return status if status["waitingReplicas"] == 2 else None


def test_an_autoscaler_through_scale_does_not_learn_what_was_shed(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 40_000)
    factory.pool("batch", replicas=6, disruption={"maxUnavailable": 6})
    factory.wait_running("batch", 6)
    wait_for("all are told", lambda: factory.status("batch")["replicas"] == 6, SOON_SECONDS)
    seen: set[tuple[int, int]] = set()
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.05):
            scale = factory.plane.api.get(f"{factory.pool_path('batch')}/scale")
            seen.add((scale["spec"]["replicas"], scale["status"]["replicas"]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    cut(factory, drawn(factory, meter) / 1.2)
    wait_for("three are shed", lambda: len(factory.running("batch")) <= 4, PATIENCE_SECONDS)
    wait_for("it left the count", lambda: factory.deployment("batch")["spec"]["replicas"] <= 4, PATIENCE_SECONDS)
    wait_stage(factory, "Admit")
    stopped.set()
    watcher.join()
    assert seen == {(6, 6)}, "status.replicas counts what was shed, and spec.replicas is nobody's but the user's"


@pytest.mark.usefixtures("budgets")
def test_30_percent_of_a_megawatt_goes_at_once_on_time_and_in_order(factory: Factory, meter: Meter) -> None:
    """36 nodes draw 1 MW (each watt of a GPU brings five more with it); the lower of two priorities has what it takes,
    under disruption budgets of both forms.
    """
    priorities(factory)
    meter.overhead = 6.0
    factory.add(fleet(*["DE"] * 36, labels=ROW))
    factory.domain("row-a", 1_500_000, ROW, ladder=QUICK, overhead={"perGPUWatt": 5.0})
    factory.pool("chat", replicas=14, gpus=8, pod={"priorityClassName": "high"}, disruption={"maxUnavailable": 14})
    factory.pool("batch", replicas=22, gpus=8, pod={"priorityClassName": "low"}, disruption={"maxUnavailable": 22})
    keep = {pod["metadata"]["name"] for pod in factory.wait_running("chat", 14, 2 * PATIENCE_SECONDS)}
    factory.wait_running("batch", 22, 2 * PATIENCE_SECONDS)
    disruption_budget(factory, "batch", minAvailable=2)
    disruption_budget(factory, "chat", maxUnavailable=1)
    wait_for("a megawatt is drawn", lambda: factory.domain_status("row-a")["drawWatts"] > 1e6, PATIENCE_SECONDS)
    draw = meter.watts(ROW)
    low = 0.7 * draw
    cut(factory, low, in_seconds=61)
    counts_at = time.monotonic() + 60  # The API's times are whole seconds.
    wait_for("the draw is below what will be in force", lambda: meter.watts(ROW) < 0.88 * low, 2 * PATIENCE_SECONDS)
    assert time.monotonic() < counts_at, "what was announced was kept too late"
    assert {pod["metadata"]["name"] for pod in factory.running("chat")} == keep
    assert factory.status("batch")["replicas"] == 22
    running = len(factory.running("batch"))
    assert wait_for("all are said to wait", lambda: all_wait(factory, 22 - running), PATIENCE_SECONDS)
    estimated_watts = 8 * (BUSY_WATTS - 0.15 * 700) * meter.overhead  # On a full node idle watts are a guess.
    assert 22 - running <= 1 + (draw - 0.85 * low) / estimated_watts, "no more than it takes"


def all_wait(factory: Factory, number: int) -> bool:
    counts: list[int] = [
        one["replicas"] for one in factory.status("batch")["waiting"] if one["reason"] == "ShedByPower"
    ]
    return sum(counts) == number
