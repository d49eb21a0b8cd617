"""Why this node, why not: what is written beside a placement, and what a waiting replica is told."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from penstock.core.affinity import repels
from penstock.core.evidence import Evidence
from penstock.core.fleet import Fleet
from penstock.core.model import Replica
from penstock.core.table import Table
from penstock.core.verdicts import Candidate, Decision, Filter, Reason, Waiting

REASONS: Mapping[Filter, Reason] = {
    Filter.LAWFUL_PLACE: Reason.NO_LAWFUL_PLACE,
    Filter.HEALTHY: Reason.TELEMETRY_STALE,
    Filter.TAINTS: Reason.TAINTED,
    Filter.AFFINITY: Reason.AFFINITY_UNSATISFIED,
    Filter.RESOURCES: Reason.INSUFFICIENT_RESOURCES,
    Filter.HOST_PORTS: Reason.HOST_PORT_TAKEN,
    Filter.GPU_MODEL: Reason.NO_MATCHING_GPU,
    Filter.FREE_GPUS: Reason.INSUFFICIENT_GPUS,
    Filter.WATTS: Reason.INSUFFICIENT_POWER,
    Filter.BACK_OFF: Reason.BACK_OFF,
}


def decision_record(decision: Decision) -> dict[str, Any]:
    """What the placed pod's annotation holds: at most 1.5 kB as compact JSON."""
    record: dict[str, Any] = {
        "reason": sentence(decision),
        "node": decision.node,
        "watts": {domain: round(watts, 1) for domain, watts in decision.watts[:4]},
        "gpuWatts": round(decision.gpu_watts, 1),
        "score": _rounded(decision.chosen),
        "candidates": decision.candidates,
        "refused": {name.title: number for name, number in decision.refused},
    }
    if decision.country:
        record["country"] = decision.country
    if decision.runner_up:
        record["runnerUp"] = {"node": decision.runner_up.node, "score": _rounded(decision.runner_up)}
    if decision.returned_watts:
        record["returnedWatts"] = {domain: round(watts, 1) for domain, watts in decision.returned_watts[:4]}
    return record


def decision_text(decision: Decision) -> str:
    """The record as the annotation holds it."""
    return _compact(decision_record(decision))


def advice_text(decision: Decision | None) -> str:
    """The record on a pod of an Advise pool: let through without a pin, beside what would have been chosen."""
    if decision is None:
        return _compact({"mode": "Advise", "reason": "advice only: no node would have been chosen"})
    advised = decision_record(decision)
    return _compact({"mode": "Advise", **advised, "reason": f"advice only: {decision.node}, {advised['reason']}"})


def _compact(record: Mapping[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"), sort_keys=True)


def _rounded(candidate: Candidate) -> dict[str, float]:
    return {"total": round(candidate.score, 4), **{name: round(value, 4) + 0.0 for name, value in candidate.terms}}


def sentence(decision: Decision) -> str:
    """The reason in one line: `best of 5: 721 W per GPU, leaves 4 GPUs free on gpu-7; next gpu-9 by fragmentation`."""
    gpus = decision.replica.gpus
    parts = [f"{decision.gpu_watts / gpus:.0f} W per GPU" if gpus else "no GPU", _leaves(decision)]
    if decision.runner_up is None:
        return f"the only node that would do: {', '.join(parts)}"
    told = f"best of {decision.candidates}: {', '.join(parts)}"
    ahead = _decisive_term(decision.chosen, decision.runner_up)
    return f"{told}; ahead of {decision.runner_up.node} {ahead}"


def _leaves(decision: Decision) -> str:
    if decision.leaves_gpus == 0:
        return f"fills {decision.node}"
    return f"leaves {_gpus(decision.leaves_gpus)} free on {decision.node}"


def _decisive_term(chosen: Candidate, runner_up: Candidate) -> str:
    leads = [
        (mine - theirs, name) for (name, mine), (_, theirs) in zip(chosen.terms, runner_up.terms, strict=True)
    ]
    lead, name = max(leads, key=lambda entry: entry[0])
    return f"by {name}" if lead > 0 else "by name"


def waiting(replica: Replica, fleet: Fleet, table: Table | None) -> Waiting:
    """Why a replica waits. `table` is its class's, after the plan's decisions; `None` for one that cannot be judged."""
    if table is None:
        return _unjudged(replica, fleet)
    nodes = len(fleet.rows)
    if not nodes:
        return Waiting(replica, Reason.NO_NODES, "0/0 nodes: the cluster has none", "add a node with GPUs")
    refused = table.refused()
    message = f"0/{nodes} nodes: {', '.join(_phrases(fleet, table))}"
    return Waiting(replica, _reason(fleet, table), message, refused=refused, nodes=nodes)


def _unjudged(replica: Replica, fleet: Fleet) -> Waiting:
    field = replica.scheduling.unjudged
    message = f"{field} is a constraint that Penstock cannot judge, so it places nothing that carries it"
    return Waiting(replica, Reason.UNJUDGED_CONSTRAINT, message, f"remove {field}", nodes=len(fleet.rows))


def _reason(fleet: Fleet, table: Table) -> Reason:
    """Of the deepest filter that a node reached: what is nearest to fitting."""
    deepest = Filter(int(table.first.max()))
    if deepest is Filter.HEALTHY:
        reached = table.first == Filter.HEALTHY
        stale = reached & (fleet.columns.ready == 1)
        return Reason.TELEMETRY_STALE if stale.any() else Reason.NODE_NOT_READY
    return REASONS[deepest]


def _phrases(fleet: Fleet, table: Table) -> Iterator[str]:
    """One phrase per refusing filter, the nearest to fitting last."""
    gpus = table.example.gpus
    for name, number in table.refused():
        rows = np.flatnonzero(table.first == name)
        one = number == 1
        match name:
            case Filter.LAWFUL_PLACE:
                yield f"{number} outside the law"
            case Filter.HEALTHY:
                yield from _unhealthy(fleet, rows)
            case Filter.TAINTS:
                yield f"{number} {_repelling(fleet, table.example, rows)}"
            case Filter.AFFINITY:
                yield f"{number} {'does' if one else 'do'} not match the pod's affinity or spread"
            case Filter.RESOURCES:
                yield f"{number} {'lacks' if one else 'lack'} {' or '.join(_lacking(table, rows))}"
            case Filter.HOST_PORTS:
                yield f"{number} {'has' if one else 'have'} a wanted host port taken"
            case Filter.GPU_MODEL:
                yield f"{number} {'has' if one else 'have'} other GPUs"
            case Filter.FREE_GPUS:
                yield f"{number} {'has' if one else 'have'} fewer than {gpus} free GPUs{_busy(fleet, rows)}"
            case Filter.WATTS:
                yield from _short_of_watts(fleet, table, rows)
            case Filter.BACK_OFF:
                yield f"{number} under back-off after a placement that failed there"


def _unhealthy(fleet: Fleet, rows: np.ndarray) -> Iterator[str]:  # type: ignore[type-arg]
    columns = fleet.columns
    ready = columns.ready[rows] == 1
    evidence = columns.evidence[rows]
    told = (
        ("not ready", ~ready),
        ("whose agent never spoke", ready & (evidence == Evidence.SILENT)),
        ("with stale telemetry", ready & (evidence == Evidence.STALE)),
        ("with contradictory telemetry", ready & (evidence == Evidence.CONTRADICTED)),
    )
    for words, which in told:
        if number := int(which.sum()):
            yield f"{number} {words}"


def _repelling(fleet: Fleet, replica: Replica, rows: np.ndarray) -> str:  # type: ignore[type-arg]
    found = {repels(fleet.rows[row].taints, replica.scheduling.tolerations) for row in rows.tolist()}
    keys = sorted({taint.key for taint in found if taint})
    return "cordoned" if keys == ["node.kubernetes.io/unschedulable"] else f"tainted with {_some(keys)}"


def _lacking(table: Table, rows: np.ndarray) -> list[str]:  # type: ignore[type-arg]
    ledger = table.ledger
    return [
        name
        for name, amount in sorted(table.example.requests.items())
        if amount > 0 and (name not in ledger.free or (ledger.free[name][rows] < amount).any())
        if name != "nvidia.com/gpu"
    ]


def _busy(fleet: Fleet, rows: np.ndarray) -> str:  # type: ignore[type-arg]
    busy = sum(fleet.rows[row].busy_unallocated_gpus for row in rows.tolist())
    return f" (BusyUnallocatedGPU: {busy} busy without a pod)" if busy else ""


def _short_of_watts(fleet: Fleet, table: Table, rows: np.ndarray) -> Iterator[str]:  # type: ignore[type-arg]
    """Per domain, how many nodes it refuses and by how many watts at least."""
    missing = table.missing_watts()[rows]
    domains = fleet.columns.domain[rows]
    for at, domain in enumerate(fleet.domains):
        short = (domains == at) & (missing > 0)
        if short.any():
            number = int(short.any(axis=1).sum())
            yield f"{number} would pass the budget of PowerDomain/{domain.name} by {whole_watts(missing[short].min())} W"


def whole_watts(watts: float) -> int:
    """Rounded up, so that what is raised by it is enough."""
    return math.ceil(watts - 1e-6)


def _gpus(number: int) -> str:
    return f"{number} GPU" if number == 1 else f"{number} GPUs"


def _some(names: list[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
