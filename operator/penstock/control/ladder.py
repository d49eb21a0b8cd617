"""Keeping each domain within its budget: how far up the ladder it is, and the evictions that this asks for.

What stands in the PowerDomain's own status (stage, since, reason, actions, who was shed) is read back after a start.
What is only minded here costs a restart at most some seconds: hold times begin anew.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from penstock.api.powerdomain import Ladder, LadderAction, LadderStatus, PowerDomainStatus, ShedReplicas
from penstock.cluster.events import Events, Severity, Subject
from penstock.cluster.objects import DomainObject
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts, Eviction, Spawn
from penstock.control.picture import Picture
from penstock.core import budget, ladder, pressure, shedding
from penstock.core.fleet import Fleet
from penstock.core.ladder import LadderState, Reading, Stage
from penstock.core.model import Domain, Pod, PoolKey
from penstock.core.pressure import Draw, Watts
from penstock.core.shedding import Allowance, Candidate, Cut, Shed
from penstock.core.status import utc
from penstock.core.verdicts import Decision

LOOK_SECONDS = 0.2
"""Pause between two looks: many turns pass while a meter says anything new."""
CREDIT_SECONDS = 15.0
"""A pod that is gone counts as saved for so long, or until its node reports again."""
SETTLE_SECONDS = 2.0
"""A report that was made sooner after a pod's end may still show its draw."""
ANSWER_SECONDS = 15.0
"""An eviction that shows no effect for so long is asked for again."""
REFUSED_SECONDS = 5.0
"""A pool whose eviction was refused is passed over for so long."""
HOUR_SECONDS = 3600.0
LONGEST_GRACE_SECONDS = 3600.0
"""No further ahead is looked for a budget that is to be shed for."""
MOST_ACTIONS = 32
MOST_SHED = 256
NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class _Asked:
    """An eviction that we asked for, of a pod that does not end yet."""

    one: Candidate
    asked_at: float


@dataclass(frozen=True, slots=True)
class _Gone:
    """What a pod that is gone drew: its node's next report will show less."""

    node: str
    watts: Watts
    gone_at: float


@dataclass
class Ladders:
    """Every domain's place on the ladder, and whoever was shed for it."""

    state: ClusterState
    acts: Acts
    events: Events
    spawn: Spawn
    version: int = 0
    """Rises with everything that a status shows."""
    shed: tuple[Shed, ...] = ()
    _states: dict[str, LadderState] = field(default_factory=dict)
    _settings: dict[str, Ladder] = field(default_factory=dict)
    _readings: dict[str, Reading] = field(default_factory=dict)
    _actions: dict[str, deque[LadderAction]] = field(default_factory=dict)
    _moved_at: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _asked: dict[str, _Asked] = field(default_factory=dict)
    _evicted: set[str] = field(default_factory=set)
    """Pods that we evicted and that are not gone yet, by uid."""
    _named: frozenset[str] = frozenset()
    """Pods that a leader before us evicted, by `namespace/name`."""
    _gone: list[_Gone] = field(default_factory=list)
    _refused_until_at: dict[PoolKey, float] = field(default_factory=dict)
    _sheds_from_at: float = -math.inf
    """After a start: what the leader before us evicted last may not show in the meters yet."""
    _looked_at: float = -math.inf
    _drawn: tuple[Fleet, Draw] | None = None
    _able: tuple[Candidate, ...] | None = None
    """Who may be shed, at the present look: worked out when first asked for."""

    # ------------------------------------------------------------------------------------------------- what others ask

    @property
    def held(self) -> frozenset[str]:
        """The domains in which nothing new is placed."""
        return frozenset(name for name, one in self._states.items() if one.stage.holds)

    @property
    def stages(self) -> Mapping[str, str]:
        return {name: one.stage.value for name, one in self._states.items()}

    def shed_of(self, pool: PoolKey) -> int:
        """How many of a pool's replicas wait because they were shed."""
        return sum(one.pool == pool for one in self.shed)

    def was_shed(self, pod: Pod) -> bool:
        """Whether we evicted this pod: then nobody has a right to return to its watts."""
        return pod.uid in self._evicted or f"{pod.namespace}/{pod.name}" in self._named

    def status(self, name: str) -> LadderStatus:
        """What a domain's status says of all this."""
        found = self._states.get(name, LadderState())
        return LadderStatus(
            stage=found.stage.value,
            since=utc(found.since_time) if found.since_time is not None else None,
            reason=found.reason,
            actions=tuple(self._actions.get(name, ())),
            shed=tuple(_by_pool(one for one in self.shed if one.domain == name))[:MOST_SHED],
            evicted_in_hour=len(self._moved_at[name]),
        )

    # ------------------------------------------------------------------------------------------------------- a start

    def recall(self, domains: Iterable[DomainObject], now_at: float, now_time: float) -> None:
        """After a start: what the domains' statuses say."""
        named: set[str] = set()
        for found in domains:
            written = _written(found)
            if written is None:
                continue
            since_time = written.since.timestamp() if written.since else None
            self._states[found.name] = ladder.recalled(
                Stage(written.stage), since_time, written.reason, now_at=now_at, now_time=now_time
            )
            self._actions[found.name] = deque(written.actions, MOST_ACTIONS)
            self._moved_at[found.name].extend([now_at] * written.evicted_in_hour)
            self.shed += tuple(_recalled_shed(found.name, written.shed))
            named |= {one.subject for one in written.actions if one.action == "Evict"}
        self._named = frozenset(named)
        if named:
            self._sheds_from_at = now_at + CREDIT_SECONDS

    # -------------------------------------------------------------------------------------------------------- a turn

    def climb(self, picture: Picture, now_at: float, now_time: float) -> None:
        """Read every domain, move it up or down, and evict what has to go."""
        self._observe(picture, now_at, now_time)
        if now_at - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now_at
        drawn = self._draw(picture.fleet)
        self._able = None
        for domain in picture.fleet.domains:
            reading = self._reading(picture, domain, drawn, now_time)
            self._climb_one(domain.name, reading, now_at, now_time)
        if now_at >= self._sheds_from_at:
            self._shed(picture, now_at, now_time)

    def placed(self, decisions: Iterable[Decision]) -> None:
        """Replicas that were shed and have a place again."""
        # A place for one without a pod only brings its pod into being: that is decided again.
        back = [one.replica.pool for one in decisions if one.replica.shed and one.replica.pod_uid]
        if back:
            self.shed = shedding.returned(self.shed, back)
            self.version += 1

    def _observe(self, picture: Picture, now_at: float, now_time: float) -> None:
        for uid, asked in list(self._asked.items()):
            pod = self.state.pods.get(uid)
            if pod is None or pod.terminating:
                del self._asked[uid]
            elif now_at - asked.asked_at > ANSWER_SECONDS:
                self._forget(uid)
        for _, pod in picture.departed:
            if watts := pressure.saved_watts(picture.before, pod):
                self._gone.append(_Gone(pod.node, watts, now_at))
        self._gone = [one for one in self._gone if not self._shows(one, now_at)]
        self._evicted &= self.state.pods.keys() | {pod.uid for _, pod in picture.departed}
        if self.shed:
            kept = shedding.still_waiting(self.shed, _missing(picture), now_time)
            self.version += kept != self.shed
            self.shed = kept
        self._forget_ended(picture)

    def _shows(self, one: _Gone, now_at: float) -> bool:
        """Whether what a pod drew shows in the meters no more."""
        told = self.state.telemetry.get(one.node)
        return now_at - one.gone_at > CREDIT_SECONDS or bool(told and told.heard_at > one.gone_at + SETTLE_SECONDS)

    def _forget_ended(self, picture: Picture) -> None:
        for name in self._states.keys() - picture.domains.keys():
            for memory in (self._states, self._settings, self._readings, self._actions, self._moved_at):
                memory.pop(name, None)

    def _draw(self, fleet: Fleet) -> Draw:
        if self._drawn is None or self._drawn[0] is not fleet:
            self._drawn = (fleet, pressure.draw(fleet))
        return self._drawn[1]

    def _reading(self, picture: Picture, domain: Domain, drawn: Draw, now_time: float) -> Reading:
        watts, schedule = drawn.watts[domain.name], domain.budget
        soon = budget.lowest_watts(schedule, now_time, now_time + ladder.TRIM_LEAD_SECONDS)
        return Reading(
            draw_watts=watts,
            budget_watts=budget.watts_at(schedule, now_time),
            trim_budget_watts=soon,
            shed_budget_watts=min(soon, self._shed_budget_watts(picture, domain, watts, now_time)),
            braked=domain.name in drawn.braked,
            confirmed=not domain.unconfirmed,
        )

    def _shed_budget_watts(self, picture: Picture, domain: Domain, draw_watts: float, now_time: float) -> float:
        """The lowest budget until the last of those whom it takes to keep it has ended."""
        settings, until_time = self._settings_of(domain.name), now_time + ladder.SHED_LEAD_SECONDS
        farthest = budget.lowest_watts(domain.budget, now_time, until_time + LONGEST_GRACE_SECONDS)
        if draw_watts * ladder.WHOLE_PERCENT >= settings.trim.enter_percent * farthest:
            target = settings.hold.exit_percent / ladder.WHOLE_PERCENT * farthest
            cut = Cut(domain.name, draw_watts - target, NO_LIMIT, emergency=True)
            chosen = shedding.choose(cut, self._candidates(picture), Allowance())
            until_time += max((one.pod.grace_seconds for one in chosen), default=0.0)
        return budget.lowest_watts(domain.budget, now_time, until_time)

    def _climb_one(self, name: str, reading: Reading, now_at: float, now_time: float) -> None:
        settings = self._settings_of(name)
        before = self._states.get(name, LadderState())
        after = ladder.climb(before, reading, settings, now_at=now_at, now_time=now_time)
        self._states[name], self._readings[name] = after, reading
        moved = self._moved_at[name]
        while moved and now_at - moved[0] > HOUR_SECONDS:
            moved.popleft()
        if after.stage is not before.stage:
            self._tell_stage(name, before.stage, after)

    def _settings_of(self, name: str) -> Ladder:
        found = self.state.domains.get(name)
        if found and found.spec:
            self._settings[name] = found.spec.ladder
        return self._settings.setdefault(name, Ladder())

    # ---------------------------------------------------------------------------------------------------------- shed

    def _shed(self, picture: Picture, now_at: float, now_time: float) -> None:
        shedding_domains = [name for name, one in self._states.items() if one.stage.sheds and name in self._readings]
        if not shedding_domains:
            return
        ending = _ending_watts(picture.fleet)
        allowed = shedding.allowance(picture.pools, picture.rolls, self._asked.keys())
        # A parent draws at least what its children do, so what is shed for them counts for it.
        for name in sorted(shedding_domains, key=lambda one: (self._readings[one].draw_watts, one)):
            cut = self._cut(name, ending)
            if cut is None:
                continue
            able = (one for one in self._candidates(picture) if self._may_ask(one, now_at))
            for one in shedding.choose(cut, able, allowed):
                self._evict(one, name, now_at, now_time)

    def _cut(self, name: str, ending: Watts) -> Cut | None:
        """What the domain has to lose yet; `None` where what is under way suffices."""
        reading, settings = self._readings[name], self._settings_of(name)
        emergency = self._states[name].stage is Stage.EMERGENCY
        coming = ending.get(name, 0.0) + self._credited(name)
        left = reading.draw_watts - coming - reading.trimmable_watts
        lowest = min(reading.shed_budget_watts, reading.budget_watts)
        if left * ladder.WHOLE_PERCENT < settings.trim.exit_percent * lowest:
            return None
        most = NO_LIMIT if emergency else settings.moves_per_hour - len(self._moved_at[name])
        return Cut(name, left - ladder.target_watts(reading, settings), most, emergency)

    def _credited(self, name: str) -> float:
        asked = sum(asked.one.watts.get(name, 0.0) for asked in self._asked.values())
        return asked + sum(one.watts.get(name, 0.0) for one in self._gone)

    def _candidates(self, picture: Picture) -> tuple[Candidate, ...]:
        if self._able is None:
            self._able = shedding.candidates(picture.fleet, picture.pools, picture.rolls)
        return self._able

    def _may_ask(self, one: Candidate, now_at: float) -> bool:
        return one.pod.uid not in self._asked and now_at >= self._refused_until_at.get(one.pool, -math.inf)

    def _evict(self, one: Candidate, domain: str, now_at: float, now_time: float) -> None:
        uid = one.pod.uid
        self._asked[uid] = _Asked(one, now_at)
        self._evicted.add(uid)
        self._moved_at[domain].append(now_at)
        self.shed += (Shed(one.pool, domain, one.watts[domain], now_time, uid),)
        self.spawn(self._evict_one(one, domain, now_at, now_time))

    async def _evict_one(self, one: Candidate, domain: str, now_at: float, now_time: float) -> None:
        outcome = await self.acts.evict(one.pod)
        if outcome.answer is Eviction.REFUSED:
            self._forget(one.pod.uid)
            self._refused_until_at[one.pool] = now_at + REFUSED_SECONDS
            self._tell_refused(one, domain, outcome.message, now_time)
            self.acts.wake()
        elif outcome.leaves:
            self._tell_evicted(one, domain, now_time)

    def _forget(self, uid: str) -> None:
        """An eviction that did not happen."""
        self._asked.pop(uid, None)
        self._evicted.discard(uid)
        self.shed = tuple(one for one in self.shed if one.uid != uid)
        self.version += 1

    # ---------------------------------------------------------------------------------------------------------- tell

    def _tell_stage(self, name: str, before: Stage, after: LadderState) -> None:
        self.version += 1
        severity: Severity = "Warning" if after.stage.height > before.height else "Normal"
        self._post(name, severity, f"Power{after.stage.value}", f"{before.value} → {after.stage.value}: {after.reason}")

    def _tell_evicted(self, one: Candidate, domain: str, now_time: float) -> None:
        watts = one.watts[domain]
        told = f"shed to keep PowerDomain/{domain} within its budget: its end saves {watts:,.0f} W there"
        self._act(domain, LadderAction(at=utc(now_time), action="Evict", subject=_subject(one), watts=round(watts)))
        self.events.post(
            Subject("Pod", one.pod.namespace, one.pod.name, one.pod.uid, "v1"), "Warning", "ShedByPower", told
        )

    def _tell_refused(self, one: Candidate, domain: str, message: str, now_time: float) -> None:
        subject, told = _subject(one), message[:512]
        self._act(domain, LadderAction(at=utc(now_time), action="Refused", subject=subject, message=told))
        self._post(domain, "Warning", "ShedRefused", f"{subject}: {told}")

    def _act(self, domain: str, action: LadderAction) -> None:
        self.version += 1
        self.acts.metrics.ladder_actions.labels(domain, action.action).inc()
        self._actions.setdefault(domain, deque(maxlen=MOST_ACTIONS)).appendleft(action)

    def _post(self, name: str, severity: Severity, reason: str, note: str) -> None:
        found = self.state.domains.get(name)
        self.events.post(Subject("PowerDomain", "", name, found.uid if found else ""), severity, reason, note)


def _subject(one: Candidate) -> str:
    return f"{one.pod.namespace}/{one.pod.name}"


def _ending_watts(fleet: Fleet) -> Watts:
    """What pods on their way out, ours or not, will take off each domain."""
    watts: Counter[str] = Counter()
    for row in fleet.rows:
        for pod in row.view.pods:
            if pod.terminating:
                for name, saved in pressure.saved_watts(fleet, pod).items():
                    watts[name] += saved  # type: ignore[assignment]  # Counter is typed for whole numbers
    return watts


def _missing(picture: Picture) -> Mapping[PoolKey, int]:
    return {
        key: max(0 if pool.adopts else pool.desired - len(roll.pinned) - len(roll.bound), len(roll.waiting))
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


def _recalled_shed(domain: str, written: Iterable[ShedReplicas]) -> Iterator[Shed]:
    for one in written:
        for _ in range(one.replicas):
            yield Shed(PoolKey(one.namespace, one.pool), domain, one.watts / one.replicas, one.since.timestamp())


def _written(found: DomainObject) -> LadderStatus | None:
    try:
        return PowerDomainStatus.model_validate(dict(found.status)).ladder
    except ValidationError:
        # An older version's status that cannot be read any more says nothing; it must not keep us from starting.
        return None
