"""The real cappers on simulated machines: one process per GPU node, on the NVML library that its agent reads too."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock.sim.plant import Plant
from rig.agents import RunningPlant
from rig.controlplane import ControlPlane
from rig.daemons import Daemons


class Cappers(Daemons):
    """`penstock capper` of each node. `notes` of the kit hold what each node remembers, so it outlives the process."""

    def __init__(
        self, plane: ControlPlane, plant: Plant, nodes: Iterable[str], mode: str, gpus_per_minute: int
    ) -> None:
        super().__init__(plane, plant, "capper")
        self._mode = mode
        self._gpus_per_minute = gpus_per_minute
        for node in nodes:
            self.start(node)

    def settings(self, node: str) -> Mapping[str, str]:
        return {
            "PENSTOCK_MODE": self._mode,
            "PENSTOCK_GPUS_PER_MINUTE": str(self._gpus_per_minute),
            "PENSTOCK_HEARTBEAT_SECONDS": "5",
            "PENSTOCK_LOOK_SECONDS": "0.25",
            "PENSTOCK_STATE_DIRECTORY": str(self.notes(node)),
        }

    def notes(self, node: str) -> Path:
        """The node's own directory of what was there before the first cap."""
        return self._plane.directory / "capper" / node


def start_cappers(
    plane: ControlPlane,
    plant: RunningPlant,
    nodes: Iterable[str],
    *,
    mode: str = "Enforce",
    gpus_per_minute: int = 100,
) -> Cappers:
    """Start the cappers of nodes; install the chart with `capper.enabled` before."""
    return Cappers(plane, plant.plant, nodes, mode, gpus_per_minute)
