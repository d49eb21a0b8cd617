"""Agent, capper and plant as three processes on a real control plane: what is asked of a node is what its GPUs do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pynvml
import pytest

from noderig import CEILING_SECONDS, GPU_NODE, NODE, PODS, NodeRig, node_rig
from penstock.capper.decision import Note
from penstock.sim import faults
from penstock.sim.nvml_state import NvmlState, Target
from rig.api import Api, ApiError
from rig.cappers import Cappers, start_cappers
from rig.install import NAMESPACE, OPERATOR_ACCOUNT
from rig.waiting import wait_for

Object = dict[str, Any]


@dataclass(frozen=True)
class Rig(NodeRig):
    """A machine with a capper."""

    cappers: Cappers
    operator: Api
    """The operator's identity: what it may write, without its decisions."""

    @property
    def uuids(self) -> list[str]:
        return [self.state.read(index).uuid.decode() for index in range(2)]

    def capped(self, status: Object) -> dict[str, tuple[str, str]]:
        """Outcome and reason by UUID, as the capper tells them."""
        told = status.get("capper", {}).get("gpus", [])
        return {one["uuid"]: (one["outcome"], one.get("reason", "")) for one in told}

    def limits(self, status: Object) -> list[float]:
        """The enforced limits as the agent read them back."""
        return [gpu["enforcedLimitWatts"] for gpu in status["gpus"]]

    def ask(self, *caps: Object, age_seconds: float = 0.0, urgent: bool = False) -> None:
        """As the operator does, or did so long ago."""
        at = (datetime.now(UTC) - timedelta(seconds=age_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        spec = {"caps": list(caps), "capsAt": at, "capsFence": "", "capsUrgent": urgent}
        self.operator.patch(GPU_NODE, {"spec": spec})

    def cap(self, index: int, watts: float, pod: str = "replica") -> Object:
        uid = self.plane.api.get(f"{PODS}/{pod}")["metadata"]["uid"]
        return {"uuid": self.uuids[index], "watts": watts, "namespace": "default", "pod": pod, "podUID": uid}


@pytest.fixture(scope="module")
def started() -> Iterator[Rig]:
    with node_rig(gpus=2, chart={"capper.enabled": True, "capper.mode": "Enforce"}) as found:
        plane = found.plane
        operator = plane.api_as(plane.service_account(NAMESPACE, OPERATOR_ACCOUNT))
        cappers = start_cappers(plane, found.running, [NODE])
        yield Rig(plane, found.running, found.agents, cappers, operator)
        cappers.stop_all()


@pytest.fixture
def rig(started: Rig) -> Iterator[Rig]:
    """A replica that keeps both GPUs busy at 700 W, and its agent has told so."""
    started.serve("replica", gpus=2)
    started.until("the replica's GPUs are busy, uncapped and known", lambda status: at_full_draw(started, status))
    yield started
    for index in range(2):
        faults.clear(started.state, index, Target.SET_LIMIT)
        faults.limit_externally(started.state, index, 0)
    persist(started.state, on=True)
    started.plane.api.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"labels": {"penstock.dev/capper": None}}})
    started.ask()
    started.until("every limit is back", lambda status: started.limits(status) == [700, 700])
    started.plane.api.delete(f"{PODS}/replica")
    wait_for("the replica is gone", lambda: not started.plane.api.list(PODS), CEILING_SECONDS, report=False)


def at_full_draw(rig: Rig, status: Object) -> bool:
    pods = [pod["name"] for pod in status.get("pods", []) if len(pod.get("devices", [])) == 2]
    watts = [gpu.get("powerWatts", 0) for gpu in status.get("gpus", [])]
    return pods == ["replica"] and rig.limits(status) == [700, 700] and all(one > 500 for one in watts)


def test_a_cap_is_set_the_agent_sees_it_and_the_plant_obeys_it(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400), rig.cap(1, 400))
    status = rig.until("the capper tells", lambda status: set(rig.capped(status).values()) == {("Applied", "")})
    assert status["capper"]["mode"] == "Enforce"
    assert {one["baselineWatts"] for one in status["capper"]["gpus"]} == {700}
    rig.until("the agent reads 400 W back", lambda status: rig.limits(status) == [400, 400])
    drawn = rig.until("the draw obeys", lambda status: all(gpu["powerWatts"] <= 400 for gpu in status["gpus"]))
    assert drawn["watts"] <= 800
    assert rig.running.plant.node_watts(NODE) <= 800
    rig.ask()
    rig.until("what was there before is back", lambda status: rig.limits(status) == [700, 700])
    rig.until("and the capper says so", lambda status: set(rig.capped(status).values()) == {("Restored", "")})


def test_each_change_is_an_event_about_the_gpunode(rig: Rig) -> None:
    rig.ask(rig.cap(0, 450))
    rig.until("the cap is applied", lambda status: rig.limits(status) == [450, 700])

    def told() -> list[str] | None:
        events = rig.plane.api.list("/api/v1/namespaces/default/events")
        about = [one for one in events if one["involvedObject"]["kind"] == "GPUNode"]
        found = [one["message"] for one in about if one["reason"] == "PowerLimitSet"]
        return found if any("asked for 450 W, in force 450 W" in one for one in found) else None

    wait_for("an Event tells of it", told, CEILING_SECONDS)


def test_a_capper_that_was_killed_knows_what_was_its_own_and_gives_it_back(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400), rig.cap(1, 400))
    rig.until("both are capped", lambda status: rig.limits(status) == [400, 400])
    rig.cappers.kill(NODE)
    rig.cappers.start(NODE)
    rig.ask()
    rig.until("what was there before is back", lambda status: rig.limits(status) == [700, 700])


def notes(rig: Rig) -> list[Note]:
    """What the node remembers of its limits."""
    return [msgspec.json.decode(path.read_bytes(), type=Note) for path in rig.cappers.notes(NODE).glob("*.json")]


def die_in_the_middle_of_a_set(rig: Rig, *, taken: bool) -> None:
    """The capper has noted what it is about to set, and is killed in the call; `taken`: the driver has obeyed."""
    faults.hang(rig.state, 0, Target.SET_LIMIT)
    rig.ask(rig.cap(0, 400))
    wait_for("what is about to be set is noted", lambda: notes(rig), CEILING_SECONDS)
    assert [(note.baseline_watts, note.ours_watts, note.settled) for note in notes(rig)] == [(700, 400, False)]
    if taken:
        with rig.state.change(0) as device:
            device.requested_limit_mw = 400_000
    rig.cappers.kill(NODE)
    faults.clear(rig.state, 0, Target.SET_LIMIT)


@pytest.mark.parametrize("taken", (False, True), ids=("between note and set", "between set and read-back"))
def test_a_capper_that_is_killed_in_the_middle_of_a_set_goes_on_from_what_it_noted(rig: Rig, *, taken: bool) -> None:
    die_in_the_middle_of_a_set(rig, taken=taken)
    sequence = rig.status["sequence"]
    later = rig.until("the agent has read again", lambda status: status["sequence"] >= sequence + 2)
    assert rig.limits(later) == ([400, 700] if taken else [700, 700])
    rig.cappers.start(NODE)
    rig.until("it is applied", lambda status: rig.capped(status).get(rig.uuids[0]) == ("Applied", ""))
    capped = rig.until("the agent reads it back", lambda status: rig.limits(status) == [400, 700])
    assert [one["baselineWatts"] for one in capped["capper"]["gpus"]] == [700]
    rig.ask()
    rig.until("what was there before is back", lambda status: rig.limits(status) == [700, 700])


def test_after_a_reboot_the_limit_is_nobody_s_of_ours_and_left_alone(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400))
    rig.until("the cap is applied", lambda status: rig.limits(status) == [400, 700])
    wait_for("and noted as ours", lambda: [note.settled for note in notes(rig)] == [True], CEILING_SECONDS)
    rig.cappers.kill(NODE)
    for path in rig.cappers.notes(NODE).glob("*.json"):
        # A machine cannot boot in a test: what it noted is of the boot before instead.
        path.write_text(json.dumps({**json.loads(path.read_bytes()), "bootID": "the boot before"}))
    faults.reload_driver(rig.state)
    rig.cappers.start(NODE)
    rig.until("hands off", lambda status: rig.capped(status).get(rig.uuids[0]) == ("HandsOff", "NewBoot"))
    rig.until("at the driver's own limit", lambda status: rig.limits(status) == [700, 700])


def test_a_capper_that_is_told_to_stop_leaves_the_limits_under_which_pods_run(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400))
    rig.until("the cap is applied", lambda status: rig.limits(status) == [400, 700])
    assert rig.cappers.stop(NODE) == 0
    sequence = rig.status["sequence"]
    later = rig.until("two reports later", lambda status: status["sequence"] >= sequence + 2)
    assert rig.limits(later) == [400, 700]
    rig.cappers.start(NODE)


def test_while_the_operator_is_silent_a_limit_may_sink_and_none_rises_or_is_given_back(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400), rig.cap(1, 400))
    rig.until("both are capped", lambda status: rig.limits(status) == [400, 400])
    rig.cappers.kill(NODE)
    # Two minutes cannot pass in a test: the last word is so old when the capper begins to listen.
    rig.ask(rig.cap(0, 600), rig.cap(1, 300), age_seconds=130)
    rig.cappers.start(NODE)
    kept = ("Applied", "OperatorSilent")
    wanted = dict(zip(rig.uuids, (kept, ("Applied", "")), strict=True))
    status = rig.until("it keeps the one and lowers the other", lambda status: rig.capped(status) == wanted)
    assert "no word of the operator for 120 s" in status["capper"]["message"]
    rig.until("the agent reads them back", lambda status: rig.limits(status) == [400, 300])
    rig.operator.patch(GPU_NODE, {"spec": {"caps": []}})
    status = rig.until("both are kept", lambda status: set(rig.capped(status).values()) == {kept})
    later = rig.until("two reports later", lambda now: now["sequence"] >= status["sequence"] + 2)
    assert rig.limits(later) == [400, 300]
    rig.ask()
    rig.until("with its next word what was there before is back", lambda status: rig.limits(status) == [700, 700])


def test_only_in_an_emergency_more_gpus_are_set_in_a_minute_than_the_installation_allows(rig: Rig) -> None:
    rig.cappers.stop(NODE)
    slow = start_cappers(rig.plane, rig.running, [NODE], gpus_per_minute=1)
    both = rig.cap(0, 400), rig.cap(1, 400)
    rig.ask(*both)
    waits = [("Applied", ""), ("Waiting", "Pace")]
    status = rig.until("one waits for its turn", lambda status: sorted(rig.capped(status).values()) == waits)
    later = rig.until("two reports later", lambda now: now["sequence"] >= status["sequence"] + 2)
    assert sorted(rig.limits(later)) == [400, 700]
    rig.ask(*both, urgent=True)
    rig.until("in an emergency it waits for nothing", lambda status: rig.limits(status) == [400, 400])
    slow.stop(NODE)
    rig.cappers.start(NODE)


def persist(state: NvmlState, *, on: bool) -> None:
    """Whether the driver keeps the limits of the first GPU while nobody uses it."""
    with state.change(0) as device:
        device.persistence_mode = int(on)


def fails(code: int) -> Callable[[NvmlState], None]:
    return lambda state: faults.fail(state, 0, Target.SET_LIMIT, code)


@pytest.mark.parametrize(
    ("refuse", "reason"),
    (
        (fails(pynvml.NVML_ERROR_NOT_SUPPORTED), "NotSupported"),
        (fails(pynvml.NVML_ERROR_NO_PERMISSION), "NoPermission"),
        (lambda state: faults.accept_without_applying(state, 0), "NotApplied"),
        (lambda state: persist(state, on=False), "NoPersistenceMode"),
    ),
    ids=("not supported", "no permission", "accepted but not applied", "no persistence mode"),
)
def test_a_driver_that_refuses_is_told_by_reason(rig: Rig, refuse: Callable[[NvmlState], None], reason: str) -> None:
    refuse(rig.state)
    rig.ask(rig.cap(0, 400))
    status = rig.until("the capper tells", lambda status: rig.uuids[0] in rig.capped(status))
    status = rig.until("the refusal", lambda status: rig.capped(status)[rig.uuids[0]] == ("Refused", reason))
    assert rig.limits(status) == [700, 700]


def test_a_capper_that_observes_says_what_it_would_set_and_sets_nothing(rig: Rig) -> None:
    rig.cappers.stop(NODE)
    observers = start_cappers(rig.plane, rig.running, [NODE], mode="Observe")
    rig.ask(rig.cap(0, 400), rig.cap(1, 400))
    status = rig.until("it tells", lambda status: {said for said, _ in rig.capped(status).values()} == {"Observed"})
    assert status["capper"]["mode"] == "Observe"
    later = rig.until("two reports later", lambda now: now["sequence"] >= status["sequence"] + 2)
    assert rig.limits(later) == [700, 700]
    assert [rig.state.read(index).requested_limit_mw for index in range(2)] == [700_000, 700_000]
    observers.stop(NODE)
    rig.cappers.start(NODE)


def test_a_limit_that_a_board_holds_lower_is_shown_by_both_and_fought_by_none(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400))
    rig.until("the cap is applied", lambda status: rig.limits(status) == [400, 700])
    faults.limit_externally(rig.state, 0, 300)
    rig.until("the agent sees 300 W", lambda status: rig.limits(status) == [300, 700])
    held = rig.until("hands off", lambda status: rig.capped(status)[rig.uuids[0]] == ("HandsOff", "ForeignLimit"))
    assert held["gpus"][0]["requestedLimitWatts"] == 400


def test_after_a_driver_reload_the_limit_is_nobody_s_of_ours_and_left_alone(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400))
    rig.until("the cap is applied", lambda status: rig.limits(status) == [400, 700])
    faults.reload_driver(rig.state)
    hands_off = ("HandsOff", "DriverReloaded")
    rig.until("hands off", lambda status: rig.capped(status).get(rig.uuids[0]) == hands_off)
    rig.until("at the driver's own limit", lambda status: rig.limits(status) == [700, 700])


def test_a_cap_for_another_pod_than_the_kubelet_names_is_refused(rig: Rig) -> None:
    rig.ask({**rig.cap(0, 400), "pod": "somebody-else"})
    status = rig.until("the refusal", lambda status: rig.capped(status).get(rig.uuids[0]) == ("Refused", "OtherPod"))
    assert rig.limits(status) == [700, 700]


def test_the_kill_switch_of_a_node_gives_its_limits_back(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400))
    rig.until("the cap is applied", lambda status: rig.limits(status) == [400, 700])
    rig.plane.api.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"labels": {"penstock.dev/capper": "off"}}})
    status = rig.until("the limit is back", lambda status: rig.limits(status) == [700, 700])
    rig.until("the capper says that it is off", lambda status: status["capper"]["mode"] == "Off")
    assert rig.plane.api.get(GPU_NODE)["spec"]["caps"], status


# --------------------------------------------------------------------------------------------------------- off-ramp


def release(rig: Rig, *arguments: str) -> tuple[int, list[Object]]:
    """`penstock release --caps` by a member of the break-glass group."""
    ben = rig.plane.user("ben", ("penstock:break-glass",))
    command = (sys.executable, "-m", "penstock", "release", "--caps", *arguments, "-o", "json")
    answer = subprocess.run(
        command, env={**os.environ, "KUBECONFIG": str(ben)}, capture_output=True, text=True, check=False
    )
    return answer.returncode, json.loads(answer.stdout)["objects"]


def test_release_takes_every_ask_back_and_waits_until_the_limits_are_there_again(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400), rig.cap(1, 400))
    rig.until("both are capped", lambda status: rig.limits(status) == [400, 400])
    code, objects = release(rig)
    assert code == 0, objects
    assert [rig.state.read(index).requested_limit_mw for index in range(2)] == [700_000, 700_000]
    assert "before the first cap" in objects[0]["says"]
    assert rig.plane.api.get(GPU_NODE)["spec"]["caps"] == []
    assert list(rig.cappers.notes(NODE).iterdir()) == []


def test_release_says_of_a_capper_that_is_gone_what_is_left_to_do(rig: Rig) -> None:
    rig.ask(rig.cap(0, 400))
    rig.until("the cap is applied", lambda status: rig.limits(status) == [400, 700])
    rig.until("the capper says so", lambda status: rig.capped(status).get(rig.uuids[0]) == ("Applied", ""))
    rig.cappers.stop(NODE)
    code, objects = release(rig, "--wait", "2")
    assert code == 1
    assert "does not answer" in objects[0]["says"]
    rig.cappers.start(NODE)


# ----------------------------------------------------------------------------------------------------- who may write


def refusal(policy: str, api: Api, path: str, body: Object) -> str:
    with pytest.raises(ApiError) as refused:
        api.patch(path, body)
    assert (refused.value.status, refused.value.reason) == (403, "Forbidden"), refused.value
    assert f"ValidatingAdmissionPolicy 'penstock-{policy}'" in refused.value.message
    return refused.value.message


def token(rig: Rig, component: str) -> Api:
    """The identity of the pod that a DaemonSet has on the node."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    (pod,) = rig.plane.api.list(path, labelSelector=f"app.kubernetes.io/component={component}")
    account = f"penstock-{component}"
    return rig.plane.api_as(rig.plane.service_account(NAMESPACE, account, pod=(NAMESPACE, pod["metadata"]["name"])))


CAPPER_SAYS = {"mode": "Enforce", "sequence": 1, "heartbeatSeconds": 5}


@pytest.mark.parametrize(
    ("policy", "component", "body", "says"),
    (
        pytest.param("capper", "capper", {"status": {"watts": 1}}, "only status.capper", id="a capper, the watts"),
        pytest.param("capper", "capper", {"status": {"gpus": None}}, "only status.capper", id="a capper, no GPUs"),
        pytest.param(
            "agent", "agent", {"status": {"capper": CAPPER_SAYS}}, "the capper's own", id="an agent, the caps"
        ),
        pytest.param("agent", "agent", {"status": {"capper": None}}, "the capper's own", id="an agent, no caps"),
    ),
)
def test_neither_agent_nor_capper_writes_the_others_part(
    started: Rig, policy: str, component: str, body: Object, says: str
) -> None:
    started.until("the capper has spoken", lambda status: "capper" in status)
    assert says in refusal(policy, token(started, component), f"{GPU_NODE}/status", body)


def test_a_capper_speaks_for_no_other_node(started: Rig) -> None:
    other = "/apis/penstock.dev/v1alpha1/gpunodes"
    started.plane.api.create(
        other, {"apiVersion": "penstock.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": "gpu-9"}}
    )
    body = {"status": {"capper": CAPPER_SAYS}}
    assert "its own node" in refusal("capper", token(started, "capper"), f"{other}/gpu-9/status", body)
    started.plane.api.delete(f"{other}/gpu-9")


def test_limits_are_asked_for_by_the_operator_and_the_break_glass_group_alone(started: Rig) -> None:
    body = {"spec": {"caps": [], "capsFence": "nobody/0"}}
    assert "only by system:serviceaccount" in refusal("caps", started.plane.api, GPU_NODE, body)
    ben = started.plane.api_as(started.plane.user("ben", ("penstock:break-glass",)))
    assert ben.patch(GPU_NODE, body)["spec"]["capsFence"] == "nobody/0"


def test_a_leader_of_yesterday_asks_for_no_limits(started: Rig) -> None:
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
    spec = {"holderIdentity": "penstock-operator-0", "leaseTransitions": 7}
    meta = {"name": "penstock", "namespace": NAMESPACE}
    started.plane.api.create(
        lease, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
    )

    def judged() -> bool:
        refusal("caps-fence", started.operator, GPU_NODE, {"spec": {"capsFence": "penstock-operator-0/6"}})
        return True

    wait_for("the fence of yesterday is refused", judged, CEILING_SECONDS)
    current = {"spec": {"capsFence": "penstock-operator-0/7"}}
    assert started.operator.patch(GPU_NODE, current)["spec"]["capsFence"] == "penstock-operator-0/7"
    started.plane.api.delete(f"{lease}/penstock")
