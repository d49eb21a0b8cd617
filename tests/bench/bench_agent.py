"""What one node agent costs with everything on: processor time and memory with eight GPUs, on our NVML library.

`python -m bench.bench_agent [seconds]` prints each figure beside its limit. Six GPUs are whole, one is shared by two
pods and one is cut into seven MIG devices; the kubelet's PodResources answer, and the driver reports an error now and
then. The API server here is a listener that accepts every PATCH; the driver's own kernel time is not in the figures.
Where the machine has a GPU of its own, the agent is measured on that one too.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from nvml.build import environment
from penstock.sim import faults
from penstock.sim.plant import Plant, PodLoad
from rig.podresources import DEVICES_ANNOTATION, NodeDevices, PodResourcesServers, socket_path

GPUS = 8
WHOLE = 6
MIG_DEVICES = 7
NODE = "gpu-0"
WHOLE_RESOURCE, MIG_RESOURCE = "nvidia.com/gpu", "nvidia.com/mig-1g.17gb"
PROCESSOR_LIMIT_PERCENT = 0.5
MEMORY_LIMIT_MIB = 70.0
WARM_UP_SECONDS = 5.0
DEFAULT_SECONDS = 30.0
APPLICATION_XID = 31
XID_EVERY_STEPS = 10


@dataclass(frozen=True)
class Figures:
    """What one agent cost: `busy_percent` of one core, peak of its resident memory, publishes per minute."""

    busy_percent: float
    memory_mib: float
    publishes_per_minute: float


async def measure(seconds: float, *, real: bool = False) -> Figures:
    """Run one agent for `seconds` at a steady load, on our library or on the machine's own GPUs (`real`).

    Raises `RuntimeError` where the agent did not do everything that is to be measured.
    """
    patches = 0
    status: dict[str, Any] = {}

    async def accept(request: web.Request) -> web.Response:
        nonlocal patches, status
        if request.method == "PATCH":
            patches, status = patches + 1, (await request.json())["status"]
        return web.json_response({})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", accept)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        plant = Plant(directory, {NODE: ("NVIDIA-H200", GPUS)})
        kubelet = _start_kubelet(directory, _load(plant))
        async with TestServer(application) as server:
            kubeconfig = _kubeconfig(directory, str(server.make_url("")).rstrip("/"))
            plant.step(60)  # the models are loaded and warm
            library = dict(os.environ) if real else environment(plant.state_path(NODE))
            agent = await _start_agent(library, kubeconfig, socket_path(directory, NODE))
            try:
                await _drive(plant, WARM_UP_SECONDS)
                before, patches = _processor_seconds(agent.pid), 0
                await _drive(plant, seconds)
                busy = _processor_seconds(agent.pid) - before
                memory = _peak_memory_mib(agent.pid)
            finally:
                agent.send_signal(signal.SIGTERM)
                await agent.wait()
                del kubelet  # its server lives for as long as it does
    if status.get("podResources") != "Read" or (not real and len(status["pods"]) != WHOLE + 2 + MIG_DEVICES):
        raise RuntimeError(f"the agent did not hear the kubelet; its last report: {status}")
    return Figures(100 * busy / seconds, memory, 60 * patches / seconds)


def _load(plant: Plant) -> dict[str, dict[str, list[str]]]:
    """Put pods on every GPU; what the kubelet says of each: its devices by resource."""
    *whole, shared, _ = plant.uuids(NODE)
    parts = plant.partition(NODE, GPUS - 1, [1] * MIG_DEVICES)
    held: dict[str, tuple[str, str, str]] = {f"whole-{uuid}": (WHOLE_RESOURCE, uuid, uuid) for uuid in whole}
    held |= {f"slice-{n}": (WHOLE_RESOURCE, f"{shared}::{n}", shared) for n in range(2)}
    held |= {f"part-{uuid}": (MIG_RESOURCE, uuid, uuid) for uuid in parts}
    plant.set_load(NODE, [PodLoad(pod, 0, 0.4, (uuid,)) for pod, (_, _, uuid) in held.items()])
    return {pod: {resource: [device]} for pod, (resource, device, _) in held.items()}


def _start_kubelet(directory: Path, held: Mapping[str, Mapping[str, list[str]]]) -> PodResourcesServers:
    """PodResources on the node's socket, with one pod for each entry."""
    offered: dict[str, list[str]] = {}
    for ids in held.values():
        for resource, devices in ids.items():
            offered.setdefault(resource, []).extend(devices)
    node = {"metadata": {"name": NODE, "annotations": {DEVICES_ANNOTATION: json.dumps(offered)}}}
    pods = [_pod(name, ids) for name, ids in held.items()]
    servers = PodResourcesServers(directory)
    servers.see_node(node, NodeDevices(), pods, alive=True)
    return servers


def _pod(name: str, ids: Mapping[str, list[str]]) -> dict[str, Any]:
    limits = {resource: str(len(devices)) for resource, devices in ids.items()}
    container = {"name": "server", "resources": {"requests": limits, "limits": limits}}
    return {"metadata": {"uid": name, "name": name, "namespace": "bench"}, "spec": {"containers": [container]}}


async def _start_agent(library: Mapping[str, str], kubeconfig: Path, socket: Path) -> asyncio.subprocess.Process:
    settings = {
        "PENSTOCK_NODE_NAME": NODE,
        "PENSTOCK_LOG_LEVEL": "ERROR",
        "PENSTOCK_POD_RESOURCES_SOCKET": str(socket),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "penstock", "agent", "--kubeconfig", str(kubeconfig)),
        env={**library, **settings},
    )


async def _drive(plant: Plant, seconds: float) -> None:
    for step in range(math.ceil(seconds)):
        plant.step(1)
        if step % XID_EVERY_STEPS == XID_EVERY_STEPS - 1:
            faults.raise_event(plant.state(NODE), 0, APPLICATION_XID)
        await asyncio.sleep(1)


def _kubeconfig(directory: Path, server: str) -> Path:
    path = directory / "kubeconfig"
    config = {
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "agent"}}],
        "clusters": [{"name": "bench", "cluster": {"server": server}}],
        "users": [{"name": "agent", "user": {"token": "bench"}}],
    }
    path.write_text(json.dumps(config))
    return path


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def _peak_memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmHWM; it has ended")


def _has_gpu() -> bool:
    """Whether the machine's own NVML works."""
    ask = "import pynvml; pynvml.nvmlInit(); raise SystemExit(not pynvml.nvmlDeviceGetCount())"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, check=False).returncode == 0


def _print(of: str, seconds: float, figures: Figures) -> None:
    sys.stdout.write(
        f"agent, {of}, everything on, {seconds:g} s at a steady load\n"
        f"  processor        {figures.busy_percent:6.2f} % of one core   limit {PROCESSOR_LIMIT_PERCENT} %\n"
        f"  resident memory  {figures.memory_mib:6.1f} MiB (peak)      limit {MEMORY_LIMIT_MIB:g} MiB\n"
        f"  publishes        {figures.publishes_per_minute:6.1f} per minute\n"
    )


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_SECONDS
    _print(f"{GPUS} GPUs of our NVML library", seconds, asyncio.run(measure(seconds)))
    if _has_gpu():
        _print("this machine's own GPUs", seconds, asyncio.run(measure(seconds, real=True)))
    else:
        sys.stdout.write("this machine has no GPU of its own: no figures of a real driver\n")


if __name__ == "__main__":
    main()
