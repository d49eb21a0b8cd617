"""The control loop: observe, end, plan, lift, count, report. One planner, one writer, no memory that matters.

A turn is synchronous and short; what it decides is carried out by tasks of the process' own TaskGroup. Whatever a
turn assumes is booked at once, so the next turn may start before the API server has answered. Every turn observes, ends
and climbs; planning, and all that is said of the plan, may rest meanwhile, so that no eviction waits behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.api.names import EVIDENCE_TIME_LABEL
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts, Spawn
from penstock.control.advice import Advice
from penstock.control.draining import Draining
from penstock.control.learning import Learning
from penstock.control.nodelabels import NodeLabels
from penstock.control.picture import Picture
from penstock.control.power.ladder import Ladders
from penstock.control.power.returning import Rights
from penstock.control.power.shedding import Shedder
from penstock.control.report import Reporter, Scene
from penstock.control.residency.doubt_report import DoubtReporter
from penstock.control.residency.doubting import Doubting
from penstock.control.residency.isolating import Isolating
from penstock.control.residency.law_report import LawReporter
from penstock.control.residency.marking import Marking
from penstock.control.workloads import Workloads
from penstock.core import lifecycle, residency
from penstock.core.decisionlog import entries
from penstock.core.lifecycle import Ending, Verdict
from penstock.core.manifests import Lift
from penstock.core.model import Mode, Pod, PoolKey, Replica
from penstock.core.placement import choice
from penstock.core.placement.backoff import BackOff
from penstock.core.placement.choice import Decision, Plan
from penstock.core.pool import replicas
from penstock.core.residency import proof, standing
from penstock.core.telling import explanation
from penstock.metrics import Metrics
from penstock.settings import Settings

REST_RATIO = 2.0
LONGEST_REST_SECONDS = 0.05
"""After a turn the loop rests twice as long as it took, so that deciding never takes the core from the watches."""
TICK_SECONDS = 1.0
"""Time alone changes verdicts (telemetry turns stale, a wait turns long), so the loop turns at least this often."""
REPORTS_SECONDS = 0.25
"""From turn to turn where nothing but agents' reports came: one turn serves all that came meanwhile."""
PLAN_REST_RATIO = 4.0
LONGEST_PLAN_REST_SECONDS = 0.25
"""A plan that placed none of those who wait is made again after four times what it took, but no later than this."""


@dataclass
class Pace:
    """Whether a turn plans, or leaves it to the next so that the ladder may climb. Times are monotonic."""

    put_off: bool = False
    """Whether the last turn left planning to a later one."""
    _gave_way: bool = False
    _rests_until_at: float = -math.inf

    def plans(self, now_at: float, *, evicts: bool) -> bool:
        """Whether this turn plans. One that evicts gives way, so that the evictions leave first, but never twice."""
        self._gave_way = evicts and not self._gave_way
        self.put_off = self._gave_way or now_at < self._rests_until_at
        return not self.put_off

    def planned(self, now_at: float, took_seconds: float, *, in_vain: bool) -> None:
        """A plan that took so long was made by now; `in_vain`: somebody waits, and it placed nobody."""
        rest_seconds = min(PLAN_REST_RATIO * took_seconds, LONGEST_PLAN_REST_SECONDS)
        self._rests_until_at = now_at + rest_seconds if in_vain else -math.inf

    def due_seconds(self, now_at: float, report_seconds: float) -> float:
        """How long until a turn is due, where a report is due in `report_seconds`: it waits for the plan."""
        plan_seconds = max(self._rests_until_at - now_at, 0.0)
        return plan_seconds if self.put_off else max(plan_seconds, report_seconds)


@dataclass
class ControlLoop:
    """Turns what the cluster shows into acts and reports, while this process leads.

    `spawn` starts a supervised task; `fence` gives the leader's fence for each lift.
    """

    state: ClusterState
    acts: Acts
    workloads: Workloads
    reporter: Reporter
    node_labels: NodeLabels
    marking: Marking
    isolating: Isolating
    law_reporter: LawReporter
    doubting: Doubting
    doubt_reporter: DoubtReporter
    metrics: Metrics
    settings: Settings
    spawn: Spawn
    fence: Callable[[], str]
    ladders: Ladders
    picture: Picture = field(init=False)
    rights: Rights = field(init=False)
    shedder: Shedder = field(init=False)
    back_off: BackOff = field(init=False)
    draining: Draining = field(init=False)
    learning: Learning = field(init=False)
    advice: Advice = field(default_factory=Advice)
    pace: Pace = field(default_factory=Pace)
    turned_at: float | None = None
    """Our monotonic time of the last turn: readiness looks at it."""
    _touched: frozenset[PoolKey] = frozenset()
    """Pools that changed since the last plan."""
    _ending: set[str] = field(default_factory=set)
    _ranking: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        asked = self.settings
        self.picture = Picture(
            self.state,
            shared_activity_ceiling=asked.shared_activity_percent / 100,
            levels=asked.clearances,
            doubting=self.doubting,
            verified_seconds=asked.verification_max_age_seconds if asked.verification else None,
            exempt=standing.exempt(asked.namespace, asked.exempt_namespaces),
            gpu_resources=asked.gpu_resources,
        )
        self.rights = Rights(self.settings.return_seconds)
        self.shedder = self.ladders.shedder
        self.back_off = BackOff(self.settings.back_off_seconds)
        self.draining = Draining(self.acts, self.settings.gpu_failed_seconds)
        self.learning = Learning(self.state, self.settings.learned_write_seconds)
        self.reporter.learned = self.learning.written
        self.reporter.violations = self.isolating.violations
        self.law_reporter.strangers = self.isolating.strangers.violations
        self.acts.law_written = self.marking.written

    async def run(self) -> None:
        """Turn for ever: at once when something changed, soon when agents reported, else every second."""
        self.rights.recall(self.state.domains.values())
        self.ladders.recall(self.state.domains.values(), time.monotonic(), time.time())
        while True:
            self.fence()  # A leader that just thawed writes nothing more: only lifts are fenced by the API server.
            started_at = time.monotonic()
            self.turn(started_at, time.time())
            # What arrives meanwhile is taken in at once: under load one turn serves many events.
            await asyncio.sleep(min(REST_RATIO * (time.monotonic() - started_at), LONGEST_REST_SECONDS))
            now_at = time.monotonic()
            await rest(self.state, started_at, self.pace.due_seconds(now_at, self.reporter.due_seconds(now_at)))

    def turn(self, now_at: float, now_time: float) -> None:
        """One turn at this monotonic and this Unix time."""
        # 1. observe
        touched = self.picture.look(now_at, now_time)
        self._touched |= touched
        self.learning.observe(self.picture, now_at, now_time)
        self.rights.observe(self.picture, self.shedder.was_shed, now_time)
        # 2. end what cannot live where it is
        verdicts = self._verdicts(now_at, now_time)
        self._end(verdicts, now_at)
        for key, roll in self.picture.rolls.items():
            for pod in roll.failed:
                self.back_off.fail_once(key, pod.place, pod.uid, now_at)
        self.isolating.look(self.picture, touched, now_at, now_time)
        asked = set(self.shedder.asked)
        self.ladders.climb(self.picture, now_at, now_time)
        evicts = not asked.issuperset(self.shedder.asked)
        if self.pace.plans(now_at, evicts=evicts):
            self._decide(verdicts, now_at, now_time)
        elif evicts:
            self.state.rouse()  # Planning gave way for no longer than the evictions take to leave.
        self.turned_at = now_at

    def _decide(self, verdicts: dict[PoolKey, tuple[Verdict, ...]], now_at: float, now_time: float) -> None:
        started_at, touched, self._touched = time.monotonic(), self._touched, frozenset()
        # 3. plan
        waiting = self._waiting(now_at)
        plan = self._plan(waiting, now_time)
        # 4. lift
        self._lift(plan, waiting, now_at, now_time)
        self.acts.recorder.look(self.picture, self.state, touched, plan.waiting, now_time)
        # 5. count
        placed = {decision.replica.key for decision in plan.decisions}
        for key, pool in self.picture.pools.items():
            self.workloads.keep(pool, self.picture.rolls[key], placed, self.shedder.waiting_of(key), now_time)
        self._rank()
        # 6. report
        scene = Scene(self.picture, plan, verdicts, self.rights.standing, self.ladders, touched, now_at, now_time)
        self.reporter.report(scene)
        self.node_labels.keep(self.picture.fleet, now_at, now_time)
        self.metrics.layers_missing.set(sum(not one.verified for one in self.picture.laws.layers))
        self.marking.keep(self.picture.laws, now_at)
        self.law_reporter.report(self.picture, now_at, now_time)
        self.doubt_reporter.report(self.doubting, now_at, now_time)
        self.workloads.forget(touched - self.picture.pools.keys())
        ended_at = time.monotonic()
        self.pace.planned(ended_at, ended_at - started_at, in_vain=bool(waiting) and not plan.decisions)

    # --------------------------------------------------------------------------------------------------------- end

    def _verdicts(self, now_at: float, now_time: float) -> dict[PoolKey, tuple[Verdict, ...]]:
        nodes, lost_seconds = self.state.nodes, self.settings.node_lost_seconds
        found = {
            key: lifecycle.endings((*roll.pinned, *roll.bound), nodes, now_time, lost_seconds)
            for key, roll in self.picture.rolls.items()
        }
        broken = self.draining.verdicts(self.picture, now_at)
        both = {key: (*verdicts, *broken.get(key, ())) for key, verdicts in found.items()}
        return {key: verdicts for key, verdicts in both.items() if verdicts}

    def _end(self, verdicts: dict[PoolKey, tuple[Verdict, ...]], now_at: float) -> None:
        self._ending &= self.state.pods.keys()
        for key, pool_verdicts in verdicts.items():
            for verdict in pool_verdicts:
                if not verdict.delete or verdict.pod.uid in self._ending:
                    continue
                if verdict.ending is not Ending.LOST_NODE:
                    self.back_off.fail_once(key, verdict.node, verdict.pod.uid, now_at)
                if verdict.ending is Ending.FAILED_GPU:
                    self.draining.begin(verdict)
                    self.spawn(self.draining.evict(verdict))
                    continue
                self._ending.add(verdict.pod.uid)
                self.spawn(self._end_one(verdict))

    async def _end_one(self, verdict: Verdict) -> None:
        if not await self.acts.end(verdict):
            self._ending.discard(verdict.pod.uid)

    # -------------------------------------------------------------------------------------------------------- plan

    def _waiting(self, now_at: float) -> dict[str, Replica]:
        self.back_off.forget(self.state.pods.keys(), now_at)
        found = (
            replica
            for key, pool in self.picture.pools.items()
            for replica in replicas(
                pool, self.picture.rolls[key], self.back_off.nodes(key, now_at), self.shedder.waiting_of(key)
            )
        )
        return {replica.key: replica for replica in found}

    def _plan(self, waiting: dict[str, Replica], now_time: float) -> Plan:
        self.rights.keep_standing(self.picture, now_time)
        started_at = time.perf_counter()
        standing, held = self.rights.standing, self.ladders.held
        owed, asked = self.ladders.owed, tuple(waiting.values())
        self.advice.begin(waiting.keys())
        plan = choice.plan(self.picture.fleet, asked, standing, now_time, held, owed=owed, advise=self.advice.tell)
        if waiting:
            self.metrics.decision_seconds.observe(time.perf_counter() - started_at)
        return plan

    # -------------------------------------------------------------------------------------------------------- lift

    def _lift(self, plan: Plan, waiting: dict[str, Replica], now_at: float, now_time: float) -> None:
        for decision in plan.decisions:
            if decision.replica.rules.mode is Mode.ENFORCE and decision.replica.pod_uid:
                self._lift_one(decision, now_at, now_time)
        advised = {decision.replica.key: decision for decision in plan.decisions}
        for key, replica in waiting.items():
            if replica.rules.mode is Mode.ADVISE and replica.pod_uid:
                self._let_through(replica, advised.get(key), now_at, now_time)
        if plan.decisions:
            self.rights.standing = plan.rights
            self.shedder.placed(plan.decisions)

    def _lift_one(self, decision: Decision, now_at: float, now_time: float) -> None:
        pod = self.state.pods[decision.replica.pod_uid]
        self.state.assume(pod.uid, decision.node)
        lift = Lift(
            pod=pod,
            law=(decision.law,) if decision.law else (),
            node=decision.node,
            record=explanation.decision_text(decision),
            fence=self.fence(),
            deletion_cost=lifecycle.deletion_cost(decision.chosen.score),
        )
        self._send(lift, decision, now_at, now_time)

    def _let_through(self, replica: Replica, advice: Decision | None, now_at: float, now_time: float) -> None:
        """Advise: the gate is lifted with the law and no pin, whatever the planner would have chosen."""
        rules, ages = replica.residency, replica.residency.evidence_max_age_seconds is not None
        # A column that nobody asked for would be kept up to date from then on.
        times = self.picture.fleet.label(EVIDENCE_TIME_LABEL).present if ages else ()
        law, proven = residency.alternatives(rules), proof.not_outdated(rules, times, now_time)
        if not law or proven is None:
            return  # Nowhere on earth is lawful, and a lift without a law would be one to anywhere.
        pod = self.state.pods[replica.pod_uid]
        self.state.assume(pod.uid, "")
        lift = Lift(
            pod=pod,
            law=tuple((*way, *proven) for way in law),
            node="",
            record=explanation.advice_text(advice),
            fence=self.fence(),
        )
        self._send(lift, None, now_at, now_time)

    def _send(self, lift: Lift, decision: Decision | None, now_at: float, now_time: float) -> None:
        pod = lift.pod
        pool, heard = self.picture.pools[PoolKey(pod.namespace, pod.pool)], self.state.telemetry.get(lift.node)
        entry = entries.placed(
            pool,
            pod,
            self.state.nodes.get(lift.node),
            decision,
            fence=lift.fence,
            telemetry_age_seconds=now_at - heard.heard_at if heard else None,
            now_time=now_time,
        )
        seen_at = self.state.first_seen_at.get(pod.uid, now_at)
        self.spawn(self.acts.lift(lift, seen_at, entry, audit_required=pool.law.audit_required))

    # -------------------------------------------------------------------------------------------------------- rank

    def _rank(self) -> None:
        """Keep the order of a scale-down in line with the places that went bad, or recovered."""
        for roll in self.picture.rolls.values():
            for pod in roll.bound:
                if pod.deletion_cost is None or pod.uid in self._ranking:
                    continue
                troubled = pod.uid in self.draining.broken or self._troubled(pod.node)
                cost = lifecycle.rank_change(pod, troubled=troubled)
                if cost is not None:
                    self._ranking.add(pod.uid)
                    self.spawn(self._rank_one(pod, cost))

    def _troubled(self, name: str) -> bool:
        at = self.picture.fleet.position.get(name)
        if at is None:
            # Its replicas are being replaced, so their rank no longer matters.
            return False
        # Silent telemetry is no such trouble: it may last for one heartbeat, and two writes per pod would follow.
        node = self.picture.fleet.rows[at].view.node
        return node.cordoned or not node.ready

    async def _rank_one(self, pod: Pod, cost: int) -> None:
        await self.acts.rank(pod, cost)
        self._ranking.discard(pod.uid)


async def rest(state: ClusterState, turned_at: float, due_seconds: float) -> None:
    """Until the turn after the one that began at `turned_at` (monotonic), `due_seconds` from now at the latest."""
    await _set_within(state.wake, min(TICK_SECONDS, due_seconds))
    await _set_within(state.urgent, turned_at + REPORTS_SECONDS - time.monotonic())


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
