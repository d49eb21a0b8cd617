"""Ways around the law that no request shows, or that came before it: detected, and drained or reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bank import policy, ready, served
from bypasses import DEVELOPER, KUBELET
from bypasses_bank import ATTACKERS, Attacker, Right, entitle
from bypasses_pods import ALL_GPUS
from factory import PATIENCE_SECONDS, Factory
from penstock.api.names import COUNTRY_LABEL, GPU_RESOURCE, POOL_LABEL
from rig.api import Api
from rig.waiting import wait_for

Object = dict[str, Any]
ADMISSION = "admissionregistration.k8s.io"
BINDINGS = "validatingadmissionpolicybindings"
CREATION = f"/apis/{ADMISSION}/v1/{BINDINGS}/penstock-residency-creation"
STRANGER = "stranger"
ONE_GPU: Object = {"resources": {"limits": {GPU_RESOURCE: "1"}}}
LISTED = "example.com/"
"""Beside NVIDIA's a prefix of the chart's `residency.gpuResources`."""
PLACE_WRITER = "who may write places"
POLICY_WRITER = "who may write admission policies"
BESIDE: Mapping[str, Attacker] = {
    PLACE_WRITER: Attacker("pia", (Right("", "nodes", "get patch"),), ("penstock:place-writers",), everywhere=True),
    POLICY_WRITER: Attacker(
        "vera", (Right(ADMISSION, BINDINGS, "patch"), Right("", "pods", "create")), everywhere=True
    ),
}
"""Who can do what no request shows, beside those whom the API server refuses."""
PEOPLE = {**ATTACKERS, **BESIDE, KUBELET: Attacker("system:node:us-1", groups=("system:nodes",))}


class End(StrEnum):
    """What comes of it."""

    DRAINED = "detected and drained"
    REPORTED = "detected and reported"


@dataclass(frozen=True)
class Detected:
    """Who does what in a bank with a German and an American node, what comes of it, and how that is told.

    The attempt is theirs, as `me`; it returns the pods that end up outside the law, by name.
    """

    who: str
    tries: str
    attempt: Callable[[Factory, Api], set[str]]
    end: End
    says: str


def attacker(bank: Factory, who: str) -> Api:
    """Somebody by client certificate, with just the rights named."""
    one = PEOPLE[who]
    entitle(bank.plane.api, f"attacker-{one.user}", one, bank.namespace)
    return bank.plane.api_as(bank.plane.user(one.user, one.groups))


def _once_taken(what: str, request: Callable[[], object]) -> None:
    """The API server knows of somebody's rights, and of a policy that was changed, a moment later."""
    wait_for(what, request, PATIENCE_SECONDS)


def tell_that_a_node_stands_elsewhere(bank: Factory, me: Api) -> set[str]:
    return _place(bank, me, "US")


def take_a_place_away(bank: Factory, me: Api) -> set[str]:
    return _place(bank, me, None)


def _place(bank: Factory, me: Api, country: str | None) -> set[str]:
    """Where the node of lawful replicas stands from now on; they."""
    found = _lawful_replicas(bank)
    said = {"metadata": {"labels": {COUNTRY_LABEL: country}}}
    _once_taken("the place is written", lambda: me.patch("/api/v1/nodes/de-0", said))
    return found


def _lawful_replicas(bank: Factory) -> set[str]:
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    return {pod["metadata"]["name"] for pod in served(bank, 2)}


def run_before_there_is_a_law(bank: Factory, me: Api) -> set[str]:
    return _then_the_law(bank, _run(bank, me))


def carry_a_pools_label_before_there_is_a_law(bank: Factory, me: Api) -> set[str]:
    return _then_the_law(bank, _run(bank, me, labels={POOL_LABEL: "nobodys"}))


def see_every_gpu_before_there_is_a_law(bank: Factory, me: Api) -> set[str]:
    return _then_the_law(bank, _run(bank, me, container={"env": ALL_GPUS}))


def ask_for_a_listed_resource_before_there_is_a_law(bank: Factory, me: Api) -> set[str]:
    npus: Object = {f"{LISTED}npu": "1"}
    bank.plane.api.patch("/api/v1/nodes/us-1/status", {"status": {"capacity": npus, "allocatable": npus}})
    return _then_the_law(bank, _run(bank, me, container={"resources": {"limits": npus}}))


def run_while_the_policies_only_audit(bank: Factory, me: Api) -> set[str]:
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    _once_taken("the policy only audits", lambda: _denies(me, "Audit"))
    try:
        return _run(bank, me)
    finally:
        _denies(bank.plane.api, "Deny", "Audit")


def _denies(me: Api, *actions: str) -> Object:
    return me.patch(CREATION, {"spec": {"validationActions": list(actions)}})


def show_a_static_pod_before_there_is_a_law(bank: Factory, me: Api) -> set[str]:
    uid = bank.plane.api.get("/api/v1/nodes/us-1")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "us-1", "uid": uid, "controller": True}
    mirror: Object = {"annotations": {"kubernetes.io/config.mirror": "0123"}, "ownerReferences": [owner]}
    return _then_the_law(bank, _run(bank, me, **mirror))


def hide_a_static_pod(bank: Factory, _: Api) -> set[str]:
    """By no request: what a kubelet runs is said by its PodResources, and by the agent who reads them."""
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "Accepted")
    pods = [{"namespace": bank.namespace, "name": STRANGER, "devices": ["GPU-us-1-0"]}]
    bank.telemetry.set("us-1", status_changes={"podResources": "Read", "pods": pods})
    return {STRANGER}


def _run(bank: Factory, me: Api, container: Object = ONE_GPU, **metadata: Any) -> set[str]:
    """A pod of no pool on the American node."""
    server = {"name": "server", "image": "server", **container}
    spec = {"nodeName": "us-1", "containers": [server], "terminationGracePeriodSeconds": 1}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": STRANGER, **metadata}, "spec": spec}
    _once_taken("nobody refuses it", lambda: me.create(f"/api/v1/namespaces/{bank.namespace}/pods", made))
    return {STRANGER}


def _then_the_law(bank: Factory, found: set[str]) -> set[str]:
    """A policy that would end somebody at once waits for its number, like any edit."""
    policy(bank, "ours", allowed=["DE"])
    ready(bank, "ours", "NeedsConfirmation")
    policy(bank, "ours", allowed=["DE"], confirm=1)
    return found


_US = "node us-1 (US) is outside ResidencyPolicy/ours"

DETECTED = (
    Detected(
        PLACE_WRITER,
        "says that a node stands elsewhere, under its replicas",
        tell_that_a_node_stands_elsewhere,
        End.DRAINED,
        "node de-0 (US) is outside ResidencyPolicy/ours",
    ),
    Detected(
        PLACE_WRITER,
        "takes a node's place away, under its replicas",
        take_a_place_away,
        End.DRAINED,
        "node de-0 (unknown place) is outside ResidencyPolicy/ours",
    ),
    Detected(DEVELOPER, "ran a pod of no pool before there was a law", run_before_there_is_a_law, End.DRAINED, _US),
    Detected(
        DEVELOPER,
        "put a pool's label on a foreign pod before there was a law",
        carry_a_pools_label_before_there_is_a_law,
        End.DRAINED,
        _US,
    ),
    Detected(
        DEVELOPER,
        "set `NVIDIA_VISIBLE_DEVICES=all` before there was a law",
        see_every_gpu_before_there_is_a_law,
        End.DRAINED,
        _US,
    ),
    Detected(
        DEVELOPER,
        "asked for another resource of `residency.gpuResources` before there was a law",
        ask_for_a_listed_resource_before_there_is_a_law,
        End.DRAINED,
        _US,
    ),
    Detected(
        POLICY_WRITER,
        "creates a pod with `spec.nodeName` while they only audit",
        run_while_the_policies_only_audit,
        End.DRAINED,
        _US,
    ),
    Detected(
        KUBELET,
        "showed a static pod before there was a law",
        show_a_static_pod_before_there_is_a_law,
        End.REPORTED,
        _US,
    ),
    Detected(
        KUBELET,
        "runs a static pod that the API server did not let it show",
        hide_a_static_pod,
        End.REPORTED,
        _US,
    ),
)
