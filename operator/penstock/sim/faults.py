"""What can go wrong with a GPU or its driver, written into a node's state file. Each call takes effect at once."""

from __future__ import annotations

from penstock.sim.nvml_state import MAX_EVENTS, Event, Injection, Mode, NvmlState, Target

CRITICAL_XID = 0x8
DRIVER_NOT_LOADED = 9


def fail(state: NvmlState, index: int, target: Target, result: int) -> None:
    """The call answers the NVML code `result` (0: works again)."""
    with state.change(index) as device:
        device.injections[target].result = result


def hang(state: NvmlState, index: int, target: Target) -> None:
    """The call blocks until `clear`."""
    with state.change(index) as device:
        device.injections[target].mode = Mode.HANG


def delay(state: NvmlState, index: int, target: Target, seconds: float) -> None:
    """The call takes `seconds` longer (0: no longer)."""
    with state.change(index) as device:
        device.injections[target].delay_ms = round(1000 * seconds)


def freeze(state: NvmlState, index: int, target: Target) -> None:
    """The figure stands still at what it is now. Raises `KeyError` for a target that is no figure."""
    with state.change(index) as device:
        injection = device.injections[target]
        injection.frozen = _FIGURES[target](device)
        injection.mode = Mode.FROZEN


def accept_without_applying(state: NvmlState, index: int, target: Target = Target.SET_LIMIT) -> None:
    """Setting a power limit (or the persistence mode) succeeds and changes nothing."""
    with state.change(index) as device:
        device.injections[target].mode = Mode.NOT_APPLIED


def clear(state: NvmlState, index: int, target: Target) -> None:
    with state.change(index) as device:
        device.injections[target] = Injection()


def lose(state: NvmlState, index: int) -> None:
    """The GPU falls off the bus: every call about it answers `GPU_IS_LOST`."""
    with state.change(index) as device:
        device.lost = 1


def find(state: NvmlState, index: int) -> None:
    """A lost GPU is back."""
    with state.change(index) as device:
        device.lost = 0


def limit_externally(state: NvmlState, index: int, watts: float) -> None:
    """Somebody else (a BMC) holds the GPU below what is asked for; 0 lifts it."""
    with state.change(index) as device:
        device.external_limit_mw = round(watts * 1000)


def reset_energy(state: NvmlState, index: int) -> None:
    with state.change(index) as device:
        device.energy_uj = 0


def raise_event(state: NvmlState, index: int, data: int, kind: int = CRITICAL_XID) -> None:
    """An NVML event; for `CRITICAL_XID`, `data` is its number."""
    with state.change(index) as device:
        device.events[device.event_serial % MAX_EVENTS] = Event(kind, data)
        device.event_serial += 1


def reload_driver(state: NvmlState) -> None:
    """Every handle and every process's initialisation becomes void, counters start anew, limits are the default."""
    with state.change_driver() as header:
        header.generation += 1
    for index in range(state.device_count):
        with state.change(index) as device:
            device.energy_uj = 0
            device.throttled_ns = type(device.throttled_ns)()
            device.requested_limit_mw = device.default_limit_mw


def unload_driver(state: NvmlState, result: int = DRIVER_NOT_LOADED) -> None:
    """`nvmlInit` answers `result` and every handle is void; 0 loads the driver again."""
    with state.change_driver() as header:
        header.init_result = result
        header.generation += 1


_FIGURES = {
    Target.POWER: lambda device: device.draw_mw,
    Target.ENERGY: lambda device: device.energy_uj // 1000,
    Target.ENFORCED_LIMIT: lambda device: device.enforced_limit_mw,
    Target.MEMORY: lambda device: device.memory_used_bytes,
    Target.UTILIZATION: lambda device: device.utilization_percent,
    Target.GPM: lambda device: device.activity_permille,
    Target.TEMPERATURE: lambda device: device.temperature_celsius,
    Target.EVENT_REASONS: lambda device: device.reasons,
    Target.MARGIN: lambda device: device.slowdown_celsius - device.temperature_celsius,
}
