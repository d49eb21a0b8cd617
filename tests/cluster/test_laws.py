"""The table of laws on kube-scheduler itself: what the core compiles lets a pod onto the lawful nodes and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import builders as a
from laws import ROWS, Row
from penstock.api.names import GATE
from penstock.core.manifests import term_manifest, tightened_terms
from penstock.core.residency import Alternative, alternatives, law
from rig.controlplane import ControlPlane
from rig.fleet import gpu_node
from rig.waiting import wait_for

PODS = "/api/v1/namespaces/default/pods"
IN_FLIGHT = 16
PATIENCE_SECONDS = 60
Object = dict[str, Any]
Fates = Mapping[str, str]

NODES = {sentence: f"row-{number}" for number, sentence in enumerate(ROWS)}
"""Every row has a node of its own, and its pods name it: what keeps one away is the law."""


def pod(name: str, ways: tuple[Alternative, ...], node: str) -> Object:
    """A pod as a lift leaves it; where no place on earth is lawful it keeps its gate."""
    terms = [term_manifest(term) for term in tightened_terms((), ways, node)]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    spec: Object = {
        "containers": [{"name": "server", "image": "example.test/server"}],
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": required},
    }
    if not ways:
        spec["schedulingGates"] = [{"name": GATE}]
    return {"metadata": {"name": name}, "spec": spec}


def tries() -> Iterator[Object]:
    """For every row a pod with each way to be lawful, and where the core finds it lawful one with the way it takes."""
    for sentence, row in ROWS.items():
        node, ruled = NODES[sentence], row.law.residency
        yield pod(f"any-{node}", alternatives(ruled), node)
        if (taken := law(ruled, a.node(country="", labels=row.labels))) is not None:
            yield pod(f"lift-{node}", (taken,), node)


def fate(found: Object) -> str:
    """Where the scheduler put it, or why it did not; empty while it thinks."""
    if node := found["spec"].get("nodeName"):
        return str(node)
    judged = (one for one in found.get("status", {}).get("conditions", ()) if one["type"] == "PodScheduled")
    return next((one["reason"] for one in judged), "")


@pytest.fixture(scope="module")
def fates() -> Iterator[Fates]:
    """What came of every pod, after one look of the scheduler at all of them."""
    with ControlPlane.start(kubelet=False, node_grace_seconds=3600) as plane, ThreadPoolExecutor(IN_FLIGHT) as threads:
        nodes = [gpu_node(NODES[sentence], country="", labels=row.labels) for sentence, row in ROWS.items()]
        list(threads.map(lambda node: plane.api.create("/api/v1/nodes", node), nodes))
        pods = list(tries())
        list(threads.map(lambda one: plane.api.create(PODS, one), pods))

        def all_judged() -> Fates | None:
            found = {one["metadata"]["name"]: fate(one) for one in plane.api.list(PODS)}
            return found if len(found) == len(pods) and all(found.values()) else None

        yield wait_for(f"the scheduler has judged {len(pods)} pods", all_judged, PATIENCE_SECONDS)


@pytest.mark.parametrize(("sentence", "row"), [pytest.param(*one, id=one[0]) for one in ROWS.items()])
def test_the_scheduler_judges_as_the_table_does(fates: Fates, sentence: str, row: Row) -> None:
    node = NODES[sentence]
    found = fates[f"any-{node}"]
    if row.lawful or row.beyond_affinity:
        assert found == node
    else:
        assert found in {"Unschedulable", "SchedulingGated"}, json.dumps(row.labels)
    assert fates.get(f"lift-{node}", node) == node
