"""Trying out a change: would a waiting replica fit after it, once those asked before it have taken their share?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.core.columns import Rows
from penstock.core.ledger import Ledger
from penstock.core.model import Replica
from penstock.core.planner import Planner
from penstock.core.row import NodeView
from penstock.core.table import Table
from penstock.core.verdicts import Filter

MOST_TRIED = 4
"""Changes of one kind that are tried before giving up on it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One waiting replica: the state it waits in, its class's table, and who is asked before it."""

    planner: Planner
    replica: Replica
    table: Table
    ahead: Sequence[Replica]

    def rows(self, name: Filter) -> Rows:
        """The rows that this filter is the first to refuse."""
        return np.flatnonzero(self.table.first == name)

    def view(self, row: int) -> NodeView:
        return self.planner.fleet.rows[row].view


def fits_after(case: Case, change: Callable[[Ledger], None]) -> bool:
    """Whether the replica is placed once the rooms are changed and those ahead have been asked."""
    trial = case.planner.fork()
    change(trial.ledger)
    trial.place(case.ahead)
    return trial.choose(case.replica) is not None


def fits_as(case: Case, changed: Replica) -> bool:
    """Whether the replica would be placed if it asked for this instead."""
    trial = case.planner.fork()
    trial.place(case.ahead)
    return trial.choose(changed) is not None


def fits_on(case: Case, view: NodeView) -> bool:
    """Whether the replica is placed once a node is as in `view`."""
    planner = case.planner
    fleet = planner.fleet.with_nodes({view.node.name: view}, planner.fleet.now_at)
    trial = planner.on(fleet)
    trial.place(case.ahead)
    return trial.choose(case.replica) is not None
