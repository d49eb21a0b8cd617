"""Trying out a change: would a waiting replica fit after it, once those asked before it have taken their share?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.core.model import Replica
from penstock.core.placement.columns import Rows
from penstock.core.placement.planner import Planner
from penstock.core.placement.row import NodeView
from penstock.core.placement.table import Table
from penstock.core.placement.verdicts import Filter
from penstock.core.power.ledger import Ledger

MOST_TRIED = 4
"""Changes of one kind that are tried before giving up on it."""


def at_leisure() -> bool:
    """There is time for every trial."""
    return False


@dataclass(frozen=True, slots=True)
class Case:
    """One waiting replica: the state it waits in, its class's table, and who is asked before it."""

    planner: Planner
    replica: Replica
    table: Table
    ahead: Sequence[Replica]
    hurry: Callable[[], bool] = at_leisure
    """Whether there is no time to try another change."""

    def rows(self, name: Filter) -> Rows:
        """The rows that this filter is the first to refuse."""
        return np.flatnonzero(self.table.first == name)

    def view(self, row: int) -> NodeView:
        return self.planner.fleet.rows[row].view


def fits_after(case: Case, change: Callable[[Ledger], None]) -> bool:
    """Whether the replica is placed once the rooms are changed and those ahead have been asked."""
    trial = case.planner.fork()
    change(trial.ledger)
    return _fits(case, trial, case.replica)


def fits_as(case: Case, changed: Replica) -> bool:
    """Whether the replica would be placed if it asked for this instead.

    Nobody ahead is asked again: they were refused by these very rooms, and what another asks for opens none to them.
    """
    return not case.hurry() and case.planner.fork().choose(changed) is not None


def fits_on(case: Case, view: NodeView) -> bool:
    """Whether the replica is placed once a node is as in `view`."""
    planner = case.planner
    fleet = planner.fleet.with_nodes({view.node.name: view}, planner.fleet.now_at)
    return _fits(case, planner.on(fleet), case.replica)


def is_refused(trial: Planner, replica: Replica) -> bool:
    """Whether it fits nowhere even with nobody ahead; then it will not fit behind them, for they only take room.

    Most changes that are tried end here, at the price of one table. A hard spread may even out as others are placed.
    """
    return not replica.scheduling.hard_spread and trial.table(replica).best() is None


def _fits(case: Case, trial: Planner, replica: Replica) -> bool:
    if case.hurry() or is_refused(trial, replica):
        return False
    trial.place(case.ahead)
    return trial.choose(replica) is not None
