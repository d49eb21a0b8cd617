"""No history of draws makes the ladder flap, turn over, or skip a rung on its way down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from histories import HISTORIES, over_histories
from penstock.api.powerdomain import Ladder
from penstock.core.power.ladder import LadderState, Reading, Stage, climb

BUDGET_WATTS = 10_000.0
LADDER = Ladder()


def reading(percent: float, trimmable_watts: float) -> Reading:
    return Reading(percent / 100 * BUDGET_WATTS, BUDGET_WATTS, BUDGET_WATTS, BUDGET_WATTS, trimmable_watts)


PERCENTS = st.lists(
    st.tuples(st.integers(min_value=1, max_value=90), st.integers(min_value=60, max_value=110)),
    min_size=1,
    max_size=25,
)


def _histories(steps: Sequence[tuple[int, int]]) -> list[float]:
    """One percentage for each second."""
    return [float(percent) for seconds, percent in steps for _ in range(seconds)]


def _stages(percents: Sequence[float], trimmable_watts: float) -> list[Stage]:
    state, found = LadderState(), []
    for second, percent in enumerate(percents):
        now = reading(percent, trimmable_watts)
        state = climb(state, now, LADDER, now_at=second, now_time=second)
        found.append(state.stage)
    return found


@over_histories(
    HISTORIES // 3,
    steps=PERCENTS,
    more=st.integers(min_value=0, max_value=20),
    trimmable_watts=st.sampled_from((0.0, 500.0, 5_000.0)),
)
def test_more_pressure_never_means_a_lower_stage(
    steps: Sequence[tuple[int, int]], more: int, trimmable_watts: float
) -> None:
    percents = _histories(steps)
    lower, higher = _stages(percents, trimmable_watts), _stages([one + more for one in percents], trimmable_watts)
    assert all(one.height <= other.height for one, other in zip(lower, higher, strict=True))


@over_histories(HISTORIES // 3, steps=PERCENTS, trimmable_watts=st.sampled_from((0.0, 500.0, 5_000.0)))
def test_it_comes_down_one_rung_at_a_time_and_in_the_end_altogether(
    steps: Sequence[tuple[int, int]], trimmable_watts: float
) -> None:
    found = _stages([*_histories(steps), *([50.0] * 300)], trimmable_watts)
    falls = [before.height - after.height for before, after in pairwise(found)]
    assert max(falls, default=0) <= 1
    assert found[-1] is Stage.ADMIT


@over_histories(
    HISTORIES // 3,
    cut_seconds=st.integers(min_value=1, max_value=59),
    whole_seconds=st.integers(min_value=1, max_value=59),
)
def test_a_budget_cut_and_restored_in_turn_does_not_flap(cut_seconds: int, whole_seconds: int) -> None:
    """Once up it stays up while the cuts come back sooner than the exit of hold asks for."""
    swing = [*([101.0] * cut_seconds), *([70.0] * whole_seconds)]
    found = _stages(swing * 10, 0.0)
    assert found.count(Stage.EMERGENCY) == len(found)
