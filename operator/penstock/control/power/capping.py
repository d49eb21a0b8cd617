"""Keeping `GPUNode.spec.caps` what the plan says: the only writer of it, and what it remembers of its own asks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.api.names import GROUP, VERSION
from penstock.cluster.client import MERGE_PATCH
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts, Spawn, Unanswered
from penstock.core.model import Cap
from penstock.core.placement.fleet import Fleet
from penstock.core.power.cappable import Asked, Cappable, Memo, cappable, every_cappable, trimmable_watts
from penstock.core.power.capping import CapAsk, CapPlan, Need, Room, plan_caps
from penstock.core.power.trimming import Owed, owed
from penstock.core.telling.figures import rfc3339
from penstock.errors import ApiError

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
RENEW_SECONDS = 45.0
"""While a node has caps we say so this often: a capper takes us for silent after 120 s, and raises nothing then."""
UNSEEN_SECONDS = 5.0
"""So long the watch may take to show what we wrote; then it is written again."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was last asked of one node, and when (monotonic)."""

    caps: frozenset[Cap]
    urgent: bool
    sent_at: float


@dataclass
class Capping:
    """Which limits are asked for, node by node.

    `fence` gives the leader's fence for each write. After a start the first look takes over what stands in the specs.
    """

    state: ClusterState
    acts: Acts
    spawn: Spawn
    fence: Callable[[], str]
    plan: CapPlan = CapPlan()
    memo: Memo = field(default_factory=dict)
    owed: tuple[Owed, ...] = ()
    """What new placements leave to those that are capped."""
    _asked: dict[str, Asked] = field(default_factory=dict)
    """By pod uid."""
    _sent: dict[str, _Sent] = field(default_factory=dict)
    _writing: set[str] = field(default_factory=set)
    _recalled: bool = False
    _looked_at: float = -math.inf
    _able: tuple[Fleet, tuple[Cappable, ...]] | None = None

    # ------------------------------------------------------------------------------------------------- what others ask

    def trimmable_watts(self, fleet: Fleet, leaving: Collection[str], now_at: float) -> Mapping[str, float]:
        """Per domain, what caps could take off its draw, those asked for and not yet in force included.

        Whoever ends, or is about to (`leaving`, by uid), saves that and more by his end.
        """
        able = self._cappable(fleet, now_at)
        return trimmable_watts(one for one in able if not one.pod.terminating and one.pod.uid not in leaving)

    def due(self, fleet: Fleet, now_at: float) -> bool:
        """Whether it is time to look again, and there is anything to look at: a pool that lets itself be capped, or a
        limit that is not given back yet.
        """
        if now_at - self._looked_at < LOOK_SECONDS:
            return False
        opted_in = any(rules.min_cap_watts is not None for rules in fleet.context.pools.rules.values())
        return opted_in or bool(self._asked or self.owed or self._concerned(now_at))

    # --------------------------------------------------------------------------------------------------------- a turn

    def turn(
        self, fleet: Fleet, needs: Mapping[str, Need], rooms: Mapping[str, Room], now_at: float, now_time: float
    ) -> CapPlan:
        """Plan and write. Call it when it is due."""
        self._looked_at = now_at
        if not self._recalled:
            self._recall(now_at)
        self.plan = plan_caps(fleet, self._cappable(fleet, now_at), self._asked, needs, rooms, now_at)
        self._remember(now_at)
        self.owed = owed(fleet, every_cappable(fleet, now_at, self.memo))
        urgent = frozenset(name for name, need in needs.items() if need.urgent)
        asks = self.plan.by_node()
        for node in self._concerned(now_at):
            caps = frozenset(_cap(ask) for ask in asks.get(node, ()))
            self._keep(node, caps, urgent=bool(urgent & _domains(fleet, node)), now_at=now_at, now_time=now_time)
        return self.plan

    def _recall(self, now_at: float) -> None:
        self._recalled, self._able = True, None
        for telemetry in self.state.telemetry.values():
            for cap in telemetry.caps:
                self._asked.setdefault(cap.pod_uid, Asked(cap.watts, now_at))

    def _remember(self, now_at: float) -> None:
        asked = {ask.pod_uid: ask.watts for ask in self.plan.asks}
        self._asked = {
            uid: known if (known := self._asked.get(uid)) and known.watts == watts else Asked(watts, now_at)
            for uid, watts in asked.items()
        }
        self._able = None
        for name in self.memo.keys() - self.state.nodes.keys():
            del self.memo[name]

    def _cappable(self, fleet: Fleet, now_at: float) -> tuple[Cappable, ...]:
        if self._able is None or self._able[0] is not fleet:
            self._able = (fleet, cappable(fleet, self._asked, now_at, self.memo))
        return self._able[1]

    # ---------------------------------------------------------------------------------------------------------- write

    def _concerned(self, now_at: float) -> list[str]:
        """Nodes with caps, and those whose capper has yet to give something back."""
        asked = {ask.node for ask in self.plan.asks}
        standing = {
            name
            for name, one in self.state.telemetry.items()
            if one.caps or (one.capper and one.capper.has_caps and not one.capper.gone(now_at))
        }
        return sorted(asked | standing)

    def _keep(self, node: str, caps: frozenset[Cap], *, urgent: bool, now_at: float, now_time: float) -> None:
        telemetry = self.state.telemetry.get(node)
        if telemetry is None or node in self._writing:
            return
        sent = self._sent.get(node)
        waiting = sent is not None and now_at - sent.sent_at < UNSEEN_SECONDS
        known = sent.caps if sent and waiting else frozenset(telemetry.caps)
        renewed = sent is not None and now_at - sent.sent_at < RENEW_SECONDS
        if caps == known and renewed and sent is not None and sent.urgent == urgent:
            return
        self._sent[node] = _Sent(caps, urgent, now_at)
        self._writing.add(node)
        self.spawn(self._write(node, _document(caps, self.fence(), now_time, urgent=urgent)))

    async def _write(self, node: str, document: dict[str, Any]) -> None:
        path = f"/apis/{GROUP}/{VERSION}/gpunodes/{node}"
        try:
            await self.acts.client.patch(path, msgspec.json.encode(document), MERGE_PATCH)
        except (ApiError, *Unanswered) as error:
            log.warning("asking %s for power limits failed: %s", node, error)
        finally:
            self._writing.discard(node)


def _domains(fleet: Fleet, node: str) -> frozenset[str]:
    at = fleet.position.get(node)
    return frozenset() if at is None else frozenset(fleet.domains[one].name for one in fleet.rows[at].domains)


def _cap(ask: CapAsk) -> Cap:
    return Cap(ask.uuid, ask.watts, ask.namespace, ask.pod, ask.pod_uid)


def _document(caps: frozenset[Cap], fence: str, now_time: float, *, urgent: bool) -> dict[str, Any]:
    asked = [
        {"uuid": cap.uuid, "watts": cap.watts, "namespace": cap.namespace, "pod": cap.pod, "podUID": cap.pod_uid}
        for cap in sorted(caps, key=lambda cap: cap.uuid)
    ]
    spoken = rfc3339(now_time)
    return {"spec": {"caps": asked, "capsFence": fence, "capsAt": spoken, "capsUrgent": urgent}}
