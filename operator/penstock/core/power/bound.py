"""What the GPUs of each domain could draw at most by the limits that were read back last.

This is what a guarantee rests on while the ladder acts, not the power book: there a silent node costs its ceiling, for
admission only, and nobody is capped because a node fell silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from penstock.core.model import Gpu
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.row import Row
from penstock.core.power.holding import counted, holdings
from penstock.core.power.node_watts import LIMIT_TOLERANCE, at_the_pdu


def bound_watts(fleet: Fleet) -> Mapping[str, float]:
    """Watts at its PDU by domain: its static load and that of those below it, and its nodes' overhead and GPUs.

    A GPU that a pod holds counts its enforced limit × 1.03, one that nobody holds what it drew last.
    """
    static = fleet.context.tree.totals([domain.static_watts for domain in fleet.domains])
    watts = {domain.name: own for domain, own in zip(fleet.domains, static, strict=True)}
    for row in fleet.rows:
        # Without GPUs in the book it has none, or somebody vouches that it is off.
        if row.view.telemetry is None or not row.rules or not row.power.planned_watts:
            continue
        gpu_watts = sum(_gpus(row))
        for rule in row.rules:
            watts[rule.name] += at_the_pdu(rule, gpu_watts)
    return watts


def _gpus(row: Row) -> Iterator[float]:
    telemetry = row.view.telemetry
    if telemetry is None:
        return
    held = holdings(row.view.node, telemetry, row.view.pods)
    # Whose GPU is not known may be any, so the highest limits are counted first.
    unnamed = sum(gpus for _, gpus in counted(held.unknown)) + sum(bool(pod.parts) for pod in held.unknown)
    for gpu in sorted(telemetry.gpus, key=_limit_watts, reverse=True):
        named = gpu.uuid in held.known
        if named or unnamed > 0:
            unnamed -= not named
            yield _limit_watts(gpu)
        else:
            yield gpu.power_watts or 0.0


def _limit_watts(gpu: Gpu) -> float:
    return LIMIT_TOLERANCE * (gpu.limit_watts or gpu.maximum_watts or 0.0)
