"""The NVML library for machines without GPUs does what NVML does, seen through the real binding."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pynvml
import pytest

from penstock.sim import faults
from penstock.sim.nvml_state import STATE_PATH_VARIABLE, NvmlState, Target

SECOND_NS = 10**9

pytestmark = pytest.mark.usefixtures("nvml")


@pytest.fixture
def gpu(nvml: None) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(0)


def watts(gpu: Any) -> float:
    return float(pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000)


def joules(gpu: Any) -> float:
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000)


def initialise_anew() -> None:
    pynvml.nvmlShutdown()
    pynvml.nvmlInit()


def test_identity_is_what_the_plant_wrote(gpu: Any) -> None:
    assert pynvml.nvmlDeviceGetCount() == 2
    assert pynvml.nvmlDeviceGetName(gpu) == "NVIDIA H200"
    assert pynvml.nvmlDeviceGetUUID(gpu) == "GPU-0"
    by_uuid = pynvml.nvmlDeviceGetHandleByUUID("GPU-1")
    assert pynvml.nvmlDeviceGetIndex(by_uuid) == 1
    by_bus = pynvml.nvmlDeviceGetHandleByPciBusId("00000000:01:00.0")
    assert pynvml.nvmlDeviceGetIndex(by_bus) == 1


def test_memory_v2_tells_the_reserve_apart_and_v1_counts_it_as_used(gpu: Any) -> None:
    second = pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2)
    first = pynvml.nvmlDeviceGetMemoryInfo(gpu)
    assert (second.used, second.reserved) == (100 * 2**30, 2**30)
    assert first.used == second.used + second.reserved
    assert first.free == second.free == first.total - first.used


def test_energy_is_watts_times_seconds_over_changes_of_the_draw(state: NvmlState, gpu: Any) -> None:
    state.set_clock(state.now_ns() + 10 * SECOND_NS)
    with state.change(0) as device:
        device.demand_mw = 100_000
    state.set_clock(state.now_ns() + 20 * SECOND_NS)
    assert joules(gpu) == pytest.approx(500 * 10 + 100 * 20)
    assert state.read(0).energy_uj == pytest.approx(joules(gpu) * 1e6)


def test_a_power_limit_clamps_the_draw_and_the_energy_from_then_on(state: NvmlState, gpu: Any) -> None:
    state.set_clock(state.now_ns() + 10 * SECOND_NS)
    pynvml.nvmlDeviceSetPowerManagementLimit(gpu, 300_000)
    state.set_clock(state.now_ns() + 10 * SECOND_NS)
    assert watts(gpu) == 300
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) == 300_000
    assert joules(gpu) == pytest.approx(500 * 10 + 300 * 10)
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu) & 0x4


@pytest.mark.parametrize("milliwatts", (199_999, 700_001))
def test_a_limit_outside_the_constraints_is_refused(gpu: Any, milliwatts: int) -> None:
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu) == [200_000, 700_000]
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceSetPowerManagementLimit(gpu, milliwatts)
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) == 700_000


def test_a_limit_set_by_another_process_is_seen_here(state: NvmlState, gpu: Any, nvml_library: Path) -> None:
    capper = (
        "import pynvml as n; n.nvmlInit(); n.nvmlDeviceSetPowerManagementLimit(n.nvmlDeviceGetHandleByIndex(0), 250000)"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml_library.parent), STATE_PATH_VARIABLE: str(state.path)}
    subprocess.run([sys.executable, "-c", capper], env=environment, check=True, timeout=60)
    assert watts(gpu) == 250
    assert state.read(0).draw_mw == 250_000


def test_a_limit_accepted_but_not_applied_changes_nothing(state: NvmlState, gpu: Any) -> None:
    faults.accept_without_applying(state, 0)
    pynvml.nvmlDeviceSetPowerManagementLimit(gpu, 300_000)
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) == 700_000
    assert watts(gpu) == 500


@pytest.mark.parametrize(
    ("code", "kind"),
    ((3, pynvml.NVMLError_NotSupported), (4, pynvml.NVMLError_NoPermission)),
    ids=["no such", "no right"],
)
def test_a_refused_limit_is_refused_by_its_code_and_leaves_the_one_in_force(
    state: NvmlState, gpu: Any, code: int, kind: type[Exception]
) -> None:
    faults.fail(state, 0, Target.SET_LIMIT, code)
    with pytest.raises(kind):
        pynvml.nvmlDeviceSetPowerManagementLimit(gpu, 300_000)
    assert (pynvml.nvmlDeviceGetPowerManagementLimit(gpu), watts(gpu)) == (700_000, 500)


def test_a_slow_setter_takes_its_time_and_then_applies(state: NvmlState, gpu: Any) -> None:
    faults.delay(state, 0, Target.SET_LIMIT, 0.05)
    started = time.monotonic()
    pynvml.nvmlDeviceSetPowerManagementLimit(gpu, 300_000)
    assert time.monotonic() - started >= 0.05
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) == 300_000


def test_a_driver_reload_takes_the_limit_away(state: NvmlState, gpu: Any) -> None:
    pynvml.nvmlDeviceSetPowerManagementLimit(gpu, 300_000)
    faults.reload_driver(state)
    initialise_anew()
    anew = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetPowerManagementLimit(anew) == pynvml.nvmlDeviceGetPowerManagementDefaultLimit(anew)


def test_persistence_mode_is_set_and_read_back(state: NvmlState, gpu: Any) -> None:
    assert pynvml.nvmlDeviceGetPersistenceMode(gpu) == 1
    pynvml.nvmlDeviceSetPersistenceMode(gpu, 0)
    assert pynvml.nvmlDeviceGetPersistenceMode(gpu) == 0
    faults.fail(state, 0, Target.SET_PERSISTENCE, pynvml.NVML_ERROR_NO_PERMISSION)
    with pytest.raises(pynvml.NVMLError_NoPermission):
        pynvml.nvmlDeviceSetPersistenceMode(gpu, 1)


def test_where_only_the_module_is_measured_nothing_has_gpu_scope(state: NvmlState, gpu: Any) -> None:
    with state.change(0) as device:
        device.module_only, device.module_extra_mw = 1, 150_000
    refused, module = pynvml.nvmlDeviceGetFieldValues(gpu, [(185, 0), (185, 1)])
    assert refused.nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert module.value.uiVal == 650_000
    for call in (pynvml.nvmlDeviceGetPowerUsage, pynvml.nvmlDeviceGetEnforcedPowerLimit):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            call(gpu)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceSetPowerManagementLimit(gpu, 300_000)
    pynvml.nvmlDeviceSetPowerManagementLimit_v2(gpu, pynvml.NVML_POWER_SCOPE_MODULE, 450_000)
    assert pynvml.nvmlDeviceGetFieldValues(gpu, [(190, 1)])[0].value.uiVal == 450_000


def test_the_enforced_limit_is_the_lower_of_ours_and_somebody_elses(state: NvmlState, gpu: Any) -> None:
    faults.limit_externally(state, 0, 400)
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) == 400_000
    assert pynvml.nvmlDeviceGetPowerManagementLimit(gpu) == 700_000
    assert watts(gpu) == 400


def test_fields_fail_one_by_one_and_leave_garbage_in_the_unused_bytes(state: NvmlState, gpu: Any) -> None:
    faults.fail(state, 0, Target.ENERGY, pynvml.NVML_ERROR_NOT_SUPPORTED)
    power, energy, module = pynvml.nvmlDeviceGetFieldValues(gpu, [185, 83, (185, 1)])
    assert (power.nvmlReturn, power.valueType, power.value.uiVal) == (0, 1, 500_000)
    assert power.value.ullVal != 500_000
    assert energy.nvmlReturn == module.nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED


def test_gpm_is_the_average_activity_between_two_samples(state: NvmlState, gpu: Any) -> None:
    samples = [pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()]
    pynvml.nvmlGpmSampleGet(gpu, samples[0])
    state.set_clock(state.now_ns() + 3 * SECOND_NS)
    with state.change(0) as device:
        device.activity_permille = 0
    state.set_clock(state.now_ns() + SECOND_NS)
    pynvml.nvmlGpmSampleGet(gpu, samples[1])
    request = pynvml.c_nvmlGpmMetricsGet_t()
    request.version, request.numMetrics, request.sample1, request.sample2 = 1, 2, *samples
    request.metrics[0].metricId, request.metrics[1].metricId = pynvml.NVML_GPM_METRIC_SM_UTIL, 999
    pynvml.nvmlGpmMetricsGet(request)
    assert request.metrics[0].value == pytest.approx(60)
    assert request.metrics[1].nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED


def test_an_event_wait_blocks_until_an_event_or_its_timeout(state: NvmlState, gpu: Any) -> None:
    events = pynvml.nvmlEventSetCreate()
    pynvml.nvmlDeviceRegisterEvents(gpu, pynvml.nvmlEventTypeXidCriticalError, events)
    with pytest.raises(pynvml.NVMLError_Timeout):
        pynvml.nvmlEventSetWait(events, 20)
    timer = threading.Timer(0.02, faults.raise_event, (state, 0, 79))
    timer.start()
    event = pynvml.nvmlEventSetWait(events, 10_000)
    timer.join()
    assert (event.eventType, event.eventData, event.gpuInstanceId) == (8, 79, 0xFFFFFFFF)
    pynvml.nvmlEventSetFree(events)


@pytest.mark.parametrize(
    ("code", "kind"),
    (
        (pynvml.NVML_ERROR_NOT_SUPPORTED, "NVMLError_NotSupported"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "NVMLError_NoPermission"),
        (pynvml.NVML_ERROR_UNKNOWN, "NVMLError_Unknown"),
    ),
)
def test_an_injected_code_hits_one_call_of_one_gpu(state: NvmlState, gpu: Any, code: int, kind: str) -> None:
    faults.fail(state, 0, Target.POWER, code)
    with pytest.raises(getattr(pynvml, kind)):
        watts(gpu)
    assert joules(gpu) == 0
    assert watts(pynvml.nvmlDeviceGetHandleByIndex(1)) == 500
    faults.clear(state, 0, Target.POWER)
    assert watts(gpu) == 500


def test_a_frozen_figure_stands_still_while_the_others_go_on(state: NvmlState, gpu: Any) -> None:
    state.set_clock(state.now_ns() + SECOND_NS)
    faults.freeze(state, 0, Target.ENERGY)
    state.set_clock(state.now_ns() + SECOND_NS)
    assert joules(gpu) == 500
    assert watts(gpu) == 500
    faults.clear(state, 0, Target.ENERGY)
    assert joules(gpu) == 1000


def test_an_energy_counter_can_restart(state: NvmlState, gpu: Any) -> None:
    state.set_clock(state.now_ns() + SECOND_NS)
    faults.reset_energy(state, 0)
    state.set_clock(state.now_ns() + SECOND_NS)
    assert joules(gpu) == 500


def test_a_hanging_call_blocks_until_it_is_cleared_and_stops_no_other_gpu(state: NvmlState, gpu: Any) -> None:
    faults.hang(state, 0, Target.POWER)
    read: list[float] = []
    caller = threading.Thread(target=lambda: read.append(watts(gpu)))
    caller.start()
    caller.join(0.05)
    assert not read
    assert watts(pynvml.nvmlDeviceGetHandleByIndex(1)) == 500
    faults.clear(state, 0, Target.POWER)
    caller.join(10)
    assert read == [500]


def test_a_lost_gpu_answers_nothing_but_that(state: NvmlState, gpu: Any) -> None:
    faults.lose(state, 0)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pynvml.nvmlDeviceGetUUID(gpu)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pynvml.nvmlDeviceGetHandleByIndex(0)
    faults.find(state, 0)
    assert watts(gpu) == 500


def test_a_driver_reload_voids_handles_and_restarts_the_energy(state: NvmlState, gpu: Any) -> None:
    state.set_clock(state.now_ns() + SECOND_NS)
    faults.reload_driver(state)
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        watts(gpu)
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetHandleByIndex(0)
    initialise_anew()
    assert joules(pynvml.nvmlDeviceGetHandleByIndex(0)) == 0
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        watts(gpu)


def test_a_writer_that_dies_in_the_middle_blocks_no_reader(state: NvmlState, gpu: Any) -> None:
    state._state.header.sequence |= 1
    assert watts(gpu) == 500
    with state.change(0) as device:
        device.demand_mw = 90_000
    assert watts(gpu) == 90


def test_a_state_file_of_another_version_is_refused_by_both_sides(
    tmp_path: Path, state: NvmlState, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = bytearray(state.path.read_bytes())
    raw[4] = 99
    other = tmp_path / "other.nvml"
    other.write_bytes(raw)
    with pytest.raises(ValueError, match="not a state file of version 2"):
        NvmlState(other)
    pynvml.nvmlShutdown()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv(STATE_PATH_VARIABLE, str(other))
        with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
            pynvml.nvmlInit()
    pynvml.nvmlInit()
