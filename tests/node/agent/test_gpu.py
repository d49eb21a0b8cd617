"""One GPU read by the agent through the real binding: what each fault does to the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pynvml
import pytest

from penstock.agent.gpu import MEDIUM_SECONDS, SLOW_SECONDS, Gpu
from penstock.agent.nvml import Driver
from penstock.agent.reading import MigReading, Place, Reading, RemappedRows, State
from penstock.errors import NvmlUnavailable
from penstock.sim import faults
from penstock.sim.nvml_state import DeviceState, MigDevice, NvmlState, Target

SECOND_NS = 10**9
NO_THROTTLING = (
    ("SwPowerCap", 0.0),
    ("SyncBoost", 0.0),
    ("SwThermalSlowdown", 0.0),
    ("HwThermalSlowdown", 0.0),
    ("HwPowerBrake", 0.0),
)
SOUND_STATE = State(
    persistence_mode=True,
    mig_mode=False,
    uncorrectable_ecc_errors=0,
    remapped_rows=RemappedRows(0, 0, pending=False, failed=False),
)
SOUND = Reading(
    power_watts=500.0,
    power_scope="GPU",
    energy_joules=0.0,
    requested_limit_watts=700.0,
    enforced_limit_watts=700.0,
    memory_used_bytes=100 * 2**30,
    memory_reserve_known=True,
    activity_percent=100.0,
    activity_source="Utilization",
    temperature_celsius=55.0,
    thermal_margin_celsius=32.0,
    throttled_seconds=NO_THROTTLING,
    state=SOUND_STATE,
)


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
            failing(Target.FIELDS, pynvml.NVML_ERROR_NOT_SUPPORTED),
            {"throttled_seconds": ()},
            id="without field values single calls answer, for all but the counters",
        ),
        pytest.param(
            failing(Target.POWER, pynvml.NVML_ERROR_NOT_SUPPORTED),
            {"power_watts": None, "power_scope": None},
            id="power that is not supported is left out without complaint",
        ),
        pytest.param(
            failing(Target.POWER, pynvml.NVML_ERROR_UNKNOWN),
            {"power_watts": None, "power_scope": None, "complaint": "power: Unknown Error"},
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
        pytest.param(change(recovery_action=4), {"recovery": "DrainAndReset"}, id="NVIDIA asks for a reset"),
        pytest.param(
            lambda state: faults.limit_externally(state, 0, 400),
            {"power_watts": 400.0, "enforced_limit_watts": 400.0, "throttle_reasons": ("SwPowerCap",)},
            id="a limit set by somebody else is the enforced one, below the requested one",
        ),
        pytest.param(
            failing(Target.THROTTLE_COUNTERS, pynvml.NVML_ERROR_NOT_SUPPORTED),
            {"throttled_seconds": ()},
            id="no counters of throttled time",
        ),
        pytest.param(change(slowdown_celsius=0), {"thermal_margin_celsius": None}, id="a chip that tells no margin"),
        pytest.param(
            change(temperature_celsius=90),
            {"temperature_celsius": 90, "thermal_margin_celsius": -3, "throttle_reasons": ("SwThermalSlowdown",)},
            id="past the margin it slows down, and the margin is negative",
        ),
        pytest.param(
            change(persistence_mode=0),
            {"state": replace(SOUND_STATE, persistence_mode=False)},
            id="persistence mode is off",
        ),
        pytest.param(
            change(uncorrectable_ecc_errors=2, remapped_uncorrectable=1, remapping_pending=1),
            {
                "state": replace(
                    SOUND_STATE,
                    uncorrectable_ecc_errors=2,
                    remapped_rows=RemappedRows(0, 1, pending=True, failed=False),
                )
            },
            id="memory errors and rows that wait to be remapped",
        ),
        pytest.param(
            failing(Target.ECC, pynvml.NVML_ERROR_NOT_SUPPORTED),
            {"state": replace(SOUND_STATE, uncorrectable_ecc_errors=None)},
            id="memory without error correction",
        ),
        pytest.param(
            change(fabric_state=2), {"state": replace(SOUND_STATE, fabric_state="InProgress")}, id="a fabric on its way"
        ),
        pytest.param(
            change(fabric_state=3, fabric_status=999),
            {"state": replace(SOUND_STATE, fabric_state="Completed", fabric_fault="Unknown Error")},
            id="a fabric that could not be joined",
        ),
    ),
)
@pytest.mark.usefixtures("nvml")
def test_a_reading_leaves_out_what_is_not_supported(
    state: NvmlState, fault: Callable[[NvmlState], None], differs: dict[str, Any]
) -> None:
    gpu = Gpu(0)
    fault(state)
    assert gpu.read() == replace(SOUND, **differs)


@pytest.mark.usefixtures("nvml")
def test_activity_is_gpm_from_the_second_reading_on(state: NvmlState) -> None:
    gpu = Gpu(0)
    assert gpu.read().activity_source == "Utilization"
    state.set_clock(state.now_ns() + SECOND_NS)
    reading = gpu.read()
    assert reading.activity_percent == pytest.approx(80)
    assert reading.activity_source == "GPM"
    gpu.close()


class Pacer:
    """A GPU whose readings and whose driver's clock the test moves together."""

    def __init__(self, state: NvmlState) -> None:
        self._state = state
        self._now = 0.0
        self.gpu = Gpu(0, clock=lambda: self._now)

    def read_after(self, seconds: float) -> Reading:
        self._now += seconds
        self._state.set_clock(self._state.now_ns() + round(seconds * SECOND_NS))
        return self.gpu.read()


@pytest.fixture
def pacer(state: NvmlState, nvml: None) -> Iterator[Pacer]:
    pacer = Pacer(state)
    yield pacer
    pacer.gpu.close()


def test_gpm_is_sampled_anew_only_after_five_seconds(state: NvmlState, pacer: Pacer) -> None:
    with state.change(0) as device:
        device.tensor_permille, device.dram_permille = 300, 600
    pacer.read_after(0)
    first = pacer.read_after(1)
    assert first.activity_percent == pytest.approx(80)
    assert (first.tensor_activity_percent, first.dram_activity_percent) == pytest.approx((30, 60))
    with state.change(0) as device:
        device.activity_permille = 100
    assert pacer.read_after(MEDIUM_SECONDS - 0.1).activity_percent == pytest.approx(80)
    assert pacer.read_after(0.1).activity_percent == pytest.approx(10)


def test_a_gpu_that_was_let_go_is_asked_again_until_its_activity_is_over(state: NvmlState, pacer: Pacer) -> None:
    pacer.read_after(0)
    pacer.read_after(1)
    with state.change(0) as device:
        device.activity_permille = device.memory_used_bytes = 0
    assert [pacer.read_after(1).activity_percent for _ in range(2)] == [pytest.approx(0)] * 2


def test_state_is_read_every_half_minute_and_at_once_when_something_happened(state: NvmlState, pacer: Pacer) -> None:
    pacer.read_after(0)
    with state.change(0) as device:
        device.remapping_pending = device.recovery_action = 1
    assert pacer.read_after(1).state == SOUND_STATE
    pacer.gpu.look_again()
    seen = pacer.read_after(1)
    assert seen.state.remapped_rows == RemappedRows(0, 0, pending=True, failed=False)
    assert seen.recovery == "GPUReset"
    with state.change(0) as device:
        device.remapping_pending = 0
    assert pacer.read_after(SLOW_SECONDS - 1).state == seen.state
    assert pacer.read_after(1).state == SOUND_STATE


def test_what_the_driver_asked_for_holds_until_it_says_otherwise(state: NvmlState, pacer: Pacer) -> None:
    with state.change(0) as device:
        device.recovery_action = 1
    pacer.read_after(0)
    faults.fail(state, 0, Target.RECOVERY_ACTION, pynvml.NVML_ERROR_UNKNOWN)
    assert pacer.read_after(MEDIUM_SECONDS).recovery == "GPUReset"


def suffering(device: DeviceState) -> None:
    device.remapping_failed = device.remapping_pending = device.mig_enabled = 1
    device.uncorrectable_ecc_errors = 3
    device.fabric_state, device.fabric_status = 3, pynvml.NVML_ERROR_UNKNOWN


@pytest.mark.parametrize("target", (Target.ECC, Target.REMAPPED_ROWS, Target.FABRIC, Target.MIG))
def test_what_a_gpu_has_suffered_holds_while_the_call_that_tells_it_fails(
    state: NvmlState, pacer: Pacer, target: Target
) -> None:
    with state.change(0) as device:
        suffering(device)
    seen = pacer.read_after(0).state
    faults.fail(state, 0, target, pynvml.NVML_ERROR_UNKNOWN)
    assert pacer.read_after(SLOW_SECONDS).state == seen


def test_throttled_time_is_counted_by_reason(state: NvmlState, pacer: Pacer) -> None:
    faults.limit_externally(state, 0, 400)
    with state.change(0) as device:
        device.event_reasons = 0x80
    pacer.read_after(0)
    counted = dict(pacer.read_after(MEDIUM_SECONDS).throttled_seconds)
    assert counted == {**dict(NO_THROTTLING), "SwPowerCap": MEDIUM_SECONDS, "HwPowerBrake": MEDIUM_SECONDS}


@pytest.mark.usefixtures("nvml")
def test_a_chip_without_gpu_scope_is_measured_by_its_module_and_says_so(state: NvmlState) -> None:
    change(module_only=1, module_extra_mw=100_000)(state)
    gpu = Gpu(0)
    seen = gpu.read()
    assert (seen.power_watts, seen.power_scope) == (600, "Module")
    assert (seen.requested_limit_watts, seen.enforced_limit_watts) == (800, 800)
    limits = (gpu.identity.minimum_limit_watts, gpu.identity.default_limit_watts, gpu.identity.maximum_limit_watts)
    assert limits == (300, 800, 800)


def with_mig(state: NvmlState) -> None:
    with state.change(0) as device:
        device.mig_enabled, device.mig_count = 1, 2
        for place, slices in enumerate((3, 4)):
            device.mig_instances[place] = MigDevice(
                uuid=f"MIG-{place}".encode(),
                name=f"NVIDIA H200 MIG {slices}g.71gb".encode(),
                memory_total_bytes=71 * 2**30,
                gpu_instance=place + 1,
                slices=slices,
                activity_permille=100 * slices,
            )


def test_mig_devices_are_listed_and_measured_each_by_itself(state: NvmlState, pacer: Pacer) -> None:
    with_mig(state)
    pacer.read_after(0)
    seen = pacer.read_after(MEDIUM_SECONDS)
    assert seen.state.mig_mode is True
    assert seen.state.remapped_rows is None
    assert [replace(device, activity_percent=None) for device in seen.mig_instances] == [
        MigReading("MIG-0", "3g.71gb", 3, 71 * 2**30),
        MigReading("MIG-1", "4g.71gb", 4, 71 * 2**30),
    ]
    assert [device.activity_percent for device in seen.mig_instances] == pytest.approx([30, 40])
    assert seen.activity_source == "GPM"
    with state.change(0) as device:
        device.mig_count = 1
    assert [device.uuid for device in pacer.read_after(SLOW_SECONDS).mig_instances] == ["MIG-0"]


@pytest.mark.parametrize("code", (pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_NOT_SUPPORTED))
def test_mig_devices_whose_gpm_is_refused_are_listed_without_activity(
    state: NvmlState, pacer: Pacer, code: int
) -> None:
    with_mig(state)
    faults.fail(state, 0, Target.GPM, code)
    pacer.read_after(0)
    seen = pacer.read_after(MEDIUM_SECONDS)
    assert [device.activity_percent for device in seen.mig_instances] == [None, None]
    # Under MIG there is no utilization to fall back to.
    assert (seen.activity_percent, seen.activity_source, seen.complaint) == (None, None, "")


def test_mig_that_refuses_to_be_listed_is_still_known_to_be_on(state: NvmlState, pacer: Pacer) -> None:
    with_mig(state)
    pacer.read_after(0)
    faults.fail(state, 0, Target.MIG, pynvml.NVML_ERROR_NO_PERMISSION)
    seen = pacer.read_after(SLOW_SECONDS)
    assert seen.complaint == ""
    assert seen.mig_instances == ()


@pytest.mark.usefixtures("nvml")
def test_rack_and_fabric_are_told_where_the_chip_knows_them(state: NvmlState) -> None:
    with state.change(0) as device:
        device.chassis_serial = b"1820325100042"
        device.slot, device.tray, device.host_id = 7, 3, 1
        device.fabric_state, device.fabric_clique = 3, 5
        device.fabric_cluster[:] = list(range(16))
    place = Gpu(0).read().state.place
    assert place == Place("1820325100042", 7, 3, 1, "00010203-0405-0607-0809-0a0b0c0d0e0f", 5)
    assert Gpu(1).read().state.place is None


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
