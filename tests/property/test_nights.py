"""A night at 70 % of the power, with the clock in our hands: the ladder, the caps and the planner over a plant.

Everything that decides is the operator's own; only what lies behind it is played: GPUs that draw what their load and
their limit allow, kubelets that end a pod after its grace, cappers that obey, and an API server that says yes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

import builders as a
from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.names import GATE
from penstock.api.powerdomain import PowerDomainSpec
from penstock.cluster.objects import DomainObject, PoolObject
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts
from penstock.control.picture import Picture
from penstock.control.power.capping import Capping
from penstock.control.power.deeds import Deeds
from penstock.control.power.ladder import Ladders
from penstock.control.power.shedding import Shedder
from penstock.core.model import Cap, CappedGpu, Capper, CapperMode, Gpu, Owner, Phase, Pod, PodGpus, PoolKey, Telemetry
from penstock.core.placement import choice as placement
from penstock.core.pool import replicas
from penstock.core.power.budget import watts_at
from penstock.metrics import Metrics
from penstock.sim import curves

NODES, GPUS, REPLICA_GPUS = 12, 8, 4
BATCH, CHAT = PoolKey("search", "batch"), PoolKey("search", "chat")
PRIORITY = {BATCH: 100, CHAT: 10_000}
REPLICAS = {BATCH: 12, CHAT: 11}
LOAD = 0.85
GRACE_SECONDS = 45.0
STEP_SECONDS = 4.0
PER_GPU_WATT = 0.55
PRODUCT = curves.PRODUCTS[a.H200]
DAY_WATTS = 105_000.0
NIGHT_WATTS = 0.7 * DAY_WATTS
CAPPED_TO_WATTS = 300.0
LIMIT_WATTS = PRODUCT.maximum_limit_watts


@dataclass(frozen=True)
class Night:
    """A window of the site in Berlin, and when it opens and closes by the sun."""

    cron: str
    duration: str
    opens: str
    closes: str

    def moment(self, written: str) -> float:
        return datetime.fromisoformat(written).replace(tzinfo=UTC).timestamp()


NIGHTS = {
    "eight hours from ten, the night the clocks go forward": Night(
        "0 22 * * *", "8h", "2026-03-28 21:00", "2026-03-29 05:00"
    ),
    "eight hours from ten, the night the clocks go back": Night(
        "0 22 * * *", "8h", "2026-10-24 20:00", "2026-10-25 04:00"
    ),
    "half an hour from a time that the clocks skip": Night("30 2 * * *", "30m", "2026-03-29 01:00", "2026-03-29 01:30"),
    "half an hour from a time that the clocks repeat": Night(
        "30 2 * * *", "30m", "2026-10-25 00:30", "2026-10-25 01:00"
    ),
}


@dataclass
class Ending:
    """A pod on its way out, and when it is gone."""

    pod: Pod
    gone_time: float


@dataclass
class Site:
    """The plant and the cluster around the operator's parts, at one moment."""

    night: Night
    capped: bool
    now_time: float
    metrics: Metrics = field(default_factory=Metrics)
    ending: list[Ending] = field(default_factory=list)
    limits: dict[str, dict[str, float]] = field(default_factory=dict)
    """Node → GPU → the limit that its capper set."""
    caps: dict[str, tuple[Cap, ...]] = field(default_factory=dict)
    evicted: list[Pod] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    written: int = 0

    def __post_init__(self) -> None:
        self.state = ClusterState(now=lambda: self.now_time)
        self.picture = Picture(self.state)
        api: Any = SimpleNamespace(patch=self._patch, evict=self._evict)
        listener: Any = SimpleNamespace(post=lambda *_: None)
        acts = Acts(api, self.state, self.metrics, lambda: None)
        deeds = Deeds(self.state, listener, self.metrics)
        capping = Capping(self.state, acts, a.runs_at_once, lambda: "test/1")
        self.ladders = Ladders(self.state, deeds, Shedder(self.state, acts, a.runs_at_once, deeds), capping)
        self._build()

    # ------------------------------------------------------------------------------------------- what the site is

    def _build(self) -> None:
        for at in range(NODES):
            self.state.put_node(a.node(f"gpu-{at}", gpus=GPUS))
        window = {
            "cron": self.night.cron,
            "duration": self.night.duration,
            "timeZone": "Europe/Berlin",
            "watts": NIGHT_WATTS,
        }
        spec = {
            "nodeSelector": {},
            "budget": {"watts": DAY_WATTS, "windows": [window]},
            "marginPercent": 0,
            # Restored within the minutes that the test looks at; entries are as shipped.
            "ladder": {
                "hold": {"enterPercent": 90, "exitPercent": 85, "enterSeconds": 15, "exitSeconds": 10},
                "trim": {"enterPercent": 95, "exitPercent": 88, "enterSeconds": 10, "exitSeconds": 10},
            },
        }
        domain = PowerDomainSpec.model_validate(spec)
        self.state.written_domains.put(DomainObject("site", "uid-site", 1, "1", domain))
        for key, number in REPLICAS.items():
            power = {"minCapWatts": CAPPED_TO_WATTS} if self.capped and key == BATCH else {}
            pool = InferencePoolSpec.model_validate({"disruption": {"maxUnavailable": 8}, "power": power})
            self.state.written_pools.put(PoolObject(key, f"uid-{key.name}", 1, "1", pool))
            for _ in range(number):
                self._make_pod(key)

    def _make_pod(self, key: PoolKey) -> None:
        self.written += 1
        pod = a.pod(
            f"{key.name}-{self.written}",
            node="",
            gpus=REPLICA_GPUS,
            pool=key.name,
            gates=(GATE,),
            priority=PRIORITY[key],
            owner=Owner("StatefulSet", key.name, f"uid-{key.name}"),
            created_time=self.now_time,
            grace_seconds=GRACE_SECONDS,
            resource_version=str(self.written),
        )
        self.state.put_pod(pod)

    # -------------------------------------------------------------------------------------------------- a moment

    def step(self, seconds: float = STEP_SECONDS) -> None:
        """The plant moves on, its agents speak, and the operator takes one turn."""
        self.now_time += seconds
        self._end_pods()
        self._run_pinned()
        for at in range(NODES):
            self._report(f"gpu-{at}")
        self.picture.look(self.now_time, self.now_time)
        self.ladders.climb(self.picture, self.now_time, self.now_time)
        self._place()
        stage = self.ladders.stages["site"]
        if stage not in self.stages[-1:]:
            self.stages.append(stage)

    def _end_pods(self) -> None:
        for one in [one for one in self.ending if one.gone_time <= self.now_time]:
            self.ending.remove(one)
            self.state.delete_pod(one.pod.uid)
            self._make_pod(PoolKey(one.pod.namespace, one.pod.pool))

    def _run_pinned(self) -> None:
        for pod in [one for one in self.state.pods.values() if one.pin and not one.node]:
            self.written += 1
            version = str(self.written)
            bound = replace(pod, node=pod.pin, phase=Phase.RUNNING, ready=True, gates=(), resource_version=version)
            self.state.put_pod(bound)

    def _report(self, node: str) -> None:
        held = list(self._held(node))
        by_gpu = {uuid for _, uuids in held for uuid in uuids}
        gpus = tuple(self._gpu(node, index, by_gpu) for index in range(GPUS))
        watts = {gpu.uuid: gpu.power_watts or 0.0 for gpu in gpus}
        pods = tuple(
            PodGpus(pod.namespace, pod.name, uuids, watts=sum(watts[uuid] for uuid in uuids), attribution="Exact")
            for pod, uuids in held
        )
        self.state.telemetry[node] = Telemetry(
            node=node,
            sequence=int(self.now_time),
            heard_at=self.now_time,
            gpus=gpus,
            pods=pods,
            caps=self.caps.get(node, ()),
            capper=self._capper(node) if self.capped else None,
        )
        self.state.dirty_nodes.add(node)

    def _held(self, node: str) -> Iterator[tuple[Pod, tuple[str, ...]]]:
        """Each running pod with its GPUs: by the order of their names, which is stable enough while they live."""
        free = [f"{node}/{index}" for index in range(GPUS)]
        held = self._assigned.setdefault(node, {})
        running = {pod.uid: pod for pod in self.state.pods.values() if pod.node == node}
        for uid in held.keys() - running.keys():
            del held[uid]
        for uid in sorted(running.keys() - held.keys()):
            taken = {uuid for uuids in held.values() for uuid in uuids}
            held[uid] = tuple([uuid for uuid in free if uuid not in taken][:REPLICA_GPUS])
        yield from ((running[uid], uuids) for uid, uuids in held.items())

    _assigned: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)

    def _gpu(self, node: str, index: int, held: set[str]) -> Gpu:
        uuid = f"{node}/{index}"
        limit = self.limits.get(node, {}).get(uuid, LIMIT_WATTS)
        watts = min(limit, curves.watts(PRODUCT, LOAD if uuid in held else None))
        minimum = PRODUCT.minimum_limit_watts
        return a.gpu(index, uuid=uuid, power_watts=watts, planned_watts=watts, limit_watts=limit, minimum_watts=minimum)

    def _capper(self, node: str) -> Capper:
        gpus = tuple(CappedGpu(uuid, "Applied", baseline_watts=LIMIT_WATTS) for uuid in self.limits.get(node, {}))
        return Capper(CapperMode.ENFORCE, int(self.now_time), 10.0, self.now_time, gpus)

    def _place(self) -> None:
        waiting = [
            one
            for key, pool in self.picture.pools.items()
            for one in replicas(pool, self.picture.rolls[key], frozenset(), self.ladders.shedder.waiting_of(key))
        ]
        plan = placement.plan(self.picture.fleet, waiting, (), self.now_time, self.ladders.held, owed=self.ladders.owed)
        for one in plan.decisions:
            self.state.assume(one.replica.pod_uid, one.node)
        self.ladders.shedder.placed(plan.decisions)

    # --------------------------------------------------------------------------------------- what the API server does

    async def _patch(self, path: str, document: bytes, _: str) -> bytes:
        node, spec = path.rpartition("/")[2], json.loads(document)["spec"]
        self.caps[node] = tuple(
            Cap(one["uuid"], one["watts"], one["namespace"], one["pod"], one["podUID"]) for one in spec["caps"]
        )
        # A capper takes back what is not asked for any more.
        self.limits[node] = {cap.uuid: cap.watts for cap in self.caps[node]}
        return b"{}"

    async def _evict(self, namespace: str, name: str, *, uid: str) -> None:
        pod = self.state.pods[uid]
        assert (pod.namespace, pod.name) == (namespace, name)
        self.evicted.append(pod)
        self.written += 1
        self.state.put_pod(replace(pod, terminating=True, ready=False, resource_version=str(self.written)))
        self.ending.append(Ending(pod, self.now_time + GRACE_SECONDS))

    # ---------------------------------------------------------------------------------------------- what is looked at

    @property
    def watts(self) -> float:
        """What the site really draws."""
        gpus = (gpu for one in self.state.telemetry.values() for gpu in one.gpus)
        return (1.0 + PER_GPU_WATT) * sum(gpu.power_watts or 0.0 for gpu in gpus)

    @property
    def budget_watts(self) -> float:
        return watts_at(self.picture.domains["site"].budget, self.now_time)

    def running(self, key: PoolKey) -> set[str]:
        return {one.uid for one in self.state.pods_by_pool[key].values() if one.node and not one.terminating}


def until(site: Site, moment: float) -> Iterator[Site]:
    while site.now_time < moment:
        site.step()
        yield site


@pytest.mark.parametrize("capped", (False, True), ids=["by shedding", "by caps"])
@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS.keys())
def test_a_night_at_seventy_percent_passes_without_an_emergency(night: Night, capped: bool) -> None:
    opens, closes = night.moment(night.opens), night.moment(night.closes)
    site = Site(night, capped, opens - 20 * 60)
    for _ in until(site, opens - 19 * 60):
        assert site.budget_watts == DAY_WATTS
    by_day = {key: site.running(key) for key in REPLICAS}
    assert {key: len(found) for key, found in by_day.items()} == REPLICAS
    assert NIGHT_WATTS < site.watts < DAY_WATTS

    site.now_time = opens - 4 * 60
    for _ in until(site, opens + 4 * 60):
        assert site.budget_watts == (NIGHT_WATTS if site.now_time >= opens else DAY_WATTS)
        assert site.watts <= site.budget_watts
    assert bool(site.evicted) is not capped
    assert {one.pool for one in site.evicted} <= {BATCH.name}
    assert bool(site.limits) is capped

    site.now_time = closes - 60
    for _ in until(site, closes + 12 * 60):
        assert site.budget_watts == (NIGHT_WATTS if site.now_time < closes else DAY_WATTS)
        assert site.watts <= site.budget_watts
    assert site.running(CHAT) == by_day[CHAT]
    assert len(site.running(BATCH)) == REPLICAS[BATCH]
    assert not any(site.limits.values())
    assert "Emergency" not in site.stages
    assert site.stages[-1] == "Admit"
