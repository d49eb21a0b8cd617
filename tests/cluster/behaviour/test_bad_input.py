"""Bad input that the schema cannot refuse: told with field, value and remedy, while everything else goes on."""

from __future__ import annotations

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
    "a country that does not exist names the one that was meant": (
        {"residency": {"allowed": ["UK"]}},
        ("spec.residency.allowed[0]", "UK", "GB"),
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
    factory.patch_pool("llama", {"replicas": 3, "residency": {"allowed": ["UK"]}})
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
    assert "spec.nodeSelector" in condition["message"]


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


def test_a_stored_pool_that_today_s_rules_refuse_is_told_and_stops_nobody(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("old", replicas=2)
    factory.wait_running("old", 2)
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/inferencepools.penstock.dev"
    strict = factory.plane.api.get(crd)["spec"]["versions"]
    lax = [
        {**strict[0], "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
    ]
    factory.plane.api.patch(crd, {"spec": {"versions": lax}})
    try:
        wrong = {"spec": {"engine": "Abacus"}}
        wait_for("the lax schema", lambda: factory.plane.api.patch(factory.pool_path("old"), wrong), PATIENCE_SECONDS)
        condition = factory.wait_condition("old", "Ready", "InvalidSpec", PATIENCE_SECONDS)
        assert "engine" in condition["message"]
        assert len(factory.running("old")) == 2
        factory.pool("new")
        factory.wait_running("new", 1)
    finally:
        factory.plane.api.patch(crd, {"spec": {"versions": strict}})
        factory.plane.api.patch(factory.pool_path("old"), {"spec": {"engine": "vLLM"}})
    factory.wait_condition("old", "Ready", "AllReplicasReady", PATIENCE_SECONDS)


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
