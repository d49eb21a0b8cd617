"""One object that cannot be read is set aside and said, and never keeps the others of its kind from being heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from penstock.cluster.answers import Page
from penstock.cluster.client import KubeClient, Query
from penstock.cluster.feeds import informers
from penstock.cluster.informer import Informer
from penstock.cluster.state import ClusterState
from penstock.metrics import Metrics

Object = dict[str, Any]

NO_QUANTITY = {"resources": {"requests": {"cpu": "some"}}}
UNREADABLE: dict[str, Object] = {
    "nodes": {"status": {"allocatable": {"cpu": "some"}}},
    "gpunodes": {"status": {"sequence": "first"}},
    "pods": {"spec": {"containers": [NO_QUANTITY]}},
    "deployments": {"spec": {"replicas": "some"}},
    "replicasets": {"spec": {"replicas": "some"}},
    "services": {"metadata": {"labels": "some"}},
    "priorityclasses": {"value": "high"},
    "namespaces": {"metadata": {"labels": "some"}},
}
READABLE: dict[str, Object] = {"pods": {"spec": {"containers": []}}}


def obj(name: str, *parts: Object) -> Object:
    found: Object = {"metadata": {"name": name, "namespace": "search", "uid": name, "resourceVersion": "7"}}
    for part in parts:
        for field, value in part.items():
            found[field] = {**found[field], **value} if field == "metadata" else value
    return found


class Server(KubeClient):
    """An API server that has these objects, then says these lines, then nothing more."""

    def __init__(self, objects: Iterable[Object], events: Iterable[tuple[str, Object]] = ()) -> None:
        self._items = [msgspec.Raw(msgspec.json.encode(one)) for one in objects]
        self._lines = [msgspec.json.encode({"type": kind, "object": one}) for kind, one in events]
        self.said = asyncio.Event()

    async def list_pages(self, path: str, query: Query | None = None) -> AsyncIterator[Page]:
        yield Page(self._items, "7", 1000.0)

    async def watch_lines(
        self,
        path: str,
        resource_version: str,
        query: Query | None = None,
        *,
        quiet_seconds: float,
        server_seconds: int,
        rest_seconds: float = 0.0,
    ) -> AsyncIterator[bytes]:
        for line in self._lines:
            yield line
        self.said.set()
        await asyncio.Event().wait()


def of(resource: str, server: Server, state: ClusterState, metrics: Metrics) -> Informer[Any]:
    return next(one for one in informers(server, state, metrics) if one.kind.resource == resource)


@asynccontextmanager
async def heard(server: Server, informer: Informer[Any]) -> AsyncIterator[None]:
    """The informer once it heard all that the server says."""
    task = asyncio.create_task(informer.run())
    async with asyncio.timeout(10):
        await server.said.wait()
    yield
    assert not task.done(), "the informer ended"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def known(state: ClusterState, resource: str) -> set[str]:
    kinds: dict[str, Iterable[object]] = {
        "nodes": state.nodes,
        "gpunodes": state.telemetry,
        "pods": state.pods,
        "deployments": (key.name for key in state.deployments),
        "replicasets": (key.name for key in state.replica_sets),
        "services": (key.name for key in state.services),
        "priorityclasses": state.priority_classes,
        "namespaces": state.namespaces,
    }
    return {str(name) for name in kinds[resource]}


def count(metrics: Metrics, name: str, resource: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"resource": resource})


@pytest.mark.parametrize("resource", UNREADABLE)
async def test_one_that_cannot_be_read_among_three_is_set_aside_counted_and_told_once(
    resource: str, caplog: pytest.LogCaptureFixture
) -> None:
    state, metrics, fair = ClusterState(now=lambda: 1000.0), Metrics(), READABLE.get(resource, {})
    bad = obj("b", fair, UNREADABLE[resource])
    server = Server([obj("a", fair), bad, obj("c", fair)], [("MODIFIED", bad), ("ADDED", obj("d", fair))])
    async with heard(server, of(resource, server, state, metrics)):
        assert {"a", "c", "d"} <= known(state, resource)
        assert count(metrics, "penstock_unreadable_objects", resource) == 1
        relists = {"resource": resource, "why": "error"}
        assert metrics.registry.get_sample_value("penstock_watch_relists_total", relists) is None, "it never gave up"
        assert caplog.text.count("cannot be read and is set aside") == 1


@pytest.mark.parametrize("resource", sorted(UNREADABLE.keys() - {"gpunodes"}))
async def test_what_was_read_of_it_before_stays_until_it_is_gone(resource: str) -> None:
    state, metrics, fair = ClusterState(now=lambda: 1000.0), Metrics(), READABLE.get(resource, {})
    bad = obj("a", fair, UNREADABLE[resource])
    server = Server([obj("a", fair)], [("MODIFIED", bad)])
    async with heard(server, of(resource, server, state, metrics)):
        assert known(state, resource) == {"a"}
    server = Server([obj("a", fair)], [("MODIFIED", bad), ("DELETED", bad)])
    async with heard(server, of(resource, server, state, metrics)):
        assert known(state, resource) == set()
        assert count(metrics, "penstock_unreadable_objects", resource) == 0


async def test_a_gpu_node_that_cannot_be_read_is_doubted_with_all_that_was_heard_before() -> None:
    state = ClusterState(now=lambda: 1000.0)
    gpu = {"uuid": "GPU-0", "powerWatts": 600.0, "memoryTotalBytes": 1}
    fair = obj("a", {"status": {"heartbeatSeconds": 10, "sequence": 1, "gpus": [gpu]}})
    server = Server([fair, obj("b", UNREADABLE["gpunodes"])], [("MODIFIED", obj("a", UNREADABLE["gpunodes"]))])
    async with heard(server, of("gpunodes", server, state, Metrics())):
        assert [gpu.power_watts for gpu in state.telemetry["a"].gpus] == [600.0], "it goes on being charged"
        assert all("cannot be read" in state.telemetry[name].contradiction for name in ("a", "b"))
