"""Part 8 of the power issue: a broken GPU is left within disruption, cordons of others stand, and Nodes tell it."""

from __future__ import annotations

from typing import Any

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from penstock.api.names import API_VERSION, COUNTRY_LABEL, GPU_REPLICAS_LABEL, POWER_DEGRADED_CONDITION
from rig.waiting import wait_for

Object = dict[str, Any]

QUIET_SECONDS = 30.0
WHOLE_NODE = 8


def kubelet_says(factory: Factory) -> None:
    """Every node's report says which pod holds which GPUs; here each pod has a node of its own."""
    held: dict[str, list[Object]] = {node["metadata"]["name"]: [] for node in factory.plane.api.list("/api/v1/nodes")}
    for pod in factory.plane.api.list(f"/api/v1/namespaces/{factory.namespace}/pods"):
        if node := pod["spec"].get("nodeName"):
            devices = [f"GPU-{node}-{index}" for index in range(WHOLE_NODE)]
            name = pod["metadata"]["name"]
            held[node].append({"namespace": factory.namespace, "name": name, "devices": devices})
    for node, pods in held.items():
        factory.telemetry.set(node, status_changes={"podResources": "Read", "pods": pods})


def lose_a_gpu(factory: Factory, node: str) -> None:
    factory.telemetry.set(node, health=["Healthy"] * 3 + ["Lost"] + ["Healthy"] * 4)


def mend(factory: Factory, node: str) -> None:
    factory.telemetry.set(node, health=["Healthy"] * 8)


def node_condition(factory: Factory, node: str) -> Object:
    conditions = factory.plane.api.get(f"/api/v1/nodes/{node}")["status"].get("conditions", [])
    found: Object = next((one for one in conditions if one["type"] == POWER_DEGRADED_CONDITION), {})
    return found


def power_labels(factory: Factory, node: str) -> dict[str, str]:
    labels = factory.plane.api.get(f"/api/v1/nodes/{node}")["metadata"]["labels"]
    return {key: value for key, value in labels.items() if key.startswith("penstock.dev/")}


def is_elsewhere(factory: Factory, name: str, replicas: int, *broken: str) -> bool:
    """Whether all replicas run off the broken nodes; on the way there one of them at least always runs."""
    nodes = factory.nodes_of(name)
    assert nodes, "no replica runs any more"
    return len(nodes) == replicas and not set(nodes) & set(broken)


def test_a_replica_on_a_lost_gpu_is_evicted_and_another_is_placed_elsewhere(factory: Factory) -> None:
    factory.add(fleet("DE", "DE", "DE"))
    factory.pool("llama", replicas=2, gpus=WHOLE_NODE)
    factory.wait_running("llama", 2)
    kubelet_says(factory)
    mark = factory.audit().mark()
    broken = factory.nodes_of("llama")[0]
    stays = next(pod for pod in factory.running("llama") if pod["spec"]["nodeName"] != broken)
    lose_a_gpu(factory, broken)
    wait_for("it runs elsewhere", lambda: is_elsewhere(factory, "llama", 2, broken), PATIENCE_SECONDS)
    ours = [one for one in factory.audit().since(mark, user=factory.operator_user) if one.writes]
    assert [one.resource for one in ours if one.resource.startswith("pods/")] == ["pods/eviction"]
    assert not [one for one in ours if one.resource == "pods" and one.verb == "delete"]
    assert stays["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in factory.running("llama")}


def test_onto_shared_gpus_that_are_too_busy_nothing_comes_until_they_calm_down(factory: Factory) -> None:
    factory.add(fleet("DE", gpus=4, labels={GPU_REPLICAS_LABEL: "2"}))
    said = {"podResources": "Read", "pods": []}
    factory.telemetry.set("de-0", activity_percent=[10.0, 95.0, 10.0, 10.0], status_changes=said)
    factory.wait_heard("de-0", 77.0)
    factory.pool("sharer", gpus=1)
    waiting = factory.wait_waiting("sharer", "SharedGPUsBusy")
    assert waiting["counts"] == {"SharedActivity": 1}
    assert "1 shares GPUs that are more than 90% busy" in waiting["message"], waiting
    assert waiting["wouldFit"] == "wait until the shared GPUs of node de-0 are at most 90% busy (now 95%)"
    factory.telemetry.set("de-0", activity_percent=[10.0, 60.0, 10.0, 10.0])
    factory.wait_running("sharer", 1)


def test_two_replicas_on_broken_gpus_leave_one_after_the_other(factory: Factory) -> None:
    floor = fleet("DE", "DE", "DE", "DE")
    factory.add(floor[:2])
    factory.pool("llama", replicas=2, gpus=WHOLE_NODE)
    factory.wait_running("llama", 2)
    kubelet_says(factory)
    broken = factory.nodes_of("llama")
    for node in broken:
        lose_a_gpu(factory, node)
    wait_for("one of them goes", lambda: len(factory.running("llama")) == 1, PATIENCE_SECONDS)
    # Long enough for the one that waits to leave the Deployment's count.
    factory.stays("the other serves while the first has no place", lambda: len(factory.running("llama")) == 1, 8)
    told = factory.wait_condition("llama", "Undisturbed", "FailedGPU")
    assert "GPU 3 is Lost" in told["message"]
    assert "maxUnavailable is 1 and as many are away" in told["message"]
    factory.add(floor[2:])
    wait_for("both run elsewhere", lambda: is_elsewhere(factory, "llama", 2, *broken), PATIENCE_SECONDS)
    factory.wait_condition("llama", "Undisturbed", "NothingToReport")


def test_a_budget_that_refuses_is_named_and_what_it_protects_stays(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", gpus=WHOLE_NODE)
    (running,) = factory.wait_running("llama", 1)
    selector = {"matchLabels": {"penstock.dev/pool": "llama"}}
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    metadata = {"name": "keep-llama", "namespace": "default"}
    factory.plane.api.apply(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata,
            "spec": {"minAvailable": 1, "selector": selector},
        }
    )
    try:
        wait_for(
            "the budget counts its pod",
            lambda: factory.plane.api.get(f"{budgets}/keep-llama").get("status", {}).get("currentHealthy") == 1,
            PATIENCE_SECONDS,
        )
        kubelet_says(factory)
        lose_a_gpu(factory, running["spec"]["nodeName"])
        wait_for(
            "the budget is named",
            lambda: "keep-llama" in factory.condition("llama", "Undisturbed").get("message", ""),
            PATIENCE_SECONDS,
        )
        assert [pod["metadata"]["uid"] for pod in factory.running("llama")] == [running["metadata"]["uid"]]
    finally:
        factory.plane.api.delete(f"{budgets}/keep-llama")
    broken = running["spec"]["nodeName"]
    wait_for("it runs elsewhere", lambda: broken not in (factory.nodes_of("llama") or [broken]), PATIENCE_SECONDS)


def test_where_the_kubelet_is_silent_nothing_is_moved_and_it_is_said(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", gpus=2)
    (running,) = factory.wait_running("llama", 1)
    lose_a_gpu(factory, running["spec"]["nodeName"])
    told = factory.wait_condition("llama", "Undisturbed", "FailedGPU")
    assert "the kubelet did not say which pod holds it" in told["message"]
    factory.stays("it runs on", lambda: factory.running("llama")[0]["metadata"]["uid"] == running["metadata"]["uid"], 5)
    mend(factory, running["spec"]["nodeName"])
    factory.wait_condition("llama", "Undisturbed", "NothingToReport")


def test_the_cordon_taint_and_drain_of_another_agent_are_left_alone(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", gpus=2)
    (running,) = factory.wait_running("llama", 1)
    node = running["spec"]["nodeName"]
    mark = factory.audit().mark()
    factory.plane.kubectl("cordon", node)
    factory.plane.kubectl("taint", "node", node, "health.example.com/gpu=bad:NoSchedule")
    lose_a_gpu(factory, node)
    factory.plane.api.delete(f"/api/v1/namespaces/default/pods/{running['metadata']['name']}")
    wait_for("it runs elsewhere", lambda: node not in (factory.nodes_of("llama") or [node]), PATIENCE_SECONDS)
    wait_for("the node says what ails it", lambda: node_condition(factory, node).get("status") == "True", SOON_SECONDS)
    spec = factory.plane.api.get(f"/api/v1/nodes/{node}")["spec"]
    assert spec["unschedulable"] is True
    assert {"key": "health.example.com/gpu", "value": "bad", "effect": "NoSchedule"} in spec["taints"]
    ours = [one for one in factory.audit().since(mark, user=factory.operator_user) if one.writes]
    assert {one.resource for one in ours if one.resource.startswith("nodes")} <= {"nodes", "nodes/status"}
    assert not [one for one in ours if one.resource == "pods/eviction"], "the drain is the other agent's"


def test_node_labels_and_the_condition_appear_and_go(factory: Factory) -> None:
    factory.add(fleet("DE"))
    place = {"chassisSerial": "1821325190344", "slot": 3}
    limits = {"minimumLimitWatts": 200, "defaultLimitWatts": 700, "requestedLimitWatts": 700}
    factory.telemetry.set("de-0", changes=limits, status_changes={"platform": place})
    wanted = {
        "penstock.dev/gpu.power.limit.min": "200",
        "penstock.dev/gpu.power.limit.max": "700",
        "penstock.dev/gpu.power.limit.default": "700",
        "penstock.dev/gpu.power.limit.enforced": "700",
        "penstock.dev/rack.chassis": "1821325190344",
        "penstock.dev/rack.slot": "3",
    }
    wait_for("the labels are there", lambda: power_labels(factory, "de-0") == wanted, 2 * SOON_SECONDS)
    assert node_condition(factory, "de-0") == {}, "a sound node has no condition"

    factory.telemetry.set("de-0", changes={"enforcedLimitWatts": 400})
    held = wait_for("it is told", lambda: node_condition(factory, "de-0") or None, 2 * SOON_SECONDS)
    assert (held["status"], held["reason"]) == ("True", "CappedElsewhere"), held
    assert "held at 400 W by somebody else, 700 W are asked for" in held["message"]
    factory.telemetry.set("de-0", changes={"enforcedLimitWatts": 700})
    wait_for("it is over", lambda: node_condition(factory, "de-0").get("status") == "False", 2 * SOON_SECONDS)
    country = factory.plane.api.get("/api/v1/nodes/de-0")["metadata"]["labels"][COUNTRY_LABEL]
    assert country == "DE"

    factory.telemetry.silence("de-0")
    factory.plane.api.delete(f"/apis/{API_VERSION}/gpunodes/de-0")
    wait_for("the labels are gone", lambda: power_labels(factory, "de-0") == {}, 2 * SOON_SECONDS)
    wait_for("the condition is gone", lambda: node_condition(factory, "de-0") == {}, 2 * SOON_SECONDS)


def test_nothing_is_written_to_nodes_while_nothing_changes(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    for node in ("de-0", "de-1"):
        factory.telemetry.set(node, changes={"minimumLimitWatts": 200})
    lose_a_gpu(factory, "de-1")
    wait_for("both are labelled", lambda: all(power_labels(factory, f"de-{at}") for at in range(2)), 2 * SOON_SECONDS)
    wait_for("the trouble is told", lambda: node_condition(factory, "de-1"), 2 * SOON_SECONDS)
    mark = factory.audit().mark()
    factory.stays("all is told", lambda: True, QUIET_SECONDS)
    ours = factory.audit().since(mark, user=factory.operator_user)
    assert [one for one in ours if one.writes and one.resource != "leases"] == []
