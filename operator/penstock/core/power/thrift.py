"""Whether a pool makes use of what it holds: GPUs on which nothing happens, and watts that it declares too low."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from penstock.core.model import Pod

MOST_NAMED = 8


class ThriftReason(StrEnum):
    """Reasons of the conditions `Utilized` and `PowerDeclared`. People alert on these words: they are API."""

    IN_USE = "InUse"
    IDLE = "IdleReplicas"
    DECLARED = "Declared"
    DECLARED_TOO_LOW = "DeclaredTooLow"


class Finding(NamedTuple):
    """What a condition says, without its type."""

    holds: bool
    reason: ThriftReason
    message: str


def utilized(idle: Sequence[Pod], placed: int) -> Finding:
    """`idle` are those of the `placed` replicas that have long done nothing on the GPUs that they hold."""
    if not idle:
        return Finding(True, ThriftReason.IN_USE, "no replica holds GPUs on which it does nothing")
    held = ", ".join(f"{pod.name} on {pod.node} ({pod.gpus} GPUs)" for pod in idle[:MOST_NAMED])
    told = (
        f"{len(idle)} of {placed} replicas have long done nothing on the GPUs that they hold: {held}; candidates for "
        "consolidation: lower spec.replicas, or let an autoscaler do it"
    )
    return Finding(False, ThriftReason.IDLE, told)


def declared_enough(declared_watts: float, raised_watts: float | None, gpus: int) -> Finding:
    """`raised_watts` per GPU are reserved because they were measured, where a replica of `gpus` declares less."""
    if raised_watts is None:
        return Finding(True, ThriftReason.DECLARED, f"none was measured above the {declared_watts:,.0f} W")
    watts = raised_watts * gpus
    told = (
        f"spec.power.wattsPerReplica: {declared_watts:.15g}: a replica was measured at {watts:,.0f} W "
        f"({raised_watts:,.0f} W per GPU), and that is what is reserved: set it to {watts:.15g} at least, or leave it "
        "out"
    )
    return Finding(False, ThriftReason.DECLARED_TOO_LOW, told)
