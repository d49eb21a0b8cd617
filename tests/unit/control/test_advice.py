"""Who has advice when: all at once where there is time, in turn where there is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import builders as a
from penstock.control.advice import LONGEST_SECONDS, SECONDS_A_TURN, Advice
from penstock.core.placement.verdicts import Reason, Waiting

LONG = 2 * SECONDS_A_TURN
STEP = SECONDS_A_TURN / 10


@dataclass
class Desk:
    """Turns in which each advice takes `takes_seconds`."""

    takes_seconds: float
    reason: Reason = Reason.NO_NODES
    clock: float = 0.0
    worked_out: int = 0
    advice: Advice = field(init=False)

    def __post_init__(self) -> None:
        self.advice = Advice(now=lambda: self.clock)

    def turn(self, *keys: str) -> list[str]:
        self.advice.begin(set(keys))
        return [self.advice.tell(Waiting(a.replica(key), self.reason, ""), self._work_out) for key in keys]

    def _work_out(self, hurry: Callable[[], bool]) -> str:
        began = self.clock
        while self.clock < began + self.takes_seconds and not hurry():
            self.clock += STEP
        self.worked_out += 1
        return f"advice {self.worked_out}"


def test_where_there_is_time_everybody_has_fresh_advice_in_every_turn() -> None:
    desk = Desk(takes_seconds=0.0)
    assert desk.turn("r-1", "r-2") == ["advice 1", "advice 2"]
    assert desk.turn("r-1", "r-2") == ["advice 3", "advice 4"]


def test_where_there_is_none_they_have_theirs_in_turn_and_keep_it_until_all_had() -> None:
    desk = Desk(takes_seconds=LONG)
    assert desk.turn("r-1", "r-2", "r-3") == ["advice 1", "", ""]
    assert desk.turn("r-1", "r-2", "r-3") == ["advice 1", "advice 2", ""]
    assert desk.turn("r-1", "r-2", "r-3") == ["advice 1", "advice 2", "advice 3"]
    assert desk.turn("r-1", "r-2", "r-3") == ["advice 4", "advice 2", "advice 3"]


def test_what_would_help_against_another_reason_is_said_no_more_and_worked_out_anew_in_turn() -> None:
    desk = Desk(takes_seconds=LONG)
    desk.turn("r-1", "r-2", "r-3")
    desk.turn("r-1", "r-2", "r-3")
    desk.reason = Reason.POWER_HOLD
    assert desk.turn("r-1", "r-2", "r-3") == ["", "", "advice 3"]
    assert desk.turn("r-1", "r-2", "r-3") == ["advice 4", "", "advice 3"]
    assert desk.turn("r-1", "r-2", "r-3") == ["advice 4", "advice 5", "advice 3"]


def test_who_waits_for_another_reason_each_turn_takes_nobody_s_turn() -> None:
    desk = Desk(takes_seconds=LONG)
    others: set[str] = set()
    for reason in (Reason.POWER_HOLD, Reason.NO_NODES) * 3:
        desk.reason = reason
        desk.advice.begin({"r-1", "r-2", "r-3"})
        desk.advice.tell(Waiting(a.replica("r-1"), reason, ""), desk._work_out)
        others |= {
            desk.advice.tell(Waiting(a.replica(key), Reason.NO_NODES, ""), desk._work_out) for key in ("r-2", "r-3")
        }
    assert len(others - {""}) > 1


def test_one_that_takes_too_long_is_hurried() -> None:
    desk = Desk(takes_seconds=1000.0)
    assert desk.turn("r-1") == ["advice 1"]
    assert desk.clock < LONGEST_SECONDS + 2 * STEP


def test_who_waits_no_more_is_forgotten() -> None:
    desk = Desk(takes_seconds=LONG)
    desk.turn("r-1", "r-2")
    assert desk.turn("r-2") == ["advice 2"]
    assert desk.turn("r-1", "r-2") == ["advice 3", "advice 2"]


def test_a_plan_that_takes_long_leaves_everybody_time_for_advice() -> None:
    desk = Desk(takes_seconds=0.0)
    desk.advice.begin({"r-1"})
    desk.clock += LONG
    waiting = Waiting(a.replica("r-1"), Reason.NO_NODES, "")
    assert desk.advice.tell(waiting, lambda _: "advice") == "advice"
