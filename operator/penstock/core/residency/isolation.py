"""Taking a replica out of traffic whose place stopped being lawful: what is written on it, and what is told.

One patch drops the labels by which its Service and its ReplicaSet know it, so that traffic ends and a gated replacement
is made at once; a reference to the pool keeps it collected, and an annotation says why it stands alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from penstock.api.inferencepool import PoolResidency, Violation
from penstock.api.names import COUNTRY_LABEL
from penstock.api.residencypolicy import Action
from penstock.api.stored import stored
from penstock.core.model import Isolated, Node, Pod
from penstock.core.residency import axes
from penstock.core.residency.ceiling import Effective
from penstock.core.telling.conditions import MAX_MESSAGE
from penstock.core.telling.figures import listed, utc

_COMPACT = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False)
MOST_SOURCES = 4
LAST_TIME = 253_402_300_799
"""The last second of the year 9999 as Unix time: no later one can be told."""


class _Written(msgspec.Struct):
    """The annotation as it is spelled. Whoever may create a pod can write one: a time without a date is none."""

    pool: str
    since: Annotated[float, msgspec.Meta(ge=0, le=LAST_TIME)]
    drains: bool
    message: str


def isolated(pod: Pod, node: Node | None, law: Effective, now_time: float) -> Isolated:
    """What is to be written on a replica that is outside this law."""
    return Isolated(pod.pool, float(int(now_time)), drains(law.on_violation), sentence(node, law))


def drains(action: Action) -> bool:
    """Whether a replica that is outside the law is to end."""
    return action in ("Drain", "Evict")


def sentence(node: Node | None, law: Effective) -> str:
    """Why a place is not lawful, for people: outside of whose law, and by what."""
    if node is None:
        return f"its node is unknown, which is outside {listed(law.sources, MOST_SOURCES)}"
    return f"node {node.name} {clause(node, law)}"


def clause(node: Node, law: Effective) -> str:
    """What that says behind the node's name: of every node with the same place labels the same."""
    place = node.subdivision or node.country or "unknown place"
    against = [one.source for one in law.demands if axes.excluding(one.residency, node)] or _outdating(law)
    # The place stands there already.
    by = "" if axes.excluding(law.residency, node) == COUNTRY_LABEL else f" {axes.told(law.residency, node)}"
    return f"({place}) is outside {listed(against or law.sources, MOST_SOURCES)}{by}"


def _outdating(law: Effective) -> list[str]:
    """Who demands the youngest evidence, where by every label a place would do: it is older than that."""
    youngest = law.drains_after_seconds
    return [one.source for one in law.demands if youngest is not None and one.drains_after_seconds == youngest]


def told(pod: Pod, node: Node | None, since_time: float, *, action: Action, message: str, remedy: str) -> Violation:
    """What the status of its pool says of a replica that is outside."""
    return Violation(
        pod=pod.name,
        node=pod.place,
        country=node.country if node is not None else "",
        since=utc(since_time),
        action=action,
        message=message[:MAX_MESSAGE],
        remedy=remedy,
    )


def recalled(status: Mapping[str, Any], *, reports: bool) -> Mapping[tuple[str, str], float]:
    """By pod and node: since when it is outside, as the stored status of its pool tells.

    Of those that policies in mode Audit would not have there (`reports`), or of all others.
    """
    told = stored(PoolResidency, status.get("residency") or {}).violations
    return {(one.pod, one.node): one.since.timestamp() for one in told if (one.action == "Report") is reports}


def text(one: Isolated) -> str:
    """The annotation."""
    return _COMPACT.encode({"pool": one.pool, "since": one.since_time, "drains": one.drains, "message": one.message})


def read(written: str) -> Isolated | None:
    """The annotation read back; None without one. One that cannot be read still says that the pod is isolated."""
    if not written:
        return None
    try:
        found = msgspec.json.decode(written, type=_Written)
    except (ValueError, RecursionError):
        return Isolated("", 0.0, drains=False, message=written)
    return Isolated(found.pool, found.since, found.drains, found.message)
