"""The ladder: when a domain goes up, and when it comes down."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from penstock.api.powerdomain import Ladder
from penstock.core.power.ladder import LadderState, Reading, Stage, climb, recalled, target_watts

BUDGET_WATTS = 10_000.0
LADDER = Ladder()


def reading(percent: float, **changed: float | bool) -> Reading:
    values = dict.fromkeys(("budget_watts", "trim_budget_watts", "shed_budget_watts"), BUDGET_WATTS)
    return Reading(percent / 100 * BUDGET_WATTS, **{**values, "trimmable_watts": 5_000.0, **changed})  # type: ignore[arg-type]


def stage_after(seconds: float, *told: tuple[float, Reading]) -> Stage:
    """The stage after so many seconds of one look per second; each reading holds from its own second on."""
    state = LadderState()
    for second in range(int(seconds) + 1):
        now = max((entry for entry in told if entry[0] <= second), key=lambda entry: entry[0])[1]
        state = climb(state, now, LADDER, now_at=second, now_time=second)
    return state.stage


@dataclass(frozen=True)
class Case:
    seconds: float
    told: tuple[tuple[float, Reading], ...]
    want: Stage


def case(seconds: float, want: Stage, *told: tuple[float, Reading]) -> Case:
    return Case(seconds, told, want)


UNTRIMMABLE = {"trimmable_watts": 0.0}
CASES = {
    "far below its budget a domain admits": case(60, Stage.ADMIT, (0, reading(89))),
    "at 90 % it does not hold before the reading has held 15 s": case(14, Stage.ADMIT, (0, reading(90))),
    "at 90 % for 15 s it holds": case(15, Stage.HOLD, (0, reading(90))),
    "a dip begins the 15 s anew": case(20, Stage.ADMIT, (0, reading(90)), (10, reading(89)), (11, reading(90))),
    "it does not let go of hold at 85 %": case(200, Stage.HOLD, (0, reading(90)), (20, reading(85))),
    "below 85 % it lets go after 60 s, not before": case(79, Stage.HOLD, (0, reading(90)), (20, reading(84))),
    "below 85 % for 60 s it lets go": case(80, Stage.ADMIT, (0, reading(90)), (20, reading(84))),
    "at 95 % for 10 s it trims": case(10, Stage.TRIM, (0, reading(95))),
    "what no cap can take is shed at once": case(10, Stage.SHED, (0, reading(95, **UNTRIMMABLE))),
    "what caps can take is not shed": case(300, Stage.TRIM, (0, reading(99))),
    "what trimming did not end in 600 s is shed": case(620, Stage.SHED, (0, reading(96))),
    "above 88 % it goes on trimming": case(400, Stage.TRIM, (0, reading(95)), (20, reading(88))),
    "below 88 % it ends trimming after 120 s and holds still": case(
        145, Stage.HOLD, (0, reading(95)), (20, reading(87))
    ),
    "at 100 % it is an emergency at once": case(0, Stage.EMERGENCY, (0, reading(100))),
    "a power brake is an emergency whatever the meter says": case(0, Stage.EMERGENCY, (0, reading(50, braked=True))),
    "a GPU that is about to slow down because of heat holds, however little is drawn": case(
        15, Stage.HOLD, (0, reading(50, hot=True))
    ),
    "an emergency lasts until it was below 95 % for 120 s": case(
        139, Stage.EMERGENCY, (0, reading(100)), (20, reading(80))
    ),
    "an emergency that is over is left by way of every rung": case(
        144, Stage.ADMIT, (0, reading(100)), (20, reading(80))
    ),
    "a cut within 30 s is trimmed for before it counts": case(
        10, Stage.TRIM, (0, reading(70, trim_budget_watts=7_000.0, shed_budget_watts=7_000.0))
    ),
    "a cut within the lead of shedding is shed for where nothing can be trimmed": case(
        10, Stage.SHED, (0, reading(70, shed_budget_watts=7_000.0, **UNTRIMMABLE))
    ),
    "a cut that is only announced is no emergency": case(60, Stage.TRIM, (0, reading(90, trim_budget_watts=7_000.0))),
    "a limit that waits for its confirmation holds and touches nothing": case(
        700, Stage.HOLD, (0, reading(180, confirmed=False))
    ),
}


@pytest.mark.parametrize("given_case", CASES.values(), ids=CASES.keys())
def test_the_stage(given_case: Case) -> None:
    assert stage_after(given_case.seconds, *given_case.told) is given_case.want


def test_a_stage_tells_since_when_and_why() -> None:
    state = climb(LadderState(), reading(101), LADDER, now_at=7.0, now_time=1_000.0)
    assert state.since_time == 1_000.0
    assert state.reason == "draws 10,100 W, 101 % of the 10,000 W in force; left below 95 % for 120 s"
    later = climb(state, reading(103), LADDER, now_at=8.0, now_time=1_001.0)
    assert (later.since_time, later.reason) == (state.since_time, state.reason), "a status moves with the stage alone"


def test_what_a_status_tells_of_goes_on_after_a_start() -> None:
    state = recalled(Stage.TRIM, 1_000.0, "why", now_at=50.0, now_time=1_590.0)
    state = climb(state, reading(90), LADDER, now_at=50.0, now_time=1_590.0)
    assert (state.stage, state.since_time, state.reason) == (Stage.TRIM, 1_000.0, "why")
    state = climb(state, reading(90), LADDER, now_at=60.0, now_time=1_600.0)
    assert state.stage is Stage.SHED, "600 s of trimming are over, the seconds before the start included"


def test_the_target_is_where_hold_lets_go_under_the_lowest_budget_ahead() -> None:
    assert target_watts(reading(90, shed_budget_watts=7_000.0), LADDER) == 0.85 * 7_000.0
