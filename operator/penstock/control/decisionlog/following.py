"""Every replica that has a place, followed for the decision log: found, seen elsewhere or otherwise, and gone.

A placement that the log has is no news until its place or the law says otherwise. What runs when a leader begins is
written down at once and whole, so that whoever is missing from it is known to have ended while nobody led.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.core.decisionlog import entries
from penstock.core.decisionlog.entries import Followed
from penstock.core.decisionlog.record import Entry
from penstock.core.model import Node, PlacementRules, Pod, PoolKey
from penstock.core.pool import Pool
from penstock.core.residency import whereabouts
from penstock.core.residency.ceiling import NO_LAW, Effective
from penstock.core.residency.whereabouts import Sighting

RECHECK_SECONDS = 10.0
"""From look to look at everybody where nothing changed: evidence ages."""


@dataclass
class Following:
    """Who runs where, as the log has it. `note` writes an entry."""

    note: Callable[[Entry], None]
    _followed: dict[PoolKey, dict[str, Followed]] = field(default_factory=dict)
    """By pool and by the pod's uid."""
    _decided: dict[str, Entry] = field(default_factory=dict)
    """Placements that are recorded and not seen yet, by the pod's uid."""
    _began: bool = False
    _looked_time: float = -math.inf
    _sightings: dict[tuple[int, str], Sighting] = field(default_factory=dict)
    """In one look: what a law says of a node."""

    def decided(self, placement: Entry) -> None:
        """A placement is on record."""
        self._decided[placement.data["pod"]["uid"]] = placement

    def took_back(self, uid: str) -> Entry | None:
        """A placement that is on record did not come about: that record, where no later one speaks of the pod."""
        return self._decided.pop(uid, None)

    def tell_anew(self) -> None:
        """Some of what was noted is not in the log: write down at the next look who is where, as a leader begins."""
        self._began, self._looked_time = False, -math.inf
        # A placement that was not seen yet is in no census, so it is written down once it is.
        self._decided = {uid: replace(one, data={**one.data, "chosen": None}) for uid, one in self._decided.items()}

    def sees(self, uid: str) -> bool:
        """Whether this pod was seen at a place at the last look."""
        return any(uid in members for members in self._followed.values())

    def look(self, picture: Picture, state: ClusterState, touched: Collection[PoolKey], now_time: float) -> None:
        """Note what changed of whom in these pools. A law that changes touches its pools, and so does a node whose
        place does.
        """
        self._sightings = {}
        begins, everybody = not self._began, now_time - self._looked_time >= RECHECK_SECONDS
        if everybody:
            self._began, self._looked_time = True, now_time
            touched = picture.pools.keys() | self._followed.keys() | set(touched)
        if begins:
            # Whoever is in its grace runs on though its pool is gone.
            keys = {*touched, *state.pods_by_pool, *state.isolated}
            pools = {key: picture.pools.get(key) or _gone(picture, key) for key in keys}
            found = {key: dict(self._present(pool, state, now_time)) for key, pool in pools.items()}
            self._followed = {key: members for key, members in found.items() if members}
            self.note(entries.census((one for members in found.values() for one in members.values()), now_time))
            return
        for key in touched:
            self._look_at(picture, state, key, now_time)
        for uid in self._decided.keys() - state.pods.keys():
            self.note(entries.ended_unseen(self._decided.pop(uid), now_time))

    def _look_at(self, picture: Picture, state: ClusterState, key: PoolKey, now_time: float) -> None:
        known = self._followed.get(key, {})
        pool = picture.pools.get(key) or next((one.pool for one in known.values()), None)
        present = dict(self._present(pool, state, now_time)) if pool else {}
        for uid, one in present.items():
            if uid not in known and self._is_as_decided(one):
                continue
            if uid not in known or known[uid].sighting != one.sighting:
                self.note(entries.observed(one, now_time))
        for uid in known.keys() - present.keys():
            self._end(known[uid], state.pods.get(uid), now_time)
        if present:
            self._followed[key] = present
        else:
            self._followed.pop(key, None)

    def _present(self, pool: Pool, state: ClusterState, now_time: float) -> Iterator[tuple[str, Followed]]:
        """The pool's replicas that have a place, by uid: those that lost its label too."""
        known = self._followed.get(pool.key, {})
        isolated = state.isolated.get(pool.key, {})
        candidates = {**state.pods_by_pool.get(pool.key, {}), **isolated}
        candidates.update({uid: state.pods[uid] for uid in known if uid in state.pods})
        for uid, pod in candidates.items():
            # One that is only booked has its record already, and its place once the API server shows it there.
            if not pod.place or pod.gated or pod.finished or state.assumes(uid):
                continue
            if uid in known or uid in isolated or pool.owns(pod):
                yield uid, self._follow(pool, pod, state.nodes.get(pod.place), known.get(uid), now_time)

    def _follow(self, pool: Pool, pod: Pod, node: Node | None, known: Followed | None, now_time: float) -> Followed:
        if node is not None:
            return Followed(pool, pod, node, self._sight(node, pool.standing_law, now_time))
        if known is not None and known.node is not None and known.node.name == pod.place:
            # Its object is gone, and it stands where it stood.
            return Followed(pool, pod, known.node, whereabouts.sight(known.node, pool.standing_law, now_time))
        return Followed(pool, pod, None, whereabouts.unknown(pod.place, pool.standing_law))

    def _sight(self, node: Node, law: Effective, now_time: float) -> Sighting:
        key = (id(law), node.name)
        if key not in self._sightings:
            self._sightings[key] = whereabouts.sight(node, law, now_time)
        return self._sightings[key]

    def _is_as_decided(self, one: Followed) -> bool:
        """Whether the record of its placement says all there is to say."""
        decided = self._decided.pop(one.pod.uid, None)
        chosen = decided.data["chosen"] if decided else None
        if chosen is None or one.sighting.outside:
            return False
        return whereabouts.place(chosen["node"], chosen["labels"]) == one.sighting.place

    def _end(self, one: Followed, pod: Pod | None, now_time: float) -> None:
        told = pod.failure or pod.phase.value if pod is not None and pod.finished else "Deleted"
        self.note(entries.ended(one, told, now_time))


def _gone(picture: Picture, key: PoolKey) -> Pool:
    """A pool of which only replicas are left: they are under what policies demand of the namespace."""
    law = picture.laws.settled(key.namespace).running or NO_LAW
    return Pool(key, "", 0, desired=0, rules=PlacementRules(), law=law, standing_law=law)
