"""The stage: 12 eight-GPU nodes of two products in three countries and rows of racks, and Penstock on them."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from demo.figures import Waits, watch_waits
from rig.agents import Agents, RunningPlant, start_agents, start_plant
from rig.binaries import obtain, table
from rig.cappers import start_cappers
from rig.controlplane import ControlPlane
from rig.fleet import Object, add_nodes, gpu_node
from rig.install import VERIFIED, Operator, install_chart, start_operator
from rig.waiting import wait_for

ROW, RACK = "facility.example.com/row", "facility.example.com/rack"
NODES_PER_RACK = 2
SITES = {
    # country, subdivision: product, row (that of Virginia has no domain before the second act, and so no budget)
    ("DE", "DE-HE"): ("NVIDIA-H200", "a"),
    ("FR", "FR-IDF"): ("NVIDIA-H100-80GB-HBM3", "b"),
    ("US", "US-VA"): ("NVIDIA-H200", "c"),
}
NODES_PER_SITE = 4
GRID_NODES = tuple(f"gpu-us-{number}" for number in range(1, NODES_PER_SITE + 1))
"""Row c: where the second act is played."""
SPOKEN_SECONDS = 60
VALUES = {
    "capper.enabled": True,
    "capper.mode": "Enforce",
    "decisionLog.volume.emptyDir": {},
    "residency.verification.enabled": True,
}


@dataclass(frozen=True)
class Stage:
    """Everything that runs while the story is played."""

    plane: ControlPlane
    operator: Operator
    plant: RunningPlant
    agents: Agents
    waits: Waits
    decision_log: Path
    """Where the operator's records lie."""


def nodes() -> list[Object]:
    """The fleet, four nodes in each country, each in a zone of its own."""
    return [
        gpu_node(
            f"gpu-{country.lower()}-{number}",
            product=product,
            country=country,
            subdivision=subdivision,
            zone=f"{country.lower()}-{number}",
            labels={ROW: row, RACK: f"{row}{1 + (number - 1) // NODES_PER_RACK}"},
        )
        for (country, subdivision), (product, row) in SITES.items()
        for number in range(1, NODES_PER_SITE + 1)
    ]


@contextmanager
def set_stage() -> Iterator[Stage]:
    """Start everything, tell how long each part took, and leave nothing behind."""
    _tell_binaries()
    with ExitStack() as stack:
        with _timed("control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok"):
            plane = stack.enter_context(ControlPlane.start(audit=True))
        fleet = nodes()
        names = [node["metadata"]["name"] for node in fleet]
        with _timed(f"{len(fleet)} GPU nodes are Ready"):
            add_nodes(plane, fleet)
        with _timed("helm upgrade --install penstock charts/penstock"):
            install_chart(plane, VALUES)
        with _timed(
            "the plant, one node agent per GPU node reading NVML, and row c's cappers setting limits through it"
        ):
            plant = stack.enter_context(start_plant(plane))
            agents = start_agents(plane, plant, names)
            stack.callback(agents.stop_all)
            # Of the cappers only those of the second act's row: twelve more processes are too many for a small machine.
            cappers = start_cappers(plane, plant, GRID_NODES)
            stack.callback(cappers.stop_all)
            wait_for("every agent has spoken", lambda: _all_spoken(plane, len(fleet)), SPOKEN_SECONDS, report=False)
        with _timed("the operator leads, under the chart's ServiceAccount"):
            log = plane.directory / "decisions"
            operator = start_operator(
                plane, env={**VERIFIED, "PENSTOCK_DECISION_LOG_DIRECTORY": str(log)}, keep_running=True
            )
            stack.callback(operator.stop)
            operator.wait_ready()
        waits = stack.enter_context(watch_waits(plane))
        yield Stage(plane, operator, plant, agents, waits, log)


def _tell_binaries() -> None:
    for binary in table().values():
        # On a fresh machine each may take a minute: say what is being worked on before it is done.
        print(f"  {binary.name} {binary.version} ...", flush=True)
        found = obtain(binary)
        print(f"    {found.source}: {found.path}", flush=True)


def _all_spoken(plane: ControlPlane, number: int) -> bool:
    spoken = [one for one in plane.api.list("/apis/penstock.dev/v1alpha1/gpunodes") if one.get("status")]
    return len(spoken) == number


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started_at = time.monotonic()
    with redirect_stdout(StringIO()):
        yield
    print(f"  {time.monotonic() - started_at:5.1f} s  {what}", flush=True)
