"""`penstock audit verify`: whole is 0, anything else is 1 and names the file and the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ledger import BEGIN_TIME, Ledger
from penstock.control.commands import auditing
from penstock.core.decisionlog.checkpoints import Checkpoints, write
from penstock.core.decisionlog.record import Entry, Happening, Head, file_name, seal
from penstock.core.telling.figures import rfc3339
from penstock.errors import InvalidInput

TIME = "2026-11-21T12:00:00Z"
NAME = file_name(3, 1, "operator")


def written(directory: Path) -> Head:
    """A log of one epoch with three lines more; its head."""
    head, lines = Head(3), []
    for number in range(4):
        happening = Happening.ALIVE if number else Happening.EPOCH
        line, head = seal(Entry(happening, f"bank/llama-{number}", TIME), head, "//x")
        lines.append(line + b"\n")
    directory.mkdir(exist_ok=True)
    (directory / NAME).write_bytes(b"".join(lines))
    return head


def checkpoints(path: Path, *heads: Head) -> Path:
    kept = Checkpoints()
    for head in heads:
        kept = kept.with_head(head, TIME)
    path.write_text(yaml.safe_dump({"kind": "ConfigMap", "data": write(kept)}))
    return path


def test_a_log_that_nobody_touched_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = written(tmp_path / "log")
    answer = auditing.verify(tmp_path / "log", checkpoints(tmp_path / "configmap.yaml", head))
    auditing.show(answer, "table")
    assert (answer.exit_code, answer.notes) == (0, ())
    assert capsys.readouterr().out == "4 records in 1 epoch\nthe log is whole\n"


def test_one_byte_changed_is_named_by_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "log")
    file = tmp_path / "log" / NAME
    file.write_bytes(file.read_bytes().replace(b"llama-2", b"llama-9"))
    answer = auditing.verify(tmp_path / "log", None)
    auditing.show(answer, "table")
    said = capsys.readouterr().out
    assert answer.exit_code == 1
    assert f"damage: {NAME}:4: cites another line" in said
    assert said.endswith("the log is not what was written\n")


def test_lines_cut_off_the_end_are_missed_by_the_checkpoint_and_its_absence_is_said(tmp_path: Path) -> None:
    head = written(tmp_path / "log")
    file = tmp_path / "log" / NAME
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    assert auditing.verify(tmp_path / "log", None).notes == (auditing.NO_CHECKPOINTS,)
    assert auditing.verify(tmp_path / "log", checkpoints(tmp_path / "configmap.yaml", head)).exit_code == 1


def test_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "log")
    auditing.show(auditing.verify(tmp_path / "log", None), "json")
    said = json.loads(capsys.readouterr().out)
    assert (said["records"], said["epochs"], said["damage"], said["whole"]) == (4, [3], [], True)


def test_the_time_that_nobody_watched_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = Ledger().lead(0).alive(30).lead(45).save(tmp_path / "log")
    answer = auditing.verify(directory, None)
    auditing.show(answer, "table")
    begin, end = rfc3339(BEGIN_TIME + 30), rfc3339(BEGIN_TIME + 45)
    assert f"unobserved: {begin} to {end} (15 s): nobody led" in capsys.readouterr().out.splitlines()
    auditing.show(answer, "json")
    (gap,) = json.loads(capsys.readouterr().out)["unobserved"]
    assert (gap["from"], gap["seconds"], answer.exit_code) == (begin, 15.0, 0)


def test_a_line_that_chains_and_says_what_no_leader_writes_is_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Ledger().lead(0).write(Happening.PLACE, "x", 3, {"pod": None}).save(tmp_path / "log")
    answer = auditing.verify(directory, None)
    auditing.show(answer, "table")
    assert answer.exit_code == 1
    assert "damage: epoch 1:3: no leader writes that: Expected `object`, got `null`" in capsys.readouterr().out


def test_a_log_that_was_taken_away_as_a_whole_is_missed_by_the_checkpoint(tmp_path: Path) -> None:
    head = written(tmp_path / "log")
    (tmp_path / "log" / NAME).unlink()
    assert auditing.verify(tmp_path / "log", checkpoints(tmp_path / "configmap.yaml", head)).exit_code == 1


@pytest.mark.parametrize("directory", ("empty", "nowhere"))
def test_where_there_is_no_log_that_is_wrong_usage(tmp_path: Path, directory: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="DIR"):
        auditing.verify(tmp_path / directory, None)


@pytest.mark.parametrize("content", ("", "data: {}", "data: {heads: '[{}]', prunedBelow: '0'}", "{", "[]"))
def test_what_holds_no_checkpoints_is_wrong_usage(tmp_path: Path, content: str) -> None:
    written(tmp_path / "log")
    (tmp_path / "other").write_text(content)
    with pytest.raises(InvalidInput, match="kubectl get configmap"):
        auditing.verify(tmp_path / "log", tmp_path / "other")
