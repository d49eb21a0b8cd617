"""Where a replica was seen and what the law says of it: what the decision log follows of each replica that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.api.names import EVIDENCE_TIME_LABEL, PLACE_LABELS
from penstock.core.model import Node
from penstock.core.residency.ceiling import Demand, Effective
from penstock.core.residency.proof import lately_proven
from penstock.core.residency.terms import law

Place = tuple[str, tuple[tuple[str, str], ...]]
"""A node and its place labels, without the time of its evidence: that is renewed in place."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A replica as it was last seen. Two that are equal are no news."""

    place: Place
    sources: frozenset[str] = frozenset()
    """Whoever has a say in it, without revisions: policies, those that only audit too, exceptions, its pool."""
    outside: tuple[str, ...] = ()
    """The demands that its place does not meet, with their revisions."""


def place(node: str, labels: Mapping[str, str]) -> Place:
    """A node as its labels tell where it stands."""
    kept = (key for key in PLACE_LABELS if key in labels and key != EVIDENCE_TIME_LABEL)
    return node, tuple((key, labels[key]) for key in kept)


def sight(node: Node, found: Effective, now_time: float) -> Sighting:
    """A replica that runs on this node under this law."""
    return Sighting(place(node.name, node.labels), _sources(found), broken(found, node, now_time))


def unknown(node: str, found: Effective) -> Sighting:
    """A replica on a node of which nobody knows a place: that says nothing against it."""
    return Sighting(place(node, {}), _sources(found))


def broken(found: Effective, node: Node, now_time: float) -> tuple[str, ...]:
    """The demands of a law that a node does not meet, those that only audit included."""
    return tuple(one.source for one in (*found.demands, *found.audited) if not meets(one, node, now_time))


def meets(one: Demand, node: Node, now_time: float) -> bool:
    """Whether a replica that runs on this node is where this demand allows it."""
    if law(one.residency, node) is None:
        return False
    return not one.drains_on_expiry or lately_proven(one.residency, node, now_time)


def unrevised(source: str) -> str:
    """`ResidencyPolicy/eu` of `ResidencyPolicy/eu@1841`."""
    return source.partition("@")[0]


def _sources(found: Effective) -> frozenset[str]:
    return frozenset(unrevised(one) for one in (*found.sources, *(demand.source for demand in found.audited)))
