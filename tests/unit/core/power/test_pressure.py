"""What a domain draws, and what the end of a pod takes off it: silence neither raises the draw nor keeps it up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

import builders as a
from penstock.api.names import OUT_OF_SERVICE_TAINT
from penstock.core.model import Gpu, GpuHealth, Phase, Pod, PodGpus, Telemetry
from penstock.core.placement.fleet import Fleet, NodeView
from penstock.core.placement.scheduling import Taint
from penstock.core.power import pressure
from penstock.core.power.pressure import Draw

LONG_AGO_AT = a.NOW_AT - 3_600.0
HOT, IDLE = 600.0, 75.0


def gpus(*watts: float, **changed: object) -> tuple[Gpu, ...]:
    return tuple(a.gpu(index, power_watts=one, **changed) for index, one in enumerate(watts))


def told(*watts: float, **changed: object) -> Telemetry:
    return a.telemetry("gpu-1", gpus(*watts), **changed)


def drawn(fleet: Fleet) -> Draw:
    return pressure.draw(fleet, pressure.remembered(fleet, {}))


BUSY = (HOT, HOT, HOT, HOT, IDLE, IDLE, IDLE, IDLE)
SILENT = told(*BUSY, heard_at=LONG_AGO_AT)
DRAWS: dict[str, tuple[Telemetry | None, tuple[Pod, ...], float]] = {
    "what its GPUs draw now": (told(*BUSY), (a.pod(gpus=4),), 4 * HOT + 4 * IDLE),
    "a node that fell silent goes on with its last word": (SILENT, (a.pod(gpus=4),), 4 * HOT + 4 * IDLE),
    "a silent node never draws more than it last said": (SILENT, (a.pod(gpus=8),), 4 * HOT + 4 * IDLE),
    "what ended on a silent node draws no more": (SILENT, (a.pod(gpus=2),), 2 * HOT + 6 * IDLE),
    "a pod with a MIG device holds the GPU that it is on": (
        SILENT,
        (a.pod(requests={"nvidia.com/mig-1g.18gb": 1}),),
        HOT + 7 * IDLE,
    ),
    "a silent node that everybody left idles": (SILENT, (), 8 * IDLE),
    "a node that never spoke has no draw that anybody knows": (None, (a.pod(gpus=4),), 0.0),
}


@pytest.mark.parametrize(("telemetry", "pods", "want"), DRAWS.values(), ids=DRAWS.keys())
def test_draw(telemetry: Telemetry | None, pods: Iterable[Pod], want: float) -> None:
    heard = [telemetry] if telemetry else []
    fleet = a.fleet(a.node(), telemetries=heard, pods=pods, domains=[a.domain(static_watts=50.0)])
    assert drawn(fleet).watts == {"row-a": want + 50.0}


def test_a_parent_draws_what_its_children_do_with_their_overhead() -> None:
    site = a.domain("site", static_watts=100.0)
    row = a.domain("row-a", parent="site", static_watts=50.0, overhead_watts=200.0, per_gpu_watt=0.5)
    fleet = a.fleet(a.node(), telemetries=[told(*BUSY)], domains=[site, row])
    inside = 200.0 + 1.5 * (4 * HOT + 4 * IDLE) + 50.0
    assert drawn(fleet).watts == {"row-a": inside, "site": inside + 100.0}


def test_four_silent_nodes_of_twenty_move_no_draw() -> None:
    nodes = [a.node(f"gpu-{at}") for at in range(20)]
    pods = [a.pod(f"p{at}", node=f"gpu-{at}", gpus=4) for at in range(20)]
    reports = [replace(told(*BUSY), node=f"gpu-{at}") for at in range(20)]
    silent = [replace(one, heard_at=LONG_AGO_AT) for one in reports[:4]]
    fresh = a.fleet(*nodes, telemetries=reports, pods=pods, domains=[a.domain()])
    stale = a.fleet(*nodes, telemetries=[*silent, *reports[4:]], pods=pods, domains=[a.domain()])
    assert drawn(stale).watts == drawn(fresh).watts
    assert stale.committed_watts[0] > fresh.committed_watts[0], "only admission is charged more"


GOOD = told(*BUSY)
LIES = {
    "negative watts": told(*([-600.0] * 8)),
    "zero watts": told(*([0.0] * 8)),
    "a report that contradicts itself": replace(told(*([IDLE] * 8)), contradiction="energy stands still"),
    "a GPU that does not answer any more": replace(
        told(*BUSY), gpus=(a.gpu(0, power_watts=None, health=GpuHealth.UNRESPONSIVE), *told(*BUSY).gpus[1:])
    ),
    "half of its GPUs": replace(GOOD, gpus=GOOD.gpus[4:]),
    "none of its GPUs": replace(GOOD, gpus=()),
    "silence": SILENT,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_what_cannot_be_believed_leaves_the_draw_at_the_last_good_word(lie: Telemetry) -> None:
    pod = a.pod(gpus=4)
    good = a.fleet(a.node(), telemetries=[GOOD], pods=[pod], domains=[a.domain()])
    last = pressure.remembered(good, {})
    fleet = a.fleet(a.node(), telemetries=[lie], pods=[pod], domains=[a.domain()])
    last = pressure.remembered(fleet, last)
    assert pressure.draw(fleet, last).watts == drawn(good).watts
    assert pressure.saved_watts(fleet, pod, last) == pressure.saved_watts(good, pod)


def after_silence(*pods: Pod) -> float:
    """What is drawn on a silent node by these pods, of the two with two GPUs each that were there at its last word."""
    both = (a.pod("pod-1", gpus=2), claimer("pod-2", "gpu-2", "gpu-3"))
    last = pressure.remembered(a.fleet(a.node(), telemetries=[STOLEN], pods=both, domains=[a.domain()]), {})
    silent = replace(STOLEN, heard_at=LONG_AGO_AT)
    fleet = a.fleet(a.node(), telemetries=[silent], pods=pods, domains=[a.domain()])
    return pressure.draw(fleet, pressure.remembered(fleet, last)).watts["row-a"]


def claimer(name: str, *devices: str) -> Pod:
    return a.pod(name, gpus=0, pool="", claimed=frozenset(devices))


STOLEN = told(HOT, HOT, HOT, HOT, HOT, IDLE, IDLE, IDLE)
"""Five GPUs are busy and pods hold four: somebody works on the fifth without one."""
LEAVES: dict[str, tuple[tuple[Pod, ...], float]] = {
    "all stay, a claimed GPU is held and work without a pod goes on": (
        (a.pod("pod-1", gpus=2), claimer("pod-2", "gpu-2", "gpu-3")),
        5 * HOT + 3 * IDLE,
    ),
    "what one drew that left is over, and nothing else": ((a.pod("pod-1", gpus=2),), 3 * HOT + 5 * IDLE),
    "so is what one with claims drew": ((claimer("pod-2", "gpu-2", "gpu-3"),), 3 * HOT + 5 * IDLE),
    "all have left, and work without a pod goes on": ((), HOT + 7 * IDLE),
}


def test_who_left_behind_the_last_word_of_a_node_draws_no_more_once_it_is_silent() -> None:
    spoken = a.fleet(a.node(), telemetries=[told(*BUSY)], pods=[a.pod(gpus=4)], domains=[a.domain()])
    left = a.fleet(a.node(), telemetries=[told(*BUSY)], domains=[a.domain()])
    last = pressure.remembered(left, pressure.remembered(spoken, {}))
    assert pressure.draw(left, last).watts["row-a"] == 4 * HOT + 4 * IDLE, "its last word counts"
    silent = a.fleet(a.node(), telemetries=[SILENT], domains=[a.domain()])
    assert pressure.draw(silent, pressure.remembered(silent, last)).watts["row-a"] == 8 * IDLE


@pytest.mark.parametrize(("pods", "want"), LEAVES.values(), ids=LEAVES.keys())
def test_silence_takes_off_the_draw_of_those_who_leave_and_of_nobody_else(pods: tuple[Pod, ...], want: float) -> None:
    assert after_silence(*pods) == want


SILENT_GPU = (a.gpu(0, power_watts=None, health=GpuHealth.LOST), *GOOD.gpus[1:])


@pytest.mark.parametrize("reported", (SILENT_GPU, GOOD.gpus[1:]), ids=("told as lost", "left out of the report"))
@pytest.mark.parametrize(
    ("pods", "listed", "want"),
    (
        pytest.param((a.pod(gpus=4),), True, 4 * HOT + 4 * IDLE, id="while its pod is there it may go on drawing"),
        pytest.param((), True, 3 * HOT + 5 * IDLE, id="once its pod has ended it does not"),
        pytest.param((), False, 4 * HOT + 4 * IDLE, id="without the kubelet's word nobody knows"),
    ),
)
def test_a_lost_gpu_draws_what_it_last_drew_for_as_long_as_somebody_holds_it(
    reported: tuple[Gpu, ...], pods: tuple[Pod, ...], *, listed: bool, want: float
) -> None:
    held = PodGpus("search", "pod-1", tuple(f"GPU-{at}" for at in range(4)))
    before = replace(GOOD, pods=(held,) if listed else None)
    last = pressure.remembered(a.fleet(a.node(), telemetries=[before], pods=[a.pod(gpus=4)]), {})
    report = replace(before, sequence=2, gpus=reported)
    fleet = a.fleet(a.node(), telemetries=[report], pods=pods, domains=[a.domain()])
    assert pressure.draw(fleet, pressure.remembered(fleet, last)).watts["row-a"] == want


def test_a_node_that_said_nothing_new_is_not_worked_out_again() -> None:
    fleet = a.fleet(a.node("gpu-1"), a.node("gpu-2"), telemetries=[GOOD], domains=[a.domain()])
    last = pressure.remembered(fleet, {})
    speaks = replace(told(HOT), node="gpu-2")
    later = fleet.with_nodes({"gpu-2": NodeView(a.node("gpu-2"), speaks)}, a.NOW_AT)
    again = pressure.remembered(later, last)
    assert again["gpu-1"] is last["gpu-1"]
    assert again["gpu-2"].sum_watts == HOT


BRAKES = {
    "a GPU that its hardware slows is told in its own domain alone": (told(*BUSY[:7]), {"row-a"}),
    "what a silent node said of it is no news": (told(*BUSY[:7], heard_at=LONG_AGO_AT), set()),
}


@pytest.mark.parametrize(("telemetry", "want"), BRAKES.values(), ids=BRAKES.keys())
def test_braked_and_hot(telemetry: Telemetry, want: set[str]) -> None:
    domains = [a.domain("site"), a.domain("row-a", parent="site")]
    slowed = a.gpu(7, thermally_throttled=True, thermal_margin_celsius=4.0)
    report = replace(telemetry, gpus=(*telemetry.gpus, slowed))
    found = drawn(a.fleet(a.node(), telemetries=[report], domains=domains))
    assert found.braked == want
    assert found.hot == want


SAVED: dict[str, tuple[Telemetry, Pod, float]] = {
    "its share of the busy GPUs, above idle": (told(*BUSY), a.pod(gpus=4), 4 * (HOT - IDLE)),
    "what the kubelet says is its own": (
        told(*BUSY, pods=(PodGpus("search", "pod-1", watts=900.0),)),
        a.pod(gpus=2),
        900.0 - 2 * IDLE,
    ),
    "what the GPUs draw that the kubelet says are its own, where nobody told the pod's watts": (
        told(HOT, HOT, 300.0, 300.0, *([IDLE] * 4), pods=(PodGpus("search", "pod-1", ("GPU-2", "GPU-3")),)),
        a.pod(gpus=2),
        600.0 - 2 * IDLE,
    ),
    "on a node without an idle GPU, idle is at most a share of the maximum": (
        told(HOT, HOT),
        a.pod(gpus=2),
        2 * (HOT - 105.0),
    ),
    "what the kubelet says of a MIG device, above its part of idle": (
        told(*BUSY, pods=(PodGpus("search", "pod-1", ("GPU-0",), shares=(1 / 7,), watts=300.0),)),
        a.pod(requests={"nvidia.com/mig-1g.18gb": 1}),
        300.0 - IDLE / 7,
    ),
    "a pod that did not start saves nothing": (told(*BUSY), a.pod(gpus=2, phase=Phase.PENDING), 0.0),
    "a pod without GPUs saves nothing": (told(*BUSY), a.pod(gpus=0), 0.0),
}


@pytest.mark.parametrize(("telemetry", "pod", "want"), SAVED.values(), ids=SAVED.keys())
def test_saved_watts(telemetry: Telemetry, pod: Pod, want: float) -> None:
    site = a.domain("site", parent="")
    row = a.domain("row-a", parent="site", per_gpu_watt=0.5)
    node = a.node(gpus=len(telemetry.gpus))
    fleet = a.fleet(node, telemetries=[telemetry], pods=[pod], domains=[site, row])
    saved = pressure.saved_watts(fleet, pod)
    assert saved == ({"row-a": pytest.approx(1.5 * want), "site": pytest.approx(1.5 * want)} if want else {})


OWN = PodGpus("search", "pod-1", ("GPU-2", "GPU-3"))
LINGERS: dict[str, tuple[Telemetry, tuple[Pod, ...], float]] = {
    "what busy GPUs draw above idle that nobody holds": (told(*BUSY), (a.pod(gpus=2),), 2 * (HOT - IDLE)),
    "nothing while all who are busy are held": (told(*BUSY), (a.pod(gpus=4),), 0.0),
    "nothing once they have cooled down": (told(HOT, HOT, *([IDLE] * 6)), (a.pod(gpus=2),), 0.0),
    "by the kubelet's word the hotter ones may be those that are left": (
        told(HOT, HOT, 300.0, 300.0, *([IDLE] * 4), pods=(OWN,)),
        (a.pod(gpus=2),),
        2 * (HOT - IDLE),
    ),
    "without it who is still there holds the hottest": (
        told(HOT, HOT, 300.0, 300.0, *([IDLE] * 4)),
        (a.pod(gpus=2),),
        2 * (300.0 - IDLE),
    ),
    "a silent node's draw is without it already": (SILENT, (a.pod(gpus=2),), 0.0),
}


@pytest.mark.parametrize(("telemetry", "pods", "want"), LINGERS.values(), ids=LINGERS.keys())
def test_lingering_watts(telemetry: Telemetry, pods: tuple[Pod, ...], want: float) -> None:
    row = a.domain("row-a", per_gpu_watt=0.5)
    fleet = a.fleet(a.node(), telemetries=[telemetry], pods=pods, domains=[row])
    found = pressure.lingering_watts(fleet, "gpu-1", pressure.remembered(fleet, {}))
    assert found.get("row-a", 0.0) == 1.5 * want
    assert pressure.lingering_watts(fleet, "gpu-9", {}) == {}, "a node that is gone draws nothing"


def test_on_a_node_that_somebody_vouches_is_off_nothing_is_saved_and_nothing_lingers() -> None:
    off = a.node(taints=(Taint(OUT_OF_SERVICE_TAINT, "nodeshutdown", "NoExecute"),))
    pod = a.pod(gpus=4)
    fleet = a.fleet(off, telemetries=[GOOD], pods=[pod], domains=[a.domain()])
    last = pressure.remembered(fleet, {})
    assert pressure.draw(fleet, last).watts["row-a"] == 0.0
    assert pressure.saved_watts(fleet, pod, last) == {}
    left = a.fleet(off, telemetries=[GOOD], domains=[a.domain()])
    assert pressure.lingering_watts(left, "gpu-1", pressure.remembered(left, last)) == {}
