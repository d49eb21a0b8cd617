"""Which GPUs take nothing, which rank their node down, and which replicas have to leave one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

import builders as a
from penstock.core.health import Ailment, ailment, is_hot, on_broken_gpus, told
from penstock.core.model import Gpu, GpuHealth, Pod, PodGpus, Telemetry
from penstock.core.placement import choice as placement
from penstock.core.placement.fleet import Fleet

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


@dataclass(frozen=True)
class Room:
    """A node of four GPUs of which some are lost: how many are free. `shared`: each is offered so many times."""

    free: int
    broken: tuple[int, ...]
    pods: tuple[Pod, ...] = ()
    listed: Mapping[str, tuple[int, ...]] | None = field(default_factory=dict)
    in_use: tuple[int, ...] = ()
    allocatable: int = 4
    shared: int = 1

    @property
    def fleet(self) -> Fleet:
        pods = None
        if self.listed is not None:
            pods = [PodGpus("search", name, tuple(f"GPU-{at}" for at in held)) for name, held in self.listed.items()]
        report = replace(heard(*self.broken, pods=pods), unallocated_in_use=tuple(f"GPU-{at}" for at in self.in_use))
        node = a.node(gpus=self.allocatable * self.shared, labels={"nvidia.com/gpu.replicas": str(self.shared)})
        return a.fleet(node, telemetries=[report], pods=self.pods)


PINNED = a.pod("q", "", 1, pin="gpu-1")
ROOM = {
    "a lost GPU that nobody holds": Room(3, (0,)),
    "one that a pod holds is taken off once": Room(3, (0,), (a.pod("p", gpus=1),), {"p": (0,)}),
    "and so is the sound one beside it": Room(2, (0,), (a.pod("p", gpus=2),), {"p": (0, 1)}),
    "of two lost ones a pod holds one": Room(2, (0, 3), (a.pod("p", gpus=1),), {"p": (0,)}),
    "a pod holds every GPU that is lost": Room(2, (0, 3), (a.pod("p", gpus=2),), {"p": (0, 3)}),
    "a pod on sound GPUs takes its own": Room(2, (0,), (a.pod("p", gpus=1),), {"p": (1,)}),
    "where the kubelet does not say who holds it, it may be another": Room(2, (0,), (a.pod("p", gpus=1),), None),
    "and so where it does not list the pod": Room(2, (0,), (a.pod("p", gpus=1),)),
    "or not with all of its GPUs": Room(1, (0,), (a.pod("p", gpus=2),), {"p": (0,)}),
    "a pin comes on top": Room(2, (0,), (a.pod("p", gpus=1), PINNED), {"p": (0,)}),
    "a device plugin that offers it no more takes nothing off again": Room(
        2, (0,), (a.pod("p", gpus=1),), {"p": (0,)}, allocatable=3
    ),
    "every GPU is lost and held": Room(0, (0, 1, 2, 3), (a.pod("p", gpus=4),), {"p": (0, 1, 2, 3)}),
    "a lost GPU that a leaked process holds": Room(3, (0,), in_use=(0,)),
    "a leaked process on a sound one": Room(2, (0,), in_use=(1,)),
    "slices: a pod has its only one on the lost GPU": Room(6, (0,), (a.pod("p", gpus=1),), {"p": (0,)}, shared=2),
    "slices: on two GPUs at least one is on the lost one": Room(
        4, (0,), (a.pod("p", gpus=3),), {"p": (0, 1)}, shared=2
    ),
    "slices: all of them are on lost GPUs": Room(4, (0, 1), (a.pod("p", gpus=3),), {"p": (0, 1)}, shared=2),
}


@pytest.mark.parametrize("room", ROOM.values(), ids=ROOM.keys())
def test_how_many_gpus_are_free_beside_lost_ones(room: Room) -> None:
    assert room.fleet.rows[0].free_gpus == room.free


@pytest.mark.parametrize(("gpus", "would_fit"), ((3, "free 1 GPU on gpu-1"), (4, "")))
def test_a_lost_gpu_is_not_freed_by_the_end_of_its_pod(gpus: int, would_fit: str) -> None:
    room = Room(2, (0,), (a.pod("p", gpus=1), a.pod("q", gpus=1)), {"p": (0,), "q": (1,)})
    (waiting,) = placement.plan(room.fleet, (a.replica(gpus=gpus),), (), 0.0).waiting
    assert waiting.would_fit == would_fit


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


def test_one_with_a_mig_device_is_on_the_gpu_that_it_is_a_part_of() -> None:
    part = a.pod(requests={"nvidia.com/mig-1g.18gb": 1})
    assert [one.certain for one in on_broken_gpus([part], {"gpu-1": heard(0, pods=[MINE])})] == [True]


def test_a_pod_without_gpus_is_not_meant_though_the_kubelet_said_nothing() -> None:
    assert on_broken_gpus([a.pod(gpus=0)], {"gpu-1": heard(0, pods=None)}) == ()


def test_a_node_that_is_not_believed_moves_nobody() -> None:
    assert on_broken_gpus([a.pod()], {}) == ()
