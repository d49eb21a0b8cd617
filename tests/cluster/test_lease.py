"""Who leads, on the real API server: two electors of which one is frozen, loses its network, or goes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.api.names import LEASE_NAME
from penstock.cluster.access import find_access
from penstock.cluster.client import KubeClient
from penstock.cluster.lease import Elector, Timing, WallClock
from penstock.errors import LeaseLost
from penstock.metrics import Metrics
from rig.controlplane import ControlPlane
from rig.faults import Answer, FaultProxy, LoseReply, Request, writes

TIMING = Timing(lease_seconds=3, renew_seconds=2.0, retry_seconds=0.3)
CEILING_SECONDS = 10.0 * TIMING.lease_seconds


class Freezable(WallClock):
    """A process that a SIGSTOP can hold: while frozen it neither sleeps on nor notices that time passes."""

    def __init__(self) -> None:
        self._awake = asyncio.Event()
        self._awake.set()

    def freeze(self) -> None:
        self._awake.clear()

    def thaw(self) -> None:
        self._awake.set()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self._awake.wait()


class Skewed(WallClock):
    """A machine whose wall clock is wrong by a year."""

    def utc(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=365)


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with KubeClient(await find_access(str(kubeconfig)), Metrics()) as client:
        yield client


@pytest.fixture
async def client(cp: ControlPlane) -> AsyncIterator[KubeClient]:
    async with connected(cp.kubeconfig) as one:
        yield one


@pytest.fixture
def proxied(cp: ControlPlane, ns: str) -> Iterator[tuple[FaultProxy, Path]]:
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}"
    cp.api.create(f"{roles}/roles", {"metadata": {"name": "elector"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "elector"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "elector"},
        "subjects": [{"kind": "ServiceAccount", "namespace": ns, "name": "default"}],
    }
    cp.api.create(f"{roles}/rolebindings", binding)
    with FaultProxy(cp) as proxy:
        yield proxy, proxy.kubeconfig(cp.service_account(ns, "default"))


def record(cp: ControlPlane, ns: str) -> dict[str, object]:
    spec: dict[str, object] = cp.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{ns}/leases/{LEASE_NAME}")["spec"]
    return spec


async def leads(elector: Elector) -> str:
    return await asyncio.wait_for(elector.acquire(), CEILING_SECONDS)


async def ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_frozen_leader_is_followed_and_ends_when_it_wakes(
    cp: ControlPlane, ns: str, client: KubeClient
) -> None:
    clock = Freezable()
    leader = Elector(client, ns, "first", TIMING, clock=clock)
    standby = Elector(client, ns, "second", TIMING)
    assert await leads(leader) == "first/0"
    keeping = asyncio.create_task(leader.keep())
    clock.freeze()
    assert await leads(standby) == "second/1"
    assert not leader.leading
    clock.thaw()
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(keeping, CEILING_SECONDS)
    assert record(cp, ns)["holderIdentity"] == "second"


async def test_a_standby_waits_as_long_as_the_leader_lives_whatever_its_clock_says(
    cp: ControlPlane, ns: str, client: KubeClient
) -> None:
    leader = Elector(client, ns, "first", TIMING, clock=Skewed())
    standby = Elector(client, ns, "second", TIMING, clock=Skewed())
    await leads(leader)
    keeping = asyncio.create_task(leader.keep())
    waiting = asyncio.create_task(standby.acquire())
    await asyncio.sleep(2 * TIMING.lease_seconds)
    assert not waiting.done()
    assert leader.leading
    await ended(keeping)
    assert await asyncio.wait_for(waiting, CEILING_SECONDS) == "second/1"


async def test_a_released_lease_is_taken_without_waiting_for_its_end(
    cp: ControlPlane, ns: str, client: KubeClient
) -> None:
    patient = Timing(lease_seconds=300, renew_seconds=200.0, retry_seconds=0.2)
    leader = Elector(client, ns, "first", patient)
    await leads(leader)
    await leader.release()
    assert record(cp, ns)["holderIdentity"] == ""
    assert await leads(Elector(client, ns, "second", patient)) == "second/1"


async def test_a_new_process_of_the_same_name_is_a_new_epoch(cp: ControlPlane, ns: str, client: KubeClient) -> None:
    assert await leads(Elector(client, ns, "same", TIMING)) == "same/0"
    assert await leads(Elector(client, ns, "same", TIMING)) == "same/1"


async def test_of_many_that_start_together_one_leads(cp: ControlPlane, ns: str, client: KubeClient) -> None:
    electors = [Elector(client, ns, f"candidate-{number}", TIMING) for number in range(5)]
    tasks = [asyncio.create_task(one.acquire()) for one in electors]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=CEILING_SECONDS)
    await asyncio.sleep(2 * TIMING.retry_seconds)
    assert [one.leading for one in electors].count(True) == 1
    await ended(*tasks)


async def test_a_leader_survives_a_lost_reply_and_a_short_refusal(ns: str, proxied: tuple[FaultProxy, Path]) -> None:
    proxy, kubeconfig = proxied
    async with connected(kubeconfig) as client:
        leader = Elector(client, ns, "first", TIMING)
        await leads(leader)
        keeping = asyncio.create_task(leader.keep())
        lost = proxy.add(LoseReply(), writes("leases"), times=1)
        await asyncio.to_thread(lost.wait_hit)
        refused = proxy.add(Answer(500), writes("leases"), times=2)
        await asyncio.to_thread(refused.wait_hit)
        await asyncio.sleep(2 * TIMING.renew_seconds)
        assert not keeping.done()
        assert leader.fence == "first/0"
        assert leader.leading
        await ended(keeping)


async def test_a_leader_without_network_ends_before_anybody_else_may_lead(
    ns: str, proxied: tuple[FaultProxy, Path]
) -> None:
    proxy, kubeconfig = proxied
    async with connected(kubeconfig) as client:
        leader = Elector(client, ns, "first", TIMING)
        await leads(leader)
        keeping = asyncio.create_task(leader.keep())
        proxy.add(Answer(503), _of_leases)
        with pytest.raises(LeaseLost, match="could not renew"):
            await asyncio.wait_for(keeping, CEILING_SECONDS)
        assert not leader.leading
        proxy.clear()


def _of_leases(request: Request) -> bool:
    return "/leases" in request.path
