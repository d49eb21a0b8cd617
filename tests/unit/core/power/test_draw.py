"""Whose draw it is, added up by hand: pods hold the GPUs that the kubelet says, else the busiest of the others."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import builders as a
from penstock.core.model import Phase, Pod, PodGpus, PoolKey, Telemetry
from penstock.core.placement.row import NodeView
from penstock.core.power.draw import pool_watts

MISTRAL = PoolKey("search", "mistral")
WATTS = (80.0, 600.0, 400.0, 90.0)


def report(*watts: float | None, pods: tuple[PodGpus, ...] | None = None) -> Telemetry:
    return a.telemetry(gpus=[a.gpu(index, power_watts=one) for index, one in enumerate(watts)], pods=pods)


def holds(name: str, uuid: str, watts: float) -> PodGpus:
    return PodGpus("search", name, (uuid,), watts=watts)


def view(*pods: Pod, telemetry: Telemetry | None = report(*WATTS)) -> NodeView:  # noqa: B008  a frozen value
    return NodeView(a.node(gpus=4), telemetry, pods)


CASES: dict[str, tuple[tuple[NodeView, ...], Mapping[PoolKey, float]]] = {
    "a replica draws what the busiest GPUs draw": ((view(a.pod(gpus=2)),), {a.POOL: 1000.0}),
    "two pools share by the GPUs that they asked for": (
        (view(a.pod(gpus=1), a.pod("m", gpus=2, pool="mistral")),),
        {a.POOL: 1090.0 / 3, MISTRAL: 2 * 1090.0 / 3},
    ),
    "two replicas of one pool add up": ((view(a.pod(gpus=1), a.pod("two", gpus=1)),), {a.POOL: 1000.0}),
    "a foreign pod takes its share, and nobody is told": (
        (view(a.pod(gpus=1), a.pod("job", gpus=1, pool="")),),
        {a.POOL: 500.0},
    ),
    "nodes add up": ((view(a.pod(gpus=1)), view(a.pod(gpus=1))), {a.POOL: 1200.0}),
    "a pod that has not started draws nothing": ((view(a.pod(phase=Phase.PENDING)),), {}),
    "a pod without GPUs draws none of theirs": ((view(a.pod(gpus=0)),), {}),
    "a pod whose GPUs are known draws what they draw for it": (
        (view(a.pod("p", gpus=1), telemetry=report(*WATTS, pods=(holds("p", "GPU-0", 80.0),))),),
        {a.POOL: 80.0},
    ),
    "the others hold the busiest of those that are left": (
        (view(a.pod("p", gpus=1), a.pod("q", gpus=1), telemetry=report(*WATTS, pods=(holds("p", "GPU-1", 600.0),))),),
        {a.POOL: 1000.0},
    ),
    "a pod that shares a GPU draws its part": (
        (
            view(
                a.pod("p", gpus=1),
                a.pod("q", gpus=1, pool="mistral"),
                telemetry=report(*WATTS, pods=(holds("p", "GPU-1", 450.0), holds("q", "GPU-1", 150.0))),
            ),
        ),
        {a.POOL: 450.0, MISTRAL: 150.0},
    ),
    "a finished pod that is still listed draws nothing for its pool": (
        (view(telemetry=report(*WATTS, pods=(holds("p", "GPU-1", 600.0),))),),
        {},
    ),
    "a node that never spoke is not guessed at": ((view(a.pod(), telemetry=None),), {}),
    "a figure that is missing is none": ((view(a.pod(gpus=2), telemetry=report(None, 300.0)),), {a.POOL: 300.0}),
}


@pytest.mark.parametrize(("views", "want"), CASES.values(), ids=CASES.keys())
def test_pool_watts(views: tuple[NodeView, ...], want: Mapping[PoolKey, float]) -> None:
    assert dict(pool_watts(views)) == pytest.approx(want)
