"""A law in force outlives a change of leader, and is cited by a resourceVersion that it had, the same whoever leads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from laws import GROUPS, LEVELS
from penstock.api.residencypolicy import ResidencyPolicySpec, ResidencyPolicyStatus
from penstock.core.residency import law_status, reading, standing
from penstock.core.residency.law_status import PolicyFacts
from penstock.core.residency.standing import Standing

NOW_TIME = 1_795_262_400.0
HOME: dict[str, Any] = {"allowed": ["EU"]}
NARROW: dict[str, Any] = {"allowed": ["FR"]}
CONFIRMED: dict[str, Any] = {**HOME, "confirm": 2}


def read(known: Standing | None, generation: int, revision: str, spec: dict[str, Any]) -> Standing:
    """The policy as a leader reads it at this revision."""
    whole = ResidencyPolicySpec.model_validate({"namespaceSelector": {}, **spec})
    found = reading.policy("ours", revision, whole, GROUPS, LEVELS)
    return standing.stand("ours", "uid", generation, whole, found, known=known)


def judged(known: Standing | None, generation: int, revision: str, spec: dict[str, Any], *, isolates: int) -> Standing:
    whole = ResidencyPolicySpec.model_validate({"namespaceSelector": {}, **spec})
    return standing.judge(read(known, generation, revision, spec), whole, GROUPS, isolates, 10)


def written(one: Standing) -> dict[str, Any]:
    """The status that is written of it."""
    return law_status.policy_status(PolicyFacts(one, (), 0, 0, 0, False, NOW_TIME), ResidencyPolicyStatus()).as_json()


def recalled(one: Standing, generation: int, *, with_revision: bool = True) -> Standing:
    """What the next leader reads of that."""
    status = written(one)
    if not with_revision:
        del status["inForce"]["resourceVersion"]
    return standing.recall("ours", "uid", status, LEVELS, generation)


def sources(one: Standing) -> tuple[str, ...]:
    """By which revisions placements and what runs are told of: of what is asked, and of what is in force."""
    found = (ceiling.demand.source if ceiling else "" for ceiling in (one.asked, one.in_force))
    return tuple(source.removeprefix("ResidencyPolicy/ours@") for source in found)


IN_FORCE = judged(None, 3, "1841", HOME, isolates=0)
WAITING = judged(IN_FORCE, 4, "1900", NARROW, isolates=5)
UNCHANGED = read(IN_FORCE, 4, "1900", CONFIRMED)

LEADERS: tuple[tuple[str, Standing, tuple[str, ...]], ...] = (
    ("by the revision that was read first", IN_FORCE, ("1841", "1841")),
    (
        "by the same one after a change of leader, though our own status writes made another of the object since",
        read(recalled(IN_FORCE, 3), 3, "1877", HOME),
        ("1841", "1841"),
    ),
    (
        "by the present one after a change of leader, where the one before it did not keep its own",
        read(recalled(IN_FORCE, 3, with_revision=False), 3, "1877", HOME),
        ("1877", "1877"),
    ),
    ("by its own while an edit waits for its number", WAITING, ("1900", "1841")),
    (
        "by its own while an edit waits for its number, for the next leader too",
        read(recalled(WAITING, 4), 4, "1950", NARROW),
        ("1950", "1841"),
    ),
    (
        "by the revision of an edit that changes nothing of it",
        UNCHANGED,
        ("1900", "1900"),
    ),
    (
        "by the revision of an edit that changes nothing of it, where only the next leader sees that",
        read(recalled(IN_FORCE, 4), 4, "1950", CONFIRMED),
        ("1950", "1950"),
    ),
    (
        "by the revision at which such an edit was seen first, by every leader after it",
        read(recalled(read(recalled(UNCHANGED, 4), 4, "1950", CONFIRMED), 4), 4, "1975", CONFIRMED),
        ("1900", "1900"),
    ),
    (
        "by the same one by every leader after the first that keeps it",
        read(recalled(read(recalled(IN_FORCE, 3, with_revision=False), 3, "1877", HOME), 3), 3, "1950", HOME),
        ("1877", "1877"),
    ),
    (
        "by its own where an edit that cannot be read leaves it in force",
        read(IN_FORCE, 4, "1900", {"allowed": ["EU", "nowhere"]}),
        ("1900", "1841"),
    ),
)


@pytest.mark.parametrize(("found", "cited"), [pytest.param(*row[1:], id=row[0]) for row in LEADERS])
def test_a_law_is_cited(found: Standing, cited: tuple[str, ...]) -> None:
    assert sources(found) == cited


def test_an_edit_that_changes_nothing_of_a_law_is_kept_as_what_is_in_force() -> None:
    memory = UNCHANGED.memory
    assert memory is not None
    assert (memory.generation, memory.resource_version, memory.spec.confirm) == (4, "1900", 2)
    assert IN_FORCE.memory is not None
    assert memory.groups == IN_FORCE.memory.groups


def test_what_a_newer_release_added_to_a_status_makes_nobody_forget_the_law_in_force() -> None:
    spent = replace(WAITING, confirmed=frozenset({2, 5}))
    status = written(spent)
    newer = {"ofAReleaseToCome": {"deep": [1]}}
    in_force = status["inForce"]
    groups = [{**one, **newer} for one in in_force["groups"]]
    in_force = {**in_force, **newer, "groups": groups}
    unread = {"confirmed": [*status["confirmed"], "all of them"], "violations": [newer], "layers": [newer]}
    found = standing.recall("ours", "uid", {**status, **newer, **unread, "inForce": in_force}, LEVELS, 4)
    assert groups
    assert found == standing.recall("ours", "uid", status, LEVELS, 4)
    assert (found.in_force, found.unconfirmed, found.confirmed) == (WAITING.in_force, 5, frozenset({2, 5}))
    assert found.told_for == WAITING.told_for is not None
    invalid = read(found, 5, "1950", {"allowed": ["EU", "nowhere"]})
    assert invalid.counts == WAITING.in_force


def test_a_law_in_force_with_a_term_that_is_not_known_is_not_read_as_one_for_every_namespace() -> None:
    status = written(WAITING)
    spec = {**status["inForce"]["spec"], "namespaceSelector": {"ofAReleaseToCome": {"team": "bank"}}}
    found = standing.recall("ours", "uid", {**status, "inForce": {**status["inForce"], "spec": spec}}, LEVELS, 4)
    assert (found.in_force, found.memory) == (None, None)
    assert (found.unconfirmed, found.told_for) == (WAITING.unconfirmed, WAITING.told_for)
