"""Behaviour 8: two operators, one leader, and a leader that was frozen between its lease check and its write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from factory import BRISK, PATIENCE_SECONDS, Factory, fleet, is_gated, open_factory
from penstock.api.names import FENCE_ANNOTATION, LEASE_NAME
from rig.audit import Request
from rig.controlplane import ControlPlane
from rig.faults import FaultProxy, Hold, writes
from rig.install import NAMESPACE, OPERATOR_ACCOUNT, Operator, start_operator
from rig.waiting import wait_for

TAKEOVER_CEILING_SECONDS = 200.0
"""Ten times what is promised."""
PATIENT = {**BRISK, "PENSTOCK_WAITING_LEAVES_COUNT_SECONDS": "600"}
"""A pod that waits stays at the gate for as long as a test looks at it."""
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{LEASE_NAME}"


@dataclass
class Pair:
    """A leader that speaks through a proxy, and a standby that speaks plainly."""

    factory: Factory
    proxy: FaultProxy
    standby: Operator

    @property
    def leader(self) -> Operator:
        return self.factory.operator

    def holder(self) -> str:
        spec = self.factory.plane.api.get(LEASE)["spec"]
        return f"{spec['holderIdentity']}/{spec['leaseTransitions']}"

    def lifts(self, mark: int) -> list[Request]:
        ours = self.factory.audit().since(mark, user=self.factory.operator_user)
        return [one for one in ours if one.resource == "pods" and one.verb == "patch"]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ControlPlane.start(audit=True) as plane:
        opened = open_factory(plane)
        opened.operator.stop()
        with FaultProxy(plane) as proxy:
            through = proxy.kubeconfig(plane.service_account(NAMESPACE, OPERATOR_ACCOUNT))
            opened.operator = start_operator(plane, name="leader", kubeconfig=through, env=PATIENT)
            opened.operator.wait_ready()
            wait_for("it leads", lambda: opened.operator.metrics()["penstock_leading"] == 1, PATIENCE_SECONDS)
            standby = start_operator(plane, name="standby", env=PATIENT)
            standby.wait_ready()
            yield Pair(opened, proxy, standby)
            opened.telemetry.stop()


def test_one_leads_and_the_other_stands_by_and_writes_nothing(pair: Pair) -> None:
    pair.factory.add(fleet("DE"))
    first = pair.holder()
    pair.factory.pool("llama", replicas=2)
    for pod in pair.factory.wait_running("llama", 2):
        assert pod["metadata"]["annotations"][FENCE_ANNOTATION] == first
    assert pair.leader.metrics()["penstock_leading"] == 1
    assert pair.standby.metrics().get("penstock_leading", 0.0) == 0
    written = pair.standby.metrics()
    assert not [key for key in written if key.startswith("penstock_api_requests_total") and 'verb="PATCH"' in key]


def test_a_leader_that_is_told_to_stop_hands_over_at_once(pair: Pair) -> None:
    pair.factory.add(fleet("DE"))
    assert pair.leader.stop() == 0
    wait_for("the standby leads", lambda: pair.standby.metrics()["penstock_leading"] == 1, TAKEOVER_CEILING_SECONDS)
    pair.factory.pool("llama")
    pair.factory.wait_running("llama", 1)


def test_a_leader_frozen_between_its_check_and_its_write_is_refused_by_the_api_server(pair: Pair) -> None:
    pair.factory.add(fleet("DE"))
    old = pair.holder()
    mark = pair.factory.audit().mark()
    held = pair.proxy.add(Hold(), lambda request: writes("pods")(request) and request.method == "PATCH", times=1)
    pair.factory.pool("llama")
    # The write has left the leader, which checked its Lease before; now the leader freezes, past its Lease.
    held.wait_hit()
    pair.leader.freeze()
    wait_for(
        "the standby has decided",
        lambda: pair.factory.running("llama"),
        TAKEOVER_CEILING_SECONDS,
    )
    (pod,) = pair.factory.running("llama")
    assert pod["metadata"]["annotations"][FENCE_ANNOTATION] == pair.holder() != old
    # A second write of the old epoch, for a pod that still waits at the gate, reaches the API server only now.
    pair.proxy.release(held)
    pair.leader.thaw()
    wait_for("the old leader ends itself", lambda: pair.leader.exit_code is not None, TAKEOVER_CEILING_SECONDS)
    assert pair.leader.exit_code != 0
    accepted = [one for one in pair.lifts(mark) if one.code < 300]
    assert [one.name for one in accepted] == [pod["metadata"]["name"]]


def test_a_write_of_an_old_epoch_for_a_pod_that_still_waits_is_forbidden(pair: Pair) -> None:
    pair.factory.add(fleet("DE"))
    mark = pair.factory.audit().mark()
    held = pair.proxy.add(Hold(), lambda request: writes("pods")(request) and request.method == "PATCH", times=1)
    pair.factory.pool("llama")
    held.wait_hit()
    pair.leader.freeze()
    # The standby may not place it: its node is cordoned, so the pod waits at the gate when the old write arrives.
    pair.factory.plane.kubectl("cordon", "de-0")
    wait_for("the standby leads", lambda: pair.standby.metrics()["penstock_leading"] == 1, TAKEOVER_CEILING_SECONDS)
    pair.factory.wait_waiting("llama", "Tainted", PATIENCE_SECONDS)
    pair.proxy.release(held)
    refused = wait_for(
        "the API server's answer to the old write",
        lambda: [one for one in pair.lifts(mark) if one.code >= 400],
        PATIENCE_SECONDS,
    )
    assert [one.code for one in refused] == [403]
    assert is_gated(pair.factory.pods("llama")[0])
    pair.leader.thaw()
    pair.factory.plane.kubectl("uncordon", "de-0")
    pair.factory.wait_running("llama", 1)
    assert len([one for one in pair.lifts(mark) if one.code < 300]) == 1
