"""Each filter by name: which node it is the first to refuse, and what it lets through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

import builders as a
from penstock.core.model import Domain, GpuHealth, Node, PlacementRules, Pod, PodGpus, Replica, Residency, Telemetry
from penstock.core.placement import choice as placement
from penstock.core.placement.scheduling import (
    AntiAffinity,
    HardSpread,
    HostPort,
    NodeTerm,
    Operator,
    Requirement,
    Scheduling,
    Taint,
    Toleration,
)
from penstock.core.placement.verdicts import Filter, Reason

OURS = a.labelled("app", "x")
LABELS = {"app": "x"}


@dataclass(frozen=True)
class Case:
    """One replica of two GPUs and one node; `refused` by which filter, or placed."""

    refused: Filter | None
    reason: Reason | None = None
    node: Node = a.node()
    telemetry: Telemetry | None = field(default_factory=a.telemetry)
    pods: Iterable[Pod] = ()
    domains: Iterable[Domain] = ()
    replica: Replica = field(default_factory=a.replica)
    held: frozenset[str] = frozenset()


def asking(**scheduling: object) -> Replica:
    return a.replica(labels=LABELS, scheduling=Scheduling(**scheduling))  # type: ignore[arg-type]


def under(**rules: object) -> Replica:
    return a.replica(rules=PlacementRules(**rules))  # type: ignore[arg-type]


def term(key: str, operator: Operator, *values: str) -> NodeTerm:
    return NodeTerm((Requirement(key, operator, values),))


GERMANY = Residency(restricted=True, allowed_countries=frozenset({"DE"}))
ZONED = a.node(labels={"zone": "x"})
PORT = HostPort(8080)
NAMED = NodeTerm(fields=(Requirement("metadata.name", Operator.IN, ("gpu-1",)),))
OTHER_NAME = NodeTerm(fields=(Requirement("metadata.name", Operator.IN, ("gpu-2",)),))
UNKNOWN_FIELD = NodeTerm(fields=(Requirement("metadata.uid", Operator.EXISTS),))
PEER = a.pod("peer", gpus=1, labels=LABELS)
APART = AntiAffinity("zone", OURS)
EVEN = HardSpread("zone", 1, OURS)
SMALL = tuple(a.gpu(index, memory_total_bytes=80 * 10**9) for index in range(8))
SLICED = a.node(gpus=4, labels={"nvidia.com/gpu.replicas": "2"})
PART = "nvidia.com/mig-1g.18gb"
WAKING = 0.15 * 721.0 - 80.0
PARTED = a.node(gpus=7, allocatable={PART: 7})
SEVEN = tuple(a.gpu(index) for index in range(1, 8))
ONE, ONE_WHOLE = a.pod("one", gpus=1), a.pod("whole", gpus=1)
ON_1, ON_0 = PodGpus("search", "one", ("GPU-1",)), PodGpus("search", "whole", ("GPU-0",))
MIXED = (*(a.gpu(index) for index in range(7)), a.gpu(7, product="NVIDIA-L4"))

CASES = {
    "a node without fault is taken": Case(None),
    "a node of another country": Case(
        Filter.LAWFUL_PLACE, Reason.NO_LAWFUL_PLACE, a.node(country="US"), replica=a.replica(residency=GERMANY)
    ),
    "a node of unknown place": Case(
        Filter.LAWFUL_PLACE, Reason.NO_LAWFUL_PLACE, a.node(country=""), replica=a.replica(residency=GERMANY)
    ),
    "a node whose subdivision denies its country": Case(
        Filter.LAWFUL_PLACE,
        Reason.NO_LAWFUL_PLACE,
        a.node(country="DE", subdivision="US-VA"),
        replica=a.replica(residency=GERMANY),
    ),
    "a node that is not ready": Case(Filter.HEALTHY, Reason.NODE_NOT_READY, a.node(ready=False)),
    "a node that never spoke": Case(Filter.HEALTHY, Reason.TELEMETRY_STALE, telemetry=None),
    "stale telemetry": Case(Filter.HEALTHY, Reason.TELEMETRY_STALE, telemetry=a.telemetry(heard_at=a.NOW_AT - 31)),
    "contradictory telemetry": Case(
        Filter.HEALTHY, Reason.TELEMETRY_STALE, telemetry=a.telemetry(contradiction="energy stands still")
    ),
    "a cordoned node": Case(Filter.TAINTS, Reason.TAINTED, a.node(cordoned=True)),
    "a cordon that is tolerated": Case(
        None,
        node=a.node(cordoned=True),
        replica=asking(tolerations=(Toleration("node.kubernetes.io/unschedulable", "Exists"),)),
    ),
    "a taint": Case(Filter.TAINTS, Reason.TAINTED, a.node(taints=(Taint("gpu", "", "NoExecute"),))),
    "a nodeSelector that matches": Case(None, node=ZONED, replica=asking(node_selector={"zone": "x"})),
    "a nodeSelector that does not": Case(
        Filter.AFFINITY, Reason.AFFINITY_UNSATISFIED, replica=asking(node_selector={"zone": "x"})
    ),
    "terms are alternatives": Case(
        None,
        node=ZONED,
        replica=asking(node_terms=(term("zone", Operator.IN, "y"), term("zone", Operator.EXISTS))),
    ),
    "no term matches": Case(
        Filter.AFFINITY,
        Reason.AFFINITY_UNSATISFIED,
        ZONED,
        replica=asking(node_terms=(term("zone", Operator.IN, "y"),)),
    ),
    "an empty term matches nothing": Case(
        Filter.AFFINITY, Reason.AFFINITY_UNSATISFIED, replica=asking(node_terms=(NodeTerm(),))
    ),
    "a term that names the node": Case(None, replica=asking(node_terms=(NAMED,))),
    "a term that names another node": Case(
        Filter.AFFINITY, Reason.AFFINITY_UNSATISFIED, replica=asking(node_terms=(OTHER_NAME,))
    ),
    "a field that nodes cannot be selected by": Case(
        Filter.AFFINITY, Reason.AFFINITY_UNSATISFIED, replica=asking(node_terms=(UNKNOWN_FIELD,))
    ),
    "anti-affinity to a replica that is there": Case(
        Filter.AFFINITY, Reason.AFFINITY_UNSATISFIED, ZONED, pods=[PEER], replica=asking(anti_affinity=(APART,))
    ),
    "anti-affinity to one that is only pinned there": Case(
        Filter.AFFINITY,
        Reason.AFFINITY_UNSATISFIED,
        ZONED,
        pods=[replace(PEER, node="", pin="gpu-1")],
        replica=asking(anti_affinity=(APART,)),
    ),
    "anti-affinity to one that is still ending": Case(
        Filter.AFFINITY,
        Reason.AFFINITY_UNSATISFIED,
        ZONED,
        pods=[replace(PEER, terminating=True)],
        replica=asking(anti_affinity=(APART,)),
    ),
    "anti-affinity that the other one has": Case(
        Filter.AFFINITY,
        Reason.AFFINITY_UNSATISFIED,
        ZONED,
        pods=[replace(PEER, labels={}, scheduling=Scheduling(anti_affinity=(APART,)))],
        replica=asking(),
    ),
    "anti-affinity in another namespace is nothing to us": Case(
        None, node=ZONED, pods=[replace(PEER, namespace="chat")], replica=asking(anti_affinity=(APART,))
    ),
    "anti-affinity by a key that the node lacks": Case(None, pods=[PEER], replica=asking(anti_affinity=(APART,))),
    "hard spread needs its key on the node": Case(
        Filter.AFFINITY, Reason.AFFINITY_UNSATISFIED, replica=asking(hard_spread=(EVEN,))
    ),
    "hard spread over one value alone is always even": Case(
        None, node=ZONED, pods=[PEER], replica=asking(hard_spread=(EVEN,))
    ),
    "hard spread with minDomains: the pin will be the only eligible value": Case(
        Filter.AFFINITY,
        Reason.AFFINITY_UNSATISFIED,
        ZONED,
        pods=[PEER],
        replica=asking(hard_spread=(replace(EVEN, min_domains=2),)),
    ),
    "hard spread leaves out what is ending": Case(
        None,
        node=ZONED,
        pods=[replace(PEER, terminating=True)],
        replica=asking(hard_spread=(replace(EVEN, min_domains=2),)),
    ),
    "no cpu left after every pod": Case(
        Filter.RESOURCES,
        Reason.INSUFFICIENT_RESOURCES,
        pods=[a.pod(pool="", gpus=0, requests={"cpu": 60_001, "pods": 1})],
    ),
    "no pod slot left": Case(
        Filter.RESOURCES, Reason.INSUFFICIENT_RESOURCES, a.node(allocatable={"pods": 1}), pods=[a.pod(gpus=0)]
    ),
    "a resource that the node does not have": Case(
        Filter.RESOURCES,
        Reason.INSUFFICIENT_RESOURCES,
        replica=a.replica(requests=a.requests(2, **{"example.com/nic": 1})),
    ),
    "a request of nothing needs nothing": Case(
        None, replica=a.replica(requests=a.requests(2, **{"example.com/nic": 0}))
    ),
    "a host port that is taken": Case(
        Filter.HOST_PORTS,
        Reason.HOST_PORT_TAKEN,
        pods=[a.pod(gpus=0, host_ports=(HostPort(8080, ip="10.0.0.1"),))],
        replica=asking(host_ports=(PORT,)),
    ),
    "another product": Case(
        Filter.GPU_MODEL, Reason.NO_MATCHING_GPU, replica=under(gpu_products=frozenset({"NVIDIA-L4"}))
    ),
    "one GPU of another product among them": Case(
        Filter.GPU_MODEL,
        Reason.NO_MATCHING_GPU,
        telemetry=a.telemetry(gpus=MIXED),
        replica=under(gpu_products=frozenset({a.H200})),
    ),
    "too little memory per GPU": Case(
        Filter.GPU_MODEL,
        Reason.NO_MATCHING_GPU,
        telemetry=a.telemetry(gpus=SMALL),
        replica=under(gpu_memory_bytes=81 * 10**9),
    ),
    "enough memory per GPU": Case(None, telemetry=a.telemetry(gpus=SMALL), replica=under(gpu_memory_bytes=80 * 10**9)),
    "too few GPUs left": Case(Filter.FREE_GPUS, Reason.INSUFFICIENT_GPUS, pods=[a.pod(gpus=7)]),
    "a pin takes GPUs as a bound pod does": Case(
        Filter.FREE_GPUS, Reason.INSUFFICIENT_GPUS, pods=[a.pod(node="", pin="gpu-1", gpus=7)]
    ),
    "a lost GPU is not free": Case(
        Filter.FREE_GPUS,
        Reason.INSUFFICIENT_GPUS,
        a.node(gpus=2),
        a.telemetry(gpus=(a.gpu(0), a.gpu(1, health=GpuHealth.LOST))),
    ),
    "a GPU that the agent does not see is not free": Case(
        Filter.FREE_GPUS, Reason.INSUFFICIENT_GPUS, a.node(gpus=2), a.telemetry(gpus=1)
    ),
    "a GPU whose maximum is unknown is not free": Case(
        Filter.FREE_GPUS,
        Reason.INSUFFICIENT_GPUS,
        a.node(gpus=2),
        a.telemetry(gpus=(a.gpu(0), a.gpu(1, maximum_watts=None))),
    ),
    "a GPU that works for nobody we know is not free": Case(
        Filter.FREE_GPUS,
        Reason.INSUFFICIENT_GPUS,
        a.node(gpus=2),
        a.telemetry(gpus=(a.gpu(0), a.gpu(1, activity_percent=50.0))),
    ),
    "a GPU whose memory somebody holds is not free": Case(
        Filter.FREE_GPUS,
        Reason.INSUFFICIENT_GPUS,
        a.node(gpus=2),
        a.telemetry(gpus=(a.gpu(0), a.gpu(1, memory_used_bytes=10**9))),
    ),
    "a GPU that is busy for its own pod takes no other's place": Case(
        None,
        node=a.node(gpus=4),
        telemetry=a.telemetry(gpus=(a.gpu(0, activity_percent=90.0), a.gpu(1), a.gpu(2), a.gpu(3))),
        pods=[a.pod(gpus=1)],
    ),
    "a pin has not started, so the busy GPU is somebody else's": Case(
        Filter.FREE_GPUS,
        Reason.INSUFFICIENT_GPUS,
        a.node(gpus=3),
        a.telemetry(gpus=(a.gpu(0, activity_percent=90.0), a.gpu(1), a.gpu(2))),
        pods=[a.pod(node="", pin="gpu-1", gpus=1)],
    ),
    "shared GPUs of which one is too busy": Case(
        Filter.SHARED_ACTIVITY,
        Reason.SHARED_GPUS_BUSY,
        SLICED,
        a.telemetry(gpus=(a.gpu(0), a.gpu(1, activity_percent=91.0)), pods=(ON_1,)),
        [ONE],
    ),
    "shared GPUs as busy as they may be": Case(
        None, None, SLICED, a.telemetry(gpus=(a.gpu(0), a.gpu(1, activity_percent=90.0)), pods=(ON_1,)), [ONE]
    ),
    "shared GPUs whose activity nobody knows": Case(
        Filter.SHARED_ACTIVITY,
        Reason.SHARED_GPUS_BUSY,
        SLICED,
        a.telemetry(gpus=(a.gpu(0), a.gpu(1, activity_percent=None))),
    ),
    "a shared GPU on which everybody is busy, and no room left, keeps nobody from the other": Case(
        None,
        None,
        SLICED,
        a.telemetry(
            gpus=(a.gpu(0), a.gpu(1, activity_percent=100.0)), pods=(ON_1, PodGpus("search", "two", ("GPU-1",)))
        ),
        [ONE, a.pod("two", gpus=1)],
    ),
    "a busy GPU that is not shared keeps nobody from the others": Case(
        None, telemetry=a.telemetry(gpus=(a.gpu(0, activity_percent=100.0), *SEVEN), pods=(ON_0,)), pods=[ONE_WHOLE]
    ),
    "a pool without a ceiling": Case(
        None,
        None,
        SLICED,
        a.telemetry(gpus=(a.gpu(0), a.gpu(1, activity_percent=None))),
        replica=under(shared_activity_ceiling=1.0),
    ),
    "a part of a GPU by MIG that is too busy": Case(
        Filter.SHARED_ACTIVITY,
        Reason.SHARED_GPUS_BUSY,
        PARTED,
        a.telemetry(gpus=(a.gpu(0, mig=True, activity_percent=95.0), *SEVEN)),
        replica=a.replica(requests={PART: 1, "pods": 1}),
    ),
    "a whole GPU beside one that is divided and busy": Case(
        None, None, PARTED, a.telemetry(gpus=(a.gpu(0, mig=True, activity_percent=95.0), *SEVEN), pods=())
    ),
    "a GPU of a node on which all are divided": Case(
        Filter.SHARED_ACTIVITY,
        Reason.SHARED_GPUS_BUSY,
        a.node(gpus=2),
        a.telemetry(gpus=(a.gpu(0, mig=True, activity_percent=95.0), a.gpu(1, mig=True)), pods=()),
    ),
    "a replica without a GPU on shared ones that are busy": Case(
        None,
        None,
        SLICED,
        a.telemetry(gpus=(a.gpu(0), a.gpu(1, activity_percent=None))),
        replica=a.replica(gpus=0),
    ),
    "no watts left": Case(
        Filter.WATTS, Reason.INSUFFICIENT_POWER, domains=[a.domain(budget_watts=8 * 80 + 2 * 641 - 1)]
    ),
    "watts to the last one": Case(None, domains=[a.domain(budget_watts=8 * 80 + 2 * 641)]),
    "watts in one of two domains alone": Case(
        Filter.WATTS, Reason.INSUFFICIENT_POWER, domains=[a.domain("row-a"), a.domain("site", budget_watts=700.0)]
    ),
    "a domain that is over takes not even what costs nothing": Case(
        Filter.WATTS,
        Reason.INSUFFICIENT_POWER,
        telemetry=a.telemetry(gpus=[a.gpu(index, planned_watts=700.0, limit_watts=600.0) for index in range(8)]),
        domains=[a.domain(budget_watts=5000.0)],
    ),
    "a domain on hold takes nothing new, whatever room it has": Case(
        Filter.POWER_HOLD, Reason.POWER_HOLD, domains=[a.domain("row-a"), a.domain("site")], held=frozenset({"site"})
    ),
    "what asks for no GPU is placed in a domain on hold": Case(
        None, domains=[a.domain()], held=frozenset({"row-a"}), replica=a.replica(gpus=0)
    ),
    "a MIG device that would pass the budget, whatever else is idle": Case(
        Filter.WATTS,
        Reason.INSUFFICIENT_POWER,
        PARTED,
        telemetry=a.telemetry(gpus=8),
        domains=[a.domain(budget_watts=8 * 80.0 + 721.0 / 7 + 6 / 7 * WAKING - 1)],
        replica=a.replica(requests={PART: 1, "pods": 1}),
    ),
    "one that just fits": Case(
        None,
        node=PARTED,
        telemetry=a.telemetry(gpus=8),
        domains=[a.domain(budget_watts=8 * 80.0 + 721.0 / 7 + 6 / 7 * WAKING + 1e-6)],
        replica=a.replica(requests={PART: 1, "pods": 1}),
    ),
    "a MIG device in a domain on hold": Case(
        Filter.POWER_HOLD,
        Reason.POWER_HOLD,
        PARTED,
        telemetry=a.telemetry(gpus=8),
        domains=[a.domain()],
        held=frozenset({"row-a"}),
        replica=a.replica(requests={PART: 1, "pods": 1}),
    ),
    "a node under back-off": Case(Filter.BACK_OFF, Reason.BACK_OFF, replica=a.replica(avoid=frozenset({"gpu-1"}))),
    "a node refused by several counts for the first in order": Case(
        Filter.HEALTHY,
        Reason.TELEMETRY_STALE,
        a.node(cordoned=True, gpus=0),
        telemetry=None,
        domains=[a.domain(budget_watts=1.0)],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_first_refusal(case: Case) -> None:
    heard = [case.telemetry] if case.telemetry else []
    fleet = a.fleet(case.node, telemetries=heard, pods=case.pods, domains=case.domains)
    plan = placement.plan(fleet, [case.replica], (), 0.0, case.held)
    if case.refused is None:
        assert [decision.node for decision in plan.decisions] == ["gpu-1"], plan.waiting
    else:
        assert [(one.refused, one.reason) for one in plan.waiting] == [(((case.refused, 1),), case.reason)]


def test_every_filter_has_a_case_that_it_refuses() -> None:
    assert {case.refused for case in CASES.values()} == {*Filter} - {Filter.NONE} | {None}


def test_hard_spread_looks_at_the_nodes_that_the_template_admits() -> None:
    nodes = [a.node("gpu-1", labels={"zone": "x"}), a.node("gpu-2", labels={"zone": "y", "old": "yes"})]
    young = NodeTerm((Requirement("old", Operator.DOES_NOT_EXIST),))
    fleet = a.fleet(*nodes, pods=[PEER])
    even = placement.plan(fleet, [asking(hard_spread=(EVEN,))], (), 0.0)
    alone = placement.plan(fleet, [asking(hard_spread=(EVEN,), node_terms=(young,))], (), 0.0)
    assert [decision.node for decision in (*even.decisions, *alone.decisions)] == ["gpu-2", "gpu-1"]


def test_decisions_of_one_plan_keep_each_other_away() -> None:
    nodes = [a.node(f"gpu-{number}", labels={"zone": zone}) for number, zone in enumerate("xxy")]
    apart = asking(anti_affinity=(APART,))
    plan = placement.plan(a.fleet(*nodes), [replace(apart, key=key) for key in "abc"], (), 0.0)
    assert [(decision.replica.key, decision.node) for decision in plan.decisions] == [("a", "gpu-0"), ("b", "gpu-2")]
    assert [one.replica.key for one in plan.waiting] == ["c"]


def test_of_two_mig_devices_in_one_plan_the_second_finds_the_watts_of_the_first_taken() -> None:
    room = a.domain(budget_watts=8 * 80.0 + 1.5 * 721.0 / 7)
    fleet = a.fleet(PARTED, telemetries=[a.telemetry(gpus=8)], domains=[room])
    parts = [a.replica(key, requests={PART: 1, "pods": 1}) for key in "ab"]
    plan = placement.plan(fleet, parts, (), 0.0)
    assert [one.replica.key for one in plan.decisions] == ["a"]
    assert [one.reason for one in plan.waiting] == [Reason.INSUFFICIENT_POWER]


def test_a_mig_device_is_planned_at_the_limit_of_the_gpu_that_a_listed_one_is_on() -> None:
    node = a.node(gpus=3, allocatable={PART: 7})
    capped = (a.gpu(0), *(a.gpu(index, limit_watts=400.0) for index in range(1, 4)))
    heard = a.telemetry(gpus=capped, pods=(PodGpus("search", "first", ("GPU-0",), shares=(3 / 7,)),))
    first = a.pod("first", requests={"nvidia.com/mig-3g.71gb": 1})
    fleet = a.fleet(node, telemetries=[heard], pods=[first], domains=[a.domain()])
    (decision,) = placement.plan(fleet, [a.replica(requests={PART: 1, "pods": 1})], (), 0.0).decisions
    second = a.pod("second", node="", pin="gpu-1", requests={PART: 1})
    after = a.fleet(node, telemetries=[heard], pods=[first, second], domains=[a.domain()])
    assert dict(decision.watts)["row-a"] == pytest.approx(float(after.committed_watts[0] - fleet.committed_watts[0]))


def test_a_decision_takes_its_host_port() -> None:
    wanting = asking(host_ports=(PORT,))
    plan = placement.plan(a.fleet(a.node()), [replace(wanting, key=key) for key in "ab"], (), 0.0)
    assert [one.reason for one in plan.waiting] == [Reason.HOST_PORT_TAKEN]
