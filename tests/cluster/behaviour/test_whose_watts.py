"""Whose watt it is, as people see it: each replica is booked on its own GPUs, by the real agent's word."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from factory import BRISK, Factory
from penstock.api.names import GPU_RESOURCE
from penstock.sim import faults
from rig.agents import LOAD_ANNOTATION, STOLEN_ANNOTATION, Agents, RunningPlant, start_agents, start_plant
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart, start_operator
from rig.telemetry import Publisher
from rig.waiting import wait_for

Object = dict[str, Any]

NODE = "gpu-0"
GPUS = 4
IDLE_WATTS, LIMIT_WATTS = 76.0, 721.0
OVERHEAD = 1.55
HEARTBEAT_SECONDS = 2
CREDIT_CEILING_SECONDS = 150.0
"""Ten times the fifteen seconds within which freed watts are credited."""
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as started:
        yield started


@pytest.fixture(scope="module")
def plant(plane: ControlPlane) -> Iterator[RunningPlant]:
    add_nodes(plane, [gpu_node(NODE, product="NVIDIA-H200", gpus=GPUS)])
    install_chart(plane)
    with start_plant(plane, [NODE]) as running:
        yield running


@pytest.fixture(scope="module")
def agents(plane: ControlPlane, plant: RunningPlant) -> Iterator[Agents]:
    started = start_agents(plane, plant, [NODE], heartbeat_seconds=HEARTBEAT_SECONDS)
    yield started
    started.stop_all()


@pytest.fixture(scope="module")
def factory(plane: ControlPlane, agents: Agents) -> Iterator[Factory]:
    telemetry = Publisher(plane)
    operator = start_operator(plane, env=BRISK, keep_running=True)
    operator.wait_ready()
    found = Factory(plane, telemetry, operator)
    found.domain("row-a", 50_000, {"kubernetes.io/hostname": NODE}, overhead={"watts": 0, "perGPUWatt": OVERHEAD - 1})
    wait_committed(found, GPUS * IDLE_WATTS)
    yield found
    telemetry.stop()


def wait_committed(factory: Factory, gpu_watts: float, tolerance: float = 0.01) -> float:
    def probe() -> float | None:
        watts = factory.domain_status("row-a").get("committedWatts", 0)
        return watts if abs(watts - OVERHEAD * gpu_watts) <= tolerance * OVERHEAD * gpu_watts else None

    what = f"{OVERHEAD * gpu_watts:.0f} W are committed"
    return wait_for(what, probe, CREDIT_CEILING_SECONDS)


def wait_heard(factory: Factory) -> None:
    """What the agent says by now is known to the operator: it has heard a report that came later, and one more."""
    age = f'penstock_gpu_node_telemetry_age_seconds{{node="{NODE}"}}'
    for _ in range(2):
        started = time.monotonic()

        def is_heard(since: float = started) -> bool:
            elapsed_seconds = time.monotonic() - since
            return factory.operator.metrics()[age] < elapsed_seconds

        wait_for("another report is heard", is_heard, CREDIT_CEILING_SECONDS, report=False)


def holders(factory: Factory) -> dict[tuple[str, str], float]:
    found = factory.domain_status("row-a").get("holders", [])
    return {(one["kind"], one.get("name", "")): one["watts"] for one in found}


def test_a_pool_shows_the_watts_that_each_replica_draws_and_they_are_credited_when_it_is_gone(
    factory: Factory, plant: RunningPlant
) -> None:
    factory.pool("llama", replicas=2, gpus=1)
    pods = factory.wait_running("llama", 2)
    uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods}

    def shown() -> list[Object] | None:
        truth = plant.plant.pod_watts(NODE)
        placed = factory.status("llama").get("placements", [])
        # A figure is written anew only when it moved by more than a twentieth.
        right = [abs(one["watts"] - truth[uids[one["pod"]]]) <= 0.06 * truth[uids[one["pod"]]] for one in placed]
        return placed if len(right) == 2 and all(right) else None

    wait_for("both replicas show what they draw", shown, CREDIT_CEILING_SECONDS)
    wait_committed(factory, 2 * LIMIT_WATTS + 2 * IDLE_WATTS)
    assert holders(factory)["Pool", "default/llama"] == pytest.approx(2 * LIMIT_WATTS, rel=0.01)
    wait_for("its series tell the same", lambda: series_add_up(factory, plant), CREDIT_CEILING_SECONDS)
    factory.delete_pool("llama")
    wait_committed(factory, GPUS * IDLE_WATTS)


def series_add_up(factory: Factory, plant: RunningPlant) -> bool:
    """Idle and host watts are series of their own: with the pool's they are what the node draws."""
    metrics, truth = factory.operator.metrics(), plant.plant.pod_watts(NODE)
    measured, idle, host = (metrics[f'penstock_gpu_node_{one}_watts{{node="{NODE}"}}'] for one in SERIES)
    pool = metrics['penstock_pool_measured_watts{attribution="Exact",namespace="default",pool="llama"}']
    assert pool + idle == pytest.approx(measured, rel=0.001), "of one report"
    assert host == pytest.approx((OVERHEAD - 1) * measured, rel=0.001)
    return idle == pytest.approx(2 * IDLE_WATTS, rel=0.02) and pool == pytest.approx(sum(truth.values()), rel=0.02)


SERIES = ("measured", "idle", "host")


def test_a_chip_that_measures_its_module_alone_is_charged_by_its_module(factory: Factory, plant: RunningPlant) -> None:
    by_module(plant, module_only=1, module_extra_mw=100_000)
    wait_committed(factory, GPUS * (IDLE_WATTS + 100))
    status = factory.plane.api.get(f"/apis/penstock.dev/v1alpha1/gpunodes/{NODE}")["status"]
    told = {(gpu["powerScope"], gpu["enforcedLimitWatts"], gpu["maximumLimitWatts"]) for gpu in status["gpus"]}
    assert told == {("Module", 800, 800)}
    factory.pool("llama", gpus=1)
    wait_committed(factory, 1.03 * 800 + (GPUS - 1) * (IDLE_WATTS + 100))
    factory.delete_pool("llama")
    by_module(plant, module_only=0, module_extra_mw=0)
    wait_committed(factory, GPUS * IDLE_WATTS)


def by_module(plant: RunningPlant, **figures: int) -> None:
    """What each GPU's chip can measure from now on; the driver is loaded anew, for nothing else changes that."""
    state = plant.plant.state(NODE)
    for index in range(GPUS):
        with state.change(index) as device:
            for name, value in figures.items():
                setattr(device, name, value)
    faults.reload_driver(state)


def test_a_gpu_that_works_without_a_pod_is_named_by_its_uuid_and_takes_nothing(
    factory: Factory, plant: RunningPlant
) -> None:
    stolen = plant.plant.uuids(NODE)[2]
    metadata = {"name": "thief", "annotations": {STOLEN_ANNOTATION: stolen, LOAD_ANNOTATION: "0.9"}}
    spec = {"nodeName": NODE, "containers": [{"name": "miner", "image": "miner"}], "terminationGracePeriodSeconds": 1}
    factory.plane.api.create(PODS, {"metadata": metadata, "spec": spec})
    path = f"/apis/penstock.dev/v1alpha1/gpunodes/{NODE}"
    wait_for(
        "the agent names the GPU",
        lambda: factory.plane.api.get(path)["status"].get("unallocatedInUse") == [stolen],
        CREDIT_CEILING_SECONDS,
    )
    wait_heard(factory)
    factory.pool("whole", replicas=1, gpus=GPUS)
    waiting = factory.wait_waiting("whole", "InsufficientGPUs")
    assert f"BusyUnallocatedGPU: 1 busy without a pod: {stolen} on {NODE}" in waiting["message"], waiting
    factory.plane.api.delete(f"{PODS}/thief")
    factory.wait_running("whole", 1, CREDIT_CEILING_SECONDS)
    factory.delete_pool("whole")


def test_a_foreign_pods_gpu_is_its_own_holder_at_its_enforced_limit(factory: Factory, plant: RunningPlant) -> None:
    wait_committed(factory, GPUS * IDLE_WATTS)
    container = {"name": "job", "image": "job", "resources": {"limits": {GPU_RESOURCE: "1"}}}
    spec = {"nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 1}
    metadata = {"name": "job", "annotations": {LOAD_ANNOTATION: "0.1"}}
    factory.plane.api.create(PODS, {"metadata": metadata, "spec": spec})
    wait_committed(factory, LIMIT_WATTS + (GPUS - 1) * IDLE_WATTS)
    assert holders(factory)["Foreign", "default/job"] == pytest.approx(LIMIT_WATTS, rel=0.01)
    factory.plane.api.delete(f"{PODS}/job")
    wait_committed(factory, GPUS * IDLE_WATTS)


def test_the_agent_says_whose_gpus_they_are_and_nothing_of_pods_that_have_none(factory: Factory) -> None:
    def without_pods() -> Object | None:
        status: Object = factory.plane.api.get(f"/apis/penstock.dev/v1alpha1/gpunodes/{NODE}")["status"]
        return status if (status["podResources"], status.get("pods", [])) == ("Read", []) else None

    status = wait_for("the kubelet's list is empty", without_pods, CREDIT_CEILING_SECONDS)
    assert re.fullmatch(r"\d+(\.\d)?", str(status["idleWatts"]))
    assert status["idleWatts"] == pytest.approx(status["watts"], rel=0.01)


@pytest.mark.parametrize(
    ("silence", "revive"),
    (
        pytest.param(Agents.kill, Agents.start, id="killed"),
        pytest.param(Agents.freeze, Agents.thaw, id="stopped"),
    ),
)
def test_the_node_of_an_agent_that_is_silenced_takes_no_replica_and_is_charged_in_full(
    factory: Factory, agents: Agents, silence: Callable[[Agents, str], None], revive: Callable[[Agents, str], None]
) -> None:
    wait_committed(factory, GPUS * IDLE_WATTS)
    silence(agents, NODE)
    wait_committed(factory, GPUS * LIMIT_WATTS)
    factory.pool("llama", replicas=1, gpus=1)
    factory.wait_waiting("llama", "TelemetryStale", CREDIT_CEILING_SECONDS)
    revive(agents, NODE)
    factory.wait_running("llama", 1, CREDIT_CEILING_SECONDS)
    factory.delete_pool("llama")
