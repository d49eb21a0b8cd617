"""Why this node, why not: what is written beside a placement, and what a waiting replica is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from penstock.api.names import GPU_RESOURCE
from penstock.core.model import Domain, Replica, Residency
from penstock.core.placement.affinity import CORDON, repels
from penstock.core.placement.columns import Rows
from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.row import Row
from penstock.core.placement.table import Table
from penstock.core.placement.verdicts import Candidate, Decision, Filter, Reason, Waiting
from penstock.core.power.ledger import Ledger
from penstock.core.power.node_watts import budget_watts
from penstock.core.residency import axes, law
from penstock.core.residency.places import LABEL_NODES
from penstock.core.telling.figures import listed

REASONS: Mapping[Filter, Reason] = {
    Filter.LAWFUL_PLACE: Reason.NO_LAWFUL_PLACE,
    Filter.HEALTHY: Reason.TELEMETRY_STALE,
    Filter.TAINTS: Reason.TAINTED,
    Filter.AFFINITY: Reason.AFFINITY_UNSATISFIED,
    Filter.RESOURCES: Reason.INSUFFICIENT_RESOURCES,
    Filter.HOST_PORTS: Reason.HOST_PORT_TAKEN,
    Filter.GPU_MODEL: Reason.NO_MATCHING_GPU,
    Filter.FREE_GPUS: Reason.INSUFFICIENT_GPUS,
    Filter.SHARED_ACTIVITY: Reason.SHARED_GPUS_BUSY,
    Filter.POWER_HOLD: Reason.POWER_HOLD,
    Filter.WATTS: Reason.INSUFFICIENT_POWER,
    Filter.BACK_OFF: Reason.BACK_OFF,
}

_COMPACT = msgspec.json.Encoder(order="sorted")

MOST_NAMED = 3
"""Of more GPUs, taints or domains only the first are named."""
MOST_DOMAINS = 4
"""Of more domains that lack watts only those that lack the fewest are named."""


def _decision_record(decision: Decision) -> dict[str, Any]:
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
    return _compact(_decision_record(decision))


def advice_text(decision: Decision | None) -> str:
    """The record on a pod of an Advise pool: let through without a pin, beside what would have been chosen."""
    if decision is None:
        return _compact({"mode": "Advise", "reason": "advice only: no node would have been chosen"})
    advised = _decision_record(decision)
    return _compact({"mode": "Advise", **advised, "reason": f"advice only: {decision.node}, {advised['reason']}"})


def _compact(record: Mapping[str, Any]) -> str:
    return _COMPACT.encode(record).decode()


def _rounded(candidate: Candidate) -> dict[str, float]:
    return {"total": round(candidate.score, 4), **{name: round(value, 4) + 0.0 for name, value in candidate.terms}}


def sentence(decision: Decision) -> str:
    """The reason in one line: `best of 5: 721 W per GPU, leaves 4 GPUs free on gpu-7; ahead of gpu-9 by heat`."""
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
    leads = [(mine - theirs, name) for (name, mine), (_, theirs) in zip(chosen.terms, runner_up.terms, strict=True)]
    lead, name = max(leads, key=lambda entry: entry[0])
    return f"by {name}" if lead > 0 else "by name"


def waiting(replica: Replica, fleet: Fleet, table: Table) -> Waiting:
    """Why a replica waits. `table` is its class's, after the plan's decisions."""
    nodes = len(fleet.rows)
    if not nodes:
        return Waiting(replica, Reason.NO_NODES, "0/0 nodes: the cluster has none")
    refused = table.refused()
    message = f"0/{nodes} nodes: {', '.join(_phrases(fleet, table))}"
    return Waiting(replica, _reason(fleet, table), message, refused=refused, nodes=nodes)


def of_shed(waiting: Waiting, ledger: Ledger) -> Waiting:
    """The same, named as what it is where the replica was shed and watts are what it waits for."""
    short_of_power = any(name in (Filter.POWER_HOLD, Filter.WATTS) for name, _ in waiting.refused)
    if not waiting.replica.shed or not (short_of_power or ledger.held.any()):
        return waiting
    held = [f"PowerDomain/{domain.name}" for domain in _held_domains(ledger.fleet, ledger, slice(None))]
    return replace(
        waiting,
        reason=Reason.SHED_BY_POWER,
        message=f"shed to keep a power budget; {waiting.message}",
        would_fit=waiting.would_fit or (f"wait until {listed(held, MOST_NAMED)} leaves hold" if held else ""),
    )


def unjudged(replica: Replica, fleet: Fleet) -> Waiting:
    """A replica that carries a constraint which the planner cannot judge: no node is tried."""
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
    """One phrase per refusing filter, in the order of the filters: the nearest to fitting last."""
    for name, number in table.refused():
        yield from _PHRASES[name](fleet, table, np.flatnonzero(table.first == name), number)


def _unlawful(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    if not fleet.places_known:
        yield f"{number} outside the law, since no node says where it stands: run {LABEL_NODES}"
        return
    residency = table.example.residency
    doubted = (view for row in rows.tolist() if (view := fleet.rows[row].view).doubts)
    doubts = (one.message for view in doubted for one in view.doubts if not one.holds or law(residency, view.node))
    named = [*islice(doubts, MOST_NAMED + 1)]
    more = ["…"] if len(named) > MOST_NAMED else []
    axes_of = ", ".join(f"{count} {words}" for words, count in _by_axis(fleet, residency, rows).most_common())
    told = "; ".join(filter(None, (axes_of, *named[:MOST_NAMED], *more)))
    yield f"{number} outside the law" + (f" ({told})" if told else "")


def _by_axis(fleet: Fleet, residency: Residency, rows: Rows) -> Counter[str]:
    """How many nodes each axis keeps out; those whose place is held for a doubt are told by that."""
    held = fleet.columns.place_held[rows]
    kinds = held.astype(np.int64)
    for column in map(fleet.label, axes.AXIS_OF):
        kinds = kinds * len(column.values) + column.codes[rows]
    _, first, counts = np.unique(kinds, return_index=True, return_counts=True)
    found: Counter[str] = Counter()
    for at, count in zip(first.tolist(), counts.tolist(), strict=True):
        node = fleet.rows[rows[at]].view.node
        if not held[at] or axes.excluding(residency, node):
            found[axes.told(residency, node)] += count
    return found


def _unhealthy(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    del table, number
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
        if which.any():
            yield f"{int(which.sum())} {words}"


def _repelling(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    tolerations = table.example.scheduling.tolerations
    found = {repels(fleet.rows[row].taints, tolerations) for row in rows.tolist()}
    keys = sorted({taint.key for taint in found if taint})
    yield f"{number} cordoned" if keys == [CORDON.key] else f"{number} tainted with {listed(keys, MOST_NAMED)}"


def _unmatched(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    del fleet, table, rows
    yield f"{number} {_verb(number, 'does', 'do')} not match the pod's affinity or spread"


def _lacking(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    del fleet
    free = table.ledger.free
    lacked = [
        name
        for name, amount in sorted(table.example.requests.items())
        if name != GPU_RESOURCE and amount > 0 and (name not in free or (free[name][rows] < amount).any())
    ]
    yield f"{number} {_verb(number, 'lacks', 'lack')} {' or '.join(lacked)}"


def _port_taken(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    del fleet, table, rows
    yield f"{number} {_verb(number, 'has', 'have')} a wanted host port taken"


def _other_model(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    del fleet, table, rows
    yield f"{number} {_verb(number, 'has', 'have')} other GPUs"


def _busy(rows: list[Row]) -> Iterator[str]:
    """GPUs that work though nobody holds them, by name where the kubelet said who holds the others."""
    number = sum(row.busy_unallocated_gpus for row in rows)
    named = [f"{uuid} on {row.view.node.name}" for row in rows for uuid in row.busy_uuids]
    more = ["…"] if len(named) > MOST_NAMED else []
    which = f": {', '.join([*named[:MOST_NAMED], *more])}" if named else ""
    if number:
        yield f"BusyUnallocatedGPU: {number} busy without a pod{which}"


def _too_few_gpus(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    ailing: Counter[str] = Counter()
    for row in rows.tolist():
        ailing.update(fleet.rows[row].ailments)
    reasons = [*_busy([fleet.rows[row] for row in rows.tolist()])]
    if claimed := sum(fleet.rows[row].claimed_gpus for row in rows.tolist()):
        reasons.append(f"ClaimedGPU: {claimed} held through ResourceClaims")
    reasons += [f"{reason}: {gpus}" for reason, gpus in sorted(ailing.items())]
    told = f" ({', '.join(reasons)})" if reasons else ""
    wanted = table.example.gpus
    free = "free GPU" if wanted == 1 else "free GPUs"
    yield f"{number} {_verb(number, 'has', 'have')} fewer than {wanted} {free}{told}"


def _too_busy(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    del fleet, rows
    ceiling = table.example.rules.shared_activity_ceiling
    yield f"{number} {_verb(number, 'shares', 'share')} GPUs that are more than {ceiling:.0%} busy"


def _on_hold(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    held = [f"PowerDomain/{domain.name}" for domain in _held_domains(fleet, table.ledger, rows)]
    yield f"{number} in {listed(held, MOST_NAMED)}, whose draw is near its budget"


def _held_domains(fleet: Fleet, ledger: Ledger, rows: Rows | slice) -> list[Domain]:
    found = set(fleet.columns.domain[rows].ravel().tolist())
    return [domain for at, domain in enumerate(fleet.domains) if at in found and ledger.held[at]]


def _short_of_watts(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    """Per domain, how many nodes it refuses and by how many watts of budget at least."""
    del number
    missing, owed = table.missing_watts()[rows], table.ledger.owed_watts(table.example.priority).tolist()
    domains = fleet.columns.domain[rows]
    told: list[tuple[int, str]] = []
    for at in np.unique(domains[missing > 0]).tolist():
        short, domain = (domains == at) & (missing > 0), fleet.domains[at]
        refused, watts = int(short.any(axis=1).sum()), budget_watts(float(missing[short].min()), domain)
        kept = f" ({owed[at]:.0f} W of its room are kept for who is capped)" if owed[at] else ""
        told.append((watts, f"{refused} would pass the budget of PowerDomain/{domain.name} by {watts} W{kept}"))
    nearest = sorted(told)[:MOST_DOMAINS]
    yield from (phrase for _, phrase in told if any(phrase == one for _, one in nearest))
    if len(told) > MOST_DOMAINS:
        yield f"and so in {len(told) - MOST_DOMAINS} more domains"


def _backed_off(fleet: Fleet, table: Table, rows: Rows, number: int) -> Iterator[str]:
    del fleet, table, rows
    yield f"{number} under back-off after a placement that failed there"


_PHRASES: Mapping[Filter, Callable[[Fleet, Table, Rows, int], Iterator[str]]] = {
    Filter.LAWFUL_PLACE: _unlawful,
    Filter.HEALTHY: _unhealthy,
    Filter.TAINTS: _repelling,
    Filter.AFFINITY: _unmatched,
    Filter.RESOURCES: _lacking,
    Filter.HOST_PORTS: _port_taken,
    Filter.GPU_MODEL: _other_model,
    Filter.FREE_GPUS: _too_few_gpus,
    Filter.SHARED_ACTIVITY: _too_busy,
    Filter.POWER_HOLD: _on_hold,
    Filter.WATTS: _short_of_watts,
    Filter.BACK_OFF: _backed_off,
}


def _verb(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


def _gpus(number: int) -> str:
    return f"{number} GPU" if number == 1 else f"{number} GPUs"
