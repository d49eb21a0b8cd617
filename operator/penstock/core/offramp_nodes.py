"""Leaving Penstock: which writes take everything of ours off nodes, and the GPUNodes away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.api.names import GROUP, POWER_DEGRADED_CONDITION, VERSION
from penstock.core.manifests import node_condition_patch, node_labels_patch
from penstock.core.model import Node
from penstock.core.nodelabels import LABELS
from penstock.core.offramp import Errand, Step
from penstock.core.telling.figures import listed

MARKED = "penstock release --nodes takes our labels and the condition off"
SILENT = "no agent reports there any more: penstock release --nodes deletes them"
CAPPED = "power limits are asked for or not given back yet: penstock release --caps comes first"
SPEAKS = "an agent reports there and would make it anew: penstock release --nodes once the agents are gone"


@dataclass(frozen=True, slots=True)
class Report:
    """A GPUNode. `capped` says whether power limits are asked for there or not given back yet, `speaks` whether its
    agent wrote within its last three heartbeats.
    """

    name: str
    uid: str
    capped: bool = False
    speaks: bool = False


def clear_nodes(nodes: Iterable[Node], reports: Iterable[Report]) -> tuple[Errand, ...]:
    """What is left of us on nodes and beside them: labels, the condition and the GPUNodes; nothing of others."""
    return (*filter(None, map(_clear_node, nodes)), *map(_clear_report, reports))


def summary(errands: Sequence[Errand]) -> tuple[str, ...]:
    """A sentence for each sort of thing that is left on nodes: a fleet has thousands of them."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in errands:
        found[one.waits_for or (MARKED if one.title.startswith("node/") else SILENT)].append(one.title)
    return tuple(f"{listed(titles)}: {told}" for told, titles in found.items())


def _clear_node(node: Node) -> Errand | None:
    path, labels = f"/api/v1/nodes/{node.name}", sorted(LABELS & node.labels.keys())
    steps = []
    if labels:
        body = node_labels_patch(node, dict.fromkeys(labels))
        steps.append(Step(path, node.uid, f"take off {', '.join(labels)}", None, body))
    if node.power_degraded is not None:
        body = node_condition_patch(node, POWER_DEGRADED_CONDITION, None, "")
        says = f"take off the condition {POWER_DEGRADED_CONDITION}"
        steps.append(Step(f"{path}/status", node.uid, says, None, body))
    return Errand(f"node/{node.name}", tuple(steps)) if steps else None


def _clear_report(report: Report) -> Errand:
    waits_for = CAPPED if report.capped else SPEAKS if report.speaks else ""
    path = f"/apis/{GROUP}/{VERSION}/gpunodes/{report.name}"
    steps = () if waits_for else (Step(path, report.uid, "delete", None),)
    return Errand(f"gpunode/{report.name}", steps, waits_for)
