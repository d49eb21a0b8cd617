"""What the decision log says of each decision: names, versions and counts, never what a model was asked or a secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from penstock import __version__
from penstock.api.names import PLACE_LABELS
from penstock.core.decisionlog.record import Entry, Happening
from penstock.core.model import Isolated, Node, Pod, PoolKey, Residency
from penstock.core.placement.verdicts import Decision, Waiting
from penstock.core.pool import Pool
from penstock.core.residency.ceiling import Effective
from penstock.core.residency.enforcement import Layer
from penstock.core.residency.standing import Ceiling, Standing
from penstock.core.residency.whereabouts import Sighting, broken
from penstock.core.telling.figures import rfc3339

UNVERIFIED = "unverified"
"""In place of the layers of enforcement, where nobody has tried them."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A replica that has a place, as it was last seen."""

    pool: Pool
    pod: Pod
    node: Node | None
    sighting: Sighting


def placed(
    pool: Pool,
    pod: Pod,
    node: Node | None,
    decision: Decision | None,
    *,
    fence: str,
    telemetry_age_seconds: float | None,
    now_time: float,
) -> Entry:
    """A replica is let through our gate: onto a node, or in an Advise pool (no decision) within its law."""
    data = {
        **_of(pod, pool),
        "law": _law(pool.law),
        "chosen": _place(node),
        "decision": _decision(decision),
        "telemetryAgeSeconds": None if telemetry_age_seconds is None else round(telemetry_age_seconds, 1),
        "fence": fence,
    }
    return _entry(Happening.PLACE, pod, now_time, data)


def census(found: Iterable[Followed], now_time: float) -> Entry:
    """Every replica that has a place where an epoch begins; each node is told once."""
    everybody = sorted(found, key=lambda one: (str(one.pool.key), one.pod.name))
    nodes = {one.pod.place: _place(one.node) for one in everybody}
    data = {
        "replicas": [_counted(one) for one in everybody],
        "nodes": nodes,
        "operatorVersion": __version__,
    }
    return Entry(Happening.CENSUS, "replicas", rfc3339(now_time), data)


def observed(one: Followed, now_time: float) -> Entry:
    """A replica is where no record has it, or its place or what the law says of that is another than recorded."""
    data = {**_of(one.pod, one.pool), **_standing(one), "place": _place(one.node) or {"node": one.pod.place}}
    return _entry(Happening.OBSERVE, one.pod, now_time, data)


def ended(one: Followed, why: str, now_time: float) -> Entry:
    """A replica is no more."""
    data = {**_of(one.pod, one.pool), "node": one.pod.place, "why": why}
    return _entry(Happening.END, one.pod, now_time, data)


def ended_unseen(placement: Entry, now_time: float) -> Entry:
    """A replica was placed, and gone before it was seen at its place."""
    chosen = placement.data["chosen"]
    data = {
        **{key: placement.data[key] for key in ("pod", "pool", "operatorVersion")},
        "node": chosen["node"] if chosen else "",
        "why": "Deleted",
    }
    return Entry(Happening.END, placement.subject, rfc3339(now_time), data)


def waits(pool: Pool, waiting: Sequence[Waiting], now_time: float) -> Entry:
    """Replicas of a pool that no node can take now, by reason."""
    groups: dict[str, list[Waiting]] = {}
    for one in waiting:
        groups.setdefault(one.reason, []).append(one)
    data = {
        "pool": {"name": str(pool.key), "uid": pool.uid, "generation": pool.generation},
        "law": _law(pool.law),
        "waiting": [
            {
                "reason": reason,
                "replicas": len(found),
                "why": found[0].message,
                "nodes": found[0].nodes,
                "refused": {rule.title: count for rule, count in found[0].refused},
            }
            for reason, found in sorted(groups.items())
        ],
        "operatorVersion": __version__,
    }
    return Entry(Happening.REFUSE, str(pool.key), rfc3339(now_time), data)


def refused(placement: Entry, why: str, now_time: float) -> Entry:
    """A placement that was recorded and did not come about."""
    return Entry(Happening.REFUSE, placement.subject, rfc3339(now_time), {**placement.data, "why": why})


def isolated(pool: Pool, pod: Pod, node: Node | None, one: Isolated, now_time: float) -> Entry:
    """A replica outside the law is taken out of traffic."""
    data = {**_of(pod, pool), **_outside(pool.standing_law, node, one.message, now_time)}
    return _entry(Happening.ISOLATE, pod, now_time, data)


def evicted(pool: Pool, pod: Pod, node: Node | None, why: str, now_time: float) -> Entry:
    """A replica outside the law is ended within its grace."""
    return _entry(
        Happening.EVICT, pod, now_time, {**_of(pod, pool), **_outside(pool.standing_law, node, why, now_time)}
    )


def driven_out(pod: Pod, node: Node | None, law: Effective, why: str, now_time: float) -> Entry:
    """A pod of no pool that holds GPUs outside the law of its namespace is ended within its grace."""
    return _entry(Happening.EVICT, pod, now_time, {"pod": _named(pod), **_outside(law, node, why, now_time)})


def broke_glass(pod: Pod, pool: Pool | None, node: Node | None, law: Effective, now_time: float) -> Entry:
    """A pod under a law is past our gate, and no leader let it through; `law` is that of its pool where it has one."""
    place = _place(node) or ({"node": pod.place} if pod.place else None)
    who = _of(pod, pool) if pod.pool else {"pod": _named(pod)}
    return _entry(Happening.BREAK_GLASS, pod, now_time, {**who, "law": _law(law), "place": place})


def policy_changed(one: Standing, now_time: float) -> Entry:
    """What counts of a policy is something else than it was; the first time in an epoch: what counts of it."""
    data = {
        "policy": one.name,
        "uid": one.uid,
        "generation": one.generation,
        "asked": _ceiling(one.asked),
        "inForce": _ceiling(one.in_force),
        "unconfirmedReplicas": one.unconfirmed,
        "problems": [str(problem) for problem in one.problems],
    }
    return _policy_entry(one.name, now_time, data)


def policy_gone(one: Standing, now_time: float) -> Entry:
    """A policy was deleted: it was this one."""
    data = {"policy": one.name, "uid": one.uid, "generation": one.generation, "inForce": _ceiling(one.in_force)}
    return _policy_entry(one.name, now_time, {**data, "deleted": True})


def with_layers(entry: Entry, layers: Sequence[Layer]) -> Entry:
    """The same under these layers of enforcement."""
    told: dict[str, Any] | str = UNVERIFIED
    if layers:
        told = {
            "verified": [one.name for one in layers if one.verified],
            "unverified": [one.name for one in layers if not one.verified],
        }
    return replace(entry, data={**entry.data, "layers": told})


def alive(holder: str, now_time: float) -> Entry:
    """A leader watches, and has had nothing else to write for a while."""
    return Entry(Happening.ALIVE, holder, rfc3339(now_time), {"operatorVersion": __version__})


def pruned(holder: str, below: int, now_time: float) -> Entry:
    """Epochs below this one are dropped for their age."""
    return Entry(Happening.PRUNE, holder, rfc3339(now_time), {"prunedBelow": below})


def _policy_entry(name: str, now_time: float, data: Mapping[str, Any]) -> Entry:
    known = {**data, "operatorVersion": __version__}
    return Entry(Happening.POLICY_CHANGE, f"ResidencyPolicy/{name}", rfc3339(now_time), known)


def _entry(happening: Happening, pod: Pod, now_time: float, data: Mapping[str, Any]) -> Entry:
    known = {**data, "operatorVersion": __version__}
    return Entry(happening, f"{pod.namespace}/{pod.name}", rfc3339(now_time), known)


def _of(pod: Pod, pool: Pool | None = None) -> dict[str, Any]:
    named: dict[str, Any] = {"name": str(PoolKey(pod.namespace, pod.pool))}
    if pool is not None:
        named = {"name": str(pool.key), "uid": pool.uid, "generation": pool.generation}
    return {"pod": _named(pod), "pool": named}


def _named(pod: Pod) -> dict[str, str]:
    return {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}


def _outside(law: Effective, node: Node | None, why: str, now_time: float) -> dict[str, Any]:
    outside = broken(law, node, now_time) if node else ()
    return {"law": _law(law), "outside": list(outside), "place": _place(node), "why": why}


def _standing(one: Followed) -> dict[str, Any]:
    return {"law": _law(one.pool.standing_law), "outside": list(one.sighting.outside)}


def _counted(one: Followed) -> dict[str, Any]:
    # The record of its isolation may be lost with the leader that isolated it.
    isolated = {"isolated": True} if one.pod.isolated else {}
    return {**_of(one.pod, one.pool), **_standing(one), "node": one.pod.place, **isolated}


def _law(law: Effective) -> dict[str, Any]:
    return {
        "sources": list(law.sources),
        "audited": [one.source for one in law.audited],
        "groups": list(law.groups),
        "auditRequired": law.audit_required,
    }


def _place(node: Node | None) -> dict[str, Any] | None:
    """A node with what it says of where it stands and by what evidence."""
    if node is None:
        return None
    labels = {name: node.labels[name] for name in PLACE_LABELS if name in node.labels}
    return {"node": node.name, "uid": node.uid, "labels": labels}


def _decision(decision: Decision | None) -> dict[str, Any] | None:
    if decision is None:
        return None
    return {
        "node": decision.node,
        "candidates": decision.candidates,
        "refused": {rule.title: count for rule, count in decision.refused},
        "score": round(decision.chosen.score, 4),
        "watts": {domain: round(watts, 1) for domain, watts in decision.watts},
        "law": [f"{rule.key} {rule.operator} {','.join(rule.values)}".rstrip() for rule in decision.law],
    }


def _ceiling(ceiling: Ceiling | None) -> dict[str, Any] | None:
    if ceiling is None:
        return None
    demand = ceiling.demand
    return {
        "source": demand.source,
        "groups": list(demand.groups),
        "auditRequired": demand.audit_required,
        "enforced": demand.enforced,
        "demands": {name: value for name, value in _demands(demand.residency) if value is not None},
    }


def _demands(asked: Residency) -> Iterator[tuple[str, list[str] | float | None]]:
    """What a source demands of a place, groups as their codes; what it does not demand is None."""
    yield "allowed", _codes(asked.allowed_countries, asked.allowed_subdivisions)
    yield "denied", _codes(asked.denied_countries or None, asked.denied_subdivisions)
    yield "operators", _codes(asked.operators)
    yield "deniedOperators", _codes(asked.denied_operators or None)
    yield "clearances", _codes(asked.clearances)
    yield "evidences", _codes(asked.evidences)
    yield "evidenceMaxAgeSeconds", asked.evidence_max_age_seconds


def _codes(codes: frozenset[str] | None, more: frozenset[str] = frozenset()) -> list[str] | None:
    return None if codes is None and not more else sorted((codes or frozenset()) | more)
