"""Where the kubelet says who holds which GPU, each pod is booked on its own: added up by hand.

A GPU idles at 80 W; its limit of 700 W reserves 721 W. At most 15 % of 721 W count as its idle draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

import builders as a
from penstock.core.model import Domain, Gpu, GpuHealth, Guarantee, Node, Phase, PlacementRules, Pod, PodGpus
from penstock.core.placement import choice
from penstock.core.placement.fleet import Fleet
from penstock.core.power import book

IDLE, HARD = 80.0, 721.0
IDLE_AT_MOST = 0.15 * HARD
WAKING = IDLE_AT_MOST - IDLE
STATISTICAL = a.domain(guarantee=Guarantee.STATISTICAL)
PART = "nvidia.com/mig-1g.18gb"
SHARED = a.node(gpus=8, labels={"nvidia.com/gpu.replicas": "4"})


def gpus(*planned: float, **changed: Any) -> tuple[Gpu, ...]:
    return tuple(a.gpu(index, planned_watts=watts, **changed) for index, watts in enumerate(planned))


def holds(name: str, *uuids: str, **changed: Any) -> PodGpus:
    return PodGpus("search", name, uuids, **changed)


def part(name: str, slices: int, uuid: str = "GPU-0") -> PodGpus:
    return PodGpus("search", name, (uuid,), shares=(slices / 7,))


def claimer(name: str, *devices: str, gpus: int = 0) -> Pod:
    """A foreign pod with ResourceClaims, which no request shows."""
    return a.pod(name, gpus=gpus, pool="", claimed=frozenset(devices))


def mig_pod(name: str) -> Pod:
    return a.pod(name, gpus=0)


def sized(name: str, profile: str, **changed: Any) -> Pod:
    """A pod that asks for one MIG device."""
    return a.pod(name, requests={f"nvidia.com/mig-{profile}": 1}, **changed)


@dataclass(frozen=True)
class Case:
    """What a domain is charged for one node, and how many of its GPUs are free."""

    want: float
    free: int
    gpus: tuple[Gpu, ...]
    pods: Iterable[Pod] = ()
    listed: tuple[PodGpus, ...] | None = ()
    domain: Domain = a.domain()
    node: Node | None = None
    declared: float | None = None
    in_use: tuple[str, ...] = ()

    def fleet(self) -> Fleet:
        heard = a.telemetry(gpus=self.gpus, pods=self.listed, unallocated_in_use=self.in_use)
        node = self.node or a.node(gpus=len(self.gpus))
        pools = {a.POOL: PlacementRules(declared_watts=self.declared)}
        return a.fleet(node, telemetries=[heard], pods=self.pods, domains=[self.domain], pools=pools)


HOT_COLD = gpus(600, IDLE)
CAPPED = (a.gpu(0, limit_watts=400.0), a.gpu(1))

CASES = {
    "a pod on the cool GPU is booked there, and the hot one stays hot": Case(
        600 + HARD, 1, HOT_COLD, [a.pod("p", gpus=1)], (holds("p", "GPU-1"),)
    ),
    "on the hot GPU it is booked there": Case(HARD + IDLE, 1, HOT_COLD, [a.pod("p", gpus=1)], (holds("p", "GPU-0"),)),
    "a pod reserves its own limit and not the highest of the node": Case(
        412 + IDLE, 1, CAPPED, [a.pod("p", gpus=1)], (holds("p", "GPU-0"),)
    ),
    "who comes next reserves the limit of those that are left": Case(
        412 + HARD,
        0,
        CAPPED,
        [a.pod("p", gpus=1), a.pod("q", node="", pin="gpu-1", gpus=1)],
        (holds("p", "GPU-0"),),
    ),
    "a pending pin takes the coolest GPU that nobody holds": Case(
        HARD + HARD + 600,
        1,
        gpus(IDLE, IDLE, 600),
        [a.pod("p", gpus=1), a.pod("q", node="", pin="gpu-1", gpus=1)],
        (holds("p", "GPU-0"),),
    ),
    "a pod that starts is booked where the kubelet put it": Case(
        HARD + IDLE, 1, HOT_COLD, [a.pod("p", gpus=1, phase=Phase.PENDING)], (holds("p", "GPU-0"),)
    ),
    "a pod that is not listed is booked on the busiest of the others": Case(
        HARD + HARD + IDLE, 1, gpus(IDLE, 600, IDLE), [a.pod("p", gpus=1), a.pod("q", gpus=1)], (holds("p", "GPU-0"),)
    ),
    "a pod that is listed with fewer GPUs than it asks for is not known": Case(
        HARD + HARD + IDLE, 1, gpus(IDLE, 600, IDLE), [a.pod("p", gpus=2)], (holds("p", "GPU-0"),)
    ),
    "a finished pod that is still listed holds nothing": Case(
        600 + IDLE, 2, HOT_COLD, [a.pod("p", gpus=1, phase=Phase.SUCCEEDED)], (holds("p", "GPU-1"),)
    ),
    "a listed pod that the API server does not know holds nothing": Case(
        600 + IDLE, 2, HOT_COLD, [], (holds("gone", "GPU-1"),)
    ),
    "a pod that is not bound yet holds nothing, though one of its name was here": Case(
        600 + HARD, 1, HOT_COLD, [a.pod("p", node="", pin="gpu-1", gpus=1)], (holds("p", "GPU-0"),)
    ),
    "a listed pod of another node holds nothing here": Case(
        600 + IDLE, 2, HOT_COLD, [a.pod("p", node="gpu-2", gpus=1)], (holds("p", "GPU-1"),)
    ),
    "a terminating pod holds its GPUs until it is gone": Case(
        600 + HARD, 1, HOT_COLD, [a.pod("p", gpus=1, terminating=True)], (holds("p", "GPU-1"),)
    ),
    "without the kubelet's word the busiest GPU is taken for the pod's": Case(
        HARD + IDLE, 1, HOT_COLD, [a.pod("p", gpus=1)], None
    ),
    "a foreign pod's GPU counts its own enforced limit": Case(
        412 + IDLE,
        1,
        CAPPED,
        [a.pod("p", gpus=1, pool="", namespace="search")],
        (holds("p", "GPU-0"),),
        domain=STATISTICAL,
        declared=300.0,
    ),
    "Statistical: the declared watts on its own GPU": Case(
        600 + 300, 1, HOT_COLD, [a.pod("p", gpus=1)], (holds("p", "GPU-1"),), domain=STATISTICAL, declared=300.0
    ),
    "time slices of one GPU are one whole GPU": Case(
        HARD + IDLE,
        6,
        gpus(IDLE, IDLE),
        [a.pod("p", gpus=1), a.pod("q", gpus=1)],
        (holds("p", "GPU-0", shared=True), holds("q", "GPU-0", shared=True)),
        node=SHARED,
    ),
    "time slices that wait for a GPU count as one whole GPU each, as far as there are any": Case(
        2 * HARD, 5, gpus(IDLE, IDLE), [a.pod(name, node="", pin="gpu-1", gpus=1) for name in "pqr"], node=SHARED
    ),
    "of time slices the dearest counts": Case(
        HARD + IDLE,
        6,
        gpus(IDLE, IDLE),
        [a.pod("p", gpus=1), a.pod("q", gpus=1, pool="")],
        (holds("p", "GPU-0", shared=True), holds("q", "GPU-0", shared=True)),
        node=SHARED,
        domain=STATISTICAL,
        declared=300.0,
    ),
    "MIG devices reserve idle draw and their part of what is above it": Case(
        IDLE_AT_MOST + 5 / 7 * (HARD - IDLE_AT_MOST) + IDLE,
        2,
        gpus(IDLE, IDLE),
        [mig_pod("p"), mig_pod("q")],
        (part("p", 3), part("q", 2)),
    ),
    "a GPU whose MIG devices are all held reserves its limit": Case(
        HARD + IDLE, 2, gpus(IDLE, IDLE), [mig_pod("p"), mig_pod("q")], (part("p", 3), part("q", 4))
    ),
    "a MIG GPU that draws more than that counts its draw": Case(
        500 + IDLE, 2, gpus(500, IDLE), [mig_pod("p")], (part("p", 1),)
    ),
    "MIG devices that nobody lists may be on GPUs that draw nothing": Case(
        2 * IDLE + 3 / 7 * HARD + 11 / 7 * WAKING,
        2,
        gpus(IDLE, IDLE),
        [sized("p", "2g.35gb"), sized("q", "1c.1g.18gb")],
        None,
    ),
    "however many they are, they wake each GPU once": Case(
        2 * IDLE + 3 / 7 * HARD + 2 * WAKING, 2, gpus(IDLE, IDLE), [sized(name, "1g.18gb") for name in "pqr"], None
    ),
    "beside those that are listed": Case(
        IDLE_AT_MOST + 3 / 7 * (HARD - IDLE_AT_MOST) + 2 / 7 * HARD + IDLE + 5 / 7 * WAKING,
        2,
        gpus(IDLE, IDLE),
        [sized("p", "3g.71gb"), sized("q", "2g.35gb", node="", pin="gpu-1")],
        (part("p", 3),),
    ),
    "together they never charge more than the limits of all GPUs": Case(
        2 * HARD, 2, gpus(600, IDLE), [sized(name, "4g.71gb") for name in "pqrs"], None
    ),
    "a GPU that is charged more than its limit leaves them the room of the others": Case(
        HARD + 412,
        1,
        (a.gpu(0, limit_watts=400.0, health=GpuHealth.UNRESPONSIVE), a.gpu(1, limit_watts=400.0)),
        [sized("p", "7g.141gb")],
    ),
    "one whose size nobody can read counts as a whole GPU": Case(
        2 * IDLE + HARD, 2, gpus(IDLE, IDLE), [sized("p", "huge")], None
    ),
    "a GPU that a claim holds is not free, and charged as its pod's": Case(
        HARD + IDLE, 1, HOT_COLD, [claimer("p", "gpu-0")], (holds("p", "GPU-0", claims=("search/p",)),)
    ),
    "the kubelet's word of a claim will do": Case(
        HARD + IDLE, 1, HOT_COLD, [claimer("p")], (holds("p", "GPU-0", claims=("search/p",)),)
    ),
    "so will the claim's own, booked on the busiest": Case(HARD + IDLE, 1, HOT_COLD, [claimer("p", "gpu-1")]),
    "and where the kubelet is not asked at all": Case(HARD + IDLE, 1, HOT_COLD, [claimer("p", "gpu-1")], None),
    "a claim that two pods share is one GPU": Case(
        HARD + IDLE, 1, HOT_COLD, [claimer("p", "gpu-0"), claimer("q", "gpu-0")]
    ),
    "by the kubelet's word too": Case(
        600 + HARD,
        1,
        HOT_COLD,
        [claimer("p", "gpu-1"), claimer("q", "gpu-1")],
        (holds("p", "GPU-1", claims=("search/both",)), holds("q", "GPU-1", claims=("search/both",))),
    ),
    "a claim beside GPUs of the device plugin": Case(
        2 * HARD + IDLE, 1, gpus(IDLE, 600, IDLE), [claimer("p", "gpu-0", gpus=1)], (holds("p", "GPU-0", "GPU-1"),)
    ),
    "one of them is known only": Case(
        2 * HARD + IDLE, 1, gpus(IDLE, 600, IDLE), [claimer("p", "gpu-0", gpus=1)], (holds("p", "GPU-1"),)
    ),
    "a claimed GPU that is lost is missed once": Case(
        HARD + IDLE,
        1,
        (a.gpu(0, health=GpuHealth.LOST), a.gpu(1)),
        [claimer("p", "gpu-0")],
        (holds("p", "GPU-0", claims=("search/p",)),),
    ),
    "a claim works on its GPU, so nobody else does": Case(
        HARD + IDLE,
        1,
        (a.gpu(0, planned_watts=600.0, activity_percent=90.0), a.gpu(1)),
        [claimer("p", "gpu-0")],
        None,
    ),
    "a claimed GPU is all of its time slices": Case(
        HARD + IDLE,
        4,
        gpus(600, IDLE),
        [claimer("p", "gpu-0")],
        (holds("p", "GPU-0", claims=("search/p",)),),
        node=SHARED,
    ),
    "a GPU in use without a pod is not free": Case(600 + IDLE, 1, HOT_COLD, in_use=("GPU-0",)),
    "one that may be a pod's that is not listed yet is counted once": Case(
        HARD + IDLE, 1, HOT_COLD, [a.pod("p", gpus=1)], in_use=("GPU-0",)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_own_gpus(case: Case) -> None:
    fleet = case.fleet()
    account = book.statements(fleet, a.NOW_AT)[0]
    assert account.committed_watts == pytest.approx(case.want)
    assert sum(holder.watts for holder in account.holders) == pytest.approx(case.want)
    assert fleet.rows[0].free_gpus == case.free


@pytest.mark.parametrize(
    ("profile", "of_a_gpu"),
    (
        ("1g.18gb", 1 / 7),
        ("4g.71gb", 4 / 7),
        ("4g.40gb", 4 / 7),
        ("2g.24gb", 2 / 7),
        ("7g.141gb", 1.0),
        ("1g.6gb", 1 / 4),
        ("1g.6gb.me", 1 / 4),
        ("2g.12gb", 2 / 4),
        ("4g.24gb", 1.0),
        ("1c.4g.24gb", 1.0),
        ("1g.24gb", 1 / 4),
        ("2g.48gb.gfx", 2 / 4),
        ("4g.96gb", 1.0),
    ),
)
def test_a_mig_device_is_counted_out_of_the_slices_that_its_chip_has(profile: str, of_a_gpu: float) -> None:
    assert sized("p", profile).parts == pytest.approx(of_a_gpu)


LISTED: dict[str, tuple[int, tuple[tuple[int, ...], ...]]] = {
    "each on a GPU of its own": (4, ((0,), (1,), (2,), (3,))),
    "all on one": (4, ((0,), (0,), (0,), (0,))),
    "two of each pod, apart": (4, ((0, 1), (2, 3))),
    "two of each pod, together": (4, ((0, 0), (1, 1))),
    "more than there are GPUs": (2, ((0,), (1,), (0,), (1,), (0,))),
    "some of them": (2, ((0,), (), ())),
}


@pytest.mark.parametrize(("number", "places"), LISTED.values(), ids=LISTED.keys())
def test_mig_devices_cost_no_more_once_the_kubelet_lists_them_than_when_they_were_planned(
    number: int, places: tuple[tuple[int, ...], ...]
) -> None:
    node, profile = a.node(gpus=0, allocatable={PART: 14}), {f"p{at}": len(on) or 1 for at, on in enumerate(places)}
    silent = a.telemetry(gpus=number, pods=())
    waiting = [a.replica(name, requests={PART: devices, "pods": 1}) for name, devices in profile.items()]
    before = a.fleet(node, telemetries=[silent], domains=[a.domain()])
    planned = choice.plan(before, waiting, (), 0.0).decisions
    assert len(planned) == len(places)
    admitted = float(before.committed_watts[0]) + sum(dict(one.watts)["row-a"] for one in planned)
    pods = [a.pod(name, requests={PART: devices}) for name, devices in profile.items()]
    unlisted = a.fleet(node, telemetries=[silent], pods=pods, domains=[a.domain()])
    assert float(unlisted.committed_watts[0]) == pytest.approx(admitted)
    found = tuple(
        PodGpus(
            "search",
            f"p{at}",
            tuple(f"GPU-{gpu}" for gpu in sorted({*on})),
            tuple(on.count(gpu) / 7 for gpu in sorted({*on})),
        )
        for at, on in enumerate(places)
        if on
    )
    listed = a.fleet(node, telemetries=[a.telemetry(gpus=number, pods=found)], pods=pods, domains=[a.domain()])
    assert float(listed.committed_watts[0]) <= admitted + 1e-6


def test_who_shares_a_gpu_shares_its_watts() -> None:
    fleet = Case(
        0,
        0,
        gpus(IDLE, IDLE),
        [mig_pod("p"), a.pod("q", gpus=0, pool="")],
        (part("p", 3), part("q", 2)),
    ).fleet()
    held = {(one.kind, one.name): one.watts for one in book.statements(fleet, a.NOW_AT)[0].holders}
    whole = IDLE_AT_MOST + 5 / 7 * (HARD - IDLE_AT_MOST)
    assert held == pytest.approx(
        {("Pool", "search/llama"): whole * 3 / 5, ("Foreign", "search/q"): whole * 2 / 5, ("Idle", ""): IDLE}
    )


def test_stale_telemetry_knows_nobodys_gpu() -> None:
    heard = a.telemetry(gpus=CAPPED, pods=(holds("p", "GPU-0"),), heard_at=a.NOW_AT - 31)
    fleet = a.fleet(a.node(gpus=2), telemetries=[heard], pods=[a.pod("p", gpus=1)], domains=[a.domain()])
    assert book.statements(fleet, a.NOW_AT)[0].committed_watts == pytest.approx(2 * HARD)


@pytest.mark.parametrize(("label", "free"), (("1", 2), ("4", 8), ("none", 2), ("0", 2)))
def test_a_node_offers_its_time_slices_by_its_label(label: str, free: int) -> None:
    node = a.node(gpus=max(free, 2), labels={"nvidia.com/gpu.replicas": label})
    fleet = a.fleet(node, telemetries=[a.telemetry(gpus=2)], domains=[a.domain()])
    assert fleet.rows[0].free_gpus == free
    assert book.statements(fleet, a.NOW_AT)[0].committed_watts == pytest.approx(2 * IDLE)
