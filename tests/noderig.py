"""One simulated machine on a control plane: its plant, its agent, and what its GPUNode says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from penstock.api.names import API_VERSION
from penstock.sim.nvml_state import NvmlState
from rig.agents import Agents, RunningPlant, start_agents, start_plant
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart
from rig.waiting import wait_for

Object = dict[str, Any]

NODE = "gpu-0"
GPU_NODE = f"/apis/{API_VERSION}/gpunodes/{NODE}"
PODS = "/api/v1/namespaces/default/pods"
HEARTBEAT_SECONDS = 2
CEILING_SECONDS = 100.0
"""Ten times the ten seconds between two looks at the kubelet."""
CREDIT_CEILING_SECONDS = 150.0
"""Ten times the fifteen seconds within which freed watts are credited."""


@dataclass(frozen=True)
class NodeRig:
    """The machine and who speaks for it."""

    plane: ControlPlane
    running: RunningPlant
    agents: Agents

    @property
    def state(self) -> NvmlState:
        """What its NVML says: open for faults."""
        return self.running.plant.state(NODE)

    @property
    def status(self) -> Object:
        """Of its GPUNode; empty before the agent has spoken."""
        found: Object = self.plane.api.get(GPU_NODE).get("status", {})
        return found

    def until(self, what: str, true: Callable[[Object], object], ceiling_seconds: float = CEILING_SECONDS) -> Object:
        """Wait for a status of which something is true; that status."""

        def probe() -> Object | None:
            status = self.status
            return status if true(status) else None

        return wait_for(what, probe, ceiling_seconds)

    def serve(self, name: str, gpus: int, resource: str = "nvidia.com/gpu", **metadata: Any) -> str:
        """A pod straight on the node; its uid."""
        container = {"name": "server", "image": "server", "resources": {"limits": {resource: str(gpus)}}}
        spec = {"nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 1}
        pod = self.plane.api.create(PODS, {"metadata": {"name": name, **metadata}, "spec": spec})
        uid: str = pod["metadata"]["uid"]
        return uid


@contextmanager
def node_rig(gpus: int, chart: Mapping[str, Any] | None = None) -> Iterator[NodeRig]:
    """A control plane with one machine of so many H200, its plant and its agent; `chart` are values of the chart."""
    with ControlPlane.start() as plane:
        add_nodes(plane, [gpu_node(NODE, product="NVIDIA-H200", gpus=gpus)])
        install_chart(plane, chart)
        with start_plant(plane, [NODE]) as running:
            agents = start_agents(plane, running, [NODE], heartbeat_seconds=HEARTBEAT_SECONDS)
            yield NodeRig(plane, running, agents)
            agents.stop_all()
