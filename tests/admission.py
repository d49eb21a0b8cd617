"""Who writes to a control plane with the chart's admission policies, and what they write: a kit for their tests."""

from dataclasses import dataclass
from itertools import count
from typing import Any

from penstock.api.names import FENCE_ANNOTATION, GATE, LEASE_NAME, POOL_LABEL
from rig.api import Api, ApiError
from rig.controlplane import ControlPlane
from rig.waiting import wait_for

NAMESPACE = "penstock-system"
PODS = "/api/v1/namespaces/default/pods"
LEADER, EPOCH = "penstock-operator-0_a1b2", 7
FENCE = f"{LEADER}/{EPOCH}"

OPERATOR = "the operator"
BREAK_GLASS = "a member of the break-glass group"
ADMINISTRATOR = "the cluster's administrator"
USER = "a user with every right on pods"

Object = dict[str, Any]
NUMBERS = count()


@dataclass(frozen=True)
class House:
    """A control plane with the chart and a Lease that LEADER holds, and who writes to it."""

    cp: ControlPlane
    identities: dict[str, Api]

    def __getitem__(self, identity: str) -> Api:
        return self.identities[identity]


def furnish(cp: ControlPlane) -> House:
    """Hold the Lease, and give everybody every right on pods: the policies alone stand between them and our gate."""
    hold_lease(cp.api, LEADER, EPOCH)
    for subject in (
        {"kind": "User", "name": "erin"},
        {"kind": "Group", "name": "penstock:break-glass"},
        {"kind": "ServiceAccount", "name": "penstock-operator", "namespace": NAMESPACE},
    ):
        allow(cp.api, "", ["pods", "pods/status"], subject)
    identities = {
        OPERATOR: cp.api_as(cp.service_account(NAMESPACE, "penstock-operator")),
        BREAK_GLASS: cp.api_as(cp.user("ben", ("penstock:break-glass",))),
        ADMINISTRATOR: cp.api,
        USER: cp.api_as(cp.user("erin")),
    }
    house = House(cp, identities)
    wait_for("the rights and the policies are in force", lambda: in_force(house), 60)
    return house


def in_force(house: House) -> bool:
    """Whether both policies are asked; each is compiled a moment after it was created."""
    path = gated(house)
    refusal("gate", house[USER], path, lift("nobody/0"), "json")
    refusal("fence", house[OPERATOR], path, lift("nobody/0"), "json")
    return True


def allow(api: Api, group: str, resources: list[str], subject: Object) -> None:
    """Give one subject every right on some resources, in the whole cluster."""
    name = f"test-{subject['name']}".replace(":", "-")
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    api.apply(
        {**rbac, "kind": "ClusterRole", "rules": [{"apiGroups": [group], "resources": resources, "verbs": ["*"]}]}
    )
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    api.apply({**rbac, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": [subject]})


def hold_lease(api: Api, holder: str, transitions: int) -> None:
    api.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE_NAME, "namespace": NAMESPACE},
            "spec": {"holderIdentity": holder, "leaseTransitions": transitions},
        }
    )


def lease_says(house: House, fence: str) -> None:
    """Wait until the API server judges lifts by this fence: it reads the Lease through a cache."""
    path = gated(house)
    wait_for(
        f"lifts are judged by the fence {fence!r}",
        lambda: house[OPERATOR].patch(path, lift(fence), "json", dryRun="All"),
        30,
    )


def pod_spec(*gates: str) -> Object:
    return {
        "schedulingGates": [{"name": gate} for gate in gates],
        "containers": [{"name": "server", "image": "server"}],
        "terminationGracePeriodSeconds": 1,
    }


def create(house: House, *gates: str, labels: dict[str, str] | None = None, fence: str = "") -> str:
    """Create a pod as its owner would, and return its path."""
    annotations = {FENCE_ANNOTATION: fence} if fence else {}
    metadata = {"name": f"replica-{next(NUMBERS)}", "labels": labels or {}, "annotations": annotations}
    house.cp.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(*gates)})
    return f"{PODS}/{metadata['name']}"


def gated(house: House, fence: str = "") -> str:
    return create(house, GATE, labels={POOL_LABEL: "llama"}, fence=fence)


def lift(fence: str | None = None) -> list[Object]:
    """The placing patch in short: the fence, and the first gate taken away."""
    operations: list[Object] = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    if fence is not None:
        operations.insert(0, {"op": "add", "path": "/metadata/annotations", "value": {FENCE_ANNOTATION: fence}})
    return operations


def label(value: str | None) -> Object:
    return {"metadata": {"labels": {POOL_LABEL: value}}}


def refusal(policy: str, api: Api, path: str, body: Any, type: str = "merge") -> str:  # noqa: A002
    """What the API server says where this policy refuses a patch; fails where it accepts, or another cause refuses."""
    refused = None
    try:
        api.patch(path, body, type)
    except ApiError as error:
        refused = error
    assert refused, f"{path} took {body}"
    assert (refused.status, refused.reason) == (403, "Forbidden"), refused
    assert f"ValidatingAdmissionPolicy 'penstock-{policy}'" in refused.message, refused
    return refused.message
