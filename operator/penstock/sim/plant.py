"""The plant: what runs on each node becomes watts, activity, memory and temperature of its GPUs.

It writes one NVML state file per node, where the node's agent reads it through NVML. Limits that anybody sets through
NVML come back through the same file, so the loop is closed.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from penstock.sim import curves
from penstock.sim.curves import PRODUCTS, GpuProduct
from penstock.sim.nvml_state import MAX_MIG_INSTANCES, MAX_PROCESSES, DeviceState, MigDevice, NvmlState, Process

_RESERVED_BYTES = 600 * 2**20
"""What the driver keeps of each GPU's memory."""
_SLOWDOWN_CELSIUS = 87
"""Where the thermal slowdown of data centre boards begins: an assumption, near what nvidia-smi shows for them."""
_GPU_SLICES = 7
"""Compute slices of a GPU that MIG can give out."""
_MEMORY_EIGHTHS = {1: 1, 2: 2, 3: 4, 4: 4, 7: 8}
"""Of a GPU's memory, by the compute slices of the profile."""


class PodLoad(NamedTuple):
    """One pod on a node: how many GPUs it holds and how busy it keeps each, in [0, 1].

    `devices` names what the device plugin gave it, UUIDs of GPUs or MIG devices, which others may hold too; left out,
    the plant gives it whole GPUs of its own.
    """

    uid: str
    gpus: int
    load: float
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class _Gpu:
    """What lags behind: a GPU's memory and temperature; and whose its joules are."""

    memory_bytes: float = 0.0
    temperature_celsius: float = curves.AMBIENT_CELSIUS
    shares: dict[str, float] = field(default_factory=dict)
    """Pod uid → its share of what the GPU draws now; what is missing to 1 belongs to nobody."""
    counted_uj: int = 0


class _Hold(NamedTuple):
    """One pod on one GPU: `slices` of its seven, all of them without MIG; `place` among its MIG devices, from 1."""

    uid: str
    load: float
    slices: int
    place: int


@dataclass(slots=True)
class PlantNode:
    """One node: its product, its state file, and which pod holds which GPU (indices, stable while the pod lives)."""

    product: GpuProduct
    state: NvmlState
    gpus: list[_Gpu]
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)
    pods: dict[str, PodLoad] = field(default_factory=dict)
    joules: dict[str, float] = field(default_factory=dict)
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """By UUID: the GPU's index, the place of the MIG device (0: the whole GPU) and its slices."""

    def assign(self, pods: Iterable[PodLoad]) -> None:
        """Take GPUs from pods that left, then give each new pod, in the order given, the lowest free ones.

        A pod that finds too few gets none: a kubelet would have refused it. Raises `KeyError` for a device of `devices`
        that the node does not have.
        """
        self.pods = {pod.uid: pod._replace(load=min(1.0, max(0.0, pod.load))) for pod in pods}
        self.held = {uid: held for uid, held in self.held.items() if uid in self.pods and not self.pods[uid].devices}
        named = {self.places[device][0] for pod in self.pods.values() for device in pod.devices}
        for pod in self.pods.values():
            taken = named.union(*self.held.values())
            free = [index for index in range(len(self.gpus)) if index not in taken]
            if pod.uid not in self.held and not pod.devices and len(free) >= pod.gpus:
                self.held[pod.uid] = tuple(free[: pod.gpus])

    def look(self) -> None:
        """Take in which GPUs and MIG devices there are."""
        self.places = {}
        for index in range(len(self.gpus)):
            device = self.state.read(index)
            self.places[device.uuid.decode()] = index, 0, _GPU_SLICES
            for place, instance in enumerate(device.mig_instances[: device.mig_count], start=1):
                self.places[instance.uuid.decode()] = index, place, instance.slices

    def holds(self) -> dict[int, list[_Hold]]:
        """By the GPU's index, who holds it or a part of it."""
        found: dict[int, list[_Hold]] = {}
        for uid, indices in self.held.items():
            for index in indices:
                found.setdefault(index, []).append(_Hold(uid, self.pods[uid].load, _GPU_SLICES, 0))
        for pod in self.pods.values():
            for uuid in pod.devices:
                index, place, slices = self.places[uuid]
                found.setdefault(index, []).append(_Hold(pod.uid, pod.load, slices, place))
        return found

    def step(self, dt_seconds: float) -> None:
        """Move memory and temperature on by `dt_seconds` and write every figure."""
        holds = self.holds()
        for index, gpu in enumerate(self.gpus):
            with self.state.change(index) as device:
                self._count(gpu, device)
                self._step_gpu(gpu, device, holds.get(index, []), dt_seconds)

    def _count(self, gpu: _Gpu, device: DeviceState) -> None:
        """Book what was drawn since the last step to who held the GPU then."""
        rise = device.energy_uj - gpu.counted_uj
        gpu.counted_uj = device.energy_uj
        for uid, share in gpu.shares.items():
            self.joules[uid] = self.joules.get(uid, 0.0) + share * (rise if rise >= 0 else device.energy_uj) / 1e6

    def _step_gpu(self, gpu: _Gpu, device: DeviceState, holds: list[_Hold], dt_seconds: float) -> None:
        watts = _watts_by_hold(self.product, device, holds)
        given = sum(hold.slices for hold in holds) / _GPU_SLICES if device.mig_enabled else float(bool(holds))
        total = sum(watts.values()) + self.product.idle_watts * (1 - given)
        gpu.shares = {uid: part / total for uid, part in watts.items()}
        load = min(1.0, sum(hold.load * hold.slices / _GPU_SLICES for hold in holds)) if holds else None
        goal = curves.memory_goal_bytes(self.product, load)
        # A process that ends gives its memory back at once; only loading takes time.
        gpu.memory_bytes = (
            curves.lagged(gpu.memory_bytes, goal, dt_seconds, curves.MEMORY_SETTLES_SECONDS) if goal else 0.0
        )
        device.demand_mw = round(1000 * total)
        device.activity_permille = round(10 * curves.activity_percent(load))
        device.tensor_permille = round(10 * curves.tensor_percent(load))
        device.dram_permille = round(10 * curves.dram_percent(load))
        device.utilization_percent = 100 if load else 0
        device.memory_used_bytes = round(gpu.memory_bytes)
        _write_parts(device, holds)
        warm = curves.temperature_goal_celsius(self.product, device.draw_mw / 1000)
        gpu.temperature_celsius = curves.lagged(
            gpu.temperature_celsius, warm, dt_seconds, curves.TEMPERATURE_SETTLES_SECONDS
        )
        device.temperature_celsius = round(gpu.temperature_celsius)


def _watts_by_hold(product: GpuProduct, device: DeviceState, holds: list[_Hold]) -> dict[str, float]:
    """Pod uid → its part of the draw before any limit, that of the idle draw included.

    Time slices: who shares a GPU shares its idle draw alike, and together they add what one pod of their summed load
    would, by what each would add alone. MIG devices: each adds by its slices.
    """
    together = _active(product, min(1.0, sum(hold.load for hold in holds)))
    alone = sum(_active(product, hold.load) for hold in holds)
    found: dict[str, float] = {}
    for hold in holds:
        size = hold.slices / _GPU_SLICES if device.mig_enabled else 1 / len(holds)
        part = size if device.mig_enabled else together / alone
        watts = product.idle_watts * size + _active(product, hold.load) * part
        found[hold.uid] = found.get(hold.uid, 0.0) + watts
    return found


def _active(product: GpuProduct, load: float) -> float:
    return curves.watts(product, load) - product.idle_watts


def process_id(uid: str) -> int:
    """The pid on the host of the pod's server, as NVML tells it."""
    return 10_000 + zlib.crc32(uid.encode()) % 4_000_000


def _write_parts(device: DeviceState, holds: list[_Hold]) -> None:
    """The figures of MIG devices and of processes. Time slices cannot be busy for more than the whole time."""
    busy = sum(curves.activity_percent(hold.load) for hold in holds)
    shrink = 1.0 if device.mig_enabled else min(1.0, 100.0 / busy) if busy else 1.0
    for instance in device.mig_instances[: device.mig_count]:
        instance.activity_permille = instance.memory_used_bytes = 0
    device.process_count = min(len(holds), MAX_PROCESSES)
    for index, hold in enumerate(holds[:MAX_PROCESSES]):
        percent = shrink * curves.activity_percent(hold.load)
        memory = device.memory_used_bytes // len(holds)
        if hold.place:
            instance = device.mig_instances[hold.place - 1]
            instance.activity_permille = round(10 * percent)
            memory = round(curves.MODEL_MEMORY_SHARE * instance.memory_total_bytes)
            instance.memory_used_bytes = memory
        device.processes[index] = Process(memory, process_id(hold.uid), round(percent), round(percent / 2), hold.place)


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
        self._nodes[name].look()

    def state_path(self, name: str) -> Path:
        """For `PENSTOCK_NVML_STATE` of the node's agent."""
        return self.directory / f"{name}.nvml"

    def state(self, name: str) -> NvmlState:
        return self._nodes[name].state

    def uuids(self, name: str) -> tuple[str, ...]:
        """Of the node's GPUs, by index."""
        state = self.state(name)
        return tuple(state.read(index).uuid.decode() for index in range(state.device_count))

    def partition(self, name: str, index: int, slices: Sequence[int]) -> tuple[str, ...]:
        """Cut a GPU into MIG devices of so many compute slices each; none makes it whole again. Returns their UUIDs.

        Raises `ValueError` for slices that no profile has or that do not fit.
        """
        if len(slices) > MAX_MIG_INSTANCES or sum(slices) > _GPU_SLICES or not set(slices) <= set(_MEMORY_EIGHTHS):
            raise ValueError(f"slices {list(slices)}: give sizes of {sorted(_MEMORY_EIGHTHS)}, {_GPU_SLICES} together")
        product = self._nodes[name].product
        with self.state(name).change(index) as device:
            device.mig_enabled, device.mig_count = int(bool(slices)), len(slices)
            for place, size in enumerate(slices):
                device.mig_instances[place] = _mig_device(f"{name}/{index}/{place}/{size}", place, size, product)
            uuids = tuple(instance.uuid.decode() for instance in device.mig_instances[: device.mig_count])
        self._nodes[name].look()
        return uuids

    def pod_watts(self, name: str) -> dict[str, float]:
        """The truth that attribution is judged by: pod uid → what it draws now, its part of the idle draw included."""
        found: dict[str, float] = {}
        node = self._nodes[name]
        for index, gpu in enumerate(node.gpus):
            drawn = node.state.read(index).measured_mw / 1000
            for uid, share in gpu.shares.items():
                found[uid] = found.get(uid, 0.0) + share * drawn
        return found

    def pod_joules(self, name: str) -> dict[str, float]:
        """Pod uid → what it drew until the last step, pods that left included."""
        return dict(self._nodes[name].joules)

    def assignments(self, name: str) -> dict[str, tuple[int, ...]]:
        """Pod uid → indices of the GPUs that the plant gave it."""
        return dict(self._nodes[name].held)

    def set_load(self, name: str, pods: Iterable[tuple[str, int, float] | PodLoad]) -> None:
        """All pods that hold GPUs on this node now, as `PodLoad`. Acts at the next step."""
        self._nodes[name].assign(PodLoad(*pod) for pod in pods)

    def step(self, dt_seconds: float) -> None:
        for node in self._nodes.values():
            node.step(dt_seconds)

    def node_watts(self, name: str) -> float:
        """What the node's GPUs draw together, limits included."""
        node = self._nodes[name]
        return sum(node.state.read(index).measured_mw for index in range(len(node.gpus))) / 1000


def _uuid(kind: str, of: str) -> str:
    identity = hashlib.sha256(of.encode()).hexdigest()
    return f"{kind}-{identity[:8]}-{identity[8:12]}-{identity[12:16]}-{identity[16:20]}-{identity[20:32]}"


def _mig_device(of: str, place: int, slices: int, product: GpuProduct) -> MigDevice:
    memory_bytes = product.memory_bytes * _MEMORY_EIGHTHS[slices] // 8
    return MigDevice(
        uuid=_uuid("MIG", of).encode(),
        name=f"{product.name} MIG {slices}g.{memory_bytes // 2**30}gb".encode(),
        memory_total_bytes=memory_bytes,
        gpu_instance=place + 1,
        slices=slices,
    )


def _device(node: str, index: int, product: GpuProduct) -> DeviceState:
    uuid = _uuid("GPU", f"{node}/{index}")
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
        module_only=product.module_extra_watts > 0,
        module_extra_mw=round(1000 * product.module_extra_watts),
        persistence_mode=1,
        gpm_supported=product.gpm,
    )
