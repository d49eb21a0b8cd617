"""How soon the ladder acts: from the publish that completes an entry condition to the first accepted eviction.

`python -m bench.bench_ladder [rows]`. Five hundred nodes in a hundred rows of a tree with four levels; one publisher
writes the GPUNodes of all but three nodes, which real agents on the plant speak for. Each row in turn is pushed over
its budget by one publish; entry conditions without a hold time are complete with it. The clock starts when the API
server received that publish, of a real agent the first one after its load rose, and stops when it had accepted the
eviction: both by its own audit log.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.bench_placement import Object, at
from bench.figures import Figure, percentile, show, wanted_cores
from penstock.api.names import API_VERSION, POOL_LABEL
from rig.agents import LOAD_ANNOTATION, start_agents, start_plant
from rig.audit import AuditLog, Request
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import OPERATOR_ACCOUNT, install_chart, start_operator
from rig.telemetry import Publisher
from rig.waiting import wait_for

ROWS = 100
NODES_PER_ROW = 5
REAL = 3
"""Rows of one node each, with a real agent."""
HALLS = 4
AISLES = 20
ROW_WATTS = 15_000.0
"""Room for the one replica of eight GPUs; a second node that works breaks it."""
REAL_ROW_WATTS, DECLARED_WATTS = 5_000.0, 2_000
"""What a replica declares fits a Statistical row; what it really draws under load does not."""
REPLICA_WATTS = 560.0
PUSH_WATTS = 650.0
HEARTBEAT_SECONDS = 30.0
"""Of the nodes without an agent: at ten seconds five hundred of them would keep an API server on two cores busy."""
PACE_SECONDS = 0.3
WRITES_IN_FLIGHT = 8
CEILING_SECONDS = 300
GRACE_SECONDS = 240
"""So that the nodes' own heartbeats, four in this span, leave the machine to what is measured."""
DOMAINS = f"/apis/{API_VERSION}/powerdomains"
POOLS = f"/apis/{API_VERSION}/namespaces/default/inferencepools"
PODS = "/api/v1/namespaces/default/pods"
ROW = "facility.example.com/row"
AGENT = "bench-agent"
"""On the nodes of which the chart's DaemonSet gets pods: five hundred of them are no part of this."""
AT_ONCE = {"enterPercent": 95, "exitPercent": 88, "enterSeconds": 0, "exitSeconds": 60}


def domain(name: str, watts: float, parent: str = "", **spec: Any) -> Object:
    above = {"parent": parent} if parent else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "PowerDomain",
        "metadata": {"name": name},
        "spec": {"budget": {"watts": watts}, **above, **spec},
    }


def row(name: str, watts: float, parent: str, **spec: Any) -> Object:
    selector = {"matchLabels": {ROW: name}}
    return domain(name, watts, parent, nodeSelector=selector, ladder={"trim": AT_ONCE}, **spec)


def pool(name: str, load: float) -> Object:
    """One replica of eight GPUs that runs in the row of its name."""
    resources = {"limits": {"nvidia.com/gpu": "8"}}
    pod = {
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {ROW: name},
        "containers": [{"name": "s", "image": "i", "resources": resources}],
    }
    template = {"metadata": {"annotations": {LOAD_ANNOTATION: str(load)}}, "spec": pod}
    metadata = {"name": name}
    spec = {"template": template, "power": {"wattsPerReplica": DECLARED_WATTS}}
    return {"apiVersion": API_VERSION, "kind": "InferencePool", "metadata": metadata, "spec": spec}


def fill(plane: ControlPlane, rows: int) -> None:
    """The tree, the nodes and a pool in each row."""
    for name in [*(f"row-{number}" for number in range(rows)), *(f"real-{number}" for number in range(REAL))]:
        real = name.startswith("real")
        labels = {ROW: name, AGENT: str(real).lower()}
        size = 1 if real else NODES_PER_ROW
        add_nodes(plane, [gpu_node(f"{name}-{at}", labels=labels) for at in range(size)], ready=False)
    huge = 1e8
    tree = [domain("site", huge)]
    tree += [domain(f"hall-{number}", huge, "site") for number in range(HALLS)]
    tree += [domain(f"aisle-{number}", huge, f"hall-{number % HALLS}") for number in range(AISLES)]
    tree += [row(f"row-{number}", ROW_WATTS, f"aisle-{number % AISLES}", marginPercent=0) for number in range(rows)]
    tree += [row(f"real-{number}", REAL_ROW_WATTS, "aisle-0", guarantee="Statistical") for number in range(REAL)]
    for one in tree:
        plane.api.create(DOMAINS, one)
    pools = [pool(f"row-{number}", 1.0) for number in range(rows)] + [pool(f"real-{at}", 0.0) for at in range(REAL)]
    with ThreadPoolExecutor(WRITES_IN_FLIGHT) as writers:
        list(writers.map(lambda one: plane.api.create(POOLS, one), pools))


def places(plane: ControlPlane, wanted: int) -> dict[str, Object] | None:
    """The running pod of each pool; None until all run."""
    found = {
        pod["metadata"]["labels"][POOL_LABEL]: pod
        for pod in plane.api.list(PODS, labelSelector=POOL_LABEL)
        if pod["status"].get("phase") == "Running"
    }
    return found if len(found) == wanted else None


def push(publisher: Publisher, name: str, place: str) -> str:
    """One publish takes a row over its budget; the node that it is of."""
    other = next(node for node in (f"{name}-{at}" for at in range(NODES_PER_ROW)) if node != place)
    publisher.set(other, watts=[PUSH_WATTS] * 8)
    return other


def evictions(answered: Iterable[Request]) -> dict[str, float]:
    """When the API server had accepted the operator's first eviction of each pod."""
    found: dict[str, float] = {}
    for one in answered:
        if one.resource == "pods/eviction" and OPERATOR_ACCOUNT in one.user and one.code < 300:
            found.setdefault(one.name, at(one))
    return found


def reports(answered: Iterable[Request]) -> dict[str, list[float]]:
    """When the API server received the reports of each node, Unix seconds."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in answered:
        if one.resource == "gpunodes/status":
            found[one.name].append(datetime.fromisoformat(one.event["requestReceivedTimestamp"]).timestamp())
    return found


@dataclass(frozen=True)
class Pressed:
    """A pod whose domain was pushed over its budget, the node whose report said so, and the Unix time before that."""

    pod: str
    node: str
    time: float


def reactions(plane: ControlPlane, mark: int, pressed: Sequence[Pressed]) -> list[float]:
    """Seconds from the report that broke each budget to the eviction that was accepted; waits for them all."""
    pods = {one.pod for one in pressed}
    wait_for(f"{len(pods)} evictions", lambda: pods.isdisjoint(names(plane)), CEILING_SECONDS)
    # Read once, behind the last of them: to read it over and over would take the core from the operator.
    answered = AuditLog(plane.audit_log).since(mark)
    accepted, received = evictions(answered), reports(answered)
    return [accepted[one.pod] - min(at for at in received[one.node] if at >= one.time) for one in pressed]


def names(plane: ControlPlane) -> set[str]:
    return {pod["metadata"]["name"] for pod in plane.api.list(PODS, labelSelector=POOL_LABEL)}


def simulated_seconds(plane: ControlPlane, publisher: Publisher, pods: dict[str, Object]) -> list[float]:
    mark, pressed = AuditLog(plane.audit_log).mark(), []
    for name, pod in pods.items():
        if name.startswith("row"):
            now_time = time.time()
            node = push(publisher, name, pod["spec"]["nodeName"])
            pressed.append(Pressed(pod["metadata"]["name"], node, now_time))
            time.sleep(PACE_SECONDS)
    return reactions(plane, mark, pressed)


def real_seconds(plane: ControlPlane, pods: dict[str, Object]) -> list[float]:
    """The same where the load of a replica rises and its node's own agent says so."""
    mark, pressed = AuditLog(plane.audit_log).mark(), []
    for pod in (pod for name, pod in pods.items() if name.startswith("real")):
        pressed.append(Pressed(pod["metadata"]["name"], pod["spec"]["nodeName"], time.time()))
        rise = {"metadata": {"annotations": {LOAD_ANNOTATION: "1.0"}}}
        plane.api.patch(f"{PODS}/{pod['metadata']['name']}", rise)
    return reactions(plane, mark, pressed)


def main(rows: int = ROWS) -> None:
    with ControlPlane.start(audit=True, node_grace_seconds=GRACE_SECONDS) as plane:
        install_chart(plane, {"agent.nodeSelector": {AGENT: "true"}})
        fill(plane, rows)
        real = [f"real-{number}-0" for number in range(REAL)]
        plant = start_plant(plane, real)
        publisher = Publisher(plane)
        simulated_nodes = [f"row-{number}-{at}" for number in range(rows) for at in range(NODES_PER_ROW)]
        publisher.start(HEARTBEAT_SECONDS, simulated_nodes)
        agents = start_agents(plane, plant, real)
        operator = start_operator(plane, keep_running=True)
        operator.wait_ready(CEILING_SECONDS)
        pods = wait_for("every replica runs", lambda: places(plane, rows + REAL), CEILING_SECONDS)
        for name, pod in pods.items():
            if name.startswith("row"):
                publisher.set(pod["spec"]["nodeName"], watts=[REPLICA_WATTS] * 8)
        simulated, by_agents = simulated_seconds(plane, publisher, pods), real_seconds(plane, pods)
        p99 = percentile(simulated, 0.99)
        publisher.stop()
        agents.stop_all()
        plant.stop()
        operator.stop()
    show(
        f"Breaking publish → accepted eviction, {rows * NODES_PER_ROW} nodes, {rows} rows in four levels",
        [
            Figure(f"one publisher for all but {REAL} nodes, p99 of {len(simulated)}", p99, "s", limit=2),
            Figure("  p50", percentile(simulated, 0.50), "s"),
            Figure(f"real agents, worst of {len(by_agents)}", max(by_agents), "s", limit=2),
            wanted_cores(),
        ],
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
