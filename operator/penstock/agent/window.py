"""The planned watts of one GPU: the 95th percentile of its draw over five minutes, for placement."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

HORIZON_SECONDS = 300.0
PERCENTILE = 0.95
IDLE_SHARE_OF_LIMIT = 0.25
"""A GPU that nobody holds draws less than this share of its highest limit: 65-130 W of 700-1000 W on HGX boards."""
UNHELD_MEMORY_BYTES = 256 * 2**20
"""Less than any CUDA context takes."""
UNHELD_ACTIVITY_PERCENT = 1.0
SAMPLES_TO_RESTART = 3


def held(memory_used_bytes: int | None, activity_percent: float | None) -> bool:
    """Whether somebody may hold the GPU; what is not known counts as held."""
    if memory_used_bytes is None or activity_percent is None:
        return True
    return memory_used_bytes >= UNHELD_MEMORY_BYTES or activity_percent >= UNHELD_ACTIVITY_PERCENT


def draws_idle(watts: float, maximum_limit_watts: float | None) -> bool:
    return maximum_limit_watts is not None and watts < IDLE_SHARE_OF_LIMIT * maximum_limit_watts


class PowerWindow:
    """Draws of the last five minutes; `at` is in monotonic seconds and never falls.

    It restarts once nobody has held the GPU and its draw has been idle for three samples in a row, so that the watts
    of a replica that left are credited within seconds, not minutes.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._draws: list[float] = []
        """The same draws, lowest first."""
        self._idle_samples = 0

    def add(self, at: float, watts: float, *, idle: bool) -> None:
        """Take one sample; `idle` says that nobody holds the GPU and that it draws what an idle one does."""
        self._idle_samples = self._idle_samples + 1 if idle else 0
        self._samples.append((at, watts))
        insort(self._draws, watts)
        while self._samples[0][0] <= at - HORIZON_SECONDS:
            self._forget_oldest()
        if self._idle_samples == SAMPLES_TO_RESTART:
            while len(self._samples) > SAMPLES_TO_RESTART:
                self._forget_oldest()

    def p95_watts(self) -> float | None:
        """Nearest-rank 95th percentile; None without samples."""
        if not self._draws:
            return None
        return self._draws[math.ceil(PERCENTILE * len(self._draws)) - 1]

    def _forget_oldest(self) -> None:
        _, watts = self._samples.popleft()
        del self._draws[bisect_left(self._draws, watts)]
