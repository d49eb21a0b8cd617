"""Ending pods of no pool that hold GPUs where the law of their namespace does not allow it.

Whom only policies in mode Audit would not have there is told, and left alone.

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
from penstock.core.decisionlog import entries
from penstock.core.model import Node, Pod
from penstock.core.residency import isolation, strangers
from penstock.core.residency.ceiling import Effective
from penstock.core.residency.strangers import Breach, Stranger

LOOK_SECONDS = 1.0
AUDITED = "the policy only audits, so nothing is done: see status.violations of the policy"
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
    _judged: dict[str, tuple[Effective, dict[str, tuple[Node, Breach | None]]]] = field(default_factory=dict)
    """By namespace and node, what the place breaks; for as long as the ceiling and the node are the same."""
    _due_time: float = math.inf
    """When time alone puts somebody outside: where the evidence of a place that was judged has to be younger."""
    _looked_at: float = float("-inf")
    _busy: set[str] = field(default_factory=set)

    def look(self, picture: Picture, now_at: float, now_time: float) -> None:
        """Find who is outside, and end them."""
        if now_at - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now_at
        if now_time > self._due_time:
            self._judged.clear()
            self._due_time = math.inf
        if self._since_time is None:
            self._recall()
        known = self.outside
        found = self._found(picture, now_at, now_time) if picture.laws.standings else ()
        self.outside = {_name(one): one for one in found}
        self._since_time = {(one.node, name): one.since_time for name, one in self.outside.items()}
        self._tell_new(known.keys())
        self._act(now_time)

    def violations(self, policy: str) -> tuple[PodOutside, ...]:
        """Whom this policy would not have where they are: the longest first."""
        found = (one for one in self.outside.values() if policy in one.breach.policies)
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
            if not pod.node or (found := self._broken(picture, pod.namespace, pod.node, now_time)) is None:
                continue
            if picture.is_stranger(pod):
                yield self._stranger((pod.namespace, pod.name), pod.node, found, now_time, pod)
        for node, name, found in self._unshown(picture, now_at, now_time):
            yield self._stranger(name, node, found, now_time)

    def _unshown(self, picture: Picture, now_at: float, now_time: float) -> Iterator[tuple[str, Name, Breach]]:
        """Pods at an unlawful place that only their kubelet speaks of, for long enough."""
        listed = {
            (node, (one.namespace, one.name)): found
            for node, heard in self.state.telemetry.items()
            for one in heard.pods or ()
            if (found := self._broken(picture, one.namespace, node, now_time)) is not None
        }
        shown = {(pod.node, (pod.namespace, pod.name)) for pod in self.state.pods.values()} if listed else set()
        self._unseen_at = {key: self._unseen_at.get(key, now_at) for key in listed.keys() - shown}
        for key, first_at in self._unseen_at.items():
            if self.state.telemetry[key[0]].heard_at - first_at >= UNSEEN_SECONDS:
                yield *key, listed[key]

    def _stranger(self, name: Name, node: str, found: Breach, now_time: float, pod: Pod | None = None) -> Stranger:
        since_time = (self._since_time or {}).get((node, name))
        since_time = strangers.since_time(pod, since_time, now_time) if pod else since_time or now_time
        message = isolation.sentence(self.state.nodes.get(node), found.law)
        return Stranger(*name, node, since_time, found, message, pod)

    def _broken(self, picture: Picture, namespace: str, name: str, now_time: float) -> Breach | None:
        """What a place breaks of the law of a namespace; None where there is none, or it allows the place."""
        law, node = picture.laws.settled(namespace).running, self.state.nodes.get(name)
        if law is None or node is None:  # A node that is gone is another matter: nobody knows a place of it.
            return None
        known = self._judged.get(namespace)
        if known is None or known[0] is not law:
            known = self._judged[namespace] = law, {}
        judged = known[1].get(name)
        if judged is None or judged[0] is not node:
            judged = known[1][name] = node, strangers.breach(law, node, now_time)
            self._due_time = min(self._due_time, strangers.due_time(law, node, now_time))
        return judged[1]

    def _tell_new(self, known: Collection[Name]) -> None:
        new = [one for name, one in self.outside.items() if name not in known]
        for one in new:
            if one.action != "Report":
                self._tell(one, "UnlawfulPlace", one.message)
        # The rate of Events is shared with those of a law in force that is broken: the statuses alone name later ones.
        audited = [one for one in new if one.action == "Report"]
        if audited and len(audited) == sum(one.action == "Report" for one in self.outside.values()):
            more = f"; and {len(audited) - 1} more pods of no pool" if len(audited) > 1 else ""
            self._tell(audited[0], "AuditViolation", f"{audited[0].message}{more}; {AUDITED}")

    def _tell(self, one: Stranger, reason: str, message: str) -> None:
        subject = Subject("Node", "", one.node, "", "v1")
        if one.pod is not None:
            subject = Subject("Pod", one.namespace, one.name, one.pod.uid, "v1")
        self.events.post(subject, "Warning", reason, f"{one.namespace}/{one.name}: {message}")

    # ---------------------------------------------------------------------------------------------------------- ending

    def _act(self, now_time: float) -> None:
        self._busy &= self.state.pods.keys()
        for one in self.outside.values():
            if one.is_ended and one.pod and not one.pod.terminating and one.pod.uid not in self._busy:
                self._busy.add(one.pod.uid)
                self.spawn(self._end(one, one.pod, now_time))

    async def _end(self, one: Stranger, pod: Pod, now_time: float) -> None:
        # As the place is now: by the time of the answer the node may be gone, or say another one.
        entry = entries.driven_out(pod, self.state.nodes.get(one.node), one.breach.law, one.message, now_time)
        if await self.acts.drain(pod, one.message):
            self.acts.recorder.note(entry)
            return
        await asyncio.sleep(REFUSED_PAUSE_SECONDS)
        self._busy.discard(pod.uid)


def _name(one: Stranger) -> Name:
    return one.namespace, one.name
