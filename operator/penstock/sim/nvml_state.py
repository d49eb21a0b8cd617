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
_MAGIC = 0x4D564E50
_VERSION = 1
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


class Mode(IntEnum):
    """How a call misbehaves: it blocks, its figure stands still, or it accepts and does nothing."""

    NONE = 0
    HANG = 1
    FROZEN = 2
    NOT_APPLIED = 3


class Injection(ctypes.Structure):
    """`result`: the NVML code to answer (0: none); `frozen`: the figure while the mode is `FROZEN`."""

    _fields_ = [("result", ctypes.c_int32), ("mode", ctypes.c_uint32), ("frozen", ctypes.c_uint64)]


class DeviceState(ctypes.Structure):
    """One GPU. `energy_uj` and `activity_permille_us` are integrals up to `changed_ns`."""

    _fields_ = [
        ("uuid", ctypes.c_char * 48),
        ("name", ctypes.c_char * 64),
        ("bus_id", ctypes.c_char * 32),
        ("memory_total_bytes", ctypes.c_uint64),
        ("memory_used_bytes", ctypes.c_uint64),
        ("memory_reserved_bytes", ctypes.c_uint64),
        ("minimum_limit_mw", ctypes.c_uint32),
        ("maximum_limit_mw", ctypes.c_uint32),
        ("default_limit_mw", ctypes.c_uint32),
        ("requested_limit_mw", ctypes.c_uint32),
        ("external_limit_mw", ctypes.c_uint32),
        ("demand_mw", ctypes.c_uint32),
        ("activity_permille", ctypes.c_uint32),
        ("utilization_percent", ctypes.c_uint32),
        ("temperature_celsius", ctypes.c_int32),
        ("event_reasons", ctypes.c_uint32),
        ("recovery_action", ctypes.c_uint32),
        ("lost", ctypes.c_uint32),
        ("gpm_supported", ctypes.c_uint32),
        ("event_serial", ctypes.c_uint32),
        ("event_type", ctypes.c_uint64),
        ("event_data", ctypes.c_uint64),
        ("changed_ns", ctypes.c_uint64),
        ("energy_uj", ctypes.c_uint64),
        ("activity_permille_us", ctypes.c_uint64),
        ("injections", Injection * len(Target)),
    ]
    requested_limit_mw: int
    external_limit_mw: int
    demand_mw: int
    activity_permille: int
    changed_ns: int
    energy_uj: int
    activity_permille_us: int

    @property
    def enforced_limit_mw(self) -> int:
        """The limit that holds: what was asked for, or a lower one that somebody else set."""
        return min(self.requested_limit_mw, self.external_limit_mw or self.requested_limit_mw)

    @property
    def draw_mw(self) -> int:
        """What the GPU draws: what its load would, as far as the limit lets it."""
        return min(self.demand_mw, self.enforced_limit_mw)

    def advance(self, now_ns: int) -> None:
        """Bring the integrals up to `now_ns` at the present draw and activity."""
        elapsed_us = max(0, now_ns - self.changed_ns) // 1000
        self.energy_uj += self.draw_mw * elapsed_us // 1000
        self.activity_permille_us += self.activity_permille * elapsed_us
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
