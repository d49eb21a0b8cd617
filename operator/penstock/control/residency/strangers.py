"""Ending pods of no pool that hold GPUs where the law of their namespace does not allow it.

They came before the law or past it: bound before the policies were installed or their namespace was selected, put
there while the policies were away, or started by a kubelet from a file on its own disk. A static pod ends by no
request, so it is told until it is gone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from penstock.api.residencypolicy import PodOutside
from penstock.cluster.events import Events, Subject
from penstock.cluster.state import ClusterState
from penstock.control.acts import REFUSED_PAUSE_SECONDS, Acts, Spawn
from penstock.control.picture import Picture
from penstock.control.residency.ceilings import Roof
from penstock.control.residency.laws import is_lawful
from penstock.core.decisionlog import entries
from penstock.core.model import Node, Pod
from penstock.core.residency import isolation, strangers
from penstock.core.residency.ceiling import Effective
from penstock.core.residency.strangers import Stranger

LOOK_SECONDS = 1.0
RECHECK_SECONDS = 10.0
"""From look to look at every place where nothing changed: evidence ages."""
UNSEEN_SECONDS = 15.0
"""A pod that the API server does not show runs there if a report of this much later still lists it: until then it may
have ended just now, or be about to appear. A node that went silent says nothing new."""

Name = tuple[str, str]
"""Namespace and name: a kubelet tells no uid of the pods that it lists."""


@dataclass
class Strangers:
    """Who of no pool is outside the law, and what is done about it."""

    state: ClusterState
    acts: Acts
    events: Events
    spawn: Spawn
    outside: dict[Name, Stranger] = field(default_factory=dict)
    _since_time: dict[tuple[str, Name], float] | None = None
    """By node and pod: since when it is outside. None before the first look."""
    _unseen_at: dict[tuple[str, Name], float] = field(default_factory=dict)
    """When a pod that the API server does not show was first listed by its node."""
    _judged: dict[str, tuple[Roof, dict[str, tuple[Node, bool]]]] = field(default_factory=dict)
    """By namespace and node, whether the place is lawful; for as long as the ceiling and the node are the same."""
    _looked_at: float = float("-inf")
    _rechecked_at: float = float("-inf")
    _busy: set[str] = field(default_factory=set)

    def look(self, picture: Picture, now_at: float, now_time: float) -> None:
        """Find who is outside, and end them."""
        if now_at - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now_at
        if now_at - self._rechecked_at >= RECHECK_SECONDS:
            self._rechecked_at = now_at
            self._judged.clear()
        if self._since_time is None:
            self._recall()
        known = self.outside
        found = self._found(picture, now_at, now_time) if picture.laws.standings else ()
        self.outside = {_name(one): one for one in found}
        self._since_time = {(one.node, name): one.since_time for name, one in self.outside.items()}
        for name in self.outside.keys() - known.keys():
            self._tell(self.outside[name])
        self._act(now_time)

    def violations(self, namespaces: Collection[str]) -> tuple[PodOutside, ...]:
        """What is told of these namespaces: the longest first."""
        if not self.outside:
            return ()
        found = (one for one in self.outside.values() if one.namespace in namespaces)
        return tuple(strangers.told(one) for one in sorted(found, key=lambda one: (one.since_time, one.name)))

    # --------------------------------------------------------------------------------------------------------- finding

    def _recall(self) -> None:
        """Take over what the leader before us told: who was outside since when, whom the API server shows or not."""
        statuses = (one.status for one in self.state.policies.objects.values())
        told = [one for status in statuses for one in strangers.recalled(status)]
        self._since_time = {(one.node, (one.namespace, one.pod)): one.since.timestamp() for one in told}
        # Whom a request ends was shown then: what a node still says of it is a report from before it was gone.
        self._unseen_at = {(one.node, (one.namespace, one.pod)): -math.inf for one in told if one.action == "Report"}

    def _found(self, picture: Picture, now_at: float, now_time: float) -> Iterator[Stranger]:
        for pod in self.state.pods.values():
            if not pod.node or (law := self._broken(picture, pod.namespace, pod.node, now_time)) is None:
                continue
            if picture.is_stranger(pod):
                yield self._stranger((pod.namespace, pod.name), pod.node, law, now_time, pod)
        for node, name, law in self._unshown(picture, now_at, now_time):
            yield self._stranger(name, node, law, now_time)

    def _unshown(self, picture: Picture, now_at: float, now_time: float) -> Iterator[tuple[str, Name, Effective]]:
        """Pods at an unlawful place that only their kubelet speaks of, for long enough."""
        listed = {
            (node, (one.namespace, one.name)): law
            for node, heard in self.state.telemetry.items()
            for one in heard.pods or ()
            if (law := self._broken(picture, one.namespace, node, now_time)) is not None
        }
        shown = {(pod.node, (pod.namespace, pod.name)) for pod in self.state.pods.values()} if listed else set()
        self._unseen_at = {key: self._unseen_at.get(key, now_at) for key in listed.keys() - shown}
        for key, first_at in self._unseen_at.items():
            if self.state.telemetry[key[0]].heard_at - first_at >= UNSEEN_SECONDS:
                yield *key, listed[key]

    def _stranger(self, name: Name, node: str, law: Effective, now_time: float, pod: Pod | None = None) -> Stranger:
        since_time = (self._since_time or {}).get((node, name), now_time)
        if pod is not None and not strangers.is_static(pod):  # A pod is not outside before it is.
            since_time = max(since_time, min(pod.created_time, now_time))
        message = isolation.sentence(self.state.nodes.get(node), law)
        return Stranger(*name, node, since_time, law, message, pod)

    def _broken(self, picture: Picture, namespace: str, name: str, now_time: float) -> Effective | None:
        """The law of a namespace that a node is outside of; None where there is none, or it allows the place."""
        roof, node = picture.laws.settled(namespace).running, self.state.nodes.get(name)
        if roof is None or node is None:  # A node that is gone is another matter: nobody knows a place of it.
            return None
        known = self._judged.get(namespace)
        if known is None or known[0] is not roof:
            known = self._judged[namespace] = roof, {}
        judged = known[1].get(name)
        if judged is None or judged[0] is not node:
            judged = known[1][name] = node, is_lawful(roof.ceiling, node, now_time)
        return None if judged[1] else roof.ceiling

    def _tell(self, one: Stranger) -> None:
        subject = Subject("Node", "", one.node, "", "v1")
        if one.pod is not None:
            subject = Subject("Pod", one.namespace, one.name, one.pod.uid, "v1")
        self.events.post(subject, "Warning", "UnlawfulPlace", f"{one.namespace}/{one.name}: {one.message}")

    # ---------------------------------------------------------------------------------------------------------- ending

    def _act(self, now_time: float) -> None:
        self._busy &= self.state.pods.keys()
        for one in self.outside.values():
            if one.is_ended and one.pod and not one.pod.terminating and one.pod.uid not in self._busy:
                self._busy.add(one.pod.uid)
                self.spawn(self._end(one, one.pod, now_time))

    async def _end(self, one: Stranger, pod: Pod, now_time: float) -> None:
        # As the place is now: by the time of the answer the node may be gone, or say another one.
        entry = entries.driven_out(pod, self.state.nodes.get(one.node), one.law, one.message, now_time)
        if await self.acts.drain(pod, one.message):
            self.acts.recorder.note(entry)
            return
        await asyncio.sleep(REFUSED_PAUSE_SECONDS)
        self._busy.discard(pod.uid)


def _name(one: Stranger) -> Name:
    return one.namespace, one.name
