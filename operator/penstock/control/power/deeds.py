"""What the ladder did, told: the latest actions in each domain's status, and Events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock.api.powerdomain import LadderAction
from penstock.cluster.events import Events, Severity, Subject
from penstock.cluster.state import ClusterState
from penstock.core.placement.fleet import Fleet
from penstock.core.power.capping import CapAsk, CapPlan
from penstock.core.power.ladder import LadderState, Stage
from penstock.core.power.shedding import Candidate
from penstock.core.telling.figures import utc
from penstock.metrics import Metrics

MOST_ACTIONS = 32


@dataclass
class Deeds:
    """The actions by domain, newest first."""

    state: ClusterState
    events: Events
    metrics: Metrics
    version: int = 0
    """Rises with everything that is told."""
    _actions: dict[str, deque[LadderAction]] = field(default_factory=dict)

    def of(self, domain: str) -> tuple[LadderAction, ...]:
        return tuple(self._actions.get(domain, ()))

    def recall(self, domain: str, actions: Iterable[LadderAction]) -> None:
        self._actions[domain] = deque(actions, MOST_ACTIONS)

    def forget(self, domain: str) -> None:
        self._actions.pop(domain, None)

    def tell_stage(self, domain: str, before: Stage, after: LadderState) -> None:
        self.version += 1
        severity: Severity = "Warning" if after.stage.height > before.height else "Normal"
        told = f"{before.value} → {after.stage.value}: {after.reason}"
        self._post(domain, severity, f"Power{after.stage.value}", told)

    def tell_evicted(self, one: Candidate, domain: str, now_time: float) -> None:
        watts = one.watts[domain]
        told = f"shed to keep PowerDomain/{domain} within its budget: its end saves {watts:,.0f} W there"
        self._note(domain, LadderAction(at=utc(now_time), action="Evict", subject=_name(one), watts=round(watts)))
        subject = Subject("Pod", one.pod.namespace, one.pod.name, one.pod.uid, "v1")
        self.events.post(subject, "Warning", "ShedByPower", told)

    def tell_refused(self, one: Candidate, domain: str, message: str, now_time: float) -> None:
        told = message[:512]
        self._note(domain, LadderAction(at=utc(now_time), action="Refused", subject=_name(one), message=told))
        self._post(domain, "Warning", "ShedRefused", f"{_name(one)}: {told}")

    def tell_caps(self, fleet: Fleet, plan: CapPlan, now_time: float) -> None:
        """The replicas whose power limits are lower or higher than before, in every domain of their node."""
        changed = plan.lowered | plan.raised
        moved = {ask.pod_uid: ask for ask in plan.asks if ask.pod_uid in changed}
        for uid, ask in moved.items():
            lowered = uid in plan.lowered
            self._tell_cap(fleet, ask, f"{ask.watts:.0f} W per GPU asked for on {ask.node}", now_time, lowered=lowered)
        for ask in {ask.pod_uid: ask for ask in plan.given_back}.values():
            told = f"nothing is asked for on {ask.node} any more: back to {ask.watts:.0f} W per GPU"
            self._tell_cap(fleet, ask, told, now_time, lowered=False)

    def _tell_cap(self, fleet: Fleet, ask: CapAsk, told: str, now_time: float, *, lowered: bool) -> None:
        action = LadderAction(
            at=utc(now_time),
            action="Cap" if lowered else "Uncap",
            subject=f"{ask.namespace}/{ask.pod}",
            watts=round(ask.watts),
            message=told,
        )
        at = fleet.position.get(ask.node)
        for domain in fleet.rows[at].domains if at is not None else ():
            self._note(fleet.domains[domain].name, action)
        subject = Subject("Pod", ask.namespace, ask.pod, ask.pod_uid, "v1")
        self.events.post(subject, "Warning" if lowered else "Normal", "PowerLimit", told)

    def _note(self, domain: str, action: LadderAction) -> None:
        self.version += 1
        self.metrics.ladder_actions.labels(domain, action.action).inc()
        self._actions.setdefault(domain, deque(maxlen=MOST_ACTIONS)).appendleft(action)

    def _post(self, domain: str, severity: Severity, reason: str, note: str) -> None:
        found = self.state.domains.get(domain)
        self.events.post(Subject("PowerDomain", "", domain, found.uid if found else ""), severity, reason, note)


def _name(one: Candidate) -> str:
    return f"{one.pod.namespace}/{one.pod.name}"
