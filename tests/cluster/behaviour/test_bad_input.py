"""Bad input that the schema cannot refuse: told with field, value and remedy, while everything else goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from typing import Any

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet, is_gated
from rig.waiting import wait_for

Object = dict[str, Any]

VOLUME = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "weights"}}]}
NEAR_OTHERS = {
    "affinity": {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "cache"}}}
            ]
        }
    }
}

INVALID: dict[str, tuple[Object, tuple[str, ...]]] = {
    "a country that does not exist any more is told with the year that it went": (
        {"residency": {"allowed": ["AN"]}},
        ("spec.residency.allowed[0]", "AN", "2010"),
    ),
    "a group that nobody made is told as one": (
        {"residency": {"allowed": ["Benelux"]}},
        ("spec.residency.allowed[0]", "Benelux", "no JurisdictionGroup benelux"),
    ),
    "a subdivision that does not exist names a real one": (
        {"residency": {"denied": ["DE-XX"]}},
        ("spec.residency.denied[0]", "DE-XX"),
    ),
    "a volume that may be bound to a zone is named": ({"pod": VOLUME}, ("spec.template.spec.volumes", "remove")),
    "an affinity to other pods is named": ({"pod": NEAR_OTHERS}, ("spec.template.spec.affinity.podAffinity", "remove")),
}


@pytest.mark.parametrize(("given", "says"), INVALID.values(), ids=INVALID.keys())
def test_what_only_the_operator_can_see_is_told_and_nothing_else_stops(
    factory: Factory, given: Object, says: tuple[str, ...]
) -> None:
    factory.add(fleet("DE", "GB"))
    factory.pool("wrong", **given)
    condition = factory.wait_condition("wrong", "Ready", "InvalidSpec")
    for words in says:
        assert words in condition["message"], condition["message"]
    factory.pool("right")
    factory.wait_running("right", 1)
    assert factory.pods("wrong") == []


def test_an_invalid_edit_leaves_what_runs_alone_and_places_nothing_new(factory: Factory) -> None:
    factory.add(fleet("DE", "GB"))
    factory.pool("llama", replicas=2, residency={"allowed": ["DE"]})
    names = {pod["metadata"]["name"] for pod in factory.wait_running("llama", 2)}
    factory.patch_pool("llama", {"replicas": 3, "residency": {"allowed": ["AN"]}})
    factory.wait_condition("llama", "Ready", "InvalidSpec")
    assert factory.status("llama")["residency"]["effective"] == ["DE"], "the last valid law stays in force"
    factory.stays("both run", lambda: {pod["metadata"]["name"] for pod in factory.running("llama")} == names, 3)
    factory.patch_pool("llama", {"residency": {"allowed": ["DE", "GB"]}})
    factory.wait_running("llama", 3, PATIENCE_SECONDS)


def test_a_deployment_that_the_api_server_refuses_is_told_in_its_words(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", container={"imagePullPolicy": "Sometimes"})
    condition = factory.wait_condition("llama", "Ready", "RefusedByApiServer")
    assert "Sometimes" in condition["message"]
    factory.pool("llama")
    factory.wait_running("llama", 1, PATIENCE_SECONDS)


def test_a_domain_that_selects_nothing_says_so(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("nowhere", 10_000, {"row": "z"})
    condition = factory.wait_condition("nowhere", "Ready", "SelectsNothing", domain=True)
    assert "spec.nodeSelector: row=z selects no node" in condition["message"]


def test_overlapping_domains_both_charge_and_both_say_so(factory: Factory) -> None:
    factory.add(fleet("DE", labels={"row": "a"}))
    factory.domain("row-a", 60_000, {"row": "a"})
    factory.domain("site", 9_000, {})
    for one, other in (("row-a", "site"), ("site", "row-a")):
        condition = factory.wait_condition(one, "Exclusive", "OverlappingDomains", domain=True)
        assert f"de-0 (also in {other})" in condition["message"]
    factory.pool("llama", replicas=2, gpus=4)
    factory.wait_waiting("llama", "InsufficientPower")
    factory.wait_running("llama", 1)


ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@contextmanager
def older(factory: Factory, plural: str, schema: Callable[[Object], Object]) -> Iterator[None]:
    """A kind as an older version declared it: by this schema, made from today's."""
    crd = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.penstock.dev"
    today = factory.plane.api.get(crd)["spec"]["versions"]
    before = {"openAPIV3Schema": schema(deepcopy(today[0]["schema"]["openAPIV3Schema"]))}
    factory.plane.api.patch(crd, {"spec": {"versions": [{**today[0], "schema": before}]}})
    try:
        yield
    finally:
        factory.plane.api.patch(crd, {"spec": {"versions": today}})
        kind = f"/apis/penstock.dev/v1alpha1/{plural}"
        wait_for("it is served by today's rules", lambda: factory.plane.api.get(kind), PATIENCE_SECONDS)


def lax(factory: Factory, plural: str) -> AbstractContextManager[None]:
    """What the API server took when an older version's rules were in force."""
    return older(factory, plural, lambda _: ANYTHING)


def without_floor(schema: Object) -> Object:
    del schema["properties"]["status"]["properties"]["floorWatts"]
    return schema


def test_a_crd_that_is_older_than_the_operator_is_said_once_with_the_remedy_and_stops_nobody(factory: Factory) -> None:
    factory.add(fleet("DE", labels={"row": "a"}))

    def told() -> int:
        return factory.operator.log_path.read_text().count("lacks status.floorWatts: apply the CRDs of this release")

    with older(factory, "powerdomains", without_floor):
        watts = iter(range(30_000, 90_000))
        # The API server goes by the older schema a moment later, and a domain says nothing while nothing changes.
        said = "it is said"
        wait_for(said, lambda: factory.domain("row-a", next(watts), {"row": "a"}) and told(), PATIENCE_SECONDS)
        factory.pool("llama", replicas=2)
        factory.wait_running("llama", 2)
        factory.wait_condition("llama", "Ready", "AllReplicasReady", PATIENCE_SECONDS)
        assert told() == 1


def test_a_stored_pool_that_today_s_rules_refuse_is_told_and_stops_nobody(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("old", replicas=2)
    factory.wait_running("old", 2)
    with lax(factory, "inferencepools"):
        wrong = {"spec": {"engine": "Abacus"}}
        wait_for("the lax schema", lambda: factory.plane.api.patch(factory.pool_path("old"), wrong), PATIENCE_SECONDS)
        condition = factory.wait_condition("old", "Ready", "InvalidSpec", PATIENCE_SECONDS)
        assert "engine" in condition["message"]
        assert len(factory.running("old")) == 2
        factory.pool("new")
        factory.wait_running("new", 1)
        factory.plane.api.patch(factory.pool_path("old"), {"spec": {"engine": "vLLM"}})
    factory.wait_condition("old", "Ready", "AllReplicasReady", PATIENCE_SECONDS)


def test_a_stored_domain_that_today_s_rules_refuse_keeps_its_budget_and_stops_nobody(factory: Factory) -> None:
    factory.add(fleet("DE", labels={"row": "a"}))
    factory.domain("old", 60_000, {"row": "a"})
    factory.pool("before", replicas=1)
    factory.wait_running("before", 1)
    past_the_calendar = {"watts": 50_000, "effectiveAt": "9999-12-31T23:59:59-23:59"}
    with lax(factory, "powerdomains"):
        edit = {"spec": {"budget": past_the_calendar}}
        wait_for("the lax schema", lambda: factory.plane.api.patch(factory.domain_path("old"), edit), PATIENCE_SECONDS)
        condition = factory.wait_condition("old", "Ready", "InvalidSpec", PATIENCE_SECONDS, domain=True)
        assert "spec.budget.effectiveAt: 9999-12-31T23:59:59-23:59: write a time" in condition["message"]
        assert factory.domain_status("old")["budgetWatts"] == 60_000
        factory.domain("new", 9_000, {"row": "b"})
        factory.wait_condition("new", "Ready", "SelectsNothing", domain=True)
        factory.pool("after")
        factory.wait_running("after", 1)
        mended = {"spec": {"budget": {"watts": 50_000, "effectiveAt": None}}}
        factory.plane.api.patch(factory.domain_path("old"), mended)
    factory.wait_condition("old", "Ready", "Accepted", PATIENCE_SECONDS, domain=True)


def test_a_cap_outside_the_device_s_range_is_told_with_field_value_and_range(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.telemetry.set("de-0", changes={"minimumLimitWatts": 200.0})
    factory.pool("llama", power={"minCapWatts": 100})
    factory.wait_running("llama", 1)
    condition = factory.wait_condition("llama", "Trimmable", "CapOutOfRange")
    assert "spec.power.minCapWatts: 100: a NVIDIA-H200 on de-0 takes 200 to 700 W" in condition["message"]
    assert "set at least 200" in condition["message"]


def test_a_cap_on_a_gpu_that_is_divided_by_mig_is_told_with_field_value_and_remedy(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", gpus=1, power={"minCapWatts": 300})
    (pod,) = factory.wait_running("llama", 1)
    part = {"uuid": "MIG-1", "slices": 3, "profile": "3g.71gb"}
    held = {"namespace": factory.namespace, "name": pod["metadata"]["name"], "devices": ["MIG-1"]}
    changes = {"minimumLimitWatts": 200.0, "migMode": True}
    factory.telemetry.set("de-0", changes=changes, status_changes={"podResources": "Read", "pods": [held]})
    gpus = factory.plane.api.get("/apis/penstock.dev/v1alpha1/gpunodes/de-0")["status"]["gpus"]
    divided = [{**gpus[0], "migInstances": [part]}, *gpus[1:]]
    factory.telemetry.set("de-0", status_changes={"gpus": divided})
    condition = factory.wait_condition("llama", "Trimmable", "MIG")
    assert "spec.power.minCapWatts: 300: its GPU on de-0 is divided by MIG" in condition["message"]
    assert "use whole GPUs, or leave minCapWatts out" in condition["message"]


def test_watts_that_are_declared_too_low_are_told_with_what_was_measured(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {}, guarantee="Statistical")
    factory.pool("llama", gpus=8, power={"wattsPerReplica": 800})
    factory.wait_running("llama", 1)
    factory.wait_condition("llama", "PowerDeclared", "Declared")
    factory.telemetry.set("de-0", watts=[500.0] * 8, activity_percent=[80.0] * 8)
    condition = factory.wait_condition("llama", "PowerDeclared", "DeclaredTooLow", PATIENCE_SECONDS)
    assert "spec.power.wattsPerReplica: 800: a replica was measured at 4,000 W (500 W per GPU)" in condition["message"]


def test_a_replica_that_does_nothing_on_its_gpus_is_told_by_name_and_counted_until_it_works(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", replicas=2)
    idle, busy = factory.wait_running("llama", 2)

    def says(activity_percent: float) -> None:
        held = [
            {
                "namespace": factory.namespace,
                "name": pod["metadata"]["name"],
                "devices": [f"GPU-de-0-{2 * at}", f"GPU-de-0-{2 * at + 1}"],
                "activityPercent": percent,
            }
            for at, (pod, percent) in enumerate(((idle, activity_percent), (busy, 80.0)))
        ]
        factory.telemetry.set("de-0", status_changes={"podResources": "Read", "pods": held})

    says(0.0)
    condition = factory.wait_condition("llama", "Utilized", "IdleReplicas", PATIENCE_SECONDS)
    assert (
        f"1 of 2 replicas have long done nothing on the GPUs that they hold: {idle['metadata']['name']} on de-0"
        in (condition["message"])
    )
    counted = 'penstock_pool_idle_replicas{namespace="default",pool="llama"}'
    assert factory.operator.metrics()[counted] == 1
    says(60.0)
    factory.wait_condition("llama", "Utilized", "InUse", PATIENCE_SECONDS)
    assert factory.operator.metrics()[counted] == 0


def test_a_pod_whose_own_constraint_cannot_be_judged_waits_and_names_it(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.apply("InferencePool", "adopted", {})
    stray = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "near", "namespace": "default", "labels": {"penstock.dev/pool": "adopted"}},
        "spec": {
            **NEAR_OTHERS,
            "schedulingGates": [{"name": "penstock.dev/placement"}],
            "containers": [{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
        },
    }
    factory.plane.api.create("/api/v1/namespaces/default/pods", stray)
    waiting = factory.wait_waiting("adopted", "UnjudgedConstraint", SOON_SECONDS)
    assert "podAffinity" in waiting["message"]
    assert is_gated(factory.pods("adopted")[0])


def test_a_megabyte_of_template_is_placed_or_refused_in_words_and_stops_nobody(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("huge", container={"env": [{"name": "PROMPT", "value": "x" * 1_000_000}]})

    def settled() -> bool:
        return bool(factory.running("huge")) or factory.condition("huge", "Ready").get("reason") == "RefusedByApiServer"

    wait_for("the huge pool runs or is refused", settled, PATIENCE_SECONDS)
    factory.pool("small")
    factory.wait_running("small", 1)
