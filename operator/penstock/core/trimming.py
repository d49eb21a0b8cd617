"""From where a domain stands on its ladder to what caps shall take off it, and what they may give back.

Two figures move apart: the draw, which trimming brings below its exit, and under the guarantee Hard also what the
limits read back let its GPUs draw. Those come down ahead of a cut whatever the GPUs draw just now.
"""

from __future__ import annotations

import math

from penstock.api.powerdomain import Ladder
from penstock.core.capping import Need, Room
from penstock.core.ladder import WHOLE_PERCENT, Reading, Stage
from penstock.core.model import Domain, Guarantee


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
