"""All GPUs of a node under real threads: a call that hangs, a driver that goes away or is loaded anew, a pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from hand import NODE, Bench, ask
from penstock.capper.decision import Order, Outcome
from penstock.capper.hand import PATIENCE_SECONDS, Finding, Orders
from penstock.capper.node import NodeLimits
from penstock.sim import faults
from penstock.sim.nvml_state import Target

T = TypeVar("T")
CEILING_SECONDS = 30.0


@pytest.fixture
def limits(bench: Bench) -> Iterator[NodeLimits]:
    """Both GPUs asked down to 500 W."""
    bench.desk.orders = Orders({}, Order(ask(500)))
    node = NodeLimits(bench.desk)
    node.start()
    yield node
    for index in range(2):
        faults.clear(bench.state, index, Target.LIMIT_CONSTRAINTS)
    node.stop()
    node.join(CEILING_SECONDS)
    assert not node.is_alive()


def until(probe: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + CEILING_SECONDS
    while time.monotonic() < deadline:
        answer = probe()
        if answer:
            return answer
        time.sleep(0.01)
    raise AssertionError("not within the ceiling")


def outcomes(limits: NodeLimits, after_seconds: float = 0.0) -> list[tuple[Outcome | None, str]]:
    found: tuple[Finding, ...] = limits.findings(time.monotonic() + after_seconds)
    return [(one.outcome, one.reason) for one in found]


def both_capped(bench: Bench) -> bool:
    return [bench.state.read(index).requested_limit_mw for index in range(2)] == [500_000, 500_000]


def test_every_gpu_of_the_node_is_capped(bench: Bench, limits: NodeLimits) -> None:
    until(lambda: outcomes(limits) == [(Outcome.APPLIED, "")] * 2)
    assert both_capped(bench)
    assert limits.fault == ""


def test_a_call_that_hangs_silences_its_gpu_and_no_other(bench: Bench, limits: NodeLimits) -> None:
    until(lambda: both_capped(bench))
    faults.hang(bench.state, 0, Target.LIMIT_CONSTRAINTS)
    bench.desk.orders = Orders({}, Order(ask(400)))
    until(lambda: bench.state.read(1).requested_limit_mw == 400_000)
    told = until(lambda: found if (found := outcomes(limits, PATIENCE_SECONDS)) and found[0][1] else None)
    assert told[0] == (Outcome.REFUSED, "Unresponsive")
    assert bench.state.read(0).requested_limit_mw == 500_000


def test_a_driver_that_is_loaded_anew_has_forgotten_our_limits_and_gets_none_of_ours(
    bench: Bench, limits: NodeLimits
) -> None:
    until(lambda: both_capped(bench))
    faults.reload_driver(bench.state)
    until(lambda: [reason for _, reason in outcomes(limits)] == ["DriverReloaded"] * 2)
    assert [bench.state.read(index).requested_limit_mw for index in range(2)] == [700_000, 700_000]


def test_a_driver_that_is_gone_is_told_and_looked_for_again(bench: Bench, limits: NodeLimits) -> None:
    until(lambda: both_capped(bench))
    faults.unload_driver(bench.state)
    until(lambda: "driver is not loaded" in limits.fault)
    faults.unload_driver(bench.state, 0)
    until(lambda: limits.fault == "")


def test_while_the_gpu_operator_asks_for_the_devices_none_is_held(bench: Bench, limits: NodeLimits) -> None:
    until(lambda: both_capped(bench))
    limits.pause("the GPU Operator asks for the devices")
    until(lambda: "every device is let go" in limits.fault)
    bench.desk.orders = Orders({}, Order(ask(400)))
    time.sleep(0.1)
    assert both_capped(bench), "nothing is set meanwhile"
    assert outcomes(limits, PATIENCE_SECONDS + 1) == [(Outcome.REFUSED, "Paused")] * 2
    limits.pause("")
    until(lambda: bench.state.read(0).requested_limit_mw == 400_000)


def test_ending_leaves_the_limits_as_they_are(bench: Bench, limits: NodeLimits) -> None:
    until(lambda: both_capped(bench))
    limits.stop()
    limits.join(CEILING_SECONDS)
    assert both_capped(bench)
    assert bench.plant.state(NODE) is bench.state
