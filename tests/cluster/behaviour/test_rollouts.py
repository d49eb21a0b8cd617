"""Behaviour 5: rollouts, drains, evictions and scaling on a floor where every GPU is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet, is_gated, is_staying
from rig.api import ApiError
from rig.waiting import wait_for

Object = dict[str, Any]
SECOND_IMAGE = {"name": "server", "image": "server:2", "resources": {"limits": {"nvidia.com/gpu": "4"}}}


def roll_out(factory: Factory, name: str) -> None:
    spec = {"terminationGracePeriodSeconds": 1, "containers": [SECOND_IMAGE]}
    factory.patch_pool(name, {"template": {"spec": spec}})


def rolled_out(factory: Factory, name: str, number: int) -> bool:
    images = [pod["spec"]["containers"][0]["image"] for pod in factory.pods(name) if not is_gated(pod)]
    return images == ["server:2"] * number


def left(factory: Factory, name: str) -> int:
    note = factory.deployment(name)["metadata"].get("annotations", {}).get("penstock.dev/left-count", "{}")
    return int(json.loads(note).get("replicas", 0))


def wait_left(factory: Factory, name: str, number: int) -> None:
    wait_for(f"{number} of {name} left the count", lambda: left(factory, name) == number, PATIENCE_SECONDS)


def lowest_running(factory: Factory, name: str, until: Any) -> int:
    """The fewest running replicas that were ever seen before `until` held."""
    lowest = len(factory.running(name))

    def probe() -> bool:
        nonlocal lowest
        lowest = min(lowest, len(factory.running(name)))
        return bool(until())

    wait_for(f"the rollout of {name}", probe, 2 * PATIENCE_SECONDS)
    return lowest


def test_a_rolling_update_completes_with_every_gpu_taken(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", replicas=4, gpus=4)
    factory.wait_running("llama", 4)
    roll_out(factory, "llama")
    assert lowest_running(factory, "llama", lambda: rolled_out(factory, "llama", 4)) >= 2
    factory.wait_running("llama", 4)


def test_a_rolling_update_completes_with_replicas_waiting_and_they_wait_on(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", replicas=6, gpus=4)
    factory.wait_running("llama", 4)
    wait_left(factory, "llama", 2)
    roll_out(factory, "llama")
    assert lowest_running(factory, "llama", lambda: rolled_out(factory, "llama", 4)) >= 2
    status = wait_for("both wait on", lambda: _settled(factory, "llama", waiting=2), PATIENCE_SECONDS)
    assert status["replicas"] == 6
    assert status["waiting"][0]["replicas"] == 2


def _settled(factory: Factory, name: str, waiting: int) -> Object | None:
    status = factory.status(name)
    return status if status["waitingReplicas"] == waiting and status["readyReplicas"] == 4 else None


def test_a_rolling_update_in_a_domain_that_is_over_its_budget_keeps_its_watts(factory: Factory) -> None:
    factory.add(fleet("DE", labels={"row": "a"}))
    factory.domain("row-a", 30_000, {"row": "a"})
    factory.pool("llama", replicas=2, gpus=4)
    factory.wait_running("llama", 2)
    factory.patch_domain("row-a", {"budget": {"watts": 5_000}})
    factory.wait_condition("row-a", "WithinBudget", "OverBudget", domain=True)
    roll_out(factory, "llama")
    wait_for("the rollout", lambda: rolled_out(factory, "llama", 2), 2 * PATIENCE_SECONDS)
    factory.patch_pool("llama", {"replicas": 3})
    assert factory.wait_waiting("llama", "InsufficientGPUs", PATIENCE_SECONDS)


def test_a_right_of_return_outlives_the_operator(factory: Factory) -> None:
    factory.add(fleet("DE", labels={"row": "a"}))
    factory.domain("row-a", 30_000, {"row": "a"})
    factory.pool("llama", replicas=2, gpus=4)
    victim = factory.wait_running("llama", 2)[0]["metadata"]["name"]
    factory.patch_domain("row-a", {"budget": {"watts": 5_000}})
    factory.wait_condition("row-a", "WithinBudget", "OverBudget", domain=True)
    factory.plane.kubectl("cordon", "de-0")
    factory.plane.kubectl("delete", "pod", victim)
    wait_for("the right is written", lambda: factory.domain_status("row-a").get("rightsOfReturn"), PATIENCE_SECONDS)
    factory.operator.stop()
    factory.plane.kubectl("uncordon", "de-0")
    factory.operator.start()
    factory.operator.wait_ready()
    factory.wait_running("llama", 2)


def test_a_replica_that_left_the_count_comes_back_the_moment_it_fits(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", replicas=3, gpus=4)
    factory.wait_running("llama", 2)
    wait_left(factory, "llama", 1)
    assert factory.deployment("llama")["spec"]["replicas"] == 2
    assert factory.status("llama")["replicas"] == 3, "an autoscaler must not learn the shortage"
    assert factory.plane.api.get(factory.pool_path("llama"))["spec"]["replicas"] == 3
    factory.add(fleet("FR"))
    factory.wait_running("llama", 3, SOON_SECONDS)
    assert left(factory, "llama") == 0


def test_an_eviction_is_granted_with_a_budget_on_the_pool_and_a_replica_waiting(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", replicas=3, gpus=4)
    factory.wait_running("llama", 2)
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "llama", "namespace": "default"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"penstock.dev/pool": "llama"}}},
    }
    factory.plane.api.apply(budget)
    wait_left(factory, "llama", 1)
    victim = factory.running("llama")[0]["metadata"]["name"]
    wait_for("the eviction", lambda: _evict(factory, victim), PATIENCE_SECONDS)
    factory.wait_running("llama", 2)
    factory.plane.api.delete("/apis/policy/v1/namespaces/default/poddisruptionbudgets/llama")


def _evict(factory: Factory, pod: str) -> bool:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}}
    factory.plane.api.create(f"/api/v1/namespaces/default/pods/{pod}/eviction", eviction)
    return True


def test_kubectl_drain_empties_a_node_at_full_occupancy_and_its_replicas_come_back(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", replicas=4, gpus=4, residency={"allowed": ["DE"]})
    factory.wait_running("llama", 4)
    factory.plane.kubectl("drain", "de-0", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")
    assert factory.nodes_of("llama") == ["de-1", "de-1"]
    waiting = factory.wait_waiting("llama", "InsufficientGPUs")
    assert "1 cordoned" in waiting["message"] or "1 is cordoned" in waiting["message"], waiting["message"]
    factory.plane.kubectl("uncordon", "de-0")
    factory.wait_running("llama", 4, SOON_SECONDS)
    assert factory.nodes_of("llama") == ["de-0", "de-0", "de-1", "de-1"]


def test_scaling_up_down_and_to_zero_follows_scale_and_takes_the_waiting_first(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", replicas=1, gpus=4)
    factory.wait_running("llama", 1)
    factory.plane.kubectl("scale", "inferencepools.penstock.dev/llama", "--replicas=5")
    names = {pod["metadata"]["name"] for pod in factory.wait_running("llama", 4)}
    factory.plane.kubectl("scale", "inferencepools.penstock.dev/llama", "--replicas=4")
    wait_for("nothing waits", lambda: factory.status("llama")["waitingReplicas"] == 0, PATIENCE_SECONDS)
    assert {pod["metadata"]["name"] for pod in factory.running("llama")} == names
    factory.plane.kubectl("scale", "inferencepools.penstock.dev/llama", "--replicas=0")
    wait_for("all are gone", lambda: not factory.pods("llama"), PATIENCE_SECONDS)
    assert factory.condition("llama", "Ready")["reason"] == "ScaledToZero"


def test_a_scale_down_takes_the_replica_on_the_cordoned_node(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", replicas=2, gpus=8)
    factory.wait_running("llama", 2)
    factory.plane.kubectl("cordon", "de-1")
    wait_for("the rank of its replica sinks", lambda: _cost(factory, "de-1") < -5_000, PATIENCE_SECONDS)
    assert _cost(factory, "de-0") > -5_000
    factory.plane.kubectl("scale", "inferencepools.penstock.dev/llama", "--replicas=1")
    factory.wait_running("llama", 1)
    assert factory.nodes_of("llama") == ["de-0"]


def _cost(factory: Factory, node: str) -> int:
    (pod,) = [pod for pod in factory.running("llama") if pod["spec"]["nodeName"] == node]
    return int(pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"])


def test_an_autoscaler_owns_the_replicas_and_we_never_write_them(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", replicas=1, gpus=4)
    factory.wait_running("llama", 1)
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "llama", "namespace": "default"},
        "spec": {
            "minReplicas": 3,
            "maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "penstock.dev/v1alpha1", "kind": "InferencePool", "name": "llama"},
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
                }
            ],
        },
    }
    mark = factory.audit().mark()
    factory.plane.api.apply(autoscaler)
    factory.wait_running("llama", 3, 2 * PATIENCE_SECONDS)
    ours = factory.audit().since(mark, user=factory.operator_user)
    assert {one.resource for one in ours if one.writes and one.resource.startswith("inferencepools")} == {
        "inferencepools/status"
    }
    factory.plane.api.delete("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/llama")


def test_a_deleted_pool_leaves_nothing_behind(factory: Factory) -> None:
    factory.add(fleet("DE"))
    container = {"ports": [{"name": "http", "containerPort": 8000}]}
    factory.pool("llama", replicas=2, container=container)
    factory.wait_running("llama", 2)
    service = "/api/v1/namespaces/default/services/llama"
    assert factory.plane.api.get(service)["spec"]["selector"] == {
        "penstock.dev/pool": "llama",
        "penstock.dev/serving": "true",
    }
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

    def endpoints() -> int:
        found = factory.plane.api.list(slices, labelSelector="kubernetes.io/service-name=llama")
        return sum(len(one.get("endpoints") or ()) for one in found)

    wait_for("both replicas are endpoints", lambda: endpoints() == 2, PATIENCE_SECONDS)
    factory.delete_pool("llama")
    for path in (service, "/apis/apps/v1/namespaces/default/deployments/llama"):
        wait_for(f"{path} is gone", lambda path=path: _is_gone(factory, path), PATIENCE_SECONDS)  # type: ignore[misc]


def _is_gone(factory: Factory, path: str) -> bool:
    try:
        factory.plane.api.get(path)
    except ApiError as error:
        return error.status == 404
    return False


def test_without_the_operator_everything_serves_on_and_only_break_glass_lifts_a_gate(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", replicas=3, gpus=4)
    names = {pod["metadata"]["name"] for pod in factory.wait_running("llama", 2)}
    factory.operator.stop()
    try:
        (waiting,) = [pod for pod in factory.pods("llama") if is_gated(pod)]
        path = f"/api/v1/namespaces/default/pods/{waiting['metadata']['name']}"
        lift = [{"op": "remove", "path": "/spec/schedulingGates"}]
        admin = factory.plane.api
        with pytest.raises(ApiError) as refused:
            admin.patch(path, lift, type="json")
        assert refused.value.status == 403
        factory.stays("all serve", lambda: {pod["metadata"]["name"] for pod in factory.running("llama")} == names, 3)
        rescuer = factory.plane.api_as(factory.plane.user("rescuer", ("system:masters", "penstock:break-glass")))
        rescuer.patch(path, lift, type="json")
        assert not is_gated(admin.get(path))
    finally:
        factory.operator.start()
        factory.operator.wait_ready()
    assert all(is_staying(pod) for pod in factory.running("llama"))


def test_a_rollout_that_fits_nowhere_takes_down_no_more_than_it_may(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.pool("llama", replicas=4, gpus=4)
    factory.wait_running("llama", 4)
    too_large = {"name": "server", "image": "server:2", "resources": {"limits": {"nvidia.com/gpu": "16"}}}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [too_large]}
    factory.patch_pool("llama", {"template": {"spec": spec}})
    factory.wait_waiting("llama", "InsufficientGPUs")
    factory.stays("three serve on, however long it waits", lambda: len(factory.running("llama")) == 3, 12)
