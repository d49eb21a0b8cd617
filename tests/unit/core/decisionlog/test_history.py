"""Where each replica was, and when nobody watched: early rather than late, and never longer than anybody saw it."""

from __future__ import annotations

import pytest

from ledger import BEGIN_TIME, EU, Ledger, second, seconds
from penstock.api.names import COUNTRY_LABEL
from penstock.core.decisionlog.history import UNWATCHED, tell
from penstock.core.decisionlog.record import Happening

Row = tuple[str, str, int | None, int | None, str]


def stays(ledger: Ledger) -> list[Row]:
    """Replica, country, from, until, and how it ended."""
    return [
        (one.pod[5:], one.labels[COUNTRY_LABEL], second(one.from_time), second(one.until_time), one.ending)
        for one in tell(ledger.records).stays
    ]


HISTORIES: tuple[tuple[str, Ledger, list[Row]], ...] = (
    (
        "one that was placed and ended was there in between",
        Ledger().lead(0).place(5, "a").end(30, "a"),
        [("a", "DE", 5, 30, "Deleted")],
    ),
    ("one that goes on has no end", Ledger().lead(0).place(5, "a"), [("a", "DE", 5, None, "")]),
    ("a placement that did not come about is no stay", Ledger().lead(0).place(5, "a").refuse(6, "a"), []),
    (
        "of two placements of one pod the first never came about: a pod is bound once",
        Ledger().lead(0).place(5, "a", "FR", node="gpu-9").place(9, "a").end(20, "a"),
        [("a", "DE", 9, 20, "Deleted")],
    ),
    (
        "nor did one of which the next leader found no trace, and which it placed anew",
        Ledger().lead(0).place(5, "a", "FR", node="gpu-9").lead(20).place(21, "a"),
        [("a", "DE", 21, None, "")],
    ),
    (
        "one that was seen outside was there, though a placement of the same pod is added later",
        Ledger().lead(0).place(5, "a").see(8, "a", "US", EU).advise(20, "a"),
        [("a", "DE", 5, 8, ""), ("a", "US", 8, 20, UNWATCHED)],
    ),
    (
        "and so was one that the next leader found no trace of",
        Ledger().lead(0).see(8, "a", "US", EU).lead(20).place(21, "a"),
        [("a", "US", 8, 20, UNWATCHED), ("a", "DE", 21, None, "")],
    ),
    (
        "one that is elsewhere than it was placed was never there, and counts as here since then",
        Ledger().lead(0).place(5, "a", "FR", node="gpu-9").see(8, "a", "DE").end(20, "a"),
        [("a", "DE", 5, 20, "Deleted")],
    ),
    (
        "one of an Advise pool is where it is seen",
        Ledger().lead(0).advise(5, "a").see(8, "a", "DE"),
        [("a", "DE", 8, None, "")],
    ),
    (
        "a place that says otherwise ends one stay and begins the next",
        Ledger().lead(0).place(5, "a").see(10, "a", "US", EU).end(20, "a"),
        [("a", "DE", 5, 10, ""), ("a", "US", 10, 20, "Deleted")],
    ),
    (
        "one that the next leader finds again stayed",
        Ledger().lead(0).place(5, "a").lead(60, "a").end(90, "a"),
        [("a", "DE", 5, 90, "Deleted")],
    ),
    (
        "one that the next leader does not find ended while nobody led",
        Ledger().lead(0).place(5, "a").lead(60),
        [("a", "DE", 5, 60, UNWATCHED)],
    ),
    (
        "one that the next leader finds and nobody placed is there since it was found",
        Ledger().lead(0).lead(60, "b"),
        [("b", "DE", 60, None, "")],
    ),
    (
        "one whose end may be among the records that were given up, and that is not told anew, ended unwatched",
        Ledger().lead(0, "a", "b").lose(50, 7, since=30).census(55, "b").end(70, "b"),
        [("a", "DE", 0, 55, UNWATCHED), ("b", "DE", 0, 70, "Deleted")],
    ),
    (
        "one that was placed by a leader before its census is not missed by it",
        Ledger().lead(0).write(Happening.EPOCH, "x", 60, {}).place(61, "a").census(62),
        [("a", "DE", 61, None, "")],
    ),
)


@pytest.mark.parametrize(("ledger", "expected"), [pytest.param(*row[1:], id=row[0]) for row in HISTORIES])
def test_where_a_replica_was(ledger: Ledger, expected: list[Row]) -> None:
    assert stays(ledger) == expected


GAPS: tuple[tuple[str, Ledger, tuple[int, int], list[tuple[int, int, str]]], ...] = (
    ("a leader that writes now and then watches all the time", Ledger().lead(0).alive(60, 170), (0, 170), []),
    (
        "a leader that is silent for more than two heartbeats does not",
        Ledger().lead(0).alive(60, 190),
        (0, 190),
        [(60, 190, "the leader wrote nothing")],
    ),
    (
        "from the last line of one leader to the census of the next nobody watches",
        Ledger().lead(0).alive(30).lead(45),
        (0, 45),
        [(30, 45, "nobody led")],
    ),
    (
        "a leader without a census watched nothing",
        Ledger().lead(0).alive(30).write(Happening.EPOCH, "x", 40, {}).alive(41).lead(70, epoch=9),
        (0, 70),
        [(30, 70, "nobody led")],
    ),
    (
        "a census that never came leaves the rest of the log unwatched",
        Ledger().lead(0).write(Happening.EPOCH, "x", 40, {}).alive(50),
        (0, 50),
        [(0, 50, "nobody led")],
    ),
    (
        "entries that were given up are a time that nobody can tell of",
        Ledger().lead(0).alive(30).lose(50, 7),
        (0, 50),
        [(30, 50, "7 entries were given up: no disk took them")],
    ),
    (
        "nobody knows of everybody from the first of them until the leader has told everybody anew",
        Ledger().lead(0, "a").alive(30).lose(80, 7, since=50).alive(90).census(95, "a").alive(120),
        (0, 120),
        [(50, 95, "7 entries were given up: no disk took them")],
    ),
    (
        "a leader that was silent before the first of them watched nothing",
        Ledger().lead(0).lose(310, 7, since=300).census(311),
        (0, 311),
        [(0, 300, "the leader wrote nothing"), (300, 311, "7 entries were given up: no disk took them")],
    ),
    (
        "a leader whose clock was fast hides no time in which nobody led",
        Ledger().lead(0).alive(*range(60, 3601, 60)).lead(1800).alive(*range(1860, 2401, 60)),
        (0, 4000),
        [(1800, 3600, "the clocks do not agree"), (2400, 4000, "the log ends before it")],
    ),
    (
        "nor does a clock that was set back hide a silence behind it",
        Ledger().lead(0).alive(*range(60, 3601, 60), 0, 60, 3540, 3600),
        (0, 3600),
        [(0, 3600, "the clocks do not agree"), (60, 3540, "the leader wrote nothing")],
    ),
    ("a line that is a little late is no other clock", Ledger().lead(0).alive(60, 40, 70), (0, 70), []),
    (
        "a leader that never wrote who runs watches nobody behind its last line either",
        Ledger().lead(0).alive(60).write(Happening.EPOCH, "x", 61, {}),
        (61, 180),
        [(61, 180, "the log ends before it")],
    ),
    (
        "before the first leader nobody watched",
        Ledger().lead(20),
        (0, 20),
        [(0, 20, "the log does not reach back to it")],
    ),
    (
        "behind the last line a leader counts as watching for two heartbeats",
        Ledger().lead(0),
        (0, 120),
        [],
    ),
    ("and no longer", Ledger().lead(0).alive(50), (0, 400), [(50, 400, "the log ends before it")]),
    ("a gap outside of the time that is asked for is no matter", Ledger().lead(0).lead(45).alive(90), (50, 90), []),
    ("one that reaches into it counts for as much", Ledger().lead(0).lead(45), (40, 45), [(40, 45, "nobody led")]),
    ("without any leader nobody ever watched", Ledger(), (0, 9), [(0, 9, "the log does not reach back to it")]),
)


MOMENTS: tuple[tuple[str, int, list[tuple[int, int, str]]], ...] = (
    ("before the log", -1, [(-1, 0, "the log does not reach back to it")]),
    ("at its first census", 0, []),
    ("while nobody led", 50, [(50, 51, "nobody led")]),
    ("when the next leader had told everybody", 70, []),
    ("long after its last line", 900, [(900, 901, "the log ends before it")]),
)


@pytest.mark.parametrize(("at", "expected"), [pytest.param(*row[1:], id=row[0]) for row in MOMENTS])
def test_a_moment_is_the_second_that_it_begins(at: int, expected: list[tuple[int, int, str]]) -> None:
    told = tell(Ledger().lead(0).alive(30).lead(70).alive(80).records)
    found = told.unwatched(BEGIN_TIME + at, BEGIN_TIME + at)
    assert [(*seconds(one.from_time, one.until_time), one.why) for one in found] == expected


@pytest.mark.parametrize(("ledger", "asked", "expected"), [pytest.param(*row[1:], id=row[0]) for row in GAPS])
def test_when_nobody_watched(ledger: Ledger, asked: tuple[int, int], expected: list[tuple[int, int, str]]) -> None:
    begin, end = (BEGIN_TIME + second for second in asked)
    found = tell(ledger.records).unwatched(begin, end)
    assert [(*seconds(one.from_time, one.until_time), one.why) for one in found] == expected


def test_when_a_replica_was_taken_out_of_traffic_stays_with_it() -> None:
    told = tell(Ledger().lead(0).place(1, "a").isolate(8, "a").see(10, "a", "US", EU).end(20, "a").records)
    assert [seconds(one.isolated_time) for one in told.stays] == [[8], [8]]


@pytest.mark.parametrize(
    ("ledger", "since"),
    (
        pytest.param(Ledger().lead(0).place(1, "a"), 40, id="the leader died before it had that on record"),
        pytest.param(Ledger().lead(0).place(1, "a").isolate(8, "a"), 8, id="it is on record since when"),
        pytest.param(Ledger(), 40, id="nobody led before"),
    ),
)
def test_one_that_a_leader_finds_out_of_traffic_is_so_from_then_on_at_the_latest(ledger: Ledger, since: int) -> None:
    ledger.write(Happening.EPOCH, "x", 39, {}).census(40, "a", isolated=True).census(60, "a", isolated=True)
    (stay,) = tell(ledger.records).stays
    assert seconds(stay.isolated_time) == [since]


@pytest.mark.parametrize("happening", (Happening.ISOLATE, Happening.EVICT))
def test_one_that_is_ended_for_its_place_is_outside_from_then_on_though_nobody_wrote_that_down_yet(
    happening: Happening,
) -> None:
    ledger = Ledger().lead(0).place(1, "a")
    data = {**ledger.of("a"), "place": {"node": "gpu-1", "labels": {COUNTRY_LABEL: "US"}}, "outside": [EU]}
    ledger.write(happening, "a", 10, data).see(11, "a", "US", EU).end(20, "a")
    assert stays(ledger) == [("a", "DE", 1, 10, ""), ("a", "US", 10, 20, "Deleted")]


def test_one_whose_isolation_is_written_behind_a_later_look_is_outside_since_that_was_decided() -> None:
    ledger = Ledger().lead(0).place(1, "a").see(11, "a", "US", EU)
    data = {**ledger.of("a"), "place": {"node": "gpu-1", "labels": {COUNTRY_LABEL: "US"}}, "outside": [EU]}
    told = tell(ledger.write(Happening.ISOLATE, "a", 10, data).end(20, "a").records)
    outside = told.stays[-1]
    assert seconds(outside.from_time, outside.isolated_time, outside.until_time) == [10, 10, 20]


def test_lines_behind_what_the_cluster_heard_of_are_watched_by_nobody() -> None:
    told = tell(Ledger().lead(0).alive(*range(60, 3601, 60)).records, BEGIN_TIME + 600)
    found = told.unwatched(BEGIN_TIME, BEGIN_TIME + 3600)
    assert [(*seconds(one.from_time, one.until_time), one.why) for one in found] == [
        (720, 3600, "no checkpoint of the cluster answers for it")
    ]
    assert told.unwatched(BEGIN_TIME, BEGIN_TIME + 720) == ()


def test_one_that_lost_its_pool_and_is_driven_out_as_a_stranger_is_no_odd_record() -> None:
    ledger = Ledger().lead(0).place(1, "a")
    known = {name: value for name, value in ledger.of("a").items() if name != "pool"}
    place = {"node": "gpu-1", "labels": {COUNTRY_LABEL: "US"}}
    ledger.write(Happening.EVICT, "a", 10, {**known, "outside": [EU], "place": place})
    assert tell(ledger.end(20, "a").records).unread == ()
    assert stays(ledger) == [("a", "DE", 1, 20, "Deleted")]


def test_a_record_that_no_leader_can_have_written_is_set_aside_and_named() -> None:
    ledger = Ledger().lead(0).write(Happening.PLACE, "x", 3, {"pod": None}).place(5, "a")
    told = tell(ledger.records)
    assert [one.pod for one in told.stays] == ["bank/a"]
    (odd,) = told.unread
    assert str(odd) == "epoch 1:3: no leader writes that: Expected `object`, got `null` - at `$.pod`"


def test_a_policy_that_only_audits_has_a_say_in_a_stay() -> None:
    (stay,) = tell(Ledger().lead(0).place(1, "a").records).stays
    assert stay.named("ResidencyPolicy/eu")
    assert not stay.named("ResidencyPolicy/us")
    (outside,) = tell(Ledger().lead(0).see(1, "a", "US", "ResidencyPolicy/us@3").records).stays
    assert outside.named("ResidencyPolicy/us")
    assert outside.breaks("ResidencyPolicy/us")
    assert not outside.breaks("ResidencyPolicy/eu")
