"""What an agent may write, on the real API server: the GPUNode status of the node in its own token's claim."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from admission import NAMESPACE, Object, allow
from rig.api import Api, ApiError
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart
from rig.waiting import wait_for

GPU_NODES = "/apis/penstock.dev/v1alpha1/gpunodes"
NODES = OWN, FOREIGN = ("gpu-0", "gpu-1")
CAPS = "asks for power limits"
"""What a spec is refused for too: of two policies that object the API server names either."""


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as cp:
        add_nodes(cp, [gpu_node(name) for name in NODES])
        install_chart(cp, {"operator.replicas": 0})
        yield cp


@dataclass(frozen=True)
class Agents:
    """An agent on the first node, by the token of its pod; and one whose token is bound to nothing."""

    bound: Api
    unbound: Api


@pytest.fixture(scope="module")
def agents(plane: ControlPlane) -> Agents:
    """Agents with every right on GPUNodes, so that the policy alone stands between them and the others' nodes."""

    def placed() -> dict[str, str] | None:
        pods = plane.api.list(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector="app.kubernetes.io/component=agent")
        found = {each["spec"].get("nodeName", ""): each["metadata"]["name"] for each in pods}
        return found if set(NODES) <= found.keys() else None

    pods = wait_for("an agent's pod on each node", placed, 60)
    service_account = {"kind": "ServiceAccount", "name": "penstock-agent", "namespace": NAMESPACE}
    allow(plane.api, "penstock.dev", ["gpunodes", "gpunodes/status"], service_account)
    bound = plane.api_as(plane.service_account(NAMESPACE, "penstock-agent", pod=(NAMESPACE, pods[NODES[0]])))
    unbound = plane.api_as(plane.service_account(NAMESPACE, "penstock-agent"))

    def in_force() -> bool:
        try:
            unbound.create(GPU_NODES, report(OWN), dryRun="All")
        except ApiError as error:
            return "ValidatingAdmissionPolicy" in error.message
        return False

    wait_for("the agents have every right on GPUNodes, and the policy is in force", in_force, 60)
    return Agents(bound, unbound)


def report(name: str, **rest: Any) -> Object:
    return {"apiVersion": "penstock.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": name}, **rest}


@pytest.fixture
def reports(plane: ControlPlane) -> Iterator[None]:
    """A GPUNode for each node, as their agents would have made them."""
    for name in NODES:
        plane.api.create(GPU_NODES, report(name))
    yield
    for name in NODES:
        plane.api.delete(f"{GPU_NODES}/{name}")


def assert_policy(refused: ApiError, says: str) -> None:
    assert (refused.status, refused.reason) == (403, "Forbidden"), refused
    assert re.search(f"ValidatingAdmissionPolicy 'penstock-(agent|caps)'.*({says})", refused.message), refused


def test_an_agent_creates_the_gpunode_of_its_own_node(plane: ControlPlane, agents: Agents) -> None:
    assert agents.bound.create(GPU_NODES, report(OWN))["metadata"]["name"] == OWN
    plane.api.delete(f"{GPU_NODES}/{OWN}")


@pytest.mark.parametrize(
    ("token", "manifest", "says"),
    (
        pytest.param("bound", report(FOREIGN), "of its own node", id="another node's"),
        pytest.param("bound", report("no-such-node"), "of its own node", id="no node's"),
        pytest.param("bound", report(OWN, spec={}), f"without spec|{CAPS}", id="with a spec"),
        pytest.param("unbound", report(OWN), "bound to", id="by an unbound token"),
    ),
)
def test_an_agent_creates_no_other_gpunode(agents: Agents, token: str, manifest: Object, says: str) -> None:
    with pytest.raises(ApiError) as refused:
        getattr(agents, token).create(GPU_NODES, manifest)
    assert_policy(refused.value, says)


@pytest.mark.usefixtures("reports")
def test_an_agent_writes_the_status_of_its_own_node(agents: Agents) -> None:
    written = agents.bound.patch(f"{GPU_NODES}/{OWN}/status", {"status": {"watts": 5600}})
    assert written["status"]["watts"] == 5600


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize(
    ("token", "path", "body", "says"),
    (
        pytest.param("bound", f"{FOREIGN}/status", {"status": {"watts": 1}}, "of its own node", id="another's status"),
        pytest.param("unbound", f"{OWN}/status", {"status": {"watts": 1}}, "bound to", id="by an unbound token"),
        pytest.param("bound", OWN, {"spec": {}}, f"only the status|{CAPS}", id="its own spec"),
        pytest.param("bound", OWN, {"metadata": {"labels": {"a": "b"}}}, "only the status", id="its own labels"),
        pytest.param("bound", FOREIGN, {"spec": {}}, f"of its own node|{CAPS}", id="another's spec"),
    ),
)
def test_an_agent_writes_nothing_else(agents: Agents, token: str, path: str, body: Object, says: str) -> None:
    with pytest.raises(ApiError) as refused:
        getattr(agents, token).patch(f"{GPU_NODES}/{path}", body)
    assert_policy(refused.value, says)


@pytest.mark.usefixtures("reports")
def test_an_agents_status_write_carries_no_spec_along(plane: ControlPlane, agents: Agents) -> None:
    agents.bound.patch(f"{GPU_NODES}/{OWN}/status", {"spec": {}, "status": {"watts": 700}})
    assert "spec" not in plane.api.get(f"{GPU_NODES}/{OWN}")
