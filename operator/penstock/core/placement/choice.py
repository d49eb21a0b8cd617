"""Which replica goes where: observe → book → filter → score → choose → explain, over one frozen fleet.

Replicas are asked in order: priority, then the newest ReplicaSet of a pool, then how long they wait. One that fits
nowhere holds nobody else up: smaller or later replicas may take what it left. What protects a large one: it is asked
first whenever anything is freed, the fragmentation term keeps whole nodes whole, and nothing placed later is ever
placed *because* it is smaller. Nothing is preempted or held free for it; give it a higher priority and it wins every
race for freed room, no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from penstock.core.model import PoolKey, Replica, RightOfReturn
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.planner import Planner, ReplicaClass
from penstock.core.placement.trial import at_leisure
from penstock.core.placement.verdicts import Decision, Filter, Plan, Reason, Waiting
from penstock.core.power.ledger import Ledger
from penstock.core.power.trimming import Owed
from penstock.core.telling import explanation
from penstock.core.telling.remedies import would_fit

__all__ = ["Decision", "Filter", "Plan", "Reason", "Waiting", "in_asked_order", "plan"]

WorkOut = Callable[[Callable[[], bool]], str]
"""Works out what would help, until what it is given says that there is no more time."""
Advise = Callable[[Waiting, WorkOut], str]
"""Says what would help who waits, by what is given to work that out: at once, or as it did before."""


def at_once(_: Waiting, work_out: WorkOut) -> str:
    """Advice at once, however long it takes."""
    return work_out(at_leisure)


def plan(
    fleet: Fleet,
    waiting: Sequence[Replica],
    rights: Sequence[RightOfReturn],
    now_time: float,
    held: frozenset[str] = frozenset(),
    *,
    owed: Sequence[Owed] = (),
    advise: Advise = at_once,
) -> Plan:
    """Decide every waiting replica against one snapshot.

    After each decision no domain of the chosen node is over its usable watts, less the rights of return of other
    pools, unless the pool's own right covers what was added; in a domain that is `held` nothing else is placed. What is
    `owed` to capped replicas is left to them, but by those that matter more.
    `now_time` is Unix time, as `until_time` of a right is.
    """
    asked = in_asked_order(waiting)
    planner = Planner(fleet, Ledger(fleet, rights, now_time, held, owed), asked)
    decisions, left = planner.place(asked)
    return Plan(tuple(decisions), tuple(_verdicts(planner, left, advise)), planner.ledger.rights.left())


def _verdicts(planner: Planner, left: Sequence[Replica], advise: Advise) -> Iterator[Waiting]:
    """Why each of them waits, and what would help: once per class, for its first replica."""
    verdicts: dict[ReplicaClass, Waiting] = {}
    for turn, replica in enumerate(left):
        key = planner.class_of(replica)
        if key not in verdicts:
            verdicts[key] = _verdict(planner, replica, left[:turn], advise)
        yield explanation.of_shed(replace(verdicts[key], replica=replica), planner.ledger)


def _verdict(planner: Planner, replica: Replica, ahead: Sequence[Replica], advise: Advise) -> Waiting:
    if replica.scheduling.unjudged:
        return explanation.unjudged(replica, planner.fleet)
    waiting = explanation.waiting(replica, planner.fleet, planner.table(replica))
    return replace(waiting, would_fit=advise(waiting, lambda hurry: would_fit(planner, replica, ahead, hurry)))


def in_asked_order(waiting: Iterable[Replica]) -> list[Replica]:
    """Highest priority first, then the longest waiting; at a pool's turn its newest ReplicaSet goes first."""
    asked = sorted(waiting, key=lambda replica: (-replica.priority, replica.since_time, replica.key))
    turns: dict[tuple[int, PoolKey], list[int]] = defaultdict(list)
    for turn, replica in enumerate(asked):
        turns[replica.priority, replica.pool].append(turn)
    ordered = list(asked)
    for mine in turns.values():
        # Python's sort is stable, so that only the ReplicaSets change places.
        for turn, replica in zip(mine, sorted((asked[at] for at in mine), key=_older), strict=True):
            ordered[turn] = replica
    return ordered


def _older(replica: Replica) -> bool:
    return not replica.newest
