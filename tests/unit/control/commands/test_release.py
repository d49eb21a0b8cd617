"""What the off-ramp reads: an object that cannot be read is named, ends nothing, and lets nobody out of a law."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import msgspec
import pytest

import builders as a
from penstock.cluster.answers import Page
from penstock.cluster.client import KubeClient
from penstock.cluster.listing import Unread
from penstock.control.commands.release import observe, of_others, set_aside
from penstock.control.commands.release_nodes import observe_nodes
from penstock.core.model import PoolKey
from penstock.core.offramp import OffRamp

POOLS = "/apis/penstock.dev/v1alpha1/inferencepools"
GPU_NODES = "/apis/penstock.dev/v1alpha1/gpunodes"


class Server:
    """The API server's lists: by path, what stands there."""

    def __init__(self, **listed: Any) -> None:
        paths = {"pools": POOLS, "gpu_nodes": GPU_NODES, "namespaces": "/api/v1/namespaces", "nodes": "/api/v1/nodes"}
        paths["pods"] = "/api/v1/pods"
        paths["replica_sets"] = "/apis/apps/v1/replicasets"
        self._listed = {paths[name]: found for name, found in listed.items()}

    @property
    def client(self) -> KubeClient:
        return cast(KubeClient, self)

    async def list_pages(self, path: str) -> AsyncIterator[Page]:
        yield Page([msgspec.Raw(msgspec.json.encode(one)) for one in self._listed.get(path, ())], "1", 1e9)


def stored(name: str, namespace: str = "", **told: Any) -> Mapping[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": "1"}
    return {"metadata": metadata, **told}


def pool(name: str, namespace: str = "search", **told: Any) -> Mapping[str, Any]:
    server = {"name": "s", "image": "s", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    spec = {"replicas": 2, "template": {"spec": {"containers": [server]}}}
    return stored(name, namespace, **{"spec": spec, **told})


async def test_a_pool_that_cannot_be_read_keeps_its_pods_behind_the_gate_and_the_others_are_read() -> None:
    spoiled = {"metadata": {"name": "spoiled", "namespace": "search"}}
    aside: list[Unread] = []
    scene = await observe(Server(pools=[spoiled, pool("llama")]).client, aside)
    assert scene.laws[PoolKey("search", "spoiled")] is None
    assert scene.laws[PoolKey("search", "llama")]
    assert scene.replicas == {PoolKey("search", "llama"): 2}
    assert [one.title for one in aside] == ["aipool/spoiled -n search"]


async def test_no_pool_of_a_namespace_whose_law_cannot_be_read_is_let_go() -> None:
    spoiled = {"metadata": {"name": "search", "labels": 7}}
    aside: list[Unread] = []
    scene = await observe(Server(namespaces=[spoiled], pools=[pool("llama"), pool("chat", "shop")]).client, aside)
    assert scene.laws[PoolKey("search", "llama")] is None
    assert scene.laws[PoolKey("shop", "chat")]
    assert [one.title for one in aside] == ["namespace/search"]


async def test_a_gated_pod_of_no_pool_keeps_the_law_of_its_namespace() -> None:
    law = {f"law.penstock.dev/{axis}": "*" for axis in ("subdivision", "operator", "clearance", "evidence")}
    metadata = {"annotations": {**law, "law.penstock.dev/country": "DE"}, "labels": {"penstock.dev/law": "required"}}
    namespaces = [{"metadata": {"name": "bank", "uid": "b", **metadata}}, stored("toys")]
    namespaces.append({"metadata": {"name": "unread", "labels": 7}})
    spec = {"schedulingGates": [{"name": "penstock.dev/placement"}], "containers": [{"name": "s"}]}
    pods = [stored("alone", namespace, spec=spec, status={}) for namespace in ("bank", "toys", "unread")]
    scene = await observe(Server(namespaces=namespaces, pods=pods).client, [])
    ((german,),) = scene.laws[PoolKey("bank", "")] or ()
    assert german.values == ("DE",)
    assert (scene.laws[PoolKey("toys", "")], scene.laws[PoolKey("unread", "")]) == (((),), None)


@pytest.mark.parametrize(
    ("pool", "remedy"),
    (
        pytest.param("llama", "mend spec.residency", id="of a pool"),
        pytest.param("", "or have governance free the namespace (label penstock.dev/law)", id="of none"),
    ),
)
def test_a_pod_that_stays_behind_the_gate_is_told_with_what_would_free_it(pool: str, remedy: str) -> None:
    (line,) = of_others(OffRamp(unlawful=(a.pod("alone", node="", pool=pool, gates=("penstock.dev/placement",)),)))
    assert line.says.endswith(remedy)
    assert ("spec.residency" in line.says) is bool(pool)


async def test_a_template_of_somebody_s_that_cannot_be_read_is_named() -> None:
    aside: list[Unread] = []
    scene = await observe(Server(replica_sets=[stored("odd", "search", spec={"template": 7})]).client, aside)
    assert scene.holders == ()
    (line,) = set_aside(aside)
    assert (line.object, line.done) == ("replicaset/odd -n search", False)
    assert line.says.startswith("cannot be read and is set aside: Expected `object`")


async def test_a_report_that_cannot_be_read_keeps_no_other_node_from_being_cleared() -> None:
    spoiled = stored("gpu-1", status={"heartbeatSeconds": 1, "sequence": "one"})
    server = Server(gpu_nodes=[spoiled, stored("gpu-2")], nodes=[{"metadata": {"name": "gpu-3", "labels": 7}}])
    aside: list[Unread] = []
    assert [one.title for one in await observe_nodes(server.client, aside)] == ["gpunode/gpu-2"]
    assert [one.title for one in aside] == ["node/gpu-3", "gpunode/gpu-1"]
