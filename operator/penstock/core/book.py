"""The power book: what each domain has promised, to whom, and what is left.

`committed(domain) = static + Σ nodes [ overhead + Σ GPU (1 + perGPUWatt) × max(reserved, planned) ]`, where `power`
says what each GPU has reserved and what it is planned to draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from penstock.core.columns import Bools, Floats
from penstock.core.evidence import Evidence
from penstock.core.fleet import Fleet
from penstock.core.model import Domain, Guarantee, Pod, PoolKey
from penstock.core.power import HolderKind, NodePower, booked, pod_hold, reservation_watts_per_gpu
from penstock.core.row import Row


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds watts of a domain. `kind` is `Pool`, `Foreign`, `Idle`, `Overhead` or `Static`."""

    kind: HolderKind
    name: str
    watts: float


@dataclass(frozen=True, slots=True)
class Statement:
    """One domain's account at one moment, in IT watts at its PDU.

    `holders` add up to `committed_watts`. `floor_watts` is what it is charged with nothing placed, `draw_watts` what
    its GPUs draw now with their overhead (the last known draw of those that went silent). `shared_nodes` are charged
    here and in the other domains named beside them.
    """

    name: str
    guarantee: str
    budget_watts: float
    usable_watts: float
    committed_watts: float
    floor_watts: float
    draw_watts: float
    nodes: int
    holders: tuple[Holder, ...] = ()
    stale_nodes: tuple[str, ...] = ()
    unmeasured_nodes: tuple[str, ...] = ()
    """GPU nodes whose maximum nobody knows: their charge is too low, and nothing is placed there."""
    shared_nodes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    declared_too_low: tuple[PoolKey, ...] = ()
    """Pools whose replicas were measured above what they declare, where that is what they reserve."""

    @property
    def headroom_watts(self) -> float:
        """What may still be promised; below zero where the domain is over."""
        return self.usable_watts - self.committed_watts

    @property
    def over_watts(self) -> float:
        return max(0.0, -self.headroom_watts)


def statements(fleet: Fleet, now_at: float) -> tuple[Statement, ...]:
    """Every domain's account, by name."""
    del now_at  # The fleet was booked at its own moment; a statement of any other would not add up.
    floor = _floor_watts(fleet)
    return tuple(_statement(fleet, at, floor) for at in range(len(fleet.domains)))


def statement(fleet: Fleet, domain: str, now_at: float) -> Statement | None:
    """One domain's account; `None` for a domain that the fleet does not know."""
    return next((one for one in statements(fleet, now_at) if one.name == domain), None)


def domain_names(fleet: Fleet, node: str) -> tuple[str, ...]:
    """The domains that charge a node; none: it has no budget."""
    at = fleet.position.get(node)
    return () if at is None else tuple(fleet.domains[domain].name for domain in fleet.rows[at].domains)


def nodes_without_domain(fleet: Fleet) -> tuple[str, ...]:
    """GPU nodes that no domain selects: they have no budget."""
    return tuple(row.view.node.name for row in fleet.rows if not row.domains and row.power.planned_watts)


def reservation_watts(fleet: Fleet, pod: Pod) -> tuple[tuple[str, float], ...]:
    """What a placed pod holds in each domain of its node, with overhead: what it has a right to come back to.

    Its reservation in full, idle draw included, so that it suffices on a cooler node too.
    """
    at = fleet.position.get(pod.place)
    if at is None or not pod.gpus:
        return ()
    row = fleet.rows[at]
    held = ((fleet.domains[at], _held(fleet, row.power, fleet.domains[at], pod)) for at in row.domains)
    return tuple((domain.name, (1.0 + domain.per_gpu_watt) * watts) for domain, watts in held)


def held_watts(fleet: Fleet, pod: Pod) -> float:
    """What a placed pod's GPUs reserve, without overhead; zero for one whose node is unknown."""
    at = fleet.position.get(pod.place)
    if at is None or not pod.gpus:
        return 0.0
    row = fleet.rows[at]
    return max((_held(fleet, row.power, domain, pod) for domain in _domains_of(fleet, row)), default=0.0)


def _domains_of(fleet: Fleet, row: Row) -> tuple[Domain, ...]:
    # In no domain a replica still holds its GPUs' limit.
    return tuple(fleet.domains[at] for at in row.domains) or (Domain(""),)


def _held(fleet: Fleet, power: NodePower, domain: Domain, pod: Pod) -> float:
    hold = pod_hold(fleet.context.pools, pod)
    charged = [watts for other, watts in booked(power, domain) if other == hold]
    reserved = reservation_watts_per_gpu(hold, power, domain)
    return pod.gpus * (sum(charged) / len(charged) if charged else reserved)


def _statement(fleet: Fleet, at: int, floor: Floats) -> Statement:
    domain = fleet.domains[at]
    inside: Bools = (fleet.columns.domain == at).any(axis=1)
    rows = [fleet.rows[row] for row in np.flatnonzero(inside).tolist()]
    powered = [row for row in rows if row.power.planned_watts]
    draw = sum(domain.overhead_watts + (1 + domain.per_gpu_watt) * row.power.now_watts for row in powered)
    lowest = domain.overhead_watts * len(powered) + (1 + domain.per_gpu_watt) * float(floor[inside].sum())
    return Statement(
        name=domain.name,
        guarantee=domain.guarantee.value,
        budget_watts=domain.budget_watts,
        usable_watts=domain.usable_watts,
        committed_watts=float(fleet.committed_watts[at]),
        floor_watts=domain.static_watts + lowest,
        draw_watts=domain.static_watts + draw,
        nodes=len(rows),
        holders=tuple(_holders(domain, at, powered)),
        stale_nodes=tuple(row.view.node.name for row in powered if row.evidence is not Evidence.FRESH),
        unmeasured_nodes=tuple(row.view.node.name for row in powered if row.power.unmeasured),
        shared_nodes=tuple(_shared(fleet, at, rows)),
        declared_too_low=_declared_too_low(domain, powered),
    )


def _holders(domain: Domain, at: int, rows: Iterable[Row]) -> Iterator[Holder]:
    held: Counter[tuple[HolderKind, str]] = Counter()
    nodes = gpu_watts = 0.0
    for row in rows:
        nodes += 1
        for key, watts in row.held_watts[row.domains.index(at)].items():
            held[key] += watts  # type: ignore[assignment]  # Counter is typed for whole numbers
            gpu_watts += watts
    for (kind, name), watts in sorted(held.items()):
        yield Holder(kind, name, watts)
    if overhead := nodes * domain.overhead_watts + domain.per_gpu_watt * gpu_watts:
        yield Holder("Overhead", "", overhead)
    if domain.static_watts:
        yield Holder("Static", "", domain.static_watts)


def _shared(fleet: Fleet, at: int, rows: Iterable[Row]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for row in rows:
        if len(row.domains) > 1:
            yield row.view.node.name, tuple(fleet.domains[other].name for other in row.domains if other != at)


def _declared_too_low(domain: Domain, rows: Iterable[Row]) -> tuple[PoolKey, ...]:
    if domain.guarantee is Guarantee.HARD:
        return ()
    return tuple(sorted({row.measured[0] for row in rows if row.measured}, key=str))


def _floor_watts(fleet: Fleet) -> Floats:
    """Per node, its GPUs' planned draw as if nobody held one: held GPUs as cool as the coolest of their product."""
    columns = fleet.columns
    unheld = np.where(np.isfinite(columns.unheld_watts), columns.unheld_watts, 0.0).sum(axis=1)
    coolest = np.array([min(row.power.planned_watts, default=0.0) for row in fleet.rows])
    by_product = np.full(len(columns.products.values), np.inf)
    known = coolest > 0
    np.minimum.at(by_product, columns.products.codes[known], coolest[known])
    held = np.array([len(row.power.running) + len(row.power.pending) for row in fleet.rows])
    idle = by_product[columns.products.codes] if len(held) else coolest
    return np.asarray(unheld + held * np.where(np.isfinite(idle), idle, 0.0))
