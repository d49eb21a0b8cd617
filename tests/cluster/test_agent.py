"""The real agent under the chart's ServiceAccount, on a real API server: what NVML says is what `GPUNode` says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from noderig import CREDIT_CEILING_SECONDS, GPU_NODE, HEARTBEAT_SECONDS, NODE, PODS, NodeRig, node_rig
from penstock.sim import faults
from penstock.sim.nvml_state import Target

Object = dict[str, Any]

IDLE_WATTS = 76.0


@pytest.fixture(scope="module")
def started() -> Iterator[NodeRig]:
    with node_rig(gpus=2) as found:
        yield found


@pytest.fixture
def rig(started: NodeRig) -> Iterator[NodeRig]:
    """A node at rest whose agent has told so."""

    def at_rest(status: Object) -> bool:
        return ready(status) == ("True", "Sampling") and all(
            gpu.get("powerP95Watts") == IDLE_WATTS for gpu in status["gpus"]
        )

    started.until("the agent reports a node at rest", at_rest, CREDIT_CEILING_SECONDS)
    yield started
    for index in range(2):
        for target in Target:
            faults.clear(started.state, index, target)
        faults.find(started.state, index)
        faults.limit_externally(started.state, index, 0)


def ready(status: Object) -> tuple[str, str]:
    (condition,) = status["conditions"]
    return condition["status"], condition["reason"]


def healths(status: Object) -> list[str]:
    return [gpu["health"] for gpu in status["gpus"]]


def test_a_node_at_rest_tells_every_figure(rig: NodeRig) -> None:
    status = rig.status
    assert status["watts"] == 2 * IDLE_WATTS
    assert (status["gpuCount"], status["heartbeatSeconds"]) == (2, HEARTBEAT_SECONDS)
    first, second = status["gpus"]
    assert (first["product"], first["index"], second["index"]) == ("NVIDIA-H200", 0, 1)
    assert first["enforcedLimitWatts"] == first["maximumLimitWatts"] == 700
    assert first["enforcedLimitAgeSeconds"] <= 3 * HEARTBEAT_SECONDS
    assert (first["activityPercent"], first["memoryUsedBytes"]) == (0, 0)
    assert first["energyJoules"] > 0


def test_a_node_at_rest_is_published_at_its_heartbeat_and_no_more(rig: NodeRig) -> None:
    before = rig.plane.api.get(GPU_NODE)
    started_at = time.monotonic()
    rig.until("five more reports", lambda status: status["sequence"] >= before["status"]["sequence"] + 5)
    # The heartbeat is brought forward by a fifth at most, and the first of the five may have been under way.
    assert time.monotonic() - started_at >= 4 * 0.8 * HEARTBEAT_SECONDS
    assert rig.plane.api.get(GPU_NODE)["metadata"]["generation"] == before["metadata"]["generation"]


def test_load_shows_at_once_and_its_watts_are_credited_after_it_left(rig: NodeRig) -> None:
    rig.serve("replica", gpus=1)
    busy = rig.until("the replica's watts", lambda status: status["gpus"][0].get("powerWatts", 0) > 500)
    assert busy["gpus"][1]["powerWatts"] == IDLE_WATTS
    rig.until(
        "its activity and memory",
        lambda status: (
            status["gpus"][0]["activityPercent"] > 50
            and status["gpus"][0]["memoryUsedBytes"] > 0.8 * status["gpus"][0]["memoryTotalBytes"]
        ),
    )
    rig.plane.api.delete(f"{PODS}/replica")
    rig.until("the replica's draw is gone", lambda status: status["watts"] == 2 * IDLE_WATTS, CREDIT_CEILING_SECONDS)
    rig.until(
        "its planned watts are credited",
        lambda status: status["gpus"][0]["powerP95Watts"] == IDLE_WATTS,
        CREDIT_CEILING_SECONDS,
    )


def test_a_limit_that_somebody_else_sets_is_read_back(rig: NodeRig) -> None:
    faults.limit_externally(rig.state, 1, 350)
    rig.until("the lower limit", lambda status: status["gpus"][1]["enforcedLimitWatts"] == 350)


def test_a_lost_gpu_is_reported_and_the_other_goes_on(rig: NodeRig) -> None:
    faults.lose(rig.state, 0)
    lost = rig.until("GPU 0 is lost", lambda status: healths(status) == ["Lost", "Healthy"])
    assert "powerWatts" not in lost["gpus"][0]
    assert lost["watts"] == IDLE_WATTS
    assert ready(lost) == ("True", "GPUsUnhealthy")
    faults.find(rig.state, 0)
    rig.until("GPU 0 is back", lambda status: healths(status) == ["Healthy", "Healthy"])


def test_a_gpu_that_hangs_loses_its_figures_and_stops_no_heartbeat(rig: NodeRig) -> None:
    faults.hang(rig.state, 0, Target.MEMORY)
    hung = rig.until("GPU 0 is unresponsive", lambda status: healths(status) == ["Unresponsive", "Healthy"])
    assert "powerWatts" not in hung["gpus"][0]
    rig.until("three more heartbeats", lambda status: status["sequence"] >= hung["sequence"] + 3)
    faults.clear(rig.state, 0, Target.MEMORY)
    rig.until("GPU 0 answers again", lambda status: healths(status) == ["Healthy", "Healthy"])


def test_energy_that_stands_still_is_reported_as_it_is(rig: NodeRig) -> None:
    faults.freeze(rig.state, 0, Target.ENERGY)
    frozen = rig.state.read(0).injections[Target.ENERGY].frozen / 1000
    first = rig.until("the frozen energy", lambda status: status["gpus"][0]["energyJoules"] == frozen)
    later = rig.until("two reports later", lambda later: later["sequence"] >= first["sequence"] + 2)
    assert later["gpus"][0]["energyJoules"] == frozen
    assert later["gpus"][1]["energyJoules"] > first["gpus"][1]["energyJoules"]


def test_a_driver_that_goes_away_is_a_condition_and_comes_back(rig: NodeRig) -> None:
    faults.unload_driver(rig.state)
    gone = rig.until("NVML cannot be used", lambda status: ready(status) == ("False", "NVMLUnavailable"))
    assert healths(gone) == ["Unresponsive", "Unresponsive"]
    assert "watts" not in gone
    assert "driver is not loaded" in gone["conditions"][0]["message"]
    faults.unload_driver(rig.state, 0)
    rig.until("NVML is back", lambda status: ready(status) == ("True", "Sampling"))


def test_every_figure_of_a_node_at_rest_has_its_scope_and_its_limits(rig: NodeRig) -> None:
    status = rig.until("the accounted watts", lambda status: "accountedWatts" in status["gpus"][0])
    first = status["gpus"][0]
    assert first["accountedWatts"] == pytest.approx(IDLE_WATTS, rel=0.15)
    assert (first["powerScope"], first["persistenceMode"], first["migMode"]) == ("GPU", True, False)
    limits = [first[f"{kind}LimitWatts"] for kind in ("minimum", "default", "requested", "enforced", "maximum")]
    assert limits == [200, 700, 700, 700, 700]
    assert first["thermalMarginCelsius"] > 0
    assert first["throttledSeconds"]["SwPowerCap"] >= 0
    assert first["remappedRows"] == {}


def test_an_error_that_the_driver_reports_is_published_at_once_and_counts_until_a_reset(rig: NodeRig) -> None:
    faults.raise_event(rig.state, 0, 31)
    listed = rig.until("XID 31", lambda status: [xid["code"] for xid in status["gpus"][0].get("xidErrors", ())] == [31])
    assert healths(listed) == ["Healthy", "Healthy"]
    faults.raise_event(rig.state, 0, 119)
    marked = rig.until("XID 119 counts", lambda status: healths(status) == ["NeedsReset", "Healthy"])
    rig.agents.stop(NODE)
    rig.agents.start(NODE)
    again = rig.until("the next agent's report", lambda status: status["sequence"] > marked["sequence"])
    assert healths(again) == ["NeedsReset", "Healthy"]
    assert [xid["code"] for xid in again["gpus"][0]["xidErrors"]] == [119, 31]
    faults.reset_energy(rig.state, 0)
    rig.until("the GPU was reset", lambda status: healths(status) == ["Healthy", "Healthy"])


def test_a_pause_of_the_gpu_operator_lets_go_of_every_device(rig: NodeRig) -> None:
    label = "nvidia.com/gpu.deploy.device-plugin"

    def set_label(value: str | None) -> None:
        rig.plane.api.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"labels": {label: value}}})

    def let_go(status: Object) -> bool:
        return ready(status) == ("False", "Paused") and "every device is let go" in status["conditions"][0]["message"]

    set_label("paused-for-driver-upgrade")
    paused = rig.until("the pause", let_go)
    assert label in paused["conditions"][0]["message"]
    assert healths(paused) == ["Unresponsive", "Unresponsive"]
    later = rig.until("two more heartbeats", lambda status: status["sequence"] >= paused["sequence"] + 2)
    assert ready(later) == ("False", "Paused")
    set_label("true")
    rig.until("the agent is back", lambda status: ready(status) == ("True", "Sampling"))


def test_a_gpunode_that_is_deleted_is_made_again(rig: NodeRig) -> None:
    rig.plane.api.delete(GPU_NODE)
    rig.until("the GPUNode is back", lambda status: status["gpuCount"] == 2)


def test_a_restarted_agent_ends_cleanly_and_its_sequence_goes_on_rising(rig: NodeRig) -> None:
    before = rig.status["sequence"]
    assert rig.agents.stop(NODE) == 0
    rig.agents.start(NODE)
    rig.until("a higher sequence", lambda status: status["sequence"] > before)
