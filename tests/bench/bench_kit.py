"""What the admission kit adds to the lift of a gate: the same patch in a namespace under a law and in one under none.

Small blocks in turn, so that a machine that others load is as busy for both; and the processor time that the API server
took for them, which says it even where the clock does not. No scheduler and no kubelet run beside it.
`python -m bench.bench_kit [blocks] [nodes]`.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field

from admission import LEADER, NAMESPACE, hold_lease
from bench.bench_telemetry import processor_seconds
from bench.figures import Figure, percentile, show, wanted_cores
from bypasses_bank import EPOCH, GERMAN, LAW, NAMESPACES, OPERATOR, found_namespace, law_notes, lifting, pod
from penstock.api.names import LAW_LABEL, LAW_REQUIRED
from rig.api import Api
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart

BANK, TOYS = "bank", "toys"
BLOCK = 10
WARM_UP_BLOCKS = 2


@dataclass
class Taken:
    """What the lifts in one namespace took: each by the clock, and all of them of the API server's processor."""

    wall_seconds: list[float] = field(default_factory=list)
    processor_seconds: float = 0.0

    @property
    def processor_milliseconds(self) -> float:
        """Of the API server, for one lift."""
        return 1000 * self.processor_seconds / len(self.wall_seconds)

    def milliseconds(self, share: float) -> float:
        """Of the clock, for one lift: what this share of them does not pass."""
        return 1000 * percentile(self.wall_seconds, share)


def gated(api: Api, namespace: str) -> str:
    """A replica that waits for its lift; its path."""
    made = pod()
    path = f"{NAMESPACES}/{namespace}/pods"
    api.create(path, made)
    return f"{path}/{made['metadata']['name']}"


def lift_block(plane: ControlPlane, operator: Api, namespace: str, taken: Taken) -> None:
    """Make replicas, and lift them one after the other."""
    paths = [gated(plane.api, namespace) for _ in range(BLOCK)]
    patch = lifting(OPERATOR, [GERMAN], "gpu-0")
    server = plane.component("kube-apiserver").pid
    before = processor_seconds(server)
    for path in paths:
        started = time.perf_counter()
        operator.patch(path, patch, "json")
        taken.wall_seconds.append(time.perf_counter() - started)
    taken.processor_seconds += processor_seconds(server) - before


def measure(plane: ControlPlane, blocks: int) -> tuple[Taken, Taken]:
    """What lifts take under the law, and under none; who goes first changes from block to block."""
    operator = plane.api_as(plane.service_account(NAMESPACE, "penstock-operator"))
    taken = {BANK: Taken(), TOYS: Taken()}
    for number in range(-WARM_UP_BLOCKS, blocks):
        for name in (BANK, TOYS) if number % 2 else (TOYS, BANK):
            lift_block(plane, operator, name, taken[name] if number >= 0 else Taken())
    return taken[BANK], taken[TOYS]


def main(blocks: int = 50, nodes: int = 1000) -> None:
    with ControlPlane.start(kubelet=False, scheduler=False) as plane:
        install_chart(plane)
        hold_lease(plane.api, LEADER, EPOCH)
        add_nodes(plane, (gpu_node(f"gpu-{number}") for number in range(nodes)), ready=False)
        found_namespace(plane.api, BANK, labels={LAW_LABEL: LAW_REQUIRED}, annotations=law_notes(LAW))
        found_namespace(plane.api, TOYS)
        law, none = measure(plane, blocks)
    pairs = zip(law.wall_seconds, none.wall_seconds, strict=True)
    added = 1000 * statistics.median(under - free for under, free in pairs)
    processor = law.processor_milliseconds - none.processor_milliseconds
    show(
        f"The admission kit at {nodes} nodes, {blocks * BLOCK} pairs of lifts",
        [
            Figure("the law adds to a lift, by the clock (median of the pairs)", added, "ms", limit=5),
            Figure("  of the API server's processor", processor, "ms", limit=5),
            Figure("a lift under the law, p50", law.milliseconds(0.5), "ms"),
            Figure("  p99", law.milliseconds(0.99), "ms"),
            Figure("  of the API server's processor", law.processor_milliseconds, "ms"),
            Figure("a lift under none, p50", none.milliseconds(0.5), "ms"),
            Figure("  p99", none.milliseconds(0.99), "ms"),
            Figure("  of the API server's processor", none.processor_milliseconds, "ms"),
            wanted_cores(),
        ],
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
