"""The kinds on a real API server: what it takes, what it refuses and in which words, what it shows, how it scales."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from generate import KINDS
from manifests import NO_QUANTITIES, ORDINARY, ORDINARY_DOMAIN, ORDINARY_POOL, QUANTITIES, RICH_TEMPLATE, changed
from penstock.api.meta import Kind
from penstock.api.quantity import is_positive
from refusals import (
    COMMITTED_WATTS,
    EDIT_REFUSALS,
    EDITS_TAKEN,
    REFUSALS,
    UNKNOWN_FIELDS,
    EditRefusal,
    EditTaken,
    Refusal,
)
from rig.api import ApiError
from rig.controlplane import ControlPlane
from rig.waiting import wait_for

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CRD_NAMES = tuple(f"{kind.definition.plural}.penstock.dev" for kind in KINDS)
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/penstock.dev/v1alpha1"
POOLS = f"{GROUP}/namespaces/default/inferencepools"
MEBIBYTE = 1024 * 1024

Object = dict[str, Any]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane that knows our kinds; nothing runs on it."""
    with ControlPlane.start(kubelet=False, scheduler=False) as cp:
        install(cp)
        yield cp


@pytest.fixture(autouse=True)
def _clean(plane: ControlPlane) -> Iterator[None]:
    yield
    for kind in KINDS:
        path = collection(kind.definition)
        for item in plane.api.list(path):
            plane.api.delete(f"{path}/{item['metadata']['name']}")


def collection(kind: Kind) -> str:
    """Where the kind's objects are, in the namespace `default` if in any."""
    return f"{GROUP}/{'namespaces/default/' if kind.scope == 'Namespaced' else ''}{kind.plural}"


def install(cp: ControlPlane) -> None:
    cp.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cp.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in CRD_NAMES))
    for kind in KINDS:
        plural = kind.definition.plural
        wait_for(f"{plural} are served", partial(cp.api.get, f"{GROUP}/{plural}"), 60, report=False)


def refused(cp: ControlPlane, manifest: Object, *flags: str) -> str:
    """What a person reads when `kubectl create` does not take the object."""
    outcome = cp.kubectl("create", "--validate=strict", *flags, "-f", "-", input=json.dumps(manifest), check=False)
    assert outcome.returncode != 0, outcome.stdout
    return outcome.stderr


def status(reason: str, condition: str = "Ready", **fields: Any) -> Object:
    """A status with one condition, of that reason."""
    judged = {
        "type": condition,
        "status": "False",
        "reason": reason,
        "message": "said at length",
        "lastTransitionTime": "2026-11-21T01:30:00Z",
    }
    return {"status": {**fields, "conditions": [judged]}}


def columns(shown: str) -> dict[str, str]:
    """Heading → cell of the only row that kubectl printed."""
    heading, row = shown.rstrip("\n").split("\n")
    starts = [match.start() for match in re.finditer(r"\S+", heading)]
    cuts = list(zip(starts, [*starts[1:], None], strict=True))
    return {heading[start:end].strip(): row[start:end].strip() for start, end in cuts}


@pytest.mark.parametrize("name", CRD_NAMES)
def test_a_crd_is_structural_and_served(plane: ControlPlane, name: str) -> None:
    conditions = {one["type"]: one["status"] for one in plane.api.get(f"{CRDS}/{name}")["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("refusal", [pytest.param(one, id=one.sentence) for one in (*REFUSALS, *UNKNOWN_FIELDS)])
def test_a_bad_object_is_refused_in_words_that_help(plane: ControlPlane, refusal: Refusal) -> None:
    message = refused(plane, refusal.manifest)
    for part in refusal.says:
        assert part in message


def edit(cp: ControlPlane, manifest: Object, spec: Object) -> str:
    """What a person reads who patches the object."""
    command = (
        "patch",
        manifest["kind"],
        manifest["metadata"]["name"],
        "--type=merge",
        "-p",
        json.dumps({"spec": spec}),
    )
    outcome = cp.kubectl(*command, check=False)
    return outcome.stderr if outcome.returncode else ""


def stored(cp: ControlPlane, manifest: Object) -> Object:
    """The object as it is once it is on the API server; a domain has watts committed."""
    cp.kubectl("create", "-f", "-", input=json.dumps(manifest))
    if manifest is ORDINARY_DOMAIN:
        told = json.dumps({"status": {"committedWatts": COMMITTED_WATTS}})
        cp.kubectl("patch", "powerdomain", "row-a", "--subresource=status", "--type=merge", "-p", told)
    return manifest


@pytest.mark.parametrize("refusal", EDIT_REFUSALS, ids=lambda one: one.sentence)
def test_an_edit_that_looks_like_a_mistake_is_refused_in_words_that_help(
    plane: ControlPlane, refusal: EditRefusal
) -> None:
    manifest = stored(plane, refusal.manifest)
    *taken, last = refusal.edits
    assert [edit(plane, manifest, one) for one in taken] == [""] * len(taken)
    message = edit(plane, manifest, last)
    for part in refusal.says:
        assert part in message


@pytest.mark.parametrize("taken", EDITS_TAKEN, ids=lambda one: one.sentence)
def test_an_edit_that_is_meant_is_taken(plane: ControlPlane, taken: EditTaken) -> None:
    assert edit(plane, stored(plane, taken.manifest), taken.edit) == ""


@pytest.mark.parametrize("manifest", ORDINARY, ids=lambda one: one["kind"])
def test_the_objects_that_refusals_are_made_from_are_taken(plane: ControlPlane, manifest: Object) -> None:
    plane.kubectl("create", "--validate=strict", "-f", "-", input=json.dumps(manifest))


def test_examples_apply_in_one_go_and_again_without_a_change(plane: ControlPlane) -> None:
    plane.kubectl("apply", "--validate=strict", "-f", str(ROOT / "examples"))
    again = plane.kubectl("apply", "--validate=strict", "-f", str(ROOT / "examples")).stdout
    assert {line.rpartition(" ")[2] for line in again.splitlines()} == {"unchanged"}
    plane.kubectl("delete", "-f", str(ROOT / "examples"), "--wait=false")


def test_an_ordinary_pod_template_passes_untouched(plane: ControlPlane) -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ordinary"},
        "spec": {"selector": {"matchLabels": RICH_TEMPLATE["metadata"]["labels"]}, "template": RICH_TEMPLATE},
    }
    plane.kubectl("create", "--validate=strict", "--dry-run=server", "-f", "-", input=json.dumps(deployment))
    pool = changed(ORDINARY_POOL, "spec.template", RICH_TEMPLATE)
    plane.kubectl("create", "--validate=strict", "-f", "-", input=json.dumps(pool))
    assert plane.api.get(f"{POOLS}/llama")["spec"]["template"] == RICH_TEMPLATE


@pytest.mark.parametrize("written", (*QUANTITIES, *NO_QUANTITIES))
def test_the_operator_and_the_api_server_agree_on_what_a_quantity_is(plane: ControlPlane, written: str | int) -> None:
    pool = changed(ORDINARY_POOL, "spec.gpu.minMemory", written)
    try:
        plane.api.create(POOLS, pool, dryRun="All")
    except ApiError as refusal:
        assert "spec.gpu.minMemory" in refusal.message  # noqa: PT017  both answers are right for some quantity
        assert not is_positive(written)
    else:
        assert is_positive(written)


def test_defaults_are_written_into_the_object(plane: ControlPlane) -> None:
    plane.api.create(POOLS, changed(ORDINARY_POOL, "spec", {"placement": {"spread": [{"topologyKey": "zone"}]}}))
    spec = plane.api.get(f"{POOLS}/llama")["spec"]
    assert (spec["replicas"], spec["engine"]) == (1, "Custom")
    assert spec["placement"] == {"mode": "Enforce", "spread": [{"topologyKey": "zone", "maxSkew": 1}]}


def test_a_megabyte_in_one_annotation_is_refused_by_its_bound(plane: ControlPlane) -> None:
    pool = changed(ORDINARY_POOL, "spec.template.metadata.annotations", {"note": "x" * MEBIBYTE})
    message = refused(plane, pool)
    assert "spec.template.metadata.annotations.note: Too long: may not be more than 262144 bytes" in message


def test_a_megabyte_where_we_never_look_is_stored_and_takes_a_status(plane: ControlPlane) -> None:
    container = {**ORDINARY_POOL["spec"]["template"]["spec"]["containers"][0]}
    container["env"] = [{"name": "PROMPT", "value": "x" * MEBIBYTE}]
    plane.api.create(POOLS, changed(ORDINARY_POOL, "spec.template.spec.containers", [container]))
    plane.api.patch(f"{POOLS}/llama/status", status("ReplicasWaiting", replicas=2))
    found = plane.api.get(f"{POOLS}/llama")
    assert len(found["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]) == MEBIBYTE
    assert found["status"]["replicas"] == 2


def test_an_object_beyond_the_store_s_limit_is_refused(plane: ControlPlane) -> None:
    container = {**ORDINARY_POOL["spec"]["template"]["spec"]["containers"][0]}
    container["env"] = [{"name": "PROMPT", "value": "x" * (MEBIBYTE + MEBIBYTE * 3 // 4)}]
    assert "too large" in refused(plane, changed(ORDINARY_POOL, "spec.template.spec.containers", [container]))


def test_a_stored_object_that_today_s_rules_refuse_is_listed_and_takes_a_status(plane: ControlPlane) -> None:
    lax = yaml.safe_load((ROOT / "crds" / "penstock.dev_inferencepools.yaml").read_text())
    schema = lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    places = schema["properties"]["residency"]["properties"]["allowed"]["items"]
    strict_rules, places["x-kubernetes-validations"] = places["x-kubernetes-validations"], []
    assert strict_rules
    pool = changed(ORDINARY_POOL, "spec.residency.allowed", ["de"])
    try:
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(lax))
        wait_for("the laxer rules are served", lambda: plane.api.create(POOLS, pool), 60)
    finally:
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    other = changed(pool, "metadata.name", "other")
    wait_for("today's rules are served", lambda: "in capitals" in refused(plane, other, "--dry-run=server"), 60)
    wait_for("the status is taken", lambda: plane.api.patch(f"{POOLS}/llama/status", status("InvalidSpec")), 60)
    (found,) = plane.api.list(POOLS)
    assert found["spec"]["residency"]["allowed"] == ["de"]
    assert found["status"]["conditions"][0]["reason"] == "InvalidSpec"


def test_kubectl_get_aipool_answers_the_first_question(plane: ControlPlane) -> None:
    plane.api.create(POOLS, ORDINARY_POOL)
    figures = {"replicas": 6, "placedReplicas": 5, "readyReplicas": 4, "waitingReplicas": 1, "power": {"watts": 9120}}
    waiting = [{"replicas": 1, "reason": "InsufficientPower", "wouldFit": "raise PowerDomain/row-a by 900 W"}]
    plane.api.patch(f"{POOLS}/llama/status", status("InsufficientPower", "Placed", waiting=waiting, **figures))
    shown = columns(plane.kubectl("get", "aipool").stdout)
    assert shown.pop("AGE")
    assert shown == {
        "NAME": "llama",
        "REPLICAS": "6",
        "PLACED": "5",
        "READY": "4",
        "WAITING": "1",
        "REASON": "InsufficientPower",
        "WATTS": "9120",
    }
    wide = columns(plane.kubectl("get", "aip", "-o", "wide").stdout)
    assert wide["MODEL"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert (wide["ENGINE"], wide["MESSAGE"]) == ("vLLM", "said at length")
    assert wide["WOULD-FIT"] == "raise PowerDomain/row-a by 900 W"


def test_kubectl_get_pdom_shows_the_budget_and_what_is_left(plane: ControlPlane) -> None:
    plane.api.create(f"{GROUP}/powerdomains", ORDINARY_DOMAIN)
    figures = {
        "budgetWatts": 40000,
        "committedWatts": 31000,
        "headroomWatts": -1000,
        "drawWatts": 21500.5,
        "nodes": 6,
        "ladder": {"stage": "Hold"},
    }
    plane.api.patch(f"{GROUP}/powerdomains/row-a/status", status("OverBudget", "Ready", **figures))
    shown = columns(plane.kubectl("get", "pdom").stdout)
    assert shown.pop("AGE")
    assert shown == {
        "NAME": "row-a",
        "BUDGET": "40000",
        "COMMITTED": "31000",
        "HEADROOM": "-1000",
        "DRAW": "21500.5",
        "STAGE": "Hold",
        "NODES": "6",
        "STATUS": "OverBudget",
    }


def test_kubectl_get_gpun_shows_what_the_node_s_agent_says(plane: ControlPlane) -> None:
    node = {"apiVersion": "penstock.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": "gpu-1"}}
    plane.api.create(f"{GROUP}/gpunodes", node)
    gpu = {"uuid": "GPU-1", "index": 0, "product": "NVIDIA-H200", "powerWatts": 611.25, "enforcedLimitWatts": 700}
    figures = {"gpuCount": 1, "watts": 611.25, "sampledAt": "2026-11-21T01:00:00Z", "gpus": [gpu]}
    plane.api.patch(f"{GROUP}/gpunodes/gpu-1/status", status("AllGPUsHealthy", "Ready", **figures))
    shown = columns(plane.kubectl("get", "gpun").stdout)
    assert shown.pop("AGE")
    assert shown.pop("HEARD")
    assert shown == {
        "NAME": "gpu-1",
        "GPUS": "1",
        "WATTS": "611.25",
        "PRODUCT": "NVIDIA-H200",
        "HEALTH": "AllGPUsHealthy",
    }


def test_all_kinds_of_the_category_are_listed_together(plane: ControlPlane) -> None:
    plane.api.create(POOLS, ORDINARY_POOL)
    plane.api.create(f"{GROUP}/powerdomains", ORDINARY_DOMAIN)
    names = plane.kubectl("get", "aifactory", "-o", "name").stdout.split()
    assert set(names) == {"inferencepool.penstock.dev/llama", "powerdomain.penstock.dev/row-a"}


def test_kubectl_scale_writes_the_replicas_and_reads_status_and_selector(plane: ControlPlane) -> None:
    plane.api.create(POOLS, ORDINARY_POOL)
    written = {"replicas": 2, "selector": "penstock.dev/pool=llama"}
    plane.api.patch(f"{POOLS}/llama/status", {"status": written})
    plane.kubectl("scale", "aipool/llama", "--replicas=5")
    scale = plane.api.get(f"{POOLS}/llama/scale")
    assert scale["spec"] == {"replicas": 5}
    assert scale["status"] == written
    assert plane.api.get(f"{POOLS}/llama")["spec"]["replicas"] == 5


def test_a_pool_that_adopts_cannot_be_scaled(plane: ControlPlane) -> None:
    plane.api.create(POOLS, changed(ORDINARY_POOL, "spec", {}))
    outcome = plane.kubectl("scale", "aipool/llama", "--replicas=3", check=False)
    assert "leave replicas at 1 and scale their owner" in outcome.stderr


def test_a_horizontal_pod_autoscaler_finds_the_selector_and_scales(plane: ControlPlane) -> None:
    plane.api.create(POOLS, ORDINARY_POOL)
    selector = "penstock.dev/pool=llama"
    plane.api.patch(f"{POOLS}/llama/status", {"status": {"replicas": 2, "selector": selector}})
    autoscaler: Object = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "llama"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "penstock.dev/v1alpha1", "kind": "InferencePool", "name": "llama"},
            "minReplicas": 4,
            "maxReplicas": 8,
        },
    }
    hpas = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    plane.api.create(hpas, deepcopy(autoscaler))
    try:
        wait_for(
            "the autoscaler raised the pool to its minimum",
            lambda: plane.api.get(f"{POOLS}/llama")["spec"]["replicas"] == 4,
            150,
        )
        (able,) = (
            one for one in plane.api.get(f"{hpas}/llama")["status"]["conditions"] if one["type"] == "AbleToScale"
        )
        assert able["status"] == "True"
    finally:
        plane.api.delete(f"{hpas}/llama")
