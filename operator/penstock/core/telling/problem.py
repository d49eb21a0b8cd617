"""What its author must change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that its author must change: its field path, the value (empty where nothing stands there), the remedy."""

    field: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.field, self.value, self.remedy)))
