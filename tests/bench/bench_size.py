"""What the operator costs at a thousand nodes and five thousand pods, and how soon it decides after a restart.

`python -m bench.bench_size`. The pods are written bound, straight to the API server.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.bench_placement import PODS, POOLS, Object, lifts, template
from bench.figures import Figure, show
from penstock.api.names import API_VERSION, POOL_LABEL
from rig.audit import AuditLog
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import Operator, install_chart, start_operator
from rig.telemetry import Publisher
from rig.waiting import wait_for

NODES = 1000
PODS_PER_NODE = 5
ADOPTING_POOLS = 20
WRITES_IN_FLIGHT = 8
SETTLE_SECONDS = 20
CEILING_SECONDS = 300


def bound_pod(number: int) -> Object:
    pod = template(gated=False, name=f"bound-{number}")
    pod["metadata"]["labels"] = {POOL_LABEL: f"pool-{number % ADOPTING_POOLS}"}
    pod["spec"]["nodeName"] = f"gpu-{number % NODES:04}"
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def fill(plane: ControlPlane) -> None:
    add_nodes(plane, [gpu_node(f"gpu-{number:04}") for number in range(NODES)])
    for number in range(ADOPTING_POOLS):
        metadata = {"name": f"pool-{number}"}
        plane.api.create(POOLS, {"apiVersion": API_VERSION, "kind": "InferencePool", "metadata": metadata, "spec": {}})
    with ThreadPoolExecutor(WRITES_IN_FLIGHT) as writers:
        list(writers.map(lambda number: plane.api.create(PODS, bound_pod(number)), range(NODES * PODS_PER_NODE)))


def resident_mib(pid: int, field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (peak) of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def first_decision_seconds(plane: ControlPlane, operator: Operator) -> float:
    """From the start of the process to the API server's answer to its first lift, of a pod that waits already."""
    operator.stop()
    mark = plane.audit_log.stat().st_size
    waiting = template(gated=True, name="first")
    waiting["metadata"]["labels"] = {POOL_LABEL: "pool-0"}
    plane.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", **waiting})
    started = time.time()
    operator.start()
    found = wait_for("the first lift", lambda: lifts(AuditLog(plane.audit_log), mark), CEILING_SECONDS)
    return found["first"] - started


def main() -> None:
    with ControlPlane.start(audit=True) as plane:
        install_chart(plane)
        fill(plane)
        publisher = Publisher(plane)
        publisher.start()
        operator = start_operator(plane)
        operator.wait_ready(CEILING_SECONDS)
        time.sleep(SETTLE_SECONDS)
        now, peak = resident_mib(operator.pid, "VmRSS"), resident_mib(operator.pid, "VmHWM")
        decision_seconds = first_decision_seconds(plane, operator)
        publisher.stop()
        operator.stop()
    show(
        f"Operator at {NODES} nodes and {NODES * PODS_PER_NODE} pods",
        [
            Figure("resident memory, peak", peak, "MiB", limit=250),
            Figure("resident memory, settled", now, "MiB"),
            Figure("restart to first decision", decision_seconds, "s", limit=5),
        ],
    )


if __name__ == "__main__":
    main()
