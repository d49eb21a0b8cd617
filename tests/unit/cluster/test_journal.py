"""A decision that somebody waited for is on disk; one that could not be written leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.cluster import journal as journal_module
from penstock.cluster.journal import Disk, Journal
from penstock.core.decisionlog.chain import Reading, read
from penstock.core.decisionlog.checkpoints import Checkpoints
from penstock.core.decisionlog.record import Entry, Happening, Head
from penstock.errors import JournalUnavailable

TIME = "2026-11-21T12:00:00Z"
SOURCE = "//penstock.dev/clusters/x/namespaces/penstock-system"


class CountingDisk(Disk):
    """The real disk, with a count of appends and, when told, no room behind so many bytes."""

    def __init__(self) -> None:
        self.appends = 0
        self.room: int | None = None
        self.answer = errno.ENOSPC
        self.most = 0
        """Lines of the largest append."""

    def append(self, path: Path, content: bytes, offset: int) -> None:
        self.appends += 1
        self.most = max(self.most, content.count(b"\n"))
        if self.room is not None and len(content) > self.room:
            super().append(path, content[: self.room], offset)
            raise OSError(self.answer, os.strerror(self.answer))
        super().append(path, content, offset)


def entry(number: int) -> Entry:
    return Entry(Happening.PLACE, f"bank/llama-{number}", TIME, {"node": f"gpu-{number}"})


@contextlib.asynccontextmanager
async def opened(directory: Path, disk: Disk, epoch: int = 3, file_bytes: int = 2**20) -> AsyncIterator[Journal]:
    journal = Journal(directory, file_bytes, disk)
    await journal.open(epoch, f"operator-{epoch}", SOURCE, TIME, checkpoint=None)
    running = asyncio.create_task(journal.run())
    try:
        yield journal
        await journal.settled()
    finally:
        running.cancel()


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def reading(directory: Path, *checkpoints: Head, pruned_below: int = 0) -> Reading:
    contents = [(path.name, path.read_bytes()) for path in files(directory)]
    return read(contents, Checkpoints(checkpoints, {one.epoch: TIME for one in checkpoints}, pruned_below))


def subjects(found: Reading) -> list[str]:
    return [one.subject for one in found.records if one.happening is not Happening.EPOCH]


async def test_entries_stand_in_the_order_in_which_they_were_asked_for_and_share_their_fsync(tmp_path: Path) -> None:
    disk = CountingDisk()
    async with opened(tmp_path, disk) as journal:
        await asyncio.gather(*(journal.write(entry(number)) for number in range(200)))
        assert journal.head is not None
        found = reading(tmp_path, journal.head)
    assert (found.damage, found.notes) == ([], [])
    assert subjects(found) == [f"bank/llama-{number}" for number in range(200)]
    assert disk.appends <= 3


async def test_what_nobody_waits_for_is_written_with_the_next_batch(tmp_path: Path) -> None:
    async with opened(tmp_path, Disk()) as journal:
        journal.note(entry(1))
        await journal.write(entry(2))
    assert subjects(reading(tmp_path)) == ["bank/llama-1", "bank/llama-2"]


async def test_a_full_disk_fails_who_waits_leaves_no_half_line_and_is_tried_again(tmp_path: Path) -> None:
    disk = CountingDisk()
    async with opened(tmp_path, disk) as journal:
        await journal.write(entry(1))
        before = journal.head
        disk.room = 40
        failed = await asyncio.gather(*(journal.write(entry(number)) for number in (2, 3)), return_exceptions=True)
        assert [type(one) for one in failed] == [JournalUnavailable, JournalUnavailable]
        assert "No space left" in str(failed[0])
        assert journal.head == before
        assert reading(tmp_path).notes == []
        disk.room = None
        await journal.write(entry(4))
    found = reading(tmp_path)
    assert (found.damage, found.notes, subjects(found)) == ([], [], ["bank/llama-1", "bank/llama-4"])


@pytest.mark.parametrize("number", (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
async def test_who_waits_for_a_full_disk_is_told_since_when_what_to_do_and_that_no_more_is_needed(
    tmp_path: Path, number: int
) -> None:
    disk = CountingDisk()
    disk.answer = number
    async with opened(tmp_path, disk) as journal:
        disk.room = 40
        told = []
        for minute in (1, 2):
            with pytest.raises(JournalUnavailable) as failed:
                await journal.write(replace(entry(minute), time=f"2026-11-21T12:0{minute}:00Z"))
            told.append(str(failed.value))
        disk.room = None
        await journal.write(entry(3))
        disk.room = 0
        with pytest.raises(JournalUnavailable, match=r"^since 2026-11-21T12:04:00Z"):
            await journal.write(replace(entry(4), time="2026-11-21T12:04:00Z"))
        disk.room = None
    what = f"the decision log cannot be written: no room is left ({os.strerror(number)})"
    remedy = f"enlarge the volume of {tmp_path}, or take off it what is not the log's own: what waits goes on by itself"
    assert told == [f"since 2026-11-21T12:01:00Z {what}; {remedy}"] * 2


async def test_what_nobody_waits_for_is_written_once_the_disk_has_room_again(tmp_path: Path) -> None:
    disk = CountingDisk()
    async with opened(tmp_path, disk) as journal:
        disk.room = 40
        journal.note(entry(1))
        with pytest.raises(JournalUnavailable):
            await journal.write(entry(2))
        disk.room = None
        await journal.write(entry(3))
    assert subjects(reading(tmp_path)) == ["bank/llama-1", "bank/llama-3"]


async def test_what_had_to_be_given_up_is_counted_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MOST_PENDING", 3)
    async with opened(tmp_path, Disk()) as journal:
        for number in range(5):
            journal.note(entry(number))
        await journal.settled()
    lost = [one for one in reading(tmp_path).records if one.happening is Happening.LOST]
    assert [one.data for one in lost] == [{"entries": 2, "from": TIME, "until": TIME}]


async def test_a_disk_that_is_back_is_written_again_though_nobody_waits_and_what_was_given_up_is_told_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MOST_PENDING", 3)
    disk = CountingDisk()
    async with opened(tmp_path, disk) as journal:
        disk.room = 0
        for number in range(3):
            journal.note(entry(number))
        with pytest.raises(JournalUnavailable):
            await journal.write(entry(9))
        for minute in (1, 2):
            journal.note(replace(entry(3), time=f"2026-11-21T12:0{minute}:00Z"))
        with pytest.raises(JournalUnavailable):
            await journal.write(entry(9))
        disk.room = None
        journal.note(replace(entry(4), time="2026-11-21T12:03:00Z"))
        await journal.settled()
        assert journal.times_lost == 1
        journal.note(entry(5))
    found = reading(tmp_path)
    assert subjects(found) == ["bank/llama-0", "bank/llama-1", "bank/llama-2", "operator-3", "bank/llama-5"]
    lost = found.records[4]
    assert (lost.time, lost.data) == (
        "2026-11-21T12:03:00Z",
        {"entries": 3, "from": "2026-11-21T12:01:00Z", "until": "2026-11-21T12:03:00Z"},
    )


async def test_a_try_on_a_full_disk_seals_no_more_than_one_batch_and_fails_whoever_waits_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MOST_IN_BATCH", 4)
    disk = CountingDisk()
    async with opened(tmp_path, disk) as journal:
        disk.room = 0
        for number in range(10):
            journal.note(entry(number))
        with pytest.raises(JournalUnavailable):
            await journal.write(entry(10))
        assert disk.most == 4
        disk.room = None
        await journal.write(entry(11))
    assert subjects(reading(tmp_path)) == [f"bank/llama-{number}" for number in (*range(10), 11)]
    assert disk.most == 4


class HungDisk(Disk):
    """A disk that answers only once it is let go."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), threading.Event()
        self.hangs = False

    def append(self, path: Path, content: bytes, offset: int) -> None:
        if self.hangs:
            self.asked.set()
            self.go.wait()
        super().append(path, content, offset)


async def test_a_disk_that_hangs_fails_who_waits_and_nothing_overtakes_what_it_still_does(tmp_path: Path) -> None:
    disk = HungDisk()
    journal = Journal(tmp_path, layer=disk, disk_seconds=0.05)
    await journal.open(3, "operator-3", SOURCE, TIME, checkpoint=None)
    running = asyncio.create_task(journal.run())
    disk.hangs = True
    with pytest.raises(JournalUnavailable, match=r"does not answer within 0\.05 s"):
        await journal.write(entry(1))
    with pytest.raises(JournalUnavailable, match="has not answered yet"):
        await journal.write(entry(2))
    disk.hangs = False
    disk.go.set()
    while True:
        with contextlib.suppress(JournalUnavailable):
            await journal.write(entry(3))
            break
    running.cancel()
    found = reading(tmp_path)
    assert (found.damage, subjects(found)) == ([], ["bank/llama-3"])


class TwiceHungDisk(HungDisk):
    """One whose listing hangs too, and is let go by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = threading.Event()

    def names(self, directory: Path) -> list[str]:
        if self.hangs:
            self.listed.wait()
        return super().names(directory)


async def test_of_two_calls_that_hang_the_answer_to_the_younger_lets_nothing_overtake_the_older(tmp_path: Path) -> None:
    disk = TwiceHungDisk()
    journal = Journal(tmp_path, layer=disk, disk_seconds=0.05)
    await journal.open(3, "operator-3", SOURCE, TIME, checkpoint=None)
    running = asyncio.create_task(journal.run())
    disk.hangs = True
    hung = await asyncio.gather(journal.write(entry(1)), journal.drop_below(3), return_exceptions=True)
    assert [type(one) for one in hung] == [JournalUnavailable, JournalUnavailable]
    disk.hangs = False
    disk.listed.set()
    for _ in range(20):
        await asyncio.sleep(0.005)
        with pytest.raises(JournalUnavailable, match="has not answered yet"):
            await journal.write(entry(2))
    disk.go.set()
    running.cancel()


async def test_what_nobody_waits_for_any_more_is_not_overtaken_either(tmp_path: Path) -> None:
    disk = HungDisk()
    journal = Journal(tmp_path, layer=disk)
    await journal.open(3, "operator-3", SOURCE, TIME, checkpoint=None)
    disk.hangs = True
    running = asyncio.create_task(journal.run())
    journal.note(entry(1))
    await asyncio.to_thread(disk.asked.wait)
    running.cancel()
    await asyncio.wait([running])
    with pytest.raises(JournalUnavailable, match="has not answered yet"):
        await journal.drop_below(3)
    disk.go.set()


async def test_a_directory_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    journal = Journal(blocked / "log")
    with pytest.raises(JournalUnavailable, match="cannot be written"):
        await journal.open(3, "operator", SOURCE, TIME, checkpoint=None)


async def test_nothing_is_durable_before_the_epoch_begins(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    running = asyncio.create_task(journal.run())
    with pytest.raises(JournalUnavailable, match="not open"):
        await journal.write(entry(1))
    running.cancel()


async def test_what_was_cut_by_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    async with opened(tmp_path, Disk()) as journal:
        await journal.write(entry(1))
        (file,) = files(tmp_path)
        os.truncate(file, 10)
        with pytest.raises(JournalUnavailable, match="shorter"):
            await journal.write(entry(2))


async def test_a_full_file_is_followed_by_the_next_and_the_chain_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path, Disk(), file_bytes=600) as journal:
        for number in range(6):
            await journal.write(entry(number))
        assert journal.head is not None
        found = reading(tmp_path, journal.head)
    assert found.damage == []
    assert len(subjects(found)) == 6
    assert len(files(tmp_path)) > 2


async def test_the_next_epoch_cites_the_checkpoint_and_old_epochs_go_but_never_the_current(tmp_path: Path) -> None:
    async with opened(tmp_path, Disk(), epoch=3) as first:
        await first.write(entry(1))
    second = Journal(tmp_path)
    await second.open(5, "operator-5", SOURCE, TIME, checkpoint=first.head, pruned_below=4)
    assert reading(tmp_path).damage == []
    assert await second.epochs() == [3, 5]
    await second.drop_below(99)
    assert await second.epochs() == [5]
    assert reading(tmp_path, pruned_below=4).damage == []


class FlakyDisk(Disk):
    """One that removes a single file."""

    removed = 0

    def remove(self, path: Path) -> None:
        self.removed += 1
        if self.removed > 1:
            raise OSError(errno.EIO, "Input/output error")
        super().remove(path)


async def test_what_is_left_of_an_epoch_that_was_not_dropped_as_a_whole_is_a_whole_beginning(tmp_path: Path) -> None:
    async with opened(tmp_path, Disk(), epoch=3, file_bytes=600) as first:
        for number in range(6):
            await first.write(entry(number))
    second = Journal(tmp_path, layer=FlakyDisk())
    await second.open(5, "operator-5", SOURCE, TIME, checkpoint=first.head, found=first.head, pruned_below=4)
    with pytest.raises(JournalUnavailable, match="Input/output"):
        await second.drop_below(5)
    assert second.head is not None
    assert reading(tmp_path, second.head, pruned_below=4).damage == []


CHILD = """
import asyncio, os, sys
from pathlib import Path
from penstock.cluster import journal as journal_module
from penstock.cluster.journal import Disk, Journal
from penstock.core.decisionlog.record import Entry, Happening

class Slow(Disk):
    def append(self, path, content, offset):
        if b"torn" in content:
            with path.open("ab") as file:
                file.write(content[:60])
            print("written", flush=True)
            sys.stdin.read()
        super().append(path, content, offset)

async def main():
    journal = Journal(Path(sys.argv[1]), layer=Slow())
    await journal.open(3, "operator", "//x", "2026-11-21T12:00:00Z", checkpoint=None)
    task = asyncio.create_task(journal.run())
    await journal.write(Entry(Happening.PLACE, "bank/safe", "2026-11-21T12:00:00Z"))
    await journal.write(Entry(Happening.PLACE, "bank/torn", "2026-11-21T12:00:00Z"))

asyncio.run(main())
"""


def test_a_process_killed_between_write_and_fsync_leaves_what_was_promised_and_a_torn_tail(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    found = reading(tmp_path)
    assert (found.damage, subjects(found)) == ([], ["bank/safe"])
    assert len(found.notes) == 1
    assert "torn" in found.notes[0]


async def test_the_first_line_names_who_leads_and_what_it_cites(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.open(7, "a/b", SOURCE, TIME, checkpoint=Head(6, 4, "sha256:x"), pruned_below=2)
    (file,) = files(tmp_path)
    assert file.name == "0000000007-0001-a_b.jsonl"
    line = json.loads(file.read_text())
    cited = {"epoch": 6, "sequence": 4, "digest": "sha256:x"}
    assert line["data"] == {"checkpoint": cited, "found": None, "prunedBelow": 2, "aliveSeconds": 60.0}
