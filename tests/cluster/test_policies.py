"""Our gate, the pool label and the fence on the real API server: what the policies refuse, and what they let go on."""

from collections.abc import Iterator

import pytest

from admission import (
    ADMINISTRATOR,
    BREAK_GLASS,
    EPOCH,
    FENCE,
    LEADER,
    NAMESPACE,
    OPERATOR,
    PODS,
    USER,
    House,
    Object,
    create,
    furnish,
    gated,
    hold_lease,
    label,
    lease_says,
    lift,
    pod_spec,
    refusal,
)
from penstock.api.names import DECISION_ANNOTATION, FENCE_ANNOTATION, GATE, LEASE_NAME, POOL_LABEL
from rig.api import ApiError
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import install_chart
from rig.waiting import wait_for

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
TRUSTED = (OPERATOR, BREAK_GLASS)
OTHERS = (ADMINISTRATOR, USER)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with ControlPlane.start() as cp:
        add_nodes(cp, [gpu_node("gpu-0")])
        install_chart(cp, {"operator.replicas": 0})
        yield furnish(cp)


@pytest.mark.parametrize("identity", OTHERS)
def test_nobody_else_lifts_our_gate(house: House, identity: str) -> None:
    path = gated(house)
    message = refusal("gate", house[identity], path, lift(FENCE), "json")
    assert f"system:serviceaccount:{NAMESPACE}:penstock-operator" in message
    assert "penstock:break-glass" in message
    assert house.cp.api.get(path)["spec"]["schedulingGates"] == [{"name": GATE}]


@pytest.mark.parametrize(("identity", "fence"), ((OPERATOR, FENCE), (BREAK_GLASS, None)))
def test_the_operator_and_the_break_glass_group_lift_our_gate(house: House, identity: str, fence: str | None) -> None:
    assert "schedulingGates" not in house[identity].patch(gated(house), lift(fence), "json")["spec"]


def test_break_glass_takes_a_fence_away_that_the_maker_of_a_pod_wrote(house: House) -> None:
    path = gated(house, FENCE)
    gone = {"op": "remove", "path": f"/metadata/annotations/{FENCE_ANNOTATION.replace('/', '~1')}"}
    lifted = house[BREAK_GLASS].patch(path, [*lift(), gone], "json")
    assert ("schedulingGates" in lifted["spec"], lifted["metadata"].get("annotations", {})) == (False, {})


def test_what_a_leader_lifted_is_everybodys_to_write_but_its_fence(house: House) -> None:
    path = gated(house)
    house[OPERATOR].patch(path, lift(FENCE), "json")
    house[USER].patch(path, {"metadata": {"annotations": {"team": "search"}}})
    refusal("gate", house[USER], path, {"metadata": {"annotations": {FENCE_ANNOTATION: None}}})


CHANGES_OF_POOL = pytest.mark.parametrize(
    ("labels", "value"),
    (
        pytest.param({POOL_LABEL: "llama"}, "other", id="moved to another pool"),
        pytest.param({POOL_LABEL: "llama"}, None, id="taken out of its pool"),
        pytest.param({}, "llama", id="put into a pool after its creation"),
    ),
)
BY_EACH_WAY = pytest.mark.parametrize("subresource", ("", "/status"), ids=("pods", "status"))


@pytest.mark.parametrize("identity", OTHERS)
@CHANGES_OF_POOL
@BY_EACH_WAY
def test_nobody_else_changes_the_pool_of_a_pod(
    house: House, identity: str, labels: dict[str, str], value: str | None, subresource: str
) -> None:
    path = create(house, GATE, labels=labels)
    message = refusal("gate", house[identity], path + subresource, label(value))
    assert "set it in the pod template, or delete the pod" in message
    assert house.cp.api.get(path)["metadata"].get("labels", {}) == labels


@pytest.mark.parametrize("identity", TRUSTED)
@CHANGES_OF_POOL
@BY_EACH_WAY
def test_the_operator_and_the_break_glass_group_change_the_pool_of_a_pod(
    house: House, identity: str, labels: dict[str, str], value: str | None, subresource: str
) -> None:
    path = create(house, GATE, labels=labels)
    house[identity].patch(path + subresource, label(value))
    assert house.cp.api.get(path)["metadata"].get("labels", {}).get(POOL_LABEL) == value


@pytest.mark.parametrize(
    "fence",
    (
        pytest.param(None, id="no fence"),
        pytest.param("", id="an empty fence"),
        pytest.param(f"{LEADER}/{EPOCH - 1}", id="the fence of an epoch that is over"),
        pytest.param(f"somebody-else/{EPOCH}", id="the fence of another holder"),
        pytest.param(f"{LEADER}/{EPOCH}0", id="the fence of an epoch to come"),
    ),
)
def test_a_lift_by_the_operator_with_any_other_fence_is_refused(house: House, fence: str | None) -> None:
    message = refusal("fence", house[OPERATOR], gated(house), lift(fence), "json")
    assert f"Lease {NAMESPACE}/{LEASE_NAME}" in message


def test_only_the_lift_is_fenced(house: House) -> None:
    path = gated(house)
    house[OPERATOR].patch(path, {"metadata": {"annotations": {DECISION_ANNOTATION: "{}"}}})
    house[OPERATOR].patch(path, label(None))
    house[OPERATOR].delete(path)


@pytest.mark.parametrize("others", ((), (GATE,)), ids=("alone", "beside ours"))
def test_a_foreign_gate_is_anybodys_to_lift(house: House, others: tuple[str, ...]) -> None:
    path = create(house, "example.com/quota", *others, labels={POOL_LABEL: "llama"})
    left = house[USER].patch(path, lift(), "json")["spec"].get("schedulingGates", [])
    assert left == [{"name": gate} for gate in others]


def test_after_a_takeover_the_old_leader_is_refused(house: House) -> None:
    try:
        hold_lease(house.cp.api, "penstock-operator-1_c3d4", EPOCH + 1)
        lease_says(house, f"penstock-operator-1_c3d4/{EPOCH + 1}")
        refusal("fence", house[OPERATOR], gated(house), lift(FENCE), "json")
    finally:
        hold_lease(house.cp.api, LEADER, EPOCH)
        lease_says(house, FENCE)


def test_a_lease_that_was_let_go_is_no_leaders_fence(house: House) -> None:
    try:
        hold_lease(house.cp.api, "", EPOCH)
        wait_for(
            "the old fence is refused",
            lambda: refusal("fence", house[OPERATOR], gated(house), lift(FENCE), "json"),
            30,
        )
    finally:
        hold_lease(house.cp.api, LEADER, EPOCH)
        lease_says(house, FENCE)


@pytest.fixture
def no_lease(house: House) -> Iterator[None]:
    """The Lease is gone, and the API server knows: a lift without a fence passes."""
    house.cp.api.delete(f"{LEASES}/{LEASE_NAME}")
    lease_says(house, "")
    yield
    hold_lease(house.cp.api, LEADER, EPOCH)
    wait_for(
        "a stale fence is refused again",
        lambda: refusal("fence", house[OPERATOR], gated(house), lift("nobody/0"), "json"),
        30,
    )


@pytest.mark.usefixtures("no_lease")
class TestWithoutALease:
    """Nobody leads; what runs goes on."""

    def running(self, house: House) -> str:
        path = create(house, labels={POOL_LABEL: "llama"})
        wait_for("the pod runs", lambda: house.cp.api.get(path)["status"].get("phase") == "Running", 30)
        return path

    def test_a_running_pod_takes_status_labels_finalizers_and_deletion(self, house: House) -> None:
        path = self.running(house)
        for identity in (OPERATOR, ADMINISTRATOR):
            api = house[identity]
            api.patch(path, {"metadata": {"labels": {"team": identity.split()[-1]}}})
            api.patch(path, {"metadata": {"finalizers": ["example.com/hold"]}})
            api.patch(path, {"metadata": {"finalizers": None}})
        house.cp.api.patch(f"{path}/status", {"status": {"message": "still served"}})
        house[OPERATOR].patch(path, label(None))
        house[OPERATOR].delete(path)
        wait_for("the pod is gone", lambda: gone(house, path), 60)

    def test_a_gated_pod_takes_status_labels_finalizers_and_deletion(self, house: House) -> None:
        path = gated(house)
        house.cp.api.patch(f"{path}/status", {"status": {"message": "waits"}})
        house.cp.api.patch(path, {"metadata": {"labels": {"team": "search"}, "finalizers": ["example.com/hold"]}})
        house.cp.api.patch(path, {"metadata": {"finalizers": None}})
        house[USER].delete(path)
        wait_for("the pod is gone", lambda: gone(house, path), 60)

    def test_the_gate_is_still_not_anybodys_to_lift(self, house: House) -> None:
        refusal("gate", house[USER], gated(house), lift(), "json")


def gone(house: House, path: str) -> bool:
    try:
        house.cp.api.get(path)
    except ApiError as error:
        return error.status == 404
    return False


def deployment(name: str, replicas: int) -> Object:
    """A Deployment as the operator makes one: the pool label in selector and template. Its pods wait for no gate."""
    labels = {POOL_LABEL: name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec()},
        },
    }


def pods_of(house: House, name: str) -> list[Object]:
    found = house.cp.api.list(PODS, labelSelector=f"{POOL_LABEL}={name}")
    return [found_pod for found_pod in found if "deletionTimestamp" not in found_pod["metadata"]]


def run(house: House, name: str, replicas: int) -> list[Object]:
    """Wait until so many pods are bound and run, and return them."""

    def all_run() -> list[Object] | None:
        pods = pods_of(house, name)
        up = [each for each in pods if each["status"].get("phase") == "Running" and each["spec"].get("nodeName")]
        return pods if len(pods) == len(up) == replicas else None

    return wait_for(f"{replicas} pods of {name} run", all_run, 60)


class TestTheClustersOwnControllersAreNotDisturbed:
    def test_a_deployment_is_scheduled_scaled_released_adopted_and_collected(self, house: House) -> None:
        api, name = house.cp.api, "undisturbed"
        api.create(DEPLOYMENTS, deployment(name, 2))
        first = run(house, name, 2)[0]["metadata"]

        api.patch(f"{DEPLOYMENTS}/{name}/scale", {"spec": {"replicas": 3}})
        run(house, name, 3)

        api.patch(f"{PODS}/{first['name']}", {"metadata": {"labels": {"pod-template-hash": None}}})
        wait_for("the ReplicaSet lets go and replaces", lambda: len(run(house, name, 4)) == 4, 60)
        released = api.get(f"{PODS}/{first['name']}")["metadata"]
        assert not released.get("ownerReferences")

        restored = {"metadata": {"labels": {"pod-template-hash": first["labels"]["pod-template-hash"]}}}
        api.patch(f"{PODS}/{first['name']}", restored)
        wait_for("the ReplicaSet adopts, and scales down again", lambda: len(run(house, name, 3)) == 3, 60)

        api.delete(f"{DEPLOYMENTS}/{name}", propagationPolicy="Background")
        wait_for("the garbage is collected", lambda: not api.list(PODS, labelSelector=f"{POOL_LABEL}={name}"), 60)
