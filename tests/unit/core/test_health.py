"""Which GPUs take nothing, which rank their node down, and which replicas have to leave one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import builders as a
from penstock.core import placement
from penstock.core.health import Ailment, ailment, is_hot, on_broken_gpus, told
from penstock.core.model import Gpu, GpuHealth, PodGpus, Telemetry

AILMENTS: dict[str, tuple[Gpu, Ailment | None]] = {
    "a healthy GPU takes replicas": (a.gpu(), None),
    "a lost GPU takes none": (a.gpu(health=GpuHealth.LOST), Ailment.LOST),
    "one that has to be exchanged takes none": (a.gpu(health=GpuHealth.FAILED), Ailment.FAILED),
    "one that waits for its reset takes none": (a.gpu(health=GpuHealth.NEEDS_RESET), Ailment.NEEDS_RESET),
    "one that does not answer takes none": (a.gpu(health=GpuHealth.UNRESPONSIVE), Ailment.UNRESPONSIVE),
    "one under the power brake takes none": (a.gpu(power_braked=True), Ailment.POWER_BRAKE),
    "of two troubles the one that does not pass is told": (
        a.gpu(health=GpuHealth.LOST, power_braked=True),
        Ailment.LOST,
    ),
    "heat alone keeps nobody away": (a.gpu(thermally_throttled=True), None),
}


@pytest.mark.parametrize(("gpu", "want"), AILMENTS.values(), ids=AILMENTS.keys())
def test_ailment(gpu: Gpu, want: Ailment | None) -> None:
    assert ailment(gpu) is want


def test_what_ails_a_gpu_is_told_with_the_agents_own_words() -> None:
    assert told(a.gpu(3, health=GpuHealth.LOST, message="XID 79")) == "GPU 3 is Lost (XID 79)"


HOT: dict[str, tuple[Gpu, bool]] = {
    "a GPU that says nothing of its margin is not hot": (a.gpu(), False),
    "a wide margin that stands still is cool": (a.gpu(thermal_margin_celsius=20.0), False),
    "less than five degrees to slowing down is hot": (a.gpu(thermal_margin_celsius=4.9), True),
    "exactly five is not yet": (a.gpu(thermal_margin_celsius=5.0), False),
    "a wide margin that shrinks fast is hot before it is gone": (
        a.gpu(thermal_margin_celsius=20.0, thermal_trend_celsius=-8.0),
        True,
    ),
    "one that shrinks slowly is not": (a.gpu(thermal_margin_celsius=20.0, thermal_trend_celsius=-7.0), False),
    "a margin that grows again is taken as it is now": (
        a.gpu(thermal_margin_celsius=4.0, thermal_trend_celsius=30.0),
        True,
    ),
    "one that is slowed down already is hot": (a.gpu(thermally_throttled=True, thermal_margin_celsius=30.0), True),
    "degrees alone say nothing": (a.gpu(temperature_celsius=94.0), False),
}


@pytest.mark.parametrize(("gpu", "want"), HOT.values(), ids=HOT.keys())
def test_is_hot(gpu: Gpu, want: bool) -> None:
    assert is_hot(gpu) is want


def test_a_hot_node_goes_after_a_cool_one_and_the_explanation_says_so() -> None:
    hot = a.telemetry("gpu-1", [a.gpu(index, thermal_margin_celsius=3.0) for index in range(8)])
    warm = a.telemetry("gpu-2", [a.gpu(index, planned_watts=20.0, power_watts=20.0) for index in range(8)])
    fleet = a.fleet(a.node("gpu-1"), a.node("gpu-2"), telemetries=[hot, warm])
    (decision,) = placement.plan(fleet, (a.replica(),), (), 0.0).decisions
    assert decision.node == "gpu-2"
    assert decision.runner_up is not None
    assert dict(decision.runner_up.terms)["heat"] == -2.0
    only = a.fleet(a.node("gpu-1"), telemetries=[hot])
    assert placement.plan(only, (a.replica(),), (), 0.0).decisions, "hot is ranked down, not refused"


UNPLACEABLE = (a.gpu(0, health=GpuHealth.LOST), a.gpu(1, power_braked=True))


def test_a_waiting_replica_is_told_what_ails_the_gpus_that_it_lacks() -> None:
    fleet = a.fleet(a.node(gpus=2), telemetries=[a.telemetry(gpus=UNPLACEABLE)])
    (waiting,) = placement.plan(fleet, (a.replica(gpus=1),), (), 0.0).waiting
    assert "(Lost: 1, PowerBrake: 1)" in waiting.message


def heard(*broken: int, pods: Sequence[PodGpus] | None) -> Telemetry:
    gpus = [a.gpu(at, health=GpuHealth.LOST if at in broken else GpuHealth.HEALTHY) for at in range(4)]
    return a.telemetry(gpus=gpus, pods=None if pods is None else tuple(pods))


MINE = PodGpus("search", "pod-1", ("GPU-0", "GPU-1"))
ON_BROKEN: dict[str, tuple[Telemetry, list[bool]]] = {
    "a pod that holds the lost GPU is certain": (heard(1, pods=[MINE]), [True]),
    "one that holds only healthy GPUs is not meant": (heard(2, pods=[MINE]), []),
    "where the kubelet said nothing every pod may be": (heard(2, pods=None), [False]),
    "a pod that the kubelet does not list holds nothing": (heard(0, 1, 2, 3, pods=[]), []),
    "a pod of the same name elsewhere is another": (
        heard(0, pods=[PodGpus("other", "pod-1", ("GPU-0",))]),
        [],
    ),
    "nothing is broken": (heard(pods=None), []),
}


@pytest.mark.parametrize(("report", "want"), ON_BROKEN.values(), ids=ON_BROKEN.keys())
def test_on_broken_gpus(report: Telemetry, want: list[bool]) -> None:
    assert [one.certain for one in on_broken_gpus([a.pod()], {"gpu-1": report})] == want


PASSING = {
    "a driver that hangs moves nobody": a.gpu(0, health=GpuHealth.UNRESPONSIVE),
    "the power brake moves nobody": a.gpu(0, power_braked=True),
    "heat moves nobody": a.gpu(0, thermally_throttled=True),
}


@pytest.mark.parametrize("gpu", PASSING.values(), ids=PASSING.keys())
def test_what_may_pass_by_itself(gpu: Gpu) -> None:
    report = a.telemetry(gpus=[gpu], pods=(PodGpus("search", "pod-1", ("GPU-0",)),))
    assert on_broken_gpus([a.pod()], {"gpu-1": report}) == ()


def test_a_pod_without_gpus_is_not_meant_though_the_kubelet_said_nothing() -> None:
    assert on_broken_gpus([a.pod(gpus=0)], {"gpu-1": heard(0, pods=None)}) == ()


def test_a_node_that_is_not_believed_moves_nobody() -> None:
    assert on_broken_gpus([a.pod()], {}) == ()
