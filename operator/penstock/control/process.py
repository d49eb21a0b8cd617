"""The operator process: everything that is wired, and who watches whom. Any task's end ends the process."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from penstock.cluster.access import Access, find_access
from penstock.cluster.client import KubeClient
from penstock.cluster.events import Events
from penstock.cluster.feeds import informers
from penstock.cluster.informer import Informer
from penstock.cluster.journal import Journal
from penstock.cluster.lease import Elector, Timing
from penstock.cluster.probes import Probes
from penstock.cluster.prometheus import PrometheusTelemetry, Server
from penstock.cluster.roster import Roster
from penstock.cluster.state import ClusterState
from penstock.cluster.status_writer import StatusWriter
from penstock.control.acts import Acts
from penstock.control.decisionlog.epochs import Epochs
from penstock.control.decisionlog.recording import Recorder
from penstock.control.loop import ControlLoop
from penstock.control.nodelabels import NodeLabels
from penstock.control.power.capping import Capping
from penstock.control.power.deeds import Deeds
from penstock.control.power.ladder import Ladders
from penstock.control.power.shedding import Shedder
from penstock.control.report import Reporter
from penstock.control.residency.doubt_report import DoubtReporter
from penstock.control.residency.doubting import Doubting, table_of
from penstock.control.residency.isolating import Isolating
from penstock.control.residency.law_report import LawReporter
from penstock.control.residency.marking import Marking
from penstock.control.workloads import Workloads
from penstock.core.residency.doubts import Rules
from penstock.errors import TaskEnded
from penstock.handlers.watch import watch_written_kinds
from penstock.metrics import Metrics
from penstock.settings import Settings

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long writes under way may take after we were told to stop."""

STUCK_SECONDS = 60.0
SETTLE_SECONDS = 0.5
"""How long after a takeover the API server may still let an old fence through (0.16 s was measured)."""


@dataclass
class Acting:
    """The writes under way: spawned by the loop, awaited at the end. One that raises ends the process."""

    group: asyncio.TaskGroup
    under_way: set[asyncio.Task[None]] = field(default_factory=set)

    def spawn(self, act: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.group.create_task(act)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    async def drain(self) -> None:
        if self.under_way:
            await asyncio.wait(self.under_way, timeout=DRAIN_SECONDS)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Raises whatever ended a task otherwise."""
    # Lists of thousands of objects are made and kept; the default thresholds would scan them over and over.
    gc.set_threshold(50_000, 20, 50)
    asyncio.run(run(settings))
    return 0


async def run(settings: Settings) -> None:
    """Everything until a signal says stop; then writes under way are awaited and the Lease is given away."""
    metrics = Metrics()
    access = await find_access(str(settings.kubeconfig) if settings.kubeconfig else None, settings.context)
    async with KubeClient(access, metrics, settings.writes_in_flight) as client:
        operator = Operator(settings, access, client, metrics)
        await operator.run()


class Operator:
    """One operator process and its parts."""

    def __init__(self, settings: Settings, access: Access, client: KubeClient, metrics: Metrics) -> None:
        self.settings, self.access, self.client, self.metrics = settings, access, client, metrics
        self.state = ClusterState(hears_agents=settings.telemetry_source == "Agent")
        self.informers: tuple[Informer[Any], ...] = informers(
            client,
            self.state,
            metrics,
            settings.watch_quiet_seconds,
            verified_in=settings.namespace if settings.verification else "",
        )
        for one in self.informers:
            metrics.watch_age_seconds.labels(one.kind.resource).set_function(partial(getattr, one, "age_seconds"))
        metrics.verification_age_seconds.set_function(lambda: _age_seconds(self.state))
        timing = Timing(settings.lease_seconds, settings.renew_seconds, settings.retry_seconds)
        self.elector = Elector(client, settings.namespace, settings.identity, timing)
        self.events = Events(client, metrics, settings.identity)
        self.status_writer = StatusWriter(client, metrics, settings.status_writes_per_second)
        self.stopping = asyncio.Event()
        self.roster = Roster(client, self.state)
        self.journal = _journal(settings)
        self.epochs = _epochs(settings, client, self.state, self.journal)
        self.prometheus = _prometheus(settings, self.state)
        if self.prometheus:
            age_seconds = partial(getattr, self.prometheus, "age_seconds")
            metrics.watch_age_seconds.labels("prometheus").set_function(age_seconds)

    async def run(self) -> None:
        self._take_signals()
        async with asyncio.TaskGroup() as group:
            acting = Acting(group)
            loop = self._control_loop(acting)
            forever = [group.create_task(task) for task in self._tasks(loop)]
            leading = group.create_task(_never_ends("the control loop", self._lead(loop)))
            await self.stopping.wait()
            watched_time = time.time()
            log.info("stopping: no new decisions, %d writes under way", len(acting.under_way))
            leading.cancel()
            await acting.drain()
            if self.epochs:
                await self.epochs.end(watched_time)
            await self.elector.release()
            for task in forever:
                task.cancel()

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)

    def _tasks(self, loop: ControlLoop) -> list[Coroutine[Any, Any, None]]:
        probes = Probes(
            self.metrics,
            alive=lambda: self._illness(loop),
            ready=lambda: self._unreadiness(loop),
            port=self.settings.probe_port,
        )
        return [
            *(_never_ends(f"the watch of {one.kind.resource}", one.run()) for one in self.informers),
            _never_ends("the roster", self.roster.run()),
            _never_ends("the status writer", self.status_writer.run()),
            _never_ends("the event poster", self.events.run()),
            _never_ends("the probes", probes.run()),
            *((_never_ends("the decision log", self.journal.run()),) if self.journal else ()),
            *((_never_ends("the queries to Prometheus", self.prometheus.run()),) if self.prometheus else ()),
            watch_written_kinds(self.access, self.state, self.settings.watch_quiet_seconds),
        ]

    def _control_loop(self, acting: Acting) -> ControlLoop:
        acts = Acts(self.client, self.state, self.metrics, self.state.rouse, recorder=Recorder(self.journal))
        deeds = Deeds(self.state, self.events, self.metrics)
        capping = Capping(self.state, acts, acting.spawn, lambda: self.elector.fence)
        return ControlLoop(
            state=self.state,
            acts=acts,
            workloads=Workloads(self.state, acts, acting.spawn, self.settings.waiting_leaves_count_seconds),
            reporter=Reporter(self.state, self.status_writer, self.events, acts, self.metrics, self.settings),
            node_labels=NodeLabels(
                self.client,
                self.events,
                acting.spawn,
                self.settings.gpu_failed_seconds,
                self.settings.telemetry_lost_seconds,
            ),
            marking=Marking(self.client, self.state, acting.spawn),
            isolating=Isolating(self.state, acts, self.events, acting.spawn),
            law_reporter=LawReporter(self.state, self.status_writer, self.events),
            doubting=_doubting(self.settings, self.state),
            doubt_reporter=DoubtReporter(
                self.client, self.events, self.metrics, acting.spawn, self.settings.telemetry_source == "Agent"
            ),
            metrics=self.metrics,
            settings=self.settings,
            spawn=acting.spawn,
            fence=lambda: self.elector.fence,
            ladders=Ladders(self.state, deeds, Shedder(self.state, acts, acting.spawn, deeds), capping),
        )

    async def _lead(self, loop: ControlLoop) -> None:
        await self._synced()
        fence = await self.elector.acquire()
        async with asyncio.TaskGroup() as group:
            group.create_task(_never_ends("the Lease", self.elector.keep()))
            if self.epochs:
                group.create_task(_never_ends("the epoch of the decision log", self.epochs.run(fence)))
            group.create_task(_never_ends("the turns", self._decide(loop)))

    async def _decide(self, loop: ControlLoop) -> None:
        # What the leader before us decided last must be seen before anything new is decided: first its writes under
        # way have to meet our fence, then we read instead of waiting for the watch.
        await asyncio.sleep(SETTLE_SECONDS)
        await asyncio.gather(*(one.caught_up() for one in self.informers))
        self.metrics.leading.set(1)
        await loop.run()

    async def _synced(self) -> None:
        await asyncio.gather(*(one.synced.wait() for one in self.informers), self.roster.synced.wait())
        self.metrics.synced.set(1)
        # Everything listed by now lives as long as we do; the collector need not look at it again.
        gc.collect()
        gc.freeze()

    def _illness(self, loop: ControlLoop) -> str:
        """What only a restart would mend; empty where nothing is. Any task's death ends the process by itself."""
        if self.elector.leading and loop.turned_at is not None and time.monotonic() - loop.turned_at > STUCK_SECONDS:
            return f"the control loop has not turned for {time.monotonic() - loop.turned_at:.0f} s"
        return ""

    def _unreadiness(self, loop: ControlLoop) -> str:
        """Why we are not ready; empty where we are: synced and, if leading, deciding."""
        waiting = [one.kind.resource for one in self.informers if not one.synced.is_set()]
        if waiting or not self.roster.synced.is_set():
            return f"not synced: {', '.join(waiting) or 'what people wrote'}"
        if self.elector.leading and loop.turned_at is None:
            return "leading, but no decision was made yet"
        return ""


def _doubting(settings: Settings, state: ClusterState) -> Doubting:
    table = table_of(settings.regions, settings.clearances, time.time())
    return Doubting(state, Rules(table, settings.clearances, settings.place_steady_seconds))


def _journal(settings: Settings) -> Journal | None:
    if settings.decision_log_directory is None:
        return None
    return Journal(settings.decision_log_directory)


def _epochs(settings: Settings, client: KubeClient, state: ClusterState, journal: Journal | None) -> Epochs | None:
    if journal is None:
        return None
    retention_seconds = settings.decision_log_retention_days * 86_400.0
    # The uid of kube-system is what a cluster is known by: it lives as long as the cluster does.
    return Epochs(client, journal, settings.namespace, lambda: _uid(state, "kube-system"), retention_seconds, time.time)


def _age_seconds(state: ClusterState) -> float:
    """Of what was found when somebody tried last whether the API server holds the law."""
    return time.time() - state.verification.time if state.verification else math.inf


def _uid(state: ClusterState, namespace: str) -> str:
    found = state.namespaces.get(namespace)
    return found.uid if found else ""


def _prometheus(settings: Settings, state: ClusterState) -> PrometheusTelemetry | None:
    if settings.telemetry_source != "Prometheus":
        return None
    server = Server(
        url=settings.prometheus_url,
        interval_seconds=settings.prometheus_interval_seconds,
        poll_seconds=settings.prometheus_poll_seconds,
        timeout_seconds=settings.prometheus_timeout_seconds,
        token_file=settings.prometheus_token_file,
        ca_file=settings.prometheus_ca_file,
    )
    return PrometheusTelemetry(server, state)


async def _never_ends(name: str, work: Awaitable[None]) -> None:
    await work
    raise TaskEnded(f"{name} ended by itself")
