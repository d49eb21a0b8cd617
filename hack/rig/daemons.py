"""What a DaemonSet of the chart is on simulated machines: one real process per node, under the token of its pod."""

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from nvml.build import environment, library_directory
from penstock.sim.plant import Plant
from rig.controlplane import ControlPlane
from rig.install import NAMESPACE
from rig.processes import Child
from rig.waiting import wait_for

POD_SECONDS = 60


class Daemons(ABC):
    """`penstock <component>` of each node, on the NVML library that the plant feeds.

    The token of each is bound to the DaemonSet's pod on that node, as the kubelet mounts it.
    """

    def __init__(self, plane: ControlPlane, plant: Plant, component: str) -> None:
        self._plane = plane
        self._plant = plant
        self._component = component
        self._children: dict[str, Child] = {}
        # Built once here, not by every process at once.
        library_directory()

    @abstractmethod
    def settings(self, node: str) -> Mapping[str, str]:
        """What the chart would set in the container's environment, beside the node's name."""

    def start(self, node: str) -> None:
        """Start a node's process. Raises `Waited` where the chart's DaemonSet puts no pod on the node."""
        pod = wait_for(f"the {self._component}'s pod on {node}", lambda: self._pod(node), POD_SECONDS, report=False)
        identity = self._plane.service_account(NAMESPACE, f"penstock-{self._component}", pod=(NAMESPACE, pod))
        env = {
            **environment(self._plant.state_path(node)),
            "KUBECONFIG": str(identity),
            "PENSTOCK_NODE_NAME": node,
            **self.settings(node),
        }
        command = [sys.executable, "-m", "penstock", self._component]
        self._children[node] = self._plane.spawn(f"{self._component}-{node}", command, env=env, essential=False)

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

    def freeze(self, node: str) -> None:
        """SIGSTOP: it goes on being there and says nothing."""
        self._children[node].signal(signal.SIGSTOP)

    def thaw(self, node: str) -> None:
        """Let a frozen one go on."""
        self._children[node].signal(signal.SIGCONT)

    def child(self, node: str) -> Child:
        """The node's process."""
        return self._children[node]

    def log_path(self, node: str) -> Path:
        """Where the node's process logs to."""
        return self._children[node].log_path

    def stop_all(self) -> None:
        """SIGTERM to all of them at once, then wait for each."""
        for child in self._children.values():
            child.signal(signal.SIGTERM)
        for node in list(self._children):
            self.stop(node)

    def _pod(self, node: str) -> str | None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        labels = f"app.kubernetes.io/name=penstock,app.kubernetes.io/component={self._component}"
        pods = self._plane.api.list(path, labelSelector=labels, fieldSelector=f"spec.nodeName={node}")
        names = [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]
        return names[0] if names else None
