"""Emptying places that are not lawful any more: out of traffic at once, replaced, and gone within their own grace.

Residency goes before disruption budgets and minimum replicas. What is not ours to take out of traffic (a pool that
adopts, or whose Service is somebody else's) is deleted within its grace instead. A law under which nothing can be in
force yet (an edit that waits for its confirmation) isolates nobody: `standing_law` leaves it out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from penstock.api.inferencepool import Violation
from penstock.api.names import EVIDENCE_TIME_LABEL
from penstock.api.residencypolicy import Action
from penstock.cluster.events import Events, Subject
from penstock.cluster.state import ClusterState
from penstock.control.acts import REFUSED_PAUSE_SECONDS, Acts, Spawn
from penstock.control.picture import Picture
from penstock.control.residency.auditing import Auditing
from penstock.control.residency.laws import is_lawful
from penstock.control.residency.strangers import Strangers
from penstock.core import manifests
from penstock.core.decisionlog import entries
from penstock.core.decisionlog.record import Entry
from penstock.core.model import Isolated, Node, Pod, PoolKey
from penstock.core.pool import Pool, RollCall
from penstock.core.residency import isolation, strangers
from penstock.core.residency.proof import proven_time

RECHECK_SECONDS = 10.0
"""From look to look at everybody where nothing changed."""
MOST_TOLD = 64
REMEDIES: Mapping[Action, str] = {
    "Isolate": "it is being taken out of traffic and replaced; then look at it, and delete it",
    "Drain": "it is being taken out of traffic and replaced",
    "Evict": "it is deleted within its grace, and not taken out of traffic before",
}
"""What is done about a replica that is outside, for people."""
DOES_NOT_RUN = "it does not run yet, and is deleted before it does"
NOT_OUR_TRAFFIC = (
    "its traffic is not ours to end (the pool adopts, or its Service is another's): deleted within its grace"
)


@dataclass(frozen=True, slots=True)
class Outside:
    """A replica that runs where the law does not allow it."""

    pod: Pod
    since_time: float
    one: Isolated
    action: Action
    """What is done about it."""
    remedy: str
    """That, for people."""


@dataclass
class Isolating:
    """Who is outside the law, and what is done about it."""

    state: ClusterState
    acts: Acts
    events: Events
    spawn: Spawn
    outside: dict[PoolKey, dict[str, Outside]] = field(default_factory=dict)
    """Replicas that are outside and not isolated yet, by pool and uid."""
    strangers: Strangers = field(init=False)
    """Pods of no pool."""
    auditing: Auditing = field(init=False)
    """Replicas that are outside policies that only audit."""
    _looked_at: float = -math.inf
    _due_times: dict[PoolKey, float] = field(default_factory=dict)
    """By pool, when time alone puts somebody outside: where the evidence of a place has to be younger."""
    _busy: set[str] = field(default_factory=set)
    _draining: set[str] = field(default_factory=set)
    _looked: set[PoolKey] = field(default_factory=set)
    """Pools that were looked at: of the others counts what the leader before us told."""

    def __post_init__(self) -> None:
        self.strangers = Strangers(self.state, self.acts, self.events, self.spawn)
        self.auditing = Auditing(self.state, self.events)

    def look(self, picture: Picture, touched: frozenset[PoolKey], now_at: float, now_time: float) -> None:
        """Find who is outside, and act. A law that changes touches its pools, and so does a node whose place does."""
        everybody = now_at - self._looked_at >= RECHECK_SECONDS
        if everybody:
            self._looked_at = now_at
        for key in picture.pools if everybody else touched | self._due(now_time):
            if key in picture.pools:
                self._look_at(picture, key, now_time)
        for key in touched - picture.pools.keys():
            self.outside.pop(key, None)
            self._due_times.pop(key, None)
            self._looked.discard(key)
        self.auditing.forget_all_but(picture.pools)
        self._act(picture, now_time)
        self.strangers.look(picture, now_at, now_time)

    def violations(self, key: PoolKey) -> tuple[Violation, ...]:
        """What the pool's status says: the longest first, and behind them whoever policies only audit."""
        waiting = list(self.outside.get(key, {}).values())
        standing = [
            Outside(pod, one.since_time, one, *_standing_alone(one))
            for pod in self.state.isolated.get(key, {}).values()
            if (one := pod.isolated)
        ]
        longest = sorted((*waiting, *standing), key=lambda one: one.since_time)[:MOST_TOLD]
        found = tuple(_violation(one, self.state.nodes.get(one.pod.place)) for one in longest)
        return (*found, *self.auditing.violations(key, MOST_TOLD - len(found)))

    def _due(self, now_time: float) -> set[PoolKey]:
        return {key for key, due_time in self._due_times.items() if now_time > due_time}

    def _look_at(self, picture: Picture, key: PoolKey, now_time: float) -> None:
        pool, roll, known = picture.pools[key], picture.rolls[key], self.outside.get(key, {})
        found: dict[str, Outside] = {}
        action, remedy = self._what_is_done(pool)
        due_time = _due_time(pool, roll, self.state.nodes, now_time)
        if due_time is None:
            self._due_times.pop(key, None)
        else:
            self._due_times[key] = due_time
        # One that is ending runs where it is until it is gone; kube-scheduler may bind one that is pinned at any time.
        pinned = (pod for pod in roll.pinned if not self.state.assumes(pod.uid))
        broken = tuple(outside(pool, (*roll.bound, *roll.terminating, *pinned), self.state.nodes, now_time))
        told = self._told(key) if broken and key not in self._looked else {}
        self._looked.add(key)
        for pod, node in broken:
            since_time = strangers.since_time(pod, told.get((pod.name, pod.place)), now_time)
            since_time = known[pod.uid].since_time if pod.uid in known else since_time
            one = isolation.isolated(pod, node, pool.standing_law, since_time)
            done: tuple[Action, str] = (action, remedy) if pod.node else ("Evict", DOES_NOT_RUN)
            found[pod.uid] = Outside(pod, since_time, one, *done)
        for uid in found.keys() - known.keys():
            self._tell(pool, found[uid])
        if found:
            self.outside[key] = found
        else:
            self.outside.pop(key, None)
        self.auditing.look_at(pool, roll, found.keys(), now_time)

    def _told(self, key: PoolKey) -> Mapping[tuple[str, str], float]:
        """By pod and node: since when it is outside, as the leader before us told."""
        found = self.state.pools.get(key)
        return isolation.recalled(found.status, reports=False) if found else {}

    def _tell(self, pool: Pool, one: Outside) -> None:
        subject = Subject("InferencePool", pool.key.namespace, pool.key.name, pool.uid)
        self.events.post(subject, "Warning", "UnlawfulPlace", f"{one.pod.name}: {one.one.message}")

    # --------------------------------------------------------------------------------------------------------- acting

    def _act(self, picture: Picture, now_time: float) -> None:
        self._busy &= self.state.pods.keys()
        self._draining &= self.state.pods.keys()
        for key, members in self.outside.items():
            for one in members.values():
                if one.pod.uid not in self._busy and not one.pod.terminating:
                    self._begin(picture.pools[key], one, now_time)
        for standing in self.state.isolated.values():
            for pod in standing.values():
                if pod.isolated and pod.isolated.drains and not pod.terminating and pod.uid not in self._draining:
                    self._draining.add(pod.uid)
                    self.spawn(self._drain(pod, pod.isolated.message))

    def _begin(self, pool: Pool, one: Outside, now_time: float) -> None:
        self._busy.add(one.pod.uid)
        node = self.state.nodes.get(one.pod.place)
        if one.action == "Evict":
            entry = entries.evicted(pool, one.pod, node, one.one.message, now_time)
            self.spawn(self._drain(one.pod, one.one.message, entry))
        else:
            self.spawn(self._isolate(one, pool.uid, entries.isolated(pool, one.pod, node, one.one, now_time)))

    def _what_is_done(self, pool: Pool) -> tuple[Action, str]:
        """What becomes of the pool's replicas that are outside, and the same for people."""
        action = pool.standing_law.on_violation
        if action in ("Isolate", "Drain") and not self._is_in_our_service(pool):
            return "Evict", NOT_OUR_TRAFFIC
        return action, REMEDIES[action]

    def _is_in_our_service(self, pool: Pool) -> bool:
        """Whether a replica without its labels is out of traffic: by our own Service, or because there is none.

        A Service of ours is in the watch; after a start nobody has looked yet whose the others are.
        """
        if pool.adopts or pool.key in self.acts.foreign_services:
            return False
        found = self.state.pools.get(pool.key)
        if pool.key in self.state.services or found is None or found.spec is None:
            return True
        return manifests.service(pool.key, pool.uid, found.raw_spec["template"]) is None

    async def _isolate(self, one: Outside, pool_uid: str, entry: Entry) -> None:
        if await self.acts.isolate(one.pod, pool_uid, one.one):
            self.acts.recorder.note(entry)
        # By then the watch shows it isolated; where it does not, or the patch was refused, it is tried again.
        await asyncio.sleep(REFUSED_PAUSE_SECONDS)
        self._busy.discard(one.pod.uid)
        self.acts.wake()

    async def _drain(self, pod: Pod, why: str, entry: Entry | None = None) -> None:
        if await self.acts.drain(pod, why):
            if entry:
                self.acts.recorder.note(entry)
            return
        await asyncio.sleep(REFUSED_PAUSE_SECONDS)
        self._busy.discard(pod.uid)
        self._draining.discard(pod.uid)


def outside(
    pool: Pool, replicas: Iterable[Pod], nodes: Mapping[str, Node], now_time: float
) -> Iterator[tuple[Pod, Node]]:
    """Those of these replicas of a pool that run, or are about to, where the law for what runs does not allow it."""
    if not pool.standing_law.residency.restricted:
        return
    for pod in replicas:
        node = nodes.get(pod.place)
        # A node that is gone is another matter: its replicas are replaced, and nobody knows a place of it.
        if node is not None and not is_lawful(pool.standing_law, node, now_time):
            yield pod, node


def _due_time(pool: Pool, roll: RollCall, nodes: Mapping[str, Node], now_time: float) -> float | None:
    """Until when the evidence of every place of this pool is young enough that is so now; None: for ever."""
    most_seconds = pool.standing_law.drains_after_seconds
    if most_seconds is None:
        return None
    placed = (nodes.get(pod.node) for pod in roll.bound)
    times = (proven_time(node.labels.get(EVIDENCE_TIME_LABEL)) for node in placed if node is not None)
    ends = (time + most_seconds for time in times if time is not None)
    return min((end_time for end_time in ends if end_time >= now_time), default=None)


def _standing_alone(one: Isolated) -> tuple[Action, str]:
    """What is done about a replica that is out of traffic already, and the same for people."""
    if one.drains:
        return "Drain", "out of traffic; it ends within its grace"
    return "Isolate", "out of traffic; look at it, then delete it"


def _violation(one: Outside, node: Node | None) -> Violation:
    # Why it takes traffic to its end is said to its end.
    ends = one.pod.terminating and one.remedy != NOT_OUR_TRAFFIC
    remedy = "it is ending within its grace" if ends else one.remedy
    return isolation.told(one.pod, node, one.since_time, action=one.action, message=one.one.message, remedy=remedy)
