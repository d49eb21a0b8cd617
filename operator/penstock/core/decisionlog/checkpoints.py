"""What the cluster keeps of the decision log: the last head of each epoch that was published, and when.

A ConfigMap holds a mebibyte, so only the latest heads are kept one by one; of those before them, the numbers. Nothing
is lost by that: each epoch begins with the hash of the last line before it, so the oldest head that is kept answers for
every line of every epoch before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from penstock.core.decisionlog.record import ODD, Head

MOST_HEADS = 1_000
"""About 150 KiB."""

Ranges = tuple[tuple[int, int], ...]
"""First and last number of each run of numbers, both within, in order."""
MOST_FOLDED = 10_000_000

_COMPACT = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The heads in the order of their epochs."""

    heads: tuple[Head, ...] = ()
    times: Mapping[int, str] = field(default_factory=dict)
    """By epoch: RFC 3339, UTC."""
    pruned_below: int = 0
    """Epochs below it were dropped for their age."""
    folded: Ranges = ()
    """Epochs that there were, and of which no head is kept any more."""

    @property
    def last(self) -> Head | None:
        """The last head that stands for a line; without one, the claim of an epoch that may have begun."""
        written = (one for one in reversed(self.heads) if one.sequence >= 0)
        return next(written, self.heads[-1] if self.heads else None)

    @property
    def heard_time(self) -> float | None:
        """When the last leader was last heard of, Unix time; None where none ever was, 0 for what is no time."""
        if not self.heads:
            return None
        try:
            return datetime.fromisoformat(self.times[self.heads[-1].epoch]).timestamp()
        except ODD:
            return 0.0

    @property
    def epochs(self) -> Iterator[int]:
        """Those of which no head is kept any more."""
        return (epoch for first, last in self.folded for epoch in range(first, last + 1))

    def claimed(self, epoch: int, time: str) -> Checkpoints:
        """With an epoch that begins now. Earlier claims of which nothing was published since say nothing more."""
        return replace(self, heads=tuple(one for one in self.heads if one.sequence >= 0)).with_head(Head(epoch), time)

    def without_claim(self, epoch: int) -> Checkpoints:
        """Without an epoch of which no line was published."""
        return replace(self, heads=tuple(one for one in self.heads if one != Head(epoch)))

    def is_over(self, epoch: int) -> bool:
        """Whether another leader began an epoch after this one."""
        return any(one.epoch > epoch for one in self.heads)

    def with_head(self, head: Head, time: str) -> Checkpoints:
        """With this head in place of what was known of its epoch."""
        heads = sorted((*(one for one in self.heads if one.epoch != head.epoch), head), key=lambda one: one.epoch)
        folded = [one.epoch for one in heads[:-MOST_HEADS] if one.sequence >= 0]
        kept = tuple(heads[-MOST_HEADS:])
        times = {**self.times, head.epoch: time}
        return Checkpoints(kept, _of(kept, times), self.pruned_below, _ranges((*self.epochs, *folded)))

    def without_epochs_before(self, time: str) -> Checkpoints:
        """Without epochs of which the last was heard before `time` (RFC 3339, UTC, as ours are), the latest kept."""
        old = [one.epoch for one in self.heads[:-1] if self.times[one.epoch] < time]
        below = max((*(epoch + 1 for epoch in old), self.pruned_below))
        kept = tuple(one for one in self.heads if one.epoch >= below)
        folded = _ranges(epoch for epoch in self.epochs if epoch >= below)
        return Checkpoints(kept, _of(kept, self.times), below, folded)


def write(checkpoints: Checkpoints) -> dict[str, str]:
    """The data of the ConfigMap."""
    heads = [{**one.as_json(), "time": checkpoints.times[one.epoch]} for one in checkpoints.heads]
    folded = ",".join(f"{first}-{last}" for first, last in checkpoints.folded)
    return {"heads": _COMPACT.encode(heads), "prunedBelow": str(checkpoints.pruned_below), "earlierEpochs": folded}


def parse(data: Mapping[str, str]) -> Checkpoints:
    """What `write` wrote. Raises ValueError where that is something else."""
    try:
        return _parse(data)
    except ODD as error:
        raise ValueError(f"no checkpoints: {error!r}") from error


def _parse(data: Mapping[str, str]) -> Checkpoints:
    raw = json.loads(data["heads"])
    heads = tuple(Head(int(one["epoch"]), int(one["sequence"]), str(one["digest"])) for one in raw)
    times = {int(one["epoch"]): str(one["time"]) for one in raw}
    runs = (one.partition("-") for one in data.get("earlierEpochs", "").split(",") if one)
    folded = tuple((int(first), int(last)) for first, _, last in runs)
    if any(last < first for first, last in folded) or sum(last - first for first, last in folded) > MOST_FOLDED:
        raise ValueError("more epochs than any cluster can have had")
    ordered = tuple(sorted(heads, key=lambda one: one.epoch))
    return Checkpoints(ordered, times, int(data["prunedBelow"]), folded)


def _of(heads: Iterable[Head], times: Mapping[int, str]) -> dict[int, str]:
    return {one.epoch: times[one.epoch] for one in heads}


def _ranges(numbers: Iterable[int]) -> Ranges:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number <= found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
