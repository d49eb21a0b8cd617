"""The plant: what runs on each node becomes watts, activity, memory and temperature of its GPUs.

It writes one NVML state file per node, where the node's agent reads it through NVML. Limits that anybody sets through
NVML come back through the same file, so the loop is closed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from penstock.sim import curves
from penstock.sim.curves import PRODUCTS, GpuProduct
from penstock.sim.nvml_state import DeviceState, NvmlState

_RESERVED_BYTES = 600 * 2**20
"""What the driver keeps of each GPU's memory."""
_SLOWDOWN_CELSIUS = 87
"""Where the thermal slowdown of data centre boards begins: an assumption, near what nvidia-smi shows for them."""


class PodLoad(NamedTuple):
    """One pod on a node: how many GPUs it holds and how busy it keeps them, in [0, 1]."""

    uid: str
    gpus: int
    load: float


@dataclass(slots=True)
class _Gpu:
    """What lags behind: a GPU's memory and temperature."""

    memory_bytes: float = 0.0
    temperature_celsius: float = curves.AMBIENT_CELSIUS


@dataclass(slots=True)
class PlantNode:
    """One node: its product, its state file, and which pod holds which GPU (indices, stable while the pod lives)."""

    product: GpuProduct
    state: NvmlState
    gpus: list[_Gpu]
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)

    def assign(self, pods: Iterable[PodLoad]) -> None:
        """Take GPUs from pods that left, then give each new pod, in the order given, the lowest free ones.

        A pod that finds too few gets none: a kubelet would have refused it.
        """
        pods = list(pods)
        self.loads = {pod.uid: min(1.0, max(0.0, pod.load)) for pod in pods}
        self.held = {uid: indices for uid, indices in self.held.items() if uid in self.loads}
        for pod in pods:
            taken = {index for indices in self.held.values() for index in indices}
            free = [index for index in range(len(self.gpus)) if index not in taken]
            if pod.uid not in self.held and len(free) >= pod.gpus:
                self.held[pod.uid] = tuple(free[: pod.gpus])

    def load_by_gpu(self) -> dict[int, float]:
        return {index: self.loads[uid] for uid, indices in self.held.items() for index in indices}

    def step(self, dt_seconds: float) -> None:
        """Move memory and temperature on by `dt_seconds` and write every figure."""
        loads = self.load_by_gpu()
        for index, gpu in enumerate(self.gpus):
            with self.state.change(index) as device:
                self._step_gpu(gpu, device, loads.get(index), dt_seconds)

    def _step_gpu(self, gpu: _Gpu, device: DeviceState, load: float | None, dt_seconds: float) -> None:
        goal = curves.memory_goal_bytes(self.product, load)
        # A process that ends gives its memory back at once; only loading takes time.
        gpu.memory_bytes = (
            curves.lagged(gpu.memory_bytes, goal, dt_seconds, curves.MEMORY_SETTLES_SECONDS) if goal else 0.0
        )
        device.demand_mw = round(1000 * curves.watts(self.product, load))
        device.activity_permille = round(10 * curves.activity_percent(load))
        device.utilization_percent = 100 if load else 0
        device.memory_used_bytes = round(gpu.memory_bytes)
        warm = curves.temperature_goal_celsius(self.product, device.draw_mw / 1000)
        gpu.temperature_celsius = curves.lagged(
            gpu.temperature_celsius, warm, dt_seconds, curves.TEMPERATURE_SETTLES_SECONDS
        )
        device.temperature_celsius = round(gpu.temperature_celsius)


class Plant:
    """All nodes. `nodes` maps a name to the product label and the count of GPUs; files lie in `directory`.

    Faults of single GPUs: `penstock.sim.faults` on `plant.state(node)`.
    """

    def __init__(self, directory: Path, nodes: Mapping[str, tuple[str, int]]) -> None:
        self.directory = directory
        self._nodes: dict[str, PlantNode] = {}
        for name, (product, count) in nodes.items():
            self.add_node(name, product, count)

    def add_node(self, name: str, product: str, count: int) -> None:
        """Raises `KeyError` for a product without a curve."""
        found = PRODUCTS[product]
        devices = [_device(name, index, found) for index in range(count)]
        state = NvmlState.create(self.state_path(name), devices)
        self._nodes[name] = PlantNode(found, state, [_Gpu() for _ in range(count)])

    def remove_node(self, name: str) -> None:
        """The file stays as it is: an agent that still reads it sees figures that stand still."""
        del self._nodes[name]

    def state_path(self, name: str) -> Path:
        """For `PENSTOCK_NVML_STATE` of the node's agent."""
        return self.directory / f"{name}.nvml"

    def state(self, name: str) -> NvmlState:
        return self._nodes[name].state

    def assignments(self, name: str) -> dict[str, tuple[int, ...]]:
        """Pod uid → indices of the GPUs that it holds."""
        return dict(self._nodes[name].held)

    def set_load(self, name: str, pods: Iterable[tuple[str, int, float]]) -> None:
        """All pods that hold GPUs on this node now: (uid, GPUs, load in [0, 1]). Acts at the next step."""
        self._nodes[name].assign(PodLoad(*pod) for pod in pods)

    def step(self, dt_seconds: float) -> None:
        for node in self._nodes.values():
            node.step(dt_seconds)

    def node_watts(self, name: str) -> float:
        """What the node's GPUs draw together, limits included."""
        node = self._nodes[name]
        return sum(node.state.read(index).draw_mw for index in range(len(node.gpus))) / 1000


def _device(node: str, index: int, product: GpuProduct) -> DeviceState:
    identity = hashlib.sha256(f"{node}/{index}".encode()).hexdigest()
    uuid = f"GPU-{identity[:8]}-{identity[8:12]}-{identity[12:16]}-{identity[16:20]}-{identity[20:32]}"
    limit_mw = round(1000 * product.maximum_limit_watts)
    return DeviceState(
        uuid=uuid.encode(),
        name=product.name.encode(),
        bus_id=f"00000000:{index + 1:02X}:00.0".encode(),
        memory_total_bytes=product.memory_bytes,
        memory_reserved_bytes=_RESERVED_BYTES,
        minimum_limit_mw=round(1000 * product.minimum_limit_watts),
        maximum_limit_mw=limit_mw,
        default_limit_mw=limit_mw,
        requested_limit_mw=limit_mw,
        demand_mw=round(1000 * product.idle_watts),
        temperature_celsius=round(curves.AMBIENT_CELSIUS),
        slowdown_celsius=_SLOWDOWN_CELSIUS,
        persistence_mode=1,
        gpm_supported=product.gpm,
    )
