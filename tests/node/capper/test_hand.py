"""One GPU's limit, set and read back through the real binding: what each fault, crash and stranger leads to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pynvml
import pytest

from hand import NODE, Bench, ask
from nvml.build import environment as library_environment
from penstock.capper.decision import Mode, Order, Outcome
from penstock.capper.hand import PATIENCE_SECONDS, Finding, Orders
from penstock.capper.notebook import Notebook
from penstock.sim import faults
from penstock.sim.nvml_state import Target


def told(finding: Finding) -> tuple[Outcome | None, str]:
    return finding.outcome, finding.reason


def test_a_cap_is_set_read_back_and_given_back_when_its_entry_goes(bench: Bench) -> None:
    capped = bench.cap(500)
    assert told(capped) == (Outcome.APPLIED, "")
    assert (capped.requested_watts, capped.enforced_watts, capped.baseline_watts) == (500, 500, 700)
    assert bench.limit_watts == 500
    restored = bench.release()
    assert told(restored) == (Outcome.RESTORED, "")
    assert bench.limit_watts == 700
    assert told(bench.release()) == (Outcome.RESTORED, ""), "it is told until something else is asked for"


def test_nothing_is_touched_that_nobody_asks_for(bench: Bench) -> None:
    assert told(bench.release()) == (None, "")
    assert told(bench.order(Order(known=False, heard=False))) == (None, "")
    assert bench.limit_watts == 700
    assert list(bench.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "set_watts", "reason"),
    (
        pytest.param(150, 200, "OutOfRange", id="below what the device takes: its minimum, and said so"),
        pytest.param(900, 700, "OutOfRange", id="above what the device takes: nothing to set"),
        pytest.param(700, 700, "", id="as it is already"),
        pytest.param(350, 350, "", id="within the range"),
    ),
)
def test_a_cap_is_clamped_to_what_the_device_takes(bench: Bench, asked: float, set_watts: float, reason: str) -> None:
    assert told(bench.cap(asked)) == (Outcome.APPLIED, reason)
    assert bench.limit_watts == set_watts


def test_a_limit_is_never_raised_above_what_was_there_before_ours(bench: Bench) -> None:
    pynvml.nvmlDeviceSetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByIndex(0), 450_000)
    bench.cap(400)
    assert bench.cap(600).baseline_watts == 450
    assert bench.limit_watts == 450


@pytest.mark.parametrize(
    ("code", "reason"),
    (
        (pynvml.NVML_ERROR_NOT_SUPPORTED, "NotSupported"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "NoPermission"),
        (pynvml.NVML_ERROR_UNKNOWN, "NVMLError"),
    ),
)
def test_a_refused_set_is_told_by_reason_and_leaves_no_note(bench: Bench, code: int, reason: str) -> None:
    faults.fail(bench.state, 0, Target.SET_LIMIT, code)
    refused = bench.cap(500)
    assert told(refused) == (Outcome.REFUSED, reason)
    assert refused.enforced_watts == 700
    assert list(bench.directory.iterdir()) == []


def test_a_set_that_is_accepted_but_not_applied_is_told_and_not_hammered(bench: Bench) -> None:
    faults.accept_without_applying(bench.state, 0)
    assert told(bench.cap(500)) == (Outcome.REFUSED, "NotApplied")
    faults.clear(bench.state, 0, Target.SET_LIMIT)
    assert told(bench.cap(500)) == (Outcome.REFUSED, "NotApplied"), "not tried again at once"
    assert bench.limit_watts == 700
    bench.hand._retry_at = 0.0
    assert told(bench.cap(500)) == (Outcome.APPLIED, "")


def test_a_cap_that_could_not_be_lowered_further_stays_ours(bench: Bench) -> None:
    bench.cap(500)
    faults.accept_without_applying(bench.state, 0)
    assert told(bench.cap(400)) == (Outcome.REFUSED, "NotApplied")
    faults.clear(bench.state, 0, Target.SET_LIMIT)
    assert told(bench.release()) == (Outcome.RESTORED, "")
    assert bench.limit_watts == 700


def test_without_persistence_mode_nothing_is_set(bench: Bench) -> None:
    with bench.state.change(0) as device:
        device.persistence_mode = 0
    refused = bench.cap(500)
    assert told(refused) == (Outcome.REFUSED, "NoPersistenceMode")
    assert bench.limit_watts == 700


# ------------------------------------------------------------------------------------------------- somebody else


def test_a_limit_below_ours_that_a_board_enforces_is_shown_and_not_fought(bench: Bench) -> None:
    bench.cap(500)
    faults.limit_externally(bench.state, 0, 350)
    lower = bench.cap(300)
    assert told(lower) == (Outcome.HANDS_OFF, "ForeignLimit")
    assert (lower.enforced_watts, bench.limit_watts) == (350, 500)
    faults.limit_externally(bench.state, 0, 0)
    assert told(bench.cap(300)) == (Outcome.APPLIED, "")
    assert bench.release().outcome is Outcome.RESTORED
    assert bench.limit_watts == 700


def test_a_limit_that_somebody_else_set_is_theirs_until_another_pod_holds_the_gpu(bench: Bench) -> None:
    bench.cap(500)
    pynvml.nvmlDeviceSetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByIndex(0), 650_000)
    assert told(bench.cap(500)) == (Outcome.HANDS_OFF, "ForeignLimit")
    assert bench.limit_watts == 650
    assert told(bench.release()) == (Outcome.HANDS_OFF, "ForeignLimit")
    bench.restart()
    assert told(bench.cap(400)) == (Outcome.HANDS_OFF, "ForeignLimit"), "a restart forgets it not"
    assert told(bench.cap(400, pod="qwen-0")) == (Outcome.APPLIED, "")
    bench.release()
    assert bench.limit_watts == 650


def test_after_a_reboot_the_limit_is_nobodys_and_left_alone(bench: Bench) -> None:
    bench.cap(500)
    with bench.state.change(0) as device:
        device.requested_limit_mw = 700_000
    bench.restart(boot_id="boot-2")
    assert told(bench.cap(500)) == (Outcome.HANDS_OFF, "NewBoot")
    assert bench.limit_watts == 700
    assert told(bench.cap(500, pod="qwen-0")) == (Outcome.APPLIED, "")


def test_after_a_driver_reload_the_limit_is_no_longer_ours(bench: Bench) -> None:
    bench.cap(500)
    faults.reload_driver(bench.state)
    bench.cap(500)
    assert bench.hand.driver_gone
    bench.desk.notebook.disown_all("DriverReloaded", "the driver was loaded anew since our cap")
    pynvml.nvmlShutdown()
    pynvml.nvmlInit()
    bench.restart()
    assert told(bench.cap(500)) == (Outcome.HANDS_OFF, "DriverReloaded")


def test_a_gpu_of_another_pod_on_the_same_node_is_refused(bench: Bench) -> None:
    order = Order(ask(500, "llama-0"), holders=frozenset({"search/qwen-0"}))
    refused = bench.order(order)
    assert told(refused) == (Outcome.REFUSED, "OtherPod")
    assert "search/qwen-0" in refused.message
    assert bench.limit_watts == 700
    assert told(bench.cap(500, holders=frozenset({"search/llama-0"}))) == (Outcome.APPLIED, "")


# ------------------------------------------------------------------------------------------------ silence and brakes


def test_while_the_operator_is_silent_a_limit_may_sink_and_never_rises(bench: Bench) -> None:
    bench.cap(500)
    assert told(bench.cap(600, heard=False)) == (Outcome.APPLIED, "OperatorSilent")
    assert told(bench.release(heard=False)) == (Outcome.APPLIED, "OperatorSilent")
    assert told(bench.order(Order(known=False, heard=False))) == (Outcome.APPLIED, "OperatorSilent")
    assert bench.limit_watts == 500
    assert told(bench.cap(400, heard=False)) == (Outcome.APPLIED, "")
    assert bench.limit_watts == 400


def test_observe_says_what_it_would_do_and_does_nothing(bench: Bench) -> None:
    observed = bench.cap(500, mode=Mode.OBSERVE)
    assert told(observed) == (Outcome.OBSERVED, "")
    assert "would set 500 W (now 700 W)" in observed.message
    assert bench.limit_watts == 700
    bench.cap(500)
    assert "would give back 700 W" in bench.release(mode=Mode.OBSERVE).message
    assert bench.limit_watts == 500


def test_the_kill_switch_gives_back_what_was_set_and_then_sets_nothing(bench: Bench) -> None:
    bench.cap(500)
    off = bench.cap(500, mode=Mode.OFF, heard=False)
    assert told(off) == (Outcome.RESTORED, "")
    assert bench.limit_watts == 700
    bench.cap(400, mode=Mode.OFF)
    assert bench.limit_watts == 700


def test_limits_are_set_at_a_pace_except_in_an_emergency(bench: Bench) -> None:
    bench.gpus_per_minute = 1
    bench.restart()
    bench.cap(600)
    assert told(bench.cap(500)) == (Outcome.WAITING, "Pace")
    assert bench.limit_watts == 600
    assert told(bench.cap(500, urgent=True)) == (Outcome.APPLIED, "")


# ------------------------------------------------------------------------------------------------------------ crashes

CRASH = """
import os, signal, sys
from pathlib import Path
from penstock.capper import limits
from penstock.capper.decision import Ask, Order
from penstock.capper.hand import Desk, Hand, Orders, Pace
from penstock.capper.notebook import Notebook
import pynvml

class Dies(limits.LimitedGpu):
    def set_watts(self, watts):
        if sys.argv[2] == "after":
            super().set_watts(watts)
        os.kill(os.getpid(), signal.SIGKILL)

pynvml.nvmlInit()
desk = Desk(Notebook(Path(sys.argv[1])), Pace(9), "boot-1", 0.01)
Hand(0, desk, Dies).look(Orders({}, Order(Ask(500, "search", "llama-0", "uid-of-llama-0"))))
"""


@pytest.mark.parametrize(("moment", "left_watts"), (("after", 500), ("before", 700)))
def test_a_crash_between_set_and_read_back_leaves_a_note_that_says_what_is_ours(
    bench: Bench, moment: str, left_watts: float
) -> None:
    environment = {**os.environ, **library_environment(bench.plant.state_path(NODE))}
    command = (sys.executable, "-c", CRASH, str(bench.directory), moment)
    ended = subprocess.run(command, env=environment, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert bench.limit_watts == left_watts
    bench.restart()
    note = bench.desk.notebook.find(bench.state.read(0).uuid.decode())
    assert note is not None
    assert (note.ours_watts, note.baseline_watts, note.boot_id, note.settled) == (500, 700, "boot-1", False)
    again = bench.cap(500)
    assert told(again) == (Outcome.APPLIED, "")
    assert (bench.limit_watts, again.baseline_watts) == (500, 700)
    bench.release()
    assert bench.limit_watts == 700


def test_what_is_ours_survives_a_restart_and_is_given_back_after_it(bench: Bench) -> None:
    bench.cap(500)
    bench.restart()
    assert bench.release().outcome is Outcome.RESTORED
    assert bench.limit_watts == 700
    assert list(bench.directory.iterdir()) == []


def test_without_a_durable_note_nothing_is_set(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Notebook, uuid: str, note: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Notebook, "keep", full)
    bench.cap(500)
    assert bench.limit_watts == 700


def test_a_note_that_cannot_be_read_means_hands_off(bench: Bench) -> None:
    bench.cap(500)
    (path,) = bench.directory.glob("*.json")
    path.write_text("{")
    bench.restart()
    assert told(bench.release()) == (Outcome.HANDS_OFF, "UnreadableNote")
    assert bench.limit_watts == 500


def test_a_gpu_that_does_not_answer_is_told_of_only_where_something_is_asked_of_it(bench: Bench) -> None:
    later = bench.release().taken_at + PATIENCE_SECONDS + 1
    found = bench.hand.finding(later)
    assert found is not None
    assert found.outcome is None
    bench.desk.orders = Orders({}, Order(ask(400)))
    asked = bench.hand.finding(later)
    assert asked is not None
    assert (asked.outcome, asked.reason, asked.pod_uid) == (Outcome.REFUSED, "Unresponsive", "uid-of-llama-0")


def test_a_lost_gpu_is_told_and_its_note_kept(bench: Bench) -> None:
    bench.cap(500)
    faults.lose(bench.state, 0)
    assert told(bench.cap(500)) == (Outcome.REFUSED, "GpuIsLost")
    faults.find(bench.state, 0)
    assert told(bench.cap(500)) == (Outcome.APPLIED, "")
