"""The files of the decision log: one epoch per leader, appended and fsynced in batches.

Whoever needs a decision on disk before it is carried out awaits `write`; all that wait share one fsync. What could not
be written is cut off again and fails with JournalUnavailable, so the chain on disk has nothing that nobody promised.
What nobody waits for is tried again with the next batch. A disk that does not answer is one that cannot be written.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from penstock.core.decisionlog import record
from penstock.core.decisionlog.record import Entry, Happening, Head
from penstock.errors import JournalUnavailable

log = logging.getLogger(__name__)

MOST_PENDING = 10_000
"""Entries that wait for the disk; what comes beyond it and nobody waits for is given up, and the log says how many."""
MOST_IN_BATCH = 1_000
"""Entries of one append: a disk that stays full costs each try no more than to seal so many."""
DISK_SECONDS = 10.0
"""How long the disk may take for one batch."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the kernel answers where more cannot be kept: the disk is full, a quota, or a limit on files is reached."""


class FileLayer(Protocol):
    """The disk. Each call is durable once it returns, and raises OSError otherwise."""

    def begin(self, path: Path, content: bytes) -> None: ...

    def append(self, path: Path, content: bytes, offset: int) -> None: ...

    def cut(self, path: Path, size: int) -> None: ...

    def remove(self, path: Path) -> None: ...

    def names(self, directory: Path) -> list[str]: ...

    def read(self, path: Path) -> bytes: ...


class Disk:
    """Files as they are. A new one appears whole or not at all."""

    def begin(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync_directory(path.parent)

    def append(self, path: Path, content: bytes, offset: int) -> None:
        """Write behind `offset`. Raises OSError where the file ends before it: somebody cut what we had written."""
        with path.open("r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) < offset:
                raise OSError(f"{path.name} is shorter than what was written to it")
            file.truncate(offset)
            file.seek(offset)
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())

    def cut(self, path: Path, size: int) -> None:
        """Take off what lies behind `size`."""
        with path.open("r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) > size:
                file.truncate(size)
                os.fsync(file.fileno())

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def names(self, directory: Path) -> list[str]:
        """In order; none where there is no such directory yet."""
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    def read(self, path: Path) -> bytes:
        return path.read_bytes()


def _sync_directory(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@dataclass(frozen=True, slots=True)
class _Position:
    """How far the log is durable: the last line, its file, and where that ends."""

    head: Head
    path: Path
    part: int
    size: int


@dataclass(frozen=True, slots=True)
class _Pending:
    entry: Entry
    waiter: asyncio.Future[None] | None


@dataclass(frozen=True, slots=True)
class _Lost:
    """Entries that were given up, and the times of the first and the last of them."""

    entries: int
    from_time: str
    until_time: str

    def with_later(self, later: _Lost | None) -> _Lost:
        if later is None:
            return self
        return _Lost(self.entries + later.entries, self.from_time, later.until_time)


class Journal:
    """One epoch's files. `open` begins it, `run` carries out what `write` and `note` ask for, in their order.

    A file is followed by the next once it holds `file_bytes`.
    """

    def __init__(
        self,
        directory: Path,
        file_bytes: int = 64 * 2**20,
        layer: FileLayer | None = None,
        disk_seconds: float = DISK_SECONDS,
    ) -> None:
        self._directory, self._file_bytes, self._disk_seconds = directory, file_bytes, disk_seconds
        self._layer = layer or Disk()
        self._at: _Position | None = None
        self._source = self._holder = ""
        self._pending: list[_Pending] = []
        self._lost: _Lost | None = None
        """What was given up and is not told yet: as long as that is so, what comes then is given up too."""
        self._times_lost = 0
        self._hindrance = "the decision log is not open"
        """Why it is not open, until it is."""
        self._failing_since = ""
        """When the first of the tries that failed one after another was made; empty while the disk takes what comes."""
        self._hung: set[asyncio.Future[Any]] = set()
        """What the disk was asked for and has not answered, though nobody waits for it any more."""
        self._ready, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()

    @property
    def head(self) -> Head | None:
        """The last line that is durable; None before `open`."""
        return self._at.head if self._at else None

    @property
    def holder(self) -> str:
        """Who leads, as the files are named; empty before `open`."""
        return self._holder

    @property
    def times_lost(self) -> int:
        """How often the log says that entries were given up: after each, who knows it has to tell all anew."""
        return self._times_lost

    async def epochs(self) -> list[int]:
        """Those that the directory holds files of, in order. Raises JournalUnavailable."""
        found = {record.epoch_of(name) for name in await self._names()}
        return sorted(epoch for epoch in found if epoch is not None)

    async def last_head(self) -> Head | None:
        """The last line that whoever led before us left. Raises JournalUnavailable."""
        for name in reversed([name for name in await self._names() if record.epoch_of(name) is not None]):
            found = await self._on_disk(self._layer.read, self._directory / name)
            if (head := record.last_head(found)) is not None:
                return head
        return None

    def hinder(self, why: str) -> None:
        """It cannot be opened yet: whoever waits for a record is told why."""
        self._hindrance = f"the decision log does not begin: {why}"

    async def open(
        self,
        epoch: int,
        holder: str,
        source: str,
        time: str,
        *,
        checkpoint: Head | None,
        found: Head | None = None,
        pruned_below: int = 0,
    ) -> None:
        """Begin an epoch: its first line cites the last published checkpoint, and the last line that was found on the
        disk. Raises JournalUnavailable.

        `holder` is who leads, `source` the CloudEvents source of every line, `time` RFC 3339 in UTC; epochs below
        `pruned_below` count as dropped for their age.
        """
        self._source = source
        self._holder = re.sub(r"[^A-Za-z0-9._-]", "_", holder)
        data: dict[str, Any] = {
            "checkpoint": checkpoint.as_json() if checkpoint else None,
            "found": found.as_json() if found else None,
            "prunedBelow": pruned_below,
            "aliveSeconds": record.ALIVE_SECONDS,
        }
        line, head = record.seal(Entry(Happening.EPOCH, holder, time, data), Head(epoch), self._source)
        path = self._path(epoch, 1)
        await self._on_disk(self._layer.begin, path, line + b"\n")
        self._at = _Position(head, path, 1, len(line) + 1)
        self._ready.set()

    async def drop_below(self, epoch: int) -> None:
        """Remove the files of earlier epochs, never of this one. Raises JournalUnavailable.

        The last part of an epoch goes before the one before it: what a crash in between leaves is a whole beginning.
        """
        keep = min(epoch, self._at.head.epoch) if self._at else 0
        for name in reversed(await self._names()):
            found = record.epoch_of(name)
            if found is not None and found < keep:
                await self._on_disk(self._layer.remove, self._directory / name)

    async def write(self, entry: Entry) -> None:
        """Return once the entry is durable. Raises JournalUnavailable."""
        waiter = asyncio.get_running_loop().create_future()
        self._queue(_Pending(entry, waiter))
        await waiter

    def note(self, entry: Entry) -> None:
        """Write the entry with the next batch that succeeds. What comes before `open` is written behind it."""
        if self._lost is None and len(self._pending) < MOST_PENDING:
            self._queue(_Pending(entry, None))
            return
        given_up = _Lost(1, entry.time, entry.time)
        self._lost = self._lost.with_later(given_up) if self._lost else given_up
        if self._at is not None:
            self._ready.set()  # The disk may be back.

    async def run(self) -> None:
        """Carry out what is asked for, batch by batch, for ever."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            await self._commit()
            if not self._pending and self._lost is None:
                self._idle.set()

    async def settled(self) -> None:
        """Until nothing is pending any more."""
        await self._idle.wait()

    def _queue(self, one: _Pending) -> None:
        self._pending.append(one)
        self._idle.clear()
        if self._at is not None or one.waiter is not None:
            self._ready.set()

    async def _commit(self) -> None:
        """Write what is pending, as much as one batch holds, and behind the last of it what was given up.

        Where that fails whoever waits is told so, and what is only noted is the first to be written the next time.
        """
        batch, self._pending = self._pending[:MOST_IN_BATCH], self._pending[MOST_IN_BATCH:]
        entries, lost = [one.entry for one in batch], None
        if not self._pending and self._lost is not None:
            lost, self._lost = self._lost, None
            entries.append(self._told(lost, entries))
        if not entries:
            return
        try:
            self._at = await self._append(entries)
        except JournalUnavailable as error:
            log.error("%d decisions are not in the log: %s", len(batch), error)
            self._failing_since = self._failing_since or entries[-1].time
            pending = [*batch, *self._pending]
            _answer(pending, f"since {self._failing_since} {error}")
            self._pending = [one for one in pending if one.waiter is None]
            self._lost = lost.with_later(self._lost) if lost else self._lost
        else:
            self._failing_since = ""
            _answer(batch, None)
            self._times_lost += lost is not None
            if self._pending:
                self._ready.set()

    def _told(self, lost: _Lost, before: list[Entry]) -> Entry:
        data = {"entries": lost.entries, "from": lost.from_time, "until": lost.until_time}
        # No line is older than the one before it.
        return Entry(Happening.LOST, self._holder, max(lost.until_time, *(one.time for one in before[-1:])), data)

    async def _append(self, entries: list[Entry]) -> _Position:
        """The new position. Where the disk fails the old one stays true."""
        if self._at is None:
            raise JournalUnavailable(self._hindrance)
        at = await self._with_room(self._at)
        head, lines = at.head, []
        for entry in entries:
            line, head = record.seal(entry, head, self._source)
            lines.append(line + b"\n")
        content = b"".join(lines)
        try:
            await self._on_disk(self._layer.append, at.path, content, at.size)
        except JournalUnavailable:
            await self._cut(at)
            raise
        return _Position(head, at.path, at.part, at.size + len(content))

    async def _with_room(self, at: _Position) -> _Position:
        if at.size < self._file_bytes:
            return at
        path = self._path(at.head.epoch, at.part + 1)
        await self._on_disk(self._layer.begin, path, b"")
        return _Position(at.head, path, at.part + 1, 0)

    async def _cut(self, at: _Position) -> None:
        """Leave no half of a batch behind. Where even that fails, the next append begins with it."""
        try:
            await self._on_disk(self._layer.cut, at.path, at.size)
        except JournalUnavailable as error:
            log.warning("what was half written is cut off before the next line: %s", error)

    async def _names(self) -> list[str]:
        found: list[str] = await self._on_disk(self._layer.names, self._directory)
        return found

    async def _on_disk(self, act: Callable[..., Any], *arguments: object) -> Any:
        """Do it in a thread. A disk that hangs is asked nothing else until it has answered all of it, so nothing
        overtakes.
        """
        if self._hung:
            raise JournalUnavailable("the decision log cannot be written: the disk has not answered yet")
        asked = asyncio.ensure_future(asyncio.to_thread(act, *arguments))
        try:
            return await asyncio.wait_for(asyncio.shield(asked), self._disk_seconds)
        except TimeoutError:
            raise JournalUnavailable(
                f"the decision log cannot be written: the disk does not answer within {self._disk_seconds:g} s; "
                f"look at the volume of {self._directory}"
            ) from None
        except OSError as error:
            raise JournalUnavailable(f"the decision log cannot be written: {self._told_of(error)}") from error
        finally:
            if not asked.done():
                self._hung.add(asked)
                asked.add_done_callback(self._answered_late)

    def _told_of(self, error: OSError) -> str:
        if error.errno not in NO_ROOM:
            return str(error)
        remedy = f"enlarge the volume of {self._directory}, or take off it what is not the log's own"
        return f"no room is left ({error.strerror}); {remedy}: what waits goes on by itself"

    def _answered_late(self, late: asyncio.Future[Any]) -> None:
        self._hung.discard(late)
        if not late.cancelled():
            late.exception()

    def _path(self, epoch: int, part: int) -> Path:
        return self._directory / record.file_name(epoch, part, self._holder)


def _answer(batch: list[_Pending], problem: str | None) -> None:
    """Tell whoever waits that it is done, or why not."""
    for one in batch:
        if one.waiter is None or one.waiter.done():
            continue
        if problem is None:
            one.waiter.set_result(None)
        else:
            one.waiter.set_exception(JournalUnavailable(problem))
