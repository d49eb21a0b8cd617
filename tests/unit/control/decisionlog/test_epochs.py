"""A leader begins an epoch that cites the last checkpoint, publishes its own, and drops what is old."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.cluster.journal import Disk, Journal
from penstock.control.decisionlog import epochs as epochs_module
from penstock.control.decisionlog.epochs import Epochs
from penstock.core.decisionlog import checkpoints
from penstock.core.decisionlog.chain import read
from penstock.core.decisionlog.checkpoints import Checkpoints, parse
from penstock.core.decisionlog.record import Entry, Happening, last_head, seal
from penstock.errors import ApiError, JournalUnavailable, NotFound

DAY_SECONDS = 86_400.0
PLACE = Entry(Happening.PLACE, "bank/llama-1", "2026-11-21T12:00:00Z")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs_module, "RETRY_SECONDS", 0.01)


class Cluster:
    """The API server with one ConfigMap."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.refuses = False
        self.now_time = 1_800_000_000.0
        self.written = asyncio.Event()

    async def get(self, _: str) -> bytes:
        if self.found is None:
            raise NotFound(404, "NotFound", "")
        return json.dumps(self.found).encode()

    async def create(self, _: str, obj: Mapping[str, Any]) -> bytes:
        return await self.replace(_, obj)

    async def replace(self, _: str, obj: Mapping[str, Any]) -> bytes:
        if self.refuses:
            raise ApiError(500, "InternalError", "no")
        self.found = dict(obj)
        self.written.set()
        return b"{}"

    @property
    def checkpoints(self) -> Checkpoints:
        assert self.found is not None
        return parse(self.found["data"])

    async def lead(self, directory: Path, transitions: int, placements: int = 1, *, dies: bool = False) -> None:
        """One leadership from its beginning to its end, or to its death before anything was published."""
        client: Any = self
        journal = Journal(directory)
        epochs = Epochs(client, journal, "penstock-system", lambda: "c", 30 * DAY_SECONDS, lambda: self.now_time)
        running = asyncio.create_task(journal.run())
        await epochs.begin(f"operator/{transitions}")
        for _ in range(placements):
            await journal.write(PLACE)
        if not dies:
            await epochs.end(self.now_time)
        running.cancel()

    def damage(self, directory: Path) -> list[str]:
        return [str(one) for one in read(contents(directory), self.checkpoints).damage]


def contents(directory: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in directory.iterdir()]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_each_leader_cites_the_one_before_and_its_own_head_is_published_at_the_end(tmp_path: Path) -> None:
    cluster = Cluster()
    for transitions in (4, 5, 7):
        await cluster.lead(tmp_path, transitions, placements=transitions)
    assert [(one.epoch, one.sequence) for one in cluster.checkpoints.heads] == [
        (4, 5),
        (5, 6),
        (7, 8),
    ]  # the last line says when watching ended
    assert cluster.damage(tmp_path) == []


async def test_a_lease_that_counts_from_0_again_makes_no_epoch_twice(tmp_path: Path) -> None:
    cluster = Cluster()
    await cluster.lead(tmp_path, 4)
    await cluster.lead(tmp_path, 0)
    assert names(tmp_path) == ["0000000004-0001-operator.jsonl", "0000000005-0001-operator.jsonl"]
    assert cluster.damage(tmp_path) == []


async def test_a_leader_that_dies_before_its_first_checkpoint_leaves_no_false_alarm(tmp_path: Path) -> None:
    cluster = Cluster()
    await cluster.lead(tmp_path, 0, dies=True)
    await cluster.lead(tmp_path, 1)
    assert cluster.damage(tmp_path) == []


async def test_a_checkpoint_that_was_taken_away_is_damage(tmp_path: Path) -> None:
    cluster = Cluster()
    await cluster.lead(tmp_path, 1)
    cluster.found = None
    await cluster.lead(tmp_path, 2)
    assert cluster.damage(tmp_path) == ["epoch 2:1: cites no checkpoint, and is not the first epoch"]


class SlowDisk(Disk):
    """One that answers to the first file that is begun only once that is given up."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), threading.Event()

    def begin(self, path: Path, content: bytes) -> None:
        self.asked.set()
        self.go.wait()
        super().begin(path, content)


async def until_it_hangs(journal: Journal) -> None:
    with contextlib.suppress(JournalUnavailable):
        while True:
            await journal.epochs()


async def test_an_epoch_that_the_disk_began_too_late_is_no_damage(tmp_path: Path) -> None:
    cluster, disk = Cluster(), SlowDisk()
    client: Any = cluster
    journal = Journal(tmp_path, layer=disk, disk_seconds=0.05)
    epochs = Epochs(client, journal, "penstock-system", lambda: "c", DAY_SECONDS, lambda: cluster.now_time)
    running = asyncio.create_task(journal.run())
    beginning = asyncio.create_task(epochs.begin("operator/0"))
    await asyncio.to_thread(disk.asked.wait)
    await until_it_hangs(journal)
    disk.go.set()
    await beginning
    await journal.write(PLACE)
    await epochs.end(cluster.now_time)
    running.cancel()
    assert names(tmp_path) == ["0000000000-0001-operator.jsonl", "0000000001-0001-operator.jsonl"]
    assert cluster.damage(tmp_path) == []


async def test_epochs_that_ended_long_ago_are_dropped_and_not_missed(tmp_path: Path) -> None:
    cluster = Cluster()
    await cluster.lead(tmp_path, 1)
    cluster.now_time += 20 * DAY_SECONDS
    await cluster.lead(tmp_path, 2)
    cluster.now_time += 20 * DAY_SECONDS
    await cluster.lead(tmp_path, 3)
    assert names(tmp_path) == ["0000000002-0001-operator.jsonl", "0000000003-0001-operator.jsonl"]
    assert cluster.checkpoints.pruned_below == 2
    assert cluster.damage(tmp_path) == []


async def test_lines_behind_the_last_checkpoint_are_guarded_once_the_next_leader_has_begun(tmp_path: Path) -> None:
    cluster = Cluster()
    await cluster.lead(tmp_path, 1)
    await cluster.lead(tmp_path, 2, placements=5, dies=True)
    await cluster.lead(tmp_path, 3)
    killed = tmp_path / "0000000002-0001-operator.jsonl"
    whole = killed.read_bytes().splitlines(keepends=True)
    killed.write_bytes(b"".join(whole[:-2]))
    assert cluster.damage(tmp_path) == ["epoch 2:6: is gone: the epoch ends before it, and epoch 3 cites it"]
    killed.write_bytes(b"".join(whole))
    assert cluster.damage(tmp_path) == []


async def test_lines_that_are_added_behind_what_the_next_leader_found_are_told(tmp_path: Path) -> None:
    cluster = Cluster()
    await cluster.lead(tmp_path, 1)
    await cluster.lead(tmp_path, 2)
    ended = tmp_path / "0000000001-0001-operator.jsonl"
    head = last_head(ended.read_bytes())
    assert head is not None
    ended.write_bytes(ended.read_bytes() + seal(PLACE, head, "//x")[0] + b"\n")
    found = read(contents(tmp_path), cluster.checkpoints)
    assert found.damage == []
    assert ["goes on behind line 3, the last when epoch 2 began" in note for note in found.notes] == [True]
    assert [one.head.sequence for one in found.records if one.head.epoch == 1] == [0, 1, 2], "and is not counted"


async def test_a_leader_that_was_replaced_publishes_nothing_more(tmp_path: Path) -> None:
    cluster = Cluster()
    client: Any = cluster
    journal = Journal(tmp_path)
    deposed = Epochs(client, journal, "penstock-system", lambda: "c", DAY_SECONDS, lambda: cluster.now_time)
    running = asyncio.create_task(journal.run())
    await deposed.begin("operator/1")
    await cluster.lead(tmp_path, 2)
    before = cluster.checkpoints
    await journal.write(PLACE)
    await deposed.end(cluster.now_time)
    running.cancel()
    assert cluster.checkpoints == before


async def test_a_leader_in_office_drops_what_has_become_old_and_says_so_in_the_log(tmp_path: Path) -> None:
    cluster = Cluster()
    await cluster.lead(tmp_path, 1)
    client: Any = cluster
    journal = Journal(tmp_path)
    retention_seconds = 30 * DAY_SECONDS
    epochs = Epochs(client, journal, "penstock-system", lambda: "c", retention_seconds, lambda: cluster.now_time)
    running = asyncio.create_task(journal.run())
    await epochs.begin("operator/2")
    assert len(names(tmp_path)) == 2
    cluster.now_time += 40 * DAY_SECONDS
    await epochs.end(cluster.now_time)
    running.cancel()
    assert names(tmp_path) == ["0000000002-0001-operator.jsonl"]
    assert cluster.damage(tmp_path) == []
    assert [str(one) for one in read(contents(tmp_path)).damage] == []


async def test_the_files_of_an_epoch_of_which_only_the_number_is_kept_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MOST_HEADS", 2)
    cluster = Cluster()
    for transitions in range(5):
        await cluster.lead(tmp_path, transitions)
    assert (len(cluster.checkpoints.heads), cluster.checkpoints.folded) == (2, ((0, 2),))
    assert cluster.damage(tmp_path) == []
    for path in (tmp_path / name for name in names(tmp_path)[:2]):
        path.unlink()
    assert "epoch 0: its files are gone; the cluster has kept its number" in cluster.damage(tmp_path)
    assert "epoch 1: its files are gone; epoch 2 cites its line 3" in cluster.damage(tmp_path)


async def test_a_cluster_that_does_not_answer_or_a_full_disk_costs_no_epoch_number(tmp_path: Path) -> None:
    cluster = Cluster()
    client: Any = cluster
    journal = Journal(tmp_path / "blocked" / "log")
    (tmp_path / "blocked").write_text("no directory")
    epochs = Epochs(client, journal, "penstock-system", lambda: "c", DAY_SECONDS, lambda: cluster.now_time)
    beginning = asyncio.create_task(epochs.begin("operator/7"))
    await cluster.written.wait()
    (tmp_path / "blocked").unlink()
    await beginning
    assert journal.head is not None
    assert journal.head.epoch == 7


async def test_who_waits_for_a_record_while_no_epoch_begins_is_told_why(tmp_path: Path) -> None:
    cluster = Cluster()
    client: Any = cluster
    journal = Journal(tmp_path / "log")
    (tmp_path / "log").write_text("no directory")
    epochs = Epochs(client, journal, "penstock-system", lambda: "c", DAY_SECONDS, lambda: cluster.now_time)
    tasks = [asyncio.create_task(journal.run()), asyncio.create_task(epochs.begin("operator/7"))]
    told = ""
    async with asyncio.timeout(10):
        while "does not begin" not in told:
            with pytest.raises(JournalUnavailable) as failed:
                await journal.write(PLACE)
            told = str(failed.value)
    for task in tasks:
        task.cancel()
    assert told.startswith(f"since {PLACE.time} the decision log does not begin: the decision log cannot be written: ")
