"""Which replicas of a pool have a place, as its status tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from penstock.control.residency.laws import is_lawful
from penstock.core.model import Pod
from penstock.core.placement.fleet import Fleet
from penstock.core.pool import Pool, RollCall
from penstock.core.power import book, draw
from penstock.core.telling.status import PlacedFact


class _Record(msgspec.Struct, gc=False):
    """What a status shows of the decision on a pod."""

    reason: str = ""


_decode_record = msgspec.json.Decoder(_Record).decode


def placed_facts(pool: Pool, roll: RollCall, fleet: Fleet, now_time: float) -> Iterator[PlacedFact]:
    """Every replica past the gate, by name, with what it reserves and draws and whether it may stay."""
    drawn: dict[str, Mapping[str, float]] = {}
    for pod in sorted((*roll.pinned, *roll.bound), key=lambda one: one.name):
        node = fleet.node(pod.place) if pod.place else None
        if node and node.name not in drawn:
            drawn[node.name] = draw.pod_watts(fleet.rows[fleet.position[node.name]].view)
        yield PlacedFact(
            pod=pod.name,
            node=pod.place,
            country=node.country if node else "",
            subdivision=node.subdivision if node else "",
            gpus=pod.gpus,
            watts=book.held_watts(fleet, pod),
            measured_watts=drawn.get(pod.place, {}).get(pod.uid),
            reason=_reason(pod),
            lawful=node is None or is_lawful(pool.standing_law, node, now_time),
        )


def _reason(pod: Pod) -> str:
    if not pod.decision:
        return "let through the gate by somebody else"
    try:
        return _decode_record(pod.decision).reason
    except msgspec.DecodeError:
        return "its decision record cannot be read"
