"""The power book: what each domain has promised, to whom, and what is left.

`committed(domain) = static + Σ nodes [ overhead + Σ GPU (1 + perGPUWatt) × max(reserved, planned) ]`, where `power`
says what each GPU has reserved and what it is planned to draw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from penstock.core.model import Domain, Guarantee, Pod, PoolKey
from penstock.core.placement.columns import Floats
from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.row import Row
from penstock.core.power import pressure
from penstock.core.power.budget import Change, next_change, watts_at
from penstock.core.power.node_watts import (
    HolderKind,
    NodePower,
    booked,
    hardest_watts,
    pod_hold,
    reservation_watts_per_gpu,
)
from penstock.core.power.pressure import Watts

NOTHING_DRAWN: Watts = MappingProxyType({})
SHOWN_WATTS = 1e-3
"""Less than this is what floating point loses, and no overhead."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds watts of a domain. `kind` is `Pool`, `Foreign`, `Idle`, `Overhead` or `Static`."""

    kind: HolderKind
    name: str
    watts: float


@dataclass(frozen=True, slots=True)
class Statement:
    """One domain's account at one moment, in IT watts at its PDU, with everything in the domains below it.

    `holders` add up to `committed_watts`. `floor_watts` is what it is charged with nothing placed, `draw_watts` what
    its ladder goes by: what its GPUs draw now with their overhead, by the last word that could be believed.
    `shared_nodes` are charged
    here and in the other domains named beside them, which are neither above nor below this one.
    """

    name: str
    guarantee: str
    budget_watts: float
    """In force now: what the ladder goes by."""
    usable_watts: float
    """What admission goes by: the lowest budget of the next 15 minutes, less the margin."""
    committed_watts: float
    floor_watts: float
    draw_watts: float
    nodes: int
    holders: tuple[Holder, ...] = ()
    stale_nodes: tuple[str, ...] = ()
    """GPU nodes whose maximum nobody knows: their charge is too low, and nothing is placed there."""
    shared_nodes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    parent: str = ""
    children: tuple[str, ...] = ()
    """The domains right below."""
    admission_budget_watts: float | None = None
    """The lowest budget of the next 15 minutes, where that is not the one in force."""
    next_change: Change | None = None
    larger_children: tuple[tuple[str, float], ...] = ()
    """Children whose own budget is above this one: this one binds first."""
    unconfirmed: bool = False

    @property
    def headroom_watts(self) -> float:
        """What may still be promised; below zero where the domain is over."""
        return self.usable_watts - self.committed_watts

    @property
    def over_watts(self) -> float:
        return max(0.0, -self.headroom_watts)


def statements(fleet: Fleet, now_time: float, drawn: Watts = NOTHING_DRAWN) -> tuple[Statement, ...]:
    """Every domain's account, by name. `now_time` (Unix) says which budgets are in force.

    `drawn` is what the ladder takes the domains to draw; where it has not looked at one yet, the fleet's own word.
    """
    accounts = Accounts(fleet)
    if any(domain.name not in drawn for domain in fleet.domains):
        drawn = {**pressure.draw(fleet, pressure.remembered(fleet, {})).watts, **drawn}
    return tuple(_statement(accounts, at, now_time, drawn) for at in range(len(fleet.domains)))


def statement(fleet: Fleet, domain: str, now_time: float) -> Statement | None:
    """One domain's account; `None` for a domain that the fleet does not know."""
    return next((one for one in statements(fleet, now_time) if one.name == domain), None)


def domain_names(fleet: Fleet, node: str) -> tuple[str, ...]:
    """The domains that charge a node; none: it has no budget."""
    at = fleet.position.get(node)
    return () if at is None else tuple(fleet.domains[domain].name for domain in fleet.rows[at].domains)


def over_budget(fleet: Fleet, nodes: Iterable[str]) -> tuple[str, ...]:
    """The domains that charge one of these nodes and have more committed than they may use, by name."""
    rows = (fleet.rows[at] for node in nodes if (at := fleet.position.get(node)) is not None)
    charging = {domain for row in rows for domain in row.domains}
    # The domains are in the order of their names.
    return tuple(
        fleet.domains[at].name for at in sorted(charging) if fleet.committed_watts[at] > fleet.usable_watts[at]
    )


def nodes_without_domain(fleet: Fleet) -> tuple[str, ...]:
    """GPU nodes that no domain selects: they have no budget."""
    return tuple(row.view.node.name for row in fleet.rows if not row.domains and row.power.planned_watts)


def raised_watts(fleet: Fleet, pool: PoolKey, nodes: Iterable[str]) -> float | None:
    """Per GPU, what a pool's replicas were measured at and so reserve on these nodes, in place of the less that it
    declares; None where nothing is raised. Where every domain is Hard, declared watts are not what is reserved.
    """
    rows = (fleet.rows[at] for node in nodes if (at := fleet.position.get(node)) is not None)
    by_watts = any(rule.guarantee is not Guarantee.HARD for row in rows for rule in row.rules)
    return fleet.context.pools.measured_watts.get(pool) if by_watts else None


def reservation_watts(fleet: Fleet, pod: Pod) -> tuple[tuple[str, float], ...]:
    """What a placed pod holds in each domain of its node, with overhead: what it has a right to come back to.

    Its reservation in full, idle draw included, so that it suffices on a cooler node too.
    """
    at = fleet.position.get(pod.place)
    if at is None or not (pod.gpus or pod.parts):
        return ()
    row = fleet.rows[at]
    held = ((rule, _held(fleet, row.power, rule, pod)) for rule in row.rules)
    return tuple((rule.name, (1.0 + rule.per_gpu_watt) * watts) for rule, watts in held)


def held_watts(fleet: Fleet, pod: Pod) -> float:
    """What a placed pod's GPUs reserve, without overhead; zero for one whose node is unknown."""
    at = fleet.position.get(pod.place)
    if at is None or not (pod.gpus or pod.parts):
        return 0.0
    row = fleet.rows[at]
    return max((_held(fleet, row.power, domain, pod) for domain in _rules_of(row)), default=0.0)


def _rules_of(row: Row) -> tuple[Domain, ...]:
    # In no domain a replica still holds its GPUs' limit.
    return row.rules or (Domain(""),)


def _held(fleet: Fleet, power: NodePower, domain: Domain, pod: Pod) -> float:
    hold = pod_hold(fleet.context.pools, pod)
    parts_watts = hold.parts * hardest_watts(power) + hold.rest * power.idle_watts
    if not pod.gpus:
        return parts_watts
    charged = [watts for other, watts in booked(power, domain) if other == hold]
    reserved = reservation_watts_per_gpu(hold, power, domain)
    return parts_watts + pod.gpus * (sum(charged) / len(charged) if charged else reserved)


class Accounts:
    """Per domain what its nodes add up to, those of the domains below included. One look at each node."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        count = len(fleet.domains)
        self.nodes = [0] * count
        self.holders: list[Counter[tuple[HolderKind, str]]] = [Counter() for _ in range(count)]
        self.stale: list[list[str]] = [[] for _ in range(count)]
        self.shared: list[list[tuple[str, tuple[str, ...]]]] = [[] for _ in range(count)]
        tree = fleet.context.tree
        self.static = tree.totals([domain.static_watts for domain in fleet.domains])
        self.children: list[list[int]] = [[] for _ in range(count)]
        for at, above in enumerate(tree.ancestors):
            if above:
                self.children[above[0]].append(at)
        self._add_nodes()
        self.floor_watts = self._at_the_pdu(_floor_watts(fleet))

    def _add_nodes(self) -> None:
        branches: dict[tuple[int, ...], list[Row]] = defaultdict(list)
        for row in self.fleet.rows:
            branches[row.domains].append(row)
        for chain, rows in branches.items():
            if chain:
                self._add_branch(chain, rows)

    def _add_branch(self, chain: tuple[int, ...], rows: Sequence[Row]) -> None:
        """The nodes that the same domains charge."""
        held = _held_by_guarantee(rows)
        powered = [row for row in rows if row.power.planned_watts]
        stale = [row.view.node.name for row in powered if row.evidence is not Evidence.FRESH]
        for at, rule in zip(chain, rows[0].rules, strict=True):
            self.nodes[at] += len(rows)
            self.holders[at].update(held[rule.guarantee])
            self.stale[at] += stale
        leaves = self.fleet.context.tree.leaves(rows[0].view.node)
        for leaf in leaves if len(leaves) > 1 else ():
            others = tuple(self.fleet.domains[other].name for other in leaves if other != leaf)
            self.shared[leaf] += [(row.view.node.name, others) for row in rows]

    def _at_the_pdu(self, gpu_watts: Floats) -> Floats:
        """Per domain its static load, and the overhead and GPU watts of its nodes."""
        columns = self.fleet.columns
        watts = columns.overhead + columns.factor * gpu_watts[:, None]
        sums = np.bincount(columns.domain.ravel(), weights=watts.ravel(), minlength=len(self.static) + 1)
        return np.asarray(sums[:-1] + np.array(self.static))


def _held_by_guarantee(rows: Sequence[Row]) -> Mapping[Guarantee, Mapping[tuple[HolderKind, str], float]]:
    """What is held on rows that the same domains charge."""
    columns = {rule.guarantee: column for column, rule in enumerate(rows[0].rules)}
    return {guarantee: _sums(row.held_watts[column] for row in rows) for guarantee, column in columns.items()}


def _sums(parts: Iterable[Mapping[tuple[HolderKind, str], float]]) -> Mapping[tuple[HolderKind, str], float]:
    sums: dict[tuple[HolderKind, str], float] = defaultdict(float)
    for part in parts:
        for holder, watts in part.items():
            sums[holder] += watts
    return sums


def _statement(accounts: Accounts, at: int, now_time: float, drawn: Watts) -> Statement:
    fleet = accounts.fleet
    domain, budget = fleet.domains[at], watts_at(fleet.domains[at].budget, now_time)
    below = [fleet.domains[child] for child in accounts.children[at]]
    return Statement(
        name=domain.name,
        guarantee=domain.guarantee.value,
        budget_watts=budget,
        usable_watts=domain.usable_watts,
        committed_watts=float(fleet.committed_watts[at]),
        floor_watts=float(accounts.floor_watts[at]),
        draw_watts=drawn[domain.name],
        nodes=accounts.nodes[at],
        holders=tuple(_holders(accounts, at)),
        stale_nodes=tuple(sorted(accounts.stale[at])),
        shared_nodes=tuple(sorted(accounts.shared[at])),
        parent=domain.parent if fleet.context.tree.ancestors[at] else "",
        children=tuple(child.name for child in below),
        admission_budget_watts=None if domain.budget_watts == budget else domain.budget_watts,
        next_change=next_change(domain.budget, now_time),
        larger_children=tuple(
            (child.name, watts) for child in below if (watts := watts_at(child.budget, now_time)) > budget
        ),
        unconfirmed=domain.unconfirmed,
    )


def _holders(accounts: Accounts, at: int) -> Iterator[Holder]:
    gpu_watts = 0.0
    for (kind, name), watts in sorted(accounts.holders[at].items()):
        gpu_watts += watts
        yield Holder(kind, name, watts)
    static = accounts.static[at]
    overhead = float(accounts.fleet.committed_watts[at]) - static - gpu_watts
    if overhead > SHOWN_WATTS:
        yield Holder("Overhead", "", overhead)
    if static:
        yield Holder("Static", "", static)


def _floor_watts(fleet: Fleet) -> Floats:
    """Per node, its GPUs' planned draw as if nobody held one: held GPUs as cool as the coolest of their product."""
    columns = fleet.columns
    unheld = np.where(np.isfinite(columns.unheld_watts), columns.unheld_watts, 0.0).sum(axis=1)
    by_product = np.full(len(columns.products.values), np.inf)
    known = columns.coolest_watts > 0
    np.minimum.at(by_product, columns.products.codes[known], columns.coolest_watts[known])
    idle = by_product[columns.products.codes]
    return np.asarray(unheld + columns.held_gpus * np.where(np.isfinite(idle), idle, 0.0))
