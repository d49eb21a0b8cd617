"""From where a domain stands on its ladder to what caps shall take off it, and what they may give back.

Two figures move apart: the draw, which trimming brings below its exit, and under the guarantee Hard also what the
limits read back let its GPUs draw. Those come down ahead of a cut whatever the GPUs draw just now.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from penstock.api.powerdomain import Ladder
from penstock.core.model import Domain, Guarantee
from penstock.core.placement.fleet import Fleet
from penstock.core.power.cappable import Cappable
from penstock.core.power.capping import Need, Room
from penstock.core.power.ladder import WHOLE_PERCENT, Reading, Stage
from penstock.core.power.node_watts import LIMIT_TOLERANCE


@dataclass(frozen=True, slots=True)
class Owed:
    """Watts of a domain that replicas of one priority gave by their power limits, and will take back."""

    domain: str
    priority: int
    watts: float


def need(domain: Domain, stage: Stage, reading: Reading, ladder: Ladder, bound_watts: float) -> Need:
    """What the domain has to lose by caps. Nothing while somebody has yet to confirm its limit.

    `bound_watts` is what its GPUs could draw at most by their limits.
    """
    if not reading.confirmed:
        return Need()
    budget = _budget(reading)
    over = max(0.0, bound_watts - budget) if domain.guarantee is Guarantee.HARD else 0.0
    draw = max(0.0, reading.draw_watts - _target(reading, ladder)) if stage.trims else 0.0
    return Need(draw, over, urgent=stage is Stage.EMERGENCY)


def room(domain: Domain, stage: Stage, reading: Reading, ladder: Ladder, bound_watts: float) -> Room:
    """What caps may give back: nothing while the domain is trimmed, then up to where trimming would be left."""
    if stage.trims or not reading.confirmed:
        return Room(0.0, 0.0)
    spare = _budget(reading) - bound_watts if domain.guarantee is Guarantee.HARD else math.inf
    return Room(max(0.0, _target(reading, ladder) - reading.draw_watts), max(0.0, spare))


def _budget(reading: Reading) -> float:
    """The lowest one within the lead that a cap needs."""
    return min(reading.trim_budget_watts, reading.budget_watts)


def _target(reading: Reading, ladder: Ladder) -> float:
    return ladder.trim.exit_percent / WHOLE_PERCENT * _budget(reading)


def owed(fleet: Fleet, capped: Iterable[Cappable]) -> tuple[Owed, ...]:
    """What standing caps have freed in the power book, by domain and priority: the limits read back are lower.

    Whoever is placed there meanwhile keeps the others capped, or has them capped again. Under Statistical a limit
    frees nothing, since what is reserved does not follow it.
    """
    hard = {domain.name for domain in fleet.domains if domain.guarantee is Guarantee.HARD}
    watts: defaultdict[tuple[str, int], float] = defaultdict(float)
    for one in capped:
        given = 0.0 if one.pod.terminating else sum(gpu.given_watts for gpu in one.gpus)
        for name, factor in one.factors if given else ():
            if name in hard:
                watts[name, one.pod.priority] += factor * LIMIT_TOLERANCE * given
    return tuple(Owed(name, priority, one) for (name, priority), one in sorted(watts.items()))
