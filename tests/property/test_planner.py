"""No history of cluster events breaks an invariant of the planner.

A history is a random cluster and a few turns: each turn something happens to it, the planner decides, and its plan is
carried out. `PENSTOCK_HISTORIES` sets how many are tried.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example
from hypothesis import strategies as st
from msgspec import structs

import builders as a
import histories
from histories import HISTORIES
from penstock.api.names import COUNTRY_LABEL
from penstock.core import residency
from penstock.core.model import (
    Domain,
    Gpu,
    GpuHealth,
    Guarantee,
    Mode,
    Node,
    Phase,
    PlacementRules,
    Pod,
    PoolKey,
    Replica,
    Residency,
    RightOfReturn,
    SoftSpread,
    Telemetry,
)
from penstock.core.placement import choice as placement
from penstock.core.placement.choice import Plan
from penstock.core.placement.fleet import Fleet, NodeView
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
from penstock.core.placement.verdicts import Reason

ADVICE_BESIDE_DECLARED = 134_021
"""A replica that reserves a whole limit, beside pending ones that declared less, in a Statistical domain: the book
pairs the largest reservation with the coolest GPU, and the plan once forgot that."""
MIG_DEARER_THAN_BOOKED = 2_261_595_579
"""MIG devices planned at more than the book then says, which leaves watts for somebody who waited."""
TURNS = 3
TOLERANCE_WATTS = 1e-6
POOLS = (PoolKey("search", "llama"), PoolKey("search", "qwen"), PoolKey("chat", "small"))
OURS = a.labelled("app", "x")
PART = "nvidia.com/mig-3g.71gb"


@dataclass
class World:
    """A small cluster that a seed makes and moves: everything random comes from `dice`."""

    dice: random.Random
    tree_dice: random.Random = field(default_factory=random.Random)
    """For what is above the rows: dice of its own, so that known histories stay what they are."""
    fate: random.Random = field(default_factory=random.Random)
    """For lies, and for pods that end: dice of its own too."""
    parts: random.Random = field(default_factory=random.Random)
    """For MIG devices: dice of its own too."""
    now_at: float = a.NOW_AT
    nodes: dict[str, Node] = field(default_factory=dict)
    telemetry: dict[str, Telemetry] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    domains: list[Domain] = field(default_factory=list)
    pools: dict[PoolKey, PlacementRules] = field(default_factory=dict)
    laws: dict[PoolKey, Residency] = field(default_factory=dict)
    waiting: dict[str, Replica] = field(default_factory=dict)
    rights: tuple[RightOfReturn, ...] = ()
    born: int = 0

    @classmethod
    def of(cls, number: int) -> World:
        fate, parts = random.Random(f"lot {number}"), random.Random(f"parts {number}")
        world = cls(random.Random(number), fate=fate, parts=parts)
        for at in range(world.dice.randint(1, 5)):
            world.add_node(f"gpu-{at}")
        world.domains = [world.domain(name) for name in ("row-a", "row-b")[: world.dice.randint(0, 2)]]
        world.grow_tree(random.Random(f"tree {number}"))
        for key in POOLS:
            world.laws[key], world.pools[key] = world.law(), world.rules()
        for _ in range(world.dice.randint(0, 3)):
            world.add_pod()
        return world

    # ---------------------------------------------------------------------------------------- what stands in it

    def add_node(self, name: str) -> None:
        dice = self.dice
        gpus = dice.choice((0, 4, 8, 8, 8))
        labels = {"zone": dice.choice("xy"), "rack": dice.choice("ab")}
        self.nodes[name] = a.node(
            name,
            gpus,
            country=dice.choice(("DE", "DE", "DE", "DE", "US", "FR", "")),
            subdivision=dice.choice(("", "", "", "DE-HE", "US-VA")),
            labels=labels if dice.random() < 0.8 else {},
            cordoned=dice.random() < 0.05,
            ready=dice.random() < 0.95,
            taints=(Taint("dedicated", "x", "NoSchedule"),) if dice.random() < 0.05 else (),
            allocatable={
                "cpu": dice.choice((8_000, 64_000, 64_000)),
                "pods": dice.choice((3, 110, 110)),
                PART: min(gpus, 1) * self.parts.choice((0, 0, 2, 16)),
            },
        )
        if dice.random() < 0.95:
            self.report(name)

    def report(self, name: str) -> None:
        dice = self.dice
        count = max(0, self.nodes[name].allocatable[a.GPU] - (dice.random() < 0.1))
        product, maximum = dice.choice(((a.H200, 700.0), (a.H200, 700.0), ("NVIDIA-L4", 72.0)))
        gpus = [self.gpu(at, product, maximum) for at in range(count)]
        self.telemetry[name] = a.telemetry(name, gpus, heard_at=self.now_at)

    def gpu(self, index: int, product: str, maximum: float) -> Gpu:
        dice = self.dice
        idle = dice.random() < 0.95
        planned = maximum * (0.11 if idle else dice.uniform(0.2, 1.0))
        return a.gpu(
            index,
            product=product,
            power_watts=planned * 0.9,
            planned_watts=None if dice.random() < 0.01 else planned,
            limit_watts=None if dice.random() < 0.1 else dice.choice((maximum, maximum * 0.7)),
            limit_age_seconds=dice.choice((0.0, 0.0, 25.0, 60.0)),
            maximum_watts=None if dice.random() < 0.01 else maximum,
            memory_used_bytes=0 if idle else 10**10,
            activity_percent=0.0 if idle else 80.0,
            throttled=dice.random() < 0.1,
            health=GpuHealth.LOST if dice.random() < 0.02 else GpuHealth.HEALTHY,
        )

    def domain(self, name: str) -> Domain:
        dice = self.dice
        return a.domain(
            name,
            dice.choice((3_000.0, 10_000.0, 60_000.0)),
            selector=a.EVERY_NODE if dice.random() < 0.3 else a.labelled("rack", "a" if name == "row-a" else "b"),
            guarantee=dice.choice((Guarantee.HARD, Guarantee.STATISTICAL)),
            margin=dice.choice((0.0, 0.1, 0.2)),
            static_watts=dice.choice((0.0, 300.0)),
            overhead_watts=dice.choice((0.0, 200.0)),
            per_gpu_watt=dice.choice((0.0, 0.55)),
        )

    def grow_tree(self, dice: random.Random) -> None:
        """Put a site, or a hall and a site, above some of the rows."""
        self.tree_dice = dice
        levels = dice.choice(((), ("site",), ("hall", "site")))
        for at, row in enumerate(self.domains):
            if levels and dice.random() < 0.8:
                self.domains[at] = replace(row, parent=levels[0])
        for at, name in enumerate(levels):
            above = a.domain(
                name,
                dice.choice((3_000.0, 10_000.0, 60_000.0)),
                selector=dice.choice((None, None, a.labelled("rack", "a"), a.EVERY_NODE)),
                parent="".join(levels[at + 1 : at + 2]),
                guarantee=dice.choice((Guarantee.HARD, Guarantee.STATISTICAL)),
                margin=dice.choice((0.0, 0.1)),
                static_watts=dice.choice((0.0, 300.0)),
                overhead_watts=dice.choice((0.0, 200.0)),
                per_gpu_watt=dice.choice((0.0, 0.55)),
            )
            self.domains.append(above)
        self.domains.sort(key=lambda one: one.name)

    def law(self) -> Residency:
        dice = self.dice
        allowed = dice.choice((None, frozenset({"DE"}), frozenset({"DE", "US"})))
        law = Residency(
            restricted=True,
            allowed_countries=allowed,
            allowed_subdivisions=dice.choice((frozenset(), frozenset({"US-VA"}))) if allowed else frozenset(),
            denied_countries=dice.choice((frozenset(), frozenset({"FR"}))),
            denied_subdivisions=dice.choice((frozenset(), frozenset({"US-VA"}))),
        )
        return law if dice.random() < 0.6 else Residency()

    def rules(self) -> PlacementRules:
        dice = self.dice
        return PlacementRules(
            gpu_products=frozenset({a.H200}) if dice.random() < 0.2 else frozenset(),
            declared_watts=dice.choice((None, 300.0, 900.0)),
            spread=(SoftSpread("zone"),) if dice.random() < 0.3 else (),
            mode=Mode.ADVISE if dice.random() < 0.1 else Mode.ENFORCE,
        )

    def scheduling(self) -> Scheduling:
        dice = self.dice
        unlikely = [dice.random() < 0.1 for _ in range(5)]
        return Scheduling(
            node_selector={"zone": "x"} if dice.random() < 0.1 else {},
            node_terms=(NodeTerm(), NodeTerm((Requirement("rack", Operator.EXISTS),))) if unlikely[0] else (),
            tolerations=(Toleration("dedicated", "Exists"),) if unlikely[1] else (),
            host_ports=(HostPort(8080),) if unlikely[2] else (),
            anti_affinity=(AntiAffinity("kubernetes.io/hostname", OURS),) if unlikely[3] else (),
            hard_spread=(HardSpread("zone", 1, OURS, dice.choice((1, 2))),) if unlikely[4] else (),
            unjudged="spec.volumes[0]" if dice.random() < 0.01 else "",
        )

    def name(self) -> str:
        self.born += 1
        return f"p{self.born:03}"

    def add_pod(self) -> None:
        """Somebody's pod that is there already, ours or not."""
        dice, name = self.dice, self.name()
        where = dice.choice(sorted(self.nodes))
        pool = dice.choice((*POOLS, None))
        free = self.nodes[where].allocatable[a.GPU] - sum(pod.gpus for pod in self.pods.values() if pod.place == where)
        running = dice.random() < 0.6
        self.pods[name] = a.pod(
            name,
            node=where if running or pool is None else "",
            gpus=dice.randint(0, max(0, min(4, free))),
            pin="" if running or pool is None else where,
            phase=Phase.RUNNING if running else Phase.PENDING,
            pool=pool.name if pool else "",
            namespace=pool.namespace if pool else "kube-system",
            terminating=dice.random() < 0.15,
            labels={"app": "x"},
            host_ports=(HostPort(8080),) if dice.random() < 0.1 else (),
        )

    def ask(self) -> None:
        dice, name = self.dice, self.name()
        pool = dice.choice(POOLS)
        self.waiting[name] = a.replica(
            name,
            gpus=dice.choice((1, 1, 2, 4, 8)),
            pool=pool,
            rules=self.pools[pool],
            residency=self.laws[pool],
            scheduling=self.scheduling(),
            labels={"app": "x"},
            priority=dice.choice((0, 0, 10)),
            since_time=float(dice.randint(0, 3)),
            newest=dice.random() < 0.7,
            avoid=frozenset({"gpu-0"}) if dice.random() < 0.1 else frozenset(),
        )
        if self.parts.random() < 0.2:
            asked = a.requests(self.parts.choice((0, 0, 1)), **{PART: self.parts.choice((1, 1, 3))})
            self.waiting[name] = replace(self.waiting[name], requests=asked)

    # ---------------------------------------------------------------------------------------- what happens to it

    def happen(self) -> None:
        for _ in range(self.dice.randint(1, 3)):
            self.dice.choice(self.happenings())()
        while self.fate.random() < 0.3:
            self.fate.choice((self.lie, self.end_pod, self.let_go))()
        for name, report in self.telemetry.items():
            if self.dice.random() < 0.9:
                self.telemetry[name] = replace(report, heard_at=self.now_at, sequence=report.sequence + 1)
        for _ in range(self.dice.randint(0, 5)):
            self.ask()

    def happenings(self) -> tuple[Callable[[], None], ...]:
        return self.pass_time, self.speak, self.start_pods, self.lose_pod, self.change_node, self.change_budget

    def pass_time(self) -> None:
        self.now_at += self.dice.choice((1.0, 12.0, 12.0, 31.0))

    def speak(self) -> None:
        for name in self.nodes:
            self.report(name)

    def start_pods(self) -> None:
        for uid, pod in self.pods.items():
            if pod.pin and not pod.node:
                self.pods[uid] = replace(pod, node=pod.pin, phase=Phase.RUNNING)

    def lose_pod(self) -> None:
        if self.pods:
            del self.pods[self.dice.choice(sorted(self.pods))]
            right = RightOfReturn("row-a", self.dice.choice(POOLS), self.dice.uniform(100, 3000), self.now_at + 300)
            self.rights = (*self.rights, right)

    def lie(self) -> None:
        """Somebody's report is not to be believed, in one way or another."""
        if self.telemetry:
            name = self.fate.choice(sorted(self.telemetry))
            self.telemetry[name] = worse(self.fate, self.telemetry[name])

    def end_pod(self) -> None:
        """A pod is asked to end, and draws on."""
        if self.pods:
            uid = self.fate.choice(sorted(self.pods))
            self.pods[uid] = replace(self.pods[uid], terminating=True)

    def let_go(self) -> None:
        """Those that were ending are gone."""
        self.pods = {uid: pod for uid, pod in self.pods.items() if not pod.terminating}

    def heal(self) -> None:
        """Everything is as well as it can be: fresh reports of idle GPUs, nodes ready, watts for all, nothing ends."""
        self.now_at += 1000.0
        self.pods = {
            uid: replace(pod, node=pod.place, phase=Phase.RUNNING)
            for uid, pod in self.pods.items()
            if not pod.terminating
        }
        self.nodes = {name: replace(node, ready=True, cordoned=False) for name, node in self.nodes.items()}
        for name, node in self.nodes.items():
            self.telemetry[name] = a.telemetry(name, node.allocatable[a.GPU], heard_at=self.now_at)
        self.domains = [replace(domain, budget_watts=1e12) for domain in self.domains]

    def could_run(self, replica: Replica, node: Node) -> bool:
        """Whether a replica without scheduling rules of its own fits on a node that is well, by counting alone."""
        taken, there = Counter[str](), [pod for pod in self.pods.values() if pod.place == node.name]
        for pod in there:
            taken.update(pod.requests)
        room = all(node.allocatable.get(name, 0) - taken[name] >= amount for name, amount in replica.requests.items())
        lawful = residency.law(replica.residency, node) is not None
        repelled = bool(node.taints) or any(pod.scheduling.anti_affinity for pod in there)
        return room and lawful and not repelled and node.name not in replica.avoid

    def change_node(self) -> None:
        name = self.dice.choice((*sorted(self.nodes), f"gpu-{len(self.nodes)}"))
        known = self.nodes.get(name)
        self.add_node(name) if known is None else self.nodes.update({name: replace(known, ready=not known.ready)})

    def change_budget(self) -> None:
        dice = self.tree_dice
        if self.domains and dice.random() < 0.2:
            at = dice.randrange(len(self.domains))
            self.domains[at] = replace(self.domains[at], parent=dice.choice(["", "site", "row-a"]))
        if self.domains:
            at = self.dice.randrange(len(self.domains))
            budget = self.domains[at].budget_watts * self.dice.choice((0.5, 2.0))
            self.domains[at] = replace(self.domains[at], budget_watts=budget)

    # ---------------------------------------------------------------------------------------- what is made of it

    def fleet(self) -> Fleet:
        return Fleet.build(
            self.nodes.values(), self.telemetry, self.pods.values(), self.domains, self.pools, now_at=self.now_at
        )

    def plan(self, fleet: Fleet) -> Plan:
        return placement.plan(fleet, tuple(self.waiting.values()), self.rights, self.now_at)

    def carry_out(self, plan: Plan) -> None:
        """Pin what was decided; nothing more where that was done already."""
        for decision in plan.decisions:
            asked = self.waiting.pop(decision.replica.key, None)
            if asked is None:
                continue
            self.pods[asked.key] = a.pod(
                asked.key,
                node="",
                pin=decision.node,
                namespace=asked.pool.namespace,
                pool=asked.pool.name,
                requests=asked.requests,
                labels=asked.labels,
                scheduling=asked.scheduling,
                host_ports=asked.scheduling.host_ports,
            )
        self.rights = plan.rights


def history(number: int) -> Iterator[tuple[World, Fleet, Plan]]:
    """Each turn of a history, before its plan is carried out."""
    world = World.of(number)
    for _ in range(TURNS):
        world.happen()
        fleet = world.fleet()
        plan = world.plan(fleet)
        yield world, fleet, plan
        world.carry_out(plan)


@pytest.fixture
def unadvised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would help those that wait is not worked out: most of a plan's work, and these tests never look at it."""
    monkeypatch.setattr(placement, "would_fit", lambda *_: "")


def over_histories(check: Callable[[int], None]) -> None:
    """Try a check on histories of its own, each made by its number."""
    run = histories.over_histories(HISTORIES // 6, number=st.integers(0, 2**48))(check)
    example(number=ADVICE_BESIDE_DECLARED)(example(number=MIG_DEARER_THAN_BOOKED)(run))()


@pytest.mark.usefixtures("unadvised")
def test_no_replica_is_placed_outside_the_law_or_on_a_node_that_is_not_well() -> None:
    def check(number: int) -> None:
        for _, fleet, plan in history(number):
            for decision in plan.decisions:
                node = fleet.node(decision.node)
                assert node is not None
                law = residency.law(decision.replica.residency, node)
                assert law == decision.law
                if decision.replica.residency.restricted:
                    assert node.labels.get(COUNTRY_LABEL)
                assert node.ready
                assert not node.cordoned
                assert decision.node not in decision.replica.avoid

    over_histories(check)


@pytest.mark.usefixtures("unadvised")
def test_no_decision_overcommits_a_node_or_a_budget() -> None:
    def check(number: int) -> None:
        for world, before, plan in history(number):
            granted = Counter[str]()
            for decision in plan.decisions:
                for domain, watts in decision.returned_watts:
                    granted[domain] += watts  # type: ignore[assignment]
            world.carry_out(plan)
            after = world.fleet()
            chosen = {decision.node for decision in plan.decisions}
            for name in chosen:
                on_it = after.rows[after.position[name]]
                asked = {key for d in plan.decisions if d.node == name for key in d.replica.requests}
                assert all(on_it.free[key] >= 0 for key in asked), (name, on_it.free)
            for at, row in enumerate(after.domains):
                raised = after.committed_watts[at] - before.committed_watts[at]
                if raised > TOLERANCE_WATTS:
                    allowed = max(after.usable_watts[at], before.committed_watts[at]) + granted[row.name]
                    assert after.committed_watts[at] <= allowed + TOLERANCE_WATTS, row

    over_histories(check)


@pytest.mark.usefixtures("unadvised")
def test_everything_above_a_domain_is_charged_at_least_what_that_domain_is() -> None:
    def check(number: int) -> None:
        for world, _, plan in history(number):
            world.carry_out(plan)
            fleet = world.fleet()
            for at, above in enumerate(fleet.context.tree.ancestors):
                own = fleet.domains[at]
                alike = [one for one in above if fleet.domains[one].guarantee is own.guarantee]
                for one in alike:
                    assert fleet.committed_watts[one] >= fleet.committed_watts[at] - TOLERANCE_WATTS, own.name
                    assert own.name not in {fleet.domains[up].name for up in above}

    over_histories(check)


@pytest.mark.usefixtures("unadvised")
def test_what_a_plan_says_it_adds_is_what_the_book_then_shows() -> None:
    def check(number: int) -> None:
        for world, before, plan in history(number):
            added = Counter[str]()
            for decision in plan.decisions:
                for domain, watts in decision.watts:
                    added[domain] += watts  # type: ignore[assignment]
            world.carry_out(plan)
            after = world.fleet()
            for at, row in enumerate(after.domains):
                raised = after.committed_watts[at] - before.committed_watts[at]
                assert raised <= added[row.name] + 1e-3
                # MIG devices are never charged more than all limits together, which their plan leaves to the book.
                if not any(pod.parts for pod in world.pods.values()):
                    assert raised == pytest.approx(added[row.name], abs=1e-3)

    over_histories(check)


def test_one_snapshot_gives_one_plan_in_whatever_order_it_is_read() -> None:
    def check(number: int) -> None:
        for world, _, plan in history(number):
            other = World(**{**vars(world), "nodes": dict(reversed(world.nodes.items()))})
            other.pods = dict(reversed(world.pods.items()))
            other.waiting = dict(reversed(world.waiting.items()))
            other.domains = world.domains[::-1]
            assert other.plan(other.fleet()) == plan

    over_histories(check)


@pytest.mark.usefixtures("unadvised")
def test_a_plan_made_again_is_the_same_and_carrying_it_out_leaves_nothing_to_do() -> None:
    def check(number: int) -> None:
        for world, fleet, plan in history(number):
            assert world.plan(fleet) == plan
            world.carry_out(plan)
            again = world.plan(world.fleet())
            before = {one.replica.key: one.reason for one in plan.waiting}
            if any(one.replica.parts for one in plan.decisions):
                # MIG devices are planned at no less than the book then says, which may be room for somebody else.
                assert {before[one.replica.key] for one in again.decisions} <= {Reason.INSUFFICIENT_POWER}
                placed = {one.replica.key for one in again.decisions}
                assert {one.replica.key for one in again.waiting} == before.keys() - placed
            else:
                assert not again.decisions
                assert {one.replica.key: one.reason for one in again.waiting} == before

    over_histories(check)


@pytest.mark.usefixtures("unadvised")
def test_a_domain_on_hold_takes_only_what_a_right_of_return_covers() -> None:
    def check(number: int) -> None:
        for world, fleet, _ in history(number):
            held = frozenset(domain.name for domain in fleet.domains if world.dice.random() < 0.5)
            asked = tuple(world.waiting.values())
            for decision in placement.plan(fleet, asked, world.rights, world.now_at, held).decisions:
                returned = dict(decision.returned_watts)
                for domain, watts in decision.watts:
                    if domain in held and decision.replica.gpus:
                        assert watts <= returned.get(domain, 0.0) + TOLERANCE_WATTS, decision

    over_histories(check)


@pytest.mark.usefixtures("unadvised")
def test_worse_evidence_never_makes_a_node_better_nor_cheaper() -> None:
    def check(number: int) -> None:
        for world, fleet, plan in history(number):
            name = world.dice.choice(sorted(world.nodes))
            if name not in world.telemetry:
                continue
            good = world.telemetry[name]
            world.telemetry[name] = worse(world.dice, good)
            after = world.fleet()
            placed = {decision.replica.key for decision in plan.decisions if decision.node == name}
            for at in range(len(fleet.domains)):
                assert after.committed_watts[at] >= fleet.committed_watts[at] - TOLERANCE_WATTS
            at = fleet.position[name]
            assert after.rows[at].free_gpus <= fleet.rows[at].free_gpus
            if not world.domains:
                alone = {key: asked for key, asked in world.waiting.items() if key not in placed}
                first = placement.plan(fleet, tuple(alone.values())[:1], (), world.now_at)
                then = placement.plan(after, tuple(alone.values())[:1], (), world.now_at)
                if [d.node for d in then.decisions] == [name]:
                    assert [d.node for d in first.decisions] == [name]
            world.telemetry[name] = good

    over_histories(check)


def worse(dice: random.Random, good: Telemetry) -> Telemetry:
    """The same report with less to believe in it."""
    ways: list[Callable[[Telemetry], Telemetry]] = [
        lambda one: replace(one, heard_at=one.heard_at - 100),
        lambda one: replace(one, contradiction="energy stands still"),
        lambda one: _first(one, health=GpuHealth.UNRESPONSIVE),
        lambda one: _first(one, planned_watts=None),
        lambda one: _first(one, limit_watts=None),
        lambda one: _first(one, limit_age_seconds=1e6),
        lambda one: _first(one, activity_percent=None),
    ]
    return dice.choice(ways)(good)


def _first(report: Telemetry, **changed: object) -> Telemetry:
    if not report.gpus:
        return report
    return replace(report, gpus=(structs.replace(report.gpus[0], **changed), *report.gpus[1:]))


def test_every_waiting_replica_has_a_reason_and_none_is_forgotten() -> None:
    def check(number: int) -> None:
        for world, fleet, plan in history(number):
            answered = [d.replica.key for d in plan.decisions] + [one.replica.key for one in plan.waiting]
            assert sorted(answered) == sorted(world.waiting)
            for one in plan.waiting:
                assert one.message
                assert one.reason == "UnjudgedConstraint" or sum(n for _, n in one.refused) == len(fleet.rows)

    over_histories(check)


def test_a_fleet_moved_on_node_by_node_equals_one_built_anew() -> None:
    def check(number: int) -> None:
        moved: Fleet | None = None
        for world, fleet, plan in history(number):
            if moved is None:
                moved = fleet
            views = {
                name: NodeView(
                    node, world.telemetry.get(name), tuple(p for p in world.pods.values() if p.place == name)
                )
                for name, node in world.nodes.items()
            }
            changed = {
                name: view
                for name, view in views.items()
                if name not in moved.position or moved.rows[moved.position[name]].view != view
            }
            moved = moved.with_nodes(changed, world.now_at, world.domains, world.pools)
            assert moved.rows == fleet.rows
            assert moved.committed_watts.tolist() == fleet.committed_watts.tolist()
            assert world.plan(moved) == plan

    over_histories(check)


@pytest.mark.usefixtures("unadvised")
def test_nothing_that_could_lawfully_run_waits_for_ever() -> None:
    def check(number: int) -> None:
        world = World.of(number)
        for _ in range(TURNS):
            world.happen()
            world.carry_out(world.plan(world.fleet()))
        world.heal()
        world.carry_out(world.plan(world.fleet()))
        for one in world.plan(world.fleet()).waiting:
            if one.replica.scheduling == Scheduling() and one.replica.rules.mode is Mode.ENFORCE:
                fits = [name for name, node in world.nodes.items() if world.could_run(one.replica, node)]
                assert not fits, (one.replica.key, one.reason, one.message)

    over_histories(check)
