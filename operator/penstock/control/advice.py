"""What would help those who wait: worked out a few at a time, since each change is tried on the whole plan.

Who waits, and why, every turn says of everybody. What would help stands from the turn that worked it out until all the
others had theirs, or until the replica waits for another reason: a hundred pools that wait at once would else keep the
loop, and with it the Lease, for minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from penstock.core.placement.choice import WorkOut
from penstock.core.placement.verdicts import Reason, Waiting

SECONDS_A_TURN = 0.05
"""No more is begun in a turn once it took so long; the plan itself does not count, or none would be left under load."""
LONGEST_SECONDS = 0.25
"""After so long one advice names what it has found by then: of the changes the nearest to fitting are tried first."""


@dataclass
class Advice:
    """Goes round among those who wait, each once in a round. `now` is a clock in seconds."""

    now: Callable[[], float] = time.perf_counter
    _known: dict[str, tuple[Reason, str]] = field(default_factory=dict)
    """By the replica's key, and against which reason to wait it would help."""
    _told: set[str] = field(default_factory=set)
    """Who had his advice in this round."""
    _hurried: bool = False
    """Whether somebody was left out in the last turn."""
    _spent_seconds: float = 0.0
    """On advice in this turn."""

    def begin(self, waiting: Collection[str]) -> None:
        """A turn in which these wait, by their keys."""
        self._known = {key: known for key, known in self._known.items() if key in waiting}
        self._told &= self._known.keys()
        if not self._hurried:
            self._told.clear()
        self._hurried = False
        self._spent_seconds = 0.0

    def tell(self, waiting: Waiting, work_out: WorkOut) -> str:
        """What would help it; empty where it had no turn since it waits for this reason."""
        key = waiting.replica.key
        reason, known = self._known.get(key, (waiting.reason, ""))
        if reason is not waiting.reason:
            # Forgotten is what helped, not whose turn it was: a reason that flips would else take all turns.
            known = ""
            self._known[key] = waiting.reason, known
        if key in self._told:
            return known
        if self._spent_seconds >= SECONDS_A_TURN:
            self._hurried = True
            return known
        begun_at = self.now()
        told = work_out(lambda: self.now() - begun_at >= LONGEST_SECONDS)
        self._told.add(key)
        self._known[key] = waiting.reason, told
        self._spent_seconds += self.now() - begun_at
        return told
