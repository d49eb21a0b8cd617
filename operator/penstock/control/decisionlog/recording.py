"""Decisions into the log: a placement under a law that demands it before it is carried out, the rest as it comes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from penstock.cluster.journal import Journal
from penstock.cluster.state import ClusterState
from penstock.control.decisionlog.following import Following
from penstock.control.picture import Picture
from penstock.control.residency.laws import Laws
from penstock.core.decisionlog import entries, exception_entries
from penstock.core.decisionlog.record import ALIVE_SECONDS, Entry, Happening
from penstock.core.model import Pod, PoolKey
from penstock.core.placement.verdicts import Waiting
from penstock.core.pool import Pool
from penstock.core.residency.enforcement import Layer
from penstock.core.residency.standing import Standing
from penstock.errors import JournalUnavailable

NOT_CONFIGURED = "no decision log is configured: set decisionLog.volume in the chart's values"
EXCEPTION = "ResidencyException/"
LOOK_SECONDS = 1.0
"""From look to look at the gates of pods of no pool: nothing tells which of them changed."""
WAIT_SECONDS = 60.0
"""From one record of why a pool's replicas wait to the next."""


@dataclass
class Recorder:
    """Writes to a journal; without one nothing is recorded, and what must be is refused."""

    journal: Journal | None = None
    _standings: dict[str, Standing] = field(default_factory=dict)
    _exceptions: dict[str, Entry] = field(default_factory=dict)
    """Those that were in force at the last look, by source: how that was told."""
    _layers: tuple[Layer, ...] = ()
    _version: int = -1
    _gated: set[str] = field(default_factory=set)
    _looked_time: float = -math.inf
    """At the gates of pods of no pool."""
    _told: set[str] = field(default_factory=set)
    """Pods whose way past our gate was recorded, by uid."""
    _waits: dict[PoolKey, tuple[frozenset[str], float]] = field(default_factory=dict)
    """Why replicas were said to wait last, and when."""
    _wrote: bool = False
    """Whether anything was written since the last look."""
    _wrote_time: float = -math.inf
    _times_lost: int = 0
    _following: Following = field(init=False)

    def __post_init__(self) -> None:
        self._following = Following(self.note)

    async def record(self, entry: Entry, *, required: bool) -> None:
        """Return once it is durable where that is required, else at once. Raises JournalUnavailable."""
        if not required:
            self.note(entry)
        elif self.journal is None:
            raise JournalUnavailable(NOT_CONFIGURED)
        else:
            await self.journal.write(entries.with_layers(entry, self._layers))
        if self.journal is not None and entry.happening is Happening.PLACE:
            self._placed(entry)

    def note(self, entry: Entry) -> None:
        """Record it with the next batch that succeeds."""
        if self.journal is not None:
            self._wrote = True
            self.journal.note(entries.with_layers(entry, self._layers))

    def take_back(self, pod: Pod, why: str, now_time: float) -> None:
        """A placement that was recorded did not come about; no word of it where its replica is seen all the same."""
        if not self._following.sees(pod.uid) and (placement := self._following.took_back(pod.uid)):
            self.note(entries.refused(placement, why, now_time))

    def look(
        self,
        picture: Picture,
        state: ClusterState,
        touched: Collection[PoolKey],
        waiting: Sequence[Waiting],
        now_time: float,
    ) -> None:
        """Record what nobody decided in this turn: where replicas are, what changed of the law, who waits, and pods
        that others let through.
        """
        if self.journal is None:
            return
        self._layers = picture.laws.layers
        if self.journal.times_lost != self._times_lost:
            self._times_lost = self.journal.times_lost
            self._tell_anew()
        if picture.laws.version != self._version:
            self._version = picture.laws.version
            self._compare(picture.laws.standings, now_time)
            self._compare_exceptions(picture.laws, state, now_time)
        self._following.look(picture, state, touched, now_time)
        self._watch_gates(picture, state, touched, now_time)
        self._tell_waits(picture, waiting, now_time)
        if not self._wrote and now_time - self._wrote_time >= ALIVE_SECONDS:
            self.note(entries.alive(self.journal.holder, now_time))
        if self._wrote:
            self._wrote, self._wrote_time = False, now_time

    def _tell_anew(self) -> None:
        """Some of what was noted is not in the log: tell all of it as a leader that begins."""
        self._following.tell_anew()
        self._standings, self._exceptions, self._version = {}, {}, -1
        self._told.clear()
        self._waits.clear()

    def _placed(self, entry: Entry) -> None:
        self._following.decided(entry)
        for source in entry.data["law"]["sources"]:
            if source.startswith(EXCEPTION):
                self.note(exception_entries.used(source, entry))

    def _compare_exceptions(self, laws: Laws, state: ClusterState, now_time: float) -> None:
        in_force = {one.source: one for found in laws.exceptions.values() for one in found}
        for key, found in sorted(state.exceptions.objects.items(), key=lambda each: str(each[0])):
            source = f"{EXCEPTION}{key}@{found.generation}"
            if source in in_force and source not in self._exceptions and found.spec is not None:
                begun = exception_entries.begins(in_force[source], found.uid, found.spec, laws.standings, now_time)
                self._exceptions[source] = begun
                self.note(begun)
        for source in sorted(self._exceptions.keys() - in_force.keys()):
            self.note(exception_entries.ends(self._exceptions.pop(source), now_time))

    def _tell_waits(self, picture: Picture, waiting: Sequence[Waiting], now_time: float) -> None:
        """Once for each reason that is another one, and no pool more often than once in a while."""
        groups: dict[PoolKey, list[Waiting]] = {}
        for one in waiting:
            groups.setdefault(one.replica.pool, []).append(one)
        self._waits = {
            key: told for key, told in self._waits.items() if key in groups or now_time - told[1] < WAIT_SECONDS
        }
        for key, found in groups.items():
            reasons = frozenset(one.reason for one in found)
            before, told_time = self._waits.get(key, (frozenset[str](), -math.inf))
            if reasons != before and now_time - told_time >= WAIT_SECONDS and key in picture.pools:
                self._waits[key] = (reasons, now_time)
                self.note(entries.waits(picture.pools[key], found, now_time))

    def _compare(self, standings: dict[str, Standing], now_time: float) -> None:
        for name, one in standings.items():
            if _counts(one) != _counts(self._standings.get(name)):
                self.note(entries.policy_changed(one, now_time))
        for name in sorted(self._standings.keys() - standings.keys()):
            self.note(entries.policy_gone(self._standings[name], now_time))
        self._standings = dict(standings)

    def _watch_gates(
        self, picture: Picture, state: ClusterState, touched: Collection[PoolKey], now_time: float
    ) -> None:
        for key in touched:
            for pod in state.pods_by_pool.get(key, {}).values():
                self._watch_gate(picture, state, pod, now_time)
        if now_time - self._looked_time >= LOOK_SECONDS:
            self._looked_time = now_time
            for pod in state.pods.values():
                if not pod.pool and (pod.gated or pod.decision or pod.uid in self._gated):
                    self._watch_gate(picture, state, pod, now_time)
        self._gated &= state.pods.keys()
        self._told &= state.pods.keys()

    def _watch_gate(self, picture: Picture, state: ClusterState, pod: Pod, now_time: float) -> None:
        if pod.gated or state.assumes(pod.uid):
            self._gated.add(pod.uid)
            return
        law, pool = picture.laws.ceiling(pod.namespace), picture.pools.get(PoolKey(pod.namespace, pod.pool))
        if pod.fence or pod.uid in self._told or law is None or not self._was_gated(pool, pod):
            return
        self._told.add(pod.uid)
        law = pool.law if pool else law
        self.note(entries.broke_glass(pod, pool, state.nodes.get(pod.place), law, now_time))

    def _was_gated(self, pool: Pool | None, pod: Pod) -> bool:
        # One that was never seen gated is known by the decision that `penstock release` leaves on it, or as the replica
        # of a pool of ours: each of them is born gated.
        born_gated = pool is not None and not pool.adopts and pool.owns(pod)
        return pod.uid in self._gated or bool(pod.decision) or born_gated


def _counts(one: Standing | None) -> object:
    """What makes a policy's standing another one."""
    if one is None:
        return None
    return (one.uid, one.asked, one.in_force, one.unconfirmed, one.problems)
