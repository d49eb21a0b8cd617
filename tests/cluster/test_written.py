"""The kinds that people write reach the state through Kopf within moments, and through the roster in any case."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock.api.names import API_VERSION
from penstock.cluster.access import find_access
from penstock.cluster.client import KubeClient
from penstock.cluster.roster import Roster
from penstock.cluster.state import ClusterState
from penstock.core.model import PoolKey
from penstock.errors import StreamBroken
from penstock.handlers.watch import watch_written_kinds
from penstock.metrics import Metrics
from rig.controlplane import ControlPlane
from rig.faults import FaultProxy, Silence, StreamError, watches
from rig.waiting import wait_for

CEILING_SECONDS = 30
POOLS = f"/apis/{API_VERSION}/namespaces/default/inferencepools"
DOMAINS = f"/apis/{API_VERSION}/powerdomains"
TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(audit=True, kubelet=False, scheduler=False) as plane:
        plane.kubectl("apply", "--server-side", "-f", "crds")
        wait_for("the kinds are served", lambda: plane.api.get(POOLS) and plane.api.get(DOMAINS), CEILING_SECONDS)
        plane.kubectl("create", "serviceaccount", "watcher")
        plane.kubectl(
            "create", "clusterrolebinding", "watcher", "--clusterrole=cluster-admin", "--serviceaccount=default:watcher"
        )
        yield plane


@dataclass
class Watching:
    """Kopf by way of the proxy, its state, and whether a SIGTERM came to us."""

    plane: ControlPlane
    proxy: FaultProxy
    kubeconfig: Path
    state: ClusterState
    kopf: asyncio.Task[None]
    terminated: asyncio.Event

    async def until(self, what: str, probe: Callable[[], object]) -> None:
        await asyncio.to_thread(wait_for, what, probe, CEILING_SECONDS)

    async def write_pool(self, name: str) -> PoolKey:
        """Write a pool, and wait until it is known: then Kopf watches."""
        self.plane.api.create(POOLS, pool(name))
        key = PoolKey("default", name)
        await self.until(f"{key} is known", lambda: key in self.state.pools)
        return key


@pytest.fixture
async def watching(plane: ControlPlane) -> AsyncIterator[Watching]:
    state, terminated, loop = ClusterState(), asyncio.Event(), asyncio.get_running_loop()
    proxy = FaultProxy(plane)
    kubeconfig = proxy.kubeconfig(plane.service_account("default", "watcher"))
    access = await find_access(str(kubeconfig))
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    kopf = asyncio.create_task(watch_written_kinds(access, state))
    yield Watching(plane, proxy, kubeconfig, state, kopf, terminated)
    kopf.cancel()
    await asyncio.gather(kopf, return_exceptions=True)
    loop.remove_signal_handler(signal.SIGTERM)
    proxy.stop()
    for path in (POOLS, DOMAINS):
        for one in plane.api.list(path):
            plane.api.delete(f"{path}/{one['metadata']['name']}")


def pool(name: str, **spec: object) -> dict[str, Any]:
    body = {"model": {"name": "m"}, "engine": "vLLM", "template": TEMPLATE, **spec}
    return {"apiVersion": API_VERSION, "kind": "InferencePool", "metadata": {"name": name}, "spec": body}


def domain(name: str) -> dict[str, Any]:
    body = {"nodeSelector": {"matchLabels": {"row": "a"}}, "budget": {"watts": 10_000}}
    return {"apiVersion": API_VERSION, "kind": "PowerDomain", "metadata": {"name": name}, "spec": body}


async def test_what_people_write_change_and_delete_is_known_and_nothing_is_written_back(watching: Watching) -> None:
    api, state = watching.plane.api, watching.state
    key = await watching.write_pool("llama")
    api.create(DOMAINS, domain("row-a"))
    await watching.until("the domain is known", lambda: "row-a" in state.domains)
    api.patch(f"{POOLS}/llama", {"spec": {"replicas": 7}})
    await watching.until("seven replicas are known", lambda: getattr(state.pools[key].spec, "replicas", 0) == 7)
    stored = api.get(f"{POOLS}/llama")["metadata"]
    assert "finalizers" not in stored
    assert "annotations" not in stored
    api.delete(f"{POOLS}/llama")
    api.delete(f"{DOMAINS}/row-a")
    await watching.until("both are gone", lambda: not state.pools and not state.domains)


async def test_signals_come_to_us(watching: Watching) -> None:
    await watching.write_pool("llama")
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(watching.terminated.wait(), CEILING_SECONDS)
    assert not watching.kopf.done()


async def test_an_error_inside_kopfs_watch_ends_it_loudly(watching: Watching) -> None:
    await watching.write_pool("llama")
    watching.proxy.add(StreamError(500), watches("inferencepools"), times=1)
    watching.plane.api.create(POOLS, pool("second"))
    with pytest.raises(StreamBroken, match="InternalError"):
        await asyncio.wait_for(watching.kopf, CEILING_SECONDS)


async def test_a_deletion_that_kopf_never_saw_is_found_by_the_roster(watching: Watching) -> None:
    key = await watching.write_pool("llama")
    silence = watching.proxy.add(Silence(), watches("inferencepools"))
    watching.plane.api.create(POOLS, pool("unseen"))
    await asyncio.to_thread(silence.wait_hit, CEILING_SECONDS)
    watching.plane.api.delete(f"{POOLS}/llama")
    await asyncio.sleep(1)
    assert key in watching.state.pools, "Kopf saw the deletion, so this tries nothing"
    async with KubeClient(await find_access(str(watching.plane.kubeconfig)), Metrics()) as client:
        roster = Roster(client, watching.state, every_seconds=0.2)
        listing = asyncio.create_task(roster.run())
        expected = {PoolKey("default", "unseen")}
        await watching.until("the ghost is gone", lambda: watching.state.pools.keys() == expected)
        await watching.until("it knows that nothing is missing", roster.synced.is_set)
        assert roster.age_seconds < CEILING_SECONDS
        listing.cancel()
        await asyncio.gather(listing, return_exceptions=True)
