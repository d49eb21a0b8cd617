"""The informer and the client under it, against a real API server whose network breaks."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.api.names import API_VERSION, GATE, POOL_LABEL
from penstock.cluster import client as client_module
from penstock.cluster import wire
from penstock.cluster.access import find_access
from penstock.cluster.client import JSON_PATCH, KubeClient
from penstock.cluster.feeds import informers
from penstock.cluster.informer import Informer, Kind
from penstock.cluster.state import ClusterState
from penstock.core.manifests import Lift, lift_patch
from penstock.core.model import Pod
from penstock.errors import Conflict, TooManyRequests
from penstock.metrics import Metrics
from rig.controlplane import ControlPlane
from rig.faults import Answer, FaultProxy, LoseReply, Rule, Silence, StreamError, watches, writes
from rig.waiting import wait_for

QUIET_SECONDS = 1.5
CEILING_SECONDS = 30
GPU_NODES = f"/apis/{API_VERSION}/gpunodes"


@pytest.fixture(scope="module")
def identity(cp: ControlPlane) -> Path:
    """A ServiceAccount that may do everything: the proxy forwards tokens, not certificates."""
    name = "informer-test"
    cp.api.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": name}})
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": name}],
    }
    cp.api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    return cp.service_account("default", name)


@pytest.fixture
def proxy(cp: ControlPlane) -> Iterator[FaultProxy]:
    with FaultProxy(cp) as between:
        yield between


@dataclass
class Seen:
    """What an informer told: the names that it holds to exist."""

    names: set[str] = field(default_factory=set)
    puts: int = 0

    def put(self, seen: wire.Identified, _: float | None) -> None:
        self.puts += 1
        self.names.add(seen.metadata.name)

    def delete(self, key: str) -> None:
        self.names.discard(key)


@dataclass
class Bench:
    """One informer of ConfigMaps by way of the proxy, and its namespace as the administrator writes it."""

    cp: ControlPlane
    path: str
    seen: Seen
    informer: Informer[Any]
    metrics: Metrics

    def create(self, *names: str) -> None:
        for name in names:
            self.cp.api.create(self.path, {"metadata": {"name": name, "labels": {"app": "informer"}}})

    def delete(self, *names: str) -> None:
        for name in names:
            self.cp.api.delete(f"{self.path}/{name}")

    async def shows(self, *names: str) -> None:
        await until(f"the informer shows {len(names)} objects", lambda: self.seen.names == set(names))

    def relists(self, why: str) -> float:
        labels = {"resource": "configmaps", "why": why}
        return self.metrics.registry.get_sample_value("penstock_watch_relists_total", labels) or 0.0


async def until(what: str, probe: Callable[[], object]) -> None:
    """Wait beside the loop, so that the informer goes on."""
    await asyncio.to_thread(wait_for, what, probe, CEILING_SECONDS)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def hit(rule: Rule) -> None:
    await asyncio.to_thread(rule.wait_hit, CEILING_SECONDS)


@asynccontextmanager
async def client_of(kubeconfig: Path, metrics: Metrics) -> AsyncIterator[KubeClient]:
    async with KubeClient(await find_access(str(kubeconfig)), metrics) as client:
        yield client


@pytest.fixture
async def bench(cp: ControlPlane, ns: str, proxy: FaultProxy, identity: Path) -> AsyncIterator[Bench]:
    seen, metrics, path = Seen(), Metrics(), f"/api/v1/namespaces/{ns}/configmaps"
    kind = Kind(
        resource="configmaps",
        path=path,
        query={"labelSelector": "app=informer"},
        read=msgspec.json.Decoder(wire.Identified).decode,
        key=lambda one: one.name,
        put=seen.put,
        delete=seen.delete,
    )
    async with client_of(proxy.kubeconfig(identity), metrics) as client:
        informer = Informer(client, kind, metrics, quiet_seconds=QUIET_SECONDS)
        table = Bench(cp, path, seen, informer, metrics)
        table.create("a", "b", "c")
        running = asyncio.create_task(informer.run())
        yield table
        assert not running.done(), "the informer ended"
        await ended(running)
        proxy.clear()


async def test_a_list_comes_in_pages_and_is_whole(
    cp: ControlPlane, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.create("d", "e")
    monkeypatch.setattr(client_module, "PAGE_SIZE", 2)
    async with client_of(cp.kubeconfig, Metrics()) as client:
        pages = [page async for page in client.list_pages(bench.path, {"labelSelector": "app=informer"})]
    assert [len(page.items) for page in pages] == [2, 2, 1]
    assert len({page.resource_version for page in pages}) == 1


async def test_what_comes_after_the_list_is_watched(bench: Bench) -> None:
    await bench.shows("a", "b", "c")
    assert bench.informer.synced.is_set()
    bench.create("d")
    bench.delete("a")
    await bench.shows("b", "c", "d")
    assert bench.relists("start") == 1


async def test_what_was_deleted_while_history_was_lost_is_reported_as_deleted(bench: Bench, proxy: FaultProxy) -> None:
    await bench.shows("a", "b", "c")
    silence = proxy.add(Silence(), watches("configmaps"), times=1)
    bench.create("d")
    await hit(silence)
    proxy.add(Answer(410), watches("configmaps"), times=1)
    bench.delete("a", "b", "d")
    await bench.shows("c")
    assert bench.relists("gone") == 1


async def test_a_watch_that_died_without_a_word_is_noticed_and_resumed(bench: Bench, proxy: FaultProxy) -> None:
    await bench.shows("a", "b", "c")
    silence = proxy.add(Silence(), watches("configmaps"), times=1)
    bench.create("d")
    await hit(silence)
    bench.delete("a")
    puts = bench.seen.puts
    await bench.shows("b", "c", "d")
    assert bench.seen.puts == puts + 1, "resumed, not listed anew: only the new object came"
    assert bench.informer.age_seconds < CEILING_SECONDS


@pytest.mark.parametrize("status", (410, 429, 500))
async def test_an_error_inside_a_watch_loses_nothing(bench: Bench, proxy: FaultProxy, status: int) -> None:
    await bench.shows("a", "b", "c")
    error = proxy.add(StreamError(status), watches("configmaps"), times=1)
    bench.create("d")
    await hit(error)
    bench.delete("a")
    await bench.shows("b", "c", "d")
    assert bench.relists("gone") == (status == 410)


@pytest.mark.parametrize("fault", (Answer(429, retry_after_seconds=1), Answer(500), Answer(503), LoseReply()), ids=str)
async def test_a_list_or_watch_that_is_refused_comes_later(bench: Bench, proxy: FaultProxy, fault: Any) -> None:
    await bench.shows("a", "b", "c")
    proxy.add(Answer(410), watches("configmaps"), times=1)
    refused = proxy.add(fault, lambda request: request.path == bench.path, times=3)
    proxy.add(StreamError(410), watches("configmaps"), times=1)
    bench.create("d")
    await hit(refused)
    await bench.shows("a", "b", "c", "d")


# ---------------------------------------------------------------------------------------------------- age of telemetry


@pytest.fixture(scope="module")
def gpu_nodes(cp: ControlPlane) -> str:
    """The path where GPUNodes are served."""
    cp.kubectl("apply", "--server-side", "-f", "crds")
    wait_for("GPUNodes are served", lambda: cp.api.get(GPU_NODES), CEILING_SECONDS)
    return GPU_NODES


@pytest.fixture
def gpu_node(cp: ControlPlane, gpu_nodes: str) -> Iterator[str]:
    """A GPUNode as an agent makes it."""
    name = "gpu-aged"
    cp.api.create(gpu_nodes, _gpu_node(name, labels={"app.kubernetes.io/managed-by": "penstock-agent"}))
    yield name
    cp.api.delete(f"{gpu_nodes}/{name}")


@pytest.fixture
def untraced(cp: ControlPlane, gpu_nodes: str) -> Iterator[str]:
    """A GPUNode born with nothing but a name: the API server keeps no record of its writers."""
    name = "gpu-untraced"
    cp.api.create(gpu_nodes, _gpu_node(name))
    yield name
    cp.api.delete(f"{gpu_nodes}/{name}")


def _gpu_node(name: str, **metadata: object) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "GPUNode", "metadata": {"name": name, **metadata}}


def publish(cp: ControlPlane, name: str, sequence: int) -> None:
    status = {"sequence": sequence, "heartbeatSeconds": 10}
    cp.api.patch(f"{GPU_NODES}/{name}/status", {"status": status})


@asynccontextmanager
async def fresh_state(kubeconfig: Path, quiet_seconds: float = 70.0) -> AsyncIterator[ClusterState]:
    """What an operator that starts now gets to know of GPUNodes."""
    state, metrics = ClusterState(), Metrics()
    async with client_of(kubeconfig, metrics) as client:
        kind = next(one.kind for one in informers(client, state, metrics) if one.kind.resource == "gpunodes")
        informer = Informer(client, kind, metrics, quiet_seconds=quiet_seconds)
        running = asyncio.create_task(informer.run())
        await asyncio.wait_for(informer.synced.wait(), CEILING_SECONDS)
        yield state
        await ended(running)


def age_seconds(state: ClusterState, name: str) -> float:
    return time.monotonic() - state.telemetry[name].heard_at


async def test_after_a_start_the_age_of_a_report_is_the_api_servers_until_it_speaks(
    cp: ControlPlane, gpu_node: str
) -> None:
    publish(cp, gpu_node, 5)
    await asyncio.sleep(4)
    async with fresh_state(cp.kubeconfig) as state:
        # Both times of the API server are whole seconds.
        assert 3 <= age_seconds(state, gpu_node) <= 4 + CEILING_SECONDS
        publish(cp, gpu_node, 5)
        cp.api.patch(f"{GPU_NODES}/{gpu_node}", {"metadata": {"labels": {"touched": "yes"}}})
        await asyncio.sleep(1)
        assert age_seconds(state, gpu_node) >= 4, "a write without a new sequence freshened the dead"
        publish(cp, gpu_node, 6)
        await until("the agent speaks", lambda: state.telemetry[gpu_node].sequence == 6)
        assert age_seconds(state, gpu_node) < 4


async def test_a_report_of_unknown_age_is_stale_until_its_agent_speaks(cp: ControlPlane, untraced: str) -> None:
    publish(cp, untraced, 5)
    async with fresh_state(cp.kubeconfig) as state:
        assert age_seconds(state, untraced) == float("inf")
        publish(cp, untraced, 6)
        await until("the agent speaks", lambda: state.telemetry[untraced].sequence == 6)
        assert age_seconds(state, untraced) < CEILING_SECONDS


async def test_what_a_silent_watch_kept_from_us_is_as_old_as_it_is(
    cp: ControlPlane, proxy: FaultProxy, identity: Path, gpu_node: str
) -> None:
    publish(cp, gpu_node, 5)
    async with fresh_state(proxy.kubeconfig(identity), quiet_seconds=4) as state:
        silence = proxy.add(Silence(), watches("gpunodes"), times=1)
        publish(cp, gpu_node, 6)
        await hit(silence)
        await until("the gap is noticed", lambda: state.telemetry[gpu_node].sequence == 6)
        assert age_seconds(state, gpu_node) >= 2, "a report from before the gap looks as if it were new"
    proxy.clear()


# ---------------------------------------------------------------------------------------------------------- the client


@pytest.fixture
def gated_pod(cp: ControlPlane, ns: str) -> Pod:
    manifest = {
        "metadata": {"name": "gated", "labels": {POOL_LABEL: "llama"}},
        "spec": {"schedulingGates": [{"name": GATE}], "containers": [{"name": "c", "image": "i"}]},
    }
    made = cp.api.create(f"/api/v1/namespaces/{ns}/pods", manifest)
    return Pod(uid=made["metadata"]["uid"], namespace=ns, name="gated", pool="llama", gates=(GATE,))


def path_of(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


async def test_a_lift_whose_reply_was_lost_was_carried_out_once_and_says_conflict(
    cp: ControlPlane, proxy: FaultProxy, identity: Path, gated_pod: Pod
) -> None:
    patch = msgspec.json.encode(lift_patch(Lift(gated_pod, (), "n1", "{}", "a/1")))
    lost = proxy.add(LoseReply(), writes("pods"), times=1)
    async with client_of(proxy.kubeconfig(identity), Metrics()) as client:
        with pytest.raises(Conflict):
            await client.patch(path_of(gated_pod), patch, JSON_PATCH)
    assert lost.hits == 1
    stored = cp.api.get(path_of(gated_pod))
    assert "schedulingGates" not in stored["spec"]
    terms = stored["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    ]


async def test_a_write_that_may_not_be_repeated_is_sent_once(
    cp: ControlPlane, ns: str, proxy: FaultProxy, identity: Path
) -> None:
    refusal = proxy.add(Answer(429, retry_after_seconds=1), writes("configmaps"))
    async with client_of(proxy.kubeconfig(identity), Metrics()) as client:
        with pytest.raises(TooManyRequests) as refused:
            await client.create(f"/api/v1/namespaces/{ns}/configmaps", {"metadata": {"name": "once"}})
    assert refusal.hits == 1
    assert refused.value.retry_after_seconds == 1


async def test_a_write_that_the_api_server_puts_off_is_sent_again(
    cp: ControlPlane, proxy: FaultProxy, identity: Path, gated_pod: Pod
) -> None:
    patch = msgspec.json.encode(lift_patch(Lift(gated_pod, (), "n1", "{}", "a/1")))
    refusal = proxy.add(Answer(429, retry_after_seconds=1), writes("pods"), times=2)
    async with client_of(proxy.kubeconfig(identity), Metrics()) as client:
        await client.patch(path_of(gated_pod), patch, JSON_PATCH)
    assert refusal.hits == 2
    assert "schedulingGates" not in cp.api.get(path_of(gated_pod))["spec"]


async def test_the_wrong_pod_of_the_right_name_is_never_deleted(cp: ControlPlane, gated_pod: Pod) -> None:
    async with client_of(cp.kubeconfig, Metrics()) as client:
        with pytest.raises(Conflict):
            await client.delete(path_of(gated_pod), uid="00000000-0000-0000-0000-000000000000")
        assert cp.api.get(path_of(gated_pod))["metadata"]["uid"] == gated_pod.uid
        await client.delete(path_of(gated_pod), uid=gated_pod.uid, grace_seconds=0)
    await until("the pod is gone", lambda: not _exists(cp, gated_pod))


def _exists(cp: ControlPlane, pod: Pod) -> bool:
    found = cp.api.list(f"/api/v1/namespaces/{pod.namespace}/pods")
    return any(one["metadata"]["uid"] == pod.uid for one in found)
