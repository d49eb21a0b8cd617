"""The named filters: may this replica run on this node? Each answers for every row at once.

A filter here is at least as strict as kube-scheduler's own, since a pin that it refuses is a dead pod. To add one: a
name in `verdicts.Filter` at its place in the order, a function here in `BY_NODE` or `BY_ROOM`, a reason and a phrase
in `explanation`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.api.names import GPU_RESOURCE, NODE_NAME_FIELD
from penstock.core.affinity import collides, meets, repels
from penstock.core.columns import Bools, Codes, Rows
from penstock.core.evidence import Evidence
from penstock.core.fleet import Fleet
from penstock.core.ledger import Ledger
from penstock.core.model import Replica
from penstock.core.residency import alternatives
from penstock.core.scheduling import HostPort, NodeTerm, Requirement, Taint
from penstock.core.verdicts import Filter


def lawful_place(fleet: Fleet, replica: Replica) -> Bools:
    """The node's proven place is inside the pool's law."""
    lawful = np.zeros(len(fleet.rows), dtype=np.bool_)
    for alternative in alternatives(replica.rules.residency):
        lawful |= _all_of(fleet, alternative)
    return lawful & fleet.consistent_place if replica.rules.residency.restricted else lawful


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


def resources(ledger: Ledger, replica: Replica, rows: Rows | slice) -> Bools:
    """Every requested amount is free on the node, after every pod on it. GPUs are a filter of their own."""
    enough = np.ones(len(ledger.free_gpus[rows]), dtype=np.bool_)
    for name, amount in replica.requests.items():
        if amount > 0 and name != GPU_RESOURCE:
            free = ledger.free.get(name)
            enough &= free[rows] >= amount if free is not None else False
    return enough


def host_ports(ledger: Ledger, replica: Replica, rows: Rows | slice) -> Bools:
    """None of the host ports is taken on the node."""
    wanted = replica.scheduling.host_ports
    if not wanted:
        return np.ones(len(ledger.free_gpus[rows]), dtype=np.bool_)

    def free(taken: frozenset[HostPort]) -> bool:
        return not any(collides(port, other) for port in wanted for other in taken)

    fits = ledger.fleet.columns.taken_ports.where(free)
    for row, ports in ledger.ports.items():
        fits[row] &= free(ports)
    return np.asarray(fits[rows])


def free_gpus(ledger: Ledger, replica: Replica, rows: Rows | slice) -> Bools:
    """Enough GPUs are free: not allocated, healthy, measured, and not busy with somebody else's process."""
    gpus = replica.gpus
    free = ledger.free_gpus[rows]
    return np.asarray(free >= gpus) if gpus else np.ones(len(free), dtype=np.bool_)


BY_NODE: tuple[tuple[Filter, Callable[[Fleet, Replica], Bools]], ...] = (
    (Filter.LAWFUL_PLACE, lawful_place),
    (Filter.HEALTHY, healthy),
    (Filter.TAINTS, taints),
    (Filter.AFFINITY, node_affinity),
    (Filter.GPU_MODEL, gpu_model),
)
"""What no decision of a plan changes."""

BY_ROOM: tuple[tuple[Filter, Callable[[Ledger, Replica, Rows | slice], Bools]], ...] = (
    (Filter.RESOURCES, resources),
    (Filter.HOST_PORTS, host_ports),
    (Filter.FREE_GPUS, free_gpus),
)
"""What each decision on a node changes there."""


def first_refusal(refusals: list[tuple[Filter, Bools]], rows: int) -> Codes:
    """Per row the first filter that refuses it, by the order of the filters and not of this list."""
    first = np.full(rows, int(Filter.NONE), dtype=np.int64)
    for name, passes in refusals:
        np.minimum(first, int(name), out=first, where=~passes)
    return first


def _all_of(fleet: Fleet, requirements: tuple[Requirement, ...]) -> Bools:
    matches = np.ones(len(fleet.rows), dtype=np.bool_)
    for requirement in requirements:
        matches &= fleet.label(requirement.key).where(lambda value, r=requirement: meets(r, value))  # type: ignore[misc]
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
