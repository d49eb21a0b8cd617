"""The named filters: may this replica run on this node? Each answers for every row at once.

Those by room are asked after every decision: they answer once per thing that the replica asks for, and not at all where
it asks for nothing.

A filter here is at least as strict as kube-scheduler's own, since a pin that it refuses is a dead pod. To add one: a
name in `verdicts.Filter` at its place in the order, a function here in `BY_NODE` or `BY_ROOM`, a reason and a phrase
in `explanation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from penstock.api.names import EVIDENCE_TIME_LABEL, GPU_RESOURCE, MIG_RESOURCE_PREFIX, NODE_NAME_FIELD
from penstock.core.model import Replica
from penstock.core.placement.affinity import collides, meets, repels
from penstock.core.placement.columns import Bools, Codes, Rows
from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scheduling import HostPort, NodeTerm, Requirement, Taint
from penstock.core.placement.verdicts import Filter
from penstock.core.power.ledger import Ledger
from penstock.core.residency import alternatives
from penstock.core.residency.proof import lately
from penstock.core.residency.terms import satisfies


def lawful_place(fleet: Fleet, replica: Replica) -> Bools:
    """The node's proven place is inside the pool's law."""
    lawful = np.zeros(len(fleet.rows), dtype=np.bool_)
    for alternative in alternatives(replica.residency):
        lawful |= _all_of(fleet, alternative, satisfies)
    return lawful & fleet.consistent_place if replica.residency.restricted else lawful


def healthy(fleet: Fleet, replica: Replica) -> Bools:
    """The node is ready and its agent's telemetry is there, fresh and possible."""
    del replica
    return np.asarray((fleet.columns.ready == 1) & (fleet.columns.evidence == Evidence.FRESH))


def taints(fleet: Fleet, replica: Replica) -> Bools:
    """Every NoSchedule and NoExecute taint is tolerated; a cordon counts as its taint."""

    def tolerated(found: tuple[Taint, ...]) -> bool:
        return repels(found, replica.scheduling.tolerations) is None

    return fleet.columns.taints.where(tolerated)


def node_affinity(fleet: Fleet, replica: Replica) -> Bools:
    """nodeSelector, and one of the required node-affinity terms if there are any; an empty term matches nothing."""
    matches = np.ones(len(fleet.rows), dtype=np.bool_)
    for key, value in replica.scheduling.node_selector.items():
        matches &= fleet.label(key).where(lambda found, wanted=value: found == wanted)  # type: ignore[misc]
    if not replica.scheduling.node_terms:
        return matches
    any_term = np.zeros(len(fleet.rows), dtype=np.bool_)
    for term in replica.scheduling.node_terms:
        any_term |= _term(fleet, term)
    return matches & any_term


def gpu_model(fleet: Fleet, replica: Replica) -> Bools:
    """Every GPU of the node is of a wanted product and large enough: which one a pod gets is not ours to say."""
    rules = replica.rules
    fits = np.asarray(fleet.columns.gpu_memory_bytes >= rules.gpu_memory_bytes)
    if rules.gpu_products:
        fits &= fleet.columns.products.where(lambda found: bool(found) and found <= rules.gpu_products)
    return fits


def lately_proven(ledger: Ledger, replica: Replica, rows: Rows | slice) -> Iterator[Bools]:
    """The node's place was proven as lately as the law asks. Here and not among those by node: it goes by the clock."""
    max_age_seconds = replica.residency.evidence_max_age_seconds
    if max_age_seconds is not None:
        proven = ledger.fleet.label(EVIDENCE_TIME_LABEL)
        young = (lately(max_age_seconds, proven.values[code], ledger.now_time) for code in proven.codes[rows].tolist())
        yield np.fromiter(young, np.bool_)


def resources(ledger: Ledger, replica: Replica, rows: Rows | slice) -> Iterator[Bools]:
    """Every requested amount is free on the node, after every pod on it. GPUs are a filter of their own."""
    for name, amount in replica.requests.items():
        if amount > 0 and name != GPU_RESOURCE:
            free = ledger.free.get(name)
            yield free[rows] >= amount if free is not None else np.zeros_like(ledger.free_gpus[rows], dtype=np.bool_)


def host_ports(ledger: Ledger, replica: Replica, rows: Rows | slice) -> Iterator[Bools]:
    """None of the host ports is taken on the node."""
    wanted = replica.scheduling.host_ports
    if not wanted:
        return

    def free(taken: frozenset[HostPort]) -> bool:
        return not any(collides(port, other) for port in wanted for other in taken)

    fits = ledger.fleet.columns.taken_ports.where(free)
    for row, ports in ledger.ports.items():
        fits[row] &= free(ports)
    yield fits[rows]


def free_gpus(ledger: Ledger, replica: Replica, rows: Rows | slice) -> Iterator[Bools]:
    """Enough GPUs are free: not allocated, healthy, measured, and not busy with somebody else's process."""
    if gpus := replica.gpus:
        yield ledger.free_gpus[rows] >= gpus


def shared_activity(fleet: Fleet, replica: Replica) -> Bools:
    """The GPUs that it would share have headroom, all of them: which one a pod gets is not ours to say."""
    columns, ceiling = fleet.columns, replica.rules.shared_activity_ceiling
    in_parts = any(name.startswith(MIG_RESOURCE_PREFIX) for name in replica.requests)
    busiest = columns.parted_activity if in_parts else columns.shared_activity
    return np.asarray(busiest <= ceiling) if in_parts or replica.gpus else np.ones(len(fleet.rows), dtype=np.bool_)


BY_NODE: tuple[tuple[Filter, Callable[[Fleet, Replica], Bools]], ...] = (
    (Filter.LAWFUL_PLACE, lawful_place),
    (Filter.HEALTHY, healthy),
    (Filter.TAINTS, taints),
    (Filter.AFFINITY, node_affinity),
    (Filter.GPU_MODEL, gpu_model),
    (Filter.SHARED_ACTIVITY, shared_activity),
)
"""What no decision of a plan changes."""

BY_ROOM: tuple[tuple[Filter, Callable[[Ledger, Replica, Rows | slice], Iterator[Bools]]], ...] = (
    (Filter.LAWFUL_PLACE, lately_proven),
    (Filter.RESOURCES, resources),
    (Filter.HOST_PORTS, host_ports),
    (Filter.FREE_GPUS, free_gpus),
)
"""What each decision on a node changes there."""


def first_refusal(answers: Iterable[tuple[Filter, Bools]], rows: int) -> Codes:
    """Per row the first filter that refuses it, by the order of the filters and not of these answers."""
    first = np.full(rows, int(Filter.NONE), dtype=np.int64)
    for name, passes in sorted(answers, key=_by_filter, reverse=True):
        first[~passes] = name
    return first


def _by_filter(answer: tuple[Filter, Bools]) -> Filter:
    return answer[0]


def _all_of(
    fleet: Fleet, requirements: tuple[Requirement, ...], judge: Callable[[Requirement, str | None], bool] = meets
) -> Bools:
    matches = np.ones(len(fleet.rows), dtype=np.bool_)
    for requirement in requirements:
        matches &= fleet.label(requirement.key).where(partial(judge, requirement))
    return matches


def _term(fleet: Fleet, term: NodeTerm) -> Bools:
    if not term.expressions and not term.fields:
        return np.zeros(len(fleet.rows), dtype=np.bool_)
    matches = _all_of(fleet, term.expressions)
    for requirement in term.fields:
        if requirement.key != NODE_NAME_FIELD:
            return np.zeros(len(fleet.rows), dtype=np.bool_)
        matches &= np.fromiter((meets(requirement, name) for name in fleet.names), np.bool_, len(fleet.rows))
    return matches
