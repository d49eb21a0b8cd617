"""Trimming on the closed loop: operator, agent, capper and plant as four processes, and the plant obeys the limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from factory import BRISK
from penstock.api.names import API_VERSION
from rig.agents import RunningPlant, start_agents, start_plant
from rig.cappers import start_cappers
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart, start_operator
from rig.waiting import wait_for
from row import QUICK

Object = dict[str, Any]

NODE = "gpu-0"
GPU_NODE = f"/apis/{API_VERSION}/gpunodes/{NODE}"
ROW = f"/apis/{API_VERSION}/powerdomains/row"
POOLS = f"/apis/{API_VERSION}/namespaces/default/inferencepools"
PODS = "/api/v1/namespaces/default/pods"
OVERHEAD = 1.55
AMPLE_WATTS, CUT_WATTS = 6000, 3200
CEILING_SECONDS = 90.0
LEAD_SECONDS = 25
"""From the announcement of the cut until it counts."""
SHED_AFTER_SECONDS = 8


@dataclass(frozen=True)
class Floor:
    plane: ControlPlane
    running: RunningPlant

    def draw_watts(self) -> float:
        """What the node draws at the PDU, by the plant itself."""
        return OVERHEAD * self.running.plant.node_watts(NODE)

    def limits(self) -> dict[str, set[float]]:
        """The enforced limits by pool, as the agent read them back for the pods that the kubelet named."""
        status = self.plane.api.get(GPU_NODE)["status"]
        enforced = {gpu["uuid"]: gpu["enforcedLimitWatts"] for gpu in status["gpus"]}
        pools = {pod["metadata"]["name"]: pod["metadata"]["labels"]["penstock.dev/pool"] for pod in self.pods()}
        found: dict[str, set[float]] = {}
        for pod in status.get("pods", []):
            if pod["name"] in pools:
                found.setdefault(pools[pod["name"]], set()).update(enforced[uuid] for uuid in pod["devices"])
        return found

    def pods(self) -> list[Object]:
        return self.plane.api.list(PODS, labelSelector="penstock.dev/pool")

    def caps(self) -> list[Object]:
        found: list[Object] = self.plane.api.get(GPU_NODE).get("spec", {}).get("caps", [])
        return found

    def deeds(self) -> list[Object]:
        """What the row's ladder did, newest first."""
        found: list[Object] = self.plane.api.get(ROW)["status"]["ladder"].get("actions", [])
        return found

    def hurdle(self, name: str) -> Object:
        """The pool's condition that says what keeps it from being capped; empty where nothing does."""
        conditions = self.plane.api.get(f"{POOLS}/{name}").get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == "Trimmable" and one["status"] == "False"), {})

    def budget(self, watts: float, in_seconds: float, **confirm: float) -> datetime:
        """Announce a budget; when it counts."""
        at = (datetime.now(UTC) + timedelta(seconds=in_seconds)).replace(microsecond=0)
        told = {"watts": watts, "effectiveAt": at.strftime("%Y-%m-%dT%H:%M:%SZ"), **confirm}
        self.plane.api.patch(ROW, {"spec": {"budget": told}})
        return at


def pool(name: str, **power: Any) -> Object:
    limits = {"limits": {"nvidia.com/gpu": "2"}}
    spec = {
        "terminationGracePeriodSeconds": 1,
        "priorityClassName": name,
        "containers": [{"name": "server", "image": "server:1", "resources": limits}],
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "template": {"spec": spec}, "power": power},
    }


@pytest.fixture(scope="module")
def floor() -> Iterator[Floor]:
    """A row of one node: a pool that matters and one that matters less, both of them running and both to be capped."""
    with ControlPlane.start() as plane:
        add_nodes(plane, [gpu_node(NODE, product="NVIDIA-H200", gpus=4, labels={"row": "a"})])
        install_chart(plane, {"capper.enabled": True, "capper.mode": "Enforce"})
        for name, value in (("batch", 10), ("urgent", 1000)):
            kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
            plane.api.apply({**kind, "value": value})
        row = {"nodeSelector": {"matchLabels": {"row": "a"}}, "budget": {"watts": AMPLE_WATTS}}
        plane.api.apply({"apiVersion": API_VERSION, "kind": "PowerDomain", "metadata": {"name": "row"}, "spec": row})
        with start_plant(plane, [NODE]) as running:
            agents = start_agents(plane, running, [NODE], heartbeat_seconds=2)
            cappers = start_cappers(plane, running, [NODE])
            operator = start_operator(plane, env=BRISK)
            operator.wait_ready()
            for name in ("batch", "urgent"):
                plane.api.apply(pool(name, minCapWatts=250, shed="Never"))
            yield Floor(plane, running)
            cappers.stop_all()
            agents.stop_all()


def test_a_cut_that_is_announced_is_met_by_the_lower_priority_before_it_counts(floor: Floor) -> None:
    both = {"batch": {700}, "urgent": {700}}
    wait_for("both pools run and draw in full", lambda: floor.limits() == both, CEILING_SECONDS)
    wait_for("the draw is above the cut", lambda: floor.draw_watts() > CUT_WATTS, CEILING_SECONDS)

    counts_at = floor.budget(CUT_WATTS, LEAD_SECONDS)
    wait_for("the draw has come down", lambda: floor.draw_watts() <= CUT_WATTS, CEILING_SECONDS)
    ahead_seconds = (counts_at - datetime.now(UTC)).total_seconds()
    assert ahead_seconds > 0, "before it counts"

    above: list[float] = []
    while (datetime.now(UTC) - counts_at).total_seconds() < 10:
        if datetime.now(UTC) >= counts_at:
            above.append(max(0.0, floor.draw_watts() - CUT_WATTS))
        time.sleep(0.2)
    assert above
    assert sum(above) == 0
    limits = floor.limits()
    assert limits["urgent"] == {700}, "nothing of higher priority was touched"
    (batch,) = limits["batch"]
    assert OVERHEAD * 1.03 * 2 * (batch + 700) <= CUT_WATTS, "what the limits allow is within the cut"
    assert batch >= 250, "and no lower than the pool takes"
    assert len(floor.pods()) == 2, "and nothing was shed"


def test_a_cut_below_what_all_minimum_caps_allow_is_complained_of_long_before_it_counts(floor: Floor) -> None:
    lowest = OVERHEAD * 4 * 250
    floor.budget(lowest - 200, 600, confirm=lowest - 200)

    def reachable() -> Object | None:
        found: Object = floor.plane.api.get(ROW)["status"]["ladder"]
        return found if "at its lowest it draws" in found["reason"] else None

    told = wait_for("how low it gets is said", reachable, CEILING_SECONDS)
    assert abs(told["lowestReachableWatts"] - lowest) < 0.05 * lowest
    assert f"more than the {lowest - 200:,.0f} W that its budget comes down to" in told["reason"]
    assert floor.plane.api.get(ROW)["status"]["budgetWatts"] == CUT_WATTS, "which does not count yet"


def test_limits_come_back_in_steps_once_there_is_room(floor: Floor) -> None:
    (before,) = floor.limits()["batch"]
    floor.budget(AMPLE_WATTS, 0)

    def raised() -> float | None:
        (now,) = floor.limits()["batch"]
        return now if now > before else None

    # It is left after two minutes below its exit, and rises by a twentieth then.
    now = wait_for("the limit rises", raised, 10 * 60)
    assert now == before + 35


def test_a_cap_ends_with_its_pod(floor: Floor) -> None:
    assert floor.caps()
    floor.plane.api.delete(f"{POOLS}/batch")
    wait_for("nothing is asked for any more", lambda: not floor.caps(), CEILING_SECONDS)

    def restored() -> bool:
        gpus = floor.plane.api.get(GPU_NODE)["status"]["gpus"]
        return {gpu["enforcedLimitWatts"] for gpu in gpus} == {700}

    wait_for("every limit is what it was", restored, CEILING_SECONDS)


def test_a_cap_that_no_device_takes_is_told_and_a_pool_that_did_not_opt_in_keeps_its_limit(floor: Floor) -> None:
    floor.plane.api.apply(pool("batch", minCapWatts=100))
    told = wait_for("the cap that no device takes is told", lambda: floor.hurdle("batch"), CEILING_SECONDS)
    assert told["reason"] == "CapOutOfRange", told
    assert "spec.power.minCapWatts: 100: a NVIDIA-H200 on gpu-0 takes 200 to 700 W" in told["message"], told

    floor.plane.api.apply(pool("batch"))
    wait_for("nothing is told any more", lambda: not floor.hurdle("batch"), CEILING_SECONDS)
    both = {"batch": {700}, "urgent": {700}}
    wait_for("both pools run and draw in full", lambda: floor.limits() == both, CEILING_SECONDS)
    wait_for("the draw is above the cut", lambda: floor.draw_watts() > CUT_WATTS, CEILING_SECONDS)
    floor.budget(CUT_WATTS, LEAD_SECONDS)
    wait_for("the other pool is capped", lambda: max(floor.limits()["urgent"]) < 700, CEILING_SECONDS)
    wait_for("the draw has come down", lambda: floor.draw_watts() <= CUT_WATTS, CEILING_SECONDS)
    assert floor.limits()["batch"] == {700}, "though it matters less"
    assert len(floor.pods()) == 2, "and nothing was shed"


def test_what_caps_alone_have_held_for_too_long_is_shed(floor: Floor) -> None:
    for name in ("batch", "urgent"):
        floor.plane.api.delete(f"{POOLS}/{name}")
    wait_for("both pools are gone", lambda: not floor.pods(), CEILING_SECONDS)
    ladder = {**QUICK, "shedAfterSeconds": SHED_AFTER_SECONDS}
    floor.plane.api.patch(ROW, {"spec": {"ladder": ladder}})
    floor.budget(AMPLE_WATTS, 0)
    floor.plane.api.apply(pool("batch", minCapWatts=250))
    floor.plane.api.apply(pool("urgent", minCapWatts=250, shed="Never"))
    both = {"batch": {700}, "urgent": {700}}
    wait_for("both pools run and draw in full", lambda: floor.limits() == both, CEILING_SECONDS)
    wait_for("the draw is above the cut", lambda: floor.draw_watts() > CUT_WATTS, CEILING_SECONDS)
    # Capped as far as they may be, they draw more than trimming is left at, and less than caps would not do for.
    cut = round(OVERHEAD * 4 * 250 / 0.915)
    announced = datetime.now(UTC)
    floor.budget(cut, 10, confirm=cut)
    lowest = {"batch": {250}, "urgent": {250}}
    wait_for("both are capped as far as they may be", lambda: floor.limits() == lowest, CEILING_SECONDS)

    def shed() -> Object | None:
        return next((one for one in floor.deeds() if one["action"] == "Evict"), None)

    told = wait_for("one is shed", shed, CEILING_SECONDS)
    assert told["subject"].startswith("default/batch-")
    capped = [at(one) for one in floor.deeds() if one["action"] == "Cap" and at(one) >= announced - SECOND]
    assert at(told) - min(capped) >= SHED_AFTER_SECONDS * SECOND - SECOND
    wait_for("it complies", lambda: floor.draw_watts() <= 0.85 * cut, CEILING_SECONDS)
    assert floor.limits().keys() == {"urgent"}


SECOND = timedelta(seconds=1)


def at(deed: Object) -> datetime:
    return datetime.fromisoformat(deed["at"])
