"""What the telemetry of a thousand nodes costs the operator: processor time with every node speaking once in 10 s.

`python -m bench.bench_telemetry [seconds]`. An API server on two cores cannot take a hundred reports a second beside
everything else, so only the first report of each node goes through it. From then on the reports are said into the
operator's own watch by a proxy in front of the real API server: the same bytes on the same encrypted connection, eight
GPUs each, with watts that never stand still. Two of five nodes run replicas, in a tree of a site and ten rows, and
somebody scrapes `/metrics` every 15 s, as a Prometheus would.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from bench.bench_placement import PODS, POOLS, Object, template
from bench.bench_size import resident_mib
from bench.figures import Figure, show, wanted_cores
from penstock.api.names import API_VERSION, POOL_LABEL
from rig.controlplane import ControlPlane
from rig.faults import FaultProxy
from rig.fleet import add_nodes, gpu_node, usable_nodes
from rig.install import NAMESPACE, OPERATOR_ACCOUNT, Operator, install_chart, start_operator
from rig.telemetry import PATH, Publisher

NODES = 1000
ROWS = 10
REPLICAS = 400
HEARTBEAT_SECONDS = 10.0
WRITES_IN_FLIGHT = 8
SCRAPE_SECONDS = 15.0
SETTLE_SECONDS = 10.0
GRACE_SECONDS = 240
"""So that the nodes' own heartbeats, four in this span, leave the machine to what is measured."""
LABELLED_SECONDS = 2.0
"""No write for so long: the Nodes have their labels."""
DEFAULT_SECONDS = 30.0
ASK_SECONDS = 3.0
CEILING_SECONDS = 300
DOMAINS = f"/apis/{API_VERSION}/powerdomains"
ROW = "facility.example.com/row"
AGENT = "bench-agent"
"""On no node, so that the chart's DaemonSet puts no pod of an agent on any."""


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


class Speaker:
    """Says each node's next report into the operator's watch, in turn."""

    def __init__(self, plane: ControlPlane, publisher: Publisher, proxy: FaultProxy) -> None:
        self._publisher, self._proxy = publisher, proxy
        self._objects = {one["metadata"]["name"]: one for one in plane.api.list(PATH)}
        self._names = itertools.cycle(sorted(self._objects))

    def speak(self, seconds: float, operator: Operator) -> float:
        """Every node at its heartbeat, for `seconds`, and the scrapes; reports per second."""
        started_at = time.monotonic()
        scraped_at, pause_seconds = started_at, HEARTBEAT_SECONDS / len(self._objects)
        for number in itertools.count():
            time.sleep(max(0.0, started_at + number * pause_seconds - time.monotonic()))
            now = time.monotonic()
            if now - started_at > seconds:
                return number / (now - started_at)
            self._say(next(self._names))
            if now - scraped_at >= SCRAPE_SECONDS:
                scraped_at = now
                operator.metrics()
        raise AssertionError("a count ended")

    def _say(self, name: str) -> None:
        status = self._publisher.report(name, watts=[random.uniform(75.0, 620.0) for _ in range(8)])
        event = {"type": "MODIFIED", "object": {**self._objects[name], "status": status}}
        self._proxy.say(PATH, msgspec.json.encode(event))


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def heard(operator: Operator) -> float:
    """Reports that the operator has taken in from its watch."""
    return operator.metrics()['penstock_watch_events_total{resource="gpunodes",type="MODIFIED"}']


def node_writes(operator: Operator) -> float:
    """Labels that it has written to Nodes: each of a new fleet once."""
    told = operator.metrics()
    return sum(value for name, value in told.items() if "api_requests_total" in name and 'resource="nodes"' in name)


def settle(operator: Operator, speaker: Speaker) -> None:
    """Until a fleet that is new to the operator is no longer work."""
    written = -1.0
    while node_writes(operator) != written:
        written = node_writes(operator)
        speaker.speak(LABELLED_SECONDS, operator)
    speaker.speak(SETTLE_SECONDS, operator)


def main(seconds: float = DEFAULT_SECONDS) -> None:
    with ControlPlane.start(node_grace_seconds=GRACE_SECONDS) as plane, FaultProxy(plane) as proxy:
        install_chart(plane, {"agent.nodeSelector": {AGENT: "true"}})
        fill(plane)
        publisher = Publisher(plane)
        publisher.adopt()
        identity = proxy.kubeconfig(plane.service_account(NAMESPACE, OPERATOR_ACCOUNT))
        operator = start_operator(plane, kubeconfig=identity)
        operator.wait_ready(CEILING_SECONDS)
        speaker = Speaker(plane, publisher, proxy)
        settle(operator, speaker)
        before, heard_before, started_at = processor_seconds(operator.pid), heard(operator), time.monotonic()
        said = speaker.speak(seconds, operator)
        took = time.monotonic() - started_at
        busy, taken_in = processor_seconds(operator.pid) - before, (heard(operator) - heard_before) / took
        memory, machine = resident_mib(operator.pid, "VmHWM"), wanted_cores()
        publisher.stop()
        operator.stop()
    show(
        f"Telemetry of {NODES} nodes said into the operator's watch, {REPLICAS} replicas, {seconds:g} s",
        [
            Figure("operator, of one core", 100 * busy / took, "%", limit=10),
            Figure("  for each report taken in", 1e6 * busy / (taken_in * took), "µs"),
            Figure("  reports said", said, "/s", limit=0.95 * NODES / HEARTBEAT_SECONDS, at_least=True),
            Figure("  reports taken in", taken_in, "/s", limit=0.95 * NODES / HEARTBEAT_SECONDS, at_least=True),
            Figure("  resident memory, peak", memory, "MiB"),
            machine,
        ],
    )


if __name__ == "__main__":
    main(*(float(argument) for argument in sys.argv[1:]))
