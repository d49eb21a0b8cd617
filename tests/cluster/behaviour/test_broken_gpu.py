"""A GPU falls off the bus or its driver hangs, as real agents and kubelets see it: who moves and who stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pynvml
import pytest

from factory import BRISK, PATIENCE_SECONDS, Factory
from penstock.api.names import API_VERSION, POWER_DEGRADED_CONDITION
from penstock.sim import faults
from penstock.sim.nvml_state import Target
from rig.agents import RunningPlant, start_agents, start_plant
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart, start_operator
from rig.telemetry import Publisher
from rig.waiting import wait_for

Object = dict[str, Any]

NODES = ("gpu-0", "gpu-1")
GPUS = 4
HEARTBEAT_SECONDS = 2
IDLE_WATTS, LIMIT_WATTS = 76.0, 721.0
OVERHEAD = 1.55
CREDIT_CEILING_SECONDS = 150.0
"""Ten times the fifteen seconds within which freed watts are credited."""


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as started:
        yield started


@pytest.fixture(scope="module")
def plant(plane: ControlPlane) -> Iterator[RunningPlant]:
    add_nodes(plane, [gpu_node(name, product="NVIDIA-H200", gpus=GPUS) for name in NODES])
    install_chart(plane)
    with start_plant(plane, NODES) as running:
        yield running


@pytest.fixture(scope="module")
def factory(plane: ControlPlane, plant: RunningPlant) -> Iterator[Factory]:
    agents = start_agents(plane, plant, NODES, heartbeat_seconds=HEARTBEAT_SECONDS)
    telemetry = Publisher(plane)
    operator = start_operator(plane, env=BRISK, keep_running=True)
    operator.wait_ready()
    yield Factory(plane, telemetry, operator)
    agents.stop_all()
    telemetry.stop()


def devices(factory: Factory, pod: Object) -> list[str]:
    """What the node's agent says that a pod holds, by its kubelet's word."""
    node = factory.plane.api.get(f"/apis/{API_VERSION}/gpunodes/{pod['spec']['nodeName']}")
    listed = node.get("status", {}).get("pods", [])
    return next((one["devices"] for one in listed if one["name"] == pod["metadata"]["name"]), [])


def condition(factory: Factory, node: str) -> Object:
    conditions = factory.plane.api.get(f"/api/v1/nodes/{node}")["status"].get("conditions", [])
    found: Object = next((one for one in conditions if one["type"] == POWER_DEGRADED_CONDITION), {})
    return found


def test_the_replica_that_holds_a_lost_gpu_moves_and_its_neighbour_stays(factory: Factory, plant: RunningPlant) -> None:
    factory.pool("llama", replicas=2, gpus=2)
    pods = factory.wait_running("llama", 2)
    (node,) = {pod["spec"]["nodeName"] for pod in pods}
    wait_for("the agent says who holds what", lambda: all(devices(factory, pod) for pod in pods), PATIENCE_SECONDS)
    victim, neighbour = pods
    lost = devices(factory, victim)[0]
    state = plant.plant.state(node)
    index = plant.plant.uuids(node).index(lost)
    faults.lose(state, index)

    def moved() -> bool:
        running = {pod["metadata"]["uid"] for pod in factory.running("llama")}
        assert neighbour["metadata"]["uid"] in running, "the neighbour was moved too"
        return len(running) == 2 and victim["metadata"]["uid"] not in running

    wait_for("another replica runs", moved, PATIENCE_SECONDS)
    told = wait_for("the node tells it", lambda: condition(factory, node) or None, PATIENCE_SECONDS)
    assert (told["status"], told["reason"]) == ("True", "GPULost"), told
    assert f"GPU {index} is Lost" in told["message"]
    faults.find(state, index)
    wait_for("it is over", lambda: condition(factory, node)["status"] == "False", PATIENCE_SECONDS)
    factory.delete_pool("llama")


SUFFERED = {
    "uncorrectable memory errors": ({"uncorrectable_ecc_errors": 2}, "NeedsReset"),
    "a broken row and no spare one": ({"remapping_failed": 1}, "Failed"),
    "a fabric that it could not join": ({"fabric_state": 3, "fabric_status": pynvml.NVML_ERROR_UNKNOWN}, "Failed"),
}


@pytest.mark.parametrize(("figures", "ailment"), SUFFERED.values(), ids=SUFFERED.keys())
def test_a_gpu_takes_no_replica_once_its_memory_or_its_fabric_has_failed(
    factory: Factory, plant: RunningPlant, figures: dict[str, int], ailment: str
) -> None:
    suffer(plant, figures)
    series = f'penstock_gpu_node_gpus{{health="{ailment}",node="{NODES[0]}"}}'
    wait_for("the operator knows", lambda: factory.operator.metrics().get(series) == 1, PATIENCE_SECONDS)
    factory.pool("whole", replicas=2, gpus=GPUS)
    wait_for("who waits is told the ailment", lambda: f"({ailment}: 1)" in told(factory, "whole"), PATIENCE_SECONDS)
    factory.wait_running("whole", 1)
    assert factory.nodes_of("whole") == [NODES[1]]
    suffer(plant, {**figures, **dict.fromkeys(figures.keys() - {"fabric_state"}, 0)})
    factory.wait_running("whole", 2)
    factory.delete_pool("whole")


def told(factory: Factory, pool: str) -> str:
    """Why replicas of a pool wait, in its own words: the first are of before the node's next report at times."""
    return " ".join(one["message"] for one in factory.status(pool).get("waiting", []))


def suffer(plant: RunningPlant, figures: dict[str, int]) -> None:
    """What the first GPU's driver tells from now on; an error that only announces it has the agent ask at once."""
    state = plant.plant.state(NODES[0])
    with state.change(0) as device:
        for name, value in figures.items():
            setattr(device, name, value)
    faults.raise_event(state, 0, 154)


def test_a_node_whose_agent_hangs_in_one_call_gives_way_to_another_and_is_charged_no_less(
    factory: Factory, plant: RunningPlant
) -> None:
    factory.domain("hall", 50_000, {})
    factory.pool("before", gpus=GPUS)
    factory.wait_running("before", 1)
    (best,) = factory.nodes_of("before")
    factory.delete_pool("before")
    idle_watts = OVERHEAD * len(NODES) * GPUS * IDLE_WATTS
    wait_for("what it drew is credited", lambda: committed(factory) < 1.02 * idle_watts, CREDIT_CEILING_SECONDS)
    state = plant.plant.state(best)
    faults.hang(state, 0, Target.POWER)
    wait_for("the hung GPU is charged in full", lambda: committed(factory) > idle_watts + LIMIT_WATTS, PATIENCE_SECONDS)
    factory.pool("after", gpus=GPUS)
    factory.wait_running("after", 1)
    assert factory.nodes_of("after") == [other for other in NODES if other != best]
    faults.clear(state, 0, Target.POWER)
    factory.patch_pool("after", {"replicas": 2})
    factory.wait_running("after", 2)


def committed(factory: Factory) -> float:
    watts: float = factory.domain_status("hall").get("committedWatts", float("inf"))
    return watts
