"""A GPUNode is its Node's: the garbage collector takes it away, and no agent makes one for a node that is gone."""

from __future__ import annotations

import time

from penstock.api.names import API_VERSION
from rig.agents import start_agents, start_plant
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart
from rig.waiting import wait_for

NODE = "gpu-0"
NODE_PATH = f"/api/v1/nodes/{NODE}"
GPU_NODES = f"/apis/{API_VERSION}/gpunodes"
HEARTBEAT_SECONDS = 1
COLLECTED_CEILING_SECONDS = 300.0
"""Ten times the half minute in which the garbage collector learns of a new kind."""


def test_a_gpunode_goes_with_its_node_and_its_agent_makes_none_before_the_node_is_back() -> None:
    with ControlPlane.start() as plane:
        add_nodes(plane, [gpu_node(NODE, product="NVIDIA-H200", gpus=2)])
        install_chart(plane)
        with start_plant(plane, [NODE]) as running:
            agents = start_agents(plane, running, [NODE], heartbeat_seconds=HEARTBEAT_SECONDS)
            first = wait_for("it is its Node's", lambda: owned(plane), 60)
            plane.api.delete(NODE_PATH)
            wait_for("it is collected", lambda: not plane.api.list(GPU_NODES), COLLECTED_CEILING_SECONDS)
            time.sleep(3 * HEARTBEAT_SECONDS)
            assert plane.api.list(GPU_NODES) == []
            add_nodes(plane, [gpu_node(NODE, product="NVIDIA-H200", gpus=2)])
            assert wait_for("it is the new Node's", lambda: owned(plane), 60) != first
            agents.stop_all()


def owned(plane: ControlPlane) -> str:
    """The uid of the Node that owns the GPUNode, once that is the Node that is there."""
    node = plane.api.get(NODE_PATH)["metadata"]["uid"]
    owners = [owner["uid"] for one in plane.api.list(GPU_NODES) for owner in one["metadata"]["ownerReferences"]]
    return node if owners == [node] else ""
