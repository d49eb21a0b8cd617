"""An install that lists others than the chart's defaults do: whom it names may, and whom the defaults name may not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bypasses import By
from bypasses_bank import (
    BANK,
    GERMAN,
    KINDS,
    NAMESPACES,
    NODES,
    PLAIN_CONTAINER,
    PODS,
    Attacker,
    House,
    Object,
    Right,
    create,
    entitle,
    found_namespace,
    lifting,
    plain,
    pod,
)
from bypasses_pods import ALL_GPUS
from penstock.api.names import API_VERSION, COUNTRY_LABEL, GROUP, LAW_LABEL, LAW_REQUIRED
from rig.api import Api

VALUES: Mapping[str, Any] = {
    "breakGlass.groups": ["oidc:oncall", "oidc:sre"],
    "residency": {
        # The chart's groups are part of the law, and whoever runs helm here is no governance any more.
        "groups": False,
        "exemptNamespaces": ["vendor-agents"],
        "governance": {"users": ["oidc:jurist"], "groups": ["oidc:council"]},
        "placeWriters": {"users": ["oidc:surveyor"], "groups": ["oidc:site-team"]},
        "schedulers": [{"name": "second-scheduler", "users": ["system:serviceaccount:batch:second"]}],
    },
}
AS_BEFORE: Mapping[str, Any] = {"residency": {"groups": False}}
NOW_EXEMPT, NO_MORE_EXEMPT = "vendor-agents", "nvidia-gpu-operator"

_LAW = (Right(GROUP, "residencypolicies", "create"), Right("", "namespaces", "get patch"))
_NODES = (Right("", "nodes", "get patch"),)
_PODS = (Right("", "pods", "create get patch"),)
_BINDINGS = (Right("", "pods/binding bindings", "create"),)

PEOPLE: Mapping[str, Attacker] = {
    "a listed jurist": Attacker("oidc:jurist", _LAW, everywhere=True),
    "one of a listed council": Attacker("carla", _LAW, ("oidc:council",), everywhere=True),
    "one of the default governance": Attacker("gus", _LAW, ("penstock:governance",), everywhere=True),
    "a listed surveyor": Attacker("oidc:surveyor", _NODES, everywhere=True),
    "one of a listed site team": Attacker("sita", _NODES, ("oidc:site-team",), everywhere=True),
    "one of the default place writers": Attacker("pia", _NODES, ("penstock:place-writers",), everywhere=True),
    "a listed scheduler": Attacker("system:serviceaccount:batch:second", _BINDINGS),
    "the default scheduler": Attacker("system:kube-scheduler", _BINDINGS),
    "one of the listed break-glass group": Attacker("sam", _PODS, ("oidc:sre",), everywhere=True),
    "one of the default break-glass group": Attacker("ben", _PODS, ("penstock:break-glass",), everywhere=True),
    "who may write pods": Attacker("petra", _PODS, everywhere=True),
    "the cluster's administrator": Attacker("root", groups=("system:masters",)),
}
TRIED: Mapping[str, str] = {"dryRun": "All"}

Try = Callable[[House, Api], object]


@dataclass(frozen=True)
class Row:
    """Who tries what, and by which policy that is refused; None where it is not."""

    who: str
    tries: str
    attempt: Try
    refused_by: By | None = None


def write_a_policy(_: House, me: Api) -> object:
    rule = {"namespaceSelector": {"matchLabels": {"sector": "toys"}}, "allowed": ["DE"]}
    made = {"apiVersion": API_VERSION, "kind": "ResidencyPolicy", "metadata": {"name": "toys"}, "spec": rule}
    return me.create(f"{KINDS}/residencypolicies", made, **TRIED)


def free_the_bank(_: House, me: Api) -> object:
    return me.patch(f"{NAMESPACES}/{BANK}", {"metadata": {"labels": {LAW_LABEL: None}}}, **TRIED)


def move_a_node(_: House, me: Api) -> object:
    return me.patch(f"{NODES}/gpu-us", {"metadata": {"labels": {COUNTRY_LABEL: "DE"}}}, **TRIED)


def bind(house: House, me: Api) -> object:
    path = plain(house)
    return me.create(f"{path}/binding", _binding(path), **TRIED)


def bind_by_the_old_endpoint(house: House, me: Api) -> object:
    return me.create(f"{NAMESPACES}/{BANK}/bindings", _binding(plain(house)), **TRIED)


def _binding(path: str) -> Object:
    target = {"apiVersion": "v1", "kind": "Node", "name": "gpu-de"}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": path.rpartition("/")[2]}, "target": target}


def leave_it_to(scheduler: str) -> Try:
    """A replica for this scheduler."""
    return lambda _, me: me.create(PODS, pod(schedulerName=scheduler), **TRIED)


def lift_a_gate(house: House, me: Api) -> object:
    path = create(house.cp.api, schedulerName="second-scheduler")
    return me.patch(path, lifting("somebody", [GERMAN]), "json", **TRIED)


def see_every_gpu_in(namespace: str) -> Try:
    """A vendor's agent, which asks for no GPU and sees all of them."""
    agent = {"labels": {}, "schedulingGates": [], "containers": [{**PLAIN_CONTAINER, "env": ALL_GPUS}]}
    return lambda _, me: me.create(f"{NAMESPACES}/{namespace}/pods", pod(**agent), **TRIED)


def _each(tries: str, attempt: Try, *may: str, by: By, may_not: tuple[str, ...]) -> tuple[Row, ...]:
    listed = (Row(who, tries, attempt) for who in may)
    return (*listed, *(Row(who, tries, attempt, by) for who in may_not))


_JURISTS = ("a listed jurist", "one of a listed council")
_NO_JURISTS = ("one of the default governance", "the cluster's administrator")
ROWS = (
    *_each("writes a policy", write_a_policy, *_JURISTS, by=By.LAWS, may_not=_NO_JURISTS),
    *_each("frees the bank", free_the_bank, *_JURISTS, by=By.NAMESPACES, may_not=_NO_JURISTS),
    *_each(
        "says where a node stands",
        move_a_node,
        *("a listed surveyor", "one of a listed site team"),
        by=By.PLACES,
        may_not=("one of the default place writers", "the cluster's administrator"),
    ),
    *_each("binds a pod", bind, "a listed scheduler", by=By.BINDING, may_not=("the default scheduler",)),
    *_each(
        "binds a pod by the old endpoint",
        bind_by_the_old_endpoint,
        "a listed scheduler",
        by=By.BINDING,
        may_not=("the default scheduler",),
    ),
    Row("who may write pods", "leaves a replica to the listed scheduler", leave_it_to("second-scheduler")),
    Row("who may write pods", "leaves one to the default one", leave_it_to("default-scheduler"), By.CREATION),
    *_each(
        "lifts a gate, law kept",
        lift_a_gate,
        "one of the listed break-glass group",
        by=By.GATE,
        may_not=("one of the default break-glass group",),
    ),
    Row("who may write pods", "sees every GPU where the list exempts", see_every_gpu_in(NOW_EXEMPT)),
    Row("who may write pods", "sees them where the default does", see_every_gpu_in(NO_MORE_EXEMPT), By.CREATION),
)


def furnish(house: House) -> Mapping[str, Api]:
    """Everybody with the rights named, and two namespaces under the law of which one is exempt."""
    for name in (NOW_EXEMPT, NO_MORE_EXEMPT):
        found_namespace(house.cp.api, name, labels={LAW_LABEL: LAW_REQUIRED})
    for number, one in enumerate(PEOPLE.values()):
        entitle(house.cp.api, f"listed-{number}", one)
    return {name: house.cp.api_as(house.cp.user(one.user, one.groups)) for name, one in PEOPLE.items()}
