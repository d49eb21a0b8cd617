"""What one node agent costs: processor time and memory with eight GPUs, on our NVML library.

`python -m bench.bench_agent [seconds]` prints each figure beside its limit. The API server here is a listener
that accepts every PATCH; the driver's own kernel time is not in the figures.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import sys
import tempfile
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from nvml.build import environment
from penstock.sim.plant import Plant

GPUS = 8
NODE = "gpu-0"
PROCESSOR_LIMIT_PERCENT = 0.5
MEMORY_LIMIT_MIB = 60.0
WARM_UP_SECONDS = 5.0
DEFAULT_SECONDS = 30.0


async def measure(seconds: float) -> dict[str, float]:
    """Percent of one core, resident MiB (peak) and publishes per minute over `seconds` at a steady load."""
    patches = 0

    async def accept(_: web.Request) -> web.Response:
        nonlocal patches
        patches += 1
        return web.json_response({})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", accept)
    with tempfile.TemporaryDirectory() as scratch:
        plant = Plant(Path(scratch), {NODE: ("NVIDIA-H200", GPUS)})
        plant.set_load(NODE, [(f"pod-{index}", 1, 0.5) for index in range(GPUS)])
        async with TestServer(application) as server:
            kubeconfig = _kubeconfig(Path(scratch), str(server.make_url("")).rstrip("/"))
            plant.step(60)  # the models are loaded and warm
            agent = await _start_agent(plant, kubeconfig)
            try:
                await _drive(plant, WARM_UP_SECONDS)
                before, patches = _processor_seconds(agent.pid), 0
                await _drive(plant, seconds)
                busy = _processor_seconds(agent.pid) - before
                memory = _peak_memory_mib(agent.pid)
            finally:
                agent.send_signal(signal.SIGTERM)
                await agent.wait()
    return {"percent": 100 * busy / seconds, "mib": memory, "per_minute": 60 * patches / seconds}


async def _start_agent(plant: Plant, kubeconfig: Path) -> asyncio.subprocess.Process:
    settings = {"PENSTOCK_NODE_NAME": NODE, "PENSTOCK_LOG_LEVEL": "WARNING"}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "penstock", "agent", "--kubeconfig", str(kubeconfig)),
        env={**environment(plant.state_path(NODE)), **settings},
    )


async def _drive(plant: Plant, seconds: float) -> None:
    for _ in range(math.ceil(seconds)):
        plant.step(1)
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


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_SECONDS
    figures = asyncio.run(measure(seconds))
    sys.stdout.write(
        f"agent, {GPUS} GPUs, {seconds:g} s at a steady load\n"
        f"  processor        {figures['percent']:6.2f} % of one core   limit {PROCESSOR_LIMIT_PERCENT} %\n"
        f"  resident memory  {figures['mib']:6.1f} MiB (peak)      limit {MEMORY_LIMIT_MIB:g} MiB\n"
        f"  publishes        {figures['per_minute']:6.1f} per minute\n"
    )


if __name__ == "__main__":
    main()
