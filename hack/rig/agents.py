"""The real node agents on simulated machines: one process per GPU node, on the NVML library, fed by the plant."""

import asyncio
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from penstock.api.names import GPU_PRODUCT_LABEL, GPU_RESOURCE
from penstock.sim.plant import Plant, PodLoad
from rig import kubeconfig, podstatus
from rig.controlplane import ControlPlane
from rig.daemons import Daemons
from rig.follow import follow
from rig.podresources import ANSWERS_ANNOTATION, DEVICES_ANNOTATION, holders_path, host_root, socket_path

Object = dict[str, Any]

LOAD_ANNOTATION = "rig.penstock.dev/load"
"""On a pod: how busy it keeps its GPUs, in [0, 1]."""

STOLEN_ANNOTATION = "rig.penstock.dev/stolen"
"""On a pod: UUIDs, with commas between, of devices that its processes use though the kubelet gave it none of them."""

DEFAULT_LOAD = 0.85
STEP_SECONDS = 0.25


class RunningPlant:
    """The plant in a thread: watches which pods run where, and moves the figures of every GPU on.

    `plant` is open for faults (`plant.state(node)`).
    """

    def __init__(self, plane: ControlPlane, nodes: Mapping[str, tuple[str, int]]) -> None:
        directory = plane.directory / "plant"
        directory.mkdir(exist_ok=True)
        self.plant = Plant(directory, nodes)
        self._directory = plane.directory
        self._nodes = set(nodes)
        self._credentials = kubeconfig.read(plane.kubeconfig)
        self._pods: dict[str, Object] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="plant", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._credentials.ssl_context())
        async with aiohttp.ClientSession(self._credentials.url, connector=connector) as session:
            watching = asyncio.create_task(self._watch(session))
            while not self._stopped.is_set():
                self._move()
                await asyncio.sleep(STEP_SECONDS)
            watching.cancel()

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        async for kind, obj in follow(session, "/api/v1/pods", "fieldSelector=spec.nodeName!="):
            if kind == "LISTED":
                self._pods = {item["metadata"]["uid"]: item for item in obj["items"]}
            elif kind == "DELETED":
                self._pods.pop(obj["metadata"]["uid"], None)
            else:
                self._pods[obj["metadata"]["uid"]] = obj

    def _move(self) -> None:
        given = {name: self._given(name) for name in self._nodes}
        loads: dict[str, list[PodLoad]] = {name: [] for name in self._nodes}
        for uid, pod in list(self._pods.items()):
            name = pod["spec"]["nodeName"]
            if pod["status"].get("phase") == "Running" and name in loads:
                gpus = podstatus.requested(pod).get(GPU_RESOURCE, 0) // 1000
                notes = pod["metadata"].get("annotations", {})
                load = float(notes.get(LOAD_ANNOTATION, DEFAULT_LOAD))
                devices = given[name]
                if STOLEN_ANNOTATION in notes:
                    loads[name].append(PodLoad(uid, gpus, load, tuple(notes[STOLEN_ANNOTATION].split(","))))
                elif devices is None and gpus:
                    loads[name].append(PodLoad(uid, gpus, load))
                elif devices and uid in devices:
                    loads[name].append(PodLoad(uid, gpus, load, tuple(devices[uid])))
        for name, pods in loads.items():
            self.plant.set_load(name, pods)
        self.plant.step(STEP_SECONDS)

    def _given(self, node: str) -> dict[str, list[str]] | None:
        """Which devices the kubelet gave to each pod (by uid); None where it gives none out by name."""
        try:
            found: dict[str, list[str]] = json.loads(holders_path(self._directory, node).read_text())
        except FileNotFoundError:
            return None
        return found


def start_plant(plane: ControlPlane, nodes: Iterable[str] | None = None) -> RunningPlant:
    """Start the plant for nodes of the cluster: all that have GPUs, unless named."""
    wanted = None if nodes is None else set(nodes)
    machines = {}
    for node in plane.api.list("/api/v1/nodes"):
        name = node["metadata"]["name"]
        gpus = int(node["status"].get("allocatable", {}).get(GPU_RESOURCE, 0))
        if gpus and (wanted is None or name in wanted):
            machines[name] = (node["metadata"]["labels"][GPU_PRODUCT_LABEL], gpus)
    return RunningPlant(plane, machines)


class Agents(Daemons):
    """`penstock agent` of each node."""

    def __init__(self, plane: ControlPlane, plant: Plant, nodes: Iterable[str], heartbeat_seconds: float) -> None:
        super().__init__(plane, plant, "agent")
        self._heartbeat_seconds = heartbeat_seconds
        for node in nodes:
            self.offer(node, {GPU_RESOURCE: plant.uuids(node)})
            self.start(node)

    def settings(self, node: str) -> Mapping[str, str]:
        return {
            "PENSTOCK_HEARTBEAT_SECONDS": str(self._heartbeat_seconds),
            "PENSTOCK_POD_RESOURCES_SOCKET": str(socket_path(self._plane.directory, node)),
            "PENSTOCK_HOST_ROOT": str(host_root(self._plane.directory, node)),
        }

    def offer(self, node: str, devices: Mapping[str, Sequence[str]]) -> None:
        """What the node's device plugins offer from now on, by resource name; `GPU-…::0` is a replica of a GPU."""
        told = {name: list(ids) for name, ids in devices.items()}
        self._annotate(node, DEVICES_ANNOTATION, json.dumps(told))

    def answer(self, node: str, how: str) -> None:
        """How the node's kubelet answers on PodResources: a word of `rig.podresources`."""
        self._annotate(node, ANSWERS_ANNOTATION, how)

    def _annotate(self, node: str, key: str, value: str) -> None:
        self._plane.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {key: value}}})


def start_agents(
    plane: ControlPlane, plant: RunningPlant, nodes: Iterable[str], *, heartbeat_seconds: float = 10
) -> Agents:
    """Start the agents of nodes that the chart's DaemonSet covers; install the chart before."""
    return Agents(plane, plant.plant, nodes, heartbeat_seconds)
