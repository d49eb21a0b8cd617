"""What would make a waiting replica fit: the smallest change of each kind that places it with no other action.

Every change is tried on a copy of the plan's own state, with those that are asked before it taking their share first;
what does not place the replica there is not suggested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.core.model import Replica
from penstock.core.placement.planner import Planner
from penstock.core.placement.trial import Case, at_leisure
from penstock.core.placement.verdicts import Filter
from penstock.core.telling.room_remedies import end_hold, free_gpus, free_resources, raise_budget
from penstock.core.telling.rule_remedies import (
    await_calm,
    end_back_off,
    free_host_ports,
    heal_node,
    lift_taint,
    prove_place,
    relax_affinity,
    settle_place,
    widen_gpu_model,
    widen_law,
)

REMEDIES: tuple[tuple[Filter, Callable[[Case], str]], ...] = (
    (Filter.BACK_OFF, end_back_off),
    (Filter.WATTS, raise_budget),
    (Filter.POWER_HOLD, end_hold),
    (Filter.SHARED_ACTIVITY, await_calm),
    (Filter.FREE_GPUS, free_gpus),
    (Filter.RESOURCES, free_resources),
    (Filter.HOST_PORTS, free_host_ports),
    (Filter.TAINTS, lift_taint),
    (Filter.HEALTHY, heal_node),
    (Filter.GPU_MODEL, widen_gpu_model),
    (Filter.AFFINITY, relax_affinity),
    (Filter.LAWFUL_PLACE, settle_place),
    (Filter.LAWFUL_PLACE, prove_place),
    (Filter.LAWFUL_PLACE, widen_law),
)
"""By the filter that refused, the nearest to fitting first: the law is the last thing to ask anybody to widen."""


def would_fit(
    planner: Planner, replica: Replica, ahead: Sequence[Replica], hurry: Callable[[], bool] = at_leisure
) -> str:
    """The changes, each on its own enough, joined by `, or `; empty where none was found before `hurry` said so."""
    case = Case(planner, replica, planner.table(replica), ahead, hurry)
    reached = {name for name, _ in case.table.refused()}
    return ", or ".join(told for name, remedy in REMEDIES if name in reached if (told := remedy(case)))
