"""What the lines of a log say, read back by type: what no leader writes is an error that names the field, no guess."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from penstock import __version__
from penstock.core.decisionlog.chain import Damage
from penstock.core.decisionlog.exception_entries import ExceptionState
from penstock.core.decisionlog.record import ALIVE_SECONDS, ODD, Happening, Head, Number, Record

LAST_TIME = 253_402_300_799.0
"""The end of the year 9999 as Unix time: no later one can be told."""
LONGEST_SILENCE_SECONDS = 3_600.0
"""A leader that says it may be silent for longer is not believed."""

Time = Annotated[datetime, Meta(tz=True)]
Words: TypeAlias = tuple[str, ...]


class Pod(Struct, frozen=True):
    """A pod as records name it."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Pool(Struct, frozen=True):
    """A pool by `namespace/name`."""

    name: str


class Law(Struct, frozen=True):
    """Whoever has a say in a place, with revisions; `audited` only report."""

    sources: Words
    audited: Words = ()


class Place(Struct, frozen=True):
    """A node, and what its labels said of where it stands."""

    node: str
    labels: dict[str, str] = {}


class Layers(Struct, frozen=True):
    """The layers of enforcement, by what the last verification found."""

    verified: Words
    unverified: Words = ()


class Demands(Struct, frozen=True, rename="camel"):
    """What a policy demands."""

    source: str
    demands: dict[str, Words | float]
    enforced: bool
    groups: Words = ()
    audit_required: bool = False


class Said(Struct, frozen=True, kw_only=True, rename="camel"):
    """What any line may say beside what it is about."""

    layers: Layers | Literal["unverified"] | None = None


class Begun(Said, frozen=True):
    """A leader begins, and says how long it may be silent at most."""

    alive_seconds: Annotated[float, Meta(gt=0, le=LONGEST_SILENCE_SECONDS)] = ALIVE_SECONDS


class Replica(Struct, frozen=True):
    """A replica in a census; `node` is told of among its nodes, `isolated`: it is out of traffic."""

    pod: Pod
    pool: Pool
    law: Law
    node: str
    outside: Words = ()
    isolated: bool = False


class Census(Said, frozen=True):
    """Everybody who has a place."""

    replicas: tuple[Replica, ...]
    nodes: dict[str, Place | None]


class Placed(Said, frozen=True):
    """A replica is let through the gate; `chosen` is None where nobody chose a node for it."""

    pod: Pod
    pool: Pool
    law: Law
    chosen: Place | None


class Observed(Said, frozen=True):
    """A replica is seen at a place."""

    pod: Pod
    pool: Pool
    law: Law
    place: Place
    outside: Words = ()


class Ended(Said, frozen=True):
    """A replica is no more."""

    pod: Pod
    why: str


class Refused(Said, frozen=True):
    """A placement that did not come about; without a pod: replicas that wait."""

    pod: Pod | None = None


class Removed(Said, frozen=True):
    """A replica is taken out of traffic, or ended; a pod of no pool is ended."""

    pod: Pod
    pool: Pool | None = None
    law: Law | None = None
    place: Place | None = None
    outside: Words = ()


class Excepted(Said, frozen=True):
    """An exception is in force, was used, or is over."""

    exception: str
    state: ExceptionState
    policies: Words = ()
    pool: str | Pool | None = None
    pod: Pod | None = None
    widen: dict[str, Words | str] = {}
    reason: str = ""
    requester: str | None = None
    approved_by: str | None = None
    expires: Time | None = None


class Passed(Said, frozen=True):
    """A pod passed the gate that no leader let through."""

    pod: Pod
    law: Law
    place: Place | None = None


class Changed(Said, frozen=True):
    """What counts of a policy; `in_force` None: nothing yet for what runs."""

    policy: str
    generation: Number = 0
    in_force: Demands | None = None
    asked: Demands | None = None
    problems: Words = ()
    unconfirmed_replicas: Number | None = None
    deleted: bool = False


class Lost(Said, frozen=True):
    """So many entries were given up, the first of them then."""

    entries: Number
    since: Time | None = msgspec.field(name="from", default=None)


KINDS: Mapping[str, type[Said]] = MappingProxyType(
    {
        Happening.EPOCH: Begun,
        Happening.CENSUS: Census,
        Happening.PLACE: Placed,
        Happening.OBSERVE: Observed,
        Happening.END: Ended,
        Happening.REFUSE: Refused,
        Happening.ISOLATE: Removed,
        Happening.EVICT: Removed,
        Happening.EXCEPTION: Excepted,
        Happening.BREAK_GLASS: Passed,
        Happening.POLICY_CHANGE: Changed,
        Happening.LOST: Lost,
    }
)
"""What else there is says nothing that anybody asks for."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: which, when (Unix time), and what it says."""

    head: Head
    happening: Happening | str
    time: float
    said: Said


def read(records: Iterable[Record]) -> tuple[tuple[Line, ...], tuple[Damage, ...]]:
    """What can be read, and of each other record which it is and what is wrong with it."""
    found, odd = list[Line](), list[Damage]()
    for one in records:
        try:
            found.append(Line(one.head, one.happening, _time(one), _said(one)))
        except ODD as error:
            odd.append(Damage(f"epoch {one.head.epoch}", one.head.sequence + 1, f"{_whose(one)}: {error}"))
    return tuple(found), tuple(odd)


def by_telling(lines: Iterable[Line]) -> Iterator[tuple[Sequence[Line], float | None]]:
    """The lines from each time on that a leader tells all that it finds: as it begins, and where entries were given up.

    And when it had told it, None where it never did: what is not among it is no more, and no other line says so.
    """
    members: list[Line] = []
    for line in lines:
        if members and (isinstance(line.said, Lost) or line.head.epoch != members[-1].head.epoch):
            yield members, _told_time(members)
            members = []
        members.append(line)
    yield members, _told_time(members)


def _told_time(members: Iterable[Line]) -> float | None:
    return next((line.time for line in members if isinstance(line.said, Census)), None)


def _said(one: Record) -> Said:
    kind, _, version = one.happening.partition(".")
    if version and kind in KINDS:
        raise ValueError(f"{one.happening} is another {kind} than this release knows")
    return msgspec.convert(one.data, KINDS.get(one.happening, Said))


def _whose(one: Record) -> str:
    """Who can have written a line that we cannot read."""
    written = one.data.get("operatorVersion")
    try:
        newer = _release(written) > _release(__version__)
    except ODD:
        newer = False
    return f"written by a newer release, {written}: use its penstock audit" if newer else "no leader writes that"


def _release(version: Any) -> tuple[int, ...]:
    """Its numbers, without what stands behind them."""
    return tuple(map(int, re.split(r"[-+]", version)[0].split(".")))


def _time(one: Record) -> float:
    """By the clock of whoever wrote it."""
    found = msgspec.convert(one.time, Time).timestamp()
    if not 0 <= found <= LAST_TIME:
        raise ValueError(f"{one.time} is no time")
    return found
