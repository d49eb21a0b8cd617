"""The fleet's rows as numpy columns, one entry per node, and how some of them are replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from penstock.core.placement.columns import Codes, Column, Floats, Rows
from penstock.core.placement.row import Context, Row
from penstock.core.placement.scheduling import HostPort, Taint
from penstock.core.power.node_watts import hardest_watts


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The rows' figures, one entry per node. Watts are without overhead unless they say `charge`.

    `domain` has one column per domain that charges a node, its own first and then those above; its padding is the
    number of domains, a domain of its own that is never full.
    """

    free: Mapping[str, Codes]
    free_gpus: Codes
    allocatable_gpus: Codes
    gpu_memory_bytes: Codes
    evidence: Codes
    ready: Codes
    activity: Floats
    shared_activity: Floats
    parted_activity: Floats
    throttled: Floats
    hot: Floats
    unhealthy: Floats
    """Share of a node's GPUs that take nothing."""
    pending_gpus: Codes
    held_gpus: Codes
    """Running and pending."""
    coolest_watts: Floats
    """Planned draw of its coolest GPU; zero without any."""
    hard_watts: Floats
    """Per GPU whose holder is not known: what a replica's next GPU reserves at most."""
    hardest_watts: Floats
    """Per GPU, those whose holder is known too: a MIG device may be on any."""
    idle_watts: Floats
    """The most that any of its GPUs draws with nothing to do."""
    parted_rest: Floats
    """What MIG devices that nobody lists leave of the GPUs that they are on, in whole GPUs."""
    unheld_watts: Floats
    """Planned draw of the GPUs nobody holds, coolest first, padded with infinity. Shape (nodes, GPUs)."""
    domain: Codes
    charge: Floats
    factor: Floats
    """Per domain column: what a watt of GPU costs there, with the node's own overhead."""
    overhead: Floats
    """Per domain column: what the node costs there beside its GPUs."""
    products: Column[frozenset[str]]
    taints: Column[tuple[Taint, ...]]
    taken_ports: Column[frozenset[HostPort]]
    places: Column[tuple[str, str]]
    """Country and subdivision."""
    place_held: Codes
    """1 where the place counts for no new placement."""
    repelling: Column[frozenset[tuple[str, str]]]
    """Namespace and topology key of each anti-affinity rule of a pod on the node."""
    sizes: Column[tuple[int, ...]]
    """GPUs of each pod on the node."""
    expires_at: Floats


def _padded(lists: Sequence[Sequence[float]], padding: float, width: int) -> Floats:
    table = np.full((len(lists), width), padding)
    for at, figures in enumerate(lists):
        table[at, : len(figures)] = figures
    return table


def _overheads(row: Row) -> list[float]:
    return [rule.overhead_watts if row.power.planned_watts else 0.0 for rule in row.rules]


def columns_of(rows: Sequence[Row], context: Context) -> Columns:
    def whole(figures: Iterable[int]) -> Codes:
        return np.fromiter(figures, dtype=np.int64, count=len(rows))

    def real(figures: Iterable[float]) -> Floats:
        return np.fromiter(figures, dtype=np.float64, count=len(rows))

    resources = sorted({name for row in rows for name in row.free})
    domains_wide = max((len(row.domains) for row in rows), default=1) or 1
    gpus_wide = max((len(row.power.planned_watts) for row in rows), default=1) or 1
    return Columns(
        free={name: whole(row.free.get(name, 0) for row in rows) for name in resources},
        free_gpus=whole(row.free_gpus for row in rows),
        allocatable_gpus=whole(row.allocatable_gpus for row in rows),
        gpu_memory_bytes=whole(row.gpu_memory_bytes for row in rows),
        evidence=whole(row.evidence for row in rows),
        ready=whole(row.view.node.ready for row in rows),
        activity=real(row.activity for row in rows),
        shared_activity=real(row.shared_activity for row in rows),
        parted_activity=real(row.parted_activity for row in rows),
        throttled=real(row.throttled for row in rows),
        hot=real(row.hot for row in rows),
        unhealthy=real(sum(row.ailments.values()) / max(len(row.power.planned_watts), 1) for row in rows),
        pending_gpus=whole(len(row.power.pending) for row in rows),
        held_gpus=whole(len(row.power.running) + len(row.power.pending) for row in rows),
        coolest_watts=real(min(row.power.planned_watts, default=0.0) for row in rows),
        hard_watts=real(row.power.hard_watts for row in rows),
        hardest_watts=real(hardest_watts(row.power) for row in rows),
        idle_watts=real(row.power.idle_watts for row in rows),
        parted_rest=real(sum(hold.rest for hold in row.power.parted) for row in rows),
        unheld_watts=_padded([row.power.unheld_watts for row in rows], np.inf, gpus_wide),
        domain=_padded([row.domains for row in rows], len(context.domains), domains_wide).astype(np.int64),
        charge=_padded([row.charges for row in rows], 0.0, domains_wide),
        factor=_padded([[1.0 + rule.per_gpu_watt for rule in row.rules] for row in rows], 0.0, domains_wide),
        overhead=_padded([_overheads(row) for row in rows], 0.0, domains_wide),
        products=Column.of(row.products for row in rows),
        taints=Column.of(row.taints for row in rows),
        taken_ports=Column.of(row.taken_ports for row in rows),
        places=Column.of((row.view.node.country, row.view.node.subdivision) for row in rows),
        place_held=whole(row.view.place_held for row in rows),
        repelling=Column.of(row.repelling for row in rows),
        sizes=Column.of(tuple(sorted(pod.gpus for pod in row.view.pods if pod.gpus)) for row in rows),
        expires_at=real(row.expires_at for row in rows),
    )


def columns_with(old: Columns, rows: Sequence[Row], changed: Sequence[int], context: Context) -> Columns:
    """The columns with some rows replaced; anew where a changed row is wider than they are."""
    if not changed:
        return old
    part = columns_of([rows[at] for at in changed], context)
    wider = part.unheld_watts.shape[1] > old.unheld_watts.shape[1] or part.domain.shape[1] > old.domain.shape[1]
    if wider or not part.free.keys() <= old.free.keys():
        return columns_of(rows, context)
    at: Rows = np.array(changed, dtype=np.int64)
    padding = {"unheld_watts": np.inf, "domain": len(context.domains)}
    swapped: dict[str, Any] = {}
    for each in fields(Columns):
        before, after = getattr(old, each.name), getattr(part, each.name)
        if each.name == "free":
            nothing = np.zeros(len(changed), dtype=np.int64)
            swapped["free"] = {name: _swapped(one, at, after.get(name, nothing)) for name, one in before.items()}
        elif isinstance(before, Column):
            swapped[each.name] = before.replaced(changed, [after[row] for row in range(len(changed))])
        else:
            swapped[each.name] = _swapped(before, at, after, padding.get(each.name, 0))
    return Columns(**swapped)


def _swapped(column: Any, at: Rows, figures: Any, padding: float = 0) -> Any:
    column = column.copy()
    if column.ndim == 1:
        column[at] = figures
    else:
        column[at] = padding
        column[at, : figures.shape[1]] = figures
    return column
