"""How far a domain has to go to stay within its budget: admit → hold → trim → shed → emergency, and back.

Each rung is a latch of its own: it catches when the draw has stood at its entry for so long, and lets go when the draw
has stood below its exit for so long and no rung above it holds. The stage is the highest rung that holds. So more
pressure never means a lower stage, and what was entered is left in reverse order, one rung at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from penstock.api.powerdomain import Ladder, Step

TRIM_LEAD_SECONDS = 30.0
"""Trimming looks so far ahead for the lowest budget: a cap acts within seconds."""
SHED_LEAD_SECONDS = 60.0
"""Shedding looks so far ahead beyond the longest grace of those to be shed."""
WHOLE_PERCENT = 100.0


class Stage(StrEnum):
    """The stages, from the lowest."""

    ADMIT = "Admit"
    HOLD = "Hold"
    TRIM = "Trim"
    SHED = "Shed"
    EMERGENCY = "Emergency"

    @property
    def height(self) -> int:
        return _HEIGHTS[self]

    @property
    def holds(self) -> bool:
        """Nothing new is placed in the domain."""
        return self is not Stage.ADMIT

    @property
    def trims(self) -> bool:
        return self.height >= Stage.TRIM.height

    @property
    def sheds(self) -> bool:
        return self.height >= Stage.SHED.height


_HEIGHTS = {stage: height for height, stage in enumerate(Stage)}
_DOWNWARDS = (Stage.EMERGENCY, Stage.SHED, Stage.TRIM, Stage.HOLD)


@dataclass(frozen=True, slots=True)
class Reading:
    """One domain at one moment, in watts at its PDU.

    `draw_watts` is the last known draw, however old. Each stage looks as far ahead as it takes to act: the budgets
    are the one in force now, the lowest within the lead of trimming, and the lowest within that of shedding.
    """

    draw_watts: float
    budget_watts: float
    trim_budget_watts: float
    shed_budget_watts: float
    trimmable_watts: float = 0.0
    """What caps could still take off."""
    braked: bool = False
    """The hardware of some GPU slows itself down: heat, or the power brake."""
    hot: bool = False
    """Some GPU is about to slow down because of heat."""
    confirmed: bool = True
    """False while somebody has yet to confirm the limit: then nothing that runs is touched."""


@dataclass(frozen=True, slots=True)
class Latch:
    """One rung. All times are monotonic: since when it holds, and since when its entry or exit condition is true."""

    on_at: float | None = None
    above_at: float | None = None
    below_at: float | None = None


OFF = Latch()


def _all_off() -> Mapping[Stage, Latch]:
    return MappingProxyType(dict.fromkeys(_DOWNWARDS, OFF))


@dataclass(frozen=True, slots=True)
class LadderState:
    """Where a domain stands: its stage, since when (Unix time), and why, in a sentence."""

    stage: Stage = Stage.ADMIT
    since_time: float | None = None
    reason: str = ""
    latches: Mapping[Stage, Latch] = field(default_factory=_all_off)


@dataclass(frozen=True, slots=True)
class _Condition:
    """Whether a rung's entry and exit conditions are true now, and how long each has to be."""

    above: bool
    below: bool
    enter_seconds: float
    exit_seconds: float


def recalled(stage: Stage, since_time: float | None, reason: str, *, now_at: float, now_time: float) -> LadderState:
    """The state that a status tells of: every rung up to its stage holds, and none has begun to let go."""
    on_at = now_at - max(0.0, now_time - (now_time if since_time is None else since_time))
    held = {rung: Latch(on_at=on_at) if rung.height <= stage.height else OFF for rung in _DOWNWARDS}
    return LadderState(stage, since_time, reason, MappingProxyType(held))


def is_calm(state: LadderState) -> bool:
    """Whether no rung holds or is about to catch: below the entry of every one nothing would change."""
    return state.stage is Stage.ADMIT and all(latch.above_at is None for latch in state.latches.values())


def calm_watts(ladder: Ladder, lowest_watts: float) -> float:
    """What a domain may draw under this budget without coming to the entry of any rung."""
    lowest = min(ladder.hold.enter_percent, ladder.trim.enter_percent, ladder.emergency.enter_percent)
    return lowest / WHOLE_PERCENT * lowest_watts


def climb(state: LadderState, reading: Reading, ladder: Ladder, *, now_at: float, now_time: float) -> LadderState:
    """The state after this reading: up as many rungs as it takes, down one at a time."""
    conditions = _conditions(state, reading, ladder, now_at)
    latches: dict[Stage, Latch] = {}
    held_above = False
    for rung in _DOWNWARDS:
        before = state.latches[rung]
        latch = _turned(before, conditions[rung], now_at, kept=held_above)
        if rung is not Stage.HOLD and not reading.confirmed:
            latch = OFF
        latches[rung] = latch
        # One that let go just now still keeps the rung below it, until the next reading.
        held_above |= latch.on_at is not None or (before.on_at is not None and reading.confirmed)
    stage = next((rung for rung in _DOWNWARDS if latches[rung].on_at is not None), Stage.ADMIT)
    if stage is state.stage:
        return replace(state, latches=MappingProxyType(latches))
    return LadderState(stage, now_time, _reason(stage, reading, ladder), MappingProxyType(latches))


def trimmed_long_enough(state: LadderState, ladder: Ladder, now_at: float) -> bool:
    """Whether trimming has lasted so long that replicas are shed in its stead."""
    on_at = state.latches[Stage.TRIM].on_at
    return on_at is not None and now_at - on_at >= ladder.shed_after_seconds


def _conditions(state: LadderState, reading: Reading, ladder: Ladder, now_at: float) -> Mapping[Stage, _Condition]:
    draw = reading.draw_watts
    hold = _condition(ladder.hold, draw, reading.trim_budget_watts)
    if reading.hot:
        hold = replace(hold, above=True, below=False)
    if not reading.confirmed:
        hold = replace(hold, above=True, below=False, enter_seconds=0.0)
    trim = _condition(ladder.trim, draw, reading.trim_budget_watts)
    # Shed what no cap can take; where nothing can be trimmed that is all of it.
    shed = _condition(ladder.trim, draw - reading.trimmable_watts, reading.shed_budget_watts)
    if trimmed_long_enough(state, ladder, now_at) and not trim.below:
        shed = replace(shed, above=True, below=False, enter_seconds=0.0)
    emergency = _condition(ladder.emergency, draw, reading.budget_watts)
    if reading.braked:
        emergency = replace(emergency, above=True, below=False)
    return {Stage.HOLD: hold, Stage.TRIM: trim, Stage.SHED: shed, Stage.EMERGENCY: emergency}


def _condition(step: Step, draw_watts: float, budget_watts: float) -> _Condition:
    percent = draw_watts * WHOLE_PERCENT
    return _Condition(
        above=percent >= step.enter_percent * budget_watts,
        below=percent < step.exit_percent * budget_watts,
        enter_seconds=step.enter_seconds,
        exit_seconds=step.exit_seconds,
    )


def _turned(latch: Latch, found: _Condition, now_at: float, *, kept: bool) -> Latch:
    above_at = _since(latch.above_at, found.above, now_at)
    below_at = _since(latch.below_at, found.below, now_at)
    on_at = latch.on_at
    if on_at is None:
        caught = above_at is not None and now_at - above_at >= found.enter_seconds
        on_at = now_at if caught or kept else None
    elif not kept and below_at is not None and now_at - below_at >= found.exit_seconds:
        on_at = None
    return Latch(on_at, above_at, below_at)


def _since(before_at: float | None, holds: bool, now_at: float) -> float | None:  # noqa: FBT001  a condition, not an option
    if not holds:
        return None
    return now_at if before_at is None else before_at


# ------------------------------------------------------------------------------------------------------ what is told


def target_watts(reading: Reading, ladder: Ladder) -> float:
    """What the domain shall draw at most when it is shed: where it would let go of hold."""
    return ladder.hold.exit_percent / WHOLE_PERCENT * min(reading.shed_budget_watts, reading.budget_watts)


def _reason(stage: Stage, reading: Reading, ladder: Ladder) -> str:
    return "; ".join(_told(stage, reading, ladder))


def _told(stage: Stage, reading: Reading, ladder: Ladder) -> Iterator[str]:
    watts, when = _budget_of(stage, reading)
    percent = WHOLE_PERCENT * reading.draw_watts / max(watts, 1.0)
    yield f"draws {reading.draw_watts:,.0f} W, {percent:.0f} % of the {watts:,.0f} W {when}"
    if stage is Stage.EMERGENCY and reading.braked and percent < ladder.emergency.enter_percent:
        yield "the hardware of a GPU in it slows itself down because of heat or the power brake"
    if stage is Stage.HOLD and reading.hot:
        yield "a GPU in it is about to slow down because of heat"
    if not reading.confirmed:
        yield "its limit waits for spec.budget.confirm, so nothing that runs is touched"
    step = _step(stage, ladder)
    if step:
        yield f"left below {step.exit_percent:g} % for {step.exit_seconds:g} s"


def _budget_of(stage: Stage, reading: Reading) -> tuple[float, str]:
    if stage is Stage.SHED and reading.shed_budget_watts < reading.budget_watts:
        return reading.shed_budget_watts, "that will be in force by the time a replica has ended"
    if stage is not Stage.EMERGENCY and reading.trim_budget_watts < reading.budget_watts:
        return reading.trim_budget_watts, f"that will be in force within {TRIM_LEAD_SECONDS:.0f} s"
    return reading.budget_watts, "in force"


def _step(stage: Stage, ladder: Ladder) -> Step | None:
    steps = {Stage.HOLD: ladder.hold, Stage.TRIM: ladder.trim, Stage.SHED: ladder.trim}
    return steps.get(stage, ladder.emergency if stage is Stage.EMERGENCY else None)
