"""What the chart lets its ServiceAccounts, the break-glass group and the cluster's own roles do: this, and no more."""

from collections.abc import Iterator
from typing import Any

import pytest

from penstock.api.names import PROBE_NAMESPACE
from rig.api import Api
from rig.controlplane import ControlPlane
from rig.install import install_chart
from rig.waiting import wait_for

NAMESPACE = "penstock-system"

Object = dict[str, Any]


@pytest.fixture(scope="module")
def settled() -> Iterator[ControlPlane]:
    with ControlPlane.start(kubelet=False, scheduler=False) as plane:
        wanted = {"capper.enabled": True, "decisionLog.volume.emptyDir": {}, "residency.verification.enabled": True}
        install_chart(plane, wanted)
        yield plane


EVERYWHERE = "default"
OPERATOR_EVERYWHERE = {
    "list,watch inferencepools.penstock.dev",
    "list,watch powerdomains.penstock.dev",
    "list,watch gpunodes.penstock.dev",
    "list,watch residencypolicies.penstock.dev",
    "list,watch jurisdictiongroups.penstock.dev",
    "list,watch residencyexceptions.penstock.dev",
    "patch gpunodes.penstock.dev",
    "patch gpunodes.penstock.dev/status",
    "patch inferencepools.penstock.dev/status",
    "patch powerdomains.penstock.dev/status",
    "patch residencypolicies.penstock.dev/status",
    "patch jurisdictiongroups.penstock.dev/status",
    "patch residencyexceptions.penstock.dev/status",
    "list,watch nodes",
    "create pods/eviction",
    "patch nodes",
    "patch nodes/status",
    "list,watch replicasets.apps",
    "list,watch priorityclasses.scheduling.k8s.io",
    "list,watch resourceclaims.resource.k8s.io",
    "list,patch,watch namespaces",
    "list,watch customresourcedefinitions.apiextensions.k8s.io",
    "delete,get,list,patch,watch pods",
    "create,list,patch,watch deployments.apps",
    "create,get,list,patch,watch services",
    "create events.events.k8s.io",
}
LEASE = {"create leases.coordination.k8s.io", "get,update leases.coordination.k8s.io (penstock)"}
DECISION_LOG = {"create configmaps", "get,update configmaps (penstock-decision-log)"}
VERIFICATION = {"list,watch configmaps (penstock-verification)"}
PROBES = ",".join(f"penstock:verify:{one}" for one in ("user", "namespace-admin", "kubelet", "scheduler", "lawful"))
VERIFIER = {f"impersonate users ({PROBES})", "list nodes", "list residencypolicies.penstock.dev"}
REPORT = {"create configmaps", "get,update configmaps (penstock-verification)"}
CAPPER = {
    "list,watch gpunodes.penstock.dev",
    "list,watch nodes",
    "patch gpunodes.penstock.dev/status",
}
AGENT = {"create,get gpunodes.penstock.dev", "patch gpunodes.penstock.dev/status", "get nodes"}
BREAK_GLASS = {
    "get,list inferencepools.penstock.dev",
    "list jurisdictiongroups.penstock.dev",
    "list namespaces",
    "get,list,patch gpunodes.penstock.dev",
    "delete gpunodes.penstock.dev",
    "get,list,patch nodes",
    "patch nodes/status",
    "get,list,patch pods",
    "get,list,patch deployments.apps",
    "get,list,patch replicasets.apps",
    "delete replicasets.apps",
    "get,patch,update deployments.apps/scale",
    "get,list statefulsets.apps",
    "get,list jobs.batch",
    "get leases.coordination.k8s.io (penstock)",
}


@pytest.mark.parametrize(
    ("identity", "namespace", "expected"),
    (
        pytest.param("penstock-operator", EVERYWHERE, OPERATOR_EVERYWHERE, id="the operator, in any namespace"),
        pytest.param(
            "penstock-operator",
            NAMESPACE,
            OPERATOR_EVERYWHERE | LEASE | DECISION_LOG | VERIFICATION,
            id="the operator, in its own",
        ),
        pytest.param("penstock-verifier", EVERYWHERE, VERIFIER, id="the verifier, in any namespace"),
        pytest.param("penstock-verifier", NAMESPACE, VERIFIER | REPORT, id="the verifier, in its own"),
        pytest.param(
            "penstock-verifier",
            PROBE_NAMESPACE,
            VERIFIER | {"create,delete,list pods"},
            id="the verifier, where its probes are",
        ),
        pytest.param("penstock-agent", EVERYWHERE, AGENT, id="an agent, in any namespace"),
        pytest.param("penstock-agent", NAMESPACE, AGENT, id="an agent, in its own"),
        pytest.param("penstock-capper", NAMESPACE, CAPPER, id="a capper, in its own namespace"),
        pytest.param("penstock-capper", EVERYWHERE, CAPPER | {"create events"}, id="a capper, where its Events are"),
        pytest.param("penstock:break-glass", EVERYWHERE, BREAK_GLASS, id="the break-glass group, in any namespace"),
    ),
)
def test_an_identity_has_these_rights_and_no_other(
    settled: ControlPlane, identity: str, namespace: str, expected: set[str]
) -> None:
    if identity == "penstock:break-glass":
        asked, anybody = settled.user("ben", (identity,)), settled.user("anybody")
    else:
        asked, anybody = settled.service_account(NAMESPACE, identity), settled.service_account(NAMESPACE, "default")
    own = rights(settled.api_as(asked), namespace) - rights(settled.api_as(anybody), namespace)
    assert own == expected


def rights(api: Api, namespace: str) -> set[str]:
    """Every right of an identity in a namespace, as the API server itself lists them to it."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    return {right for rule in answer["status"]["resourceRules"] for right in spelled_out(rule)}


def spelled_out(rule: Object) -> Iterator[str]:
    """`get,patch deployments.apps/scale (NAME)`: verbs, resource and group, subresource, names it is narrowed to."""
    names = f" ({','.join(rule['resourceNames'])})" if rule.get("resourceNames") else ""
    for resource in rule["resources"]:
        plural, slash, subresource = resource.partition("/")
        for group in rule["apiGroups"]:
            qualified = f"{plural}.{group}".removesuffix(".")
            yield f"{','.join(sorted(rule['verbs']))} {qualified}{slash}{subresource}{names}"


def may(plane: ControlPlane, user: str, verb: str, resource: str) -> bool:
    """`kubectl auth can-i`, as a request: may this user, in the namespace `default`?"""
    name, _, subresource = resource.partition("/")
    plural, _, group = name.partition(".")
    attributes = {"verb": verb, "resource": plural, "group": group, "subresource": subresource, "namespace": "default"}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    answer = plane.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize(
    ("role", "verb", "resource", "allowed"),
    (
        ("view", "get", "inferencepools.penstock.dev", True),
        ("view", "watch", "inferencepools.penstock.dev", True),
        ("view", "create", "inferencepools.penstock.dev", False),
        ("view", "patch", "inferencepools.penstock.dev/scale", False),
        ("view", "list", "residencyexceptions.penstock.dev", True),
        ("view", "create", "residencyexceptions.penstock.dev", False),
        ("edit", "create", "residencyexceptions.penstock.dev", True),
        ("edit", "approve", "residencyexceptions.penstock.dev", False),
        ("admin", "approve", "residencyexceptions.penstock.dev", False),
        ("admin", "patch", "residencyexceptions.penstock.dev/status", False),
        ("admin", "create", "residencypolicies.penstock.dev", False),
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
    who = f"a-{role}"
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
