"""What the decision log costs the placement path: the same replicas without it, with it, and waiting for each record.

`python -m bench.bench_record [rounds]`. Every arm runs under the same law on one control plane, in turn, so that what
else runs on the machine slows all alike; times come from the API server's audit log, the log lies on this machine's
disk. The journal alone is told beside it: how many records a second are durable that a hundred waiters share.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import builders as a
from bench.bench_decisions import GERMANY, fleet_of, one_class
from bench.bench_placement import CEILING_SECONDS, PODS, POOLS, Rig, at, lifts, pool
from bench.figures import Figure, show, wanted_cores
from penstock.api.names import API_VERSION
from penstock.cluster.journal import Journal
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts
from penstock.control.decisionlog.recording import Recorder
from penstock.control.loop import LONGEST_REST_SECONDS, REST_RATIO
from penstock.core.decisionlog import entries
from penstock.core.decisionlog.record import Entry, Happening
from penstock.core.manifests import Lift
from penstock.core.model import PlacementRules
from penstock.core.placement import choice as placement
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.verdicts import Decision
from penstock.core.pool import Pool
from penstock.core.residency.ceiling import Effective
from penstock.core.telling import explanation
from penstock.metrics import Metrics
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart
from rig.telemetry import Publisher
from rig.waiting import wait_for

NODES = 50
REPLICAS = 400
GPUS = 8
LEAST_RATE_RATIO = 0.8
"""Of the rate without a log, at `audit: Required`."""
PATH_NODES = 1_000
TURNS, TURN_REPLICAS = 40, 50
IN_FLIGHT, ANSWER_SECONDS = 32, 0.002
OWNER = Pool(a.POOL, "uid", 1, desired=1, rules=PlacementRules(), law=Effective(GERMANY))
LEADS = {"PENSTOCK_LEASE_SECONDS": "60", "PENSTOCK_RENEW_SECONDS": "40"}
"""No round ends because the machine was busy."""
WAITERS = 100
RECORDS = 20_000
NONE, BEST_EFFORT, REQUIRED = "no log", "BestEffort", "Required"
POLICY = f"/apis/{API_VERSION}/residencypolicies/home"


def say(rig: Rig, audit: str) -> None:
    """Let the law demand that of its record."""
    spec = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}, "allowed": ["DE"]}
    policy = {"apiVersion": API_VERSION, "kind": "ResidencyPolicy", "metadata": {"name": "home"}}
    rig.plane.api.apply({**policy, "spec": {**spec, "audit": audit}})
    generation = rig.plane.api.get(POLICY)["metadata"]["generation"]
    wait_for("the policy counts", lambda: _observed(rig) == generation, CEILING_SECONDS, report=False)


def _observed(rig: Rig) -> int | None:
    found: int | None = rig.plane.api.get(POLICY).get("status", {}).get("observedGeneration")
    return found


def rate_per_second(rig: Rig) -> float:
    """From the creation of a pool to the last lift of its pods."""
    mark = rig.audit.mark()
    rig.plane.api.create(POOLS, pool(REPLICAS))
    wait_for(f"{REPLICAS} lifts", lambda: len(lifts(rig.audit, mark)) >= REPLICAS, CEILING_SECONDS)
    began = min(at(one) for one in rig.audit.since(mark) if one.resource == "inferencepools" and one.verb == "create")
    seconds = max(lifts(rig.audit, mark).values()) - began
    rig.plane.api.delete(f"{POOLS}/crowd")
    wait_for("all pods are gone", lambda: not rig.plane.api.list(PODS, limit=1), CEILING_SECONDS, report=False)
    return REPLICAS / seconds


async def _opened(journal: Journal) -> asyncio.Task[None]:
    await journal.open(1, "bench", "//bench", "2026-11-21T12:00:00Z", checkpoint=None)
    return asyncio.create_task(journal.run())


async def journal_per_second(directory: Path) -> float:
    """Records that are durable, each of which somebody waited for; a hundred wait at any time."""
    journal = Journal(directory)
    running = await _opened(journal)
    entry = Entry(Happening.PLACE, "bank/llama", "2026-11-21T12:00:00Z", {"node": "gpu-1", "why": "x" * 700})

    async def waiter() -> None:
        for _ in range(RECORDS // WAITERS):
            await journal.write(entry)

    started = time.perf_counter()
    await asyncio.gather(*(waiter() for _ in range(WAITERS)))
    took_seconds = time.perf_counter() - started
    running.cancel()
    return RECORDS / took_seconds


@dataclass
class Answers:
    """An API server that takes every patch after so long, so many at a time."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))

    async def patch(self, *_: object) -> bytes:
        async with self.slots:
            await asyncio.sleep(ANSWER_SECONDS)
        return b"{}"


class Pace(NamedTuple):
    """Replicas a second by the clock, and a second of processor time: what the rate could be if nothing else ran."""

    rate: float = 0.0
    processor_rate: float = 0.0


async def pace(directory: Path | None, *, required: bool) -> Pace:
    """Replicas planned, explained, recorded and lifted in this process, at the loop's own pace: a turn rests after it,
    and the next one waits for no lift.
    """
    fleet, client = fleet_of(PATH_NODES), cast(Any, Answers())
    journal = Journal(directory) if directory else None
    running = await _opened(journal) if journal else None
    acts = Acts(client, ClusterState(), Metrics(), lambda: None, recorder=Recorder(journal))
    gc.collect()
    gc.freeze()  # As the process itself does once it has taken in the cluster.
    started, busy = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as lifts:
        for _ in range(TURNS):
            turned_at = time.perf_counter()
            for one in placement.plan(fleet, one_class(TURN_REPLICAS), (), 0.0).decisions:
                lifts.create_task(_lift(acts, fleet, one, required=required))
            await asyncio.sleep(min(REST_RATIO * (time.perf_counter() - turned_at), LONGEST_REST_SECONDS))
    took_seconds, busy_seconds = time.perf_counter() - started, time.process_time() - busy
    if running:
        running.cancel()
    return Pace(TURNS * TURN_REPLICAS / took_seconds, TURNS * TURN_REPLICAS / busy_seconds)


async def _lift(acts: Acts, fleet: Fleet, decision: Decision, *, required: bool) -> None:
    pod, node = a.pod(decision.replica.key, node=""), fleet.rows[fleet.position[decision.node]].view.node
    lift = Lift(pod, (decision.law,), decision.node, explanation.decision_text(decision), "bench/1")
    entry = entries.placed(OWNER, pod, node, decision, fence="bench/1", telemetry_age_seconds=1.0, now_time=0.0)
    await acts.lift(lift, 0.0, entry, audit_required=required)


def paths(rounds: int, directory: Path) -> list[Figure]:
    """The best of a few rounds of each arm, in turn."""
    arms = dict.fromkeys((NONE, BEST_EFFORT, REQUIRED), Pace())
    for round_ in range(rounds):
        for arm, best in arms.items():
            log = None if arm == NONE else directory / f"{round_}-{arm}"
            found = asyncio.run(pace(log, required=arm == REQUIRED))
            arms[arm] = Pace(*map(max, best, found))
    return [
        *beside_none("rate at the loop's pace", {name: one.rate for name, one in arms.items()}),
        *beside_none("rate for a second of processor time", {name: one.processor_rate for name, one in arms.items()}),
    ]


def beside_none(told: str, rates: Mapping[str, float]) -> list[Figure]:
    """What each arm reached, and what that is of the rate without a log."""
    required, best_effort = rates[REQUIRED] / rates[NONE], rates[BEST_EFFORT] / rates[NONE]
    return [
        *(Figure(f"{told}: {name}", rate, "/s") for name, rate in rates.items()),
        Figure("  to the rate without: Required", required, "", LEAST_RATE_RATIO, at_least=True),
        Figure("  to the rate without: BestEffort", best_effort, ""),
    ]


def measured(rounds: int, directory: Path) -> dict[str, list[float]]:
    arms: dict[str, list[float]] = {NONE: [], BEST_EFFORT: [], REQUIRED: []}
    with ControlPlane.start(audit=True) as plane:
        install_chart(plane, {"decisionLog.volume.emptyDir": {}})
        add_nodes(plane, [gpu_node(f"gpu-{number:03}", country="DE", gpus=GPUS) for number in range(NODES)])
        publisher = Publisher(plane)
        publisher.start()
        rig = Rig(plane)
        for round_ in range(rounds):
            for arm, rates in arms.items():
                logged = {} if arm == NONE else {"PENSTOCK_DECISION_LOG_DIRECTORY": str(directory)}
                with rig.operator(f"operator-{round_}-{arm.replace(' ', '-').lower()}", LEADS | logged):
                    say(rig, REQUIRED if arm == REQUIRED else BEST_EFFORT)
                    rates.append(rate_per_second(rig))
        publisher.stop()
    return arms


def main(rounds: int = 3) -> None:
    with tempfile.TemporaryDirectory() as directory:
        answers = f"{IN_FLIGHT} patches at a time are answered in {ANSWER_SECONDS * 1e3:g} ms"
        show(f"The placement path in memory; {answers}", paths(2 * rounds, Path(directory)))
        arms = measured(rounds, Path(directory) / "log")
        alone = asyncio.run(journal_per_second(Path(directory) / "alone"))
    medians = {name: statistics.median(rates) for name, rates in arms.items()}
    show(
        f"{REPLICAS} replicas placed with a decision log, median of {rounds}",
        [
            *beside_none("rate", medians),
            Figure("the journal alone, 100 waiters", alone, "records/s"),
            wanted_cores(),
        ],
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
