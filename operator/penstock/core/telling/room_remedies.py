"""More room: a higher budget, freed GPUs, freed resources."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from penstock.api.names import GPU_RESOURCE
from penstock.core.placement.columns import Floats
from penstock.core.placement.trial import MOST_TRIED, Case, fits_after, is_refused
from penstock.core.placement.verdicts import Filter
from penstock.core.power.ledger import Ledger
from penstock.core.power.node_watts import budget_watts


def raise_budget(case: Case) -> str:
    raises = [found for domains in _short_domains(case) if (found := _needed_raises(case, domains))]
    if not raises:
        return ""
    cheapest = min(raises, key=lambda found: (sum(found.values()), sorted(found)))
    domains = case.planner.fleet.domains
    return " and ".join(f"raise PowerDomain/{domains[at].name} by {cheapest[at]} W" for at in sorted(cheapest))


def end_hold(case: Case) -> str:
    """The domains whose hold has to end, and what their budget lacks even then."""
    ledger, fleet = case.planner.ledger, case.planner.fleet
    inside = set(fleet.columns.domain[case.rows(Filter.POWER_HOLD)].ravel().tolist())
    held = sorted(at for at in inside if ledger.held[at])
    told = " and ".join(f"PowerDomain/{fleet.domains[at].name}" for at in held[:MOST_TRIED])
    wait = f"wait until {told} {'leaves' if len(held) == 1 else 'leave'} hold"
    if fits_after(case, lambda trial: trial.end_hold(held)):
        return wait
    without = case.planner.fork()
    without.ledger.end_hold(held)
    more = raise_budget(Case(without, case.replica, without.table(case.replica), case.ahead, case.hurry))
    return f"{wait} and {more}" if more else ""


def _short_domains(case: Case) -> list[tuple[int, ...]]:
    """The sets of domains of which some node is short, the smallest sets first."""
    missing, domains = case.table.missing_watts(), case.planner.fleet.columns.domain
    found = {
        tuple(sorted(int(at) for at in domains[row][missing[row] > 0])) for row in case.rows(Filter.WATTS).tolist()
    }
    return sorted(found, key=lambda short: (len(short), short))[:MOST_TRIED]


def _needed_raises(case: Case, domains: tuple[int, ...]) -> dict[int, int] | None:
    """By how much to raise these domains' budgets, after those ahead took what the raise gives them too."""
    trial = case.planner.fork()
    plenty = float(np.abs(trial.ledger.committed_watts).sum() + 1e9)
    for at in domains:
        trial.ledger.raise_budget(at, plenty)
    if case.hurry() or is_refused(trial, case.replica):
        return None
    trial.place(case.ahead)
    table = trial.table(case.replica)
    room, _ = trial.ledger.room_watts(case.replica)
    columns = case.planner.fleet.columns
    open_rows = np.flatnonzero(table.first == Filter.NONE)
    if not len(open_rows):
        return None
    needed = np.zeros((len(open_rows), len(domains)))
    for slot, at in enumerate(domains):
        inside = columns.domain[open_rows] == at
        added = np.where(inside, table.watts[open_rows], 0.0).sum(axis=1)
        short = added - (room[at] - plenty)
        needed[:, slot] = np.where(inside.any(axis=1), np.maximum(short, 0.0), _shortfall(room[at] - plenty))
    budgets = np.array([_budgets(case, at, needed[:, slot]) for slot, at in enumerate(domains)])
    cheapest = int(budgets.sum(axis=0).argmin())
    raises = {at: int(budgets[slot, cheapest]) for slot, at in enumerate(domains) if budgets[slot, cheapest] > 0}

    def carry_out(ledger: Ledger) -> None:
        for at, watts in raises.items():
            ledger.raise_budget(at, watts * (1.0 - case.planner.fleet.domains[at].margin))

    return raises if raises and fits_after(case, carry_out) else None


def _shortfall(room_watts: float) -> float:
    # Those ahead may have taken of this domain what the raise must cover, wherever this replica goes.
    return max(0.0, -room_watts)


def _budgets(case: Case, domain: int, usable_watts: Floats) -> Floats:
    rule = case.planner.fleet.domains[domain]
    return np.array([float(budget_watts(watts, rule)) if watts > 0 else 0.0 for watts in usable_watts.tolist()])


def free_gpus(case: Case) -> str:
    wanted, free = case.replica.gpus, case.planner.ledger.free_gpus
    # What is broken or busy with something else cannot be freed by ending pods.
    rows = [row for row in case.rows(Filter.FREE_GPUS).tolist() if wanted - free[row] <= _held_gpus(case, row)]
    for row in sorted(rows, key=lambda row: (wanted - free[row], row))[:MOST_TRIED]:
        gpus = int(wanted - free[row])
        if fits_after(case, partial(Ledger.release, row=row, amounts={}, gpus=gpus)):
            return f"free {gpus} {'GPU' if gpus == 1 else 'GPUs'} on {case.view(row).node.name}"
    return ""


def _held_gpus(case: Case, row: int) -> int:
    power = case.planner.ledger.power(row)
    return len(power.running) + len(power.pending) - case.planner.fleet.rows[row].held_unplaceable_gpus


def free_resources(case: Case) -> str:
    ledger, requests = case.planner.ledger, case.replica.requests
    for row in case.rows(Filter.RESOURCES).tolist():
        allocatable = case.view(row).node.allocatable
        wanted = {name: amount for name, amount in requests.items() if name != GPU_RESOURCE and amount > 0}
        if any(allocatable.get(name, 0) < amount for name, amount in wanted.items()):
            continue
        lacking = {n: int(a - ledger.free[n][row]) for n, a in wanted.items() if ledger.free[n][row] < a}
        if fits_after(case, partial(Ledger.release, row=row, amounts=lacking, gpus=0)):
            told = " and ".join(_amount(name, amount) for name, amount in sorted(lacking.items()))
            return f"free {told} on {case.view(row).node.name}"
    return ""


def _amount(name: str, amount: int) -> str:
    match name:
        case "cpu":
            return f"{amount}m of cpu"
        case "memory" | "ephemeral-storage":
            return f"{math.ceil(amount / 1024**2)}Mi of {name}"
        case "pods":
            return f"{amount} pod {'slot' if amount == 1 else 'slots'}"
    return f"{amount} {name}"
