"""What is to be doubted of where a node says it stands: its region says otherwise, it changed lately, it is no code.

A doubt is a question and no order: while it lasts nothing new comes onto the node under any law, and nothing leaves it.
What a label that is gone or changed means for whoever runs there is the law's to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from penstock.api.names import (
    COUNTRY_LABEL,
    EVIDENCE_TIME_LABEL,
    PLACE_LABELS,
    PLACE_SETTLED_ANNOTATION,
    REGION_LABEL,
    SUBDIVISION_LABEL,
)
from penstock.core.model import Doubt, Node
from penstock.core.placement.scheduling import Labels
from penstock.core.residency import iso, places
from penstock.core.residency.places import Table
from penstock.core.residency.proof import proven_time
from penstock.core.telemetry import PlaceMark
from penstock.core.telling.figures import rfc3339

_STEADY_LABELS = tuple(label for label in PLACE_LABELS if label != EVIDENCE_TIME_LABEL)
"""The time of the evidence is renewed in place."""
_THEN = "; "
"""Between what is doubted and what would help."""


class Kind(StrEnum):
    """The conditions of a GPUNode that say a doubt."""

    DISPUTED = "PlaceDisputed"
    UNSTEADY = "PlaceUnsteady"
    UNREADABLE = "PlaceUnreadable"


@dataclass(frozen=True, slots=True)
class Rules:
    """What places are held against. A place that changed counts again after `steady_seconds` of saying nothing else."""

    table: Table = field(default_factory=dict)
    """The reviewed one of the provider's regions."""
    levels: Sequence[str] = ()
    """The install's clearances, the lowest first."""
    steady_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a node said of its place: now, and the last value of each label that it ever had."""

    uid: str
    now: Labels
    ever: Labels
    changed_time: float | None = None
    """Unix time, whole seconds, since when it says this after it had said otherwise; None: it never did."""


def hear(node: Node, before: Said | None, marks: Iterable[PlaceMark], now_time: float) -> Said:
    """What a node says now. What it says for the first time is no change; what it says anew, or no more, is one.

    `marks` are what is written on its GPUNode: of a node that is seen for the first time they are all that is known.
    """
    now = {key: node.labels[key] for key in _STEADY_LABELS if key in node.labels}
    if before is None or before.uid != node.uid:
        changed_time = next((one.since_time for one in marks if one.kind == Kind.UNSTEADY), None)
        lost = {} if changed_time is None or COUNTRY_LABEL in now else {COUNTRY_LABEL: ""}
        return Said(node.uid, now, {**lost, **now}, changed_time)
    if now == before.now:
        return before
    changed = any(before.now.get(key) != value or now.get(key) != value for key, value in before.ever.items())
    return replace(
        before,
        now=now,
        ever={**before.ever, **now},
        changed_time=float(math.ceil(now_time)) if changed else before.changed_time,
    )


def steady_time(said: Said, steady_seconds: float) -> float | None:
    """When what a node says counts again; None where it counts, or where nobody knows since it says no country."""
    if said.changed_time is None or COUNTRY_LABEL not in said.now:
        return None
    return said.changed_time + steady_seconds


def due_time(node: Node, said: Said, steady_seconds: float, now_time: float) -> float | None:
    """When something else is to be doubted by itself: a place is steady by then, or its evidence of the past."""
    times = (steady_time(said, steady_seconds), proven_time(node.labels.get(EVIDENCE_TIME_LABEL)))
    return min((time for time in times if time is not None and time > now_time), default=None)


def doubts(node: Node, said: Said, rules: Rules, now_time: float) -> tuple[Doubt, ...]:
    """Everything that is to be doubted of a node's place now, what holds placements first."""
    unsteady = _unsteady(node, said, rules.steady_seconds, now_time)
    return (*_disputed(node, rules.table), *unsteady, *_unreadable(node, rules.levels, now_time))


def sentence(one: Doubt) -> str:
    """A doubt as it is written on a GPUNode and told."""
    return f"{one.message}{_THEN}{one.remedy}"


def written(marks: Iterable[PlaceMark]) -> tuple[Doubt, ...]:
    """The doubts that a leader wrote down, to who has no table of regions and saw nothing change."""
    return tuple(_written(one) for one in marks)


def _written(mark: PlaceMark) -> Doubt:
    message, _, remedy = mark.message.rpartition(_THEN)
    return Doubt(mark.kind, mark.kind, message, remedy, mark.kind != Kind.UNREADABLE, mark.since_time)


# ------------------------------------------------------------------------------------------------------------ disputes


def _disputed(node: Node, table: Table) -> Iterator[Doubt]:
    row, here = places.row_of(node, table), place_of(node.labels)
    if row is None or not iso.is_code(here) or node.settled == settlement(node):
        return
    key, claim = row
    there = place_of(claim.labels)
    if _agree(here, there):
        return
    message = f"node {node.name} says that it stands in {here}, and residency.regions puts its region {key} in {there}"
    annotate = f"kubectl annotate node {node.name} --overwrite {PLACE_SETTLED_ANNOTATION}={settlement(node)}"
    move = f"penstock label-nodes --nodes {node.name} {_flags(claim.labels)} --overwrite --apply"
    remedy = f"a place writer settles it: `{annotate}` where {here} is right, `{move}` where it is not"
    yield Doubt(Kind.DISPUTED, "RegionSaysOtherwise", message, remedy)


def settlement(node: Node) -> str:
    """What a place writer writes on a node to say that its labels are right: it settles this dispute and no other."""
    return f"{place_of(node.labels)}@{node.labels.get(REGION_LABEL, '')}"


def place_of(labels: Labels) -> str:
    """The narrowest place that labels say; empty for none."""
    country, part = labels.get(COUNTRY_LABEL, ""), labels.get(SUBDIVISION_LABEL, "")
    return part if part and iso.country_of(part) == country else country


def _agree(here: str, there: str) -> bool:
    """Whether one of the places lies in the other; who knows no more than the country contradicts no part of it."""
    if not (iso.is_subdivision(here) and iso.is_subdivision(there)):
        return iso.country_of(here) == iso.country_of(there)
    return here in iso.within([there]) or there in iso.within([here])


def _flags(claimed: Labels) -> str:
    wanted = {key: claimed[key] for key in (COUNTRY_LABEL, SUBDIVISION_LABEL) if key in claimed}
    return " ".join(f"--{places.short(key)} {value}" for key, value in wanted.items())


# ----------------------------------------------------------------------------------------------------------- steadiness


def _unsteady(node: Node, said: Said, steady_seconds: float, now_time: float) -> Iterator[Doubt]:
    if said.changed_time is None:
        return
    since = rfc3339(said.changed_time)
    if COUNTRY_LABEL not in said.now:
        message = f"node {node.name} has said no place since {since}, and had said one"
        remedy = f"say where it stands: it counts {steady_seconds:g} s after that"
        yield Doubt(Kind.UNSTEADY, "PlaceLost", message, remedy, since_time=said.changed_time)
    elif now_time < said.changed_time + steady_seconds:
        counts = rfc3339(said.changed_time + steady_seconds)
        message = f"node {node.name} has been steady since {since} ({places.told(said.now)}), and counts from {counts}"
        remedy = f"nothing to do: the place of node {node.name} counts from {counts}"
        yield Doubt(Kind.UNSTEADY, "ChangedLately", message, remedy, since_time=said.changed_time)


# ---------------------------------------------------------------------------------------------------------- readability


def _unreadable(node: Node, levels: Sequence[str], now_time: float) -> Iterator[Doubt]:
    """What no law can name counts as not said, which needs no hold of its own."""
    written = {places.short(key): node.labels[key] for key in PLACE_LABELS if key in node.labels}
    faults = [*_faults(written, levels, now_time)]
    if faults:
        remedy = f"a place writer mends it: `penstock label-nodes --nodes {node.name} … --overwrite --apply`"
        message = f"node {node.name} says what cannot be read: {'; '.join(faults)}"
        yield Doubt(Kind.UNREADABLE, "NotReadable", message, remedy, holds=False)


def _faults(written: Mapping[str, str], levels: Sequence[str], now_time: float) -> Iterator[str]:
    claim = places.read(written, "", levels, now_time)
    yield from map(str, claim.problems)
    for key, code in claim.labels.items():
        field = places.short(key)
        if written[field] != code:
            yield f"{field}: {written[field]}: write {code}"
