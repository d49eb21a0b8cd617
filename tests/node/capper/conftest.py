"""One node of two GPUs on our own NVML library, and a capper's hand on the first."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from hand import NODE, Bench
from nvml.build import LIBRARY, library_directory
from penstock.sim.nvml_state import STATE_PATH_VARIABLE
from penstock.sim.plant import Plant


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    ctypes.CDLL(str(library_directory() / LIBRARY))
    plant = Plant(tmp_path, {NODE: ("NVIDIA-H200", 2)})
    monkeypatch.setenv(STATE_PATH_VARIABLE, str(plant.state_path(NODE)))
    pynvml.nvmlInit()
    yield Bench(plant, tmp_path / "notes")
    pynvml.nvmlShutdown()
