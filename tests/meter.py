"""A meter that follows the pods: a GPU draws its load while a running pod holds it, and idles else."""

from __future__ import annotations

import threading

from factory import Factory, gpus_of
from rig.api import ApiError

IDLE_WATTS, BUSY_WATTS = 75.0, 600.0
OVERHEAD = 1.55
"""Watts at the PDU per watt of GPU: the default of `perGPUWatt`."""


class Meter:
    """Sets what each node's GPUs draw from the pods that run there, every fifth of a second."""

    def __init__(self, factory: Factory) -> None:
        self.factory = factory
        self.overhead = OVERHEAD
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
        return self.overhead * sum(sum(watts) for name, watts in self._now().items() if name in inside)

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
