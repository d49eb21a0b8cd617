"""Behaviour of the ladder: a domain near its budget holds, sheds in priority order, and takes back what it shed.

The plant is a meter that follows the pods: a GPU draws its load while a running pod holds it, and idles else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet, gpus_of, is_gated, is_staying
from rig.api import ApiError
from rig.waiting import wait_for

Object = dict[str, Any]
IDLE_WATTS, BUSY_WATTS = 75.0, 600.0
OVERHEAD = 1.55
"""Watts at the PDU per watt of GPU: the default of `perGPUWatt`."""
REPLICA_WATTS = 2 * (BUSY_WATTS - IDLE_WATTS) * OVERHEAD
"""What the end of a replica of two GPUs saves."""
QUICK = {
    "hold": {"enterPercent": 90, "exitPercent": 85, "enterSeconds": 1, "exitSeconds": 3},
    "trim": {"enterPercent": 95, "exitPercent": 88, "enterSeconds": 1, "exitSeconds": 4},
    "emergency": {"enterPercent": 100, "exitPercent": 95, "enterSeconds": 0, "exitSeconds": 4},
}
ROW = {"row": "a"}


class Meter:
    """Sets what each node's GPUs draw from the pods that run there, every fifth of a second."""

    def __init__(self, factory: Factory) -> None:
        self.factory = factory
        self.stray_watts: dict[str, float] = {}
        """Watts per idle GPU of a node, where somebody's process runs on them."""
        self._told: dict[str, list[float]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def watts(self, row: dict[str, str]) -> float:
        """What the nodes with these labels draw at the PDU, by the pods that there are now."""
        nodes = self.factory.plane.api.list("/api/v1/nodes")
        inside = {node["metadata"]["name"] for node in nodes if row.items() <= node["metadata"]["labels"].items()}
        return OVERHEAD * sum(sum(watts) for name, watts in self._now().items() if name in inside)

    def _now(self) -> dict[str, list[float]]:
        held: dict[str, int] = {}
        for pod in self.factory.plane.api.list("/api/v1/pods"):
            if pod["status"].get("phase") == "Running":
                held[pod["spec"]["nodeName"]] = held.get(pod["spec"]["nodeName"], 0) + gpus_of(pod)
        sizes = {
            node["metadata"]["name"]: int(node["status"]["allocatable"]["nvidia.com/gpu"])
            for node in self.factory.plane.api.list("/api/v1/nodes")
        }
        return {
            name: [BUSY_WATTS] * held.get(name, 0)
            + [self.stray_watts.get(name, IDLE_WATTS)] * (size - held.get(name, 0))
            for name, size in sizes.items()
        }

    def _run(self) -> None:
        while not self._stopped.wait(0.2):
            for name, watts in self._now().items():
                if self._told.get(name) != watts:
                    self._told[name] = watts
                    try:
                        self.factory.telemetry.set(name, watts=watts)
                    except (ApiError, KeyError):  # A node that is just being added or taken away.
                        self._told.pop(name, None)


@pytest.fixture
def meter(factory: Factory) -> Iterator[Meter]:
    found = Meter(factory)
    found.start()
    yield found
    found.stop()
    for kind in ("priorityclasses",):
        for one in factory.plane.api.list(f"/apis/scheduling.k8s.io/v1/{kind}"):
            if one["metadata"]["name"] in ("low", "high"):
                factory.plane.api.delete(f"/apis/scheduling.k8s.io/v1/{kind}/{one['metadata']['name']}")


def priorities(factory: Factory) -> None:
    for name, value in (("low", 10), ("high", 1000)):
        factory.plane.api.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
        )


def ladder(factory: Factory, name: str = "row-a") -> Object:
    found: Object = factory.domain_status(name).get("ladder", {})
    return found


def wait_stage(factory: Factory, *stages: str, name: str = "row-a", ceiling: float = PATIENCE_SECONDS) -> Object:
    def probe() -> Object | None:
        found = ladder(factory, name)
        return found if found.get("stage") in stages else None

    return wait_for(f"{name} is at {' or '.join(stages)}", probe, ceiling)


def row_of_two(factory: Factory, budget_watts: float, **domain: Any) -> None:
    """Two nodes of eight GPUs in one domain."""
    factory.add(fleet("DE", "DE", labels=ROW))
    factory.domain("row-a", budget_watts, ROW, ladder=QUICK, **domain)


def test_a_domain_near_its_budget_holds_and_places_nothing_new(factory: Factory, meter: Meter) -> None:
    row_of_two(factory, 30_000)
    factory.pool("llama", replicas=4)
    factory.wait_running("llama", 4)
    draw = meter.watts(ROW)
    factory.patch_domain("row-a", {"budget": {"watts": round(draw / 0.92)}})
    told = wait_stage(factory, "Hold")
    assert "W in force" in told["reason"]
    assert told["since"]
    factory.patch_pool("llama", {"replicas": 5})
    waiting = factory.wait_waiting("llama", "PowerHold")
    assert "PowerDomain/row-a" in waiting["message"]
    assert waiting["wouldFit"].startswith("wait until PowerDomain/row-a leaves hold")
    factory.patch_pool("llama", {"replicas": 3})
    factory.wait_running("llama", 3)


def test_what_a_domain_draws_too_much_is_shed_lowest_priority_first_and_comes_back(
    factory: Factory, meter: Meter
) -> None:
    priorities(factory)
    row_of_two(factory, 40_000)
    factory.pool("chat", replicas=3, pod={"priorityClassName": "high"})
    factory.pool("batch", replicas=3, pod={"priorityClassName": "low"}, disruption={"maxUnavailable": 3})
    keep = {pod["metadata"]["name"] for pod in factory.wait_running("chat", 3)}
    factory.wait_running("batch", 3)
    draw = meter.watts(ROW)
    factory.patch_domain("row-a", {"budget": {"watts": round(draw / 0.97)}})
    started = time.monotonic()
    factory.wait_running("batch", 2)
    print(f"shed {time.monotonic() - started:.1f} s after the cut")
    waiting = factory.wait_waiting("batch", "ShedByPower")
    assert waiting["replicas"] == 1
    assert "PowerDomain/row-a" in waiting["wouldFit"], waiting
    told = wait_for("the eviction is told", lambda: ladder(factory).get("actions"), SOON_SECONDS)
    assert told[0]["action"] == "Evict"
    assert told[0]["subject"].startswith("default/batch-")
    assert abs(told[0]["watts"] - REPLICA_WATTS) < 0.1 * REPLICA_WATTS, "idle watts are a guess on a full node"
    wait_for("it left the count", lambda: factory.deployment("batch")["spec"]["replicas"] == 2, PATIENCE_SECONDS)
    wait_for("no gated pod is left", lambda: not any(map(is_gated, factory.pods("batch"))), PATIENCE_SECONDS)
    assert factory.status("batch")["replicas"] == 3, "an autoscaler must not learn the shed"
    assert {pod["metadata"]["name"] for pod in factory.running("chat")} == keep
    factory.patch_domain("row-a", {"budget": {"watts": 40_000}})
    factory.wait_running("batch", 3)
    wait_stage(factory, "Admit")
    wait_for("nobody is said to wait any more", lambda: not ladder(factory).get("shed"), SOON_SECONDS)
