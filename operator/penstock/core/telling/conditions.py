"""Conditions, of whatever kind: here a judgement gets its times.

Written for somebody who was woken up: every False says what, why, by how much, and what would help.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.api.meta import Condition
from penstock.core.telling.figures import utc

MAX_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Judgement:
    """One condition before it has times: its type, whether it holds, the reason and the sentence."""

    type: str
    holds: bool
    reason: str
    message: str


def conditions(
    judgements: Sequence[Judgement], previous: Iterable[Condition], generation: int, now_time: float
) -> tuple[Condition, ...]:
    """Conditions with their times: `lastTransitionTime` moves only when the status flips."""
    before = {condition.type: condition for condition in previous}
    return tuple(_condition(one, before.get(one.type), generation, now_time) for one in judgements)


def _condition(one: Judgement, before: Condition | None, generation: int, now_time: float) -> Condition:
    status: Literal["True", "False"] = "True" if one.holds else "False"
    flipped = before is None or before.status != status
    return Condition(
        type=one.type,
        status=status,
        reason=one.reason,
        message=one.message[:MAX_MESSAGE],
        observed_generation=generation,
        last_transition_time=utc(now_time) if flipped or before is None else before.last_transition_time,
    )
