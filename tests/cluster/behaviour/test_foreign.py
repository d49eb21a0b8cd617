"""Behaviour 9: what belongs to others is respected, counted and explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bank import move, policy, ready
from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, countries, fleet, is_gated, overcommitted, pins, record
from penstock.api.names import GATE, ISOLATED_ANNOTATION, POOL_LABEL
from rig.waiting import wait_for

Object = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
LONG_SECONDS = 300
"""A grace that lasts beyond a test, so that what is said within it can be read."""


def pod(name: str, gpus: int, *, labels: Object | None = None, **spec: Any) -> Object:
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "job:1", "resources": resources}],
            **spec,
        },
    }


def stateful_set(name: str, replicas: int, pool: str, gpus: int = 2) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, POOL_LABEL: pool}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "schedulingGates": [{"name": GATE}],
                    "containers": [
                        {"name": "c", "image": "server:1", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
                    ],
                },
            },
        },
    }


def test_a_foreign_gate_is_named_and_waited_for(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", pod={"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]})
    waiting = factory.wait_waiting("llama", "ForeignGate")
    assert "kueue.x-k8s.io/admission" in waiting["message"]
    (held,) = factory.pods("llama")
    assert is_gated(held)
    factory.stays("ours waits", lambda: is_gated(factory.pods("llama")[0]), 2)
    others = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    factory.plane.api.patch(f"{PODS}/{held['metadata']['name']}", others, type="json")
    factory.wait_running("llama", 1, SOON_SECONDS)


def test_the_gpus_and_watts_of_foreign_pods_count(factory: Factory) -> None:
    factory.add(fleet("DE", labels={"row": "a"}))
    factory.domain("row-a", 60_000, {"row": "a"})
    factory.plane.api.create(PODS, pod("training", 6))
    wait_for("it runs", lambda: factory.plane.api.get(f"{PODS}/training")["status"]["phase"] == "Running", 60)
    factory.pool("llama", gpus=4)
    waiting = factory.wait_waiting("llama", "InsufficientGPUs")
    assert waiting["counts"] == {"FreeGPUs": 1}

    def held() -> Object | None:
        holders = factory.domain_status("row-a").get("holders", [])
        return next((one for one in holders if one["kind"] == "Foreign" and one["name"] == "default/training"), None)

    assert wait_for("its watts are told", held, SOON_SECONDS)["watts"] > 4000
    factory.plane.api.delete(f"{PODS}/training")
    factory.wait_running("llama", 1)
    assert overcommitted(factory) == {}


def test_a_pod_of_ours_that_somebody_else_let_through_is_counted_and_explained(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 1_000, {})
    factory.pool("llama")
    factory.wait_waiting("llama", "InsufficientPower")
    (ours,) = factory.pods("llama")
    rescuer = factory.plane.api_as(factory.plane.user("rescuer", ("system:masters", "penstock:break-glass")))
    lift = [{"op": "remove", "path": "/spec/schedulingGates"}]
    rescuer.patch(f"{PODS}/{ours['metadata']['name']}", lift, type="json")
    factory.wait_running("llama", 1)
    status = wait_for("it counts", lambda: _counts(factory, "llama", 1), SOON_SECONDS)
    assert status["waitingReplicas"] == 0
    assert status["placements"][0]["node"] == "de-0"
    assert "somebody else" in status["placements"][0]["reason"]
    factory.wait_condition("everything", "WithinBudget", "OverBudget", domain=True)


def test_a_pool_without_a_template_adopts_a_stateful_set(factory: Factory) -> None:
    factory.add(fleet("DE", "US"))
    factory.apply("InferencePool", "embedder", {"residency": {"allowed": ["DE"]}})
    factory.plane.api.apply(stateful_set("embedder", 3, "embedder", gpus=2))
    found = factory.wait_running("embedder", 3)
    for one in found:
        assert one["spec"]["nodeName"] == "de-0"
        assert pins(one) == {"de-0"}
        assert countries(one) == {"DE"}
        assert record(one)["reason"]
    status = wait_for("it counts three", lambda: _counts(factory, "embedder", 3), SOON_SECONDS)
    assert [one["pod"] for one in status["placements"]] == ["embedder-0", "embedder-1", "embedder-2"]
    scale = {"spec": {"replicas": 5}}
    factory.plane.api.patch("/apis/apps/v1/namespaces/default/statefulsets/embedder", scale)
    factory.wait_waiting("embedder", "InsufficientGPUs", PATIENCE_SECONDS)
    factory.wait_running("embedder", 4)


def _counts(factory: Factory, name: str, number: int) -> Object | None:
    status = factory.status(name)
    return status if status.get("readyReplicas") == number and status.get("placedReplicas") == number else None


def test_a_pod_that_borrows_the_label_is_reported_and_not_counted(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama")
    factory.wait_running("llama", 1)
    factory.plane.api.create(PODS, pod("stray", 1, labels={POOL_LABEL: "llama"}))
    condition = factory.wait_condition("llama", "Undisturbed", "ForeignPods")
    assert "stray" in condition["message"]
    assert factory.status("llama")["placedReplicas"] == 1


def test_a_gated_pod_without_a_pool_is_told_so_by_an_event(factory: Factory) -> None:
    factory.add(fleet("DE"))
    labels = {POOL_LABEL: "nobody"}
    factory.plane.api.create(PODS, pod("orphan", 1, labels=labels, schedulingGates=[{"name": GATE}]))

    def told() -> list[str]:
        events = factory.plane.api.list("/apis/events.k8s.io/v1/namespaces/default/events")
        about_it = [one for one in events if one["regarding"]["name"] == "orphan"]
        return [one["note"] for one in about_it if one["reason"] == "NoInferencePool"]

    (note,) = wait_for("its Event", told, SOON_SECONDS)
    assert "default/nobody" in note
    factory.apply("InferencePool", "nobody", {})
    wait_for("it runs", lambda: factory.running("nobody"), PATIENCE_SECONDS)


def test_a_leader_worker_set_group_is_refused_by_condition(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.apply("InferencePool", "group", {})
    labels = {POOL_LABEL: "group", "leaderworkerset.sigs.k8s.io/name": "group"}
    factory.plane.api.create(PODS, pod("group-0", 1, labels=labels, schedulingGates=[{"name": GATE}]))
    factory.wait_condition("group", "Undisturbed", "LeaderWorkerSetUnsupported")
    assert factory.wait_waiting("group", "LeaderWorkerSetUnsupported")
    assert is_gated(factory.plane.api.get(f"{PODS}/group-0"))


def test_a_dead_pin_is_healed_on_the_word_of_the_scheduler(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.plane.pause("kube-scheduler")
    try:
        factory.pool("llama", gpus=8)
        (pinned,) = wait_for("it is pinned", lambda: [one for one in factory.pods("llama") if pins(one)], 60)
        (node,) = pins(pinned)
        # Somebody takes the room by the back door between our decision and the binding.
        factory.plane.api.create(PODS, pod("intruder", 8, nodeName=node))
    finally:
        # A new one has seen everything before it binds; the paused one might still bind before it sees the intruder.
        factory.plane.restart("kube-scheduler")
    other = ({"de-0", "de-1"} - {node}).pop()
    assert factory.wait_running("llama", 1)[0]["spec"]["nodeName"] == other
    wait_for("the dead pin is gone", lambda: len(factory.pods("llama")) == 1, PATIENCE_SECONDS)
    assert pinned["metadata"]["uid"] != factory.pods("llama")[0]["metadata"]["uid"]


def test_a_slow_scheduler_raises_a_condition_and_deletes_nothing(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.plane.pause("kube-scheduler")
    try:
        factory.pool("llama")
        (pinned,) = wait_for("it is pinned", lambda: [one for one in factory.pods("llama") if pins(one)], 60)
        factory.wait_condition("llama", "Undisturbed", "SchedulerSlow", 10 * PATIENCE_SECONDS)
    finally:
        factory.plane.resume("kube-scheduler")
    (running,) = factory.wait_running("llama", 1)
    assert running["metadata"]["uid"] == pinned["metadata"]["uid"]


LISTENS: Object = {"ports": [{"name": "http", "containerPort": 8000}]}


def somebodys_service(selector: Object) -> Object:
    """A Service of the pool's name that is not ours."""
    spec = {"selector": selector, "ports": [{"port": 80, "targetPort": 8000}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llama"}, "spec": spec}


def serve_behind_somebody_elses_service(bank: Factory) -> None:
    service = somebodys_service({POOL_LABEL: "llama"})
    bank.plane.api.create(f"/api/v1/namespaces/{bank.namespace}/services", service)
    bank.pool("llama", pod={"terminationGracePeriodSeconds": LONG_SECONDS}, container=LISTENS)
    bank.wait_condition("llama", "Undisturbed", "ForeignService", PATIENCE_SECONDS)


def be_adopted(bank: Factory) -> None:
    bank.apply("InferencePool", "llama", {})
    spec: Object = {"schedulingGates": [{"name": GATE}], "terminationGracePeriodSeconds": LONG_SECONDS}
    made = pod("llama-0", 1, labels={POOL_LABEL: "llama"}, **spec)
    bank.plane.api.create(f"/api/v1/namespaces/{bank.namespace}/pods", made)


@pytest.mark.parametrize("begin", (serve_behind_somebody_elses_service, be_adopted))
def test_an_unlawful_replica_whose_traffic_is_not_ours_is_deleted_within_its_grace_and_the_status_says_why(
    bank: Factory, begin: Callable[[Factory], None]
) -> None:
    bank.add(fleet("DE"))
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    begin(bank)
    (before,) = bank.wait_running("llama", 1)
    move(bank, "de-0", "US")
    path = f"/api/v1/namespaces/{bank.namespace}/pods/{before['metadata']['name']}"

    def ending() -> Object | None:
        found: Object = bank.plane.api.get(path)["metadata"]
        return found if "deletionTimestamp" in found else None

    after = wait_for("it is deleted", ending, 50)
    assert after["deletionGracePeriodSeconds"] == LONG_SECONDS
    assert after["labels"] == before["metadata"]["labels"], "nobody took it out of traffic"
    assert ISOLATED_ANNOTATION not in after["annotations"]
    told = wait_for("it is told", lambda: bank.status("llama")["residency"].get("violations"), SOON_SECONDS)
    assert [(one["pod"], one["node"], one["action"]) for one in told] == [(after["name"], "de-0", "Evict")]
    assert "its traffic is not ours to end" in told[0]["remedy"]


def test_a_foreign_service_of_the_same_name_is_left_alone_and_told(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.plane.api.create("/api/v1/namespaces/default/services", somebodys_service({"app": "other"}))
    factory.pool("llama", container=LISTENS)
    factory.wait_running("llama", 1)
    factory.wait_condition("llama", "Undisturbed", "ForeignService", PATIENCE_SECONDS)
    path = "/api/v1/namespaces/default/services/llama"
    assert factory.plane.api.get(path)["spec"]["selector"] == {"app": "other"}
    factory.plane.api.delete(path)
    factory.wait_condition("llama", "Undisturbed", "NothingToReport", PATIENCE_SECONDS)
    assert factory.plane.api.get(path)["spec"]["selector"][POOL_LABEL] == "llama"


def test_our_service_comes_back_when_somebody_deletes_it_and_as_it_was_when_somebody_edits_it(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", container=LISTENS)
    factory.wait_running("llama", 1)
    path = "/api/v1/namespaces/default/services/llama"
    first = wait_for("it is made", lambda: factory.plane.api.get(path), PATIENCE_SECONDS)

    def ours() -> Object:
        found = factory.plane.api.get(path)
        return found if found["spec"]["selector"].get(POOL_LABEL) == "llama" else {}

    factory.plane.api.delete(path)
    again = wait_for("it is made again", ours, PATIENCE_SECONDS)
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    edited = factory.plane.api.patch(path, {"spec": {"selector": {POOL_LABEL: "other"}}})["metadata"]["resourceVersion"]
    settled = wait_for("the edit is taken back", ours, PATIENCE_SECONDS)["metadata"]["resourceVersion"]
    assert settled != edited
    factory.stays("nothing more is written", lambda: ours()["metadata"]["resourceVersion"] == settled, 3)
    factory.plane.api.patch(path, {"metadata": {"labels": {POOL_LABEL: None}}})
    wait_for("what tells it ours is back", lambda: POOL_LABEL in ours()["metadata"]["labels"], PATIENCE_SECONDS)


def test_advise_lets_through_at_once_with_the_law_and_records_what_it_would_have_chosen(factory: Factory) -> None:
    factory.add(fleet("DE", "US"))
    factory.wait_heard("de-0", 77.0)
    factory.pool("llama", replicas=2, residency={"allowed": ["DE"]}, placement={"mode": "Advise"})
    for one in factory.wait_running("llama", 2):
        assert one["spec"]["nodeName"] == "de-0"
        assert pins(one) == set()
        assert countries(one) == {"DE"}
        assert record(one)["mode"] == "Advise"
        assert record(one)["node"] == "de-0"
