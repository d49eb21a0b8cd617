"""A stand-in for the node agents: one thread that writes every GPUNode as the administrator."""

import itertools
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.api.names import API_VERSION, GPU_PRODUCT_LABEL, GPU_RESOURCE
from penstock.sim.curves import PRODUCTS, GpuProduct
from rig.api import Api, ApiError
from rig.controlplane import ControlPlane

Object = dict[str, Any]

PATH = f"/apis/{API_VERSION}/gpunodes"
HEARTBEAT_SECONDS = 10.0
WRITES_IN_FLIGHT = 4
CONFLICT = 409


def curve(product: str) -> GpuProduct:
    """The curve of a product, an H200's where the twin knows none."""
    return PRODUCTS.get(product, PRODUCTS["NVIDIA-H200"])


@dataclass
class Figures:
    """What a node's agent would say: one entry for each GPU. `changes` replace fields of each GPU's reading."""

    product: str
    watts: list[float]
    activity_percent: list[float]
    memory_used_bytes: list[int]
    health: list[str]
    changes: Object = field(default_factory=dict)
    status_changes: Object = field(default_factory=dict)
    silent: bool = False
    behind_seconds: float = 0.0
    """How far the node's clock is behind."""
    joules: list[float] = field(default_factory=list)
    """What each GPU's counter has reached, at `counted_at`."""
    counted_at: float = field(default_factory=time.monotonic)

    def count_energy(self) -> None:
        """Let the counters run up to now."""
        now = time.monotonic()
        before = self.joules or [0.0] * len(self.watts)
        self.joules = [sum_ + watts * (now - self.counted_at) for sum_, watts in zip(before, self.watts, strict=False)]
        self.counted_at = now

    @classmethod
    def idle(cls, product: str, gpus: int) -> "Figures":
        model = curve(product)
        return cls(product, [model.idle_watts] * gpus, [0.0] * gpus, [0] * gpus, ["Healthy"] * gpus)

    def status(self, name: str, sequence: int, heartbeat_seconds: float) -> Object:
        self.count_energy()
        readings = [{**self._reading(name, index), **self.changes} for index in range(len(self.watts))]
        now = (datetime.now(UTC) - timedelta(seconds=self.behind_seconds)).isoformat().replace("+00:00", "Z")
        return {
            "heartbeatSeconds": heartbeat_seconds,
            "sequence": sequence,
            "sampledAt": now,
            "bootID": "rig",
            "driverVersion": "580.95.05",
            "nvmlVersion": "13.580.95.05",
            "watts": sum(self.watts),
            "gpuCount": len(readings),
            "gpus": readings,
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "Publishing", "message": "", "lastTransitionTime": now}
            ],
            **self.status_changes,
        }

    def _reading(self, name: str, index: int) -> Object:
        model = curve(self.product)
        return {
            "uuid": f"GPU-{name}-{index}",
            "index": index,
            "product": self.product,
            "memoryTotalBytes": model.memory_bytes,
            "memoryUsedBytes": self.memory_used_bytes[index],
            "powerWatts": self.watts[index],
            "powerP95Watts": self.watts[index],
            "enforcedLimitWatts": model.maximum_limit_watts,
            "enforcedLimitAgeSeconds": 1,
            "maximumLimitWatts": model.maximum_limit_watts,
            "energyJoules": self.joules[index],
            "activityPercent": self.activity_percent[index],
            "activitySource": "GPM",
            "temperatureCelsius": 40,
            "throttleReasons": [],
            "health": self.health[index],
        }


class Publisher:
    """Publishes the GPUNode of each GPU node of the cluster at a heartbeat, idle until `set` says otherwise."""

    def __init__(self, plane: ControlPlane) -> None:
        self._api: Api = plane.api
        self._figures: dict[str, Figures] = {}
        self._sequence = itertools.count(int(time.time()))
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._interval = HEARTBEAT_SECONDS
        self._pool = ThreadPoolExecutor(WRITES_IN_FLIGHT)

    def start(self, interval: float = HEARTBEAT_SECONDS, nodes: Iterable[str] | None = None) -> None:
        """Publish every node once, then each of them every `interval` seconds, spread over it."""
        self._interval = interval
        self.adopt(nodes)
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def adopt(self, nodes: Iterable[str] | None = None) -> None:
        """Speak for nodes that were added (all of the cluster's that have GPUs, unless named), at once."""
        wanted = None if nodes is None else set(nodes)
        fresh = []
        for node in self._api.list("/api/v1/nodes"):
            name, labels = node["metadata"]["name"], node["metadata"].get("labels", {})
            gpus = int(node["status"].get("allocatable", {}).get(GPU_RESOURCE, 0))
            if gpus and name not in self._figures and (wanted is None or name in wanted):
                self._figures[name] = Figures.idle(labels[GPU_PRODUCT_LABEL], gpus)
                fresh.append(name)
        list(self._pool.map(self._introduce, fresh))

    def set(
        self,
        node: str,
        *,
        watts: Sequence[float] | None = None,
        activity_percent: Sequence[float] | None = None,
        memory_used_bytes: Sequence[int] | None = None,
        health: Sequence[str] | None = None,
        changes: Mapping[str, Any] | None = None,
        status_changes: Mapping[str, Any] | None = None,
        behind_seconds: float | None = None,
    ) -> None:
        """Change what a node says, and publish it at once.

        `changes` replace fields of each GPU's reading and `status_changes` fields of the status: for lies.
        """
        figures = self._figures[node]
        figures.count_energy()
        figures.watts = list(watts or figures.watts)
        figures.activity_percent = list(activity_percent or figures.activity_percent)
        figures.memory_used_bytes = list(memory_used_bytes or figures.memory_used_bytes)
        figures.health = list(health or figures.health)
        figures.changes = {**figures.changes, **(changes or {})}
        figures.status_changes = {**figures.status_changes, **(status_changes or {})}
        figures.behind_seconds = figures.behind_seconds if behind_seconds is None else behind_seconds
        self.publish(node)

    def gpus(self, node: str) -> int:
        """How many GPUs a node's agent tells of."""
        return len(self._figures[node].watts)

    def silence(self, node: str) -> None:
        """A node's agent stops speaking."""
        self._figures[node].silent = True

    def speak(self, node: str) -> None:
        """A silent agent speaks again, at once."""
        self._figures[node].silent = False
        self.publish(node)

    def forget(self, node: str) -> None:
        """The node is gone, and its agent with it."""
        del self._figures[node]

    def publish(self, node: str) -> None:
        """One report of a node, now."""
        self._api.patch(f"{PATH}/{node}/status", {"status": self._next(node)})

    def report(self, node: str, watts: Sequence[float]) -> Object:
        """A node's next status with other watts, for who brings it to its readers by another way."""
        figures = self._figures[node]
        figures.count_energy()
        figures.watts = list(watts)
        return self._next(node)

    def _next(self, node: str) -> Object:
        return self._figures[node].status(node, next(self._sequence), self._interval)

    def stop(self) -> None:
        self._stopped.set()
        if self._thread:
            self._thread.join()
        self._pool.shutdown()

    def _introduce(self, node: str) -> None:
        # Born with a label, as by an agent: else the API server keeps no record of when its status was written.
        metadata = {"name": node, "labels": {"app.kubernetes.io/managed-by": "penstock-agent"}}
        try:
            self._api.create(PATH, {"apiVersion": API_VERSION, "kind": "GPUNode", "metadata": metadata})
        except ApiError as error:
            if error.status != CONFLICT:
                raise
        self.publish(node)

    def _run(self) -> None:
        while not self._stopped.is_set():
            names = list(self._figures)
            pause_seconds = self._interval / max(1, len(names))
            for name in names:
                if self._stopped.wait(pause_seconds):
                    return
                self._publish_if_speaking(name)

    def _publish_if_speaking(self, name: str) -> None:
        figures = self._figures.get(name)
        if figures is None or figures.silent:
            return
        try:
            self.publish(name)
        except (ApiError, OSError) as error:
            print(f"telemetry of {name}: {error}", flush=True)
