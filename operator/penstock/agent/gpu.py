"""One GPU through NVML: watts each time, activity and counters every five seconds, the rest every half minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pynvml

from penstock.agent.gpm import Activity, GpmRequest, Meter
from penstock.agent.mig import MigDevices
from penstock.agent.nvml import Calls
from penstock.agent.reading import ActivitySource, Identity, PowerScope, Reading, State
from penstock.agent.state import read_state
from penstock.agent.window import UNHELD_ACTIVITY_PERCENT, UNHELD_MEMORY_BYTES

MEDIUM_SECONDS = 5.0
SLOW_SECONDS = 30.0

_NEVER = float("-inf")
_SCOPES: Mapping[PowerScope, int] = {"GPU": 0, "Module": 1}
_THROTTLE_REASONS = {
    0x4: "SwPowerCap",
    0x8: "HwSlowdown",
    0x20: "SwThermalSlowdown",
    0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrake",
}
_THROTTLE_COUNTERS = {
    "SwPowerCap": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP,
    "SyncBoost": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST,
    "SwThermalSlowdown": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
    "HwThermalSlowdown": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
    "HwPowerBrake": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
}
_NANOSECONDS = 1e9
_RECOVERY_ACTIONS = {
    1: "GPUReset",
    2: "NodeReboot",
    3: "DrainP2P",
    4: "DrainAndReset",
    5: "RecoverIMEXDomain",
    6: "BusReset",
    7: "SystemReboot",
}


class Gpu:
    """One GPU by its index. Every method raises NVMLError for a fault of the GPU or the driver."""

    def __init__(self, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls = Calls(pynvml.nvmlDeviceGetHandleByIndex(index))
        request = GpmRequest()
        self._meter = Meter(self._calls.handle, request)
        self._mig = MigDevices(self._calls, request)
        self._medium_at = self._slow_at = self._activity_at = _NEVER
        self._processes: tuple[tuple[int, float], ...] = ()
        self._processes_seen_us = 0
        self._activity: Activity | None = None
        self._throttled: tuple[tuple[str, float], ...] = ()
        self._margin: float | None = None
        self._recovery = 0.0
        self._state = State()
        self._scope = self._find_scope()
        self.identity = self._identify(index)

    def close(self) -> None:
        self._meter.close()
        self._mig.close()

    def look_again(self) -> None:
        """Read everything at the next `read`, however fresh it is: something happened to this GPU."""
        self._medium_at = self._slow_at = _NEVER

    def read(self) -> Reading:
        """One round of calls, for every figure that this GPU supports and that is due."""
        now = self._clock()
        if now - self._slow_at >= SLOW_SECONDS:
            self._read_slow(now)
        if now - self._medium_at >= MEDIUM_SECONDS:
            self._read_medium(now)
        power, energy, requested, enforced = self._read_power()
        memory, reserve_known = self._read_memory()
        percent, source = self._read_activity(now, memory)
        reasons = self._calls.ask("event reasons", pynvml.nvmlDeviceGetCurrentClocksEventReasons) or 0
        return Reading(
            power_watts=_thousandth(power),
            power_scope=None if power is None else self._scope or "GPU",
            energy_joules=_thousandth(energy),
            requested_limit_watts=_thousandth(requested),
            enforced_limit_watts=_thousandth(enforced),
            memory_used_bytes=memory,
            memory_reserve_known=reserve_known,
            activity_percent=percent,
            activity_source=source,
            tensor_activity_percent=self._activity.tensor_percent if self._activity else None,
            dram_activity_percent=self._activity.dram_percent if self._activity else None,
            temperature_celsius=self._read_temperature(),
            thermal_margin_celsius=self._margin,
            throttle_reasons=tuple(name for bit, name in _THROTTLE_REASONS.items() if reasons & bit),
            throttled_seconds=self._throttled,
            recovery=_recovery(self._recovery),
            state=self._state,
            mig_instances=self._mig.devices,
            processes=self._processes,
            complaint=self._calls.complaint(),
        )

    def _find_scope(self) -> PowerScope | None:
        """GPU wherever it is measured. Grace-Hopper measures its module alone, processor and memory with it."""
        average = pynvml.NVML_FI_DEV_POWER_AVERAGE
        gpu, module = self._calls.fields([(average, scope) for scope in _SCOPES.values()])
        if gpu is not None or self._calls.ask("power", pynvml.nvmlDeviceGetPowerUsage) is not None:
            return "GPU"
        return None if module is None else "Module"

    def _identify(self, index: int) -> Identity:
        memory = self._calls.ask("memory", pynvml.nvmlDeviceGetMemoryInfo)
        minimum, default, maximum = self._read_range()
        return Identity(
            uuid=str(pynvml.nvmlDeviceGetUUID(self._calls.handle)),
            index=index,
            product=str(pynvml.nvmlDeviceGetName(self._calls.handle)).replace(" ", "-"),
            memory_total_bytes=None if memory is None else int(memory.total),
            maximum_limit_watts=_thousandth(maximum),
            minimum_limit_watts=_thousandth(minimum),
            default_limit_watts=_thousandth(default),
            minor=self._calls.ask("minor number", pynvml.nvmlDeviceGetMinorNumber),
        )

    def _read_range(self) -> tuple[float | None, float | None, float | None]:
        """Minimum, default and maximum limit; single calls, which know the GPU alone, where a field fails."""
        scope = _SCOPES[self._scope or "GPU"]
        minimum, default, maximum = self._calls.fields(
            [
                (pynvml.NVML_FI_DEV_POWER_MIN_LIMIT, scope),
                (pynvml.NVML_FI_DEV_POWER_DEFAULT_LIMIT, scope),
                (pynvml.NVML_FI_DEV_POWER_MAX_LIMIT, scope),
            ]
        )
        if self._scope == "Module":
            return minimum, default, maximum
        if minimum is None or maximum is None:
            told = self._calls.ask("limits", pynvml.nvmlDeviceGetPowerManagementLimitConstraints)
            minimum, maximum = (None, None) if told is None else told
        if default is None:
            default = self._calls.ask("default limit", pynvml.nvmlDeviceGetPowerManagementDefaultLimit)
        return minimum, default, maximum

    def _read_power(self) -> tuple[float | None, float | None, float | None, float | None]:
        """Draw in mW, energy in mJ, requested and enforced limit in mW, in one call; single calls for what fails."""
        scope = _SCOPES[self._scope or "GPU"]
        power, energy, requested, enforced = self._calls.fields(
            [
                (pynvml.NVML_FI_DEV_POWER_AVERAGE, scope),
                (pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, 0),
                (pynvml.NVML_FI_DEV_POWER_REQUESTED_LIMIT, scope),
                (pynvml.NVML_FI_DEV_POWER_CURRENT_LIMIT, scope),
            ]
        )
        ask = self._calls.ask
        if energy is None:
            energy = ask("energy", pynvml.nvmlDeviceGetTotalEnergyConsumption)
        if self._scope == "Module":
            return power, energy, requested, enforced
        if power is None:
            power = ask("power", pynvml.nvmlDeviceGetPowerUsage)
        if requested is None:
            requested = ask("requested limit", pynvml.nvmlDeviceGetPowerManagementLimit)
        if enforced is None:
            enforced = ask("enforced limit", pynvml.nvmlDeviceGetEnforcedPowerLimit)
        return power, energy, requested, enforced

    def _read_slow(self, now: float) -> None:
        self._slow_at = now
        self._scope = self._scope or self._find_scope()
        self._state = read_state(self._calls).or_last(self._state)
        self._mig.look(enabled=bool(self._state.mig_mode))

    def _read_medium(self, now: float) -> None:
        self._medium_at = now
        recovery, *counters = self._calls.fields(
            [(pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, 0), *((field, 0) for field in _THROTTLE_COUNTERS.values())]
        )
        # Unsaid is not sound: what was said last holds.
        self._recovery = self._recovery if recovery is None else recovery
        self._throttled = tuple(
            (reason, value / _NANOSECONDS)
            for reason, value in zip(_THROTTLE_COUNTERS, counters, strict=True)
            if value is not None
        )
        margin = self._calls.ask("thermal margin", pynvml.nvmlDeviceGetMarginTemperature)
        self._margin = None if margin is None else float(margin)
        self._mig.read()
        self._read_processes()

    def _read_processes(self) -> None:
        """Who had the SMs since the last look, the mean over NVML's samples; none where MIG gives each its own."""
        samples = self._calls.ask("processes", sm_samples, self._processes_seen_us) or []
        self._processes_seen_us = max((sample.timeStamp for sample in samples), default=self._processes_seen_us)
        percent: dict[int, list[float]] = {}
        for sample in samples:
            percent.setdefault(int(sample.pid), []).append(float(sample.smUtil))
        self._processes = tuple((pid, sum(each) / len(each)) for pid, each in sorted(percent.items()))

    def _read_memory(self) -> tuple[int | None, bool]:
        memory = self._calls.ask("memory", pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2)
        if memory is not None:
            return int(memory.used), True
        memory = self._calls.ask("memory", pynvml.nvmlDeviceGetMemoryInfo)
        return (None if memory is None else int(memory.used)), False

    def _read_activity(self, now: float, memory_used_bytes: int | None) -> tuple[float | None, ActivitySource | None]:
        if self._activity_is_due(now, memory_used_bytes):
            self._activity_at = now
            self._activity = self._calls.attempt("GPM", self._meter.read)
        if self._activity is not None:
            return self._activity.percent, "GPM"
        of_parts = self._mig.activity_percent()
        if of_parts is not None:
            return of_parts, "GPM"
        rates = self._calls.ask("utilization", pynvml.nvmlDeviceGetUtilizationRates)
        return (None, None) if rates is None else (float(rates.gpu), "Utilization")

    def _activity_is_due(self, now: float, memory_used_bytes: int | None) -> bool:
        if now - self._activity_at >= MEDIUM_SECONDS:
            return True
        if self._activity is None:
            # The second sample may follow at once; a refusal is not asked about every second.
            return "GPM" not in self._calls.refused
        # Whoever held it let go: an average that still holds their work would keep its watts from being credited.
        let_go = memory_used_bytes is not None and memory_used_bytes < UNHELD_MEMORY_BYTES
        return let_go and self._activity.percent >= UNHELD_ACTIVITY_PERCENT

    def _read_temperature(self) -> float | None:
        core = pynvml.NVML_TEMPERATURE_GPU
        celsius = self._calls.ask("temperature", pynvml.nvmlDeviceGetTemperatureV, core)
        if celsius is None:
            celsius = self._calls.ask("temperature", pynvml.nvmlDeviceGetTemperature, core)
        return None if celsius is None else float(celsius)


def sm_samples(handle: Any, since_us: int) -> list[Any]:
    """NVML's samples of each process since then. Raises NVMLError."""
    try:
        return list(pynvml.nvmlDeviceGetProcessUtilization(handle, since_us))
    except pynvml.NVMLError as error:
        # The binding takes "there are none", said with success, for an error.
        if error.value == pynvml.NVML_SUCCESS:
            return []
        raise


def _recovery(action: float) -> str:
    return _RECOVERY_ACTIONS.get(int(action), f"Action{action:g}") if action else ""


def _thousandth(value: Any) -> float | None:
    return None if value is None else float(value) / 1000
