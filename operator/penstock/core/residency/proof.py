"""How lately a place was proven: the one thing about it that node affinity cannot say, since it goes by the clock."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from penstock.api.names import EVIDENCE_TIME_LABEL
from penstock.core.model import Node, Residency
from penstock.core.placement.scheduling import Operator, Requirement

_WRITTEN = "%Y%m%dT%H%M%SZ"
MOST_OUTDATED = 128
_FORM = re.compile(r"[0-9]{8}T[0-9]{6}Z")


@lru_cache(maxsize=65536)  # One for each node, and each decision asks of the nodes that it looks at.
def proven_time(label: str | None) -> float | None:
    """Unix time of an `evidence-time` label such as `20261120T234151Z`; None without one, or where it is no time."""
    if label is None or not _FORM.fullmatch(label):
        return None
    try:
        return datetime.strptime(label, _WRITTEN).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def time_label(time: float) -> str:
    """An `evidence-time` label of this Unix time."""
    return datetime.fromtimestamp(time, UTC).strftime(_WRITTEN)


def lately(max_age_seconds: float | None, label: str | None, now_time: float) -> bool:
    """Whether evidence of that label is young enough; what is unreadable or in the future is not."""
    if max_age_seconds is None:
        return True
    found = proven_time(label)
    return found is not None and 0.0 <= now_time - found <= max_age_seconds


def lately_proven(residency: Residency, node: Node, now_time: float) -> bool:
    """Whether the place of the node was proven lately enough for this law."""
    return lately(residency.evidence_max_age_seconds, node.labels.get(EVIDENCE_TIME_LABEL), now_time)


def not_outdated(residency: Residency, labels: Iterable[str | None], now_time: float) -> tuple[Requirement, ...] | None:
    """What keeps a pod from the nodes whose proof is too old by now, where somebody else chooses its node.

    `labels` is what nodes say of the time; None where more of it is too old than can be listed.
    """
    oldest = residency.evidence_max_age_seconds
    if oldest is None:
        return ()
    outdated = sorted({label for label in labels if label is not None and not lately(oldest, label, now_time)})
    if len(outdated) > MOST_OUTDATED:
        return None
    said = Requirement(EVIDENCE_TIME_LABEL, Operator.EXISTS)
    # NotIn matches absence, so it never stands without Exists.
    return (said, Requirement(EVIDENCE_TIME_LABEL, Operator.NOT_IN, tuple(outdated))) if outdated else (said,)
