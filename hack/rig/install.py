"""Penstock on a control plane of the kit: its chart by real helm, its operator as a process beside it."""

import json
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from rig.components import LOOPBACK
from rig.controlplane import ControlPlane
from rig.processes import Child, free_ports
from rig.waiting import Hopeless, wait_for

CHART = Path(__file__).parents[2] / "charts" / "penstock"
RELEASE = "penstock"
NAMESPACE = "penstock-system"
OPERATOR_ACCOUNT = "penstock-operator"
READY_SECONDS = 60
RESTART_PAUSE_SECONDS = 0.2

OUTSIDE = {"operator.replicas": 0, "residency.verification.enabled": False}
"""The operator runs as a process beside the cluster: a simulated kubelet would only pretend to run it. So it would the
verifier, and pools would wait for ever for what that finds: who wants one turns it on, here and in the operator's
environment (`VERIFIED`), and runs it.
"""
VERIFIED = {"PENSTOCK_VERIFICATION": "true"}


def install_chart(plane: ControlPlane, values: Mapping[str, Any] | None = None, chart: Path = CHART) -> None:
    """`helm upgrade --install` in penstock-system. Keys may be dotted, as in `{"agent.heartbeatSeconds": 2}`."""
    document = plane.directory / "values.json"
    document.write_text(json.dumps(nested({**OUTSIDE, **(values or {})})))
    where = ("--namespace", NAMESPACE, "--create-namespace")
    plane.helm("upgrade", "--install", RELEASE, str(chart), *where, "--values", str(document))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1, "a": {"c": 2}}` as `{"a": {"b": 1, "c": 2}}`."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        if isinstance(value, Mapping):
            branch.setdefault(leaf, {}).update(nested(value))
        else:
            branch[leaf] = value
    return tree


class Operator:
    """`penstock operator` under an identity of its own, with probes on a fresh port.

    With `keep_running` it is started again whenever it ends, as a Deployment would; `restarts` counts that.
    """

    def __init__(self, plane: ControlPlane, name: str, env: Mapping[str, str], *, keep_running: bool) -> None:
        self.restarts = 0
        self._plane = plane
        (self.port,) = free_ports(1)
        self._env = {
            "PENSTOCK_NAMESPACE": NAMESPACE,
            "PENSTOCK_VERIFICATION": "false",
            **env,
            "PENSTOCK_PROBE_PORT": str(self.port),
        }
        self._wanted = True
        self._turn = threading.Lock()
        """Whoever starts or ends the process does it alone: two would leave one behind that nobody knows."""
        command = [sys.executable, "-m", "penstock", "operator"]
        self._child: Child = plane.spawn(name, command, port=self.port, env=self._env, essential=False)
        if keep_running:
            threading.Thread(target=self._keep_running, name=f"keeper of {name}", daemon=True).start()

    @property
    def log_path(self) -> Path:
        return self._child.log_path

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative the number of the signal that ended it."""
        return self._child.exit_code

    def start(self) -> None:
        """Start it again after `stop` or `kill`."""
        with self._turn:
            self._wanted = True
            self._plane.restart_child(self._child)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        with self._turn:
            self._wanted = False
            return self._child.stop()

    def kill(self) -> int:
        """SIGKILL: no farewell, no released Lease."""
        with self._turn:
            self._wanted = False
            return self._child.kill()

    def freeze(self) -> None:
        """SIGSTOP: alive for the kernel, deaf for everybody else."""
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._child.signal(signal.SIGCONT)

    def ready(self) -> bool:
        """Whether `/readyz` says ok. Raises `Hopeless` where the process has ended and nobody restarts it."""
        if self.exit_code is not None and not self._wanted:
            raise Hopeless(f"the operator was stopped; the tail of {self.log_path}:\n{self._child.log_tail()}")
        return requests.get(f"http://{LOOPBACK}:{self.port}/readyz", timeout=2).ok

    def wait_ready(self, ceiling_seconds: float = READY_SECONDS) -> None:
        """Wait until it is synced and decides, or is a standby that could."""
        wait_for(f"{self._child.name} is ready", self._ready_or_dead, ceiling_seconds)

    def _ready_or_dead(self) -> bool:
        if self.restarts == 0:
            self._child.check()
        return self.ready()

    def metrics(self) -> dict[str, float]:
        """What `/metrics` says now: `name` or `name{label="value",…}`, labels in order, with its figure."""
        text = requests.get(f"http://{LOOPBACK}:{self.port}/metrics", timeout=5).text
        return {
            _key(sample.name, sample.labels): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def _keep_running(self) -> None:
        pause = threading.Event()
        while not pause.wait(RESTART_PAUSE_SECONDS) and self._plane.running:
            with self._turn:
                if self._wanted and self.exit_code is not None:
                    self.restarts += 1
                    self._plane.restart_child(self._child)


def _key(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


def start_operator(
    plane: ControlPlane,
    *,
    kubeconfig: Path | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "operator",
    keep_running: bool = False,
) -> Operator:
    """Start an operator under its chart's own ServiceAccount, or under another kubeconfig (a fault proxy's).

    `env` holds settings such as `{"PENSTOCK_LEASE_SECONDS": "6"}`; `name` is unique among those that run.
    """
    identity = kubeconfig or plane.service_account(NAMESPACE, OPERATOR_ACCOUNT)
    return Operator(plane, name, {**(env or {}), "KUBECONFIG": str(identity)}, keep_running=keep_running)
