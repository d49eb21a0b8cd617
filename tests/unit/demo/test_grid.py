"""What the second act makes of what it sees: lines to show, and figures to judge by."""

from typing import Any

from demo.grid import Announced, Watched

EVENT = Announced(watts=700.0, before_watts=1000.0, from_time=20.0, until_time=80.0)


def status(stage: str = "Admit", *evicted: str, budget: float = 1000.0) -> dict[str, Any]:
    actions = [{"action": "Evict", "subject": one, "message": "priority 100"} for one in evicted]
    return {"committedWatts": 900.0, "budgetWatts": budget, "ladder": {"stage": stage, "actions": actions}}


def test_a_moment_that_brings_nothing_new_shows_no_line_until_it_has_been_quiet_for_long() -> None:
    watched = Watched(EVENT)
    for now_time in (0.0, 1.0, 14.0, 16.0):
        watched.see(status(), 950.0, now_time, 1.0)
    assert [line.split()[0] for line in watched.take_lines()] == ["-20.0", "-4.0"]
    assert list(watched.take_lines()) == []


def test_each_action_is_shown_once_and_in_the_order_in_which_it_was_done() -> None:
    watched = Watched(EVENT)
    watched.see(status("Shed", "search/b"), 950.0, 1.0, 1.0)
    watched.see(status("Shed", "search/d", "search/c", "search/b"), 950.0, 2.0, 1.0)
    done = [line.split()[1] for line in watched.take_lines() if "Evict" in line]
    assert done == ["search/b", "search/c", "search/d"]


def test_the_row_has_complied_since_it_was_last_above_the_announced_budget() -> None:
    watched = Watched(EVENT)
    for now_time, watts in ((1.0, 650.0), (2.0, 750.0), (3.0, 690.0), (4.0, 600.0)):
        watched.see(status("Trim"), watts, now_time, 1.0)
    assert watched.complied_time == 3.0


def test_watts_above_the_budget_count_against_the_one_in_force_at_that_moment() -> None:
    watched = Watched(EVENT)
    for now_time, watts in ((10.0, 990.0), (25.0, 750.0), (79.0, 700.0), (85.0, 1010.0)):
        watched.see(status(), watts, now_time, 2.0)
    assert watched.over_joules == 2 * 50.0 + 2 * 10.0


def test_the_stages_are_told_in_their_order_and_each_once() -> None:
    watched = Watched(EVENT)
    for now_time, stage in enumerate(("Admit", "Shed", "Shed", "Trim", "Admit")):
        watched.see(status(stage), 900.0, float(now_time), 1.0)
    assert watched.stages == ["Admit", "Shed", "Trim", "Admit"]
