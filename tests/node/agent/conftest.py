"""The real binding on our own NVML library: built once, loaded into the test process before pynvml asks for it."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from nvml.build import LIBRARY, library_directory
from penstock.sim.nvml_state import STATE_PATH_VARIABLE, DeviceState, NvmlState

GIB = 2**30


@pytest.fixture(scope="session")
def nvml_library() -> Path:
    """Loaded by its path; the loader then finds it by its soname when pynvml asks for `libnvidia-ml.so.1`."""
    library = library_directory() / LIBRARY
    ctypes.CDLL(str(library))
    return library


def serving_h200(index: int = 0) -> DeviceState:
    """A GPU that draws 500 W of 700 W at 80 % activity."""
    return DeviceState(
        uuid=f"GPU-{index}".encode(),
        name=b"NVIDIA H200",
        bus_id=f"00000000:{index:02X}:00.0".encode(),
        memory_total_bytes=141 * GIB,
        memory_used_bytes=100 * GIB,
        memory_reserved_bytes=GIB,
        minimum_limit_mw=200_000,
        maximum_limit_mw=700_000,
        default_limit_mw=700_000,
        requested_limit_mw=700_000,
        demand_mw=500_000,
        activity_permille=800,
        utilization_percent=100,
        temperature_celsius=55,
        slowdown_celsius=87,
        persistence_mode=1,
        gpm_supported=1,
    )


@pytest.fixture(autouse=True)
def nothing_of_nvml_is_left() -> Iterator[None]:
    """NVML counts who initialised it and keeps its first state: what one test leaves behind would meet every other."""
    yield
    with contextlib.suppress(pynvml.NVMLError):
        while True:
            pynvml.nvmlShutdown()


@pytest.fixture
def state(tmp_path: Path, nvml_library: Path, monkeypatch: pytest.MonkeyPatch) -> NvmlState:
    """Two GPUs under a clock that only the test moves."""
    path = tmp_path / "node.nvml"
    monkeypatch.setenv(STATE_PATH_VARIABLE, str(path))
    return NvmlState.create(path, [serving_h200(0), serving_h200(1)], clock_ns=10**12)


@pytest.fixture
def running_state(tmp_path: Path, nvml_library: Path, monkeypatch: pytest.MonkeyPatch) -> NvmlState:
    """Two GPUs under the machine's clock."""
    path = tmp_path / "node.nvml"
    monkeypatch.setenv(STATE_PATH_VARIABLE, str(path))
    return NvmlState.create(path, [serving_h200(0), serving_h200(1)])


@pytest.fixture
def nvml(state: NvmlState) -> Iterator[None]:
    """NVML initialised on `state`."""
    pynvml.nvmlInit()
    yield
    pynvml.nvmlShutdown()
