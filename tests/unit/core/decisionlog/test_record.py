"""Whatever is done to a written log is found, by the file and the line; what a crash leaves is not taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from penstock.core.decisionlog.chain import read
from penstock.core.decisionlog.checkpoints import Checkpoints
from penstock.core.decisionlog.record import (
    NOTHING_BEFORE,
    Entry,
    Happening,
    Head,
    digest,
    epoch_of,
    file_name,
    last_head,
    parse,
    seal,
    source,
)

WHERE = source("factory-1", "penstock-system")
Files = dict[str, bytes]
FIRST, SECOND, THIRD = (file_name(epoch, 1, f"operator-{epoch}") for epoch in (3, 4, 6))


def epoch(number: int, cited: Head | None, node: str = "gpu") -> tuple[bytes, Head]:
    """The file of one leader: its first line, and so many placements."""
    head, lines = Head(number), []
    checkpoint = {"checkpoint": cited.as_json()} if cited else {}
    begin = Entry(Happening.EPOCH, f"penstock-system/operator-{number}", "2026-11-21T12:00:00Z", checkpoint)
    places = [
        Entry(Happening.PLACE, f"bank/llama-{at}", "2026-11-21T12:00:01Z", {"node": f"{node}-{at}"}) for at in range(4)
    ]
    for entry in (begin, *places):
        line, head = seal(entry, head, WHERE)
        lines.append(line + b"\n")
    return b"".join(lines), head


def log() -> tuple[Files, list[Head]]:
    """Three epochs, each citing the one before, and the checkpoints that the cluster keeps of them."""
    first, head_3 = epoch(3, None)
    second, head_4 = epoch(4, head_3)
    third, head_6 = epoch(6, head_4)
    return {FIRST: first, SECOND: second, THIRD: third}, [head_3, head_4, head_6]


def problems(files: Files, checkpoints: list[Head], pruned_below: int = 0) -> list[str]:
    return [str(one) for one in read(files.items(), kept(checkpoints, pruned_below)).damage]


def kept(checkpoints: list[Head], pruned_below: int = 0) -> Checkpoints:
    return Checkpoints(tuple(checkpoints), {one.epoch: "2026-11-21T12:00:00Z" for one in checkpoints}, pruned_below)


def test_a_log_that_nobody_touched_is_whole() -> None:
    files, checkpoints = log()
    found = read(files.items(), kept(checkpoints))
    assert (found.damage, found.notes) == ([], [])
    assert [one.happening for one in found.records[:2]] == [Happening.EPOCH, Happening.PLACE]
    assert found.records[0].previous == NOTHING_BEFORE
    assert found.records[1].data == {"node": "gpu-0"}


def test_a_line_is_a_cloudevents_envelope_that_names_itself() -> None:
    line, head = seal(Entry(Happening.BREAK_GLASS, "bank/x", "2026-11-21T12:00:00Z", {"ä": 1}), Head(7, 11, "d"), WHERE)
    envelope = json.loads(line)
    assert (envelope["specversion"], envelope["id"], envelope["type"]) == (
        "1.0",
        "7-12",
        "dev.penstock.decision.breakglass.v1",
    )
    assert (envelope["prevhash"], envelope["source"]) == ("d", WHERE)
    assert (head.epoch, head.sequence, head.digest) == (7, 12, digest(line))


def _line(content: bytes, at: int, changed: Callable[[bytes], bytes]) -> bytes:
    lines = content.split(b"\n")
    lines[at] = changed(lines[at])
    return b"\n".join(lines)


def _without(content: bytes, at: int) -> bytes:
    lines = content.split(b"\n")
    return b"\n".join(lines[:at] + lines[at + 1 :])


def _swapped(content: bytes, at: int) -> bytes:
    lines = content.split(b"\n")
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    return b"\n".join(lines)


DAMAGES: tuple[tuple[str, str, Callable[[bytes], bytes], str], ...] = (
    ("one byte changed", SECOND, lambda one: one.replace(b"gpu-2", b"gpu-9"), f"{SECOND}:5: cites another line"),
    ("one byte changed in the last line", SECOND, lambda one: one.replace(b"gpu-3", b"gpu-9"), "epoch 4:5: is another"),
    ("two lines swapped", SECOND, lambda one: _swapped(one, 2), f"{SECOND}:3: is number 3, behind number 1"),
    ("a line taken out", SECOND, lambda one: _without(one, 2), f"{SECOND}:3: is number 3, behind number 1"),
    (
        "a line written twice",
        SECOND,
        lambda one: _line(one, 2, lambda line: line + b"\n" + line),
        "is number 2, behind number 2",
    ),
    ("the last lines cut off", SECOND, lambda one: _without(_without(one, 4), 3), "epoch 4:5: is gone"),
    ("the first line cut off", SECOND, lambda one: _without(one, 0), f"{SECOND}:1: is number 1, behind number -1"),
    ("a line that is no record", SECOND, lambda one: _line(one, 2, lambda _: b"{}"), f"{SECOND}:3: is no record"),
    ("an empty file", SECOND, lambda _: b"", f"{SECOND}: holds no record"),
    ("cut in the middle of a line", THIRD, lambda one: one[:-20], "epoch 6:5: is gone"),
    ("another epoch's lines", SECOND, lambda one: one.replace(b'"epoch":4,', b'"epoch":3,'), "in a file of epoch 4"),
)


@pytest.mark.parametrize(("name", "change", "says"), [pytest.param(*row[1:], id=row[0]) for row in DAMAGES])
def test_damage_is_found(name: str, change: Callable[[bytes], bytes], says: str) -> None:
    files, checkpoints = log()
    assert change(files[name]) != files[name]
    files[name] = change(files[name])
    assert any(says in problem for problem in problems(files, checkpoints)), problems(files, checkpoints)


@pytest.mark.parametrize("name", (FIRST, SECOND, THIRD))
def test_a_file_that_is_gone_is_missed_by_whoever_cites_it(name: str) -> None:
    files, checkpoints = log()
    del files[name]
    assert any(f"epoch {epoch_of(name)}: its files are gone" in problem for problem in problems(files, checkpoints))


def test_what_was_dropped_for_its_age_is_not_missed() -> None:
    files, checkpoints = log()
    del files[FIRST]
    assert problems(files, checkpoints, pruned_below=4) == []


def test_a_leader_that_drops_what_is_old_says_so_in_its_first_line() -> None:
    files, checkpoints = log()
    begin = Entry(Happening.EPOCH, "x", "t", {"checkpoint": checkpoints[-1].as_json(), "prunedBelow": 4})
    files[file_name(7, 1, "operator-7")] = seal(begin, Head(7), WHERE)[0] + b"\n"
    del files[FIRST]
    assert problems(files, []) == []
    assert problems(files, checkpoints[1:], pruned_below=4) == []
    assert problems(files, checkpoints[1:]) != [], "where the cluster is asked, no line of a file excuses it"
    del files[SECOND]
    assert problems(files, []) != []


def test_an_epoch_written_anew_as_a_whole_is_found_by_the_checkpoint() -> None:
    files, checkpoints = log()
    files[THIRD], _ = epoch(6, checkpoints[1], node="elsewhere")
    assert problems(files, checkpoints) == [
        "epoch 6:5: is another line than the one that the checkpoint of the cluster cites"
    ]


def test_a_line_that_a_crash_tore_is_a_note_and_no_damage() -> None:
    files, checkpoints = log()
    line, _ = seal(Entry(Happening.PLACE, "bank/llama-9", "2026-11-21T12:00:02Z"), checkpoints[-1], WHERE)
    files[THIRD] += line[:30]
    found = read(files.items(), kept(checkpoints))
    assert found.damage == []
    assert found.notes == [f"{THIRD}:6: the last line is torn, as by a crash; nothing stands on it"]


def test_an_epoch_goes_on_in_its_next_file() -> None:
    files, checkpoints = log()
    lines = files.pop(SECOND).splitlines(keepends=True)
    files[SECOND] = b"".join(lines[:2])
    files[file_name(4, 2, "operator-4")] = b"".join(lines[2:])
    assert problems(files, checkpoints) == []


def test_files_of_others_are_left_alone() -> None:
    files, checkpoints = log()
    files["lost+found"] = b"?"
    assert problems(files, checkpoints) == []


def test_the_last_line_of_a_file_is_the_last_whole_one() -> None:
    files, checkpoints = log()
    assert last_head(files[THIRD]) == checkpoints[-1]
    assert last_head(files[THIRD] + b'{"type":"dev.pen') == checkpoints[-1]
    assert last_head(b"") is None


DREAM: Any = "dream"
"""A kind that a newer release may have."""


def test_a_line_of_a_kind_that_only_a_newer_release_knows_chains_and_can_be_the_last_one() -> None:
    files, checkpoints = log()
    line, head = seal(Entry(DREAM, "bank/llama-9", "2026-11-21T12:00:02Z", {"of": 1}), checkpoints[-1], WHERE)
    files[THIRD] += line + b"\n"
    assert last_head(files[THIRD]) == head
    behind, last = seal(Entry(Happening.PLACE, "bank/llama-9", "2026-11-21T12:00:03Z"), head, WHERE)
    files[THIRD] += behind + b"\n"
    found = read(files.items(), kept([*checkpoints[:-1], last]))
    assert ([one.happening for one in found.records[-2:]], found.damage) == (["dream", Happening.PLACE], [])
    (note,) = found.notes
    assert note.startswith("lines of kinds that this release does not know (dream): ")


@pytest.mark.parametrize("kind", (b"org.other.place.v1", b"place", b""))
def test_a_line_of_a_type_that_is_not_ours_is_no_record(kind: bytes) -> None:
    line, _ = seal(Entry(Happening.PLACE, "x", "t"), Head(3), WHERE)
    assert parse(line.replace(b"dev.penstock.decision.place.v1", kind)) is None


def test_an_epoch_that_was_added_between_others_is_told_and_not_counted() -> None:
    files, checkpoints = log()
    before = read(files.items(), kept(checkpoints)).records
    found = {"checkpoint": checkpoints[1].as_json(), "found": replace(checkpoints[1], sequence=2).as_json()}
    begin = Entry(Happening.EPOCH, "x", "t", found)
    files[file_name(5, 1, "x")] = seal(begin, Head(5), WHERE)[0] + b"\n"
    for known in (kept(checkpoints), kept([])):
        reading = read(files.items(), known)
        assert reading.records == before
        assert "epoch 5: neither the cluster nor a later leader knows it: it proves nothing" in reading.notes


def test_no_epoch_that_was_added_behind_all_others_takes_away_what_the_cluster_heard_of() -> None:
    files, checkpoints = log()
    before = read(files.items(), kept(checkpoints)).records
    found = {"checkpoint": checkpoints[2].as_json(), "found": replace(checkpoints[2], sequence=1).as_json()}
    files[file_name(7, 1, "x")] = seal(Entry(Happening.EPOCH, "x", "t", found), Head(7), WHERE)[0] + b"\n"
    assert read(files.items(), kept(checkpoints)).records[:-1] == before


def test_each_epoch_that_was_dropped_for_its_age_is_told() -> None:
    files, checkpoints = log()
    assert read(files.items(), kept(checkpoints)).notes == []
    del files[FIRST]
    assert read(files.items(), kept(checkpoints, 4)).notes == ["epochs below 4 were dropped for their age"]


@pytest.mark.parametrize("name", ("²-1-x.jsonl", "1-²-x.jsonl", "٣-1-x.jsonl", "9" * 400 + "-1-x.jsonl", "-1-x.jsonl"))
def test_a_file_that_no_leader_can_have_named_is_none_of_ours(name: str) -> None:
    assert epoch_of(name) is None


@pytest.mark.parametrize(
    "value", (b"9e999", b"-1e999", b"NaN", b'"\xff"', b"[]", b"[" * 100_000, b"-1", b'"0"', b"null")
)
def test_a_line_with_a_value_that_no_leader_writes_is_no_record(value: bytes) -> None:
    line, _ = seal(Entry(Happening.ALIVE, "x", "t"), Head(3), WHERE)
    assert parse(line) is not None
    assert parse(line.replace(b'"sequence":0', b'"sequence":' + value)) is None


def test_a_cited_line_that_nobody_can_have_written_cites_nothing() -> None:
    files, checkpoints = log()
    line, _ = seal(Entry(Happening.EPOCH, "x", "t", {"checkpoint": {"epoch": 4, "sequence": 0}}), Head(7), WHERE)
    files[file_name(7, 1, "x")] = line.replace(b'{"epoch":4', b'{"digest":"d","epoch":"4x"') + b"\n"
    assert problems(files, checkpoints) == ["epoch 7:1: cites no checkpoint, and is not the first epoch"]
