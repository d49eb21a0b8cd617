"""Telling people: statuses, Events and gauges, from the same picture that decisions were made on."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from penstock.api.inferencepool import InferencePoolStatus, LearnedWatts, Violation
from penstock.api.meta import Condition
from penstock.api.powerdomain import PowerDomainStatus
from penstock.api.stored import is_whole, stored
from penstock.cluster.events import Events, Severity, Subject
from penstock.cluster.objects import DomainObject
from penstock.cluster.state import ClusterState
from penstock.cluster.status_writer import StatusWriter
from penstock.control.acts import Acts
from penstock.control.picture import Picture
from penstock.control.placements import placed_facts
from penstock.control.power.idleness import Idleness
from penstock.control.power.ladder import Ladders
from penstock.control.power.power_metrics import PowerMetrics, Snapshot
from penstock.core import lifecycle, residency
from penstock.core.lifecycle import Verdict
from penstock.core.model import PoolKey, RightOfReturn
from penstock.core.placement.choice import Plan
from penstock.core.placement.evidence import Evidence, judge
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.verdicts import Waiting
from penstock.core.pool import Pool, RollCall
from penstock.core.power import book, domain_status, draw
from penstock.core.power.hurdles import Hurdle, hurdles
from penstock.core.telling import status, waits
from penstock.core.telling.status import PoolFacts
from penstock.errors import UNREADABLE
from penstock.metrics import Metrics
from penstock.settings import Settings

LOOK_SECONDS = 0.1
"""Pause between two looks at the same thing: under load many turns pass while one status is made."""
LOOK_REST_RATIO = 300.0
LONGEST_REST_SECONDS = 1.0
"""The domains of a large fleet rest three hundred times as long as the look at them took, but no longer than this."""
REFRESH_SECONDS = 5.0
"""Measured figures are looked at this often where nothing else changed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scene:
    """One turn, as the reporter needs it."""

    picture: Picture
    plan: Plan
    verdicts: Mapping[PoolKey, Sequence[Verdict]]
    rights: Sequence[RightOfReturn]
    ladders: Ladders
    touched: frozenset[PoolKey]
    now_at: float
    now_time: float

    @cached_property
    def waiting(self) -> Mapping[PoolKey, Sequence[Waiting]]:
        """The plan's waiting replicas by pool."""
        return _by_pool(self.plan.waiting)

    @cached_property
    def statements(self) -> Mapping[str, book.Statement]:
        """Every domain's account by name: worked out when first asked for, since it walks the whole fleet."""
        return {one.name: one for one in book.statements(self.picture.fleet, self.now_time, self.ladders.drawn)}


@dataclass
class Reporter:
    """Builds each status at most `status_writes_per_second` times a second, and hands over what changed."""

    state: ClusterState
    writer: StatusWriter
    events: Events
    acts: Acts
    metrics: Metrics
    settings: Settings
    learned: Callable[[PoolKey], tuple[LearnedWatts, ...]] = lambda _: ()
    """What a pool's status says of what was learned."""
    violations: Callable[[PoolKey], tuple[Violation, ...]] = lambda _: ()
    """What it says of replicas that are outside the law."""
    _pools: dict[PoolKey, InferencePoolStatus] = field(default_factory=dict)
    _domains: dict[str, PowerDomainStatus] = field(default_factory=dict)
    _uids: dict[object, str] = field(default_factory=dict)
    """Of which object each status was made: one deleted and made anew between two turns has none yet."""
    _next_at: dict[object, float] = field(default_factory=dict)
    _due: set[PoolKey] = field(default_factory=set)
    _spoiled: set[object] = field(default_factory=set)
    """Whose status could not be made when it was tried last."""
    _domains_due: bool = True
    _domains_next_at: float = 0.0
    _accounted: object = None
    """What the domains' accounts were last made from."""
    _told: Mapping[PoolKey, object] = field(default_factory=dict)
    """What each pool's replicas were last told: a wait that goes on unchanged is no news."""
    _refreshed_at: float = 0.0
    _idleness: Idleness = field(init=False)
    power: PowerMetrics = field(default_factory=PowerMetrics)

    def __post_init__(self) -> None:
        self.metrics.registry.register(self.power)
        self._idleness = Idleness(self.settings.idle_seconds)

    def report(self, scene: Scene) -> None:
        """Report what this turn found."""
        refresh = scene.now_at - self._refreshed_at >= REFRESH_SECONDS
        if refresh:
            self._refreshed_at = scene.now_at
        accounted = (scene.picture.fleet, scene.rights, scene.ladders.version)
        self._domains_due |= refresh or accounted != self._accounted
        self._accounted = accounted
        self._due |= set(scene.picture.pools) if refresh else {*scene.touched, *self._newly_told(scene)}
        self._due &= scene.picture.pools.keys()
        pools = [key for key in self._due if self._may_look(key, scene.now_at)]
        domains = self._domains_due and scene.now_at >= self._domains_next_at
        if pools or domains:
            self._look(scene, pools, domains=domains)
        self._tell_orphans(scene)
        self._forget_ended(scene.picture)

    def _tell_orphans(self, scene: Scene) -> None:
        """A gated pod whose pool does not exist has no status to say so: an Event on the pod does."""
        for key in scene.touched - scene.picture.pools.keys():
            for pod in self.state.pods_by_pool.get(key, {}).values():
                if pod.gated and not pod.terminating:
                    subject = Subject("Pod", pod.namespace, pod.name, pod.uid, "v1")
                    told = f"waits at our gate, but there is no InferencePool {key}: create it, or mend the pool label"
                    self.events.post(subject, "Warning", "NoInferencePool", told)

    def _newly_told(self, scene: Scene) -> Iterable[PoolKey]:
        told = {
            key: (scene.waiting.get(key), scene.verdicts.get(key))
            for key in scene.waiting.keys() | scene.verdicts.keys()
        }
        news = [key for key in told.keys() | self._told.keys() if told.get(key) != self._told.get(key)]
        self._told = told
        return news

    def due_seconds(self, now_at: float) -> float:
        """How long until something that changed may be reported; infinite where nothing did."""
        due = [self._next_at.get(key, 0.0) for key in self._due]
        due += [self._domains_next_at] if self._domains_due else []
        return max(min(due, default=math.inf) - now_at, 0.0)

    def _look(self, scene: Scene, pools: Collection[PoolKey], *, domains: bool) -> None:
        started_at = time.perf_counter()
        if domains:
            self._domains_due = False
            self._report_domains(scene)
            self.power.show(Snapshot(scene.picture.fleet, tuple(scene.statements.values()), scene.ladders.stages))
            rest_seconds = LOOK_REST_RATIO * (time.perf_counter() - started_at)
            self._domains_next_at = scene.now_at + min(max(rest_seconds, LOOK_SECONDS), LONGEST_REST_SECONDS)
        for key in pools:
            self._report_pool(scene, key)

    def _may_look(self, key: object, now_at: float) -> bool:
        return now_at >= self._next_at.get(key, 0.0)

    # ------------------------------------------------------------------------------------------------------- pools

    def _report_pool(self, scene: Scene, key: PoolKey) -> None:
        self._due.discard(key)
        self._next_at[key] = scene.now_at + LOOK_SECONDS
        with self._set_aside(key, scene.now_at):
            self._tell_pool(self._facts(scene, key), scene.now_at)

    def _wrote(self, key: object, now_at: float) -> None:
        self._next_at[key] = now_at + 1.0 / self.settings.status_writes_per_second

    def _tell_pool(self, facts: PoolFacts, now_at: float) -> None:
        key = facts.pool.key
        found = self.state.pools[key]
        known = self._pools.get(key) if self._is_same(key, found.uid) else None
        before = known or stored(InferencePoolStatus, found.status)
        after = status.pool_status(facts, before)
        self._pools[key] = after
        self._count(facts)
        if after == before and (known is not None or is_whole(InferencePoolStatus, found.status)):
            return
        self._wrote(key, now_at)
        subject = Subject("InferencePool", key.namespace, key.name, facts.pool.uid)
        self.writer.put(subject, after.as_json())
        self._post_turned(subject, before.conditions, after.conditions)

    def _facts(self, scene: Scene, key: PoolKey) -> PoolFacts:
        picture = scene.picture
        pool, roll = picture.pools[key], picture.rolls[key]
        placed = tuple(placed_facts(pool, roll, picture.fleet, scene.now_time))
        nodes = {one.node for one in placed}
        slow = lifecycle.slow_scheduler(roll.pinned, scene.now_time, self.settings.scheduler_slow_seconds)
        return PoolFacts(
            pool=pool,
            roll=roll,
            waiting=tuple(waits.waiting_facts(pool, roll, scene.waiting.get(key, ()))),
            placed=placed,
            measured_watts=self._drawn_watts(picture.fleet, key),
            effective_codes=residency.codes(pool.law.residency),
            stale_nodes=[name for name in sorted(nodes) if _stale(picture.fleet, name, scene.now_at)],
            over_budget=[
                domain_status.over_budget(scene.statements[name]) for name in book.over_budget(picture.fleet, nodes)
            ],
            without_domain=[name for name in sorted(nodes) if name and not book.domain_names(picture.fleet, name)],
            raised_watts=book.raised_watts(picture.fleet, key, nodes),
            idle=self._idleness.look(key, roll.bound, picture.fleet, scene.now_at),
            verdicts=scene.verdicts.get(key, ()),
            slow_pods=[pod.name for pod in slow],
            foreign_service=key in self.acts.foreign_services,
            learned=self.learned(key),
            violations=self.violations(key),
            refusal=self.acts.refusals.get(key, ""),
            unrecorded=self.acts.unrecorded.get(key, ""),
            shed=scene.ladders.shedder.waiting_of(key),
            hurdles=_hurdles(pool, roll, picture.fleet, scene.now_at),
            now_time=scene.now_time,
        )

    def _drawn_watts(self, fleet: Fleet, key: PoolKey) -> float:
        nodes = {pod.node for pod in self.state.pods_by_pool.get(key, {}).values()} & fleet.position.keys()
        return draw.pool_watts(fleet.rows[fleet.position[node]].view for node in nodes).get(key, 0.0)

    def _count(self, facts: PoolFacts) -> None:
        labels = (facts.pool.key.namespace, facts.pool.key.name)
        self.metrics.placed_replicas.labels(*labels).set(len(facts.placed))
        self.metrics.idle_replicas.labels(*labels).set(len(facts.idle))
        counts: dict[str, int] = defaultdict(int)
        for one in facts.waiting:
            counts[one.reason] += 1
        self.metrics.set_waiting(labels, counts)

    # ----------------------------------------------------------------------------------------------------- domains

    def _report_domains(self, scene: Scene) -> None:
        self.metrics.nodes_without_domain.set(len(book.nodes_without_domain(scene.picture.fleet)))
        statements = scene.statements
        for name, found in self.state.domains.items():
            if not self._may_look(name, scene.now_at):
                self._domains_due |= name not in self._spoiled
                continue
            self._spoiled.discard(name)
            with self._set_aside(name, scene.now_at):
                self._tell_domain(scene, found, statements.get(name))

    def _tell_domain(self, scene: Scene, found: DomainObject, statement: book.Statement | None) -> None:
        name = found.name
        known = self._domains.get(name) if self._is_same(name, found.uid) else None
        before = known or stored(PowerDomainStatus, found.status)
        facts = domain_status.DomainFacts(
            name=name,
            generation=found.generation,
            problems=scene.picture.power.problems.get(name, ()),
            statement=statement,
            rights=tuple(right for right in scene.rights if right.domain == name),
            now_time=scene.now_time,
            ladder=scene.ladders.status(name, before.ladder, statement, scene.now_at),
            standing=scene.picture.power.standings.get(name),
        )
        after = domain_status.domain_status(facts, before)
        self._domains[name] = after
        if after == before and (known is not None or is_whole(PowerDomainStatus, found.status)):
            return
        self._wrote(name, scene.now_at)
        subject = Subject("PowerDomain", "", name, found.uid)
        self.writer.put(subject, after.as_json())
        self._post_turned(subject, before.conditions, after.conditions)

    # ------------------------------------------------------------------------------------------------------ shared

    @contextlib.contextmanager
    def _set_aside(self, key: object, now_at: float) -> Iterator[None]:
        """One status that cannot be made is said and tried again later; it never keeps the others from being made."""
        try:
            yield
        except UNREADABLE:
            log.exception("the status of %s cannot be made", key)
            self._spoiled.add(key)
            self._next_at[key] = now_at + REFRESH_SECONDS

    def _is_same(self, key: object, uid: str) -> bool:
        same = self._uids.get(key) == uid
        self._uids[key] = uid
        return same

    def _post_turned(self, subject: Subject, before: Iterable[Condition], after: Iterable[Condition]) -> None:
        """An Event for each condition that turned, or that is False for another reason now."""
        known = {one.type: (one.status, one.reason) for one in before}
        for one in after:
            if known.get(one.type, ("True", one.reason)) != (one.status, one.reason):
                severity: Severity = "Normal" if one.status == "True" else "Warning"
                self.events.post(subject, severity, one.reason, one.message)

    def _forget_ended(self, picture: Picture) -> None:
        for key in self._pools.keys() - picture.pools.keys():
            del self._pools[key]
            self._due.discard(key)
            self._idleness.forget(key)
            self.metrics.forget_pool(key.namespace, key.name)
            self._forget(key)
        for name in self._domains.keys() - self.state.domains.keys():
            del self._domains[name]
            self.metrics.forget_domain(name)
            self._forget(name)

    def _forget(self, key: object) -> None:
        self._uids.pop(key, None)
        self._next_at.pop(key, None)
        self._spoiled.discard(key)


def _by_pool(waiting: Iterable[Waiting]) -> dict[PoolKey, list[Waiting]]:
    found: dict[PoolKey, list[Waiting]] = defaultdict(list)
    for one in waiting:
        found[one.replica.pool].append(one)
    return found


def _hurdles(pool: Pool, roll: RollCall, fleet: Fleet, now_at: float) -> tuple[Hurdle, ...]:
    watts = pool.rules.min_cap_watts
    return () if watts is None else hurdles(fleet, roll.bound, watts, now_at)


def _stale(fleet: Fleet, name: str, now_at: float) -> bool:
    at = fleet.position.get(name)
    return at is not None and judge(fleet.rows[at].view.telemetry, now_at) is not Evidence.FRESH
