"""A bank under the law while Penstock itself is stopped, and who is there: a certificate each, and few rights."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from admission import LEADER, NAMESPACE, hold_lease
from penstock.api.names import (
    COUNTRY_LABEL,
    FENCE_ANNOTATION,
    GATE,
    GROUP,
    LAW_LABEL,
    LAW_PREFIX,
    LAW_REQUIRED,
    LAW_SELECTORS_ANNOTATION,
    OPERATOR_LABEL,
    POOL_LABEL,
    SUBDIVISION_LABEL,
    VERSION,
)
from rig.api import Api
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart
from rig.waiting import wait_for

Object = dict[str, Any]
BANK, LAWLESS = "bank", "lawless"
NAMESPACES = "/api/v1/namespaces"
PODS = f"{NAMESPACES}/{BANK}/pods"
NODES = "/api/v1/nodes"
KINDS = f"/apis/{GROUP}/{VERSION}"
EXCEPTIONS = f"{KINDS}/namespaces/{BANK}/residencyexceptions"
RBAC = "rbac.authorization.k8s.io"
EPOCH = 3
LAW = {
    "country": "DE,FR",
    "subdivision": "US-VA,CA-ON,!DE-BY",
    "operator": "!US,!CN",
    "clearance": "*",
    "evidence": "*",
}
PERSONAL = {"country": "CH", "subdivision": "*", "operator": "*", "clearance": "*", "evidence": "*"}
GUARDED = {
    "country": "DE",
    "subdivision": "*",
    "operator": "*",
    "clearance": "Restricted",
    "evidence": "TPM,ConfidentialGPU",
}
ABROAD = {"country": "!US,!IE", "subdivision": "!DE-BY", "operator": "*", "clearance": "*", "evidence": "*"}
"""Four laws: of the bank, and of its pools `traders`, `vault` and `abroad` under exceptions."""
COUNTRYLESS, OPERATORLESS = "countryless", "operatorless"
"""Gated replicas of a namespace that is marked since, and whose law lacks one axis for them."""
PARTIAL = {"subdivision": "*", "clearance": "*", "evidence": "*"}
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Right:
    """Verbs on resources of one API group."""

    group: str
    resources: str
    verbs: str

    @property
    def rule(self) -> Object:
        return {"apiGroups": [self.group], "resources": self.resources.split(), "verbs": self.verbs.split()}


@dataclass(frozen=True)
class Attacker:
    """Somebody by client certificate, and all that they may do; in the bank alone, or everywhere."""

    user: str
    rights: tuple[Right, ...] = ()
    groups: tuple[str, ...] = ()
    everywhere: bool = False
    role: str = ""
    """A ClusterRole that is there already."""


_WRITE = "create get update patch"
_LAWS = Right(
    GROUP,
    "residencypolicies residencypolicies/status jurisdictiongroups jurisdictiongroups/status",
    f"{_WRITE} delete",
)

ATTACKERS: Mapping[str, Attacker] = {
    "a developer": Attacker(
        "dora", (Right("", "pods", f"{_WRITE} delete"), Right("apps", "deployments", f"{_WRITE} delete"))
    ),
    "who may debug": Attacker("deb", (Right("", "pods", "get"), Right("", "pods/ephemeralcontainers", "patch"))),
    "who may write status": Attacker("stan", (Right("", "pods", "get"), Right("", "pods/status", "update patch"))),
    "the namespace's admin": Attacker("nina", role="admin"),
    "who may write pods anywhere": Attacker("petra", (Right("", "pods", "create get patch"),), everywhere=True),
    "a rogue scheduler": Attacker("rosa", (Right("", "pods", "get"), Right("", "pods/binding bindings", "create"))),
    "the node's kubelet": Attacker("system:node:gpu-us", groups=("system:nodes",)),
    "a new node's kubelet": Attacker("system:node:gpu-forged", groups=("system:nodes",)),
    "who may write nodes": Attacker("noah", (Right("", "nodes nodes/status", _WRITE),), everywhere=True),
    "who may write GPUNodes": Attacker("greta", (Right(GROUP, "gpunodes gpunodes/status", _WRITE),), everywhere=True),
    "who may write namespaces": Attacker(
        "nora", (Right("", "namespaces namespaces/status namespaces/finalize", _WRITE),), everywhere=True
    ),
    "who may write the law's kinds": Attacker("lara", (_LAWS,), everywhere=True),
    "who asks for an exception": Attacker("rita", (Right(GROUP, "residencyexceptions", f"{_WRITE} approve"),)),
    "who approves exceptions": Attacker("otto", (Right(GROUP, "residencyexceptions", f"{_WRITE} approve"),)),
    "who may only write exceptions": Attacker("erik", (Right(GROUP, "residencyexceptions", _WRITE),)),
    "break-glass": Attacker(
        "ben", (Right("", "pods", "get patch"),), groups=("penstock:break-glass",), everywhere=True
    ),
}
"""Beside them tries the operator itself, by its ServiceAccount's token with the chart's own rights."""
OPERATOR = "the operator's account"
DEVELOPER = "a developer"


@dataclass(frozen=True)
class House:
    """A control plane with a bank under the law. `cp.api` is the administrator, who prepares what others attack."""

    cp: ControlPlane
    people: Mapping[str, Api]

    def __getitem__(self, who: str) -> Api:
        return self.people[who]

    @staticmethod
    def name_of(who: str) -> str:
        """The user name in their certificate."""
        return ATTACKERS[who].user


def furnish(cp: ControlPlane) -> House:
    """The chart with no operator, two nodes, the bank with its law, and everybody with the rights named."""
    add_nodes(cp, [gpu_node("gpu-de"), gpu_node("gpu-us", country="US")])
    install_chart(cp)
    hold_lease(cp.api, LEADER, EPOCH)
    _found(cp)
    people = {name: cp.api_as(cp.user(one.user, one.groups)) for name, one in ATTACKERS.items()}
    for number, one in enumerate(ATTACKERS.values()):
        entitle(cp.api, f"attacker-{number}", one)
    people[OPERATOR] = cp.api_as(cp.service_account(NAMESPACE, "penstock-operator"))
    return House(cp, people)


def entitle(api: Api, name: str, one: Attacker, namespace: str = BANK) -> None:
    """Give somebody their rights, in this namespace or everywhere, by objects of this name."""
    named = {"apiVersion": f"{RBAC}/v1", "metadata": {"name": name}}
    if one.rights:
        api.apply({**named, "kind": "ClusterRole", "rules": [right.rule for right in one.rights]})
    if not (one.rights or one.role):
        return
    bound = {
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": one.role or name},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": one.user}],
    }
    if one.everywhere:
        api.apply({**named, **bound, "kind": "ClusterRoleBinding"})
    else:
        api.apply({**named, **bound, "kind": "RoleBinding", "metadata": {"name": name, "namespace": namespace}})


def _found(cp: ControlPlane) -> None:
    notes = {**law_notes(LAW), **law_notes(PERSONAL, "traders"), **law_notes(GUARDED, "vault")}
    notes |= law_notes(ABROAD, "abroad")
    notes[LAW_SELECTORS_ANNOTATION] = "sector,region"
    found_namespace(cp.api, BANK, labels={LAW_LABEL: LAW_REQUIRED, "sector": "finance"}, annotations=notes)
    found_namespace(cp.api, LAWLESS)
    for name in (COUNTRYLESS, OPERATORLESS):
        cp.api.create(f"{NAMESPACES}/{LAWLESS}/pods", pod(metadata={"name": name}, labels={POOL_LABEL: name}))
    notes = {
        **law_notes(PARTIAL),
        **law_notes({"operator": "*"}, COUNTRYLESS),
        **law_notes({"country": "DE"}, OPERATORLESS),
    }
    marked = {"labels": {LAW_LABEL: LAW_REQUIRED}, "annotations": notes}
    cp.api.patch(f"{NAMESPACES}/{LAWLESS}", {"metadata": marked})


def found_namespace(api: Api, name: str, **metadata: Any) -> None:
    """A namespace in which pods can be created."""
    api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **metadata}})
    wait_for(f"namespace {name}", lambda: api.get(f"{NAMESPACES}/{name}/serviceaccounts/default"), 60, report=False)


def law_notes(law: Mapping[str, str], pool: str = "") -> dict[str, str]:
    """A law as it is written on a namespace, for all its pools or for one under an exception."""
    return {(f"{axis}.{LAW_PREFIX}/{pool}" if pool else f"{LAW_PREFIX}/{axis}"): text for axis, text in law.items()}


# -------------------------------------------------------------------------------------------------------- replicas

GPU_CONTAINER: Object = {
    "name": "server",
    "image": "server",
    "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}},
}
PLAIN_CONTAINER: Object = {"name": "server", "image": "server"}


def pod(**changed: Any) -> Object:
    """An ordinary replica: gated, with a pool, and a GPU."""
    spec: Object = {
        "schedulingGates": [{"name": GATE}],
        "containers": [GPU_CONTAINER],
        "terminationGracePeriodSeconds": 1,
    }
    labels = changed.pop("labels", {POOL_LABEL: "llama"})
    metadata = {"name": f"replica-{next(NUMBERS)}", "labels": labels, **changed.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, **changed}}


def create(me: Api, **changed: Any) -> str:
    """Create such a pod, with changes; the path."""
    made = pod(**changed)
    me.create(PODS, made)
    return f"{PODS}/{made['metadata']['name']}"


def plain(house: House, **changed: Any) -> str:
    """A pod of the bank that no scheduler looks at and that asks for nothing of ours."""
    given = {"labels": {}, "schedulingGates": [], "schedulerName": "nobody", "containers": [PLAIN_CONTAINER]}
    return create(house.cp.api, **{**given, **changed})


Term = list[Object]


def lift(house: House, who: str, terms: Iterable[Term], *, pool: str = "llama", pin: str = "") -> Object:
    """What comes of lifting a replica's gate with these terms, and in each a pin to a node."""
    path = create(house.cp.api, labels={POOL_LABEL: pool})
    return house[who].patch(path, lifting(who, terms, pin), "json", dryRun="All")


def lifting(who: str, terms: Iterable[Term], pin: str = "") -> list[Object]:
    """The patch that lifts the gate of a replica."""
    pinned = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [pin]}]} if pin else {}
    found = [{**({"matchExpressions": term} if term else {}), **pinned} for term in terms]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": found}}}
    operations: list[Object] = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    if found:
        operations.append({"op": "add", "path": "/spec/affinity", "value": affinity})
    if who == OPERATOR:
        fence = {FENCE_ANNOTATION: f"{LEADER}/{EPOCH}"}
        operations.append({"op": "add", "path": "/metadata/annotations", "value": fence})
    return operations


def rule(key: str, codes: str = "", operator: str = "In") -> Object:
    """One requirement of a term."""
    return {"key": key, "operator": operator, **({"values": codes.split(",")} if codes else {})}


def country(codes: str) -> Object:
    return rule(COUNTRY_LABEL, codes)


def part(codes: str) -> Object:
    return rule(SUBDIVISION_LABEL, codes)


OPERATED = rule(OPERATOR_LABEL, "DE")
KNOWN_PART = [rule(SUBDIVISION_LABEL, operator="Exists"), rule(SUBDIVISION_LABEL, "DE-BY", "NotIn")]
GERMAN: Term = [country("DE"), *KNOWN_PART, OPERATED]
FRENCH: Term = [country("FR"), OPERATED]
VIRGINIAN: Term = [country("US"), part("US-VA"), OPERATED]
OPERATED_ELSEWHERE: Term = [rule(OPERATOR_LABEL, operator="Exists"), rule(OPERATOR_LABEL, "US,CN", "NotIn")]
