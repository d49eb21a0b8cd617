"""Whatever pods hold, known or not: what was reserved for a replica covers it, wherever the kubelet puts it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import strategies as st

import builders as a
from histories import HISTORIES, over_histories
from penstock.core.model import Gpu, Guarantee, Phase, PlacementRules, Pod, PodGpus, Telemetry
from penstock.core.placement.fleet import Fleet
from penstock.core.power import book
from penstock.core.power.node_watts import booked

LIMITS = (300.0, 400.0, 550.0, 700.0)
WATTS = st.sampled_from((60.0, 80.0, 114.0, 290.0, 420.0, 650.0))
DECLARED_WATTS = 8 * 650.0
"""As much as the hottest GPU draws: what is measured above it would raise a reservation, by right."""


@st.composite
def nodes_gpus(draw: st.DrawFn) -> tuple[Gpu, ...]:
    number = draw(st.integers(1, 8))
    return tuple(
        a.gpu(index, planned_watts=draw(WATTS), limit_watts=draw(st.sampled_from(LIMITS))) for index in range(number)
    )


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[Gpu, ...], list[tuple[Pod, PodGpus | None]], Guarantee]:
    """GPUs and the pods on them, each with its entry in the kubelet's list or without."""
    gpus = draw(nodes_gpus())
    free = list(draw(st.permutations([gpu.uuid for gpu in gpus])))
    pods: list[tuple[Pod, PodGpus | None]] = []
    for size in draw(st.lists(st.integers(1, 4), max_size=4)):
        uuids = tuple(free[:size])
        free = free[size:]
        if not uuids:
            break
        name = f"p{len(pods)}"
        pool = draw(st.sampled_from((a.POOL.name, "")))
        listed = PodGpus(a.POOL.namespace, name, uuids) if draw(st.booleans()) else None
        pods.append((a.pod(name, node="gpu-1", gpus=len(uuids), pool=pool), listed))
    return gpus, pods, draw(st.sampled_from(list(Guarantee)))


def fleet(gpus: tuple[Gpu, ...], pods: list[tuple[Pod, PodGpus | None]], guarantee: Guarantee, *others: Pod) -> Fleet:
    listed = tuple(one for _, one in pods if one)
    heard: Telemetry = a.telemetry("gpu-1", gpus, pods=listed)
    node, domain = a.node("gpu-1", gpus=len(gpus)), a.domain(guarantee=guarantee)
    pools = {a.POOL: PlacementRules(declared_watts=DECLARED_WATTS)}
    return a.fleet(node, telemetries=[heard], pods=[*(pod for pod, _ in pods), *others], domains=[domain], pools=pools)


def committed(found: Fleet) -> float:
    account = book.statements(found, a.NOW_AT)[0]
    assert sum(one.watts for one in account.holders) == pytest.approx(account.committed_watts)
    return account.committed_watts


@over_histories(HISTORIES // 2, scene=scenes())
def test_no_gpu_is_charged_less_than_it_draws_and_no_pod_less_than_it_reserves(
    scene: tuple[tuple[Gpu, ...], list[tuple[Pod, PodGpus | None]], Guarantee],
) -> None:
    gpus, pods, guarantee = scene
    found = fleet(gpus, pods, guarantee)
    assert committed(found) >= sum(gpu.planned_watts or 0.0 for gpu in gpus) - 1e-6
    row = found.rows[0]
    entries = booked(row.power, found.domains[0])
    assert len(entries) == len(gpus)
    assert sum(hold is not None for hold, _ in entries) == sum(pod.gpus for pod, _ in pods)
    assert list(row.power.unheld_watts) == sorted(row.power.unheld_watts)
    assert all(before <= after for before, after in pairwise(row.power.unstarted_watts))


@over_histories(HISTORIES // 2, scene=scenes(), data=st.data())
def test_a_replica_never_costs_more_than_was_reserved_for_it_wherever_the_kubelet_puts_it(
    scene: tuple[tuple[Gpu, ...], list[tuple[Pod, PodGpus | None]], Guarantee], data: st.DataObject
) -> None:
    gpus, pods, guarantee = scene
    # Pods whose GPUs nobody knows may be on any: then nobody can say which are free for the next.
    pods = [(pod, listed) for pod, listed in pods if listed]
    held = {uuid for _, listed in pods if listed for uuid in listed.uuids}
    free = [gpu.uuid for gpu in gpus if gpu.uuid not in held]
    if not free:
        return
    number = data.draw(st.integers(1, len(free)))
    uuids = tuple(data.draw(st.permutations(free))[:number])
    pinned = a.pod("new", node="", pin="gpu-1", gpus=number)
    reserved = committed(fleet(gpus, pods, guarantee, pinned))
    running = replace(pinned, node="gpu-1", pin="", phase=Phase.RUNNING)
    assert committed(fleet(gpus, pods, guarantee, running)) <= reserved + 1e-6
    listed = PodGpus(a.POOL.namespace, "new", uuids)
    assert committed(fleet(gpus, [*pods, (running, listed)], guarantee)) <= reserved + 1e-6
