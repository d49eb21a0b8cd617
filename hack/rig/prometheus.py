"""A real Prometheus on loopback that scrapes the exporters of the plant."""

import json
import signal
from typing import Any

import requests
import yaml

from rig.components import LOOPBACK
from rig.controlplane import ControlPlane, located
from rig.exporter import Exporters
from rig.processes import free_ports
from rig.waiting import wait_for

READY_SECONDS = 60
SCRAPE_SECONDS = 1


class Prometheus:
    """A Prometheus beside a control plane; it ends with it. `url` is its base URL.

    Its data outlive `stop`, as those of a StatefulSet do.
    """

    def __init__(self, plane: ControlPlane, exporters: Exporters) -> None:
        (port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        self._plane = plane
        self._exporters = exporters
        self._directory = plane.directory / "prometheus"
        self._directory.mkdir()
        self._targets = self._directory / "targets.json"
        self._configuration = self._directory / "prometheus.yml"
        self._configuration.write_text(yaml.safe_dump(self._settings()))
        self.scrape()
        self._child = plane.spawn("prometheus", self._command(port), port=port, essential=False)
        self._await()

    def scrape(self) -> None:
        """Take in which exporters there are now; it notices by itself within a few seconds."""
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps(self._exporters.targets))
        fresh.replace(self._targets)

    def stop(self) -> None:
        self._child.stop()

    def start(self) -> None:
        """Start it again after `stop`, on the same port and data."""
        self._plane.restart_child(self._child)
        self._await()

    def freeze(self) -> None:
        """SIGSTOP: connections are taken and nothing is answered."""
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._child.signal(signal.SIGCONT)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        reply = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        found: list[dict[str, Any]] = reply["data"]["result"]
        return found

    def _settings(self) -> dict[str, Any]:
        discovery = {"files": [str(self._targets)], "refresh_interval": "1s"}
        return {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
            "scrape_configs": [{"job_name": "dcgm-exporter", "file_sd_configs": [discovery]}],
        }

    def _command(self, port: int) -> list[str]:
        return [
            str(located()["prometheus"]),
            f"--config.file={self._configuration}",
            f"--storage.tsdb.path={self._directory}/data",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--log.level=warn",
        ]

    def _await(self) -> None:
        def answers() -> bool:
            return self._child.listening() and requests.get(f"{self.url}/-/ready", timeout=5).ok

        wait_for("Prometheus is ready", answers, READY_SECONDS, report=False)
