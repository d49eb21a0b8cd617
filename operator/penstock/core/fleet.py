"""The frozen snapshot that every decision looks at: one row per node, sorted by name, as numpy columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from penstock.core.columns import Bools, Codes, Column, Floats, Rows
from penstock.core.model import Domain, HostPort, Node, PlacementRules, Pod, PoolKey, Taint, Telemetry
from penstock.core.power import Pools, ProductMaxima
from penstock.core.residency import contradicts_itself
from penstock.core.row import Context, NodeView, Row, build_row, measured

__all__ = ["Fleet", "NodeView"]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The rows' figures, one entry per node. Watts are without overhead unless they say `charge`.

    `domain` has one column per domain that a node may be in; its padding is the number of domains, a domain of its own
    that is never full.
    """

    free: Mapping[str, Codes]
    free_gpus: Codes
    allocatable_gpus: Codes
    gpu_memory_bytes: Codes
    evidence: Codes
    ready: Codes
    activity: Floats
    throttled: Floats
    unhealthy: Floats
    pending_gpus: Codes
    hard_watts: Floats
    unheld_watts: Floats
    """Planned draw of the GPUs nobody holds, coolest first, padded with infinity. Shape (nodes, GPUs)."""
    domain: Codes
    charge: Floats
    products: Column[frozenset[str]]
    taints: Column[tuple[Taint, ...]]
    taken_ports: Column[frozenset[HostPort]]
    places: Column[tuple[str, str]]
    """Country and subdivision."""
    sizes: Column[tuple[int, ...]]
    """GPUs of each pod on the node."""
    expires_at: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """One moment of the cluster. Made by `build`, moved on by `with_nodes`; nothing in it ever changes."""

    rows: tuple[Row, ...]
    position: Mapping[str, int]
    """Node name → row."""
    context: Context
    columns: Columns
    committed_watts: Floats
    """Per domain, with a last entry for nodes in none."""
    usable_watts: Floats
    now_at: float
    _labels: dict[str, Column[str | None]] = field(default_factory=dict)
    """Memo of label columns: a pure function of the rows, filled when a rule first asks for the key."""

    @classmethod
    def build(
        cls,
        nodes: Iterable[Node],
        telemetry: Mapping[str, Telemetry],
        pods: Iterable[Pod],
        domains: Iterable[Domain],
        pools: Mapping[PoolKey, PlacementRules],
        now_at: float,
    ) -> Fleet:
        """Book everything anew. `pods` may be all pods: finished ones and those without a place take no room."""
        placed: dict[str, list[Pod]] = defaultdict(list)
        for pod in pods:
            if pod.place and not pod.finished:
                placed[pod.place].append(pod)
        views = [NodeView(node, telemetry.get(node.name), in_order(placed[node.name])) for node in nodes]
        context = _context(domains, pools, views)
        return _of_rows([build_row(view, context, now_at) for view in views], context, now_at)

    @property
    def domains(self) -> tuple[Domain, ...]:
        return self.context.domains

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.position)

    @property
    def consistent_place(self) -> Bools:
        """Rows whose country and subdivision labels do not contradict each other."""
        return self.columns.places.where(lambda place: not contradicts_itself(*place))

    def node(self, name: str) -> Node | None:
        at = self.position.get(name)
        return None if at is None else self.rows[at].view.node

    def pods(self) -> Iterable[Pod]:
        return (pod for row in self.rows for pod in row.view.pods)

    def label(self, key: str) -> Column[str | None]:
        """The value of one label on every node, `None` where a node lacks it."""
        column = self._labels.get(key)
        if column is None:
            column = self._labels[key] = Column.of(row.view.node.labels.get(key) for row in self.rows)
        return column

    def with_nodes(
        self,
        changed: Mapping[str, NodeView | None],
        now_at: float,
        domains: Iterable[Domain] | None = None,
        pools: Mapping[PoolKey, PlacementRules] | None = None,
    ) -> Fleet:
        """The fleet a moment later: `changed` nodes as they are now (`None`: gone), everything else as it was.

        Only changed rows and those whose telemetry ran out in between are worked out again; a change of domains,
        of a pool's power rules, of the highest limit of a product or of the set of nodes costs more. Equal to a
        full `build` of the same facts.
        """
        views = {row.view.node.name: row.view for row in self.rows} if self._reshapes(changed, domains, pools) else None
        if views is not None:
            return self._rebuilt(views, changed, now_at, domains, pools)
        fresh = {self.position[name]: _ordered(view) for name, view in changed.items() if view is not None}
        for at in np.flatnonzero((self.columns.expires_at < now_at) & (self.now_at <= now_at)):
            fresh.setdefault(int(at), self.rows[at].view)
        if now_at < self.now_at:
            fresh = {at: fresh.get(at, row.view) for at, row in enumerate(self.rows)}
        return self._replaced(fresh, now_at)

    def _reshapes(
        self,
        changed: Mapping[str, NodeView | None],
        domains: Iterable[Domain] | None,
        pools: Mapping[PoolKey, PlacementRules] | None,
    ) -> bool:
        if domains is not None and tuple(sorted(domains, key=_name)) != self.domains:
            return True
        if pools is not None and dict(pools) != self.context.pools.rules:
            return True
        return any(
            view is None or name not in self.position or self._moves_context(self.rows[self.position[name]], view)
            for name, view in changed.items()
        )

    def _moves_context(self, old: Row, new: NodeView) -> bool:
        """Whether other rows may depend on what changed here."""
        if old.view.telemetry is not new.telemetry and _maxima((old.view,)) != _maxima((new,)):
            return True
        return measured(new, self.context.pools.rules, self.context.maxima) != old.measured

    def _rebuilt(
        self,
        views: dict[str, NodeView],
        changed: Mapping[str, NodeView | None],
        now_at: float,
        domains: Iterable[Domain] | None,
        pools: Mapping[PoolKey, PlacementRules] | None,
    ) -> Fleet:
        for name, view in changed.items():
            if view is None:
                views.pop(name, None)
            else:
                views[name] = _ordered(view)
        rules = self.context.pools.rules if pools is None else pools
        context = _context(self.domains if domains is None else domains, rules, tuple(views.values()))
        # Rows stay as they are while nothing that they depend on moved: a new node then costs one row.
        kept = self.rows if self.now_at <= now_at else ()
        same = _unmoved(self.context, context)
        old = {row.view.node.name: row for row in kept if row.expires_at >= now_at and same(row)}
        rows = [
            row if (row := old.get(name)) and row.view is view else build_row(view, context, now_at)
            for name, view in views.items()
        ]
        return _of_rows(rows, context, now_at)

    def _replaced(self, fresh: Mapping[int, NodeView], now_at: float) -> Fleet:
        rows = list(self.rows)
        for at, view in fresh.items():
            rows[at] = build_row(view, self.context, now_at)
        changed = sorted(fresh)
        labels = {
            key: column.replaced(changed, [rows[at].view.node.labels.get(key) for at in changed])
            for key, column in self._labels.items()
        }
        columns = _columns_with(self.columns, rows, changed, self.context)
        committed = _committed(columns, self.context)
        return replace(
            self, rows=tuple(rows), columns=columns, committed_watts=committed, now_at=now_at, _labels=labels
        )


def _context(
    domains: Iterable[Domain], pools: Mapping[PoolKey, PlacementRules], views: Sequence[NodeView]
) -> Context:
    maxima = _maxima(views)
    raised: dict[PoolKey, float] = {}
    if any(rules.declared_watts is not None for rules in pools.values()):
        for found in (measured(view, pools, maxima) for view in views):
            if found is not None:
                raised[found[0]] = max(raised.get(found[0], 0.0), found[1])
    known = Pools(MappingProxyType(dict(pools)), MappingProxyType(raised))
    return Context(tuple(sorted(domains, key=_name)), known, maxima)


def _unmoved(old: Context, new: Context) -> Callable[[Row], bool]:
    """Which rows are the same in both contexts: all, none, or those without a pod of a pool that changed."""
    if old.domains != new.domains or old.maxima != new.maxima:
        return lambda _: False
    moved = {
        pool
        for pool in old.pools.rules.keys() | new.pools.rules.keys()
        if old.pools.rules.get(pool) != new.pools.rules.get(pool)
        or old.pools.measured_watts.get(pool) != new.pools.measured_watts.get(pool)
    }
    return lambda row: not any(PoolKey(pod.namespace, pod.pool) in moved for pod in row.view.pods if pod.pool)


def in_order(pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """Pods in one order, whatever order they were heard of in."""
    return tuple(sorted(pods, key=lambda pod: (pod.created_time, pod.namespace, pod.name, pod.uid)))


def _name(domain: Domain) -> str:
    return domain.name


def _ordered(view: NodeView) -> NodeView:
    pods = in_order(pod for pod in view.pods if not pod.finished)
    return view if pods == view.pods else replace(view, pods=pods)


def _maxima(views: Iterable[NodeView]) -> ProductMaxima:
    maxima: dict[str, float] = {}
    for view in views:
        for gpu in view.telemetry.gpus if view.telemetry else ():
            if gpu.maximum_watts is not None:
                for product in (gpu.product, ""):
                    maxima[product] = max(maxima.get(product, 0.0), gpu.maximum_watts)
    return maxima


def _of_rows(rows: Iterable[Row], context: Context, now_at: float) -> Fleet:
    ordered = tuple(sorted(rows, key=lambda row: row.view.node.name))
    columns = _columns(ordered, context)
    usable = np.array([*(domain.usable_watts for domain in context.domains), np.inf])
    position = {row.view.node.name: at for at, row in enumerate(ordered)}
    return Fleet(ordered, position, context, columns, _committed(columns, context), usable, now_at)


def _committed(columns: Columns, context: Context) -> Floats:
    static = np.array([*(domain.static_watts for domain in context.domains), 0.0])
    charged = np.bincount(columns.domain.ravel(), weights=columns.charge.ravel(), minlength=len(static))
    return np.asarray(static + charged, dtype=np.float64)


def _padded(lists: Sequence[Sequence[float]], padding: float, width: int) -> Floats:
    table = np.full((len(lists), width), padding)
    for at, figures in enumerate(lists):
        table[at, : len(figures)] = figures
    return table


def _columns(rows: Sequence[Row], context: Context) -> Columns:
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
        throttled=real(row.throttled for row in rows),
        unhealthy=real(row.unhealthy for row in rows),
        pending_gpus=whole(len(row.power.pending) for row in rows),
        hard_watts=real(row.power.hard_watts for row in rows),
        unheld_watts=_padded([row.power.unheld_watts for row in rows], np.inf, gpus_wide),
        domain=_padded([row.domains for row in rows], len(context.domains), domains_wide).astype(np.int64),
        charge=_padded([row.charges for row in rows], 0.0, domains_wide),
        products=Column.of(row.products for row in rows),
        taints=Column.of(row.taints for row in rows),
        taken_ports=Column.of(row.taken_ports for row in rows),
        places=Column.of((row.view.node.country, row.view.node.subdivision) for row in rows),
        sizes=Column.of(tuple(sorted(pod.gpus for pod in row.view.pods if pod.gpus)) for row in rows),
        expires_at=real(row.expires_at for row in rows),
    )


def _columns_with(old: Columns, rows: Sequence[Row], changed: Sequence[int], context: Context) -> Columns:
    """The columns with some rows replaced; anew where a changed row is wider than they are."""
    if not changed:
        return old
    part = _columns([rows[at] for at in changed], context)
    at: Rows = np.array(changed, dtype=np.int64)
    fits = part.unheld_watts.shape[1] <= old.unheld_watts.shape[1] and part.domain.shape[1] <= old.domain.shape[1]
    if not fits or not part.free.keys() <= old.free.keys():
        return _columns(rows, context)

    def put(column: Floats, figures: Floats, padding: float) -> Floats:
        column = column.copy()
        column[at] = padding
        column[at, : figures.shape[1]] = figures
        return column

    def swap(column: Codes | Floats, figures: Codes | Floats) -> Codes | Floats:
        column = column.copy()
        column[at] = figures
        return column

    nothing = np.zeros(len(changed), dtype=np.int64)
    plain = ("free_gpus", "allocatable_gpus", "gpu_memory_bytes", "evidence", "ready", "pending_gpus")
    plain = (*plain, "activity", "throttled", "unhealthy", "hard_watts", "expires_at")
    coded = ("products", "taints", "taken_ports", "places", "sizes")
    return replace(
        old,
        free={name: swap(column, part.free.get(name, nothing)) for name, column in old.free.items()},
        unheld_watts=put(old.unheld_watts, part.unheld_watts, np.inf),
        domain=put(old.domain, part.domain, len(context.domains)),
        charge=put(old.charge, part.charge, 0.0),
        **{name: swap(getattr(old, name), getattr(part, name)) for name in plain},
        **{
            name: getattr(old, name).replaced(changed, [getattr(part, name)[row] for row in range(len(changed))])
            for name in coded
        },
    )
