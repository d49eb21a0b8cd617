"""What runs on a node becomes what NVML says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.sim import faults
from penstock.sim.nvml_state import DeviceState
from penstock.sim.plant import Plant, PodLoad, process_id


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path, {"gpu-0": ("NVIDIA-H200", 4), "gpu-1": ("NVIDIA-L40S", 2)})


def devices(plant: Plant, node: str = "gpu-0") -> list[DeviceState]:
    state = plant.state(node)
    return [state.read(index) for index in range(state.device_count)]


def draws(plant: Plant, node: str = "gpu-0") -> list[float]:
    return [device.draw_mw / 1000 for device in devices(plant, node)]


def test_an_empty_node_draws_idle_and_uses_no_memory(plant: Plant) -> None:
    plant.step(1)
    assert draws(plant) == [76] * 4
    assert [device.memory_used_bytes for device in devices(plant)] == [0] * 4
    assert plant.node_watts("gpu-1") == 90


def test_pods_take_the_lowest_free_gpus_in_order(plant: Plant) -> None:
    plant.set_load("gpu-0", [("a", 1, 0.5), ("b", 2, 0.5)])
    assert plant.assignments("gpu-0") == {"a": (0,), "b": (1, 2)}


def test_a_pod_keeps_its_gpus_when_others_leave_and_come(plant: Plant) -> None:
    plant.set_load("gpu-0", [("a", 1, 0.5), ("b", 2, 0.5)])
    plant.set_load("gpu-0", [("b", 2, 0.5)])
    plant.set_load("gpu-0", [("c", 2, 0.5), ("b", 2, 0.1)])
    assert plant.assignments("gpu-0") == {"b": (1, 2), "c": (0, 3)}


def test_a_pod_that_finds_too_few_gpus_gets_none(plant: Plant) -> None:
    plant.set_load("gpu-0", [("a", 3, 0.5), ("b", 2, 0.5)])
    assert plant.assignments("gpu-0") == {"a": (0, 1, 2)}


def test_load_shows_on_the_gpus_that_the_pod_holds_and_on_no_other(plant: Plant) -> None:
    plant.set_load("gpu-0", [("a", 2, 1.0)])
    plant.step(1)
    first, second, third, fourth = draws(plant)
    assert first == second > 500
    assert third == fourth == 76
    assert [device.utilization_percent for device in devices(plant)] == [100, 100, 0, 0]
    assert [device.activity_permille for device in devices(plant)] == [900, 900, 0, 0]


def test_a_model_loads_over_time_and_leaves_at_once(plant: Plant) -> None:
    plant.set_load("gpu-0", [("a", 1, 0.0)])
    plant.step(2)
    loading = devices(plant)[0].memory_used_bytes
    plant.step(60)
    loaded = devices(plant)[0]
    assert 0 < loading < loaded.memory_used_bytes
    assert loaded.memory_used_bytes == pytest.approx(0.9 * loaded.memory_total_bytes, rel=0.01)
    plant.set_load("gpu-0", [])
    plant.step(1)
    left = devices(plant)[0]
    assert (left.memory_used_bytes, left.activity_permille, left.draw_mw) == (0, 0, 76_000)


def test_a_limit_clamps_the_draw_and_cools_the_gpu(plant: Plant) -> None:
    plant.set_load("gpu-0", [("a", 2, 1.0)])
    faults.limit_externally(plant.state("gpu-0"), 0, 300)
    plant.step(300)
    limited, free = devices(plant)[:2]
    assert (limited.draw_mw, free.draw_mw > 500_000) == (300_000, True)
    assert limited.temperature_celsius < free.temperature_celsius - 10


def test_temperature_lags_behind_the_draw(plant: Plant) -> None:
    plant.set_load("gpu-0", [("a", 1, 1.0)])
    seen = []
    for _ in range(3):
        plant.step(20)
        seen.append(devices(plant)[0].temperature_celsius)
    assert seen == sorted(set(seen))


def test_only_chips_with_gpm_say_so(plant: Plant) -> None:
    assert (devices(plant)[0].gpm_supported, devices(plant, "gpu-1")[0].gpm_supported) == (1, 0)


def test_every_gpu_of_the_plant_has_its_own_uuid(plant: Plant) -> None:
    uuids = [device.uuid for node in ("gpu-0", "gpu-1") for device in devices(plant, node)]
    assert len(set(uuids)) == 6


def test_a_pod_of_its_own_gpu_draws_all_of_it_and_nobody_the_rest(plant: Plant) -> None:
    plant.set_load("gpu-0", [("a", 2, 0.5), ("b", 1, 0.2)])
    plant.step(1)
    first, second, third, _ = draws(plant)
    assert plant.pod_watts("gpu-0") == pytest.approx({"a": first + second, "b": third})


def test_pods_on_one_gpu_share_its_draw_and_the_busier_one_more_of_it(plant: Plant) -> None:
    uuid = plant.uuids("gpu-0")[1]
    plant.set_load("gpu-0", [PodLoad("a", 0, 0.6, (uuid,)), PodLoad("b", 0, 0.2, (uuid,)), PodLoad("c", 1, 0.5)])
    plant.step(1)
    watts = plant.pod_watts("gpu-0")
    assert watts["a"] + watts["b"] == pytest.approx(draws(plant)[1])
    assert watts["a"] > watts["b"] > 76 / 2
    assert plant.assignments("gpu-0") == {"c": (0,)}
    device = devices(plant)[1]
    assert {process.pid for process in device.processes[: device.process_count]} == {process_id("a"), process_id("b")}


def test_mig_devices_draw_by_their_slices_and_leave_the_rest_of_idle_to_nobody(plant: Plant) -> None:
    small, large, _ = plant.partition("gpu-0", 0, [1, 3, 3])
    plant.set_load("gpu-0", [PodLoad("a", 0, 1.0, (small,)), PodLoad("b", 0, 1.0, (large,))])
    plant.step(1)
    watts = plant.pod_watts("gpu-0")
    assert 3 * watts["a"] == pytest.approx(watts["b"])
    assert draws(plant)[0] - sum(watts.values()) == pytest.approx(76 * 3 / 7, abs=0.01)
    activities = [instance.activity_permille for instance in devices(plant)[0].mig_instances[:3]]
    assert activities == [900, 900, 0]


def test_mig_devices_that_do_not_fit_are_refused(plant: Plant) -> None:
    with pytest.raises(ValueError, match="7 together"):
        plant.partition("gpu-0", 0, [4, 4])


def test_the_joules_of_pods_are_those_of_their_gpus_also_under_a_limit(tmp_path: Path) -> None:
    plant = Plant(tmp_path, {"gpu-0": ("NVIDIA-H200", 1)})
    state = plant.state("gpu-0")
    state.set_clock(10**12)
    plant.step(0)
    uuid = plant.uuids("gpu-0")[0]
    before = state.read(0).energy_uj
    for load in (0.3, 0.9):
        plant.set_load("gpu-0", [PodLoad("a", 0, load, (uuid,)), PodLoad("b", 0, 0.1, (uuid,))])
        faults.limit_externally(state, 0, 300 * load)
        plant.step(0)
        state.set_clock(state.now_ns() + 10**10)
    plant.step(0)
    assert sum(plant.pod_joules("gpu-0").values()) == pytest.approx((state.read(0).energy_uj - before) / 1e6)


def test_a_module_draws_what_its_processor_adds(tmp_path: Path) -> None:
    plant = Plant(tmp_path, {"gpu-0": ("NVIDIA-GH200-480GB", 1)})
    plant.step(1)
    assert plant.node_watts("gpu-0") == 176


def test_a_product_without_a_curve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="NVIDIA-T4"):
        Plant(tmp_path, {"gpu-0": ("NVIDIA-T4", 1)})
