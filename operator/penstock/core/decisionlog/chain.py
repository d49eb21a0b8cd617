"""The decision log read back: whether each line follows the one before it, and whether what others cite is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.core.decisionlog.checkpoints import Checkpoints
from penstock.core.decisionlog.record import ODD, Happening, Head, Record, epoch_of, lines, parse

NO_CHECKPOINTS = Checkpoints()


@dataclass(frozen=True, slots=True)
class Damage:
    """Where the log is not what was written. `line` counts from 1; 0 is the whole file."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.problem}"


@dataclass
class Reading:
    """What a log says: its records, the damage, and what is worth a word and no damage."""

    records: list[Record] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(files: Iterable[tuple[str, bytes]], checkpoints: Checkpoints = NO_CHECKPOINTS) -> Reading:
    """Check a whole log: the chain of each epoch, what each epoch cites, and the checkpoints kept elsewhere.

    `files` are names and contents; epochs below what the checkpoints, or a leader in its own lines, say were dropped
    for their age are not missed.
    """
    found, epochs = Reading(), _by_epoch(files)
    for epoch, parts in sorted(epochs.items()):
        _read_epoch(epoch, parts, found)
    said_below = max((0, *(_pruned_below(one) for one in found.records)))
    known = _Known(
        digests={(one.head.epoch, one.head.sequence): one.head.digest for one in found.records},
        epochs=frozenset(epochs),
        # What the cluster still keeps, no line of a file excuses: who holds the volume alone could write that line.
        pruned_below=checkpoints.pruned_below if checkpoints.heads else said_below,
    )
    for one in found.records:
        if one.happening is Happening.EPOCH:
            found.damage += known.broken_citations(one)
            found.notes += known.unforeseen(one)
    for head in checkpoints.heads:
        found.damage += known.missing(head, "the checkpoint of the cluster")
    for epoch in sorted(set(checkpoints.epochs) - known.epochs):
        found.damage.append(Damage(f"epoch {epoch}", 0, "its files are gone; the cluster has kept its number"))
    if known.pruned_below:
        found.notes.append(f"epochs below {known.pruned_below} were dropped for their age")
    strange = _strange(found.records, checkpoints)
    unknown = "neither the cluster nor a later leader knows it: it proves nothing"
    found.notes += [f"epoch {epoch}: {unknown}" for epoch in strange]
    known_records = [one for one in found.records if one.head.epoch not in strange]
    found.records = _without_what_was_added(known_records, checkpoints)
    found.notes += _of_other_releases(found.records)
    return found


def _of_other_releases(records: Iterable[Record]) -> Iterator[str]:
    kinds = sorted({one.happening for one in records if not isinstance(one.happening, Happening)})
    if kinds:
        yield (
            f"lines of kinds that this release does not know ({', '.join(kinds)}): they chain, and no answer counts "
            f"what they say; the penstock audit of the release that wrote them does"
        )


def _strange(records: Sequence[Record], checkpoints: Checkpoints) -> list[int]:
    """Epochs of which neither the cluster nor a later leader that is known itself knows; the last one may be new."""
    begins = {one.head.epoch: one for one in records if one.happening is Happening.EPOCH}
    known = {max(begins, default=0), *(head.epoch for head in checkpoints.heads), *checkpoints.epochs}
    for epoch in sorted(begins, reverse=True):
        if epoch in known:
            cited = (_cited(begins[epoch], name) for name in ("checkpoint", "found"))
            known |= {head.epoch for head in cited if head is not None}
    return sorted(begins.keys() - known)


def _without_what_was_added(records: Sequence[Record], checkpoints: Checkpoints) -> list[Record]:
    """Without what stands behind the line of an epoch that the next leader found as its last one: that chains too."""
    ends: dict[int, int] = {}
    for one in records:
        cited = _cited(one, "found") if one.happening is Happening.EPOCH else None
        if cited is not None and cited.epoch < one.head.epoch:
            ends.setdefault(cited.epoch, cited.sequence)
    # Whatever a line cites, what the cluster heard of was written.
    ends |= {one.epoch: max(one.sequence, ends[one.epoch]) for one in checkpoints.heads if one.epoch in ends}
    return [one for one in records if one.head.sequence <= ends.get(one.head.epoch, one.head.sequence)]


def _pruned_below(one: Record) -> int:
    """What a line says was dropped by then."""
    tells = one.happening in (Happening.EPOCH, Happening.PRUNE)
    said = one.data.get("prunedBelow") if tells else None
    return said if isinstance(said, int) else 0


def _by_epoch(files: Iterable[tuple[str, bytes]]) -> dict[int, list[tuple[str, bytes]]]:
    epochs: dict[int, list[tuple[str, bytes]]] = {}
    for name, content in sorted(files):
        if (epoch := epoch_of(name)) is not None:
            epochs.setdefault(epoch, []).append((name, content))
    return epochs


def _read_epoch(epoch: int, parts: Sequence[tuple[str, bytes]], found: Reading) -> None:
    head = Head(epoch)
    for name, content in parts:
        for number, line in enumerate(lines(content), start=1):
            last = name == parts[-1][0] and not content.endswith(b"\n") and content.endswith(line)
            record = parse(line)
            if record is None and last:
                found.notes.append(f"{name}:{number}: the last line is torn, as by a crash; nothing stands on it")
                continue
            if record is None:
                found.damage.append(Damage(name, number, "is no record"))
                continue
            for problem in _breaks(record, head):
                found.damage.append(Damage(name, number, problem))
            head = record.head
            found.records.append(record)
    if head.sequence < 0:
        found.damage.append(Damage(parts[0][0], 0, "holds no record"))


def _breaks(record: Record, before: Head) -> Iterator[str]:
    """How a record does not follow the line before it."""
    if record.head.epoch != before.epoch:
        yield f"is of epoch {record.head.epoch}, in a file of epoch {before.epoch}"
    if record.head.sequence != before.sequence + 1:
        yield f"is number {record.head.sequence}, behind number {before.sequence}"
    elif record.previous != before.digest:
        yield "cites another line before it than stands there: one of the two was changed"
    if (record.happening is Happening.EPOCH) != (record.head.sequence == 0):
        yield "is where an epoch begins, or does not begin one"


@dataclass(frozen=True, slots=True)
class _Known:
    """The lines that are there, by epoch and number."""

    digests: Mapping[tuple[int, int], str]
    epochs: frozenset[int]
    pruned_below: int

    def broken_citations(self, one: Record) -> list[Damage]:
        """What is wrong with the lines that the first line of an epoch cites."""
        who, cited, found = f"epoch {one.head.epoch}", _cited(one, "checkpoint"), _cited(one, "found")
        # One of which there is only the first line may never have been known to be begun: the disk answered too late.
        if cited is None and any(epoch < one.head.epoch and sequence > 0 for epoch, sequence in self.digests):
            return [Damage(who, 1, "cites no checkpoint, and is not the first epoch")]
        return [damage for head in dict.fromkeys((cited, found)) if head for damage in self.missing(head, who)]

    def unforeseen(self, one: Record) -> list[str]:
        """What stands behind the line that the next leader found as the last one."""
        found = _cited(one, "found")
        if found is None or (found.epoch, found.sequence + 1) not in self.digests:
            return []
        told = (
            f"epoch {found.epoch} goes on behind line {found.sequence + 1}, the last when epoch {one.head.epoch} began"
        )
        added = "a leader that was replaced without knowing it, or somebody else, added to it, and it proves nothing"
        return [f"{told}: {added}"]

    def missing(self, head: Head, who: str) -> list[Damage]:
        """What is wrong with the line that somebody cites."""
        if head.epoch < self.pruned_below or head.sequence < 0:
            return []
        where, line = f"epoch {head.epoch}", head.sequence + 1
        if head.epoch not in self.epochs:
            return [Damage(where, 0, f"its files are gone; {who} cites its line {line}")]
        known = self.digests.get((head.epoch, head.sequence))
        if known is None:
            return [Damage(where, line, f"is gone: the epoch ends before it, and {who} cites it")]
        return [] if known == head.digest else [Damage(where, line, f"is another line than the one that {who} cites")]


def _cited(one: Record, name: str) -> Head | None:
    """A line that the first line of an epoch cites. Raises nothing: what cannot be read cites nothing."""
    try:
        cited = one.data[name]
        return Head(int(cited["epoch"]), int(cited["sequence"]), str(cited["digest"]))
    except ODD:
        return None
