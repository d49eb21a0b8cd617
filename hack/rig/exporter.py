"""DCGM exporters of the plant's nodes, in the text that Prometheus scrapes, with what goes wrong with exporters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.sim.nvml_state import DeviceState, NvmlState
from penstock.sim.plant import Plant
from rig.components import LOOPBACK
from rig.pages import Pages

MEBIBYTE = 2**20
OLD_NAMES = {
    "power": "DCGM_FI_DEV_POWER_USAGE",
    "energy": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "enforced": "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
    "requested": "DCGM_FI_DEV_POWER_MGMT_LIMIT",
    "minimum": "DCGM_FI_DEV_POWER_MGMT_LIMIT_MIN",
    "default": "DCGM_FI_DEV_POWER_MGMT_LIMIT_DEF",
    "maximum": "DCGM_FI_DEV_POWER_MGMT_LIMIT_MAX",
    "temperature": "DCGM_FI_DEV_GPU_TEMP",
    "utilization": "DCGM_FI_DEV_GPU_UTIL",
    "activity": "DCGM_FI_PROF_SM_ACTIVE",
    "used": "DCGM_FI_DEV_FB_USED",
    "free": "DCGM_FI_DEV_FB_FREE",
    "reserved": "DCGM_FI_DEV_FB_RESERVED",
    "xid": "DCGM_FI_DEV_XID_ERRORS",
}
NEW_NAMES = OLD_NAMES | {
    "power": "DCGM_FI_DEV_BOARD_POWER_WATTS",
    "enforced": "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS",
    "requested": "DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS",
    "minimum": "DCGM_FI_DEV_BOARD_POWER_LIMIT_MIN_WATTS",
    "default": "DCGM_FI_DEV_BOARD_POWER_LIMIT_DEFAULT_WATTS",
    "maximum": "DCGM_FI_DEV_BOARD_POWER_LIMIT_MAX_WATTS",
    "temperature": "DCGM_FI_DEV_GPU_TEMP_CELSIUS",
    "utilization": "DCGM_FI_DEV_GPU_UTIL_RATIO",
    "xid": "DCGM_FI_DEV_XID_ERROR",
}


@dataclass(frozen=True)
class Habits:
    """How one exporter speaks. `watts_more` is a lie: what it adds to every GPU's draw."""

    names: Mapping[str, str]
    down: bool = False
    frozen_page: str = ""
    watts_more: float = 0.0


class Exporters(Pages):
    """One HTTP server on loopback with a page for each exporter; a node may have several (`second`).

    `targets` is what Prometheus' file discovery reads; write it anew after `start` and `second`.
    """

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._habits: dict[tuple[str, str], Habits] = {}
        self._states: dict[str, NvmlState] = {}
        super().__init__(self._page_at, "text/plain; version=0.0.4", missing=503)

    def _page_at(self, path: str) -> str | None:
        node, _, name = path.strip("/").partition("/")
        return self.page(node, name)

    def start(self, node: str, name: str = "first", *, watts_more: float = 0.0) -> None:
        """An exporter of a node, honest unless `watts_more` says otherwise."""
        # A map of its own: the plant writes under a lock of its file, which one descriptor could not hold twice.
        self._states.setdefault(node, NvmlState(self._plant.state_path(node)))
        self._habits[node, name] = Habits(OLD_NAMES, watts_more=watts_more)

    def remove(self, node: str, name: str = "first") -> None:
        """It is no target any more."""
        del self._habits[node, name]

    def freeze(self, node: str, name: str = "first") -> None:
        """It goes on answering, and every figure stands still at what it is now."""
        self._change(node, name, frozen_page=self.page(node, name) or "")

    def fail(self, node: str, name: str = "first") -> None:
        """It answers 503."""
        self._change(node, name, down=True)

    def mend(self, node: str, name: str = "first", *, names: Mapping[str, str] = OLD_NAMES) -> None:
        """It is up and honest, and calls its figures by `names`."""
        self._habits[node, name] = Habits(names)

    @property
    def targets(self) -> list[dict[str, Any]]:
        address = f"{LOOPBACK}:{self.port}"
        return [
            {
                "targets": [address],
                "labels": {"__metrics_path__": f"/{node}/{name}", "instance": f"{node}-{name}:9400"},
            }
            for node, name in self._habits
        ]

    def page(self, node: str, name: str) -> str | None:
        """What an exporter says now; None where it is down or there is none."""
        habits = self._habits.get((node, name))
        if habits is None or habits.down:
            return None
        if habits.frozen_page:
            return habits.frozen_page
        state = self._states[node]
        lines = (line for index in range(state.device_count) for line in _lines(node, index, state.read(index), habits))
        return "\n".join([*lines, ""])

    def _change(self, node: str, name: str, **changes: Any) -> None:
        self._habits[node, name] = replace(self._habits[node, name], **changes)


def _lines(node: str, index: int, device: DeviceState, habits: Habits) -> Iterator[str]:
    labels = f'gpu="{index}",UUID="{device.uuid.decode()}",modelName="{device.name.decode()}",Hostname="{node}"'
    for figure, value in _figures(device, habits.watts_more).items():
        yield f"{habits.names[figure]}{{{labels}}} {value:.6f}"


def _figures(device: DeviceState, watts_more: float) -> dict[str, float]:
    free_bytes = device.memory_total_bytes - device.memory_used_bytes - device.memory_reserved_bytes
    return {
        "power": watts_more + device.measured_mw / 1000,
        "energy": device.energy_uj / 1000 + watts_more * device.changed_ns / 1e6,
        "enforced": device.enforced_limit_mw / 1000,
        "requested": device.requested_limit_mw / 1000,
        "minimum": device.minimum_limit_mw / 1000,
        "default": device.default_limit_mw / 1000,
        "maximum": device.maximum_limit_mw / 1000,
        "temperature": device.temperature_celsius,
        "utilization": device.utilization_percent,
        "activity": device.activity_permille / 1000,
        "used": device.memory_used_bytes / MEBIBYTE,
        "free": free_bytes / MEBIBYTE,
        "reserved": device.memory_reserved_bytes / MEBIBYTE,
        "xid": 0,
    }
