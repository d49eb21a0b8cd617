"""The decision log: one line per decision, each citing the hash of the line before it.

A line is a CloudEvents 1.0 envelope in compact JSON with sorted keys; what counts for the chain are its bytes, so
nobody has to write it again to check it. An epoch is one leadership: its lines are numbered from 0, and line 0 cites
the last checkpoint that was published before it and the last line that was found on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from penstock.api.names import GROUP

TYPE_PREFIX = "dev.penstock.decision"
TYPE_VERSION = "v1"
NOTHING_BEFORE = "sha256:" + "0" * 64
"""What line 0 of an epoch cites as the line before it."""
FILE_SUFFIX = ".jsonl"
MOST_DIGITS = 18
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What a leader counted."""
ALIVE_SECONDS = 60.0
"""A leader writes a line at least this often: a longer silence is time in which nobody watched."""

ODD = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What it may raise to read a value that nobody of ours wrote."""

_COMPACT = msgspec.json.Encoder(order="sorted")
"""What is no number is null: JSON has no word for it, and a line that nobody can read would be damage."""


class Happening(StrEnum):
    """What a record is about."""

    EPOCH = "epoch"
    """A leader begins; cites the last checkpoint, and the last line that it found."""
    CENSUS = "census"
    """Every replica that a leader finds at its begin: what is not in it ended while nobody led."""
    PLACE = "place"
    OBSERVE = "observe"
    """A replica is where no line has it yet, its place says otherwise now, or the law says otherwise of its place."""
    END = "end"
    """A replica is no more."""
    REFUSE = "refuse"
    """A placement that did not come about, or replicas that wait."""
    ISOLATE = "isolate"
    EVICT = "evict"
    EXCEPTION = "exception"
    BREAK_GLASS = "breakglass"
    POLICY_CHANGE = "policychange"
    ALIVE = "alive"
    """A leader watches, and had nothing else to write."""
    PRUNE = "prune"
    """Epochs were dropped for their age."""
    LOST = "lost"
    """Entries that nobody waited for were given up: the disk could not be written for too long. A census follows."""


_KINDS = {one.value: one for one in Happening}


@dataclass(frozen=True, slots=True)
class Head:
    """The last line of an epoch: its number (-1: none yet) and the hash of its bytes."""

    epoch: int
    sequence: int = -1
    digest: str = NOTHING_BEFORE

    def as_json(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "sequence": self.sequence, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision before it has its place in the chain. `subject` is what it is about, `data` what was decided."""

    happening: Happening
    subject: str
    time: str
    """RFC 3339, UTC."""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """One line as it was read back."""

    head: Head
    """Itself: epoch, number and hash."""
    previous: str
    happening: Happening | str
    """A kind of another release is a name that we do not know."""
    subject: str
    time: str
    data: Mapping[str, Any]


class _Envelope(msgspec.Struct):
    """What a line has of a CloudEvents envelope, for the rest of it nobody asks."""

    type: str
    epoch: Number
    sequence: Number
    prevhash: str
    subject: str
    time: str
    data: dict[str, Any]


def digest(line: bytes) -> str:
    """Of a line without its newline."""
    return f"sha256:{sha256(line).hexdigest()}"


def seal(entry: Entry, before: Head, source: str) -> tuple[bytes, Head]:
    """The line of an entry behind `before`, without a newline, and the head that it makes."""
    sequence = before.sequence + 1
    line = _COMPACT.encode(
        {
            "specversion": "1.0",
            "id": f"{before.epoch}-{sequence}",
            "source": source,
            "type": f"{TYPE_PREFIX}.{entry.happening}.{TYPE_VERSION}",
            "subject": entry.subject,
            "time": entry.time,
            "datacontenttype": "application/json",
            "epoch": before.epoch,
            "sequence": sequence,
            "prevhash": before.digest,
            "data": dict(entry.data),
        }
    )
    return line, Head(before.epoch, sequence, digest(line))


def source(cluster: str, namespace: str) -> str:
    """The CloudEvents source of an install."""
    return f"//{GROUP}/clusters/{cluster}/namespaces/{namespace}"


def file_name(epoch: int, part: int, holder: str) -> str:
    """Sorts by epoch, then by part; `holder` is who led."""
    return f"{epoch:010d}-{part:04d}-{holder}{FILE_SUFFIX}"


def epoch_of(name: str) -> int | None:
    """Of a file by its name; None for a file that is not ours."""
    epoch, part, holder = (*name.split("-", 2), "", "")[:3]
    ours = _is_number(epoch) and _is_number(part) and holder.endswith(FILE_SUFFIX)
    return int(epoch) if ours else None


def _is_number(written: str) -> bool:
    # As many digits as there are numbers of 64 bits: what is longer no leader counted up to.
    return written.isascii() and written.isdecimal() and len(written) <= MOST_DIGITS


def lines(content: bytes) -> Iterator[bytes]:
    """Of a file, without their newlines."""
    return (line for line in content.split(b"\n") if line)


def parse(line: bytes) -> Record | None:
    """A line read back; None where it is no record."""
    try:
        raw = msgspec.json.decode(line, type=_Envelope)
        head = Head(raw.epoch, raw.sequence, digest(line))
        return Record(head, raw.prevhash, _kind(raw.type), raw.subject, raw.time, raw.data)
    except ODD:
        return None


def _kind(written: str) -> Happening | str:
    """Of a CloudEvents type; one of another release stays in the chain. Raises ValueError for no type of ours."""
    name = written.removeprefix(f"{TYPE_PREFIX}.").removesuffix(f".{TYPE_VERSION}")
    if not name or not written.startswith(f"{TYPE_PREFIX}."):
        raise ValueError(f"{written} is no type of a decision")
    return _KINDS.get(name, name)


def last_head(content: bytes) -> Head | None:
    """The last whole line of a file; None where there is none. One that a crash tore is none."""
    for line in reversed(list(lines(content))):
        if (record := parse(line)) is not None:
            return record.head
    return None
