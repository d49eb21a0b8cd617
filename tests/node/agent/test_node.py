"""The threads that read NVML: one GPU's trouble stays its own, and the driver may come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pynvml
import pytest

from penstock.agent.events import XidLog, XidWatch
from penstock.agent.health import Health
from penstock.agent.node import NodeGpus, NodeObservation
from penstock.agent.reading import Identity, Reading
from penstock.agent.sampler import Observation, Sampler
from penstock.errors import NvmlUnavailable
from penstock.sim import faults
from penstock.sim.nvml_state import MigDevice, NvmlState, Target

SAMPLE_SECONDS = 0.02
OVERDUE_SECONDS = 3.5
CEILING_SECONDS = 30.0


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.agent.node._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("penstock.agent.node._LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("penstock.agent.gpu.MEDIUM_SECONDS", 0.05)
    monkeypatch.setattr("penstock.agent.events.WAIT_MILLISECONDS", 10)
    monkeypatch.setattr("penstock.agent.events._FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def nvml(running_state: NvmlState) -> Iterator[None]:
    pynvml.nvmlInit()
    yield
    pynvml.nvmlShutdown()


@pytest.fixture
def gpus(running_state: NvmlState) -> Iterator[NodeGpus]:
    node = NodeGpus(SAMPLE_SECONDS)
    node.start()
    yield node
    for index in range(2):
        faults.clear(running_state, index, Target.POWER)
    node.stop()
    node.join(CEILING_SECONDS)


def until(node: NodeGpus, true: Callable[[NodeObservation], bool], ahead_seconds: float = 0.0) -> NodeObservation:
    """Wait for an observation, seen `ahead_seconds` later than now."""
    deadline = time.monotonic() + CEILING_SECONDS
    while time.monotonic() < deadline:
        seen = node.observe(time.monotonic() + ahead_seconds)
        if seen is not None and true(seen):
            return seen
        time.sleep(0.005)
    pytest.fail(f"not seen within {CEILING_SECONDS:g} s; last: {node.observe(time.monotonic())}")


def both_read(seen: NodeObservation) -> bool:
    return len(seen.gpus) == 2 and all(gpu.reading is not None for gpu in seen.gpus)


def read_and_heard(gpus: NodeGpus) -> None:
    """Wait until every GPU was read and the driver has been asked for its events."""
    until(gpus, both_read)
    (rounds,) = gpus._open
    (watch,) = (thread for thread in rounds._threads if isinstance(thread, XidWatch))
    assert watch.listening.wait(CEILING_SECONDS)


def draw(gpu: Observation) -> float | None:
    return gpu.reading.power_watts if gpu.reading else None


def test_nothing_is_reported_before_every_gpu_was_read(running_state: NvmlState) -> None:
    assert NodeGpus(SAMPLE_SECONDS).observe(time.monotonic()) is None


def test_every_gpu_is_read(gpus: NodeGpus) -> None:
    seen = until(gpus, both_read)
    assert [draw(gpu) for gpu in seen.gpus] == [500, 500]
    assert [gpu.planned_watts for gpu in seen.gpus] == [500, 500]
    assert (seen.driver_version, seen.fault) == ("580.82.07", "")


def test_a_gpu_that_hangs_turns_unresponsive_while_the_other_goes_on(gpus: NodeGpus, running_state: NvmlState) -> None:
    until(gpus, both_read)
    faults.hang(running_state, 0, Target.POWER)
    with running_state.change(1) as device:
        device.demand_mw = 600_000
    until(gpus, lambda seen: draw(seen.gpus[1]) == 600)
    hanging = until(gpus, lambda seen: seen.gpus[0].reading is None, ahead_seconds=OVERDUE_SECONDS).gpus[0]
    assert (hanging.health, hanging.planned_watts) == (Health.UNRESPONSIVE, None)
    assert hanging.identity is not None
    assert "has not answered" in hanging.message
    faults.clear(running_state, 0, Target.POWER)
    until(gpus, lambda seen: seen.gpus[0].health is Health.HEALTHY and draw(seen.gpus[0]) == 500)


def test_a_gpu_that_hangs_from_the_start_does_not_hold_back_the_report(running_state: NvmlState) -> None:
    faults.hang(running_state, 0, Target.HANDLE)
    node = NodeGpus(SAMPLE_SECONDS)
    node.start()
    seen = until(node, lambda seen: len(seen.gpus) == 2, ahead_seconds=OVERDUE_SECONDS)
    assert (seen.gpus[0].health, seen.gpus[0].identity) == (Health.UNRESPONSIVE, None)
    faults.clear(running_state, 0, Target.HANDLE)
    until(node, both_read)
    node.stop()
    node.join(CEILING_SECONDS)


def test_a_lost_gpu_is_reported_with_its_name_and_comes_back(gpus: NodeGpus, running_state: NvmlState) -> None:
    until(gpus, both_read)
    faults.lose(running_state, 0)
    lost = until(gpus, lambda seen: seen.gpus[0].health is Health.LOST).gpus[0]
    assert lost.reading is None
    assert lost.identity is not None
    assert lost.identity.uuid == "GPU-0"
    assert "has fallen off the bus" in lost.message
    faults.find(running_state, 0)
    until(gpus, lambda seen: seen.gpus[0].health is Health.HEALTHY)


@pytest.mark.parametrize(
    ("code", "health"), ((16, Health.NEEDS_RESET), (999, Health.UNRESPONSIVE)), ids=["reset required", "unknown error"]
)
def test_a_gpu_whose_handle_fails(gpus: NodeGpus, running_state: NvmlState, code: int, health: Health) -> None:
    until(gpus, both_read)
    faults.fail(running_state, 0, Target.HANDLE, code)
    faults.fail(running_state, 0, Target.MEMORY, 16)
    assert draw(until(gpus, lambda seen: seen.gpus[0].health is health).gpus[1]) == 500


def test_a_recovery_action_keeps_the_figures_and_marks_the_gpu(gpus: NodeGpus, running_state: NvmlState) -> None:
    with running_state.change(0) as device:
        device.recovery_action = 1
    marked = until(gpus, lambda seen: both_read(seen) and seen.gpus[0].health is Health.NEEDS_RESET).gpus[0]
    assert (draw(marked), marked.message) == (500, "the driver asks to reset the GPU: nvidia-smi --gpu-reset")


class ScriptedGpu:
    """Stands where the binding is, with the readings of the test."""

    identity = Identity("GPU-0", 0, "NVIDIA-H200", 141 * 2**30, 700.0)

    def __init__(self) -> None:
        self.reading = reading(500, 100 * 2**30)

    def read(self) -> Reading:
        return self.reading

    def look_again(self) -> None: ...

    def close(self) -> None: ...


def reading(watts: float, memory_used_bytes: int, *, reserve_known: bool = True) -> Reading:
    busy = 50.0 if memory_used_bytes else 0.0
    return Reading(
        power_watts=watts,
        memory_used_bytes=memory_used_bytes,
        memory_reserve_known=reserve_known,
        activity_percent=busy,
        activity_source="GPM",
    )


@pytest.mark.parametrize(
    ("after", "planned_watts"),
    (
        pytest.param(reading(76, 0), 76, id="let go and idle: credited after three samples"),
        pytest.param(reading(114, 100 * 2**30), 500, id="still held: a quiet model keeps its watts"),
        pytest.param(reading(300, 0), 500, id="let go, but it still draws"),
        pytest.param(reading(76, 0, reserve_known=False), 500, id="memory that counts the driver's own proves nothing"),
    ),
)
def test_planned_watts_fall_at_once_only_when_nobody_holds_the_gpu(after: Reading, planned_watts: float) -> None:
    gpu = ScriptedGpu()
    sampler = Sampler(0, SAMPLE_SECONDS, open_gpu=lambda index: gpu)
    for _ in range(200):
        sampler._observe_now()
    gpu.reading = after
    planned = [seen.planned_watts for seen in (sampler._observe_now() for _ in range(3)) if seen]
    assert planned == [500, 500, planned_watts]


def test_after_a_driver_reload_every_gpu_is_opened_anew(gpus: NodeGpus, running_state: NvmlState) -> None:
    until(gpus, both_read)
    faults.reload_driver(running_state)
    with running_state.change(0) as device:
        device.demand_mw = 300_000
    until(gpus, lambda seen: not seen.fault and both_read(seen) and draw(seen.gpus[0]) == 300)


def test_a_driver_that_goes_away_leaves_the_gpus_named_and_without_figures(
    gpus: NodeGpus, running_state: NvmlState
) -> None:
    until(gpus, both_read)
    faults.unload_driver(running_state)
    gone = until(gpus, lambda seen: "driver is not loaded" in seen.fault)
    assert [(gpu.health, draw(gpu), gpu.identity is not None) for gpu in gone.gpus] == [
        (Health.UNRESPONSIVE, None, True)
    ] * 2
    faults.unload_driver(running_state, 0)
    until(gpus, lambda seen: not seen.fault and both_read(seen))


def test_a_pause_lets_go_of_every_device_says_so_and_ends_with_the_label(
    gpus: NodeGpus, running_state: NvmlState
) -> None:
    until(gpus, both_read)
    gpus.pause("the GPU Operator asks for the devices")
    paused = until(gpus, lambda seen: "is let go" in seen.fault)
    assert "every device is let go" in paused.fault
    assert paused.paused
    assert [(gpu.health, draw(gpu), gpu.identity is not None) for gpu in paused.gpus] == [
        (Health.UNRESPONSIVE, None, True)
    ] * 2
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()
    gpus.resume()
    until(gpus, lambda seen: not seen.paused and not seen.fault and both_read(seen))


def test_a_node_that_is_paused_from_the_start_is_never_opened(running_state: NvmlState) -> None:
    node = NodeGpus(SAMPLE_SECONDS)
    node.pause("the GPU Operator asks for the devices")
    node.start()
    assert until(node, lambda seen: bool(seen.paused)).gpus == ()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()
    node.resume()
    until(node, both_read)
    node.stop()
    node.join(CEILING_SECONDS)


def test_a_pause_that_a_hanging_call_blocks_names_the_gpu(
    gpus: NodeGpus, running_state: NvmlState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.agent.node._FAREWELL_SECONDS", 0.05)
    until(gpus, both_read)
    faults.hang(running_state, 1, Target.POWER)
    until(gpus, lambda seen: seen.gpus[0].taken_at - seen.gpus[1].taken_at > 5 * SAMPLE_SECONDS)
    gpus.pause("the GPU Operator asks for the devices")
    assert "a call hangs (gpu-1)" in until(gpus, lambda seen: "hangs" in seen.fault).fault
    faults.clear(running_state, 1, Target.POWER)
    until(gpus, lambda seen: "every device is let go" in seen.fault)
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()


def test_an_error_that_the_driver_reports_is_told_at_once_and_counts(gpus: NodeGpus, running_state: NvmlState) -> None:
    read_and_heard(gpus)
    for code in (31, 119):
        faults.raise_event(running_state, 1, code)
    seen = until(gpus, lambda seen: len(seen.gpus[1].xids) == 2)
    assert [xid.code for xid in seen.gpus[1].xids] == [119, 31]
    assert seen.gpus[0].xids == ()
    marked = until(gpus, lambda seen: seen.gpus[1].health is Health.NEEDS_RESET).gpus[1]
    assert "XID 119" in marked.message
    assert draw(marked) == 500


def test_a_change_of_mig_is_seen_when_the_driver_tells_it_and_is_no_error(
    gpus: NodeGpus, running_state: NvmlState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.agent.gpu.SLOW_SECONDS", 3600.0)
    read_and_heard(gpus)
    with running_state.change(1) as device:
        device.mig_enabled = device.mig_count = 1
        device.mig_instances[0] = MigDevice(uuid=b"MIG-0", name=b"NVIDIA H200 MIG 1g.18gb", gpu_instance=1, slices=1)
    # Its state is read every half minute, as long as this test is patient.
    faults.raise_event(running_state, 1, 0, kind=pynvml.nvmlEventMigConfigChange)
    seen = until(gpus, lambda seen: bool(seen.gpus[1].reading and seen.gpus[1].reading.mig_instances)).gpus[1]
    assert (seen.health, seen.xids) == (Health.HEALTHY, ())


def test_an_error_is_forgotten_once_the_gpu_was_reset(gpus: NodeGpus, running_state: NvmlState) -> None:
    until(gpus, lambda seen: both_read(seen) and ((seen.gpus[1].reading or Reading()).energy_joules or 0) > 100)
    read_and_heard(gpus)
    faults.raise_event(running_state, 1, 119)
    until(gpus, lambda seen: seen.gpus[1].health is Health.NEEDS_RESET)
    faults.reset_energy(running_state, 1)
    until(gpus, lambda seen: seen.gpus[1].health is Health.HEALTHY and not seen.gpus[1].xids)


def test_errors_of_other_gpus_are_heard_while_one_is_lost_and_its_own_once_it_is_back(
    gpus: NodeGpus, running_state: NvmlState
) -> None:
    read_and_heard(gpus)
    faults.lose(running_state, 0)
    until(gpus, lambda seen: seen.gpus[0].health is Health.LOST)
    heard = 0
    while not until(gpus, lambda seen: True).gpus[1].xids:
        # What comes while the set is made anew is not heard, by NVML's own rules.
        heard += 1
        assert heard < 1000
        faults.raise_event(running_state, 1, 31)
        time.sleep(0.02)
    faults.find(running_state, 0)
    until(gpus, lambda seen: seen.gpus[0].health is Health.HEALTHY)
    while not until(gpus, lambda seen: True).gpus[0].xids:
        heard += 1
        assert heard < 1000
        faults.raise_event(running_state, 0, 43)
        time.sleep(0.02)


def test_a_wait_for_events_that_fails_each_time_backs_off(running_state: NvmlState, nvml: None) -> None:
    waits = []

    class Failing(XidWatch):
        def _wait(self, events: object) -> None:
            waits.append(time.monotonic())
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    watch = Failing(2, XidLog(), lambda uuid: None)
    watch.start()
    time.sleep(0.3)
    watch.stop()
    watch.join(CEILING_SECONDS)
    # 0.01 s, then twice as long each time: five within 0.3 s, where a spinning loop makes thousands.
    assert 2 <= len(waits) <= 6


def test_a_change_of_health_raises_the_alarm(running_state: NvmlState) -> None:
    alarms = threading.Event()
    node = NodeGpus(SAMPLE_SECONDS, alarms.set)
    node.start()
    read_and_heard(node)
    assert not alarms.is_set()
    faults.raise_event(running_state, 0, 31)
    assert alarms.wait(CEILING_SECONDS)
    node.stop()
    node.join(CEILING_SECONDS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_supervisor_that_died_ends_the_agent_instead_of_repeating_old_news(
    running_state: NvmlState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("penstock.agent.node.Driver", broken)
    node = NodeGpus(SAMPLE_SECONDS)
    node.start()
    node.join(CEILING_SECONDS)
    with pytest.raises(NvmlUnavailable, match="has died"):
        node.observe(time.monotonic())
