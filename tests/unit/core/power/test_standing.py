"""What of a domain is in force: cuts and rises, what comes back, spoiled specs, and edits that look like mistakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.api.powerdomain import BudgetMemory, PowerDomainSpec, PowerDomainStatus
from penstock.core.power.budget import watts_at
from penstock.core.power.standing import Before, Standing, Weight, digest, judge, recall, stand
from penstock.core.telling.problem import Problem

NOW = 1_000_000.0
WRONG = (Problem("spec.parent", "nowhere", "name another"),)
LATER, MUCH_LATER = "1970-01-12T14:46:40Z", "1970-01-12T15:46:40Z"
"""An hour and two after `NOW`."""
HOUR = 3600.0
COMMITTED = 100.0


def spec(watts: float = 100.0, budget: dict[str, Any] | None = None, **changed: Any) -> PowerDomainSpec:
    return PowerDomainSpec.model_validate({"budget": {"watts": watts, **(budget or {})}, "marginPercent": 0, **changed})


def seen(*specs: PowerDomainSpec, times: tuple[float, ...] = ()) -> Standing:
    """A domain after it was written and edited, each time a while later."""
    standing: Standing | None = None
    for at, one in enumerate(specs):
        now = times[at] if times else NOW + 1000 * (at - len(specs) + 1)
        standing = stand("row-a", "uid", one, (), known=standing, now_time=now)
    assert standing is not None
    return standing


def night(watts: float, **changed: Any) -> dict[str, Any]:
    return {"windows": [{"cron": "0 22 * * *", "duration": "8h", "watts": watts, **changed}]}


IN_FORCE: dict[str, tuple[Standing, tuple[tuple[float, float], ...]]] = {
    "the first budget counts at once": (seen(spec(100)), ((0, 100),)),
    "a rise counts at once": (seen(spec(100), spec(200)), ((0, 200), (HOUR, 200))),
    "a cut counts 30 s after it was seen": (seen(spec(100), spec(70)), ((29, 100), (30, 70), (HOUR, 70))),
    "a cut that names its time counts from then": (
        seen(spec(100), spec(70, {"effectiveAt": LATER})), ((30, 100), (HOUR - 1, 100), (HOUR, 70))),
    "a rise that names its time waits for it too": (
        seen(spec(100), spec(200, {"effectiveAt": LATER})), ((HOUR - 1, 100), (HOUR, 200))),
    "at its end the budget before it returns": (
        seen(spec(100), spec(70, {"effectiveAt": LATER, "until": MUCH_LATER})), ((HOUR, 70), (2 * HOUR, 100))),
    "an edit that comes before a cut counts starts from what is in force": (
        seen(spec(100), spec(70), spec(60), times=(NOW - 99, NOW - 10, NOW)), ((29, 100), (30, 60))),
    "who moves the end of a cut under way gets back at the new end what was before it": (
        seen(spec(100), spec(70, {"until": LATER}), spec(70, {"until": MUCH_LATER}), times=(NOW - 99, NOW - 60, NOW)),
        ((0, 70), (HOUR, 70), (2 * HOUR, 100))),
    "who deepens a cut under way does too, and never gets it back in between": (
        seen(spec(100), spec(70, {"until": LATER}), spec(60, {"until": LATER}), times=(NOW - 99, NOW - 60, NOW)),
        ((0, 70), (29, 70), (30, 60), (HOUR, 100))),
    "a cut behind one that is over gets back what is in force": (
        seen(
            spec(100), spec(70, {"until": LATER}), spec(90), spec(60, {"until": MUCH_LATER}),
            times=(NOW - 99, NOW - 60, NOW - 50, NOW)),
        ((29, 90), (30, 60), (2 * HOUR, 90))),
    "other edits leave a cut under way alone": (
        seen(spec(100), spec(70), spec(70, staticWatts=1), times=(NOW - 99, NOW - 10, NOW)), ((19, 100), (20, 70))),
}  # fmt: skip


@pytest.mark.parametrize("told", IN_FORCE)
def test_the_budget_that_the_ladder_goes_by(told: str) -> None:
    standing, moments = IN_FORCE[told]
    assert [(after, watts_at(standing.schedule, NOW + after)) for after, _ in moments] == list(moments)


@pytest.mark.parametrize(
    ("told", "standing", "watts"),
    (
        ("a cut is heeded as soon as it is seen", seen(spec(100), spec(70)), 70),
        ("a cut an hour ahead is not yet", seen(spec(100), spec(70, {"effectiveAt": LATER})), 100),
        ("of a spec with problems the lower of old and new", replace(seen(spec(100)), written_watts=60.0), 60),
    ),
)
def test_the_budget_that_admission_goes_by(told: str, standing: Standing, watts: float) -> None:
    assert standing.domain(NOW).budget_watts == watts, told


def test_admission_looks_a_quarter_of_an_hour_ahead_and_no_farther() -> None:
    standing = seen(spec(100), spec(70, {"effectiveAt": LATER}))
    assert standing.admission_watts(NOW + HOUR - 901) == 100
    assert standing.admission_watts(NOW + HOUR - 900) == 70


def test_a_restart_in_the_middle_of_a_cut_does_not_start_it_anew() -> None:
    standing = seen(spec(100), spec(70))
    status = PowerDomainStatus(usable_watts=70, budget_memory=standing.memory).as_json()
    back = recall("row-a", "uid", spec(70), status)
    assert back is not None
    later = stand("row-a", "uid", spec(70), (), known=back, now_time=NOW + 20)
    assert later is not None
    assert [watts_at(later.schedule, NOW + after) for after in (29, 30)] == [100, 70]


def test_a_status_of_an_older_version_is_taken_as_judged() -> None:
    back = recall("row-a", "uid", spec(100), {"usableWatts": 100})
    assert back is not None
    assert back.memory.judged == digest(spec(100))
    assert recall("row-a", "uid", spec(100), {"what": "is this"}) is None


UNKNOWN: dict[str, Any] = {"ofAReleaseToCome": 1}
LAST_VALID = spec(100, staticWatts=1).as_json()
PARTLY_READ: dict[str, dict[str, Any]] = {
    "what was remembered of the budget": {"budgetMemory": {"watts": 10, "standingWatts": "100 kW"}},
    "what a newer release remembered of it": {"budgetMemory": {"watts": 10, **UNKNOWN}},
    "the last valid spec": {"lastValid": {**LAST_VALID, **UNKNOWN}, "budgetMemory": {"watts": 10}},
    "both": {"lastValid": {}, "budgetMemory": {}},
}


@pytest.mark.parametrize("told", PARTLY_READ)
def test_what_is_written_waits_where_a_status_cannot_be_read(told: str) -> None:
    status = {"usableWatts": 10, "budgetWatts": 100, "inheritedNodes": ["gpu-9"], **PARTLY_READ[told]}
    back = recall("row-a", "uid", spec(10), status)
    assert back is not None
    assert back.inherited == {"gpu-9"}
    for problems in ((), WRONG):
        one = stand("row-a", "uid", spec(10), problems, known=back, now_time=NOW)
        assert one is not None
        domain = one.domain(NOW)
        assert (domain.unconfirmed, watts_at(domain.budget, NOW), domain.budget_watts) == (True, 100, 10), problems
        assert one.memory.judged == "", "judged as soon as it is valid"
        memory = judge(one, Before(Weight(10, COMMITTED), 100.0), Weight(10, COMMITTED), NOW)
        assert (memory.unconfirmed_watts, memory.standing_watts) == (10, 100)


@pytest.mark.parametrize("status", ({}, {"lastValid": UNKNOWN}), ids=("was valid before", "whose last one is unread"))
def test_windows_that_never_open_count_for_nothing_after_a_start(status: dict[str, Any]) -> None:
    never = spec(100, {"windows": [{"cron": "61 * * * *", "duration": "8h", "watts": 70}]})
    back = recall("row-a", "uid", never, {"usableWatts": 100, **status})
    assert back is not None
    one = stand("row-a", "uid", never, WRONG, known=back, now_time=NOW)
    assert one is not None
    assert one.domain(NOW).budget_watts == 100


def test_with_problems_the_last_valid_spec_stays() -> None:
    standing = stand("row-a", "uid", spec(50, guarantee="Hard"), WRONG, known=seen(spec(100)), now_time=NOW)
    assert standing is not None
    assert (standing.spec, standing.problems, standing.written_watts) == (spec(100), WRONG, 50)


def test_the_last_valid_spec_comes_back_from_the_status() -> None:
    known = seen(spec(100))
    status = PowerDomainStatus(usable_watts=100, budget_memory=known.memory, last_valid=spec(100)).as_json()
    back = recall("row-a", "uid", spec(50), status)
    assert back is not None
    assert back.spec == spec(100)


def test_a_new_domain_with_problems_counts_without_its_windows() -> None:
    standing = stand("row-a", "uid", spec(100, night(70)), WRONG, known=None, now_time=NOW)
    assert standing is not None
    assert (standing.spec.budget.watts, standing.windows) == (100, ())


def test_nothing_is_in_force_of_a_domain_that_cannot_be_read_at_all() -> None:
    assert stand("row-a", "uid", None, WRONG, known=None, now_time=NOW) is None


FULL = Before(Weight(100.0, COMMITTED), 100.0)


def judged(
    edit: PowerDomainSpec, before: Before | None = FULL, committed: float = COMMITTED, *first: Any
) -> BudgetMemory:
    standing = seen(*(first or (spec(100),)), edit) if before else seen(edit)
    return judge(standing, before, Weight(standing.limit_watts, committed), NOW)


MISTAKES: dict[str, tuple[BudgetMemory, float | None]] = {
    "half of what is committed is no mistake": (judged(spec(50)), None),
    "less than half is one": (judged(spec(49)), 49),
    "it is none when it is confirmed in the same edit": (judged(spec(49, {"confirm": 49})), None),
    "another number confirms nothing": (judged(spec(49, {"confirm": 490})), 49),
    "a margin that takes the limit below half is one": (judged(spec(100, marginPercent=51)), 100),
    "a window that does is one, by the window's number": (judged(spec(100, night(40))), 40),
    "a confirmed window is none": (judged(spec(100, {**night(40), "confirm": 40})), None),
    "a selector or an overhead that doubles what is charged is one": (judged(spec(100, staticWatts=1), FULL, 201), 100),
    "a rise of a domain that is over anyway is none": (judged(spec(40), Before(Weight(30, 100), 30)), None),
    "a new domain that is over by far is one": (judged(spec(49), None), 49),
    "a new domain with nothing in it is none": (judged(spec(49), None, 0.0), None),
}


@pytest.mark.parametrize("told", MISTAKES)
def test_an_edit_that_leaves_less_than_half_of_what_is_committed_waits(told: str) -> None:
    memory, needed = MISTAKES[told]
    assert memory.unconfirmed_watts == needed


def waiting() -> Standing:
    """A domain of 100 W that was edited to 10 W by mistake."""
    standing = seen(spec(100), spec(10))
    return replace(standing, memory=judge(standing, FULL, Weight(10.0, COMMITTED), NOW))


def test_while_an_edit_waits_the_ladder_goes_by_the_old_budget_and_admission_by_the_new() -> None:
    domain = waiting().domain(NOW + HOUR)
    assert domain.unconfirmed
    assert watts_at(domain.budget, NOW + HOUR) == 100
    assert domain.budget_watts == 10


def test_a_confirmation_later_starts_the_cut_then() -> None:
    later = NOW + HOUR
    confirmed = stand("row-a", "uid", spec(10, {"confirm": 10}), (), known=waiting(), now_time=later)
    assert confirmed is not None
    memory = judge(confirmed, Before(Weight(10, COMMITTED), 100.0), Weight(10, COMMITTED), later)
    assert memory.unconfirmed_watts is None
    schedule = replace(confirmed, memory=memory).schedule
    assert [watts_at(schedule, later + after) for after in (29, 30)] == [100, 10]


def test_undoing_the_edit_ends_the_wait_at_once() -> None:
    undone = stand("row-a", "uid", spec(100), (), known=waiting(), now_time=NOW + 5)
    assert undone is not None
    memory = judge(undone, Before(Weight(10, COMMITTED), 100.0), Weight(100, COMMITTED), NOW + 5)
    assert memory.unconfirmed_watts is None
    assert watts_at(replace(undone, memory=memory).schedule, NOW + 5) == 100


def test_a_second_mistake_does_not_wear_down_the_budget_that_stands() -> None:
    again = stand("row-a", "uid", spec(20), (), known=waiting(), now_time=NOW + 5)
    assert again is not None
    memory = judge(again, Before(Weight(10, COMMITTED), 100.0), Weight(20, COMMITTED), NOW + 5)
    assert (memory.unconfirmed_watts, memory.standing_watts) == (20, 100)


def test_load_that_comes_without_an_edit_is_no_mistake() -> None:
    standing = seen(spec(100))
    memory = judge(standing, Before(Weight(100, 1000), 100.0), Weight(100, 1010), NOW)
    assert memory.unconfirmed_watts is None
