"""What the cluster keeps of the log: as much as a ConfigMap holds, and nothing within its retention forgotten."""

from __future__ import annotations

import pytest

from penstock.core.decisionlog.checkpoints import MOST_HEADS, Checkpoints, parse, write
from penstock.core.decisionlog.record import Head

TIME = "2026-11-21T12:00:00Z"


def test_checkpoints_keep_the_last_head_of_each_epoch_and_are_read_as_they_were_written() -> None:
    kept = Checkpoints().with_head(Head(3, 1, "a"), "2026-01-01T00:00:00Z").with_head(Head(3, 9, "b"), "2026-01-02")
    kept = kept.with_head(Head(5, 0, "c"), "2026-08-01T00:00:00Z")
    assert kept.heads == (Head(3, 9, "b"), Head(5, 0, "c"))
    assert kept.last == Head(5, 0, "c")
    assert parse(write(kept)) == kept


def test_the_last_leader_was_heard_of_when_it_published_or_began() -> None:
    assert Checkpoints().heard_time is None
    kept = Checkpoints().with_head(Head(3, 1, "a"), "1970-01-01T00:01:00Z")
    assert (kept.heard_time, kept.claimed(4, "1970-01-01T00:02:00Z").heard_time) == (60.0, 120.0)
    assert kept.with_head(Head(4, 1, "a"), "never").heard_time == 0.0


def test_old_epochs_are_dropped_but_never_the_last() -> None:
    kept = Checkpoints().with_head(Head(3, 1, "a"), "2026-01-01").with_head(Head(4, 1, "b"), "2026-03-01")
    assert kept.without_epochs_before("2026-02-01") == Checkpoints((Head(4, 1, "b"),), {4: "2026-03-01"}, 4)
    assert kept.without_epochs_before("2027-01-01").heads == (Head(4, 1, "b"),)
    assert kept.without_epochs_before("2025-01-01") == kept


def led(number: int) -> Checkpoints:
    """After so many leaders."""
    found = Checkpoints()
    for epoch in range(number):
        found = found.with_head(Head(epoch, 7, "sha256:" + "f" * 64), TIME)
    return found


def test_of_more_epochs_than_a_configmap_holds_the_earlier_ones_keep_their_number() -> None:
    found = led(MOST_HEADS + 500)
    assert (len(found.heads), found.folded) == (MOST_HEADS, ((0, 499),))
    assert sum(len(value) for value in write(found).values()) < 2**18
    assert parse(write(found)) == found
    assert found.times.keys() == {one.epoch for one in found.heads}


def test_earlier_epochs_are_dropped_for_their_age_as_the_others_are() -> None:
    found = led(MOST_HEADS + 500)
    old = Checkpoints(found.heads, {**found.times, 600: "2025-01-01"}, 0, found.folded)
    assert old.without_epochs_before("2026-01-01").folded == ()
    assert old.without_epochs_before("2024-01-01").folded == ((0, 499),)


def test_epochs_that_never_were_stay_out_of_the_numbers() -> None:
    found = Checkpoints(folded=((3, 4),))
    for epoch in (6, 9, *range(20, 20 + MOST_HEADS)):
        found = found.with_head(Head(epoch, 0, "a"), TIME)
    assert found.folded == ((3, 4), (6, 6), (9, 9))
    assert write(found)["earlierEpochs"] == "3-4,6-6,9-9"


def test_an_epoch_is_claimed_before_its_first_line_and_cited_only_where_there_is_no_line() -> None:
    found = Checkpoints().claimed(3, TIME)
    assert (found.last, found.is_over(2), found.is_over(3)) == (Head(3), True, False)
    found = found.with_head(Head(3, 4, "a"), TIME).claimed(4, TIME)
    assert found.last == Head(3, 4, "a")
    assert found.without_claim(4).heads == (Head(3, 4, "a"),)
    assert found.claimed(5, TIME).heads == (Head(3, 4, "a"), Head(5))


@pytest.mark.parametrize("folded", ("0-99999999999", "0-99999999999,99999999999-0", "a-b", "3"))
def test_numbers_that_nobody_can_have_written_are_no_checkpoints(folded: str) -> None:
    with pytest.raises(ValueError, match="no checkpoints"):
        parse({**write(Checkpoints()), "earlierEpochs": folded})


@pytest.mark.parametrize(
    "heads", ('[{"epoch":9e999,"sequence":0,"digest":"","time":""}]', "[1]", "null", "[" * 100_000)
)
def test_heads_that_nobody_can_have_written_are_no_checkpoints(heads: str) -> None:
    with pytest.raises(ValueError, match="no checkpoints"):
        parse({**write(Checkpoints()), "heads": heads})
