"""What a domain says when its ladder alone does not keep it within its budget, and who could."""

from __future__ import annotations

import math

from penstock.core.power.book import Holder, Statement

STEP_WATTS = 100
"""A sentence does not move with every sample."""
MOST_NAMED = 3


def short_of_victims(watts: float, statement: Statement | None) -> str:
    """Nobody is left who may be shed: who holds the watts, whom we may not touch first."""
    told = (
        f"about {_watts(watts)} more have to go and nobody is left who may be shed now: look at PodDisruptionBudgets, "
        "at disruption and power.shed of its pools, at ladder.movesPerHour, and at what else draws there"
    )
    held = [one for one in statement.holders if one.kind != "Overhead"] if statement else []
    if not held:
        return told
    first = sorted(held, key=lambda one: (one.kind != "Foreign", -one.watts, one.name))[:MOST_NAMED]
    return f"{told}; held by {', '.join(map(_holder, first))}"


def kept(watts: float) -> str:
    """What new placements do not get though it is not promised."""
    return (
        f"about {_watts(watts)} of its room are kept for replicas that are capped, until their limits have risen again"
    )


def unreachable(reachable_watts: float, lowest_watts: float) -> str:
    """A budget that comes down further than caps and shedding can."""
    return (
        f"at its lowest it draws about {_watts(reachable_watts)}, more than the {lowest_watts:,.0f} W that its budget "
        "comes down to: allow more to be capped or shed, or take load away"
    )


def _holder(one: Holder) -> str:
    return " ".join(filter(None, (one.kind.lower(), one.name, f"({_watts(one.watts)})")))


def _watts(watts: float) -> str:
    return f"{math.ceil(watts / STEP_WATTS) * STEP_WATTS:,.0f} W"
