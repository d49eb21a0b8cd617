"""Evictions that power asks for: who was asked, what that will save, who waits since, and who may not be asked again.

Only who waits survives a restart, in the domains' statuses; the rest is a matter of seconds.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.api.powerdomain import LadderStatus, ShedReplicas
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts, Eviction, Spawn
from penstock.control.picture import Picture
from penstock.control.power.deeds import Deeds
from penstock.core.model import Pod, PoolKey
from penstock.core.placement.evidence import fresh_until_at
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.verdicts import Decision
from penstock.core.power import pressure, shedding
from penstock.core.power.pressure import Last, Watts
from penstock.core.power.shedding import Allowance, Candidate, Cut, Shed
from penstock.core.telling.figures import utc

CREDIT_SECONDS = 15.0
"""What the meters still show of a pod that is gone counts as saved for so long after its node's first word since."""
LONGEST_UNHEARD_SECONDS = 30.0
"""And for no longer than this where its node has not spoken since, however seldom it speaks."""
ANSWER_SECONDS = 15.0
"""An eviction that shows no effect for so long is asked for again."""
REFUSED_SECONDS = 5.0
"""A pool whose eviction was refused is passed over for so long."""
RECENT_SECONDS = 60.0
"""An eviction before a start that is younger may not show in the meters yet."""
HOUR_SECONDS = 3600.0
MOST_SHED = 256


@dataclass(frozen=True, slots=True)
class _Gone:
    """What a pod that is gone drew: one of its node's next reports will show less."""

    node: str
    watts: Watts
    gone_at: float
    heard_at: float | None = None
    """When its node first spoke after that. What it said before cannot tell of now."""


@dataclass
class Shedder:
    """Sheds what a cut asks for, once."""

    state: ClusterState
    acts: Acts
    spawn: Spawn
    deeds: Deeds
    waiting: tuple[Shed, ...] = ()
    """Who was shed and has no place since."""
    last: Last = field(default_factory=dict)
    """What the nodes last said that could be believed."""
    _asked_at: dict[str, float] = field(default_factory=dict)
    """Pods that we asked to be evicted and that do not end yet, by uid."""
    _evicted: set[str] = field(default_factory=set)
    """Pods that we evicted and that are not gone yet, by uid."""
    _named: dict[str, float] = field(default_factory=dict)
    """Pods that a leader before us evicted, by `namespace/name`, and when (Unix time)."""
    _gone: list[_Gone] = field(default_factory=list)
    _refused_until_at: dict[PoolKey, float] = field(default_factory=dict)
    _counted: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By the pod's uid, for which domain and when its eviction was counted: one that is refused counts no more."""
    _moved_at: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _sheds_from_at: float = -math.inf
    """After a start: what the leader before us evicted last may not show in the meters yet."""

    # ------------------------------------------------------------------------------------------------- what others ask

    def waiting_of(self, pool: PoolKey) -> int:
        """How many of a pool's replicas wait because they were shed."""
        return sum(one.pool == pool for one in self.waiting)

    def waiting_from(self, domain: str) -> tuple[ShedReplicas, ...]:
        """Whom a domain shed, by pool, as its status says it."""
        return tuple(_by_pool(one for one in self.waiting if one.domain == domain))[:MOST_SHED]

    def was_shed(self, pod: Pod) -> bool:
        """Whether we evicted this pod: then nobody has a right to return to its watts."""
        # A later pod of that name, as a StatefulSet makes it, is another one.
        return pod.uid in self._evicted or pod.created_time < self._named.get(f"{pod.namespace}/{pod.name}", 0.0)

    def moves_in_hour(self, domain: str, now_at: float) -> int:
        """Evictions for a domain in the last hour, those of emergencies left out."""
        moved = self._moved_at[domain]
        while moved and now_at - moved[0] > HOUR_SECONDS:
            moved.popleft()
        return len(moved)

    def forget(self, domain: str) -> None:
        """A domain that is gone: another of its name has made no moves yet."""
        self._moved_at.pop(domain, None)

    @property
    def asked(self) -> Collection[str]:
        """Pods that were asked to go and do not end yet, by uid."""
        return self._asked_at.keys()

    def may_shed(self, now_at: float) -> bool:
        return now_at >= self._sheds_from_at

    def candidates(self, picture: Picture) -> Mapping[str, Sequence[Candidate]]:
        """Everybody who may be shed, by domain."""
        return shedding.by_domain(shedding.candidates(picture.fleet, picture.pools, picture.rolls, self.last))

    def allowance(self, picture: Picture) -> Allowance:
        return shedding.allowance(picture.pools, picture.rolls, {*self.asked, *self.acts.leaving})

    def coming_watts(self, fleet: Fleet) -> dict[str, float]:
        """Per domain, what is on its way off: pods that end, ours or not, are asked to, or are gone unnoticed."""
        ending = [pod for row in fleet.rows for pod in row.view.pods if pod.terminating or pod.uid in self.asked]
        watts = _sum(pressure.savings(fleet, ending, self.last))
        unheard = self.unheard_watts(fleet)
        for name, one in self._shown(fleet, self._gone).items():
            watts[name] += one - unheard.get(name, 0.0)
        return watts

    def unheard_watts(self, fleet: Fleet) -> Mapping[str, float]:
        """Per domain, what its draw by the last word of its nodes holds of pods that are gone since."""
        return self._shown(fleet, [one for one in self._gone if one.heard_at is None])

    def _shown(self, fleet: Fleet, gone: Sequence[_Gone]) -> Mapping[str, float]:
        """What the meters still show of them, per domain."""
        watts: dict[str, float] = defaultdict(float)
        for node in {one.node for one in gone}:
            shown = pressure.lingering_watts(fleet, node, self.last)
            for name, one in _sum(each.watts for each in gone if each.node == node).items():
                watts[name] += min(shown.get(name, 0.0), one)
        return watts

    # --------------------------------------------------------------------------------------------------------- a turn

    def recall(self, domain: str, written: LadderStatus, now_at: float, now_time: float) -> None:
        """After a start: what a domain's status says."""
        self._moved_at[domain].extend([now_at] * written.evicted_in_hour)
        self.waiting += tuple(_recalled(domain, written.shed))
        evicted = {one.subject: one.at.timestamp() for one in written.actions if one.action == "Evict"}
        self._named |= evicted
        if any(now_time - evicted_time < RECENT_SECONDS for evicted_time in evicted.values()):
            self._sheds_from_at = now_at + CREDIT_SECONDS

    def observe(self, picture: Picture, now_at: float, now_time: float) -> None:
        """Take in who ended, who is gone, and who is missing no more."""
        for uid, asked_at in list(self._asked_at.items()):
            pod = self.state.pods.get(uid)
            if pod is None or pod.terminating:
                del self._asked_at[uid]
            elif now_at - asked_at > ANSWER_SECONDS:
                self._forget(uid)
        for _, pod in picture.departed:
            if watts := pressure.saved_watts(picture.before, pod, self.last):
                self._gone.append(_Gone(pod.node, watts, now_at))
        self._gone = [one for one in map(self._heard, self._gone) if self._counts(one, now_at)]
        for pool in self._refused_until_at.keys() - picture.pools.keys():
            del self._refused_until_at[pool]  # Another of that name has disruption budgets of its own.
        self._counted = {uid: counted for uid, counted in self._counted.items() if uid in self._asked_at}
        self._evicted &= self.state.pods.keys() | {pod.uid for _, pod in picture.departed}
        if self.waiting:
            self._keep(shedding.still_waiting(self.waiting, _missing(picture), now_time))

    def placed(self, decisions: Iterable[Decision]) -> None:
        """Replicas that were shed and have a place again."""
        # A place for one without a pod only brings its pod into being: that is decided again.
        back = [one.replica.pool for one in decisions if one.replica.shed and one.replica.pod_uid]
        if back:
            self._keep(shedding.returned(self.waiting, back))

    def shed(
        self, cut: Cut, able: Iterable[Candidate], allowed: Allowance, now_at: float, now_time: float
    ) -> tuple[Candidate, ...]:
        """Evict whom this cut takes: those."""
        asked = (one for one in able if self._may_ask(one, now_at))
        chosen = shedding.choose(cut, asked, allowed)
        for one in chosen:
            self._asked_at[one.pod.uid] = now_at
            self.acts.leaving.add(one.pod.uid)
            self._evicted.add(one.pod.uid)
            if not cut.emergency:
                self._moved_at[cut.domain].append(now_at)
                self._counted[one.pod.uid] = cut.domain, now_at
            shed = Shed(one.pool, cut.domain, one.watts[cut.domain], now_time, one.pod.uid)
            self._keep((*self.waiting, shed))
            self.spawn(self._evict(one, cut.domain, now_at, now_time))
        return chosen

    def _may_ask(self, one: Candidate, now_at: float) -> bool:
        return one.pod.uid not in self._asked_at and now_at >= self._refused_until_at.get(one.pool, -math.inf)

    async def _evict(self, one: Candidate, domain: str, now_at: float, now_time: float) -> None:
        outcome = await self.acts.evict(one.pod)
        if outcome.answer is Eviction.REFUSED:
            self._forget(one.pod.uid)
            self._refused_until_at[one.pool] = now_at + REFUSED_SECONDS
            self.deeds.tell_refused(one, domain, outcome.message, now_time)
            # The next candidate is chosen at once.
            self.acts.wake()
        elif outcome.leaves:
            self.deeds.tell_evicted(one, domain, now_time)

    def _forget(self, uid: str) -> None:
        """An eviction that did not happen."""
        self._asked_at.pop(uid, None)
        self.acts.leaving.discard(uid)
        self._evicted.discard(uid)
        domain, moved_at = self._counted.pop(uid, ("", 0.0))
        if moved_at in self._moved_at.get(domain, ()):
            self._moved_at[domain].remove(moved_at)
        self._keep(tuple(one for one in self.waiting if one.uid != uid))

    def _heard(self, one: _Gone) -> _Gone:
        told = self.state.telemetry.get(one.node)
        first = one.heard_at is None and told is not None and told.heard_at > one.gone_at
        return replace(one, heard_at=told.heard_at) if told and first else one

    def _counts(self, one: _Gone, now_at: float) -> bool:
        """Whether its end may not show yet. A node that never speaks again goes stale, and is judged as such then."""
        told = self.state.telemetry.get(one.node)
        if one.heard_at is None and told is not None:
            return now_at <= min(fresh_until_at(told), one.gone_at + LONGEST_UNHEARD_SECONDS)
        return now_at - (one.heard_at or one.gone_at) <= CREDIT_SECONDS

    def _keep(self, waiting: tuple[Shed, ...]) -> None:
        if waiting != self.waiting:
            self.waiting = waiting
            self.deeds.version += 1


def _sum(found: Iterable[Watts]) -> dict[str, float]:
    """Watts by domain."""
    watts: dict[str, float] = defaultdict(float)
    for one in found:
        for name, one_watts in one.items():
            watts[name] += one_watts
    return watts


def _missing(picture: Picture) -> Mapping[PoolKey, int]:
    return {
        # Of those that somebody else counts, one that still ends is to be missing.
        key: len(roll.waiting) + len(roll.terminating)
        if pool.adopts
        else max(pool.desired - len(roll.pinned) - len(roll.bound), len(roll.waiting))
        for key, pool in picture.pools.items()
        if (roll := picture.rolls.get(key))
    }


def _by_pool(shed: Iterable[Shed]) -> Iterator[ShedReplicas]:
    found: dict[PoolKey, list[Shed]] = defaultdict(list)
    for one in shed:
        found[one.pool].append(one)
    for pool, members in sorted(found.items(), key=lambda entry: str(entry[0])):
        yield ShedReplicas(
            namespace=pool.namespace,
            pool=pool.name,
            replicas=len(members),
            watts=round(sum(one.watts for one in members)),
            since=utc(min(one.since_time for one in members)),
        )


def _recalled(domain: str, written: Iterable[ShedReplicas]) -> Iterator[Shed]:
    for one in written:
        for _ in range(one.replicas):
            yield Shed(PoolKey(one.namespace, one.pool), domain, one.watts / one.replicas, one.since.timestamp())
