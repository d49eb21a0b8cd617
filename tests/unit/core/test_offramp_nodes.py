"""Leaving Penstock: what comes off nodes is ours, and a GPUNode goes once nobody needs or writes it."""

import pytest

import builders as a
from penstock.core.model import Mark, Node
from penstock.core.offramp_nodes import Report, clear_nodes, summary

LABELLED = {"penstock.dev/gpu.power.limit.max": "700", "penstock.dev/rack.slot": "3", "penstock.dev/capper": "off"}
NODES = {
    "only labels that the operator writes come off, not those that people set": (
        a.node("gpu-0", labels=LABELLED),
        ["take off penstock.dev/gpu.power.limit.max, penstock.dev/rack.slot"],
    ),
    "the condition comes off whether it holds or not": (
        a.node("gpu-0", power_degraded=Mark(False, "GPUsSound", "fine")),
        ["take off the condition GPUPowerDegraded"],
    ),
    "a node with nothing of ours is left alone": (a.node("gpu-0", labels={"row": "a"}), []),
}


@pytest.mark.parametrize(("node", "want"), NODES.values(), ids=NODES.keys())
def test_what_comes_off_a_node(node: Node, want: list[str]) -> None:
    steps = [step for errand in clear_nodes([node], []) for step in errand.steps]
    assert [step.says for step in steps] == want
    assert all(step.merge and step.merge["metadata"]["uid"] == node.uid for step in steps)


REPORTS = {
    "a GPUNode that no agent writes is deleted, and no successor of it": (Report("gpu-0", "u"), 1, ""),
    "one whose agent reports stays, since it would be back at once": (Report("gpu-0", "u", speaks=True), 0, "agents"),
    "one with power limits stays, or nobody would ever give them back": (
        Report("gpu-0", "u", capped=True),
        0,
        "--caps",
    ),
    "limits come before the agent": (Report("gpu-0", "u", capped=True, speaks=True), 0, "--caps"),
}


@pytest.mark.parametrize(("report", "deletions", "told"), REPORTS.values(), ids=REPORTS.keys())
def test_which_gpunodes_go(report: Report, deletions: int, told: str) -> None:
    (errand,) = clear_nodes([], [report])
    assert [(step.uid, step.operations, step.merge) for step in errand.steps] == [("u", None, None)] * deletions
    assert told in errand.waits_for


def test_what_is_left_on_a_fleet_is_told_in_a_few_sentences() -> None:
    nodes = [a.node(f"gpu-{at}", labels=LABELLED) for at in range(10)]
    reports = [Report(f"gpu-{at}", "u", speaks=at > 0) for at in range(10)]
    marked, silent, speaking = summary(clear_nodes(nodes, reports))
    assert marked.startswith("node/gpu-0, node/gpu-1, ")
    assert " and 2 more: penstock release --nodes takes" in marked
    assert silent.startswith("gpunode/gpu-0: no agent reports there")
    assert "once the agents are gone" in speaking
    assert summary(()) == ()
