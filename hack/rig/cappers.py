"""The real cappers on simulated machines: one process per GPU node, on the NVML library that its agent reads too."""

import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from nvml.build import environment, library_directory
from penstock.sim.plant import Plant
from rig.agents import POD_SECONDS, RunningPlant
from rig.controlplane import ControlPlane
from rig.install import NAMESPACE
from rig.processes import Child
from rig.waiting import wait_for

CAPPER_ACCOUNT = "penstock-capper"
CAPPER_PODS = "app.kubernetes.io/name=penstock,app.kubernetes.io/component=capper"


class Cappers:
    """`penstock capper` of each node, under a token that is bound to the DaemonSet's pod on that node.

    `directory` of the kit holds what each node remembers, so that it outlives the process.
    """

    def __init__(self, plane: ControlPlane, plant: Plant, nodes: Iterable[str], mode: str) -> None:
        self._plane = plane
        self._plant = plant
        self._mode = mode
        self._children: dict[str, Child] = {}
        library_directory()
        for node in nodes:
            self.start(node)

    def start(self, node: str) -> None:
        """Start a node's capper. Raises `Waited` where the chart's DaemonSet puts no pod on the node."""
        pod = wait_for(f"the capper's pod on {node}", lambda: self._pod(node), POD_SECONDS, report=False)
        identity = self._plane.service_account(NAMESPACE, CAPPER_ACCOUNT, pod=(NAMESPACE, pod))
        env = {
            **environment(self._plant.state_path(node)),
            "KUBECONFIG": str(identity),
            "PENSTOCK_NODE_NAME": node,
            "PENSTOCK_MODE": self._mode,
            "PENSTOCK_HEARTBEAT_SECONDS": "5",
            "PENSTOCK_LOOK_SECONDS": "0.25",
            "PENSTOCK_STATE_DIRECTORY": str(self.notes(node)),
        }
        command = [sys.executable, "-m", "penstock", "capper"]
        self._children[node] = self._plane.spawn(f"capper-{node}", command, env=env, essential=False)

    def notes(self, node: str) -> Path:
        """The node's own directory of what was there before the first cap."""
        return self._plane.directory / "capper" / node

    def stop(self, node: str) -> int:
        """SIGTERM; returns the exit code."""
        child = self._children.pop(node)
        code = child.stop()
        self._plane.release(child)
        return code

    def kill(self, node: str) -> None:
        """SIGKILL: no farewell."""
        child = self._children.pop(node)
        child.kill()
        self._plane.release(child)

    def log_path(self, node: str) -> Path:
        return self._children[node].log_path

    def stop_all(self) -> None:
        for child in self._children.values():
            child.signal(signal.SIGTERM)
        for node in list(self._children):
            self.stop(node)

    def _pod(self, node: str) -> str | None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        pods = self._plane.api.list(path, labelSelector=CAPPER_PODS, fieldSelector=f"spec.nodeName={node}")
        names = [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]
        return names[0] if names else None


def start_cappers(plane: ControlPlane, plant: RunningPlant, nodes: Iterable[str], *, mode: str = "Enforce") -> Cappers:
    """Start the cappers of nodes; install the chart with `capper.enabled` before."""
    return Cappers(plane, plant.plant, nodes, mode)
