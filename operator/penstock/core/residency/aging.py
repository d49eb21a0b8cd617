"""How much of its age the evidence of nodes has used up: said at half and at four fifths, while it can be renewed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.api.names import EVIDENCE_TIME_LABEL, PLACE_LABELS
from penstock.core.model import Node, Residency
from penstock.core.residency.proof import proven_time
from penstock.core.residency.terms import law

HALF = 0.5
MOST = 0.8
"""Of the age that a policy grants."""
NEVER_TIME = float("-inf")
"""When a place was proven of which no readable time is said, or one in the future."""


@dataclass(frozen=True, slots=True)
class Proven:
    """Nodes that say the same of their place: one of them, and when each was proven, the longest ago first."""

    node: Node
    proofs: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Aging:
    """Of the nodes that a policy allows: how many have used up so much of the age that it grants."""

    nodes: int = 0
    half: int = 0
    most: int = 0
    expired: int = 0
    next_node: str = ""
    """Whose evidence is too old next; empty where that of all is."""
    next_time: float = float("inf")


def by_place(nodes: Iterable[Node], now_time: float) -> tuple[Proven, ...]:
    """The nodes by what they say of their places: the law is asked once of each."""
    said = [name for name in PLACE_LABELS if name != EVIDENCE_TIME_LABEL]
    found: dict[tuple[str | None, ...], list[Node]] = defaultdict(list)
    for node in nodes:
        found[tuple(node.labels.get(name) for name in said)].append(node)
    return tuple(
        Proven(alike[0], tuple(sorted((_time(node, now_time), node.name) for node in alike)))
        for alike in found.values()
    )


def aging(residency: Residency, places: Sequence[Proven], now_time: float) -> Aging | None:
    """How old the evidence is by this law; None where it grants evidence any age."""
    most_seconds = residency.evidence_max_age_seconds
    if most_seconds is None:
        return None
    allowed = [one.proofs for one in places if law(residency, one.node) is not None]
    valid = [one[_before(one, now_time - most_seconds) :] for one in allowed]
    next_time, next_node = min((one[0] for one in valid if one), default=(float("inf"), ""))
    return Aging(
        nodes=sum(map(len, allowed)),
        half=sum(_up_to(one, now_time - HALF * most_seconds) for one in allowed),
        most=sum(_up_to(one, now_time - MOST * most_seconds) for one in allowed),
        expired=sum(map(len, allowed)) - sum(map(len, valid)),
        next_node=next_node,
        next_time=next_time + most_seconds,
    )


def _time(node: Node, now_time: float) -> float:
    found = proven_time(node.labels.get(EVIDENCE_TIME_LABEL))
    return NEVER_TIME if found is None or found > now_time else found


def _before(proofs: Sequence[tuple[float, str]], time: float) -> int:
    return bisect_left(proofs, time, key=lambda one: one[0])


def _up_to(proofs: Sequence[tuple[float, str]], time: float) -> int:
    return bisect_right(proofs, time, key=lambda one: one[0])
