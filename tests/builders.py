"""Values of the domain with defaults, so that a test names only what it is about."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import pytest

from penstock.api.names import COUNTRY_LABEL, SUBDIVISION_LABEL
from penstock.core.model import Amounts, Domain, Gpu, Node, Phase, PlacementRules, Pod, PoolKey, Replica, Telemetry
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scheduling import LabelRule, Operator, Requirement

GPU = "nvidia.com/gpu"
GIB = 1024**3
H200 = "NVIDIA-H200"
NOW_AT = 1000.0
POOL = PoolKey("search", "llama")
ROOM: Amounts = {"cpu": 64_000, "memory": 512 * GIB, "pods": 110}
EVERY_NODE = LabelRule()


def spawns_nothing(act: Coroutine[object, object, None]) -> None:
    """Where a test expects no act: one that is spawned fails it."""
    act.close()
    raise AssertionError(f"{act} was spawned, and nothing should be")


def runs_to_its_first_pause(act: Coroutine[object, object, None]) -> None:
    """What is spawned has begun, and no more."""
    try:
        act.send(None)
    except StopIteration:
        return


def runs_at_once(act: Coroutine[object, object, None]) -> None:
    """Where nothing that an act calls has to be waited for: it has ended when it is spawned."""
    with pytest.raises(StopIteration):
        act.send(None)


def node(name: str = "gpu-1", gpus: int = 8, country: str = "DE", subdivision: str = "", **changed: Any) -> Node:
    """A ready eight-GPU node in Germany. `labels` and `allocatable` add to the defaults."""
    place = {COUNTRY_LABEL: country, SUBDIVISION_LABEL: subdivision}
    labels = {key: value for key, value in place.items() if value} | {"kubernetes.io/hostname": name}
    labels |= changed.pop("labels", {})
    allocatable = {**ROOM, GPU: gpus, **changed.pop("allocatable", {})}
    return Node(name=name, uid=f"uid-{name}", labels=labels, allocatable=allocatable, **changed)


def gpu(index: int = 0, **changed: Any) -> Gpu:
    """A healthy idle H200 at 80 W, limit and maximum 700 W."""
    values: dict[str, Any] = {
        "uuid": f"GPU-{index}",
        "index": index,
        "product": H200,
        "memory_total_bytes": 141 * 10**9,
        "power_watts": 75.0,
        "planned_watts": 80.0,
        "limit_watts": 700.0,
        "maximum_watts": 700.0,
        "activity_percent": 0.0,
    }
    return Gpu(**{**values, **changed})


def telemetry(name: str = "gpu-1", gpus: int | Iterable[Gpu] = 8, **changed: Any) -> Telemetry:
    """A report heard this very moment."""
    devices = tuple(gpu(index) for index in range(gpus)) if isinstance(gpus, int) else tuple(gpus)
    return Telemetry(**{"node": name, "sequence": 1, "heard_at": NOW_AT, "gpus": devices, **changed})


def requests(gpus: int = 2, **others: int) -> dict[str, int]:
    return {"cpu": 4_000, "memory": 16 * GIB, "pods": 1, GPU: gpus, **others}


def pod(name: str = "pod-1", node: str = "gpu-1", gpus: int = 2, **changed: Any) -> Pod:
    """A running replica of the pool on a node; `node=""` and `pin=…` for one that is only pinned."""
    values: dict[str, Any] = {
        "uid": f"uid-{name}",
        "namespace": POOL.namespace,
        "name": name,
        "pool": POOL.name,
        "node": node,
        "phase": Phase.RUNNING if node else Phase.PENDING,
        "requests": requests(gpus),
    }
    return Pod(**{**values, **changed})


def replica(key: str = "r-1", gpus: int = 2, pool: PoolKey = POOL, **changed: Any) -> Replica:
    """A waiting replica without any rule."""
    values: dict[str, Any] = {"rules": PlacementRules(), "requests": requests(gpus)}
    return Replica(**{"key": key, "pool": pool, **values, **changed})


def domain(name: str = "row-a", budget_watts: float = 1e6, **changed: Any) -> Domain:
    """A domain over every node. Without margin and overhead, so that watts are easy to add up."""
    values: dict[str, Any] = {"selector": EVERY_NODE, "margin": 0.0, "per_gpu_watt": 0.0}
    return Domain(**{"name": name, "budget_watts": budget_watts, **values, **changed})


def labelled(key: str, *values: str) -> LabelRule:
    return LabelRule((Requirement(key, Operator.IN, values),))


def fleet(
    *nodes: Node,
    telemetries: Iterable[Telemetry] | None = None,
    pods: Iterable[Pod] = (),
    domains: Iterable[Domain] = (),
    pools: Mapping[PoolKey, PlacementRules] | None = None,
    now_at: float = NOW_AT,
) -> Fleet:
    """A fleet at `NOW_AT`; without `telemetries` every node reports its allocatable GPUs, idle and healthy."""
    if telemetries is None:
        telemetries = [telemetry(one.name, one.allocatable.get(GPU, 0)) for one in nodes]
    heard = {one.node: one for one in telemetries}
    return Fleet.build(nodes, heard, pods, domains, pools or {}, now_at=now_at)
