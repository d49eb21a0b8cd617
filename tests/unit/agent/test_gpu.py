"""One GPU read by the agent through the real binding: what each fault does to the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pynvml
import pytest

from penstock.agent.nvml import Driver, Gpu
from penstock.errors import NvmlUnavailable
from penstock.sim import faults
from penstock.sim.nvml_state import NvmlState, Target

SECOND_NS = 10**9
SOUND = {
    "power_watts": 500.0,
    "energy_joules": 0.0,
    "enforced_limit_watts": 700.0,
    "memory_used_bytes": 100 * 2**30,
    "memory_reserve_known": True,
    "activity_percent": 100.0,
    "activity_source": "Utilization",
    "temperature_celsius": 55.0,
    "throttle_reasons": (),
    "recovery": "",
    "complaint": "",
}


def change(**figures: int) -> Callable[[NvmlState], None]:
    def apply(state: NvmlState) -> None:
        with state.change(0) as device:
            for name, value in figures.items():
                setattr(device, name, value)

    return apply


def failing(target: Target, code: int) -> Callable[[NvmlState], None]:
    return lambda state: faults.fail(state, 0, target, code)


@pytest.mark.parametrize(
    ("fault", "differs"),
    (
        pytest.param(lambda state: None, {}, id="a sound GPU tells everything; its first activity is utilization"),
        pytest.param(
            failing(Target.FIELDS, pynvml.NVML_ERROR_NOT_SUPPORTED), {}, id="without field values single calls answer"
        ),
        pytest.param(
            failing(Target.POWER, pynvml.NVML_ERROR_NOT_SUPPORTED),
            {"power_watts": None},
            id="power that is not supported is left out without complaint",
        ),
        pytest.param(
            failing(Target.POWER, pynvml.NVML_ERROR_UNKNOWN),
            {"power_watts": None, "complaint": "power: Unknown Error"},
            id="power that fails is left out and complained of",
        ),
        pytest.param(
            failing(Target.ENERGY, pynvml.NVML_ERROR_NO_PERMISSION), {"energy_joules": None}, id="no right to energy"
        ),
        pytest.param(
            failing(Target.ENFORCED_LIMIT, pynvml.NVML_ERROR_NOT_SUPPORTED),
            {"enforced_limit_watts": None},
            id="no enforced limit",
        ),
        pytest.param(
            failing(Target.MEMORY, pynvml.NVML_ERROR_NOT_SUPPORTED),
            {"memory_used_bytes": None, "memory_reserve_known": False},
            id="no memory",
        ),
        pytest.param(
            failing(Target.UTILIZATION, pynvml.NVML_ERROR_NOT_SUPPORTED),
            {"activity_percent": None, "activity_source": None},
            id="under MIG there is no utilization",
        ),
        pytest.param(
            failing(Target.TEMPERATURE, pynvml.NVML_ERROR_NOT_SUPPORTED), {"temperature_celsius": None}, id="no sensor"
        ),
        pytest.param(
            change(event_reasons=0x4 | 0x80 | 0x2),
            {"throttle_reasons": ("SwPowerCap", "HwPowerBrake")},
            id="only the event reasons that slow a GPU down are throttling",
        ),
        pytest.param(change(recovery_action=4), {"recovery": "drain and reset the GPU"}, id="NVIDIA asks for a reset"),
        pytest.param(
            lambda state: faults.limit_externally(state, 0, 400),
            {"power_watts": 400.0, "enforced_limit_watts": 400.0, "throttle_reasons": ("SwPowerCap",)},
            id="a limit set by somebody else is the enforced one",
        ),
    ),
)
@pytest.mark.usefixtures("nvml")
def test_a_reading_leaves_out_what_is_not_supported(
    state: NvmlState, fault: Callable[[NvmlState], None], differs: dict[str, Any]
) -> None:
    gpu = Gpu(0)
    fault(state)
    assert asdict(gpu.read()) == SOUND | differs


@pytest.mark.usefixtures("nvml")
def test_activity_is_gpm_from_the_second_reading_on(state: NvmlState) -> None:
    gpu = Gpu(0)
    assert gpu.read().activity_source == "Utilization"
    state.set_clock(state.now_ns() + SECOND_NS)
    reading = gpu.read()
    assert reading.activity_percent == pytest.approx(80)
    assert reading.activity_source == "GPM"
    gpu.close()


@pytest.mark.usefixtures("nvml")
def test_gpm_is_sampled_anew_only_after_a_pause(state: NvmlState) -> None:
    clock = [0.0]
    gpu = Gpu(0, clock=lambda: clock[0])
    gpu.read()
    state.set_clock(state.now_ns() + SECOND_NS)
    gpu.read()
    with state.change(0) as device:
        device.activity_permille = 100
    state.set_clock(state.now_ns() + SECOND_NS)
    clock[0] = 1.9
    assert gpu.read().activity_percent == pytest.approx(80)
    clock[0] = 2.0
    assert gpu.read().activity_percent == pytest.approx(10)
    gpu.close()


@pytest.mark.parametrize("code", (pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_NOT_SUPPORTED))
@pytest.mark.usefixtures("nvml")
def test_where_gpm_is_refused_utilization_is_used_and_named(state: NvmlState, code: int) -> None:
    faults.fail(state, 0, Target.GPM, code)
    gpu = Gpu(0)
    gpu.read()
    state.set_clock(state.now_ns() + SECOND_NS)
    reading = gpu.read()
    assert (reading.activity_percent, reading.activity_source, reading.complaint) == (100, "Utilization", "")


@pytest.mark.parametrize(
    ("code", "kind"),
    (
        (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVMLError_GpuIsLost),
        (pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVMLError_ResetRequired),
        (pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVMLError_Uninitialized),
    ),
)
@pytest.mark.parametrize("target", (Target.POWER, Target.MEMORY, Target.FIELDS))
@pytest.mark.usefixtures("nvml")
def test_faults_of_gpu_and_driver_are_raised(
    state: NvmlState, target: Target, code: int, kind: type[Exception]
) -> None:
    gpu = Gpu(0)
    faults.fail(state, 0, target, code)
    with pytest.raises(kind):
        gpu.read()


@pytest.mark.usefixtures("nvml")
def test_identity_uses_the_spelling_of_gpu_feature_discovery(state: NvmlState) -> None:
    identity = Gpu(1).identity
    assert (identity.uuid, identity.index, identity.product) == ("GPU-1", 1, "NVIDIA-H200")
    assert (identity.memory_total_bytes, identity.maximum_limit_watts) == (141 * 2**30, 700)


def test_a_driver_that_is_not_loaded_is_named_with_its_remedy(state: NvmlState) -> None:
    faults.unload_driver(state)
    with pytest.raises(NvmlUnavailable, match="the NVIDIA driver is not loaded on this node"):
        Driver()
