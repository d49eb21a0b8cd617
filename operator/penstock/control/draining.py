"""Moving replicas off broken GPUs: how long one has been broken, who is on the way out, and what was refused."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.control.acts import Acts
from penstock.control.picture import Picture
from penstock.core import draining
from penstock.core.draining import Refusal
from penstock.core.health import BROKEN, Broken, on_broken_gpus
from penstock.core.lifecycle import Verdict
from penstock.core.model import PoolKey, Telemetry
from penstock.core.placement.evidence import Evidence

ASK_AGAIN_SECONDS = 5.0
"""Pause after a refused eviction: a PodDisruptionBudget changes its mind no faster than a replica becomes ready."""


@dataclass
class Draining:
    """Held in memory alone: after a restart a GPU is waited for once more, and nothing is evicted twice.

    `hold_seconds` is how long a GPU has to be broken before a replica is moved: one bad report moves nobody.
    """

    acts: Acts
    hold_seconds: float
    broken: Mapping[str, Broken] = field(default_factory=dict)
    """By the pod's uid, as of the last turn."""
    _since_at: dict[str, float] = field(default_factory=dict)
    _refused: dict[str, tuple[str, float]] = field(default_factory=dict)

    def verdicts(self, picture: Picture, now_at: float) -> dict[PoolKey, tuple[Verdict, ...]]:
        """What becomes of every replica that has been on a broken GPU for long enough."""
        telemetry = _believed_and_broken(picture)
        found = {
            key: on_broken_gpus(roll.bound, telemetry)
            for key, roll in picture.rolls.items()
            if telemetry and roll.bound
        }
        self._remember(found, now_at)
        refusals = {uid: Refusal(words, now_at >= again_at) for uid, (words, again_at) in self._refused.items()}
        return {
            key: draining.off_broken_gpus(picture.pools[key], picture.rolls[key], ripe, self.acts.leaving, refusals)
            for key, members in found.items()
            if (ripe := [one for one in members if now_at - self._since_at[one.pod.uid] >= self.hold_seconds])
        }

    def _remember(self, found: Mapping[PoolKey, tuple[Broken, ...]], now_at: float) -> None:
        self.broken = {one.pod.uid: one for members in found.values() for one in members}
        self._since_at = {uid: self._since_at.get(uid, now_at) for uid in self.broken}
        self.acts.leaving &= self.acts.state.pods.keys()
        self._refused = {uid: said for uid, said in self._refused.items() if uid in self.broken}

    async def evict(self, verdict: Verdict) -> None:
        """Ask for the eviction that a verdict decided on."""
        uid = verdict.pod.uid
        outcome = await self.acts.evict(verdict.pod)
        if outcome.leaves:
            self.acts.metrics.deleted_pods.labels(verdict.ending.value).inc()
        else:
            self.acts.leaving.discard(uid)
            self._refused[uid] = (outcome.message, time.monotonic() + ASK_AGAIN_SECONDS)

    def begin(self, verdict: Verdict) -> None:
        """From now on the pod counts as away."""
        self.acts.leaving.add(verdict.pod.uid)


def _believed_and_broken(picture: Picture) -> dict[str, Telemetry]:
    """The reports of nodes that have a broken GPU, where they are fresh: what is stale or impossible moves nobody."""
    return {
        row.view.node.name: row.view.telemetry
        for row in picture.fleet.rows
        if row.ailments
        and row.evidence is Evidence.FRESH
        and row.view.telemetry
        and not BROKEN.isdisjoint(row.ailments)
    }
