"""What the decision log says of exceptions: when one is in force, who is placed under it, and when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from penstock import __version__
from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.core.decisionlog.record import Entry, Happening
from penstock.core.residency.ceiling import Widening
from penstock.core.residency.standing import Standing
from penstock.core.residency.whereabouts import unrevised
from penstock.core.telling.figures import rfc3339


class ExceptionState(StrEnum):
    """What a record says of a ResidencyException."""

    IN_FORCE = "InForce"
    OVER = "Over"
    USED = "Used"


def begins(
    widening: Widening, uid: str, spec: ResidencyExceptionSpec, standings: Mapping[str, Standing], now_time: float
) -> Entry:
    """An exception is in force from now on; the first time in an epoch: it is in force."""
    widened = (standings[name].counts for name in spec.policies if name in standings)
    data = {
        "uid": uid,
        "law": {
            "sources": [ceiling.demand.source for ceiling in widened if ceiling is not None],
            "groups": list(widening.groups),
        },
        "pool": spec.pool,
        "policies": list(spec.policies),
        "widen": spec.widen.as_json(),
        "reason": spec.reason,
        "requester": spec.requester,
        "approvedBy": spec.approval.by if spec.approval else None,
        "expires": rfc3339(spec.expires.timestamp()),
    }
    return _entry(widening.source, ExceptionState.IN_FORCE, rfc3339(now_time), data)


def ends(begun: Entry, now_time: float) -> Entry:
    """An exception expired, or was taken away: it widens nothing any more."""
    return replace(begun, time=rfc3339(now_time), data={**begun.data, "state": ExceptionState.OVER})


def used(source: str, placement: Entry) -> Entry:
    """A replica is placed under a law that this exception widens."""
    data = {key: placement.data[key] for key in ("pod", "pool", "law", "chosen")}
    return _entry(source, ExceptionState.USED, placement.time, data)


def _entry(source: str, state: ExceptionState, time: str, data: Mapping[str, Any]) -> Entry:
    known = {"exception": source, "state": state, **data, "operatorVersion": __version__}
    return Entry(Happening.EXCEPTION, unrevised(source), time, known)
