"""NVML as the agent reads it, through the real binding. A figure that the driver does not support is `None`.

Every call here may block for as long as the driver likes: only threads that may be lost call it (see `sampler`).
Semantics of the calls and fields: NVIDIA's NVML API reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import pynvml
from pynvml import NVMLError

from penstock.errors import NvmlUnavailable

ActivitySource = Literal["GPM", "Utilization"]

_ACTIVITY_SECONDS = 2.0
"""Pause between two GPM samples of one GPU; a metric is the average between them, so a GPU looks idle only after the
second sample since it fell idle."""

_UNSUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
GPU_FAULTS = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})
DRIVER_FAULTS = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)

_THROTTLE_REASONS = {
    0x4: "SwPowerCap",
    0x8: "HwSlowdown",
    0x20: "SwThermalSlowdown",
    0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrake",
}
_RECOVERY_ACTIONS = {
    1: "reset the GPU",
    2: "reboot the node",
    3: "drain peer-to-peer traffic",
    4: "drain and reset the GPU",
    5: "recover the IMEX domain",
    6: "reset the bus",
    7: "reboot the system",
}
_FIELD_RETURN_TYPES = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while the driver stays loaded. `product` in GPU Feature Discovery's spelling."""

    uuid: str
    index: int
    product: str
    memory_total_bytes: int | None
    maximum_limit_watts: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU at one moment.

    `memory_used_bytes` is without what the driver reserves where NVML tells them apart (`memory_reserve_known`).
    `recovery` is NVIDIA's own verdict, empty for a sound GPU; `complaint` names the calls that failed otherwise than
    by not being supported.
    """

    power_watts: float | None = None
    energy_joules: float | None = None
    enforced_limit_watts: float | None = None
    memory_used_bytes: int | None = None
    memory_reserve_known: bool = False
    activity_percent: float | None = None
    activity_source: ActivitySource | None = None
    temperature_celsius: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    recovery: str = ""
    complaint: str = ""


class Driver:
    """NVML, initialised. Raises NvmlUnavailable where the library or the driver is missing."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            self.driver_version = str(pynvml.nvmlSystemGetDriverVersion())
            self.nvml_version = str(pynvml.nvmlSystemGetNVMLVersion())
        except NVMLError as error:
            raise NvmlUnavailable(_explain(error)) from error

    def gpu_count(self) -> int:
        """Raises NvmlUnavailable when the driver is gone."""
        try:
            return int(pynvml.nvmlDeviceGetCount())
        except NVMLError as error:
            raise NvmlUnavailable(_explain(error)) from error

    def close(self) -> None:
        """Never while another thread is inside a call."""
        try:
            pynvml.nvmlShutdown()
        except NVMLError as error:
            if error.value not in DRIVER_FAULTS:
                raise


def _explain(error: NVMLError) -> str:
    remedy = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not on the library path; run the agent's container "
        "with the NVIDIA runtime, or mount the driver's libraries",
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded on this node",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "library and kernel module are of different versions; "
        "restart the agent after the driver's upgrade",
    }
    return f"NVML: {error} (code {error.value}): {remedy.get(error.value, 'see nvidia-smi on the node')}"


class Gpu:
    """One GPU by its index. Every method raises NVMLError for a fault of the GPU or the driver."""

    def __init__(self, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._complaints: list[str] = []
        self._sm_activity = _SmActivity(self._handle)
        self._activity: tuple[float | None, ActivitySource | None] = (None, None)
        self._activity_at = float("-inf")
        memory = self._ask("memory", pynvml.nvmlDeviceGetMemoryInfo, self._handle)
        constraints = self._ask("limits", pynvml.nvmlDeviceGetPowerManagementLimitConstraints, self._handle)
        self.identity = Identity(
            uuid=str(pynvml.nvmlDeviceGetUUID(self._handle)),
            index=index,
            product=str(pynvml.nvmlDeviceGetName(self._handle)).replace(" ", "-"),
            memory_total_bytes=None if memory is None else int(memory.total),
            maximum_limit_watts=None if constraints is None else constraints[1] / 1000,
        )

    def close(self) -> None:
        self._sm_activity.close()

    def read(self) -> Reading:
        """One round of calls, for every figure that this GPU supports."""
        self._complaints = []
        power, energy, limit, recovery = self._read_fields()
        memory, reserve_known = self._read_memory()
        activity, source = self._read_activity()
        reasons = self._ask("event reasons", pynvml.nvmlDeviceGetCurrentClocksEventReasons, self._handle) or 0
        return Reading(
            power_watts=_thousandth(power),
            energy_joules=_thousandth(energy),
            enforced_limit_watts=_thousandth(limit),
            memory_used_bytes=memory,
            memory_reserve_known=reserve_known,
            activity_percent=activity,
            activity_source=source,
            temperature_celsius=self._read_temperature(),
            throttle_reasons=tuple(name for bit, name in _THROTTLE_REASONS.items() if reasons & bit),
            recovery=_RECOVERY_ACTIONS.get(int(recovery), f"recovery action {recovery}") if recovery else "",
            complaint="; ".join(self._complaints),
        )

    def _ask(self, figure: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call's answer, or None where it is not supported or failed; faults of GPU and driver are raised."""
        try:
            return call(*arguments)
        except NVMLError as error:
            self._judge(figure, error.value, error)
            return None

    def _judge(self, figure: str, code: int, error: NVMLError) -> None:
        if code in GPU_FAULTS or code in DRIVER_FAULTS:
            raise error
        if code not in _UNSUPPORTED:
            self._complaints.append(f"{figure}: {error}")

    def _read_fields(self) -> tuple[float | None, float | None, float | None, float | None]:
        """Milliwatts, millijoules, milliwatts and a recovery action; one call, single calls where a field fails."""
        fields = [
            pynvml.NVML_FI_DEV_POWER_AVERAGE,
            pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
            pynvml.NVML_FI_DEV_POWER_CURRENT_LIMIT,
            pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        ]
        answered = self._ask("fields", pynvml.nvmlDeviceGetFieldValues, self._handle, fields) or ()
        values = [self._field_value(value) for value in answered] or [None] * len(fields)
        power, energy, limit, recovery = values
        if power is None:
            power = self._ask("power", pynvml.nvmlDeviceGetPowerUsage, self._handle)
        if energy is None:
            energy = self._ask("energy", pynvml.nvmlDeviceGetTotalEnergyConsumption, self._handle)
        if limit is None:
            limit = self._ask("enforced limit", pynvml.nvmlDeviceGetEnforcedPowerLimit, self._handle)
        return power, energy, limit, recovery

    def _field_value(self, value: Any) -> float | None:
        if value.nvmlReturn:
            if value.nvmlReturn in GPU_FAULTS or value.nvmlReturn in DRIVER_FAULTS:
                raise NVMLError(value.nvmlReturn)
            return None
        member = _FIELD_RETURN_TYPES.get(value.valueType)
        return None if member is None else float(getattr(value.value, member))

    def _read_memory(self) -> tuple[int | None, bool]:
        memory = self._ask("memory", pynvml.nvmlDeviceGetMemoryInfo, self._handle, pynvml.nvmlMemory_v2)
        if memory is not None:
            return int(memory.used), True
        memory = self._ask("memory", pynvml.nvmlDeviceGetMemoryInfo, self._handle)
        return (None if memory is None else int(memory.used)), False

    def _read_activity(self) -> tuple[float | None, ActivitySource | None]:
        now = self._clock()
        if self._activity[1] == "GPM" and now - self._activity_at < _ACTIVITY_SECONDS:
            return self._activity
        percent = self._ask("GPM", self._sm_activity.read)
        if percent is not None:
            self._activity, self._activity_at = (percent, "GPM"), now
            return self._activity
        rates = self._ask("utilization", pynvml.nvmlDeviceGetUtilizationRates, self._handle)
        self._activity = (None, None) if rates is None else (float(rates.gpu), "Utilization")
        return self._activity

    def _read_temperature(self) -> float | None:
        core = pynvml.NVML_TEMPERATURE_GPU
        celsius = self._ask("temperature", pynvml.nvmlDeviceGetTemperatureV, self._handle, core)
        if celsius is None:
            celsius = self._ask("temperature", pynvml.nvmlDeviceGetTemperature, self._handle, core)
        return None if celsius is None else float(celsius)


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000


class _SmActivity:
    """Share of streaming multiprocessors that were busy between two GPM samples, which are kept and swapped."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._samples: list[Any] = []
        self._started = False
        self._request = pynvml.c_nvmlGpmMetricsGet_t()
        self._request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        self._request.numMetrics = 1
        self._request.metrics[0].metricId = pynvml.NVML_GPM_METRIC_SM_UTIL

    def read(self) -> float | None:
        """Percent since the last read; None at the first, and where the chip has no GPM. Raises NVMLError."""
        if not self._samples:
            self._allocate()
        self._samples.reverse()
        pynvml.nvmlGpmSampleGet(self._handle, self._samples[1])
        if not self._started:
            self._started = True
            return None
        self._request.sample1, self._request.sample2 = self._samples
        pynvml.nvmlGpmMetricsGet(self._request)
        metric = self._request.metrics[0]
        return None if metric.nvmlReturn else max(0.0, min(100.0, float(metric.value)))

    def _allocate(self) -> None:
        if not pynvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
            raise NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        self._samples = [pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()]

    def close(self) -> None:
        for sample in self._samples:
            # A driver that is gone took its samples with it.
            with suppress(NVMLError):
                pynvml.nvmlGpmSampleFree(sample)
        self._samples = []
