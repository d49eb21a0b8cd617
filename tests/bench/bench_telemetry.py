"""What the telemetry of a thousand nodes costs the operator: processor time with every node speaking once in 10 s.

`python -m bench.bench_telemetry [seconds]`. One publisher writes every GPUNode, eight GPUs each, with watts that never
stand still; a thousand real agents would not fit one machine. Two of five nodes run replicas, in a tree of a site and
ten rows, and somebody scrapes `/metrics` every 15 s, as a Prometheus would.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from bench.bench_placement import PODS, POOLS, Object, template
from bench.bench_size import resident_mib
from bench.figures import Figure, show
from penstock.api.names import API_VERSION, POOL_LABEL
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node, usable_nodes
from rig.install import Operator, install_chart, start_operator
from rig.telemetry import Publisher

NODES = 1000
ROWS = 10
REPLICAS = 400
HEARTBEAT_SECONDS = 10.0
WRITES_IN_FLIGHT = 8
SCRAPE_SECONDS = 15.0
SETTLE_SECONDS = 10.0
DEFAULT_SECONDS = 30.0
ASK_SECONDS = 3.0
CEILING_SECONDS = 300
DOMAINS = f"/apis/{API_VERSION}/powerdomains"
ROW = "facility.example.com/row"


def fill(plane: ControlPlane) -> None:
    """Nodes, a tree of domains, and bound replicas of one adopting pool, straight to the API server."""
    add_nodes(plane, [gpu_node(f"gpu-{at:04}", labels={ROW: f"row-{at % ROWS}"}) for at in range(NODES)], ready=False)
    ready_by = time.monotonic() + CEILING_SECONDS
    # Asked seldom: a list of a thousand nodes is work for everybody.
    while len(usable_nodes(plane)) < NODES:
        if time.monotonic() > ready_by:
            raise RuntimeError(f"not all of {NODES} nodes are Ready after {CEILING_SECONDS} s: a busy machine?")
        time.sleep(ASK_SECONDS)
    for at in range(ROWS):
        plane.api.create(DOMAINS, _row(f"row-{at}"))
    crowd = {"apiVersion": API_VERSION, "kind": "InferencePool", "metadata": {"name": "crowd"}, "spec": {}}
    plane.api.create(POOLS, crowd)
    with ThreadPoolExecutor(WRITES_IN_FLIGHT) as writers:
        list(writers.map(lambda at: plane.api.create(PODS, _bound(at)), range(REPLICAS)))


def _row(name: str) -> Object:
    spec = {"nodeSelector": {"matchLabels": {ROW: name}}, "budget": {"watts": 2e6}}
    return {"apiVersion": API_VERSION, "kind": "PowerDomain", "metadata": {"name": name}, "spec": spec}


def _bound(number: int) -> Object:
    pod = template(gated=False, name=f"bound-{number}")
    pod["metadata"]["labels"] = {POOL_LABEL: "crowd"}
    pod["spec"]["nodeName"] = f"gpu-{number:04}"
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def publish(publisher: Publisher, seconds: float, operator: Operator) -> float:
    """Speak for every node in turn at its heartbeat, for `seconds`; publishes per second that were really made."""
    started_at = time.monotonic()
    scraped_at, made = started_at, 0
    under_way: set[Future[None]] = set()
    with ThreadPoolExecutor(WRITES_IN_FLIGHT) as writers:
        for number in itertools.count():
            due_at = started_at + number * HEARTBEAT_SECONDS / NODES
            time.sleep(max(0.0, due_at - time.monotonic()))
            if time.monotonic() - started_at > seconds:
                break
            under_way.add(writers.submit(_speak, publisher, f"gpu-{number % NODES:04}"))
            if len(under_way) >= WRITES_IN_FLIGHT:
                done, under_way = wait(under_way, return_when="FIRST_COMPLETED")
                made += sum(one.result() is None for one in done)
            if time.monotonic() - scraped_at >= SCRAPE_SECONDS:
                scraped_at = time.monotonic()
                operator.metrics()
    made += sum(one.result() is None for one in under_way)
    return made / (time.monotonic() - started_at)


def _speak(publisher: Publisher, node: str) -> None:
    publisher.set(node, watts=[random.uniform(75.0, 620.0) for _ in range(8)])


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_percent(operator: Operator, publisher: Publisher | None, seconds: float) -> tuple[float, float]:
    """Percent of one core that the operator takes, and publishes per second meanwhile (none without a publisher)."""
    before, started_at = processor_seconds(operator.pid), time.monotonic()
    rate = 0.0
    if publisher is None:
        time.sleep(seconds)
    else:
        rate = publish(publisher, seconds, operator)
    return 100 * (processor_seconds(operator.pid) - before) / (time.monotonic() - started_at), rate


def main(seconds: float = DEFAULT_SECONDS) -> None:
    with ControlPlane.start() as plane:
        install_chart(plane)
        fill(plane)
        publisher = Publisher(plane)
        publisher.adopt()
        operator = start_operator(plane)
        operator.wait_ready(CEILING_SECONDS)
        publish(publisher, SETTLE_SECONDS, operator)
        busy, rate = busy_percent(operator, publisher, seconds)
        memory = resident_mib(operator.pid, "VmHWM")
        quiet, _ = busy_percent(operator, None, SETTLE_SECONDS)
        publisher.stop()
        operator.stop()
    show(
        f"Telemetry of {NODES} nodes, {REPLICAS} replicas, one publisher for all, {seconds:g} s",
        [
            Figure("operator, of one core", busy, "%", limit=10),
            Figure("  without a publish", quiet, "%"),
            Figure("  publishes", rate, "/s", limit=0.95 * NODES / HEARTBEAT_SECONDS, at_least=True),
            Figure("  resident memory, peak", memory, "MiB"),
        ],
    )


if __name__ == "__main__":
    main(*(float(argument) for argument in sys.argv[1:]))
