"""A table that catches up with a plan's decisions says what a new one would say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import builders as a
from penstock.core.model import Guarantee, PoolKey, Replica
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scheduling import HostPort, Scheduling
from penstock.core.placement.scores import unusable_gpus
from penstock.core.placement.table import Table
from penstock.core.power.ledger import Ledger

NODES = 40
MINE = a.replica("mine", 2, pool=PoolKey("team", "mine"))
OTHER = a.replica("other", 3, pool=PoolKey("team", "other"))

TAKEN: dict[str, tuple[Sequence[int], Replica]] = {
    "one row": ([7], OTHER),
    "one row twice, until it is full": ([7, 7], OTHER),
    "rows side by side": ([3, 4, 5], OTHER),
    "rows with others between them": ([3, 9, 12], OTHER),
    "rows far apart": ([0, NODES - 1], OTHER),
    "so many rows that the domain has nothing left": (range(20), OTHER),
    "rows of a replica without a GPU": ([3, 4], a.replica("small", 0)),
    "rows whose port is taken": ([3, 4], a.replica("port", 1, scheduling=Scheduling(host_ports=(HostPort(80),)))),
}


def watched(guarantee: Guarantee) -> Fleet:
    budget_watts = NODES * 8 * 80 + 55 * 641.0
    nodes = [a.node(f"gpu-{at:02}") for at in range(NODES)]
    return a.fleet(*nodes, domains=[a.domain(budget_watts=budget_watts, guarantee=guarantee)])


@pytest.mark.parametrize("guarantee", Guarantee)
@pytest.mark.parametrize(("rows", "replica"), TAKEN.values(), ids=TAKEN.keys())
def test_what_catches_up_equals_what_is_made_anew(rows: Sequence[int], replica: Replica, guarantee: Guarantee) -> None:
    fleet = watched(guarantee)
    ledger, unusable = Ledger(fleet, (), 0.0), unusable_gpus(fleet, [MINE, OTHER])
    asking = MINE if not replica.scheduling.host_ports else a.replica("twin", 1, scheduling=replica.scheduling)
    table, hold = Table(ledger, asking, unusable), ledger.hold(replica)
    before = table.refused()
    for row in rows:
        watts, _ = ledger.added_watts(hold, replica.gpus, slice(row, row + 1))
        ledger.take(row, replica, hold, watts[0].tolist())
    table.catch_up()
    anew = Table(ledger, asking, unusable)
    for name in ("first", "score", "watts", "gpu_watts"):
        np.testing.assert_array_equal(getattr(table, name), getattr(anew, name), name)
    assert table.refused() == anew.refused()
    assert before == ()
