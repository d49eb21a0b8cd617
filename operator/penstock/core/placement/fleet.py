"""The frozen snapshot that every decision looks at: one row per node, sorted by name, as numpy columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from penstock.core.model import Domain, Node, PlacementRules, Pod, PoolKey, Telemetry
from penstock.core.placement.columns import Bools, Column, Floats
from penstock.core.placement.fleet_columns import Columns, columns_of, columns_with
from penstock.core.placement.row import Context, NodeView, Row, build_row, measured
from penstock.core.power.node_watts import Pools, ProductMaxima
from penstock.core.power.tree import Tree, grow, same_shape
from penstock.core.residency import contradicts_itself

__all__ = ["Fleet", "NodeView"]


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
    def build(  # noqa: PLR0917  what a snapshot is made of, in the order of the layers
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
        """Rows whose country and subdivision labels do not contradict each other, and whose place counts."""
        consistent = self.columns.places.where(lambda place: not contradicts_itself(*place))
        return np.asarray(consistent & (self.columns.place_held == 0))

    @property
    def places_known(self) -> bool:
        """Whether any node says in which country it stands."""
        return bool(self.columns.places.where(lambda place: bool(place[0])).any())

    def node(self, name: str) -> Node | None:
        at = self.position.get(name)
        return None if at is None else self.rows[at].view.node

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

        Only changed rows, those whose telemetry ran out in between and those of pools that are charged otherwise now
        are worked out again; a change of domains, of the highest limit of a product or of the set of nodes costs
        more. Equal to a full `build` of the same facts.
        """
        known = self.domains if domains is None else tuple(sorted(domains, key=_name))
        if known != self.domains and same_shape(known, self.domains):
            return self._rebudgeted(known).with_nodes(changed, now_at, pools=pools)
        if self._reshapes(changed, known):
            return self._rebuilt(changed, now_at, known, pools)
        fresh = {self.position[name]: _ordered(view) for name, view in changed.items() if view is not None}
        context = self._context_after(fresh, pools)
        if context is not self.context:
            same = _unmoved(self.context, context)
            fresh = {at: row.view for at, row in enumerate(self.rows) if not same(row)} | fresh
        for at in np.flatnonzero((self.columns.expires_at < now_at) & (self.now_at <= now_at)):
            fresh.setdefault(int(at), self.rows[at].view)
        if now_at < self.now_at:
            fresh = {at: fresh.get(at, row.view) for at, row in enumerate(self.rows)}
        return self._replaced(fresh, now_at, context)

    def _reshapes(self, changed: Mapping[str, NodeView | None], domains: tuple[Domain, ...]) -> bool:
        if domains != self.domains:
            return True
        return any(
            view is None or name not in self.position or _moves_maxima(self.rows[self.position[name]].view, view)
            for name, view in changed.items()
        )

    def _context_after(self, fresh: Mapping[int, NodeView], pools: Mapping[PoolKey, PlacementRules] | None) -> Context:
        """The context once these rows and the pools are so: the same object where nobody is charged otherwise."""
        known, maxima = self.context.pools, self.context.maxima
        if pools is not None and dict(pools) != known.rules:
            views = (fresh.get(at, row.view) for at, row in enumerate(self.rows))
            return replace(self.context, pools=_pools(pools, (measured(view, pools, maxima) for view in views)))
        found = {at: measured(view, known.rules, maxima) for at, view in fresh.items()}
        if all(one == self.rows[at].measured for at, one in found.items()):
            return self.context
        every = (found.get(at, row.measured) for at, row in enumerate(self.rows))
        after = _pools(known.rules, every)
        return self.context if after == known else replace(self.context, pools=after)

    def _rebudgeted(self, domains: tuple[Domain, ...]) -> Fleet:
        """Other budgets for the same domains: no node is charged otherwise."""
        context = replace(self.context, domains=domains)
        committed = _committed(self.columns, context)
        return replace(self, context=context, committed_watts=committed, usable_watts=_usable(context))

    def _rebuilt(
        self,
        changed: Mapping[str, NodeView | None],
        now_at: float,
        domains: tuple[Domain, ...],
        pools: Mapping[PoolKey, PlacementRules] | None,
    ) -> Fleet:
        views = {row.view.node.name: row.view for row in self.rows}
        for name, view in changed.items():
            if view is None:
                views.pop(name, None)
            else:
                views[name] = _ordered(view)
        rules = self.context.pools.rules if pools is None else pools
        context = _context(domains, rules, tuple(views.values()), self.context.tree)
        # Rows stay as they are while nothing that they depend on moved: a new node then costs one row.
        kept = self.rows if self.now_at <= now_at else ()
        same = _unmoved(self.context, context)
        old = {row.view.node.name: row for row in kept if row.expires_at >= now_at and same(row)}
        rows = [
            row if (row := old.get(name)) and row.view is view else build_row(view, context, now_at)
            for name, view in views.items()
        ]
        return _of_rows(rows, context, now_at)

    def _replaced(self, fresh: Mapping[int, NodeView], now_at: float, context: Context) -> Fleet:
        rows = list(self.rows)
        for at, view in fresh.items():
            rows[at] = build_row(view, context, now_at)
        changed = sorted(fresh)
        labels = {
            key: column.replaced(changed, [rows[at].view.node.labels.get(key) for at in changed])
            for key, column in self._labels.items()
        }
        columns = columns_with(self.columns, rows, changed, context)
        return Fleet(
            tuple(rows),
            self.position,
            context,
            columns,
            _committed(columns, context),
            self.usable_watts,
            now_at,
            labels,
        )


def _context(
    domains: Iterable[Domain],
    pools: Mapping[PoolKey, PlacementRules],
    views: Sequence[NodeView],
    before: Tree | None = None,
) -> Context:
    maxima = _maxima(views)
    known = _pools(pools, (measured(view, pools, maxima) for view in views))
    ordered = tuple(sorted(domains, key=_name))
    same = before is not None and same_shape(ordered, before.shapes)
    return Context(ordered, before if same and before else grow(ordered), known, maxima)


def _pools(rules: Mapping[PoolKey, PlacementRules], found: Iterable[tuple[PoolKey, float] | None]) -> Pools:
    """The rules, and by how much each pool is raised by what was found on any node."""
    raised: dict[PoolKey, float] = {}
    if any(one.declared_watts is not None for one in rules.values()):
        for pool, watts in filter(None, found):
            raised[pool] = max(raised.get(pool, 0.0), watts)
    return Pools(MappingProxyType(dict(rules)), MappingProxyType(raised))


def _unmoved(old: Context, new: Context) -> Callable[[Row], bool]:
    """Which rows are the same in both contexts: all, none, or those without a pod of a pool that changed."""
    if old.tree != new.tree or old.maxima != new.maxima:
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


def _moves_maxima(old: NodeView, new: NodeView) -> bool:
    """Whether other rows may depend on what changed here."""
    return old.telemetry is not new.telemetry and _limits(old) != _limits(new) and _maxima((old,)) != _maxima((new,))


def _limits(view: NodeView) -> set[tuple[str, float | None]]:
    return {(gpu.product, gpu.maximum_watts) for gpu in view.telemetry.gpus} if view.telemetry else set()


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
    columns = columns_of(ordered, context)
    position = {row.view.node.name: at for at, row in enumerate(ordered)}
    return Fleet(ordered, position, context, columns, _committed(columns, context), _usable(context), now_at)


def _usable(context: Context) -> Floats:
    return np.array([*(domain.usable_watts for domain in context.domains), np.inf])


def _committed(columns: Columns, context: Context) -> Floats:
    static = np.array([*context.tree.totals([domain.static_watts for domain in context.domains]), 0.0])
    charged = np.bincount(columns.domain.ravel(), weights=columns.charge.ravel(), minlength=len(static))
    return np.asarray(static + charged, dtype=np.float64)
