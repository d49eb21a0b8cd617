"""What the chart lets its ServiceAccounts, the break-glass group and the cluster's own roles do: this, and no more."""

from collections.abc import Iterator
from typing import Any

import pytest
from rig.install import install_chart

from rig.controlplane import ControlPlane
from rig.waiting import wait_for

NAMESPACE = "penstock-system"

Object = dict[str, Any]


@pytest.fixture(scope="module")
def settled() -> Iterator[ControlPlane]:
    with ControlPlane.start(kubelet=False, scheduler=False) as plane:
        install_chart(plane, {"operator.replicas": 0})
        yield plane


PENSTOCK_OPERATOR = {
    "get,list,watch inferencepools.penstock.dev",
    "get,list,watch powerdomains.penstock.dev",
    "get,list,watch gpunodes.penstock.dev",
    "patch inferencepools.penstock.dev/status",
    "patch powerdomains.penstock.dev/status",
    "get,list,watch nodes",
    "get,list,watch replicasets.apps",
    "list,watch priorityclasses.scheduling.k8s.io",
    "list,watch namespaces",
    "list,watch customresourcedefinitions.apiextensions.k8s.io",
    "delete,get,list,patch,watch pods",
    "create pods/eviction",
    "create,get,list,patch,watch deployments.apps",
    "create,get,patch services",
    "create,patch events",
    "create,patch events.events.k8s.io",
}
RIGHTS = {
    ("penstock-operator", "default"): PENSTOCK_OPERATOR,
    ("penstock-operator", NAMESPACE): {
        *PENSTOCK_OPERATOR,
        "create leases.coordination.k8s.io",
        "get,update leases.coordination.k8s.io (penstock)",
    },
    ("penstock-agent", "default"): {"create,get gpunodes.penstock.dev", "patch gpunodes.penstock.dev/status"},
    ("penstock-agent", NAMESPACE): {"create,get gpunodes.penstock.dev", "patch gpunodes.penstock.dev/status"},
}


def rights(plane: ControlPlane, account: str, namespace: str) -> set[str]:
    """Every right of a ServiceAccount in a namespace, as the API server itself lists them to it."""
    api = plane.api_as(plane.service_account(NAMESPACE, account))
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    found: set[str] = set()
    for rule in answer["status"]["resourceRules"]:
        verbs = ",".join(sorted(rule["verbs"]))
        names = f" ({','.join(rule['resourceNames'])})" if rule.get("resourceNames") else ""
        found |= {
            f"{verbs} {qualified(resource, group)}{names}"
            for resource in rule["resources"]
            for group in rule["apiGroups"]
        }
    return found


def qualified(resource: str, group: str) -> str:
    """`deployments.apps/scale` for the subresource `deployments/scale` of the group `apps`."""
    name, slash, subresource = resource.partition("/")
    return f"{name}.{group}{slash}{subresource}" if group else resource


@pytest.mark.parametrize(("account", "namespace"), RIGHTS, ids=lambda part: part)
def test_an_account_has_these_rights_and_no_other(settled: ControlPlane, account: str, namespace: str) -> None:
    everybodys = rights(settled, "default", namespace)
    assert rights(settled, account, namespace) - everybodys == RIGHTS[account, namespace]


def may(plane: ControlPlane, who: Object, verb: str, resource: str, namespace: str = "default") -> bool:
    """`kubectl auth can-i`, as a request: may this user or group?"""
    name, _, subresource = resource.partition("/")
    plural, _, group = name.partition(".")
    attributes = {"verb": verb, "resource": plural, "group": group, "subresource": subresource, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {**who, "resourceAttributes": attributes},
    }
    answer = plane.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


BREAK_GLASS = {"user": "ben", "groups": ["penstock:break-glass"]}


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    (
        ("list", "inferencepools.penstock.dev", True),
        ("list", "pods", True),
        ("patch", "pods", True),
        ("patch", "deployments.apps", True),
        ("patch", "replicasets.apps", True),
        ("patch", "deployments.apps/scale", True),
        ("delete", "pods", False),
        ("patch", "pods/status", False),
        ("create", "deployments.apps", False),
        ("patch", "inferencepools.penstock.dev", False),
        ("list", "secrets", False),
        ("patch", "statefulsets.apps", False),
        ("update", "leases.coordination.k8s.io", False),
        ("patch", "validatingadmissionpolicies.admissionregistration.k8s.io", False),
    ),
)
def test_the_break_glass_group_may_release_and_no_more(
    settled: ControlPlane, verb: str, resource: str, allowed: bool
) -> None:
    assert may(settled, BREAK_GLASS, verb, resource) is allowed


@pytest.mark.parametrize(
    ("role", "verb", "resource", "allowed"),
    (
        ("view", "get", "inferencepools.penstock.dev", True),
        ("view", "watch", "inferencepools.penstock.dev", True),
        ("view", "create", "inferencepools.penstock.dev", False),
        ("view", "patch", "inferencepools.penstock.dev/scale", False),
        ("edit", "create", "inferencepools.penstock.dev", True),
        ("edit", "delete", "inferencepools.penstock.dev", True),
        ("edit", "patch", "inferencepools.penstock.dev/scale", True),
        ("edit", "get", "inferencepools.penstock.dev", True),
        ("edit", "patch", "inferencepools.penstock.dev/status", False),
        ("edit", "patch", "powerdomains.penstock.dev", False),
        ("edit", "create", "gpunodes.penstock.dev", False),
        ("admin", "create", "inferencepools.penstock.dev", True),
        ("admin", "patch", "powerdomains.penstock.dev", False),
    ),
)
def test_the_clusters_own_roles_hold_the_rights_on_pools(
    settled: ControlPlane, role: str, verb: str, resource: str, allowed: bool
) -> None:
    rbac = "rbac.authorization.k8s.io"
    settled.api.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"test-{role}", "namespace": "default"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": f"a-{role}"}],
        }
    )
    who = {"user": f"a-{role}"}
    wait_for(f"{role} holds what is aggregated", lambda: may(settled, who, "get", "inferencepools.penstock.dev"), 30)
    if allowed:
        wait_for(f"{role} may {verb} {resource}", lambda: may(settled, who, verb, resource), 30)
    else:
        assert not may(settled, who, verb, resource)


def test_the_operators_requests_are_queued_before_everybody_elses(settled: ControlPlane) -> None:
    api = settled.api_as(settled.service_account(NAMESPACE, "penstock-operator"))

    def flow() -> str:
        reply = api._session().get(f"{api.url}/api/v1/nodes?limit=1", timeout=30)
        return str(reply.headers["X-Kubernetes-PF-FlowSchema-UID"])

    uid = settled.api.get("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/penstock-operator")["metadata"]["uid"]
    wait_for("the FlowSchema is in force", lambda: flow() == uid, 30)
