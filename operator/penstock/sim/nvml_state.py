"""The state file of a node's GPUs: what the plant writes and the NVML library in `hack/nvml` reads.

The layout mirrors `hack/nvml/state.h`; both sides check the version and the size when they map the file. Units are in
the names, as in C: milliwatts, microjoules, bytes, per mille, nanoseconds of the boot clock.

A writer holds `flock` on the file and keeps the header's `sequence` odd while it writes; the library's readers copy
under that sequence, and wait for the lock when a writer stays in the middle.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

STATE_PATH_VARIABLE = "PENSTOCK_NVML_STATE"
MAX_DEVICES = 16
MAX_MIG_INSTANCES = 7
MAX_PROCESSES = 16
MAX_EVENTS = 8
_MAGIC = 0x4D564E50
_VERSION = 2
_DRIVER_VERSION = b"580.82.07"


class Target(IntEnum):
    """What an injection aims at: a figure, by whichever NVML call it is read, or an act."""

    HANDLE = 0
    IDENTITY = 1
    POWER = 2
    ENERGY = 3
    ENFORCED_LIMIT = 4
    LIMIT_CONSTRAINTS = 5
    SET_LIMIT = 6
    MEMORY = 7
    UTILIZATION = 8
    GPM = 9
    TEMPERATURE = 10
    EVENT_REASONS = 11
    RECOVERY_ACTION = 12
    FIELDS = 13
    EVENTS = 14
    PERSISTENCE = 15
    SET_PERSISTENCE = 16
    MARGIN = 17
    ECC = 18
    REMAPPED_ROWS = 19
    FABRIC = 20
    PLATFORM = 21
    MIG = 22
    PROCESSES = 23
    THROTTLE_COUNTERS = 24


class Mode(IntEnum):
    """How a call misbehaves: it blocks, its figure stands still, or it accepts and does nothing."""

    NONE = 0
    HANG = 1
    FROZEN = 2
    NOT_APPLIED = 3


class Throttle(IntEnum):
    """Reasons to slow down that are counted in time; the value is the place among the counters."""

    SW_POWER_CAP = 0
    SYNC_BOOST = 1
    SW_THERMAL_SLOWDOWN = 2
    HW_THERMAL_SLOWDOWN = 3
    HW_POWER_BRAKE = 4


_REASON_BITS = {
    Throttle.SW_POWER_CAP: 0x4,
    Throttle.SYNC_BOOST: 0x10,
    Throttle.SW_THERMAL_SLOWDOWN: 0x20,
    Throttle.HW_THERMAL_SLOWDOWN: 0x40,
    Throttle.HW_POWER_BRAKE: 0x80,
}


class Injection(ctypes.Structure):
    """`result`: the NVML code to answer (0: none); `delay_ms`: how much longer the call takes; `frozen`: the figure
    while the mode is `FROZEN`.
    """

    _fields_ = [
        ("result", ctypes.c_int32),
        ("mode", ctypes.c_uint32),
        ("delay_ms", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("frozen", ctypes.c_uint64),
    ]


class MigDevice(ctypes.Structure):
    """One MIG device of a GPU. `activity_permille` is the share of its own streaming multiprocessors."""

    _fields_ = [
        ("uuid", ctypes.c_char * 48),
        ("name", ctypes.c_char * 64),
        ("memory_total_bytes", ctypes.c_uint64),
        ("memory_used_bytes", ctypes.c_uint64),
        ("activity_permille_us", ctypes.c_uint64),
        ("activity_permille", ctypes.c_uint32),
        ("gpu_instance", ctypes.c_uint32),
        ("compute_instance", ctypes.c_uint32),
        ("slices", ctypes.c_uint32),
    ]
    uuid: bytes
    name: bytes
    memory_total_bytes: int
    memory_used_bytes: int
    activity_permille_us: int
    activity_permille: int
    slices: int


class Process(ctypes.Structure):
    """One process on a GPU. `mig_instance` is 0 for the whole GPU, else the place of its MIG device, from 1."""

    _fields_ = [
        ("used_memory_bytes", ctypes.c_uint64),
        ("pid", ctypes.c_uint32),
        ("sm_percent", ctypes.c_uint32),
        ("memory_percent", ctypes.c_uint32),
        ("mig_instance", ctypes.c_uint32),
    ]


class Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint64), ("data", ctypes.c_uint64)]


class DeviceState(ctypes.Structure):
    """One GPU. Energy, activities (`…_us`) and throttled time are integrals up to `changed_ns`."""

    _fields_ = [
        ("uuid", ctypes.c_char * 48),
        ("name", ctypes.c_char * 64),
        ("bus_id", ctypes.c_char * 32),
        ("memory_total_bytes", ctypes.c_uint64),
        ("memory_used_bytes", ctypes.c_uint64),
        ("memory_reserved_bytes", ctypes.c_uint64),
        ("uncorrectable_ecc_errors", ctypes.c_uint64),
        ("changed_ns", ctypes.c_uint64),
        ("energy_uj", ctypes.c_uint64),
        ("activity_permille_us", ctypes.c_uint64),
        ("tensor_permille_us", ctypes.c_uint64),
        ("dram_permille_us", ctypes.c_uint64),
        ("throttled_ns", ctypes.c_uint64 * len(Throttle)),
        ("minimum_limit_mw", ctypes.c_uint32),
        ("maximum_limit_mw", ctypes.c_uint32),
        ("default_limit_mw", ctypes.c_uint32),
        ("requested_limit_mw", ctypes.c_uint32),
        ("external_limit_mw", ctypes.c_uint32),
        ("demand_mw", ctypes.c_uint32),
        ("module_only", ctypes.c_uint32),
        ("module_extra_mw", ctypes.c_uint32),
        ("persistence_mode", ctypes.c_uint32),
        ("activity_permille", ctypes.c_uint32),
        ("tensor_permille", ctypes.c_uint32),
        ("dram_permille", ctypes.c_uint32),
        ("utilization_percent", ctypes.c_uint32),
        ("temperature_celsius", ctypes.c_int32),
        ("slowdown_celsius", ctypes.c_int32),
        ("event_reasons", ctypes.c_uint32),
        ("recovery_action", ctypes.c_uint32),
        ("lost", ctypes.c_uint32),
        ("gpm_supported", ctypes.c_uint32),
        ("remapped_correctable", ctypes.c_uint32),
        ("remapped_uncorrectable", ctypes.c_uint32),
        ("remapping_pending", ctypes.c_uint32),
        ("remapping_failed", ctypes.c_uint32),
        ("fabric_state", ctypes.c_uint32),
        ("fabric_status", ctypes.c_int32),
        ("fabric_clique", ctypes.c_uint32),
        ("fabric_cluster", ctypes.c_uint8 * 16),
        ("chassis_serial", ctypes.c_char * 16),
        ("slot", ctypes.c_uint8),
        ("tray", ctypes.c_uint8),
        ("host_id", ctypes.c_uint8),
        ("module_id", ctypes.c_uint8),
        ("mig_enabled", ctypes.c_uint32),
        ("mig_count", ctypes.c_uint32),
        ("process_count", ctypes.c_uint32),
        ("event_serial", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("events", Event * MAX_EVENTS),
        ("mig_instances", MigDevice * MAX_MIG_INSTANCES),
        ("processes", Process * MAX_PROCESSES),
        ("injections", Injection * len(Target)),
    ]
    requested_limit_mw: int
    external_limit_mw: int
    demand_mw: int
    module_only: int
    module_extra_mw: int
    activity_permille: int
    tensor_permille: int
    dram_permille: int
    temperature_celsius: int
    slowdown_celsius: int
    event_reasons: int
    mig_count: int
    mig_instances: ctypes.Array[MigDevice]
    throttled_ns: ctypes.Array[ctypes.c_uint64]
    changed_ns: int
    energy_uj: int
    activity_permille_us: int
    tensor_permille_us: int
    dram_permille_us: int

    @property
    def enforced_limit_mw(self) -> int:
        """The limit that holds: what was asked for, or a lower one that somebody else set."""
        return min(self.requested_limit_mw, self.external_limit_mw or self.requested_limit_mw)

    @property
    def draw_mw(self) -> int:
        """What the GPU draws: what its load would, as far as the limit lets it."""
        return min(self.demand_mw, self.enforced_limit_mw)

    @property
    def measured_mw(self) -> int:
        """What the sensor of the chip covers: the GPU, or its whole module where it cannot tell them apart."""
        return self.draw_mw + (self.module_extra_mw if self.module_only else 0)

    @property
    def reasons(self) -> int:
        """NVML's event reasons: what follows from the figures, and what was injected."""
        hot = self.slowdown_celsius and self.temperature_celsius >= self.slowdown_celsius
        idle = 0 if self.activity_permille else 0x1
        power_capped = 0x4 if self.demand_mw > self.enforced_limit_mw else 0
        return idle | power_capped | (0x20 if hot else 0) | int(self.event_reasons)

    def advance(self, now_ns: int) -> None:
        """Bring the integrals up to `now_ns` at the present draw and activity."""
        elapsed_ns = max(0, now_ns - self.changed_ns)
        elapsed_us = elapsed_ns // 1000
        self.energy_uj += self.measured_mw * elapsed_us // 1000
        self.activity_permille_us += self.activity_permille * elapsed_us
        self.tensor_permille_us += self.tensor_permille * elapsed_us
        self.dram_permille_us += self.dram_permille * elapsed_us
        for instance in self.mig_instances[: self.mig_count]:
            instance.activity_permille_us += instance.activity_permille * elapsed_us
        reasons = self.reasons
        for throttle, bit in _REASON_BITS.items():
            if reasons & bit:
                self.throttled_ns[throttle] += elapsed_ns
        self.changed_ns = now_ns


class StateHeader(ctypes.Structure):
    _fields_ = [
        ("magic", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("sequence", ctypes.c_uint32),
        ("device_count", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
        ("init_result", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("manual_clock_ns", ctypes.c_uint64),
        ("driver_version", ctypes.c_char * 80),
        ("nvml_version", ctypes.c_char * 80),
    ]


class _State(ctypes.Structure):
    _fields_ = [("header", StateHeader), ("devices", DeviceState * MAX_DEVICES)]


class NvmlState:
    """A mapped state file. Several processes may hold it; each change is atomic for all of them."""

    def __init__(self, path: Path) -> None:
        """Map an existing file. Raises `ValueError` when it is not a state file of this version."""
        self.path = path
        self._file = path.open("r+b")
        if os.fstat(self._file.fileno()).st_size < ctypes.sizeof(_State):
            raise ValueError(f"{path}: too short for a state file; write it anew with NvmlState.create")
        self._mapping = mmap.mmap(self._file.fileno(), ctypes.sizeof(_State))
        self._state = _State.from_buffer(self._mapping)
        header = self._state.header
        if (header.magic, header.version, header.size) != (_MAGIC, _VERSION, ctypes.sizeof(_State)):
            raise ValueError(f"{path}: not a state file of version {_VERSION}; write it anew with NvmlState.create")

    @classmethod
    def create(cls, path: Path, devices: Sequence[DeviceState], clock_ns: int = 0) -> NvmlState:
        """Write a file for `devices` (at most 16) in one step, so that no reader ever sees half of it.

        Time is the machine's boot clock, unless `clock_ns` holds it until `set_clock` moves it.
        """
        state = _State()
        state.header.magic, state.header.version, state.header.size = _MAGIC, _VERSION, ctypes.sizeof(_State)
        state.header.device_count = len(devices)
        state.header.generation = 1
        state.header.manual_clock_ns = clock_ns
        state.header.driver_version = _DRIVER_VERSION
        state.header.nvml_version = b"13." + _DRIVER_VERSION
        for index, device in enumerate(devices):
            state.devices[index] = device
            state.devices[index].changed_ns = clock_ns or time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".new")
        written.write_bytes(bytes(state))
        written.replace(path)
        return cls(path)

    @property
    def device_count(self) -> int:
        return int(self._state.header.device_count)

    def now_ns(self) -> int:
        """Boot time, or the clock that `set_clock` holds."""
        return int(self._state.header.manual_clock_ns) or time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        header = self._state.header
        header.sequence |= 1
        try:
            yield
        finally:
            header.sequence = (header.sequence + 1) & 0xFFFFFFFF
            fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def change(self, index: int) -> Iterator[DeviceState]:
        """The device to write to; its integrals stand at now, so a new draw counts from now on."""
        with self._writing():
            device = self._state.devices[index]
            device.advance(self.now_ns())
            yield device

    @contextmanager
    def change_driver(self) -> Iterator[StateHeader]:
        with self._writing():
            yield self._state.header

    def read(self, index: int) -> DeviceState:
        """A consistent copy of one device with its integrals brought up to now."""
        fcntl.flock(self._file, fcntl.LOCK_SH)
        try:
            device = DeviceState.from_buffer_copy(self._state.devices[index])
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        device.advance(self.now_ns())
        return device

    def set_clock(self, now_ns: int) -> None:
        """Move the held clock of a file that was created with one, for every process."""
        with self.change_driver() as header:
            header.manual_clock_ns = now_ns
