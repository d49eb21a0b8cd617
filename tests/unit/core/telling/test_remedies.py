"""What is said to help does help: each suggestion is carried out here, and the replica is placed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import reduce

import pytest

import builders as a
from penstock.api.names import EVIDENCE_TIME_LABEL
from penstock.core.model import Domain, Node, PlacementRules, Pod, PoolKey, Replica, Residency, Telemetry
from penstock.core.placement import choice as placement
from penstock.core.placement.choice import Advise, Plan, at_once
from penstock.core.placement.scheduling import AntiAffinity, HostPort, Scheduling, Taint, Toleration
from penstock.core.residency.ceiling import narrowed
from penstock.core.residency.places import LABEL_NODES

ADDED = 641.0
OTHER = PoolKey("chat", "small")


@dataclass(frozen=True)
class Scene:
    """A small cluster in which the last of `asked` waits."""

    nodes: tuple[Node, ...] = (a.node(),)
    asked: tuple[Replica, ...] = (a.replica("r"),)
    pods: Iterable[Pod] = ()
    domains: tuple[Domain, ...] = ()
    telemetries: tuple[Telemetry, ...] | None = None
    now_at: float = a.NOW_AT

    def plan(self, advise: Advise = at_once) -> Plan:
        fleet = a.fleet(
            *self.nodes, telemetries=self.telemetries, pods=self.pods, domains=self.domains, now_at=self.now_at
        )
        return placement.plan(fleet, self.asked, (), 0.0, advise=advise)

    def budget_raised(self, watts: float, name: str = "row-a") -> Scene:
        raised = [
            replace(one, budget_watts=one.budget_watts + watts) if one.name == name else one for one in self.domains
        ]
        return replace(self, domains=tuple(raised))

    def first_node(self, **changed: object) -> Scene:
        return replace(self, nodes=(replace(self.nodes[0], **changed), *self.nodes[1:]))  # type: ignore[arg-type]

    def rules(self, **changed: object) -> Scene:
        last = self.asked[-1]
        changed_rules = replace(last.rules, **changed)  # type: ignore[arg-type]
        return replace(self, asked=(*self.asked[:-1], replace(last, rules=changed_rules)))

    def law(self, residency: Residency) -> Scene:
        return replace(self, asked=(*self.asked[:-1], replace(self.asked[-1], residency=residency)))

    def scheduling(self, **changed: object) -> Scene:
        last = self.asked[-1]
        return replace(self, asked=(*self.asked[:-1], replace(last, scheduling=Scheduling(**changed))))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """A scene, what the last replica is told, and the same thing done."""

    scene: Scene
    told: str
    done: Callable[[Scene], Scene] = field(default=lambda scene: scene)


def under(*demands: tuple[str, Residency]) -> tuple[Replica, ...]:
    """A replica under what several sources come to between them."""
    law = reduce(narrowed, (residency for _, residency in demands), Residency())
    return (a.replica("r", residency=law, demands=demands),)


def with_pods(*pods: Pod) -> Callable[[Scene], Scene]:
    return lambda scene: replace(scene, pods=pods)


SLICED = {"nvidia.com/gpu.replicas": "2"}


def busy(node: str, percent: float) -> Telemetry:
    """A GPU that is shared in turns; nobody has one yet, as far as the kubelet knows."""
    return a.telemetry(node, [a.gpu(uuid=f"GPU-{node}", activity_percent=percent)], pods=())


def asking(**scheduling: object) -> tuple[Replica, ...]:
    labels = {"app": "x"}
    return (a.replica("r", labels=labels, scheduling=Scheduling(**scheduling)),)  # type: ignore[arg-type]


IDLE = 8 * 80.0
TIGHT = a.domain(budget_watts=IDLE + 100, margin=0.0)
AHEAD = a.replica("ahead", 4, priority=10, pool=OTHER)
NEEDED = 2 * ADDED - 100
FRANCE = frozenset({"FR"})
FRENCH = Residency(True, allowed_countries=FRANCE)
GERMAN = Residency(True, allowed_countries=frozenset({"DE"}))
NOT_GERMAN = Residency(True, denied_countries=frozenset({"DE"}))
HOURLY = replace(GERMAN, evidence_max_age_seconds=3600.0)


def _proven(time: str, name: str = "gpu-1") -> Node:
    """A node whose place was proven then: the plan is made as 1970 begins."""
    return a.node(name, labels={EVIDENCE_TIME_LABEL: time})


PORT = HostPort(8080)

CASES = {
    "more watts, to the watt": Case(
        Scene(domains=(TIGHT,)), f"raise PowerDomain/row-a by {NEEDED + 1:.0f} W", lambda s: s.budget_raised(NEEDED + 1)
    ),
    "more watts, so that the margin is covered too": Case(
        Scene(domains=(replace(TIGHT, budget_watts=IDLE / 0.8, margin=0.2),)),
        "raise PowerDomain/row-a by 1603 W",
        lambda s: s.budget_raised(1603),
    ),
    "more watts in each of two domains that are short": Case(
        Scene(domains=(TIGHT, replace(TIGHT, name="site", budget_watts=IDLE + 200))),
        f"raise PowerDomain/row-a by {NEEDED + 1:.0f} W and raise PowerDomain/site by {NEEDED - 99:.0f} W",
        lambda s: s.budget_raised(NEEDED + 1).budget_raised(NEEDED - 99, "site"),
    ),
    "more watts, when those ahead take theirs first": Case(
        Scene(asked=(AHEAD, a.replica("r")), domains=(TIGHT,)),
        f"raise PowerDomain/row-a by {6 * ADDED - 99:.0f} W",
        lambda s: s.budget_raised(6 * ADDED - 99),
    ),
    "more watts in a domain that is over": Case(
        Scene(domains=(replace(TIGHT, budget_watts=100.0),)),
        f"raise PowerDomain/row-a by {IDLE + 2 * ADDED - 99:.0f} W",
        lambda s: s.budget_raised(IDLE + 2 * ADDED - 99),
    ),
    "as few GPUs as are missing": Case(
        Scene(pods=[a.pod("one", gpus=1), a.pod("six", gpus=6)]),
        "free 1 GPU on gpu-1",
        with_pods(a.pod("six", gpus=6)),
    ),
    "GPUs on the node where the fewest are missing": Case(
        Scene((a.node("a"), a.node("b")), pods=[a.pod("one", "a", 8), a.pod("two", "b", 4), a.pod("three", "b", 3)]),
        "free 1 GPU on b",
        with_pods(a.pod("one", "a", 8), a.pod("two", "b", 4), a.pod("three", "b", 2)),
    ),
    "resources by name and amount": Case(
        Scene(pods=[a.pod(gpus=0, requests={"cpu": 62_000, "pods": 1})]), "free 2000m of cpu on gpu-1", with_pods()
    ),
    "calm on the shared GPUs that are the least busy": Case(
        Scene(
            (a.node("a", 2, labels=SLICED), a.node("b", 2, labels=SLICED)), telemetries=(busy("a", 99), busy("b", 95))
        ),
        "wait until the shared GPUs of node b are at most 90% busy (now 95%)",
        lambda s: replace(s, telemetries=(busy("a", 99), busy("b", 90))),
    ),
    "the host port's node": Case(
        Scene(pods=[a.pod(gpus=1, host_ports=(PORT,))], asked=asking(host_ports=(PORT,))),
        "free host port 8080/TCP on node gpu-1",
        with_pods(),
    ),
    "another product": Case(
        Scene(asked=(a.replica("r", rules=PlacementRules(gpu_products=frozenset({"NVIDIA-L4"}))),)),
        "add NVIDIA-H200 to spec.gpu.products",
        lambda s: s.rules(gpu_products=frozenset({"NVIDIA-L4", a.H200})),
    ),
    "less memory": Case(
        Scene(asked=(a.replica("r", rules=PlacementRules(gpu_memory_bytes=192 * 10**9)),)),
        "lower spec.gpu.minMemory to 141G",
        lambda s: s.rules(gpu_memory_bytes=141 * 10**9),
    ),
    "another country": Case(
        Scene(asked=(a.replica("r", residency=FRENCH),)),
        "add DE to spec.residency.allowed",
        lambda s: s.law(Residency(True, allowed_countries=FRANCE | {"DE"})),
    ),
    "a country that a policy closes, which governance keeps": Case(
        Scene(asked=under(("ResidencyPolicy/ours@7", FRENCH), ("spec", Residency()))),
        "ask governance that ResidencyPolicy/ours allow DE (or a ResidencyException)",
        lambda s: s.law(Residency(True, allowed_countries=FRANCE | {"DE"})),
    ),
    "a country that a policy and the pool itself close": Case(
        Scene(asked=under(("ResidencyPolicy/ours@7", FRENCH), ("spec", FRENCH))),
        "add DE to spec.residency.allowed and ask governance that ResidencyPolicy/ours allow DE"
        " (or a ResidencyException)",
        lambda s: s.law(Residency(True, allowed_countries=FRANCE | {"DE"})),
    ),
    "a country that only one of two policies closes": Case(
        Scene(asked=under(("ResidencyPolicy/a@1", GERMAN), ("ResidencyPolicy/b@2", NOT_GERMAN))),
        "ask governance that ResidencyPolicy/b allow DE (or a ResidencyException)",
        lambda s: s.law(GERMAN),
    ),
    "a country that is denied": Case(
        Scene(asked=(a.replica("r", residency=NOT_GERMAN),)),
        "take DE out of spec.residency.denied",
        lambda s: s.law(Residency(True)),
    ),
    "a place that was proven too long ago": Case(
        Scene((_proven("19691231T225959Z"),), asked=(a.replica("r", residency=HOURLY),)),
        f"prove the place of node gpu-1 anew: {LABEL_NODES}",
        lambda s: replace(s, nodes=(_proven("19700101T000000Z"),)),
    ),
    "a place that was proven never, and of which another country is": Case(
        Scene((a.node("fr", country="FR"), a.node("de")), asked=(a.replica("r", residency=HOURLY),)),
        f"prove the place of node de anew: {LABEL_NODES}",
        lambda s: replace(s, nodes=(s.nodes[0], _proven("19700101T000000Z", "de"))),
    ),
    "a cordoned node": Case(
        Scene((a.node(cordoned=True),)), "uncordon node gpu-1", lambda s: s.first_node(cordoned=False)
    ),
    "a taint": Case(
        Scene((a.node(taints=(Taint("dedicated", "x"),)),)),
        "tolerate dedicated=x:NoSchedule",
        lambda s: s.scheduling(tolerations=(Toleration("dedicated", "Equal", "x", "NoSchedule"),)),
    ),
    "a node that is not ready": Case(
        Scene((a.node(ready=False),)), "bring node gpu-1 back to Ready", lambda s: s.first_node(ready=True)
    ),
    "an agent that went silent": Case(
        Scene(telemetries=(a.telemetry(heard_at=a.NOW_AT - 99),)),
        "bring the agent on node gpu-1 back",
        lambda s: replace(s, telemetries=(a.telemetry(),)),
    ),
    "a selector that matches nothing": Case(
        Scene(asked=asking(node_selector={"zone": "x"})),
        "take zone=x out of the template's nodeSelector",
        lambda s: s.scheduling(),
    ),
    "an anti-affinity": Case(
        Scene(
            (a.node(labels={"zone": "x"}),),
            asking(anti_affinity=(AntiAffinity("zone", a.labelled("app", "x")),)),
            [a.pod(gpus=1, labels={"app": "x"})],
        ),
        "drop the anti-affinity by zone",
        lambda s: s.scheduling(),
    ),
    "a back-off that ends by itself": Case(
        Scene(asked=(a.replica("r", avoid=frozenset({"gpu-1"})),)),
        "nothing to do: the back-off of node gpu-1 ends by itself",
        lambda s: replace(s, asked=(a.replica("r"),)),
    ),
    "two ways, each enough": Case(
        Scene(
            (a.node("a", labels={"row": "a"}), a.node("b", cordoned=True)),
            domains=(replace(TIGHT, selector=a.labelled("row", "a")),),
        ),
        f"raise PowerDomain/row-a by {NEEDED + 1:.0f} W, or uncordon node b",
        lambda s: replace(s, nodes=(s.nodes[0], replace(s.nodes[1], cordoned=False))),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_would_fit_fits(case: Case) -> None:
    before = case.scene.plan()
    assert [(one.replica.key, one.would_fit) for one in before.waiting if one.replica.key == "r"] == [("r", case.told)]
    after = case.done(case.scene).plan()
    assert "r" in after.nodes, after.waiting


def test_a_watt_less_would_not_have_fitted() -> None:
    scene = Scene(domains=(TIGHT,))
    assert "r" not in scene.budget_raised(NEEDED - 1).plan().nodes


def test_what_those_ahead_would_take_is_not_said_to_help() -> None:
    ahead = a.replica("ahead", 2, priority=10, pool=OTHER)
    scene = Scene(asked=(ahead, a.replica("r")), pods=[a.pod(gpus=7)])
    assert {one.replica.key: one.would_fit for one in scene.plan().waiting} == {
        "ahead": "free 1 GPU on gpu-1",
        "r": "",
    }


UNHELPED = {
    "GPUs that are broken, not held, cannot be freed": Scene((a.node(gpus=2),), telemetries=(a.telemetry(gpus=1),)),
    "a node that is too small cannot be made larger": Scene((a.node(allocatable={"cpu": 1}),)),
    "what an agent that never spoke would say is not known": Scene(telemetries=()),
    "an agent that contradicts itself does not help by coming back": Scene(
        telemetries=(a.telemetry(heard_at=a.NOW_AT - 99, contradiction="energy stands still"),)
    ),
    "GPUs that would then lack their watts": Scene(
        pods=[a.pod(gpus=7, node="gpu-1")], domains=(a.domain(budget_watts=100.0),)
    ),
}


@pytest.mark.parametrize("scene", UNHELPED.values(), ids=UNHELPED.keys())
def test_nothing_is_said_to_help_that_would_not(scene: Scene) -> None:
    assert [one.would_fit for one in scene.plan().waiting] == [""]


def test_in_a_hurry_nothing_more_is_tried() -> None:
    scene = CASES["two ways, each enough"].scene
    assert [one.would_fit for one in scene.plan().waiting] != [""]
    hurried = scene.plan(lambda _, work_out: work_out(lambda: True))
    assert [one.would_fit for one in hurried.waiting] == [""]
