"""GPUs that Dynamic Resource Allocation gave out: kube-scheduler's own allocation, the kubelet's word, the real agent.

No pod's requests show them, so a GPU that a claim holds is free for nobody else and has to be paid all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from factory import BRISK, SOON_SECONDS, Factory, is_gated
from penstock.api.names import API_VERSION, GATE, GPU_RESOURCE, POOL_LABEL
from rig import claims
from rig.agents import LOAD_ANNOTATION, Agents, RunningPlant, start_agents, start_plant
from rig.api import ApiError
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart, start_operator
from rig.podresources import HANGING, RIGHTLY
from rig.telemetry import Publisher
from rig.waiting import wait_for

Object = dict[str, Any]

NODE, PRODUCT = "gpu-0", "NVIDIA-H200"
GPUS = 4
IDLE_WATTS, LIMIT_WATTS = 76.0, 721.0
OVERHEAD = 1.55
CEILING_SECONDS = 150.0
"""Ten times the fifteen seconds within which freed watts are credited, and more than ten looks at the kubelet."""
PODS = "/api/v1/namespaces/default/pods"
CLAIMS = f"{claims.API}/namespaces/default/resourceclaims"
CLAIMING: Object = {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}
SERVER: Object = {"name": "server", "image": "server", "resources": {"claims": [{"name": "gpu"}]}}


@dataclass(frozen=True)
class Rig:
    factory: Factory
    plant: RunningPlant
    agents: Agents
    uuids: tuple[str, ...]

    def train(self, name: str) -> Object:
        """A foreign pod that asks for a GPU by a claim alone; kube-scheduler finds its node."""
        metadata = {"name": name, "annotations": {LOAD_ANNOTATION: "0.9"}}
        spec = {**CLAIMING, "containers": [SERVER], "terminationGracePeriodSeconds": 1}
        return self.factory.plane.api.create(PODS, {"metadata": metadata, "spec": spec})

    def granted(self, pod: str) -> tuple[str, str]:
        """The claim that was made for a pod, and the UUID behind the device that kube-scheduler chose for it."""

        def probe() -> tuple[str, str] | None:
            made = [one for one in self.factory.plane.api.list(CLAIMS) if _owner(one) == pod]
            results = [device for one in made for device in _results(one)]
            return (made[0]["metadata"]["name"], self.uuids[int(results[0].removeprefix("gpu-"))]) if results else None

        return wait_for(f"kube-scheduler allocates {pod}'s claim", probe, CEILING_SECONDS)

    def until(self, what: str, true: Callable[[Object], object]) -> Object:
        """Wait for a reading of the pod `trainer` in its node's GPUNode."""

        def probe() -> Object | None:
            status = self.factory.plane.api.get(f"/apis/{API_VERSION}/gpunodes/{NODE}")["status"]
            found: Object = next((one for one in status.get("pods", []) if one["name"] == "trainer"), {})
            return found if true(found) else None

        return wait_for(what, probe, CEILING_SECONDS)

    def sweep(self) -> None:
        """Take every pool and every pod away."""
        api = self.factory.plane.api
        for pool in api.list(f"/apis/{API_VERSION}/namespaces/default/inferencepools"):
            api.delete(self.factory.pool_path(pool["metadata"]["name"]))

        def swept() -> bool:
            left = api.list(PODS)
            for pod in left:
                if "deletionTimestamp" not in pod["metadata"]:
                    api.delete(f"{PODS}/{pod['metadata']['name']}")
            return not left

        wait_for("every pod is gone", swept, CEILING_SECONDS)

    def wait_committed(self, gpu_watts: float) -> None:
        def probe() -> bool:
            watts: float = self.factory.domain_status("row-a").get("committedWatts", 0.0)
            return abs(watts - OVERHEAD * gpu_watts) <= 0.01 * OVERHEAD * gpu_watts

        wait_for(f"{OVERHEAD * gpu_watts:.0f} W are committed", probe, CEILING_SECONDS)

    @property
    def holders(self) -> dict[tuple[str, str], float]:
        found = self.factory.domain_status("row-a").get("holders", [])
        return {(one["kind"], one.get("name", "")): one["watts"] for one in found}


def _owner(claim: Object) -> str:
    owners: list[Object] = claim["metadata"].get("ownerReferences", [])
    return next((one["name"] for one in owners), "")


def _results(claim: Object) -> list[str]:
    devices = claim.get("status", {}).get("allocation", {}).get("devices", {})
    return [one["device"] for one in devices.get("results", [])]


@pytest.fixture(scope="module")
def started() -> Iterator[Rig]:
    with ControlPlane.start() as plane:
        add_nodes(plane, [gpu_node(NODE, product=PRODUCT, gpus=GPUS)])
        install_chart(plane)
        with start_plant(plane, [NODE]) as plant:
            agents = start_agents(plane, plant, [NODE], heartbeat_seconds=2)
            uuids = plant.plant.uuids(NODE)
            claims.publish(plane, NODE, uuids, PRODUCT)
            claims.template(plane, "default", "one-gpu")
            operator = start_operator(plane, env=BRISK, keep_running=True)
            operator.wait_ready()
            factory = Factory(plane, Publisher(plane), operator)
            overhead = {"watts": 0, "perGPUWatt": OVERHEAD - 1}
            factory.domain("row-a", 50_000, {"kubernetes.io/hostname": NODE}, overhead=overhead)
            yield Rig(factory, plant, agents, uuids)
            agents.stop_all()


@pytest.fixture
def rig(started: Rig) -> Iterator[Rig]:
    """Nobody is there, and every GPU rests."""
    started.wait_committed(GPUS * IDLE_WATTS)
    yield started
    started.agents.answer(NODE, RIGHTLY)
    started.sweep()


def test_a_claims_gpu_is_its_pods_by_the_agents_word_and_paid_at_its_limit(rig: Rig) -> None:
    uid = rig.train("trainer")["metadata"]["uid"]
    claim, uuid = rig.granted("trainer")

    def right(told: Object) -> bool:
        truth = rig.plant.plant.pod_watts(NODE).get(uid, 0.0)
        return truth > 0 and abs(told.get("watts", 0.0) - truth) <= 0.02 * truth

    told = rig.until("the agent says what the claim's pod draws", right)
    assert (told["devices"], told["claims"], told["attribution"]) == ([uuid], [f"default/{claim}"], "Exact")
    before = told.get("energyJoules", 0.0)
    rig.until("its joules rise", lambda told: told.get("energyJoules", 0.0) > before + 1000)
    rig.wait_committed(LIMIT_WATTS + (GPUS - 1) * IDLE_WATTS)
    assert rig.holders["Foreign", "default/trainer"] == pytest.approx(LIMIT_WATTS, rel=0.01)


def test_a_claims_gpu_is_free_for_no_pool_until_its_pod_is_gone(rig: Rig) -> None:
    rig.train("trainer")
    rig.granted("trainer")
    rig.factory.pool("whole", gpus=GPUS)
    waiting = rig.factory.wait_waiting("whole", "InsufficientGPUs")
    assert "ClaimedGPU: 1 held through ResourceClaims" in waiting["message"], waiting
    assert waiting["wouldFit"] == f"free 1 GPU on {NODE}"
    rig.factory.pool("smaller", gpus=GPUS - 1)
    rig.factory.wait_running("smaller", 1, CEILING_SECONDS)
    rig.factory.delete_pool("smaller")
    rig.factory.plane.api.delete(f"{PODS}/trainer")
    rig.factory.wait_running("whole", 1, CEILING_SECONDS)


def test_the_claim_counts_before_any_kubelet_has_said_so(rig: Rig) -> None:
    rig.agents.answer(NODE, HANGING)
    status = f"/apis/{API_VERSION}/gpunodes/{NODE}"
    wait_for(
        "the agent knows no holders",
        lambda: rig.factory.plane.api.get(status)["status"]["podResources"] == "Unavailable",
        CEILING_SECONDS,
    )
    rig.train("trainer")
    rig.granted("trainer")
    rig.factory.pool("whole", gpus=GPUS)
    waiting = rig.factory.wait_waiting("whole", "InsufficientGPUs")
    assert "ClaimedGPU: 1 held through ResourceClaims" in waiting["message"], waiting
    rig.wait_committed(LIMIT_WATTS + (GPUS - 1) * IDLE_WATTS)
    assert rig.holders["Foreign", "default/trainer"] == pytest.approx(LIMIT_WATTS, rel=0.01)


def test_a_pool_that_claims_gpus_is_refused_and_told_the_field(rig: Rig) -> None:
    with pytest.raises(ApiError, match="no container asks for GPUs"):
        rig.factory.pool("claiming", pod=CLAIMING, container={"resources": SERVER["resources"]})
    both = {**SERVER["resources"], "limits": {GPU_RESOURCE: "1"}}
    rig.factory.pool("claiming", pod=CLAIMING, container={"resources": both})
    condition = rig.factory.wait_condition("claiming", "Ready", "InvalidSpec")
    assert "spec.template.spec.resourceClaims" in condition["message"], condition
    assert "remove it from the template" in condition["message"], condition
    assert rig.factory.pods("claiming") == []


def test_an_adopted_pod_that_claims_its_gpus_waits_and_names_the_field(rig: Rig) -> None:
    rig.factory.apply("InferencePool", "adopted", {})
    metadata = {"name": "stray", "labels": {POOL_LABEL: "adopted"}}
    spec = {**CLAIMING, "containers": [SERVER], "schedulingGates": [{"name": GATE}]}
    rig.factory.plane.api.create(PODS, {"metadata": metadata, "spec": spec})
    waiting = rig.factory.wait_waiting("adopted", "UnjudgedConstraint", SOON_SECONDS)
    assert "spec.resourceClaims" in waiting["message"], waiting
    assert is_gated(rig.factory.pods("adopted")[0])
