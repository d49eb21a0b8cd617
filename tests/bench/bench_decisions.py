"""Decisions per second with explanation, in memory, beside a naive vectorised planner that explains nothing.

`python -m bench.bench_decisions`. The naive planner keeps no table: it filters and scores every node anew for each
replica, by free amounts and watts alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import builders as a
from bench.figures import Figure, show
from penstock.core.model import Domain, PoolKey, Replica, Residency
from penstock.core.placement import choice as placement
from penstock.core.placement.fleet import Fleet
from penstock.core.telling import explanation

LIMITS = {1_000: 10_000.0, 10_000: 4_000.0}
CLASSES = 10
ROUNDS = 3
GERMANY = Residency(restricted=True, allowed_countries=frozenset({"DE", "FR"}))
SIZES = (1, 2, 4, 8)
RACKS, LINES, HALLS = 352, 43, 4
LEAST_TREE_RATIO = 0.8
"""Decisions under a tree of 400 domains, to those without any."""


def fleet_of(nodes: int) -> Fleet:
    """Idle eight-GPU nodes in three countries and two power domains, which hold about half of all GPUs."""
    built = [
        a.node(f"gpu-{at:05}", country=("DE", "FR", "US")[at % 3], labels={"row": str(at % 2)}) for at in range(nodes)
    ]
    return a.fleet(*built, domains=[_row(name, nodes) for name in ("0", "1")])


def under_a_tree(nodes: int) -> Fleet:
    """The same nodes and watts under 400 domains in four levels: a site, its halls, their rows, their racks."""
    built = [
        replace(node, labels={**node.labels, "rack": str(at % RACKS)})
        for at, node in enumerate(row.view.node for row in fleet_of(nodes).rows)
    ]
    whole = sum(domain.budget_watts for domain in fleet_of(nodes).domains)
    racks = [
        a.domain(
            f"rack-{at}", whole, selector=a.labelled("rack", str(at)), parent=f"line-{at % LINES}", per_gpu_watt=0.55
        )
        for at in range(RACKS)
    ]
    lines = [a.domain(f"line-{at}", whole, selector=None, parent=f"hall-{at % HALLS}") for at in range(LINES)]
    halls = [a.domain(f"hall-{at}", whole, selector=None, parent="site") for at in range(HALLS)]
    return a.fleet(*built, domains=[*racks, *lines, *halls, a.domain("site", whole, selector=None)])


def _row(name: str, nodes: int) -> Domain:
    watts_per_node = 8 * 1.55 * 0.5 * (80 + 721)
    selector = a.labelled("row", name)
    return a.domain(f"row-{name}", nodes / 2 * watts_per_node, selector=selector, per_gpu_watt=0.55)


def one_class(count: int) -> list[Replica]:
    asked = a.replica(gpus=2, residency=GERMANY)
    return [replace(asked, key=f"r-{at:05}", since_time=float(at)) for at in range(count)]


def ten_classes(count: int) -> list[Replica]:
    """Ten pools of four sizes that ask in turn, so that every table must catch up with all others' decisions."""
    pools = [PoolKey("team", f"pool-{at}") for at in range(CLASSES)]
    asked = [a.replica(gpus=SIZES[at % 4], pool=pool, residency=GERMANY) for at, pool in enumerate(pools)]
    return [replace(asked[at % CLASSES], key=f"r-{at:05}", since_time=float(at)) for at in range(count)]


def decisions_per_second(fleet: Fleet, replicas: Sequence[Replica], rounds: int = ROUNDS) -> float:
    """With each decision's record written out as its pod would carry it; the best of a few rounds."""
    best = 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        plan = placement.plan(fleet, replicas, (), 0.0)
        records = [explanation.decision_text(decision) for decision in plan.decisions]
        took = time.perf_counter() - started
        if len(records) != len(replicas):
            raise AssertionError(f"{len(replicas) - len(records)} replicas wait: the benchmark's fleet is too small")
        best = max(best, len(records) / took)
    return best


def naive_per_second(fleet: Fleet, replicas: Sequence[Replica]) -> float:
    columns = fleet.columns
    lawful = columns.places.where(lambda place: place[0] in {"DE", "FR"})
    free = {name: column.copy() for name, column in columns.free.items()}
    committed, domain = fleet.committed_watts.copy(), columns.domain[:, 0]
    factor = np.array([1.0 + one.per_gpu_watt for one in fleet.domains])[domain]
    started = time.perf_counter()
    for replica in replicas:
        fits = lawful.copy()
        for name, amount in replica.requests.items():
            fits &= free[name] >= amount
        watts = replica.gpus * (columns.hard_watts - columns.unheld_watts[:, 0]) * factor
        fits &= watts <= (fleet.usable_watts - committed)[domain]
        score = np.where(fits, -watts / 1000 - 0.1 * columns.activity, -np.inf)
        chosen = int(score.argmax())
        for name, amount in replica.requests.items():
            free[name][chosen] -= amount
        committed[domain[chosen]] += watts[chosen]
    return len(replicas) / (time.perf_counter() - started)


def figures(nodes: int) -> list[Figure]:
    fleet, count = fleet_of(nodes), min(nodes // 2, 4_000)
    limit = LIMITS[nodes]
    one, ten = decisions_per_second(fleet, one_class(count)), decisions_per_second(fleet, ten_classes(count))
    return [
        Figure(f"one class, {nodes:,} nodes", one, "/s", limit, at_least=True),
        Figure(f"{CLASSES} classes, {nodes:,} nodes", ten, "/s", limit, at_least=True),
        Figure(f"naive, explains nothing, {nodes:,} nodes", naive_per_second(fleet, one_class(count)), "/s"),
    ]


def tree_figures(nodes: int) -> list[Figure]:
    """Beside the same fleet without any domain."""
    replicas = ten_classes(min(nodes // 2, 4_000))
    flat = a.fleet(*(row.view.node for row in fleet_of(nodes).rows))
    tree, without, under = under_a_tree(nodes), 0.0, 0.0
    for _ in range(2 * ROUNDS):  # In turn, so that what else runs on the machine slows both.
        without = max(without, decisions_per_second(flat, replicas, 1))
        under = max(under, decisions_per_second(tree, replicas, 1))
    return [
        Figure(f"no domain, {nodes:,} nodes", without, "/s"),
        Figure(f"a tree of {RACKS + LINES + HALLS + 1} domains, {nodes:,} nodes", under, "/s"),
        Figure("to the rate without", under / without, "", LEAST_TREE_RATIO, at_least=True),
    ]


def main() -> None:
    show("Decisions with explanation, in memory", [figure for nodes in LIMITS for figure in figures(nodes)])
    show("The same under a tree", [figure for nodes in LIMITS for figure in tree_figures(nodes)])


if __name__ == "__main__":
    main()
