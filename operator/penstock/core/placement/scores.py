"""The named terms of the score. A term is a weight times a figure; the terms add up to the score, and most wins.

To add a term: a weight here, a line in `SteadyTerms` (what no decision changes) or in `table.Table` (what each one
does), and its name appears in every explanation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from penstock.core.model import MOST_GPUS, Replica
from penstock.core.placement.columns import Bools, Floats
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.topology import Peers, pool_peers

WEIGHTS = {
    "wattsPerGPU": -1.0,
    "fragmentation": -0.25,
    "activity": -0.1,
    "throttling": -0.5,
    "heat": -2.0,
    "unhealthyGPUs": -0.5,
    "spread": -0.05,
}
"""Per kilowatt and GPU; per GPU made unusable; per share of activity, of throttled, of hot and of unhealthy GPUs; per
replica more than the emptiest value of a topology key has. All terms but spread stay within ±6."""

SKEW_WEIGHT = -20.0
"""Per replica beyond `maxSkew`: more than all other terms together."""

WHOLE_NODE_SHARE = 0.05
"""How much of the expected mix asks for a whole node, at least: whole nodes are kept for the models that need one."""

STEADY = ("activity", "throttling", "heat", "unhealthyGPUs")


def steady_terms(fleet: Fleet) -> Floats:
    """Terms that are the same for every replica: a row for each node, a column for each of `STEADY`."""
    columns = fleet.columns
    figures = {
        "activity": columns.activity,
        "throttling": columns.throttled,
        "heat": columns.hot,
        "unhealthyGPUs": columns.unhealthy,
    }
    return np.column_stack([WEIGHTS[name] * figures[name] for name in STEADY])


def unusable_gpus(fleet: Fleet, waiting: Iterable[Replica]) -> Floats:
    """By the number of free GPUs on a node: how many of them the expected mix of replicas cannot use.

    The mix is what runs and what waits. A size `s` leaves `free mod s` GPUs unused (after Weng et al., "Beware of
    Fragmentation", ATC'23, reduced to whole GPUs).
    """
    sizes = Counter(replica.gpus for replica in waiting if replica.gpus)
    numbers = np.bincount(fleet.columns.sizes.codes, minlength=len(fleet.columns.sizes.values))
    for gpus, nodes in zip(fleet.columns.sizes.values, numbers.tolist(), strict=True):
        for size in gpus:
            sizes[size] += nodes
    whole = int(fleet.columns.allocatable_gpus.max(initial=1)) or 1
    total = sum(sizes.values()) or 1
    shares = {size: (1 - WHOLE_NODE_SHARE) * number / total for size, number in sizes.items() if number}
    shares[whole] = shares.get(whole, 0.0) + WHOLE_NODE_SHARE
    free = np.arange(min(max(whole, *shares), MOST_GPUS) + 1, dtype=np.float64)
    table = np.zeros_like(free)
    for size in sorted(shares):
        table += shares[size] * (free % size)
    return table


class Spread:
    """The wish to be spread: one count of the pool's replicas per topology key, over the rows that would do."""

    def __init__(self, fleet: Fleet, replica: Replica, where: Bools) -> None:
        self._pool = replica.pool
        self._rules = replica.rules.spread
        self._peers: list[Peers] = [pool_peers(fleet, replica, rule, where) for rule in self._rules]

    def saw(self, row: int, replica: Replica) -> bool:
        if not self._rules or replica.pool != self._pool:
            return False
        for peers in self._peers:
            peers.add(row)
        return True

    def term(self) -> Floats:
        total: Floats = np.zeros(0)
        for rule, peers in zip(self._rules, self._peers, strict=True):
            lead = peers.per_row() - peers.least()
            excess = np.maximum(lead + 1 - rule.max_skew, 0.0)
            # A node without the key can be spread over nothing; it goes after every other.
            excess[peers.values.where(lambda value: value is None)] += 1000.0
            term = WEIGHTS["spread"] * lead + SKEW_WEIGHT * excess
            total = term if not len(total) else total + term
        return total
