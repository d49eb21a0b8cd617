"""Who has the SMs of a GPU, through the binding."""

from __future__ import annotations

import pytest

from penstock.agent.gpu import MEDIUM_SECONDS, Gpu
from penstock.sim import faults
from penstock.sim.nvml_state import NvmlState, Process, Target

NOT_SUPPORTED = 3


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(state: NvmlState, *processes: tuple[int, int]) -> None:
    with state.change(0) as device:
        device.process_count = len(processes)
        for index, (pid, sm_percent) in enumerate(processes):
            device.processes[index] = Process(2**30, pid, sm_percent, 0, 0)


def later(state: NvmlState, gpu: Gpu, clock: Clock) -> tuple[tuple[int, float], ...]:
    clock.now += MEDIUM_SECONDS
    state.set_clock(state.now_ns() + int(MEDIUM_SECONDS * 1e9))
    return gpu.read().processes


@pytest.mark.usefixtures("nvml")
def test_each_process_has_its_share_of_the_sms(state: NvmlState) -> None:
    clock = Clock()
    gpu = Gpu(0, clock)
    assert later(state, gpu, clock) == ()
    run(state, (12, 20), (11, 60))
    assert later(state, gpu, clock) == ((11, 60.0), (12, 20.0))
    run(state, (12, 30))
    assert later(state, gpu, clock) == ((12, 30.0),)
    run(state)
    assert later(state, gpu, clock) == ()


@pytest.mark.usefixtures("nvml")
def test_where_nvml_does_not_tell_processes_nothing_else_is_missing(state: NvmlState) -> None:
    run(state, (12, 20))
    faults.fail(state, 0, Target.PROCESSES, NOT_SUPPORTED)
    gpu = Gpu(0)
    reading = gpu.read()
    assert (reading.processes, reading.complaint) == ((), "")
    assert reading.power_watts == 500
