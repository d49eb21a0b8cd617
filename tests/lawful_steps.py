"""What a history is made of: steps that hypothesis draws, and makes fewer and plainer where one fails."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

EVENTS = (
    *("nothing", "time", "node", "replica", "pool", "namespace", "exception", "group", "confirm", "status", "leader"),
    *("policy", "policy", "policy"),
)
"""The plainest first: a history that fails is told with the plainest events that still make it fail."""
STEP_BYTES = 3


@dataclass(frozen=True)
class Step:
    """Something that happens; everything random about it follows from the number."""

    what: str
    number: int


def spelled(drawn: bytes) -> list[Step]:
    """The steps that these bytes stand for."""
    parts = (drawn[at : at + STEP_BYTES] for at in range(0, len(drawn), STEP_BYTES))
    return [Step(EVENTS[part[0] % len(EVENTS)], int.from_bytes(part[1:])) for part in parts]


def steps(count: int) -> st.SearchStrategy[bytes]:
    """The bytes of so many steps: those are drawn evenly and at once, where integers are mostly small ones."""
    return st.binary(min_size=count * STEP_BYTES, max_size=count * STEP_BYTES)
