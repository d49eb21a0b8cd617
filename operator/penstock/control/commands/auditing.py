"""The decision log as a person asks of it: `penstock audit verify`, and what its other questions rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from penstock.control.commands import stays
from penstock.control.commands.answers import counted, put
from penstock.core.decisionlog import chain, checkpoints, history, record
from penstock.core.decisionlog.chain import Damage, Reading
from penstock.core.decisionlog.checkpoints import Checkpoints
from penstock.core.decisionlog.history import NO_TIME, History
from penstock.core.telling.figures import rfc3339
from penstock.errors import InvalidInput

NO_CHECKPOINTS = (
    "no checkpoints were given: lines cut off the end of the log or added there, or its last epochs, "
    "would not be missed"
)


@dataclass(frozen=True, slots=True)
class Verified:
    """A log, and whether it is what was written."""

    reading: Reading
    told: History
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return 1 if self.damaged else 0

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """Where it is not what was written, and lines that chain and say what no leader writes."""
        return (*self.reading.damage, *self.told.unread)

    @property
    def damage(self) -> tuple[str, ...]:
        return tuple(map(str, self.damaged))


def verify(directory: Path, checkpoints_file: Path | None) -> Verified:
    """Read a log and check it. Raises InvalidInput where there is none, or no checkpoints in what was given."""
    try:
        files = [(path.name, path.read_bytes()) for path in sorted(directory.iterdir()) if path.is_file()]
    except OSError as error:
        raise InvalidInput("DIR", str(directory), f"name the directory of a decision log ({error.strerror})") from error
    known = _checkpoints(checkpoints_file) if checkpoints_file else Checkpoints()
    if not known.heads and not any(record.epoch_of(name) is not None for name, _ in files):
        raise InvalidInput("DIR", str(directory), "name the directory of a decision log: it holds no file of one")
    found = chain.read(files, known)
    told = history.tell(found.records, known.heard_time)
    return Verified(found, told, (*found.notes, *(() if known.heads else (NO_CHECKPOINTS,))))


def _checkpoints(path: Path) -> Checkpoints:
    """What `kubectl get configmap penstock-decision-log -o yaml` (or `-o json`) wrote."""
    remedy = "give what `kubectl get configmap penstock-decision-log -o yaml` writes"
    try:
        return checkpoints.parse(yaml.safe_load(path.read_text())["data"])
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        raise InvalidInput("--checkpoints", str(path), remedy) from error


def moment(option: str, written: str | None) -> float | None:
    """The Unix time of `2026-11-21` or `2026-11-21T20:00:00Z`, in UTC where it says no zone; None of nothing.

    Raises InvalidInput.
    """
    if written is None:
        return None
    try:
        found = datetime.fromisoformat(written)
        time = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        rfc3339(time)  # A zone moves the ends of the calendar off it.
    except (ValueError, OverflowError) as error:
        raise InvalidInput(option, written, "write a time as 2026-11-21T20:00:00Z or 2026-11-21") from error
    return time


@dataclass(frozen=True, slots=True)
class Question:
    """Which log a person asks, and of which time; Unix times, None as far as the log knows."""

    directory: Path
    checkpoints: Path | None = None
    from_time: float | None = None
    until_time: float | None = None

    def verified(self) -> Verified:
        """The log. Raises InvalidInput where there is none."""
        return verify(self.directory, self.checkpoints)

    def window(self, known: Verified) -> tuple[float, float]:
        """From when until when, NO_TIME where nothing says. Raises InvalidInput where that is no time at all."""
        begin = known.told.from_time if self.from_time is None else self.from_time
        end = known.told.until_time if self.until_time is None else self.until_time
        if known.damage:  # That is said, whatever can be said besides.
            end = begin if end == NO_TIME and begin is not None else end
            begin = end if begin is None else begin
        if begin is None:
            raise InvalidInput("DIR", str(self.directory), "no leader of this log ever knew who ran: name a --from")
        if begin > end:
            raise InvalidInput("--from", rfc3339(begin), f"name a time before {rfc3339(end)}, or a later --to")
        return begin, end


def question(directory: Path, checkpoints: Path | None, since: str | None, until: str | None) -> Question:
    """What the command line asks. Raises InvalidInput for what is no time."""
    return Question(directory, checkpoints, moment("--from", since), moment("--to", until))


def show(answer: Verified, output: str) -> None:
    """Print it as lines, JSON or YAML."""
    found = answer.reading
    epochs: Sequence[int] = sorted({one.head.epoch for one in found.records})
    content: dict[str, Any] = {
        "records": len(found.records),
        "epochs": epochs,
        "notes": list(answer.notes),
        "unobserved": stays.gaps(answer.told.gaps),
        "damage": [{"file": one.file, "line": one.line, "problem": one.problem} for one in answer.damaged],
        "whole": not answer.damaged,
    }
    if put(content, output):
        return
    print(f"{counted(len(found.records), 'record')} in {counted(len(epochs), 'epoch')}")
    for told in (
        *(f"note: {one}" for one in answer.notes),
        *(f"unobserved: {stays.gap(one)}" for one in answer.told.gaps),
        *(f"damage: {one}" for one in answer.damage),
    ):
        print(stays.plain(told))
    print("the log is not what was written" if answer.damage else "the log is whole")
