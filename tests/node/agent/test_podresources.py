"""What the kubelet lists, and how far it is believed: against a real gRPC server on a unix socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.agent import podresources
from penstock.agent.podresources import Allocation, Device, PodName, PodResources, allocations
from penstock.agent.podresources_v1_pb2 import ListPodResourcesRequest, ListPodResourcesResponse

CEILING_SECONDS = 30.0
Container = dict[str, Any]


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podresources, "LEAST_PAUSE_SECONDS", 0.05)


def plugin(*ids: str, resource: str = "nvidia.com/gpu") -> Container:
    return {"name": "server", "devices": [{"resource_name": resource, "device_ids": ids}]}


def claim(device: str, driver: str = "gpu.nvidia.com", *, cdi: Sequence[str] = ()) -> Container:
    resource = {"driver_name": driver, "device_name": device, "cdi_devices": [{"name": one} for one in cdi]}
    named = {"claim_name": "trainer-gpu-x7k2", "claim_namespace": "search", "claim_resources": [resource]}
    return {"name": "server", "dynamic_resources": [named]}


def listed(*containers: Container, name: str = "llama-0") -> ListPodResourcesResponse:
    return ListPodResourcesResponse(pod_resources=[{"name": name, "namespace": "search", "containers": containers}])


HELD: dict[str, tuple[tuple[Container, ...], tuple[Device, ...]]] = {
    "whole GPUs": ((plugin("GPU-b", "GPU-a"),), (Device("GPU-a"), Device("GPU-b"))),
    "a replica of a shared GPU": ((plugin("GPU-a::3"),), (Device("GPU-a"),)),
    "a replica of a GPU that MPS shares, under the name that the plugin has for shared ones": (
        (plugin("GPU-a::7", resource="nvidia.com/gpu.shared"),),
        (Device("GPU-a"),),
    ),
    "two replicas of one GPU are one GPU": ((plugin("GPU-a::0", "GPU-a::1"),), (Device("GPU-a"),)),
    "a MIG device": ((plugin("MIG-1", resource="nvidia.com/mig-1g.18gb"),), (Device("MIG-1"),)),
    "a replica of a MIG device": ((plugin("MIG-1::0"),), (Device("MIG-1"),)),
    "two containers hold together": ((plugin("GPU-a"), plugin("GPU-b")), (Device("GPU-a"), Device("GPU-b"))),
    "a claim names the GPU by its minor number": ((claim("gpu-3"),), (Device(minor=3),)),
    "a claim that two containers share is one GPU": ((claim("gpu-3"), claim("gpu-3")), (Device(minor=3),)),
    "a claim of a part of a GPU": ((claim("gpu-3-mig-9-0-1"),), (Device(minor=3, mig="gpu-3-mig-9-0-1"),)),
    "a claim of a part of a GPU, as newer drivers name it": (
        (claim("gpu-3-mig-1g18gb-19-4"),),
        (Device(minor=3, mig="gpu-3-mig-1g18gb-19-4"),),
    ),
    "a claim whose CDI device is named as the claim's": (
        (claim("gpu-3", cdi=["k8s.gpu.nvidia.com/device=gpu-3", "k8s.gpu.nvidia.com/claim=7c-gpu-3"]),),
        (Device(minor=3),),
    ),
    "a claim whose CDI device is named by its UUID": (
        (claim("gpu-3", cdi=["nvidia.com/gpu=GPU-a"]),),
        (Device("GPU-a"),),
    ),
    "by another driver too": (
        (claim("slot-1", "gpu.example.com", cdi=["example.com/net=n", "nvidia.com/gpu=MIG-1"]),),
        (Device("MIG-1"),),
    ),
    "another vendor's CDI device": ((claim("slot-1", "gpu.example.com", cdi=["example.com/gpu=GPU-a"]),), ()),
    "a claim of somebody else's driver": ((claim("gpu-3", driver="gpu.example.com"),), ()),
    "a claim of what is no GPU": ((claim("imex-channel-0"),), ()),
    "another vendor's device": ((plugin("GPU-a", resource="example.com/gpu"),), ()),
    "an id that names no GPU": ((plugin("0"),), ()),
    "no device": (({"name": "server"},), ()),
}


@pytest.mark.parametrize(("containers", "held"), HELD.values(), ids=HELD.keys())
def test_what_a_pod_holds(containers: tuple[Container, ...], held: tuple[Device, ...]) -> None:
    found = allocations(listed(*containers))
    assert [(one.pod, one.devices) for one in found] == ([(PodName("search", "llama-0"), held)] if held else [])


CLAIMS: dict[str, tuple[tuple[Container, ...], tuple[str, ...]]] = {
    "through a claim": ((claim("gpu-3"),), ("search/trainer-gpu-x7k2",)),
    "one that two containers share": ((claim("gpu-3"), claim("gpu-3")), ("search/trainer-gpu-x7k2",)),
    "beside the device plugin's": ((plugin("GPU-a"), claim("gpu-3")), ("search/trainer-gpu-x7k2",)),
    "without a claim": ((plugin("GPU-a"),), ()),
    "through no claim of a GPU": ((plugin("GPU-a"), claim("imex-channel-0")), ()),
}


@pytest.mark.parametrize(("containers", "claims"), CLAIMS.values(), ids=CLAIMS.keys())
def test_through_which_claims_a_pod_holds_gpus(containers: tuple[Container, ...], claims: tuple[str, ...]) -> None:
    assert [one.claims for one in allocations(listed(*containers))] == [claims]


def test_a_pod_that_is_listed_twice_counts_once() -> None:
    twice = listed(plugin("GPU-a"))
    twice.MergeFrom(listed(plugin("GPU-b")))
    assert [one.devices for one in allocations(twice)] == [(Device("GPU-a"), Device("GPU-b"))]


@asynccontextmanager
async def kubelet(socket: Path, answer: Callable[[], ListPodResourcesResponse]) -> AsyncIterator[None]:
    async def handle(_: ListPodResourcesRequest, context: grpc.aio.ServicerContext) -> ListPodResourcesResponse:
        return answer()

    method = grpc.unary_unary_rpc_method_handler(
        handle, ListPodResourcesRequest.FromString, ListPodResourcesResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": method}),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    yield
    await server.stop(None)


@asynccontextmanager
async def asking(resources: PodResources) -> AsyncIterator[None]:
    task = asyncio.create_task(resources.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(CEILING_SECONDS):
        while not what():  # noqa: ASYNC110  what is looked at is no event
            await asyncio.sleep(0.02)


async def test_the_kubelet_is_asked_over_its_socket(tmp_path: Path) -> None:
    resources = PodResources(tmp_path / "kubelet.sock")
    assert resources.allocations(time.monotonic()) is None
    async with kubelet(tmp_path / "kubelet.sock", lambda: listed(plugin("GPU-a"))), asking(resources):
        await until(lambda: resources.allocations(time.monotonic()))
    assert resources.allocations(time.monotonic()) == (Allocation(PodName("search", "llama-0"), (Device("GPU-a"),)),)


async def test_an_answer_is_believed_for_fifteen_seconds_and_no_longer(tmp_path: Path) -> None:
    resources = PodResources(tmp_path / "kubelet.sock", clock=lambda: 100.0)
    async with kubelet(tmp_path / "kubelet.sock", listed), asking(resources):
        await until(lambda: resources.listed_at > 0)
    assert resources.allocations(115.0) == ()
    assert resources.allocations(115.1) is None


async def test_a_kubelet_that_comes_late_is_found(tmp_path: Path) -> None:
    resources = PodResources(tmp_path / "kubelet.sock")
    async with asking(resources):
        await asyncio.sleep(0.2)
        async with kubelet(tmp_path / "kubelet.sock", lambda: listed(plugin("GPU-a"))):
            await until(lambda: resources.allocations(time.monotonic()))


async def test_a_kubelet_that_hangs_is_given_up_on_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podresources, "DEADLINE_SECONDS", 0.2)
    hangs = [5.0, 0.0]

    async def handle(_: ListPodResourcesRequest, context: grpc.aio.ServicerContext) -> ListPodResourcesResponse:
        await asyncio.sleep(hangs.pop(0))
        return listed(plugin("GPU-a"))

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        handle, ListPodResourcesRequest.FromString, ListPodResourcesResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": method}),))
    server.add_insecure_port(f"unix:{tmp_path}/kubelet.sock")
    await server.start()
    resources = PodResources(tmp_path / "kubelet.sock")
    async with asking(resources):
        await until(lambda: resources.allocations(time.monotonic()))
    await server.stop(None)
    assert hangs == []


async def test_looking_again_does_not_wait_for_the_next_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podresources, "LIST_SECONDS", 3600.0)
    answers = [listed(), listed(plugin("GPU-a"))]
    resources = PodResources(tmp_path / "kubelet.sock")
    async with kubelet(tmp_path / "kubelet.sock", lambda: answers.pop(0)), asking(resources):
        await until(lambda: resources.listed_at > 0)
        resources.look_again()
        await until(lambda: resources.allocations(time.monotonic()))
