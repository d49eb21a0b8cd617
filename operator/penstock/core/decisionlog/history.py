"""What a decision log comes to: where each replica was, from when until when, and when nobody watched.

A replica that has a placement on record counts as there from that moment: that is early, never late. Where a leader
begins it finds who runs; whoever it does not find ended at some time while nobody led, and counts until then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.core.decisionlog import said
from penstock.core.decisionlog.chain import Damage
from penstock.core.decisionlog.record import ALIVE_SECONDS, Happening, Head, Record
from penstock.core.decisionlog.said import Line
from penstock.core.residency import whereabouts

SILENT_HEARTBEATS = 2.0
"""After so many times the longest that a leader is silent, nobody watched."""
PUBLISHED_SECONDS = SILENT_HEARTBEATS * ALIVE_SECONDS
"""A leader that goes on publishes at least so often: it writes a line within half of it, and has the rest to tell."""
LATE_SECONDS = 30.0
"""A line may be so much older than the one before it: it tells of an act, and the API server took its time."""
MOMENT_SECONDS = 1.0
"""Lines tell times to the second."""
NOBODY_LED = "nobody led"
CLOCKS = "the clocks do not agree"
NO_TIME = 0.0
"""Of a log without a line that can be read."""
UNWATCHED = "Unwatched"
"""How a replica ended of which only that is known."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A replica at one place under one law: Unix times, `until_time` None where the log shows no end of it."""

    pool: str
    pod: str
    uid: str
    node: str
    labels: Mapping[str, str]
    sources: tuple[str, ...]
    """The policies and whoever else had a say, with their revisions; those that only audit too."""
    outside: tuple[str, ...]
    """Those of them that its place did not satisfy."""
    from_time: float
    until_time: float | None = None
    ending: str = ""
    """How it ended; empty where it goes on, here or in the next stay of the same replica."""
    isolated_time: float | None = None
    """When it was taken out of traffic."""
    seen: bool = True
    """False while there is only the placement: it may never have come about."""

    def touches(self, from_time: float, until_time: float) -> bool:
        """Whether any of it lies in this time."""
        return self.from_time <= until_time and (self.until_time is None or self.until_time >= from_time)

    def named(self, policy: str) -> bool:
        """Whether this source, without its revision, has a say."""
        return any(whereabouts.unrevised(source) == policy for source in (*self.sources, *self.outside))

    def breaks(self, policy: str) -> bool:
        """Whether the place does not satisfy this source."""
        return any(whereabouts.unrevised(source) == policy for source in self.outside)


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which nobody watched, and why."""

    from_time: float
    until_time: float
    why: str

    @property
    def seconds(self) -> float:
        return self.until_time - self.from_time


@dataclass(frozen=True, slots=True)
class History:
    """Stays in the order in which they began, and gaps between the first time anybody watched and the last line."""

    stays: tuple[Stay, ...] = ()
    gaps: tuple[Gap, ...] = ()
    from_time: float | None = None
    """When a leader first knew of everybody; None where none ever did."""
    until_time: float = NO_TIME
    """Of the last line."""
    silent_seconds: float = SILENT_HEARTBEATS * ALIVE_SECONDS
    """How long after its last line a leader counts as watching."""
    published_time: float | None = None
    """When the cluster last heard of a leader; None where nobody asked it."""
    lines: tuple[Line, ...] = ()
    """What it was read from."""
    unread: tuple[Damage, ...] = ()
    """Records that say what no leader writes: nothing is believed of them."""
    head: Head | None = None
    """The last record."""

    def unwatched(self, from_time: float, until_time: float) -> tuple[Gap, ...]:
        """The gaps of this time, clipped to it; of a moment, those of the second that it begins."""
        if until_time == from_time != NO_TIME:
            until_time += MOMENT_SECONDS
        begin = until_time if self.from_time is None else min(self.from_time, until_time)
        known = [Gap(from_time, begin, "the log does not reach back to it"), *self.gaps]
        if until_time > self.until_time + self.silent_seconds:
            known.append(Gap(max(self.until_time, begin), until_time, "the log ends before it"))
        published_until_time = math.inf if self.published_time is None else self.published_time + PUBLISHED_SECONDS
        if until_time > published_until_time:
            known.append(Gap(published_until_time, until_time, "no checkpoint of the cluster answers for it"))
        clipped = (
            replace(gap, from_time=max(gap.from_time, from_time), until_time=min(gap.until_time, until_time))
            for gap in known
        )
        return tuple(gap for gap in clipped if gap.seconds > 0)


def tell(records: Iterable[Record], published_time: float | None = None) -> History:
    """The history of these records, in their order; `published_time` is when the cluster last heard of a leader."""
    found = list(records)
    lines, unread = said.read(found)
    reader = _Reader()
    for line in lines:
        reader.read(line)
    head = found[-1].head if found else None
    return replace(reader.history(), lines=lines, unread=unread, head=head, published_time=published_time)


@dataclass
class _Reader:
    """Reads a log line by line."""

    _closed: list[Stay] = field(default_factory=list)
    _open: dict[str, Stay] = field(default_factory=dict)
    """By the pod's uid."""
    _missed: dict[str, Stay] = field(default_factory=dict)
    """By uid: those that a census did not find."""
    _carried: set[str] = field(default_factory=set)
    """Of whom this epoch has said nothing yet."""
    _gaps: list[Gap] = field(default_factory=list)
    _gap_time: float | None = None
    """Since when nobody knows of everybody, until there is a census."""
    _gap_why: str = NOBODY_LED
    _begun_time: float | None = None
    _last_time: float | None = None
    """The latest of this epoch."""
    _silent_seconds: float = SILENT_HEARTBEATS * ALIVE_SECONDS

    def read(self, line: Line) -> None:
        """Take in the next line."""
        time = line.time
        if isinstance(line.said, said.Begun):
            self._begin(line.said, time)
        elif self._last_time is not None and self._gap_time is None:
            heard_time = self._lost_time(line.said, time) if isinstance(line.said, said.Lost) else time
            if heard_time > self._last_time + self._silent_seconds:
                self._gap(self._last_time, heard_time, "the leader wrote nothing")
        self._take_in(line, time)
        self._hear(time)

    def _take_in(self, line: Line, time: float) -> None:
        match line.said:
            case said.Census() as census:
                self._census(census, time)
            case said.Placed() as placed:
                self._place(placed, time)
            case said.Observed() as one:
                self._see(_stay(one.pod, one.pool, one.law, one.place, time, outside=one.outside))
            case said.Ended() as ended:
                self._close(ended.pod.uid, time, ended.why)
            case said.Refused(pod=said.Pod() as pod):
                self._refuse(pod.uid)
            case said.Removed() as removed:
                self._remove(removed, time, isolated=line.happening is Happening.ISOLATE)
            case said.Lost() as lost:
                self._lose(lost, time)

    def history(self) -> History:
        """What was read so far."""
        stays = sorted(
            (*self._closed, *self._missed.values(), *self._open.values()), key=lambda one: (one.from_time, one.pod)
        )
        last = NO_TIME if self._last_time is None else self._last_time
        if self._gap_time is not None:
            self._gap(self._gap_time, last, self._gap_why)
        # A leader that never wrote who runs watches nobody, however short it is silent.
        silent_seconds = self._silent_seconds if self._gap_time is None else 0.0
        return History(tuple(stays), tuple(self._gaps), self._begun_time, last, silent_seconds)

    def _hear(self, time: float) -> None:
        if self._last_time is not None and time < self._last_time - LATE_SECONDS:
            # The clock was set back: what lies between was told of twice, and how long it took nobody knows.
            self._gap(time, self._last_time, CLOCKS)
            self._last_time = time
        self._last_time = time if self._last_time is None else max(time, self._last_time)

    def _begin(self, begun: said.Begun, time: float) -> None:
        self._silent_seconds = SILENT_HEARTBEATS * begun.alive_seconds
        self._carried = set(self._open)
        if self._gap_time is None:
            self._gap_time = self._last_time
        if self._last_time is not None:
            self._gap(time, self._last_time, CLOCKS)
        self._last_time = time

    def _gap(self, from_time: float, until_time: float, why: str) -> None:
        if until_time > from_time:
            self._gaps.append(Gap(from_time, until_time, why))

    # --------------------------------------------------------------------------------------------------------- lines

    def _census(self, census: said.Census, time: float) -> None:
        if self._gap_time is not None:
            self._gap(self._gap_time, time, self._gap_why)
        self._gap_time, self._gap_why = None, NOBODY_LED
        self._begun_time = time if self._begun_time is None else self._begun_time
        for one in census.replicas:
            place = census.nodes.get(one.node) or said.Place(one.node)
            self._see(_stay(one.pod, one.pool, one.law, place, time, outside=one.outside))
            if one.isolated:
                self._take_out(one.pod.uid, time)
        for uid in self._carried & self._open.keys():
            self._missed[uid] = _ended(self._open.pop(uid), time, UNWATCHED)
        self._carried.clear()

    def _place(self, placed: said.Placed, time: float) -> None:
        uid = placed.pod.uid
        # A pod is bound once: an earlier placement of the same one never came about, unless it was seen there.
        if (before := self._open.pop(uid, None)) and (before.seen or before.outside):
            self._closed.append(_ended(before, time, UNWATCHED))
        if (missed := self._missed.pop(uid, None)) and (missed.seen or missed.outside):
            self._closed.append(missed)
        self._carried.discard(uid)
        if placed.chosen is not None:
            now = _stay(placed.pod, placed.pool, placed.law, placed.chosen, time)
            self._open[uid] = replace(now, seen=False)

    def _see(self, now: Stay) -> None:
        before = self._open.get(now.uid)
        self._carried.discard(now.uid)
        if before is None:
            self._open[now.uid] = now
        elif before.node != now.node:
            # It was placed there and is here, where pods never move: it was never there.
            self._open[now.uid] = replace(now, from_time=before.from_time)
        elif _same(before, now):
            self._open[now.uid] = replace(before, seen=True)
        else:
            self._closed.append(replace(before, until_time=max(now.from_time, before.from_time), seen=True))
            self._open[now.uid] = replace(now, isolated_time=before.isolated_time)

    def _refuse(self, uid: str) -> None:
        if uid in self._open and not self._open[uid].seen:
            del self._open[uid]

    def _remove(self, removed: said.Removed, time: float, *, isolated: bool) -> None:
        uid = removed.pod.uid
        if uid not in self._open:
            return
        # Whoever acts on a place that is not lawful may be a turn ahead of whoever writes down where replicas are.
        # What is said of a pod of no pool changes nothing of what is known of one that was a replica.
        if removed.place and removed.pool and removed.law:
            now = _stay(removed.pod, removed.pool, removed.law, removed.place, time, outside=removed.outside)
            self._see(now)
            # Or a turn behind, where the API server took its time: then it was outside since that was decided.
            known = self._open[uid]
            self._open[uid] = replace(known, from_time=min(known.from_time, time)) if _same(known, now) else known
        if isolated:
            self._take_out(uid, time)

    def _take_out(self, uid: str, time: float) -> None:
        """It is out of traffic, if it was not before."""
        stay = self._open[uid]
        self._open[uid] = replace(stay, isolated_time=time if stay.isolated_time is None else stay.isolated_time)

    def _lose(self, lost: said.Lost, time: float) -> None:
        # Who came and who went is not known again before the leader has told everybody anew.
        self._carried = set(self._open)
        if self._gap_time is None:
            self._gap_time = self._lost_time(lost, time)
            self._gap_why = f"{lost.entries} entries were given up: no disk took them"

    def _lost_time(self, lost: said.Lost, time: float) -> float:
        """When the first of the entries was given up; a line that does not say it means all since the line before."""
        if lost.since is not None:
            return min(lost.since.timestamp(), time)
        return time if self._last_time is None else self._last_time

    def _close(self, uid: str, time: float, ending: str) -> None:
        if (stay := self._open.pop(uid, None)) is not None:
            self._closed.append(_ended(stay, time, ending))


def _stay(
    pod: said.Pod, pool: said.Pool, law: said.Law, place: said.Place, time: float, *, outside: said.Words = ()
) -> Stay:
    sources = (*law.sources, *law.audited)
    return Stay(pool.name, str(pod), pod.uid, place.node, place.labels, sources, outside, time)


def _ended(stay: Stay, time: float, ending: str) -> Stay:
    return replace(stay, until_time=max(time, stay.from_time), ending=ending)


def _same(one: Stay, other: Stay) -> bool:
    """Whether two are one stay: the law may have another revision, and its evidence another date."""
    return _what(one) == _what(other)


def _what(one: Stay) -> tuple[object, ...]:
    names: Sequence[str] = sorted(map(whereabouts.unrevised, one.sources))
    return whereabouts.place(one.node, one.labels), names, sorted(map(whereabouts.unrevised, one.outside))
